//! The demo: a pod, an external host, a policy; what passes, what does not, and what it costs.

mod bulk;
mod client;
mod requests;
mod table;

use std::path::PathBuf;

use crate::agent::AgentHandle;
use crate::error::{IoContext, LabError, Result};
use crate::lab::{self, Lab, Outside, Place, UpOptions};
use crate::names::Names;
use crate::progress::Progress;
use crate::run::Cmd;
use crate::stats;

/// The example policy files, so that an installed binary needs no checkout.
const EXAMPLES: [(&str, &str); 2] = [
    (
        "10-endpoints.yaml",
        include_str!("../../../examples/policy/10-endpoints.yaml"),
    ),
    (
        "20-egress.yaml",
        include_str!("../../../examples/policy/20-egress.yaml"),
    ),
];
/// Where a checkout has them.
const EXAMPLES_DIR: &str = "examples/policy";
/// Name of the policy in them, which a denial must tell.
const POLICY: &str = "client-egress";
/// Name of the demo's lab.
pub const LAB_NAME: &str = "demo";

/// How to run the demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The `tollgate` binary: agent and helpers.
    pub tollgate: PathBuf,
    /// Directory of the example policy; `None`: `examples/policy` below the current directory, or
    /// the copy inside the binary if that is not there.
    pub policy_dir: Option<PathBuf>,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// Times each transfer is measured with and without policy.
    pub rounds: usize,
}

impl DemoOptions {
    /// The usual demo with this binary.
    pub fn new(tollgate: impl Into<PathBuf>) -> Self {
        DemoOptions {
            tollgate: tollgate.into(),
            policy_dir: None,
            outside: Outside::Veth,
            rounds: 3,
        }
    }
}

/// What the parts of the demo share.
struct Stage<'a> {
    lab: &'a Lab,
    tollgate: PathBuf,
    policy_dir: PathBuf,
    progress: &'a Progress,
}

/// Runs the demo and prints its tables on standard output, progress on standard error.
///
/// # Errors
/// [`LabError::Unexpected`] names everything that was not as it should be; other errors say what
/// could not be done. The lab is gone in every case.
pub fn run(options: &DemoOptions) -> Result<()> {
    let progress = Progress::new();
    progress.step("making the lab: pod, node, external host; nginx with HTTP and HTTPS");
    let up = UpOptions {
        name: LAB_NAME.into(),
        outside: options.outside,
        ..UpOptions::default()
    };
    let lab = lab::up(&up)?;
    progress.print(&format!("Lab {}", lab::describe(&lab.info)));
    let stage = Stage {
        policy_dir: policy_dir(&lab.names, options.policy_dir.clone())?,
        tollgate: options.tollgate.clone(),
        lab: &lab,
        progress: &progress,
    };
    let outcome = stage.play(options.rounds);
    let names = lab.names.clone();
    progress.step("taking the lab down");
    let down = lab.down();
    let mut wrong = outcome?;
    down?;
    wrong.extend(
        lab::remains(&names)
            .into_iter()
            .map(|left| format!("left behind: {left}")),
    );
    if wrong.is_empty() {
        let seconds = progress.elapsed().as_secs();
        progress.print(&format!(
            "Everything as expected, nothing left behind. {seconds} s."
        ));
        return Ok(());
    }
    Err(LabError::Unexpected(wrong))
}

impl Stage<'_> {
    /// Plays it; returns what was not as expected.
    fn play(&self, rounds: usize) -> Result<Vec<String>> {
        self.progress
            .step("starting the agent with the example policy");
        let agent = self.start_agent()?;
        let mut wrong = requests::run(self)?;
        let (bulk_wrong, agent) = bulk::run(self, agent, rounds)?;
        wrong.extend(bulk_wrong);
        wrong.extend(self.checksums()?);
        if !agent.alive() {
            wrong.push(format!("the agent ended: {}", agent.log_tail()));
        }
        self.progress.step("stopping the agent");
        agent.stop();
        Ok(wrong)
    }

    fn start_agent(&self) -> Result<AgentHandle> {
        AgentHandle::start(self.lab, &self.tollgate, &self.policy_dir)
    }

    /// The receivers' counters of wrong checksums, which must be zero.
    fn checksums(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut text = "Wrong checksums seen by receivers:".to_owned();
        for (name, place) in [("pod", Place::Pod), ("external host", Place::Out)] {
            let cat = Cmd::line("cat /proc/net/snmp /proc/net/snmp6");
            let errors = stats::checksum_errors(&self.lab.at(place, cat).run()?.stdout)?;
            text.push_str(&format!("  {name} {errors}"));
            if errors != 0 {
                wrong.push(format!(
                    "{errors} packets with a wrong checksum in the {name}"
                ));
            }
        }
        self.progress.print(&format!("\n{text}"));
        Ok(wrong)
    }

    /// A helper of the `tollgate` binary, run in the pod.
    fn traffic(&self, args: &[&str]) -> Cmd {
        self.lab.at(
            Place::Pod,
            Cmd::new(&self.tollgate).args(["lab", "traffic"]).args(args),
        )
    }
}

fn policy_dir(names: &Names, wanted: Option<PathBuf>) -> Result<PathBuf> {
    let checkout = PathBuf::from(EXAMPLES_DIR);
    let dir = match wanted {
        Some(dir) => dir,
        None if checkout.is_dir() => checkout,
        None => {
            let dir = names.dir().join("policy");
            std::fs::create_dir_all(&dir).doing("creating", &dir)?;
            for (name, text) in EXAMPLES {
                std::fs::write(dir.join(name), text).doing("writing", dir.join(name))?;
            }
            dir
        }
    };
    dir.canonicalize().doing("finding", dir)
}
