//! A helper of the `tollgate` binary that runs until it is told to stop: it says when it is ready, and
//! what it has seen at its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{LabError, Result};
use crate::run::{Cmd, kill_group, shorten};

/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks whether it has.
const POLL: Duration = Duration::from_millis(5);
/// Bytes of what it said that an error shows.
const SHOWN: usize = 500;

/// A running helper; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    what: &'static str,
}

impl Helper {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It ended instead; the error has its reason.
    pub fn start(what: &'static str, cmd: &Cmd) -> Result<Helper> {
        let mut child = cmd.spawn_piped()?;
        let stdout = child.stdout.take().map(BufReader::new);
        let mut helper = Helper {
            child,
            stdout,
            what,
        };
        if helper.line().is_empty() {
            let mut said = String::new();
            if let Some(mut stderr) = helper.child.stderr.take() {
                let _ = stderr.read_to_string(&mut said);
            }
            let said = shorten(said.trim(), SHOWN);
            return Err(LabError::NotReady(format!("{what} does not start: {said}")));
        }
        Ok(helper)
    }

    /// Its next line; empty if it has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        if let Some(stdout) = &mut self.stdout {
            let _ = stdout.read_line(&mut line);
        }
        line
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it to stop; returns the last line that it wrote.
    ///
    /// # Errors
    /// It had ended before, or does not end.
    pub fn stop(mut self) -> Result<String> {
        if self.ended() {
            let what = self.what;
            return Err(LabError::NotReady(format!("{what} ended too early")));
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END_LIMIT;
        while !self.ended() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        if !self.ended() {
            let what = self.what;
            return Err(LabError::NotReady(format!("{what} does not end")));
        }
        Ok(self.line())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}
