//! `tollgate conformance`

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tollgate_conformance::engine::Expected;
use tollgate_conformance::suite::{cases, mtus};
use tollgate_conformance::{
    CaseResult, ConformanceError, Engine, LAB_NAME, Options, Place, Report, Suite, Verdict,
    run as run_suites,
};
use tollgate_lab::interrupt;

use crate::commands::lab::{failure, this_binary};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json, or_dash, table};

/// Where `ip netns` keeps the files that name namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Test what this node does to packets: large transfers, MTUs, checksums, bursts, QUIC, many streams.
///
/// With --from and --to: between two network namespaces, as they are now. Without: in a lab of its own,
/// each case with nothing in the path, with an engine that is blind to offloads, and with Tollgate.
/// What is sent is compared byte by byte. Progress goes to standard error. Needs root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that opens connections: a name as `ip netns` shows it, or a path
    #[arg(long, value_name = "NETNS", requires = "to")]
    from: Option<PathBuf>,
    /// Namespace that accepts them
    #[arg(long, value_name = "NETNS", requires = "from")]
    to: Option<PathBuf>,
    /// What stands in the lab's path; may be given several times. --list shows which there are
    #[arg(long = "engine", value_name = "NAME", conflicts_with = "from")]
    engines: Vec<Engine>,
    /// Only this suite; may be given several times
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<Suite>,
    /// Fewer and smaller cases
    #[arg(long)]
    quick: bool,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Show the suites, their cases and the engines, and run nothing
    #[arg(long)]
    list: bool,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Runs the suites and shows.
pub fn run(args: Args, style: Style) -> Outcome {
    if args.list {
        return list(&args);
    }
    interrupt::install();
    let options = Options {
        place: match (args.from, args.to) {
            (Some(from), Some(to)) => Place::Given {
                from: netns(&from),
                to: netns(&to),
            },
            _ => Place::Lab {
                tollgate: this_binary()?,
                engines: args.engines,
                name: LAB_NAME.to_owned(),
            },
        },
        suites: args.suites,
        quick: args.quick,
    };
    let report = run_suites(&options).map_err(told)?;
    if let Some(file) = &args.junit {
        let xml = report.junit().map_err(told)?;
        fs::write(file, xml)
            .map_err(|e| Failure::new(Code::Failed, format!("writing {}: {e}", file.display())))?;
    }
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => writeln!(out, "{}", render(&report, style))?,
    }
    Ok(code(&report))
}

/// A name as in `ip netns`, or a path.
fn netns(name: &Path) -> PathBuf {
    match name.components().count() {
        1 if name.is_relative() => Path::new(NETNS_DIR).join(name),
        _ => name.to_owned(),
    }
}

fn code(report: &Report) -> Code {
    let counts = |verdict| report.count(verdict) > 0;
    if counts(Verdict::Failed) || counts(Verdict::PassesUnexpectedly) {
        return Code::Finding;
    }
    match report.as_expected() {
        true => Code::Ok,
        false => Code::Undecided,
    }
}

fn told(error: ConformanceError) -> Failure {
    match error {
        ConformanceError::Lab(error) => failure(error),
        ConformanceError::Usage(why) => Failure::usage(why),
        other => Failure::new(Code::Failed, other),
    }
}

fn render(report: &Report, style: Style) -> String {
    let row = |case: &CaseResult| {
        let word = case.verdict.word();
        [
            case.engine.to_string(),
            case.suite.to_string(),
            case.full_name(),
            match case.verdict {
                Verdict::Passed => style.good(word),
                Verdict::Failed | Verdict::PassesUnexpectedly => style.bad(word),
                Verdict::FailsAsExpected | Verdict::NotRun => style.odd(word),
            },
            format!("{:.1}", case.seconds),
            or_dash(case.why.as_deref()),
        ]
    };
    let header = ["ENGINE", "SUITE", "CASE", "RESULT", "SECONDS", "WHY"];
    let rows = table(header, report.cases.iter().map(row));
    let counts = [
        Verdict::Passed,
        Verdict::FailsAsExpected,
        Verdict::Failed,
        Verdict::PassesUnexpectedly,
        Verdict::NotRun,
    ];
    let counts = counts.map(|verdict| (report.count(verdict), verdict.word()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let mut text = format!("{rows}\n\n{}: {}", report.place, counts.join(", "));
    for engine in Engine::ALL {
        let ran = report.cases.iter().any(|case| case.engine == engine);
        if let (true, Expected::Fail(reason)) = (ran, engine.expected()) {
            text.push_str(&format!("\n{engine} is expected to fail: {reason}"));
        }
    }
    text
}

/// What there is.
#[derive(Serialize)]
struct Listed {
    suites: Vec<ListedSuite>,
    engines: Vec<ListedEngine>,
}

#[derive(Serialize)]
struct ListedSuite {
    name: &'static str,
    what: &'static str,
    cases: Vec<String>,
    lab_mtus: Vec<[u16; 2]>,
}

#[derive(Serialize)]
struct ListedEngine {
    name: &'static str,
    what: &'static str,
}

fn list(args: &Args) -> Outcome {
    let all = Suite::ALL.into_iter();
    let wanted = all.filter(|suite| args.suites.is_empty() || args.suites.contains(suite));
    let listed = Listed {
        suites: wanted
            .map(|suite| ListedSuite {
                name: suite.name(),
                what: suite.describe(),
                cases: cases(suite, args.quick)
                    .into_iter()
                    .map(|case| case.name)
                    .collect(),
                lab_mtus: mtus(suite, args.quick).to_vec(),
            })
            .collect(),
        engines: Engine::ALL
            .map(|engine| ListedEngine {
                name: engine.name(),
                what: engine.describe(),
            })
            .into(),
    };
    let out = &mut std::io::stdout().lock();
    if args.output == Format::Json {
        json(out, &listed)?;
        return Ok(Code::Ok);
    }
    let suites = listed.suites.iter().map(|suite| {
        [
            suite.name.to_owned(),
            suite.cases.len().to_string(),
            suite.lab_mtus.len().to_string(),
            suite.what.to_owned(),
        ]
    });
    writeln!(
        out,
        "{}\n",
        table(["SUITE", "CASES", "LABS", "WHAT"], suites)
    )?;
    let engines = listed.engines.iter();
    let engines = engines.map(|engine| [engine.name.to_owned(), engine.what.to_owned()]);
    writeln!(out, "{}", table(["ENGINE", "WHAT"], engines))?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_names_or_paths() {
        assert_eq!(netns(Path::new("blue")), Path::new("/run/netns/blue"));
        let path = Path::new("/proc/1/ns/net");
        assert_eq!(netns(path), path);
    }
}
