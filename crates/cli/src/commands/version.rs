//! `tollgate version`

use std::io::Write;

use serde::Serialize;

use crate::exit::{Code, Outcome};
use crate::output::{Format, json};

/// Show versions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    target: &'static str,
    kernel: String,
}

/// Shows.
pub fn run(args: &Args) -> Outcome {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: std::env::consts::ARCH,
        kernel: kernel.trim().to_owned(),
    };
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &version)?,
        Format::Table => writeln!(
            out,
            "tollgate {} ({}, Linux {})",
            version.version, version.target, version.kernel
        )?,
    }
    Ok(Code::Ok)
}
