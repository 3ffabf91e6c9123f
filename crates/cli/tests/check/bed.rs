//! A node with pods behind veth pairs, and an agent on it.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tollgate_lab::run::{Cmd, Output};

pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Name of the agent's TAP, in the node's own namespace.
pub const TAP: &str = "tgck0";
/// Bound of a wait for something that takes milliseconds; generous for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
    - {name: all, action: Allow}
";

pub struct Bed {
    name: String,
    dir: tempfile::TempDir,
    pods: Vec<String>,
    agent: Option<Child>,
    processes: Vec<Child>,
}

impl Bed {
    /// A node with an uplink and the first pod.
    pub fn new(name: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        let mut bed = Self {
            name: name.to_owned(),
            dir: tempfile::tempdir().unwrap(),
            pods: Vec::new(),
            agent: None,
            processes: Vec::new(),
        };
        bed.clear();
        fs::create_dir(bed.path("policy")).unwrap();
        let mut inventory = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
        for pod in 1..=2 {
            inventory.push_str(&format!(
                "---\napiVersion: policy.tollgate.dev/v1alpha1\nkind: Endpoint\nmetadata: \
                 {{name: web-{pod}, namespace: shop, labels: {{app: web}}}}\nspec: {{interface: \
                 tgv{pod}, addresses: [10.20.{pod}.2]}}\n"
            ));
        }
        fs::write(bed.path("policy/inventory.yaml"), inventory).unwrap();
        bed.policy(POLICY);
        sh(&format!("ip netns add {}", bed.node()));
        bed.on_node("ip link set lo up");
        bed.on_node("ip link add up0 mtu 1500 type veth peer name wire0");
        bed.on_node("ip link set up0 up");
        bed.add_pod(1);
        bed
    }

    /// Writes the policy; the good one again with [`Self::good_policy`].
    pub fn policy(&self, text: &str) {
        fs::write(self.path("policy/policy.yaml"), text).unwrap();
    }

    pub fn good_policy(&self) {
        self.policy(POLICY);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn node(&self) -> String {
        format!("tg-ck-{}", self.name)
    }

    pub fn pod(&self, number: u8) -> String {
        format!("tg-ck-{}-p{number}", self.name)
    }

    pub fn pins(&self) -> String {
        format!("/sys/fs/bpf/tg-ck-{}", self.name)
    }

    /// Adds a pod as a runtime does: the namespace first, then the pair, then the name inside.
    pub fn add_pod(&mut self, number: u8) {
        let (node, pod) = (self.node(), self.pod(number));
        sh(&format!("ip netns add {pod}"));
        self.pods.push(pod.clone());
        sh(&format!(
            "ip -n {node} link add tgv{number} type veth peer name tgtmp"
        ));
        sh(&format!(
            "ip -n {node} link set tgtmp netns {pod} name eth0"
        ));
        sh(&format!(
            "ip -n {node} addr add 10.20.{number}.1/24 dev tgv{number}"
        ));
        sh(&format!(
            "ip -n {pod} addr add 10.20.{number}.2/24 dev eth0"
        ));
        sh(&format!("ip -n {node} link set tgv{number} up"));
        sh(&format!("ip -n {pod} link set eth0 up"));
    }

    /// Adds a pod whose namespace has no name, only a process of another user. Returns the process.
    pub fn add_nameless_pod(&mut self, number: u8) -> u32 {
        let line = "unshare -n setpriv --reuid=65534 --regid=65534 --clear-groups sleep 300";
        let child = Cmd::line(line).spawn(&self.path("pod.log")).unwrap();
        let pid = child.id();
        self.processes.push(child);
        until("the process is in a namespace of its own", || {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (comm.trim() == "sleep").then_some(())
        });
        let node = self.node();
        sh(&format!(
            "ip -n {node} link add tgv{number} type veth peer name eth0 netns {pid}"
        ));
        sh(&format!("ip -n {node} link set tgv{number} up"));
        pid
    }

    /// Runs a line on the node; it must succeed.
    pub fn on_node(&self, line: &str) -> String {
        let cmd = Cmd::new("bash").args(["-c", line]).in_netns(&self.node());
        cmd.run().unwrap().stdout
    }

    /// Runs a line in a pod; it must succeed.
    pub fn in_pod(&self, number: u8, line: &str) -> String {
        let cmd = Cmd::new("bash").args(["-c", line]);
        cmd.in_netns(&self.pod(number)).run().unwrap().stdout
    }

    /// The flags by which commands find this bed.
    pub fn flags(&self) -> Vec<String> {
        vec![
            "--policy-dir".into(),
            self.path("policy").display().to_string(),
            "--run-dir".into(),
            self.path("run").display().to_string(),
            "--pin-dir".into(),
            self.pins(),
            "--tap".into(),
            TAP.into(),
        ]
    }

    /// `tollgate` on the node.
    pub fn tollgate(&self, args: &[&str]) -> Output {
        let cmd = Cmd::new(TOLLGATE)
            .args(args)
            .env("TOLLGATE_RUN_DIR", self.path("run"))
            .env("TOLLGATE_CONFIG", self.path("none.yaml"));
        cmd.in_netns(&self.node()).output().unwrap()
    }

    /// Starts the agent with more lines of configuration, and waits until it is ready.
    pub fn start(&mut self, more: &str) {
        let config = self.path("agent.yaml");
        let text = format!(
            "policyDir: {}\nrunDir: {}\npinDir: {}\ntap: {TAP}\nmetrics: 'off'\nworkers: 1\n\
             nodeName: check\n{more}",
            self.path("policy").display(),
            self.path("run").display(),
            self.pins(),
        );
        fs::write(&config, text).unwrap();
        let cmd = Cmd::new(TOLLGATE).args(["agent", "--config"]).arg(&config);
        let cmd = cmd.in_netns(&self.node());
        self.agent = Some(cmd.spawn(&self.path("agent.log")).unwrap());
        until("the agent is ready", || {
            let state = self.tollgate(&["status"]).status.code();
            // 1: degraded, which some tests are about.
            matches!(state, Some(0 | 1)).then_some(())
        });
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Ends the agent.
    pub fn stop(&mut self) {
        let Some(mut child) = self.agent.take() else {
            return;
        };
        let pid = Pid::from_child(&child);
        let _ = kill_process(pid, Signal::TERM);
        let _ = child.wait();
    }

    pub fn status(&self) -> Value {
        let output = self.tollgate(&["status", "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Whether a feature is on: in a pod, or (0) on the node.
    pub fn feature(&self, pod: u8, ifname: &str, feature: &str) -> String {
        let line = format!("ethtool -k {ifname}");
        let text = match pod {
            0 => self.on_node(&line),
            pod => self.in_pod(pod, &line),
        };
        let found = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{feature}: ")));
        found.unwrap_or("?").to_owned()
    }

    fn clear(&self) {
        for pod in 0..=2 {
            let name = if pod == 0 { self.node() } else { self.pod(pod) };
            if PathBuf::from(format!("/run/netns/{name}")).exists() {
                let _ = Cmd::line(&format!("ip netns del {name}")).output();
            }
        }
        for entry in fs::read_dir(self.pins()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
        let _ = fs::remove_dir(self.pins());
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        self.clear();
    }
}

pub fn sh(line: &str) {
    Cmd::line(line).run().unwrap();
}

/// Waits until there is an answer; fails after [`SOON`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        std::thread::sleep(POLL);
    }
}
