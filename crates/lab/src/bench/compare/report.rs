//! The comparison's results.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::peer::Peer;
use super::{CompareOptions, plot};
use crate::bench::{Case, Samples, number};
use crate::lab::Outside;
use crate::run::{Cmd, shorten};
use crate::stats::{median, ratio};

/// Bytes of a failure's reason that are kept.
const REASON: usize = 300;

/// All results.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// One entry for each case and each enforcer that takes it, in the order of [`Case::ALL`] and
    /// [`Peer::ALL`].
    pub cases: Vec<PeerResult>,
    /// How the outside handed packets to the node.
    pub outside: Outside,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// The machine's load averages of one minute before and after: a bench of its own keeps about as
    /// many processes busy as there are CPUs, and what is above that disturbed it.
    pub load: [f64; 2],
    /// What each enforcer says of its version.
    pub versions: BTreeMap<&'static str, String>,
}

/// The result of one case with one enforcer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerResult {
    /// Name of the case.
    pub name: &'static str,
    /// The enforcer.
    pub peer: Peer,
    /// Unit of the values.
    pub unit: &'static str,
    /// Median without policy.
    pub without: f64,
    /// Median with this enforcer; null if it failed.
    pub with: Option<f64>,
    /// With / without; null if there is nothing to compare with.
    pub ratio: Option<f64>,
    /// Runs of this enforcer that the median is of.
    pub runs: usize,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The runs' values.
    pub samples: Samples,
    #[serde(skip)]
    pub(super) case: Case,
}

impl PeerResult {
    pub(super) fn new(
        case: Case,
        peer: Peer,
        samples: Samples,
        failure: Option<String>,
    ) -> PeerResult {
        let without = median(&samples.without).unwrap_or(0.0);
        let with = median(&samples.with).filter(|_| failure.is_none());
        PeerResult {
            name: case.name(),
            peer,
            unit: case.unit(),
            without,
            with,
            ratio: with.and_then(|with| ratio(with, without)),
            runs: samples.with.len(),
            failure: failure.map(|text| shorten(&text, REASON)),
            samples,
            case,
        }
    }

    /// How much of the speed without policy is left: the ratio of rates, the inverse ratio of
    /// latencies; `None` of processor time, which has nothing to compare with, and of failures.
    pub fn speed(&self) -> Option<f64> {
        let ratio = self.ratio.filter(|ratio| *ratio > 0.0)?;
        Some(if self.case.lower_is_better() {
            1.0 / ratio
        } else {
            ratio
        })
    }

    /// Its cell in the table.
    fn cell(&self) -> String {
        match (self.with, self.ratio) {
            (None, _) => "fails".into(),
            (Some(value), None) => number(value),
            (Some(value), Some(ratio)) => format!("{} ({ratio:.2})", number(value)),
        }
    }
}

impl CompareReport {
    pub(super) fn new(
        options: &CompareOptions,
        peers: &[Peer],
        cases: Vec<PeerResult>,
        load_before: f64,
    ) -> CompareReport {
        let root = options.suricata_root.as_deref();
        let version = |peer: &Peer| Some((peer.name(), version(*peer, root)?));
        CompareReport {
            cases,
            outside: options.outside,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            load: [load_before, load()],
            versions: peers.iter().filter_map(version).collect(),
        }
    }

    /// The enforcers that have results, in the order of reports.
    pub fn peers(&self) -> Vec<Peer> {
        let has = |peer: &Peer| self.cases.iter().any(|result| result.peer == *peer);
        Peer::ALL.into_iter().filter(has).collect()
    }

    /// The results of each case together, in their order.
    pub(super) fn by_case(&self) -> impl Iterator<Item = &[PeerResult]> {
        self.cases.chunk_by(|a, b| a.name == b.name)
    }

    /// Header of [`rows`](Self::rows).
    pub fn header(&self) -> Vec<String> {
        let fixed = ["CASE", "UNIT", "NO-POLICY"].map(str::to_owned);
        let peers = self.peers().into_iter();
        let names = peers.map(|peer| peer.name().to_uppercase());
        fixed.into_iter().chain(names).collect()
    }

