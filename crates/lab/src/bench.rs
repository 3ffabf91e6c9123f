//! The benchmark: what a policy costs, as the ratio with / without, both from the same run.
//!
//! "Without" is the same lab with no agent on the endpoint's interface; "with" is the real agent with
//! a policy that has to judge every request. The two alternate, so that what else the machine does
//! hits both alike, and nginx is never restarted. Each value is the median of its runs.
//!
//! How to read the ratio: for rates (Gbit/s, connections/s, requests/s) higher is better and 1.0 means
//! that the policy costs nothing. For latencies it is with / without too, so lower is better. For
//! `cpu-per-gb` there is nothing to compare with: `without` is 0 and `ratio` is null.
//!
//! Bulk downloads come from nginx (sendfile for HTTP, OpenSSL for HTTPS); bulk uploads go to a sink
//! of the `tollgate` binary, because nginx writes bodies to files; the client is the `tollgate` binary
//! with one blocking thread per stream and buffers of 1 MiB (rustls for HTTPS). Connections, requests
//! and latencies are measured by wrk, with full TLS handshakes.

mod cases;
pub mod compare;
mod measure;
pub(crate) mod policies;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use cases::Case;

use crate::error::{LabError, Result};
use crate::lab::{self, Outside, UpOptions};
use crate::progress::Progress;
use crate::stats::{median, ratio};
use measure::Bench;

/// Name of the bench's lab.
pub const LAB_NAME: &str = "bench";
/// Runs of each case, with and without, unless told otherwise.
const RUNS: usize = 5;
/// Runs with `--quick`.
const RUNS_QUICK: usize = 1;
/// Time of one measurement.
const TIME: Duration = Duration::from_secs(2);
/// Time of one measurement with `--quick`.
const TIME_QUICK: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The `tollgate` binary: agent and helpers.
    pub tollgate: PathBuf,
    /// Names of cases; empty: all. See [`Case`].
    pub cases: Vec<String>,
    /// One short run of each.
    pub quick: bool,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// Runs of each case, with and without; `None`: 5, or 1 with `quick`.
    pub runs: Option<usize>,
    /// Name of the lab.
    pub lab: String,
}

impl BenchOptions {
    /// The whole benchmark with this binary.
    pub fn new(tollgate: impl Into<PathBuf>) -> Self {
        BenchOptions {
            tollgate: tollgate.into(),
            cases: Vec::new(),
            quick: false,
            outside: Outside::Veth,
            runs: None,
            lab: LAB_NAME.into(),
        }
    }
}

/// All results.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// One entry a case, in the order of [`Case::ALL`].
    pub cases: Vec<CaseResult>,
    /// How the outside handed packets to the node.
    pub outside: Outside,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseResult {
    /// Name of the case.
    pub name: &'static str,
    /// Unit of the values.
    pub unit: &'static str,
    /// Median without policy.
    pub without: f64,
    /// Median with policy.
    pub with: f64,
    /// With / without; null if there is nothing to compare with.
    pub ratio: Option<f64>,
    /// Runs that each median is of.
    pub runs: usize,
    /// The runs' values.
    pub samples: Samples,
}

/// The values of a case's runs, in the order they were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Samples {
    /// Without policy.
    pub without: Vec<f64>,
    /// With policy.
    pub with: Vec<f64>,
}

/// Runs the benchmark in a lab of its own, which is gone afterwards. Progress goes to standard
/// error.
///
/// # Errors
/// An unknown case, or anything that could not be measured.
pub fn run(options: &BenchOptions) -> Result<BenchReport> {
    let cases = Case::select(&options.cases)?;
    let runs = options
        .runs
        .unwrap_or(if options.quick { RUNS_QUICK } else { RUNS });
    if runs == 0 {
        return Err(LabError::Usage("a benchmark needs at least one run".into()));
    }
    let time = if options.quick { TIME_QUICK } else { TIME };
    let progress = Progress::new();
    progress.step("making the lab");
    let up = UpOptions {
        name: options.lab.clone(),
        outside: options.outside,
        ..UpOptions::default()
    };
    let lab = lab::up(&up)?;
    let results = measure_all(&lab, options, &cases, runs, time, &progress);
    progress.step("taking the lab down");
    let down = lab.down();
    let cases = results?;
    down?;
    Ok(BenchReport {
        cases,
        outside: options.outside,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
    })
}

