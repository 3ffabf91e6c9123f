//! A lab with a policy directory and an agent, and the questions that tests ask them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tollgate_lab::lab::{self, Lab, Place, UpOptions};
use tollgate_lab::names::{Family, TAP_IF};
use tollgate_lab::run::{Cmd, Output};

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Size of the large object: many super-packets, and still written in no time.
pub const BIG: u64 = 64 << 20;
/// Both address families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Host that the policy allows.
pub const API: &str = "api.example.com";
/// Metrics of the agent, in the node's own namespace.
pub const METRICS: &str = "127.0.0.1:9464";
/// Bound of every wait for something that takes milliseconds; generous for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Who is governed.
pub const INVENTORY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {interface: tgp0, addresses: [10.10.0.2, 'fd10::2']}
";

/// What most tests run under; one rule of each kind.
pub const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
    - name: api
      action: Allow
      ports:
        - {protocol: TCP, port: 80}
        - {protocol: TCP, port: 443}
        - {protocol: TCP, port: 8080}
      l7Protocols:
        - http: {host: api.example.com, method: GET, path: /v2/*}
        - http: {host: api.example.com, method: HEAD, path: /v2/*}
        - http: {host: api.example.com, method: PUT, path: /upload/*}
        - tls: {sni: '*.example.com'}
    - {name: plain, action: Allow, ports: [{protocol: TCP, port: 9000}]}
    - {name: echo, action: Allow, ports: [{protocol: UDP, port: 7000}]}
    - name: ping
      action: Allow
      protocols: [{icmp: {icmpType: 8, icmpCode: 0}}]
    - name: silent
      action: Drop
      ports: [{protocol: TCP, port: 9010}, {protocol: UDP, port: 7010}]
    - {name: rest, action: Reject}
";

/// The policy with every rule logged.
pub fn logged(policy: &str) -> String {
    policy.replace(
        "      l7Protocols:",
        "      enableLogging: true\n      l7Protocols:",
    )
}

/// A named part of a test that shares its lab with others.
pub type Case<'a> = (&'a str, fn(&mut Bed));

/// A lab that is governed. The agent ends before the lab goes.
#[derive(Debug)]
pub struct Bed {
    pub agent: Option<Agent>,
    pub lab: Lab,
}

impl Bed {
    /// A lab of default shape, with the agent running under [`POLICY`].
    pub fn new(name: &str) -> Bed {
        Bed::of(&options(name))
    }

    /// A lab of a given shape, with the agent running under [`POLICY`].
    pub fn of(options: &UpOptions) -> Bed {
        let mut bed = Bed::without_agent(options);
        bed.start();
        bed
    }

    /// A lab of a given shape with [`POLICY`] in its policy directory; nothing governs it yet.
    pub fn without_agent(options: &UpOptions) -> Bed {
        let lab = lab::up(options).expect("a lab: these tests need root");
        let bed = Bed { agent: None, lab };
        fs::create_dir_all(bed.policy_dir()).unwrap();
        fs::create_dir_all(bed.run_dir()).unwrap();
        bed.replace("inventory.yaml", INVENTORY);
        bed.replace("policy.yaml", POLICY);
        bed
    }

    /// Directory of policy files.
    pub fn policy_dir(&self) -> PathBuf {
        self.lab.names.dir().join("policy")
    }

    /// The agent's run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.lab.names.agent_run()
    }

    /// Replaces a policy file atomically.
    pub fn replace(&self, name: &str, text: &str) {
        // Outside the directory, so that nothing but the rename shows in it.
        let new = self.lab.names.dir().join("new.yaml");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.policy_dir().join(name)).unwrap();
    }

    /// Starts the agent and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.agent.is_none(), "one agent a lab");
        let names = &self.lab.names;
        let show = |path: &Path| path.display().to_string();
        let config = names.dir().join("gate.yaml");
        let text = format!(
            "policyDir: {}\nrunDir: {}\npinDir: {}\ntap: {TAP_IF}\nmetrics: {METRICS}\n\
             workers: 2\nnodeName: gate\ndns: {{resolvers: [{}]}}\n",
            show(&self.policy_dir()),
            show(&self.run_dir()),
            show(&names.pins()),
            Family::V4.outside(),
        );
        fs::write(&config, text).unwrap();
        let log = names.log("gate-agent");
        let cmd = Cmd::new(TOLLGATE).args(["agent", "--config"]).arg(config);
        let child = self.lab.at(Place::Node, cmd).spawn(&log).unwrap();
        self.agent = Some(Agent { child, log });
        let status = self.tollgate(&["status", "--wait", "30"]);
        assert!(
            status.status.success(),
            "the agent is not ready: {}{}",
            status.stdout,
            status.stderr
        );
    }

    /// Ends the agent with a signal and waits until it is gone.
    pub fn stop(&mut self, signal: Signal) {
        self.agent.take().expect("an agent").end(signal);
    }

    /// Runs `tollgate` on the node, towards this lab's agent.
    pub fn tollgate(&self, args: &[&str]) -> Output {
        let cmd = Cmd::new(TOLLGATE).args(args);
        let cmd = cmd
            .env("TOLLGATE_RUN_DIR", self.run_dir())
            .timeout(Duration::from_secs(60));
        self.lab.at(Place::Node, cmd).output().unwrap()
    }

    /// Removes what the agent left on the node; returns what the command printed.
    pub fn cleanup(&self) -> Output {
        let pins = self.lab.names.pins().display().to_string();
        self.tollgate(&["cleanup", "--pin-dir", &pins, "--tap", TAP_IF])
    }

    /// A subcommand's JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["-o", "json"]);
        let output = self.tollgate(&args);
        let parsed = serde_json::from_str(&output.stdout);
        parsed.unwrap_or_else(|e| panic!("{args:?}: {e}: {}{}", output.stdout, output.stderr))
    }

    /// `tollgate status`.
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// Everything that engines and kernel programs count; what is missing is 0.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let lists = ["kernel", "engine"].map(|list| status["datapath"][list].as_array().cloned());
        let named = lists.into_iter().flatten().flatten();
        let pair = |c: Value| {
            (
                c["name"].as_str().unwrap().into(),
                c["value"].as_u64().unwrap(),
            )
        };
        named.map(pair).collect()
    }

    /// One counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or(0)
    }

    /// Generation of the policy in force.
    pub fn generation(&self) -> u64 {
        self.status()["policy"]["generation"].as_u64().unwrap()
    }

    /// Changes the policy and waits until every worker applies it.
    pub fn change(&self, change: impl FnOnce(&Bed)) {
        let before = self.generation();
        change(self);
        until("the new policy is in force", || {
            let text = self.metrics();
            let worker = metric(&text, "tollgate_worker_policy_generation")?;
            (self.generation() > before && worker > before).then_some(())
        });
    }

    /// What Prometheus would read.
    pub fn metrics(&self) -> String {
        let url = format!("http://{METRICS}/metrics");
        let cmd = Cmd::new("curl").args(["-sSf", &url]);
        self.lab.at(Place::Node, cmd).run().unwrap().stdout
    }

    /// Runs a shell line in a namespace; it must succeed. Returns its standard output.
    pub fn sh(&self, place: Place, line: &str) -> String {
        let cmd = Cmd::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .timeout(Duration::from_secs(120));
        self.lab
            .at(place, cmd)
            .run()
            .unwrap()
            .stdout
            .trim()
            .to_owned()
    }

    /// curl in the pod, every name leading to the outside's address of the family.
    pub fn curl(&self, family: Family, args: &[&str]) -> Output {
        let cmd = Cmd::new("curl").args(curl_options(self, family)).args(args);
        let cmd = cmd.timeout(Duration::from_secs(60));
        self.lab.at(Place::Pod, cmd).output().unwrap()
    }

    /// The same as a word of a shell line.
    pub fn curl_line(&self, family: Family) -> String {
        let options = curl_options(self, family);
        let quoted: Vec<String> = options.iter().map(|o| format!("'{o}'")).collect();
        format!("curl {}", quoted.join(" "))
    }

    /// curl's exit code and the status codes of the answers.
    pub fn seen(&self, family: Family, args: &[&str]) -> (i32, String) {
        let mut all = vec!["-o", "/dev/null", "-w", "%{http_code} "];
        all.extend(args);
        let output = self.curl(family, &all);
        (
            output.status.code().unwrap_or(-1),
            output.stdout.trim().to_owned(),
        )
    }

    /// The large object, as a file.
    pub fn big_file(&self) -> String {
        self.lab
            .names
            .www()
            .join("v2/data/big.bin")
            .display()
            .to_string()
    }

    /// Runs cases one after the other in this lab; a failed one does not keep the others from it.
    pub fn run(&mut self, cases: &[Case<'_>]) {
        let mut failed = Vec::new();
        for (name, case) in cases {
            let begin = Instant::now();
            let caught = std::panic::AssertUnwindSafe(|| case(self));
            let outcome = std::panic::catch_unwind(caught);
            let word = if outcome.is_ok() { "ok" } else { "FAILED" };
            eprintln!(
                "case {name}: {word} ({:.1} s)",
                begin.elapsed().as_secs_f64()
            );
            if outcome.is_err() {
                failed.push(*name);
            }
        }
        if !failed.is_empty() {
            let log = self.agent.as_ref().map(Agent::log).unwrap_or_default();
            panic!("failed: {}; the agent's log:\n{log}", failed.join(", "));
        }
    }
}

/// Options of a lab for these tests.
pub fn options(name: &str) -> UpOptions {
    UpOptions {
        name: format!("gt-{name}"),
        big_bytes: BIG,
        ..UpOptions::default()
    }
}

fn curl_options(bed: &Bed, family: Family) -> Vec<String> {
    let outside = match family {
        Family::V4 => family.outside().to_string(),
        Family::V6 => format!("[{}]", family.outside()),
    };
    let ca = bed.lab.names.ca().display().to_string();
    [
        "-sS",
        "--max-time",
        "40",
        "--cacert",
        &ca,
        "--connect-to",
        &format!("::{outside}:"),
    ]
    .map(str::to_owned)
    .into()
}

/// A running agent; dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn end(mut self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        until("the agent ends", || self.child.try_wait().unwrap());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Looks at a condition until it holds; fails after [`SOON`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_in(SOON, what, look)
}

/// Looks at a condition until it holds; fails after `limit`.
pub fn until_in<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// The value of a metric without labels, or with labels as written.
pub fn metric(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

/// Fails unless the output is of a command that succeeded.
pub fn success(output: &Output) -> &str {
    assert!(
        output.status.success(),
        "{}{}",
        output.stdout,
        output.stderr
    );
    &output.stdout
}

/// Compares with the values in the message.
pub fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) {
    assert!(
        found == expected,
        "{what}: found {found:?}, expected {expected:?}"
    );
}
