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

fn main() -> ExitCode {
    // clap prints help and usage errors itself, and ends with 0 or 2.
    match commands::run(args::Cli::parse()) {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}
