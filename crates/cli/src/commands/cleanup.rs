//! `tollgate cleanup`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tollgate_agent::config::{DEFAULT_PIN_DIR, DEFAULT_RUN_DIR, DEFAULT_TAP, socket_path};
use tollgate_agent::{memory, name_memory, ovs};
use tollgate_datapath::bpf;

use crate::exit::{Code, Failure, Outcome};

/// Remove programs, maps and the TAP that an agent left. Traffic passes ungoverned afterwards, as
/// if there had never been an agent. Verdict logs stay.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory of the agent
    #[arg(long, value_name = "DIR", env = "TOLLGATE_RUN_DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Directory of the pins
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
    /// Name of the TAP
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TAP)]
    tap: String,
}

/// Removes and says what.
pub fn run(args: &Args) -> Outcome {
    if is_running(&args.run_dir) {
        let message = format!(
            "an agent runs with the run directory {}",
            args.run_dir.display()
        );
        return Err(Failure::new(Code::Failed, message).hint("stop it first"));
    }
    let mut removed = ovs::cleanup(&args.run_dir).map_err(|error| {
        Failure::new(Code::Failed, error).hint("is the switch running, and are you root?")
    })?;
    removed.extend(bpf::cleanup(&args.pin_dir, &args.tap).map_err(|error| {
        Failure::new(Code::Failed, error).hint("removing programs needs root: run this with sudo")
    })?);
    for name in ["agent.lock", memory::FILE, name_memory::FILE] {
        // What is not there needs no removing.
        let _ = std::fs::remove_file(args.run_dir.join(name));
    }
    let _ = std::fs::remove_file(socket_path(&args.run_dir));
    let out = &mut std::io::stdout().lock();
    for what in &removed {
        writeln!(out, "removed {what}")?;
    }
    if removed.is_empty() {
        writeln!(out, "nothing to remove")?;
    }
    Ok(Code::Ok)
}

/// An agent holds a lock on its run directory for as long as it lives.
fn is_running(run_dir: &Path) -> bool {
    let Ok(file) = File::open(run_dir.join("agent.lock")) else {
        return false;
    };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}
