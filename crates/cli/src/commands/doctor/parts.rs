//! What the command is made of.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tollgate_doctor::case::{Case, Declared, Path as Way, ProbeResult};
use tollgate_doctor::finding::{Finding, Number};
use tollgate_doctor::model::Snapshot;

/// How often `--watch` looks. Reading a machine with a hundred endpoints takes a fraction of that.
const WATCH: Duration = Duration::from_secs(5);

/// What was found, and what could not be told.
#[derive(Debug, Default)]
pub struct Judgement {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be told, in words.
    pub untold: Vec<String>,
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
    fn draw(&self, case: &Case, path: &Way, ascii: bool) -> String;
    /// Sends traffic.
    fn probe(&self, now: &Snapshot, endpoint: &str, to: &str) -> Result<Vec<ProbeResult>, String>;
    /// Offload state that somebody declared: the agent's configuration, ...
    fn declared(&self, config: &Path) -> Vec<Declared>;
    /// What is wrong.
    fn judge(&self, case: &Case) -> Judgement;
    /// Everything that can be found, with its title.
    fn catalogue(&self) -> Vec<(Number, String)>;
    /// What a finding means.
    fn explain(&self, number: Number) -> Option<String>;
    /// Waits until `--watch` should look again; false: no more.
    fn pause(&self) -> bool {
        thread::sleep(WATCH);
        true
    }
}