fn measure_all(
    lab: &lab::Lab,
    options: &BenchOptions,
    cases: &[Case],
    runs: usize,
    time: Duration,
    progress: &Progress,
) -> Result<Vec<CaseResult>> {
    let mut bench = Bench::new(lab, options.tollgate.clone(), time)?;
    let mut results = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let mut samples = Samples::default();
        for run in 0..runs {
            // without, with; with, without; ...: drift hits both alike, and the agent is started
            // and stopped half as often.
            let order = if run % 2 == 0 {
                [false, true]
            } else {
                [true, false]
            };
            for with in order {
                let policy = if with { "with" } else { "without" };
                let (name, number, of) = (case.name(), index + 1, cases.len());
                progress.step(format!(
                    "[{number}/{of}] {name}, run {}, {policy} policy",
                    run + 1
                ));
                let value = bench.measure(*case, with)?;
                if with {
                    &mut samples.with
                } else {
                    &mut samples.without
                }
                .push(value);
            }
        }
        results.push(CaseResult::new(*case, samples));
    }
    bench.finish();
    Ok(results)
}

impl CaseResult {
    fn new(case: Case, samples: Samples) -> CaseResult {
        let without = median(&samples.without).unwrap_or(0.0);
        let with = median(&samples.with).unwrap_or(0.0);
        CaseResult {
            name: case.name(),
            unit: case.unit(),
            without,
            with,
            ratio: ratio(with, without),
            runs: samples.with.len(),
            samples,
        }
    }
}

impl BenchReport {
    /// Header of [`rows`](Self::rows).
    pub const HEADER: [&'static str; 6] = ["case", "unit", "without", "with", "ratio", "runs"];

    /// The results as cells for a table.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |case: &CaseResult| {
            vec![
                case.name.to_owned(),
                case.unit.to_owned(),
                number(case.without),
                number(case.with),
                case.ratio.map_or_else(|| "-".into(), |r| format!("{r:.3}")),
                case.runs.to_string(),
            ]
        };
        self.cases.iter().map(row).collect()
    }

    /// How to read the table, for below it.
    pub fn legend(&self) -> String {
        format!(
            "medians; ratio = with / without policy: higher is better for rates, lower for latencies\n\
             outside {}, {} CPUs, Linux {}",
            self.outside, self.cpus, self.kernel
        )
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_shape() {
        let samples = Samples {
            without: vec![10.0, 30.0, 20.0],
            with: vec![19.0, 18.0, 99.0],
        };
        let report = BenchReport {
            cases: vec![CaseResult::new(Case::HttpRequests, samples)],
            outside: Outside::Wire,
            cpus: 2,
            kernel: "6.1".into(),
        };
        let json = serde_json::to_value(&report).unwrap();
        let case = &json["cases"][0];
        assert_eq!(case["name"], "http-requests");
        assert_eq!(case["unit"], "requests/s");
        assert_eq!(case["without"], 20.0);
        assert_eq!(case["with"], 19.0);
        assert_eq!(case["ratio"], 0.95);
        assert_eq!(case["runs"], 3);
    }

    #[test]
    fn nothing_to_compare_with_is_null() {
        let samples = Samples {
            without: vec![0.0],
            with: vec![0.01],
        };
        let result = CaseResult::new(Case::CpuPerGb, samples);
        assert!(serde_json::to_value(result).unwrap()["ratio"].is_null());
    }

    #[test]
    fn numbers_show_what_means_something() {
        assert_eq!(number(12_345.6), "12346");
        assert_eq!(number(45.67), "45.7");
        assert_eq!(number(0.004_56), "0.0046");
    }
}
