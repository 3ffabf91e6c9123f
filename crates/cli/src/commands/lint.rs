//! `tollgate policy lint`

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tollgate_agent::sources::{self, LoadError};
use tollgate_policy::{Diagnostic, PolicySet};

use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json};

/// Check policy files. Directories stand for their *.yaml and *.yml; all files together are one
/// whole, as for the agent. Exit code 1: there are faults.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    files: usize,
    policies: usize,
    endpoints: usize,
    faults: Vec<Diagnostic>,
}

/// Checks and shows.
pub fn run(args: &Args, style: Style) -> Outcome {
    let files = sources::read_paths(&args.paths).map_err(unreadable)?;
    if files.is_empty() {
        return Err(Failure::usage(
            "there are no *.yaml or *.yml files in the paths given",
        ));
    }
    let result = sources::compile_files(&files, &[]);
    let report = match result {
        Ok(loaded) => report(files.len(), Some(&loaded.set), Vec::new()),
        Err(LoadError::Invalid(faults)) => report(files.len(), None, faults),
        Err(error) => return Err(unreadable(error)),
    };
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => render(out, &report, style)?,
    }
    Ok(if report.ok { Code::Ok } else { Code::Finding })
}

fn report(files: usize, set: Option<&PolicySet>, faults: Vec<Diagnostic>) -> Report {
    Report {
        ok: faults.is_empty(),
        files,
        policies: set.map_or(0, |set| set.policies().len()),
        endpoints: set.map_or(0, |set| set.endpoints().len()),
        faults,
    }
}

fn render(out: &mut dyn Write, report: &Report, style: Style) -> Result<(), Failure> {
    for fault in &report.faults {
        writeln!(out, "{fault}")?;
    }
    let files = report.files;
    match report.faults.len() {
        0 => writeln!(
            out,
            "{}: {files} file(s), {} policies, {} endpoints",
            style.good("OK"),
            report.policies,
            report.endpoints
        )?,
        count => writeln!(
            out,
            "{}: {count} fault(s) in {files} file(s)",
            style.bad("FAULTY")
        )?,
    }
    Ok(())
}

/// A path that cannot be read is a mistake of the command line.
pub fn unreadable(error: LoadError) -> Failure {
    Failure::usage(error)
}
