//! Starts the engine, and starts it again if it dies. Does nothing else, so that nothing in it can die.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setsid};

use super::{ENGINE, READY, again, await_ready, remove_stale, tell};
use crate::args::Args;
use crate::config::Config;
use crate::{log, state};

/// Pause before the engine is started again: none after it has run for a while, then longer and
/// longer.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// See [`PAUSE_FIRST`].
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// An engine that has run so long did not die of its start.
const RAN_WELL: Duration = Duration::from_secs(30);

/// What the signal handler needs.
#[derive(Default)]
struct Running {
    /// The engine's process; 0: none.
    pid: AtomicI32,
    stop: AtomicBool,
}

impl Running {
    fn end_engine(&self) {
        if let Some(pid) = Pid::from_raw(self.pid.load(Ordering::SeqCst)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Supervises until told to stop. `detached`: in a session of its own, with the log in a file.
pub(super) fn run(
    config: &Config,
    args: &Args,
    arguments: &[String],
    detached: bool,
) -> Result<(), String> {
    if detached {
        // Fails only for a process that leads a session already, which is as good.
        let _ = setsid();
    }
    remove_stale(&config.socket)?;
    // Tenants outlive an engine, not the daemon: who starts it registers them.
    match fs::remove_file(state::path(&config.socket)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("removing the last daemon's tenants: {error}"));
        }
        _ => {}
    }
    let running = Arc::new(Running::default());
    let theirs = Arc::clone(&running);
    ctrlc::set_handler(move || {
        theirs.stop.store(true, Ordering::SeqCst);
        theirs.end_engine();
    })
    .map_err(|error| format!("installing the signal handler: {error}"))?;
    let (mut child, mut started) = start(args, arguments, &running, detached)?;
    if let Err(problem) = await_ready(&mut child) {
        let _ = child.wait();
        return Err(problem);
    }
    if let Some(path) = &args.pidfile {
        let text = format!("{}\n", std::process::id());
        let written = fs::write(path, text);
        if let Err(error) = written {
            running.end_engine();
            let _ = child.wait();
            return Err(format!("writing {}: {error}", path.display()));
        }
    }
    if detached {
        tell(READY);
    }
    let mut pause = Duration::ZERO;
    loop {
        let status = child.wait();
        running.pid.store(0, Ordering::SeqCst);
        if running.stop.load(Ordering::SeqCst) || status.as_ref().is_ok_and(|s| s.success()) {
            break;
        }
        if started.elapsed() > RAN_WELL {
            pause = Duration::ZERO;
        }
        note(
            args,
            detached,
            &format!("the engine died ({status:?}); it is started again"),
        );
        thread::sleep(pause);
        pause = (pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        if running.stop.load(Ordering::SeqCst) {
            break;
        }
        match start(args, arguments, &running, detached) {
            Ok(again) => (child, started) = again,
            Err(problem) => {
                note(args, detached, &problem);
                continue;
            }
        }
        if let Err(problem) = await_ready(&mut child) {
            note(args, detached, &problem);
        }
    }
    if let Some(path) = &args.pidfile {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn start(
    args: &Args,
    arguments: &[String],
    running: &Running,
    detached: bool,
) -> Result<(Child, Instant), String> {
    let mut command = again(ENGINE, arguments)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if detached {
        command.stderr(log_file(&args.log_dir)?);
    }
    let child = command.spawn();
    let child = child.map_err(|error| format!("starting the engine: {error}"))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    running.pid.store(pid, Ordering::SeqCst);
    if running.stop.load(Ordering::SeqCst) {
        running.end_engine();
    }
    Ok((child, Instant::now()))
}

fn log_file(directory: &Path) -> Result<fs::File, String> {
    let path = directory.join("suricata.log");
    fs::create_dir_all(directory)
        .and_then(|()| OpenOptions::new().append(true).create(true).open(&path))
        .map_err(|error| format!("opening {}: {error}", path.display()))
}

/// A line in the engine's log.
fn note(args: &Args, detached: bool, what: &str) {
    use std::io::Write as _;
    if !detached {
        return log::warning(what);
    }
    if let Ok(mut file) = log_file(&args.log_dir) {
        let now = jiff::Zoned::now();
        let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6f%z");
        let _ = writeln!(file, "{time} Warning: {what}");
    }
}
