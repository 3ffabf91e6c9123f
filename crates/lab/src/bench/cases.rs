//! What is measured.

use crate::error::{LabError, Result};

/// A case of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Bulk transfer.
    Bulk {
        /// HTTPS rather than HTTP.
        tls: bool,
        /// Towards the outside.
        upload: bool,
        /// Connections at a time.
        streams: Streams,
    },
    /// New HTTP connections, one request each.
    HttpConnections,
    /// New TLS connections with full handshakes, one request each.
    TlsConnections,
    /// Requests on keep-alive connections, each one judged.
    HttpRequests,
    /// Median latency of one request at a time.
    LatencyP50,
    /// 99th percentile of the latency of one request at a time.
    LatencyP99,
    /// CPU time of the agent per GB of bulk transfer.
    CpuPerGb,
    /// Like `HttpRequests`, under so many rules.
    Rules(Rules),
}

/// Connections at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// 1.
    One,
    /// 16.
    Sixteen,
}

/// Number of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// 1.
    R1,
    /// 100.
    R100,
    /// 10,000.
    R10000,
}

impl Streams {
    /// As a number.
    pub fn count(self) -> usize {
        match self {
            Streams::One => 1,
            Streams::Sixteen => 16,
        }
    }
}

impl Rules {
    /// As a number.
    pub fn count(self) -> usize {
        match self {
            Rules::R1 => 1,
            Rules::R100 => 100,
            Rules::R10000 => 10_000,
        }
    }
}

const fn bulk(tls: bool, upload: bool, streams: Streams) -> Case {
    Case::Bulk {
        tls,
        upload,
        streams,
    }
}

impl Case {
    /// All of them, in the order of reports.
    pub const ALL: [Case; 17] = [
        bulk(false, false, Streams::One),
        bulk(false, false, Streams::Sixteen),
        bulk(false, true, Streams::One),
        bulk(false, true, Streams::Sixteen),
        bulk(true, false, Streams::One),
        bulk(true, false, Streams::Sixteen),
        bulk(true, true, Streams::One),
        bulk(true, true, Streams::Sixteen),
        Case::HttpConnections,
        Case::TlsConnections,
        Case::HttpRequests,
        Case::LatencyP50,
        Case::LatencyP99,
        Case::CpuPerGb,
        Case::Rules(Rules::R1),
        Case::Rules(Rules::R100),
        Case::Rules(Rules::R10000),
    ];

    /// Its name, stable.
    pub fn name(self) -> &'static str {
        match self {
            Case::Bulk {
                tls,
                upload,
                streams,
            } => match (tls, upload, streams) {
                (false, false, Streams::One) => "http-download-1",
                (false, false, Streams::Sixteen) => "http-download-16",
                (false, true, Streams::One) => "http-upload-1",
                (false, true, Streams::Sixteen) => "http-upload-16",
                (true, false, Streams::One) => "https-download-1",
                (true, false, Streams::Sixteen) => "https-download-16",
                (true, true, Streams::One) => "https-upload-1",
                (true, true, Streams::Sixteen) => "https-upload-16",
            },
            Case::HttpConnections => "http-connections",
            Case::TlsConnections => "tls-connections",
            Case::HttpRequests => "http-requests",
            Case::LatencyP50 => "latency-p50",
            Case::LatencyP99 => "latency-p99",
            Case::CpuPerGb => "cpu-per-gb",
            Case::Rules(Rules::R1) => "rules-1",
            Case::Rules(Rules::R100) => "rules-100",
            Case::Rules(Rules::R10000) => "rules-10000",
        }
    }

    /// Unit of its values.
    pub fn unit(self) -> &'static str {
        match self {
            Case::Bulk { .. } => "Gbit/s",
            Case::HttpConnections | Case::TlsConnections => "connections/s",
            Case::HttpRequests | Case::Rules(_) => "requests/s",
            Case::LatencyP50 | Case::LatencyP99 => "us",
            Case::CpuPerGb => "s/GB",
        }
    }

    /// Rules that the policy has in it.
    pub fn rules(self) -> usize {
        match self {
            Case::Rules(rules) => rules.count(),
            _ => 1,
        }
    }

    /// Whether a lower value is better.
    pub fn lower_is_better(self) -> bool {
        matches!(self, Case::LatencyP50 | Case::LatencyP99 | Case::CpuPerGb)
    }

    /// The cases of these names, in the order of reports; all if there are none.
    ///
    /// # Errors
    /// [`LabError::Usage`] for an unknown name, with the known ones.
    pub fn select(names: &[String]) -> Result<Vec<Case>> {
        let known: Vec<&str> = Case::ALL.iter().map(|c| c.name()).collect();
        if let Some(unknown) = names.iter().find(|n| !known.contains(&n.as_str())) {
            let known = known.join(", ");
            return Err(LabError::Usage(format!(
                "no case {unknown:?}; there are {known}"
            )));
        }
        let wanted = |case: &Case| names.is_empty() || names.iter().any(|n| n == case.name());
        Ok(Case::ALL.into_iter().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        let names: Vec<&str> = Case::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(
            names.join(" "),
            "http-download-1 http-download-16 http-upload-1 http-upload-16 https-download-1 \
             https-download-16 https-upload-1 https-upload-16 http-connections tls-connections \
             http-requests latency-p50 latency-p99 cpu-per-gb rules-1 rules-100 rules-10000"
        );
    }

    #[test]
    fn cases_are_selected_by_name() {
        assert_eq!(Case::select(&[]).unwrap().len(), 17);
        let chosen = Case::select(&["rules-1".into(), "latency-p50".into()]).unwrap();
        assert_eq!(chosen, [Case::LatencyP50, Case::Rules(Rules::R1)]);
        let error = Case::select(&["http".into()]).unwrap_err();
        assert!(error.to_string().contains("http-download-1"), "{error}");
    }
}
