//! What the command is made of.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tollgate_doctor::case::{Case, Declared, Path as Way, ProbeResult};
use tollgate_doctor::finding::{Finding, Number};
use tollgate_doctor::model::Snapshot;

/// What was found, and what could not be told.
#[derive(Debug, Default)]
pub struct Judgement {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be told, in words.
    pub untold: Vec<String>,
}

/// Where offload state is declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The agent's configuration; it need not exist.
    pub config: Option<&'a Path>,
    /// Antrea's agent configuration.
    pub antrea_conf: Option<&'a Path>,
}

/// Offload state that somebody declared.
#[derive(Debug, Default)]
pub struct Declarations {
    /// What should be so.
    pub states: Vec<Declared>,
    /// What a declaration does not see to.
    pub not_covered: Vec<NotCovered>,
}

/// State that a declaration does not see to, although what it is for needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotCovered {
    /// The declaration.
    pub source: String,
    /// What is left out, and what to do.
    pub why: String,
}

/// Reading, following, probing and judging. Errors are in words for people.
pub trait Doctor {
    /// The machine now.
    fn snapshot(&self) -> Result<Snapshot, String>;
    /// The way from an endpoint to a remote side; without a remote side there may be none, but the
    /// endpoint has to be there.
    fn path(&self, now: &Snapshot, endpoint: &str, to: Option<&str>)
    -> Result<Option<Way>, String>;
    /// The way for the terminal.
    fn draw(&self, case: &Case, path: &Way, findings: &[Finding], ascii: bool) -> String;
    /// Columns of the terminal.
    fn width(&self) -> usize;
    /// Sends traffic.
    fn probe(&self, now: &Snapshot, path: &Way, to: &str) -> Result<Vec<ProbeResult>, String>;
    /// Offload state that somebody declared.
    fn declared(&self, sources: Sources<'_>) -> Result<Declarations, String>;
    /// What is wrong.
    fn judge(&self, case: &Case) -> Judgement;
    /// Everything that can be found, with its title.
    fn catalogue(&self) -> Vec<(Number, String)>;
    /// What a finding means.
    fn explain(&self, number: Number) -> Option<String>;
    /// Waits until `--watch` should look again; false: no more.
    fn pause(&self, seconds: u32) -> bool {
        thread::sleep(Duration::from_secs(seconds.into()));
        true
    }
}
