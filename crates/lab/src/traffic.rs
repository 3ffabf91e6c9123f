//! Load generators and probes, run inside the lab's namespaces as `tollgate lab traffic ...`.
//!
//! They use blocking sockets, one thread per connection and buffers of a MiB, so that what they
//! measure is the path and not themselves. Each prints its result as one JSON line.

mod args;
mod bulk;
mod capture;
mod copier;
mod detour;
mod http;
mod probe;
mod sink;
mod stream;

use std::ffi::OsString;
use std::process::ExitCode;

use serde::Serialize;

pub use args::Args;
pub use bulk::{BulkResult, HashResult};
pub use capture::CaptureResult;
pub use copier::{CopierCounters, ROOM_BEYOND_MTU};
pub use probe::{Ending, HelloResult, RawRequest, RawResult};

use crate::error::{LabError, Result};
use crate::run::shorten;

/// What the subcommands are, for the error message.
const USAGE: &str = "traffic: use sink, download, upload, hash-download, hash-upload, raw, hello, copier, detour or capture";

/// Runs one traffic subcommand; `args` starts with its name.
pub fn main(args: &[OsString]) -> ExitCode {
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Standard error is this helper's only way to say why.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{e}\n"));
            ExitCode::from(e.exit_code())
        }
    }
}

fn dispatch(args: &[OsString]) -> Result<()> {
    let mut words = args.iter().map(|a| a.to_string_lossy().into_owned());
    let name = words.next().unwrap_or_default();
    let args = Args::parse(words)?;
    match name.as_str() {
        "sink" => sink::serve(&args),
        "download" => print(&bulk::download(&args)?),
        "upload" => print(&bulk::upload(&args)?),
        "hash-download" => print(&bulk::hash_download(&args)?),
        "hash-upload" => print(&bulk::hash_upload(&args)?),
        "raw" => print(&probe::raw(&args)?),
        "hello" => print(&probe::hello(&args)?),
        "copier" => copier::run(&args),
        "detour" => detour::run(&args),
        "capture" => capture::run(&args),
        _ => Err(LabError::Usage(USAGE.into())),
    }
}

/// Reads the JSON line that a helper printed.
///
/// # Errors
/// It is not what was expected.
pub fn parse_result<T: serde::de::DeserializeOwned>(line: &str) -> Result<T> {
    let text = || shorten(line.trim(), 200);
    serde_json::from_str(line.trim()).map_err(|_| LabError::Parse {
        what: "a traffic helper's result",
        text: text(),
    })
}

/// One JSON line on standard output.
fn print<T: Serialize>(value: &T) -> Result<()> {
    use std::io::Write;
    let line = serde_json::to_string(value).map_err(|e| LabError::Traffic(e.to_string()))?;
    writeln!(std::io::stdout(), "{line}").map_err(|e| LabError::Traffic(format!("stdout: {e}")))
}
