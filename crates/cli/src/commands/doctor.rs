//! `tollgate doctor`

mod fix;
mod machine;
mod parts;
#[cfg(test)]
mod tests;
mod watch;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use tollgate_doctor::action::Action;
use tollgate_doctor::case::{Case, ProbeOutcome, ProbeResult};
use tollgate_doctor::finding::{Finding, Severity};
use tollgate_doctor::model::Snapshot;
use tollgate_doctor::persist::Left;
use tollgate_doctor::repair::{Applied, DEFAULT_STATE_DIR, Repairer, Word};
use tollgate_doctor::report::{self, Report, Stages, printable};

use self::machine::Machine;
use self::parts::{Doctor, NotCovered, Sources};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json, table};

/// It could not be told whether anything is wrong.
const UNTOLD: Code = Code::Other(3);

/// Find what in the way of packets makes layer-7 policy slow or breaks it, say why, and repair it.
///
/// Reads only, unless --fix --yes, --undo or --install is given.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit codes: 0 healthy; 1 warnings or errors were found; 2 usage; 3 it could not be \
    told; 4 a repair failed."
)]
pub struct Args {
    /// Whose traffic: a pod as ns/name, a namespace's name, a process as pid:N; without it the whole machine
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Where to: follows the way of a packet to this address or URL
    #[arg(long, value_name = "ADDR|URL", requires = "endpoint")]
    to: Option<String>,
    /// Send traffic of each kind along the path, and see what arrives
    #[arg(long, requires = "to", conflicts_with = "from")]
    probe: bool,
    /// Look again and again: a line for each finding that comes or goes, and each counter of losses that grows
    #[arg(long, conflicts_with_all = ["fix", "undo", "from", "html"])]
    watch: bool,
    /// With --watch: how often to look
    #[arg(long, value_name = "SECONDS", requires = "watch", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
    /// Repair what was found. Prints what would be run, unless --yes is given
    #[arg(long, conflicts_with_all = ["undo", "from"])]
    fix: bool,
    /// With --fix: do it. With --persist agent: write the agent's configuration
    #[arg(long)]
    yes: bool,
    /// Take back all repairs
    #[arg(long, conflicts_with_all = ["from", "persist"])]
    undo: bool,
    /// Keep the repairs after a restart, through this; prints what would be written
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    persist: Persist,
    /// With --persist systemd: write the units and enable them
    #[arg(long, conflicts_with = "from")]
    install: bool,
    /// The agent's configuration
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG", default_value = tollgate_agent::config::DEFAULT_CONFIG_FILE)]
    config: PathBuf,
    /// Antrea's agent configuration: what its disableTXChecksumOffload declares, and what it leaves out
    #[arg(long, value_name = "FILE")]
    antrea_conf: Option<PathBuf>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Write the result as a page too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// With --html: throughput of stages to plot, as JSON
    #[arg(long, value_name = "FILE", requires = "html")]
    stages: Option<PathBuf>,
    /// Draw with ASCII alone
    #[arg(long)]
    ascii: bool,
    /// Where the record of repairs lies
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Write what was read from the machine to a file
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    record: Option<PathBuf>,
    /// Judge what --record wrote, on this machine or another, instead of this machine
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// List what can be found
    #[arg(long, conflicts_with_all = ["endpoint", "explain", "watch", "fix", "undo", "record", "from", "html"])]
    list: bool,
    /// Describe a finding
    #[arg(long, value_name = "CODE", conflicts_with_all = ["endpoint", "watch", "fix", "undo", "record", "from", "html"])]
    explain: Option<String>,
}

/// What keeps repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Persist {
    /// Nothing: they last until the machine or the endpoint restarts.
    #[default]
    None,
    /// Units of systemd, for the host's interfaces.
    Systemd,
    /// The agent, by its configuration.
    Agent,
}

/// A machine that was looked at.
struct Examined {
    case: Case,
    findings: Vec<Finding>,
    report: Report,
    not_covered: Vec<NotCovered>,
}

/// The result as JSON: the report's fields, and what was done.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// With --antrea-conf: what it leaves out.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_covered: &'a [NotCovered],
    /// With --fix --yes: what was done; the report is about the machine afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<&'a [Applied]>,
    /// With --fix alone: what would be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_run: Option<Vec<String>>,
    /// With --persist: what is or would be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    persist: Option<&'a Kept>,
}

/// How repairs are kept.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Kept {
    /// Files with what is in them.
    files: Vec<KeptFile>,
    /// Commands that put them in force.
    commands: Vec<String>,
    /// Commands that take them back.
    back: Vec<String>,
    /// What is not kept.
    left: Vec<Left>,
    /// They are written and in force, rather than printed alone.
    written: bool,
}

