//! `tollgate bench`

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use tollgate_lab::bench::compare::{self, CompareOptions, Peer};
use tollgate_lab::bench::{self, BenchOptions, BenchReport, CaseResult};
use tollgate_lab::interrupt;
use tollgate_lab::lab::Outside;

use crate::commands::lab::{failure, this_binary};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, json, or_dash, table, table_of};

/// Measure with and without policy, in a lab of its own: medians of alternated runs and their ratio.
///
/// For rates, higher is better and 1.0 means that the policy costs nothing; for latencies, lower is
/// better. Progress goes to standard error. Needs root, nginx and wrk.
///
/// With --compare, other enforcers have their turns with the same traffic in the same lab, each with
/// the same policy in its own words; each takes the cases that it can.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this case; may be given several times. An unknown name shows which there are
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// One short run of each case
    #[arg(long)]
    quick: bool,
    /// Runs of each case, with and without policy
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// How the outside hands packets over: veth (super-packets) or wire (MTU-sized frames)
    /// [default: veth, with --compare wire]
    #[arg(long, value_name = "KIND")]
    outside: Option<Outside>,
    /// Compare with these, separated by commas; an unknown name shows which there are
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    compare: Vec<Peer>,
    /// Directory with a system that has Suricata; `scripts/suricata-chroot.sh DIR` makes one
    #[arg(long, value_name = "DIR", requires = "compare")]
    suricata_root: Option<PathBuf>,
    /// Name of the comparison's lab; others of the same name are removed
    #[arg(long, value_name = "NAME", requires = "compare")]
    #[arg(default_value = compare::LAB_NAME)]
    name: String,
    /// Write the ratios as bars to this file, as SVG
    #[arg(long, value_name = "FILE", requires = "compare")]
    plot: Option<PathBuf>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Measures and shows.
pub fn run(args: Args) -> Outcome {
    interrupt::install();
    if !args.compare.is_empty() {
        return run_comparison(args);
    }
    let options = BenchOptions {
        cases: args.cases,
        quick: args.quick,
        runs: args.runs,
        outside: args.outside.unwrap_or_default(),
        ..BenchOptions::new(this_binary()?)
    };
    let report = bench::run(&options).map_err(failure)?;
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => writeln!(out, "{}", render(&report))?,
    }
    Ok(Code::Ok)
}

/// Measures others too, and shows.
fn run_comparison(args: Args) -> Outcome {
    let options = CompareOptions {
        cases: args.cases,
        quick: args.quick,
        runs: args.runs,
        outside: args.outside.unwrap_or(Outside::Wire),
        suricata_root: args.suricata_root,
        lab: args.name,
        ..CompareOptions::new(this_binary()?, &args.compare)
    };
    let report = compare::run(&options).map_err(failure)?;
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => {
            let rows = table_of(report.header(), report.rows());
            writeln!(out, "{rows}\n\n{}", report.legend())?;
        }
    }
    if let Some(path) = args.plot {
        let written = fs::write(&path, report.plot());
        written
            .map_err(|e| Failure::new(Code::Failed, format!("writing {}: {e}", path.display())))?;
    }
    Ok(Code::Ok)
}

fn render(report: &BenchReport) -> String {
    let row = |case: &CaseResult| {
        [
            case.name.to_owned(),
            case.unit.to_owned(),
            format!("{:.2}", case.without),
            format!("{:.2}", case.with),
            or_dash(case.ratio.map(|ratio| format!("{ratio:.2}"))),
            case.runs.to_string(),
        ]
    };
    let header = ["CASE", "UNIT", "WITHOUT", "WITH", "RATIO", "RUNS"];
    let cases = table(header, report.cases.iter().map(row));
    let (cpus, kernel, outside) = (report.cpus, &report.kernel, report.outside);
    format!("{cases}\n\noutside {outside}, {cpus} CPUs, Linux {kernel}")
}
