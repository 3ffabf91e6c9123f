//! The blind engine as a child process.

use std::fs;
use std::path::{Path, PathBuf};

use super::helper::Helper;
use crate::error::{IoContext, Result};
use crate::run::Cmd;
use crate::traffic::{CopierCounters, parse_result};

/// A deliberately blind inline engine between two ports; see [`crate::traffic`], `copier`. Dropping it
/// kills it.
#[derive(Debug)]
pub struct BlindEngine {
    helper: Helper,
    counters: PathBuf,
}

impl BlindEngine {
    /// Starts it between two interfaces of a namespace and waits until it copies. It switches the
    /// ports' segmentation and GRO off, as inline engines do; both must be up. `dir` is for a file with
    /// its counters.
    ///
    /// # Errors
    /// It does not start; the error has its reason.
    pub fn start(
        tollgate: &Path,
        netns: &str,
        port_a: &str,
        port_b: &str,
        dir: &Path,
    ) -> Result<BlindEngine> {
        let counters = dir.join(format!("copier-{port_a}.json"));
        let cmd = Cmd::new(tollgate)
            .args(["lab", "traffic", "copier"])
            .args(["--port-a", port_a, "--port-b", port_b])
            .arg("--counters")
            .arg(&counters);
        let helper = Helper::start("the copier", &cmd.in_netns(netns))?;
        Ok(BlindEngine { helper, counters })
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        !self.helper.ended()
    }

    /// What it has seen so far; at most a few tenths of a second old.
    ///
    /// # Errors
    /// Its file cannot be read: it is not there in the first tenths of a second.
    pub fn counters(&self) -> Result<CopierCounters> {
        let text = fs::read_to_string(&self.counters).doing("reading", &self.counters)?;
        parse_result(&text)
    }

    /// Stops it; returns what it has seen.
    ///
    /// # Errors
    /// It had ended before, or does not end.
    pub fn stop(self) -> Result<CopierCounters> {
        let line = self.helper.stop()?;
        let _ = fs::remove_file(&self.counters);
        parse_result(&line)
    }
}
