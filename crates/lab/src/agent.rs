//! The agent under test: the real `tollgate agent`, started in the node's namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{IoContext, LabError, Result};
use crate::lab::{Lab, Place};
use crate::names::{Names, TAP_IF};
use crate::procs::{self, Identity, Stat};
use crate::run::{Cmd, netns_path, shorten};

/// Label of its process record and log.
const LABEL: &str = "agent";
/// File that names the binary to clean up with.
const BINARY: &str = "tollgate-binary";
/// How long the agent may take to compile its policy and attach; ten thousand rules included.
const READY_SECONDS: u64 = 30;

/// A running agent; dropping it stops it and removes its data path.
#[derive(Debug)]
pub struct AgentHandle {
    names: Names,
    process: Identity,
    stopped: bool,
}

impl AgentHandle {
    /// Starts the agent with a policy directory and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the error carries the end of its log.
    pub fn start(lab: &Lab, tollgate: &Path, policy_dir: &Path) -> Result<AgentHandle> {
        let names = &lab.names;
        fs::create_dir_all(names.agent_run()).doing("creating", names.agent_run())?;
        let binary = names.dir().join(BINARY);
        fs::write(&binary, tollgate.as_os_str().as_encoded_bytes()).doing("writing", binary)?;
        let config = write_config(names, policy_dir)?;
        let cmd = Cmd::new(tollgate).args(["agent", "--config"]).arg(config);
        let child = lab.at(Place::Node, cmd).spawn(&names.log(LABEL))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let Some(process) = procs::record(&names.procs(), LABEL, pid)? else {
            return Err(not_ready(names, "ended at once"));
        };
        let handle = AgentHandle {
            names: names.clone(),
            process,
            stopped: false,
        };
        handle.wait_ready(lab, tollgate)?;
        Ok(handle)
    }

    fn wait_ready(&self, lab: &Lab, tollgate: &Path) -> Result<()> {
        let seconds = READY_SECONDS.to_string();
        let status = Cmd::new(tollgate).args(["status", "--wait", &seconds, "--run-dir"]);
        let status = status.arg(self.names.agent_run());
        let status = status.timeout(Duration::from_secs(READY_SECONDS + 5));
        let output = lab.at(Place::Node, status).output()?;
        if !output.status.success() {
            return Err(not_ready(&self.names, output.stderr.trim()));
        }
        if !self.process.alive() {
            return Err(not_ready(&self.names, "ended after it was ready"));
        }
        Ok(())
    }

    /// CPU seconds, user and system, that all its threads have used so far.
    pub fn cpu_seconds(&self) -> f64 {
        Stat::of(self.process.pid).map_or(0.0, |s| s.cpu_seconds())
    }

    /// One of the data path's counters that `tollgate status -o json` shows. It leaves out those that
    /// are zero.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn counter(&self, lab: &Lab, tollgate: &Path, name: &str) -> Result<u64> {
        let status = Cmd::new(tollgate).args(["status", "-o", "json", "--run-dir"]);
        let status = lab.at(Place::Node, status.arg(self.names.agent_run()));
        let output = status.output()?;
        let json: serde_json::Value =
            serde_json::from_str(&output.stdout).map_err(|_| status.failure(&output))?;
        let lists = ["kernel", "engine"].map(|list| json["datapath"][list].as_array());
        let [Some(kernel), Some(engine)] = lists else {
            return Err(status.failure(&output));
        };
        let found = kernel.iter().chain(engine).find(|c| c["name"] == name);
        Ok(found.and_then(|c| c["value"].as_u64()).unwrap_or(0))
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        self.process.alive()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail(&fs::read_to_string(self.names.log(LABEL)).unwrap_or_default())
    }

    /// Stops it and removes everything of its data path.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        if !self.stopped {
            self.stopped = true;
            AgentHandle::end_recorded(&self.names);
        }
    }

    /// Ends the agent that is recorded in a lab, if any, and cleans its data path up.
    pub(crate) fn end_recorded(names: &Names) {
        if let Some(process) = procs::recorded(&names.procs(), LABEL) {
            process.end();
            procs::forget(&names.procs(), LABEL);
        }
        let Ok(binary) = fs::read_to_string(names.dir().join(BINARY)) else {
            return;
        };
        if !netns_path(&names.node).exists() {
            return;
        }
        let cleanup = Cmd::new(binary)
            .arg("cleanup")
            .arg("--run-dir")
            .arg(names.agent_run());
        let cleanup = cleanup
            .arg("--pin-dir")
            .arg(names.pins())
            .args(["--tap", TAP_IF]);
        if !cleanup.in_netns(&names.node).run_even_if_interrupted() {
            tracing::warn!("tollgate cleanup failed; the lab's removal takes what is left with it");
        }
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.halt();
    }
}

/// A path as a YAML scalar; JSON strings are YAML.
fn yaml(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy().as_ref()).to_string()
}

fn write_config(names: &Names, policy_dir: &Path) -> Result<PathBuf> {
    let text = format!(
        "policyDir: {}\nrunDir: {}\npinDir: {}\ntap: {TAP_IF}\nmetrics: \"off\"\n",
        yaml(policy_dir),
        yaml(&names.agent_run()),
        yaml(&names.pins()),
    );
    let path = names.dir().join("agent.yaml");
    fs::write(&path, text).doing("writing", &path)?;
    Ok(path)
}

fn not_ready(names: &Names, said: &str) -> LabError {
    let log = tail(&fs::read_to_string(names.log(LABEL)).unwrap_or_default());
    LabError::NotReady(format!(
        "the agent is not ready: {}; its log: {log}",
        shorten(said, 500)
    ))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
