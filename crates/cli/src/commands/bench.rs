//! `tollgate bench`

use std::io::Write;

use tollgate_lab::bench::{self, BenchOptions, BenchReport, CaseResult};
use tollgate_lab::interrupt;
use tollgate_lab::lab::Outside;

use crate::commands::lab::{failure, this_binary};
use crate::exit::{Code, Outcome};
use crate::output::{Format, json, or_dash, table};

/// Measure with and without policy, in a lab of its own: medians of alternated runs and their ratio.
///
/// For rates, higher is better and 1.0 means that the policy costs nothing; for latencies, lower is
/// better. Progress goes to standard error. Needs root, nginx and wrk.
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
    #[arg(long, value_name = "KIND", default_value_t)]
    outside: Outside,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Measures and shows.
pub fn run(args: Args) -> Outcome {
    interrupt::install();
    let options = BenchOptions {
        cases: args.cases,
        quick: args.quick,
        runs: args.runs,
        outside: args.outside,
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
