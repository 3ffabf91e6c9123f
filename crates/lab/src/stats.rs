//! Medians, and numbers out of other programs' output.

use crate::error::{LabError, Result};
use crate::run::shorten;

/// Median of some values; of an even number, the mean of the middle two. `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => sorted.get(middle).copied(),
        _ => Some((sorted.get(middle - 1)? + sorted.get(middle)?) / 2.0),
    }
}

/// `with / without`, if both are there and it means something.
pub fn ratio(with: f64, without: f64) -> Option<f64> {
    let ratio = with / without;
    (without > 0.0 && ratio.is_finite()).then_some(ratio)
}

/// What `wrk --latency` reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrk {
    /// Requests per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: f64,
}

impl Wrk {
    /// Reads its output; a run with failed requests is no measurement.
    ///
    /// # Errors
    /// A number is missing, or requests failed.
    pub fn parse(text: &str) -> Result<Wrk> {
        let after = |label: &str| {
            let line = text.lines().map(str::trim).find(|l| l.starts_with(label))?;
            line[label.len()..].split_whitespace().next()
        };
        if let Some(count) = after("Non-2xx or 3xx responses:") {
            return Err(LabError::Traffic(format!(
                "{count} requests were not answered with 2xx"
            )));
        }
        if let Some(line) = text
            .lines()
            .find(|l| l.trim().starts_with("Socket errors:"))
        {
            return Err(LabError::Traffic(format!("wrk: {}", line.trim())));
        }
        let parsed = || {
            Some(Wrk {
                rate: after("Requests/sec:")?.parse().ok()?,
                p50_us: microseconds(after("50%")?)?,
                p99_us: microseconds(after("99%")?)?,
            })
        };
        parsed().ok_or_else(|| LabError::Parse {
            what: "wrk's output",
            text: shorten(text, 200),
        })
    }
}

/// A time as wrk prints it, in microseconds.
fn microseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// Sum of the checksum error counters in the texts of `/proc/net/snmp` and `/proc/net/snmp6`.
///
/// # Errors
/// The TCP counter is missing, which would make the sum meaningless.
pub fn checksum_errors(snmp: &str) -> Result<u64> {
    let lines: Vec<&str> = snmp.lines().collect();
    let pairs = lines.windows(2).filter(|w| {
        let protocol = |line: &str| line.split(':').next().map(ToOwned::to_owned);
        protocol(w[0]) == protocol(w[1]) && w[0].contains("InCsumErrors")
    });
    let mut seen_tcp = false;
    let mut sum = 0;
    for pair in pairs {
        let position = pair[0].split_whitespace().position(|f| f == "InCsumErrors");
        let value = position.and_then(|p| pair[1].split_whitespace().nth(p)?.parse::<u64>().ok());
        let Some(value) = value else { continue };
        seen_tcp |= pair[0].starts_with("Tcp:");
        sum += value;
    }
    for line in lines {
        let mut words = line.split_whitespace();
        if words.next().is_some_and(|w| w.ends_with("6InCsumErrors")) {
            sum += words
                .next()
                .and_then(|v| v.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    if seen_tcp {
        return Ok(sum);
    }
    Err(LabError::Parse {
        what: "/proc/net/snmp",
        text: shorten(snmp, 200),
    })
}

/// One counter of `/proc/net/snmp`, e.g. `Tcp` and `RetransSegs`.
///
/// # Errors
/// It is not there.
pub fn snmp_counter(snmp: &str, protocol: &str, name: &str) -> Result<u64> {
    let mut lines = snmp
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(of, _)| *of == protocol)
        .map(|(_, words)| words.split_whitespace());
    let mut value = || {
        let position = lines.next()?.position(|word| word == name)?;
        lines.next()?.nth(position)?.parse().ok()
    };
    value().ok_or_else(|| LabError::Parse {
        what: "/proc/net/snmp",
        text: shorten(snmp, 200),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0][..], Some(3.0)),
            (&[9.0, 1.0, 2.0][..], Some(2.0)),
            (&[4.0, 1.0, 2.0, 9.0][..], Some(3.0)),
        ] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn ratios_that_mean_nothing_are_none() {
        assert_eq!(ratio(1.0, 2.0), Some(0.5));
        for (with, without) in [
            (1.0, 0.0),
            (0.0, 0.0),
            (f64::NAN, 1.0),
            (f64::INFINITY, 1.0),
        ] {
            assert_eq!(ratio(with, without), None);
        }
    }

    const WRK: &str = "Running 2s test @ http://192.0.2.10/v2/small
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   688.45us  214.31us   4.02ms   81.02%
    Req/Sec    44.72k     3.30k   49.97k    75.00%
  Latency Distribution
     50%  661.00us
     75%  765.00us
     90%    0.91ms
     99%    1.42ms
  89050 requests in 2.00s, 19.78MB read
Requests/sec:  44486.78
Transfer/sec:      9.88MB
";

    #[test]
    fn reads_wrk() {
        let expected = Wrk {
            rate: 44486.78,
            p50_us: 661.0,
            p99_us: 1420.0,
        };
        assert_eq!(Wrk::parse(WRK).unwrap(), expected);
        assert_eq!(microseconds("1.50s"), Some(1_500_000.0));
        assert_eq!(microseconds("5"), None);
    }

    #[test]
    fn a_run_with_failed_requests_is_no_measurement() {
        for line in [
            "  Socket errors: connect 0, read 3, write 0, timeout 0",
            "  Non-2xx or 3xx responses: 7",
        ] {
            assert!(Wrk::parse(&format!("{WRK}{line}\n")).is_err(), "{line}");
        }
        assert!(Wrk::parse("").is_err());
    }

    #[test]
    fn sums_checksum_errors_of_all_protocols() {
        let snmp = "Ip: Forwarding InCsumErrors\nIp: 1 0\n\
            Icmp: InMsgs InErrors InCsumErrors\nIcmp: 5 4 1\n\
            Tcp: RtoMin InErrs OutRsts InCsumErrors\nTcp: 200 9 9 2\n\
            Udp: InDatagrams InCsumErrors\nUdp: 77 3\n\
            Ip6InReceives 44\nUdp6InCsumErrors 4\nIcmp6InCsumErrors 5\n";
        assert_eq!(checksum_errors(snmp).unwrap(), 15);
        assert!(checksum_errors("Udp: InCsumErrors\nUdp: 0\n").is_err());
    }

    #[test]
    fn reads_one_counter() {
        let snmp = "Tcp: RtoMin RetransSegs InErrs\nTcp: 200 17 2\nUdp: InErrs\nUdp: 5\n";
        assert_eq!(snmp_counter(snmp, "Tcp", "RetransSegs").unwrap(), 17);
        assert_eq!(snmp_counter(snmp, "Udp", "InErrs").unwrap(), 5);
        for (protocol, name) in [("Tcp", "NoSuch"), ("Ip", "InErrs")] {
            assert!(snmp_counter(snmp, protocol, name).is_err(), "{name}");
        }
    }
}
