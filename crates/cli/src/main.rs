//! The `tollgate` command.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod exit;
mod line;
mod output;

use std::process::ExitCode;

use clap::Parser;
use tollgate_dropin::daemon;

fn main() -> ExitCode {
    if let Some(code) = by_another_name() {
        return code;
    }
    // clap prints help and usage errors itself, and ends with 0 or 2.
    match commands::run(args::Cli::parse()) {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}

/// The program may be called by the names of what it stands in for, or be given one as its first
/// argument: it then has that program's command line, of which clap knows nothing.
fn by_another_name() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = arguments.next()?;
    let mut name = program.rsplit('/').next()?.to_owned();
    let mut arguments: Vec<String> = arguments.collect();
    if name != daemon::NAME && name != daemon::CLIENT_NAME {
        name = arguments.first()?.clone();
        if name != daemon::NAME && name != daemon::CLIENT_NAME {
            return None;
        }
        arguments.remove(0);
    }
    Some(match name.as_str() {
        daemon::CLIENT_NAME => daemon::suricatasc(&arguments),
        _ => daemon::suricata(&arguments),
    })
}