    /// The results as cells for a table: a row a case, a column an enforcer.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let peers = self.peers();
        let row = |results: &[PeerResult]| {
            let first = results.first()?;
            let cell = |peer: &Peer| {
                let own = results.iter().find(|result| result.peer == *peer);
                own.map_or_else(|| "-".to_owned(), PeerResult::cell)
            };
            let fixed = [first.name.into(), first.unit.into(), number(first.without)];
            Some(fixed.into_iter().chain(peers.iter().map(cell)).collect())
        };
        self.by_case().filter_map(row).collect()
    }

    /// How to read the table, what failed and what was compared, for below it.
    pub fn legend(&self) -> String {
        let mut lines = vec![
            "medians; in parentheses the ratio to no policy: higher is better for rates, lower for \
             latencies; -: not taken"
                .to_owned(),
        ];
        let failures = self.cases.iter().filter_map(|result| {
            let why = result.failure.as_deref()?;
            Some(format!("{}, {}: {why}", result.name, result.peer))
        });
        lines.extend(failures);
        lines.extend(self.versions.iter().map(|(name, v)| format!("{name}: {v}")));
        let [before, after] = self.load;
        lines.push(format!(
            "outside {}, {} CPUs, Linux {}; load average {before:.1} before, {after:.1} after",
            self.outside, self.cpus, self.kernel
        ));
        lines.join("\n")
    }

    /// The ratios as bars, as an SVG document.
    pub fn plot(&self) -> String {
        plot::svg(self)
    }
}

/// The machine's load average of one minute; 0 if the kernel does not tell.
pub(super) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// What an enforcer says of its version; Tollgate's is the reader's own.
fn version(peer: Peer, suricata_root: Option<&Path>) -> Option<String> {
    let cmd = match peer {
        Peer::Tollgate | Peer::DropIn | Peer::Workaround => return None,
        Peer::Suricata => Cmd::new("chroot")
            .arg(suricata_root?)
            .args(["/usr/bin/suricata", "-V"]),
        Peer::HaProxy => Cmd::line("haproxy -v"),
        Peer::Nginx => Cmd::line("nginx -v"),
    };
    let output = cmd.output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    said.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::cases::{Rules, Streams};

    pub fn report() -> CompareReport {
        let result = |case, peer, without: &[f64], with: &[f64], failure: Option<&str>| {
            let samples = Samples {
                without: without.to_vec(),
                with: with.to_vec(),
            };
            PeerResult::new(case, peer, samples, failure.map(Into::into))
        };
        let bulk = Case::Bulk {
            tls: true,
            upload: false,
            streams: Streams::One,
        };
        CompareReport {
            cases: vec![
                result(bulk, Peer::Tollgate, &[10.0, 9.0, 11.0], &[9.0], None),
                result(bulk, Peer::Nginx, &[10.0, 9.0, 11.0], &[5.0], None),
                result(Case::LatencyP50, Peer::Tollgate, &[20.0], &[25.0], None),
                result(
                    Case::Rules(Rules::R1),
                    Peer::Suricata,
                    &[1e5],
                    &[3e4],
                    Some("wrk: <timeout>"),
                ),
                result(Case::CpuPerGb, Peer::Nginx, &[0.0], &[1.5], None),
            ],
            outside: Outside::Wire,
            cpus: 2,
            kernel: "6.1".into(),
            load: [0.5, 2.25],
            versions: BTreeMap::from([("nginx", "nginx/1.22".into())]),
        }
    }

    #[test]
    fn json_has_the_documented_shape() {
        let json = serde_json::to_value(report()).unwrap();
        let first = &json["cases"][1];
        assert_eq!(first["name"], "https-download-1");
        assert_eq!(first["peer"], "nginx");
        assert_eq!(first["unit"], "Gbit/s");
        assert_eq!(first["without"], 10.0);
        assert_eq!(first["with"], 5.0);
        assert_eq!(first["ratio"], 0.5);
        assert_eq!(first["runs"], 1);
        assert!(first["failure"].is_null());
        let failed = &json["cases"][3];
        assert!(failed["with"].is_null() && failed["ratio"].is_null());
        assert_eq!(failed["failure"], "wrk: <timeout>");
        assert_eq!(json["load"], serde_json::json!([0.5, 2.25]));
        assert_eq!(json["versions"]["nginx"], "nginx/1.22");
    }

    #[test]
    fn the_table_has_a_row_a_case_and_a_column_an_enforcer() {
        let report = report();
        assert_eq!(
            report.header().join(" "),
            "CASE UNIT NO-POLICY TOLLGATE SURICATA NGINX"
        );
        let rows: Vec<String> = report.rows().iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            rows[0],
            "https-download-1 Gbit/s 10.0 9.0 (0.90) - 5.0 (0.50)"
        );
        assert_eq!(rows[2], "rules-1 requests/s 100000 - fails -");
        assert_eq!(rows[3], "cpu-per-gb s/GB 0.0000 - - 1.5");
        let legend = report.legend();
        assert!(legend.contains("rules-1, suricata: wrk: <timeout>"));
        assert!(
            legend.contains("load average 0.5 before, 2.2 after"),
            "{legend}"
        );
    }

    #[test]
    fn speed_is_higher_where_latency_is_lower() {
        let speeds: Vec<Option<f64>> = report().cases.iter().map(PeerResult::speed).collect();
        assert_eq!(speeds, [Some(0.9), Some(0.5), Some(0.8), None, None]);
    }
}