/// A file.
#[derive(Debug, PartialEq, Serialize)]
struct KeptFile {
    path: PathBuf,
    text: String,
}

/// Does what was asked for, on this machine.
pub fn run(args: &Args, style: Style) -> Outcome {
    let out = &mut std::io::stdout();
    run_to(out, args, style, &Machine)
}

fn run_to(out: &mut dyn Write, args: &Args, style: Style, doctor: &dyn Doctor) -> Outcome {
    match (&args.explain, args) {
        (Some(code), _) => explain(out, code, doctor),
        (_, Args { list: true, .. }) => list(out, doctor),
        (_, Args { undo: true, .. }) => fix::undo(out, args),
        (_, Args { watch: true, .. }) => watch::run(out, args, style, doctor),
        _ => once(out, args, style, doctor),
    }
}

fn list(out: &mut dyn Write, doctor: &dyn Doctor) -> Outcome {
    let rows = doctor.catalogue().into_iter();
    let rows = rows.map(|(number, title)| [number.to_string(), title]);
    writeln!(out, "{}", table(["CODE", "FINDING"], rows))?;
    Ok(Code::Ok)
}

fn explain(out: &mut dyn Write, code: &str, doctor: &dyn Doctor) -> Outcome {
    let mut numbers = doctor.catalogue().into_iter().map(|(number, _)| number);
    let number = numbers.find(|number| number.to_string().eq_ignore_ascii_case(code));
    match number.and_then(|number| doctor.explain(number)) {
        Some(text) => writeln!(out, "{}", text.trim_end())?,
        None => {
            let message = format!("there is no finding {code:?}");
            return Err(Failure::usage(message).hint("tollgate doctor --list shows all"));
        }
    }
    Ok(Code::Ok)
}

fn once(out: &mut dyn Write, args: &Args, style: Style, doctor: &dyn Doctor) -> Outcome {
    let mut examined = examine(args, doctor, None)?;
    if let Some(path) = &args.record {
        let text = serde_json::to_string_pretty(&examined.case.now)?;
        write_file(path, &text)?;
    }
    let actions = actions(&examined.findings);
    let mut applied = None;
    if args.fix && args.yes && !actions.is_empty() {
        if args.output == Format::Table {
            show(out, args, style, doctor, &examined)?;
        }
        applied = Some(fix::apply(args, &actions)?);
        examined = examine(args, doctor, None)?;
    }
    let kept = fix::keep(args, &actions)?;
    if let Some(path) = &args.html {
        write_file(
            path,
            &report::page(&examined.report, stages(args)?.as_ref()),
        )?;
    }
    match args.output {
        Format::Json => json(
            out,
            &Whole {
                report: &examined.report,
                not_covered: &examined.not_covered,
                applied: applied.as_deref(),
                would_run: (args.fix && !args.yes).then(|| commands(&actions)),
                persist: kept.as_ref(),
            },
        )?,
        Format::Table => {
            if let Some(applied) = &applied {
                fix::show(out, applied)?;
                writeln!(out, "\nafter the repair:")?;
                show_report(out, style, doctor, &examined)?;
            } else {
                show(out, args, style, doctor, &examined)?;
            }
            if args.fix && !args.yes {
                fix::show_plan(out, &actions)?;
            }
            if let Some(kept) = &kept {
                fix::show_kept(out, kept)?;
            }
        }
    }
    let failed = applied.iter().flatten().any(|one| one.word == Word::Failed);
    Ok(match failed {
        true => Code::Failed,
        false => code(&examined.report),
    })
}

fn code(report: &Report) -> Code {
    match (report.healthy, report.untold.is_empty()) {
        (false, _) => Code::Finding,
        (true, false) => UNTOLD,
        (true, true) => Code::Ok,
    }
}

/// Reads, follows, probes and judges.
fn examine(
    args: &Args,
    doctor: &dyn Doctor,
    earlier: Option<Snapshot>,
) -> Result<Examined, Failure> {
    let sources = Sources {
        config: Some(&args.config),
        antrea_conf: args.antrea_conf.as_deref(),
    };
    let declared = doctor.declared(sources).map_err(Failure::usage)?;
    let mut case = Case {
        now: read(args, doctor)?,
        earlier,
        declared: declared.states,
        ..Case::default()
    };
    let mut untold = Vec::new();
    if let Some(endpoint) = &args.endpoint {
        let to = args.to.as_deref();
        match doctor.path(&case.now, endpoint, to) {
            Ok(path) => {
                let lost = path.as_ref().and_then(|path| {
                    let why = tollgate_doctor::path::lost(path)?;
                    Some(format!("how packets get to {}: {why}", path.to))
                });
                untold.extend(lost);
                case.path = path;
            }
            // Who names what is not there has mistyped; nothing else was asked for.
            Err(why) => return Err(Failure::usage(why)),
        }
        if let (Some(path), Some(to), true) = (&case.path, to, args.probe) {
            match doctor.probe(&case.now, path, to) {
                Ok(probes) => case.probes = probes,
                Err(why) => untold.push(why),
            }
            // What grew meanwhile says where the probes were lost.
            case.earlier = Some(std::mem::replace(&mut case.now, read(args, doctor)?));
        }
    }
    let judgement = doctor.judge(&case);
    untold.extend(judgement.untold);
    let mut report = Report::new(&case, &judgement.findings, untold);
    report.untold.extend(unexplained(&report));
    Ok(Examined {
        report,
        findings: judgement.findings,
        not_covered: declared.not_covered,
        case,
    })
}

/// Probes that failed although nothing is known to be wrong, or that could not be sent at all.
fn unexplained(report: &Report) -> Option<String> {
    let is = |probe: &ProbeResult| matches!(probe.outcome, ProbeOutcome::Failed(_));
    let failed = report.probes.iter().filter(|probe| is(probe)).count();
    let passed = |probe: &ProbeResult| probe.outcome == ProbeOutcome::Passed;
    match (report.healthy, failed) {
        (true, 1..) => Some(format!(
            "why {failed} of {} probes failed: nothing that the doctor knows explains it",
            report.probes.len()
        )),
        (true, 0) if !report.probes.is_empty() && !report.probes.iter().any(passed) => {
            Some("whether probes pass: none could be sent".to_owned())
        }
        _ => None,
    }
}

fn read(args: &Args, doctor: &dyn Doctor) -> Result<Snapshot, Failure> {
    let Some(path) = &args.from else {
        let unreadable =
            |why| Failure::new(UNTOLD, why).hint("reading other namespaces needs root");
        return doctor.snapshot().map_err(unreadable);
    };
    let text = read_file(path)?;
    let unfit = |why: String| {
        let message = format!("{}: not a recording of a machine: {why}", path.display());
        Failure::usage(message).hint("tollgate doctor --record FILE makes one")
    };
    let read: Result<Snapshot, _> = serde_json::from_str(&text);
    let snapshot = read.map_err(|error| unfit(error.to_string()))?;
    match snapshot.namespaces.is_empty() {
        true => Err(unfit("it has no network namespace".to_owned())),
        false => Ok(snapshot),
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("reading {}: {error}", path.display())))
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(Code::Failed, format!("writing {}: {error}", path.display())))
}

fn stages(args: &Args) -> Result<Option<Stages>, Failure> {
    let Some(path) = &args.stages else {
        return Ok(None);
    };
    let stages = serde_json::from_str(&read_file(path)?);
    stages.map(Some).map_err(|error| {
        Failure::usage(format!(
            "{}: not the result of stages: {error}",
            path.display()
        ))
    })
}

/// What would repair it, each once.
fn actions(findings: &[Finding]) -> Vec<Action> {
    let mut all: Vec<Action> = Vec::new();
    for action in findings.iter().flat_map(|finding| &finding.actions) {
        if !all.contains(action) {
            all.push(action.clone());
        }
    }
    all
}

fn commands(actions: &[Action]) -> Vec<String> {
    let lines = actions.iter().map(tollgate_doctor::repair::command_line);
    lines.collect()
}

fn show(
    out: &mut dyn Write,
    args: &Args,
    style: Style,
    doctor: &dyn Doctor,
    examined: &Examined,
) -> Result<(), Failure> {
    if let Some(path) = &examined.case.path {
        let drawing = doctor.draw(&examined.case, path, &examined.findings, args.ascii);
        writeln!(out, "{}\n", drawing.trim_end())?;
    }
    show_report(out, style, doctor, examined)
}

fn show_report(
    out: &mut dyn Write,
    style: Style,
    doctor: &dyn Doctor,
    examined: &Examined,
) -> Result<(), Failure> {
    let text = report::text(&examined.report, doctor.width(), &painter(style));
    write!(out, "{text}")?;
    for left in &examined.not_covered {
        let (source, why) = (printable(&left.source), printable(&left.why));
        writeln!(out, "not covered by {source}: {why}")?;
    }
    Ok(())
}

fn painter(style: Style) -> impl Fn(Severity, &str) -> String {
    move |severity, word| match severity {
        Severity::Error => style.bad(word),
        Severity::Warning => style.odd(word),
        Severity::Info => style.dim(word),
    }
}

fn repairer(args: &Args) -> Repairer {
    Repairer::new(&args.state_dir)
}
