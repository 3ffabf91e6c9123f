//! Three namespaces and what stands between them.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_lab::blind::BlindEngine;
use tollgate_lab::run::{Cmd, Output};

pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Bound of a wait for something that takes milliseconds; generous for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Bound of a doctor's run with probes, of which a dozen may each have to wait for seconds.
const LONGEST: Duration = Duration::from_secs(120);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// The remote side.
pub const OUT: &str = "10.88.1.2";
/// The remote side where nothing is routed.
pub const NEAR: &str = "10.88.0.9";

/// What is between the pod and the outside. Every interface is one of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// `eth0 - tgp0`, routed, `up0 - eth0`.
    Routed,
    /// `eth0 - p0`, a program that copies frames, `p1 - eth0`.
    Copied,
    /// The same, with a bridge behind the program: `p1 - q1`, bridged, `up0 - eth0`.
    CopiedAndBridged,
    /// `eth0 - p0`, bridged, `vx0`, through the tunnel, `vx0` of the outside.
    Tunnelled,
}

pub struct Bed {
    name: String,
    between: Between,
    /// The doctor runs on the node, as on a node of a cluster, rather than beside all of them.
    pub on_node: bool,
    dir: tempfile::TempDir,
    engine: Option<BlindEngine>,
    processes: Vec<Child>,
}

impl Bed {
    pub fn new(name: &str, between: Between) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        let mut bed = Self {
            name: name.to_owned(),
            between,
            on_node: false,
            dir: tempfile::tempdir().unwrap(),
            engine: None,
            processes: Vec::new(),
        };
        bed.clear();
        for place in ["pod", "node", "out"] {
            let netns = bed.netns(place);
            sh(&format!(
                "ip netns add {netns} && ip -n {netns} link set lo up"
            ));
        }
        bed.make();
        bed
    }

    fn make(&mut self) {
        match self.between {
            Between::Routed => {
                self.pair("tgp0", "pod");
                self.pair("up0", "out");
                self.sh("node", "ip addr add 10.88.0.1/24 dev tgp0");
                self.sh("node", "ip addr add 10.88.1.1/24 dev up0");
                self.sh("node", "sysctl -qw net.ipv4.ip_forward=1");
                self.sh("pod", "ip addr add 10.88.0.2/24 dev eth0");
                self.sh("pod", "ip route add default via 10.88.0.1");
                self.sh("out", "ip addr add 10.88.1.2/24 dev eth0");
                self.sh("out", "ip route add default via 10.88.1.1");
            }
            Between::Copied => {
                self.pair("p0", "pod");
                self.pair("p1", "out");
                self.ends();
            }
            Between::CopiedAndBridged => {
                self.pair("p0", "pod");
                self.pair("up0", "out");
                self.sh(
                    "node",
                    "ip link add p1 type veth peer name q1; ip link add br0 type bridge; \
                     ip link set q1 master br0; ip link set up0 master br0; \
                     for i in p1 q1 br0; do ip link set $i up; done",
                );
                self.ends();
            }
            Between::Tunnelled => {
                self.pair("p0", "pod");
                self.pair("up0", "out");
                self.sh("node", "ip addr add 192.0.2.1/24 dev up0");
                self.sh("out", "ip addr add 192.0.2.2/24 dev eth0");
                self.sh(
                    "node",
                    "ip link add vx0 type vxlan id 42 dstport 4789 local 192.0.2.1 \
                     remote 192.0.2.2 dev up0; ip link add br0 type bridge; \
                     for i in p0 vx0; do ip link set $i master br0; done; \
                     for i in vx0 br0; do ip link set $i up; done",
                );
                self.sh(
                    "out",
                    "ip link add vx0 type vxlan id 42 dstport 4789 local 192.0.2.2 \
                     remote 192.0.2.1 dev eth0; ip link set vx0 up; \
                     ip addr add 10.88.0.9/24 dev vx0",
                );
                self.sh("pod", "ip addr add 10.88.0.2/24 dev eth0");
                self.sh("pod", "ip link set eth0 mtu 1450");
                self.sh("node", "ip link set p0 mtu 1450");
            }
        }
    }

    fn ends(&self) {
        self.sh("pod", "ip addr add 10.88.0.2/24 dev eth0");
        self.sh("out", "ip addr add 10.88.0.9/24 dev eth0");
    }

    /// One queue, up, at both ends; `eth0` inside.
    fn pair(&self, name: &str, inside: &str) {
        let (node, inside) = (self.netns("node"), self.netns(inside));
        let queues = "numtxqueues 1 numrxqueues 1";
        sh(&format!(
            "ip -n {node} link add {name} {queues} type veth peer name eth0 {queues} netns {inside} \
             && ip -n {node} link set {name} up && ip -n {inside} link set eth0 up"
        ));
    }

    pub fn netns(&self, place: &str) -> String {
        format!("tg-dr-{}-{place}", self.name)
    }

    /// Where the remote side is.
    pub fn to(&self) -> &'static str {
        match self.between {
            Between::Routed => OUT,
            _ => NEAR,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a line in a namespace; it must succeed.
    pub fn sh(&self, place: &str, line: &str) -> String {
        let cmd = Cmd::new("bash").args(["-ec", line]);
        cmd.in_netns(&self.netns(place)).run().unwrap().stdout
    }

    /// Starts the lab's blind engine between two ports of the node.
    pub fn copy(&mut self) {
        let node = self.netns("node");
        let dir = self.dir.path();
        let engine = BlindEngine::start(TOLLGATE.as_ref(), &node, "p0", "p1", dir).unwrap();
        self.engine = Some(engine);
    }

    /// Starts a Python program that says when it is ready, and goes on until the bed is gone.
    pub fn python(&mut self, place: &str, script: &str) {
        let ready = self.path(&format!("ready-{}", self.processes.len()));
        let cmd = Cmd::new("python3").args(["-c", script]).arg(&ready);
        let cmd = cmd.in_netns(&self.netns(place));
        let child = cmd.spawn(&self.path("python.log")).unwrap();
        self.processes.push(child);
        until("the program is ready", || ready.exists().then_some(()));
    }

    /// Ends what [`Self::python`] started.
    pub fn end_python(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// `tollgate doctor` with its record of repairs and no configuration but the given.
    pub fn doctor(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn command(&self, args: &[&str]) -> Cmd {
        let cmd = Cmd::new(TOLLGATE)
            .arg("doctor")
            .args(args)
            .arg("--state-dir")
            .arg(self.path("state"))
            .env("TOLLGATE_CONFIG", self.path("agent.yaml"))
            .timeout(LONGEST);
        match self.on_node {
            true => cmd.in_netns(&self.netns("node")),
            false => cmd,
        }
    }

    /// The same about the path from the pod to the outside, as JSON.
    pub fn examine(&self, more: &[&str]) -> Examined {
        let pod = self.netns("pod");
        let mut args = vec![pod.as_str(), "--to", self.to(), "-o", "json"];
        args.extend(more);
        Examined::of(&self.doctor(&args))
    }

    fn clear(&self) {
        for place in ["pod", "node", "out"] {
            let netns = self.netns(place);
            if PathBuf::from(format!("/run/netns/{netns}")).exists() {
                let _ = Cmd::line(&format!("ip netns del {netns}")).output();
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.engine.take());
        self.end_python();
        self.clear();
    }
}

/// What the doctor said.
#[derive(Debug)]
pub struct Examined {
    pub code: i32,
    pub json: Value,
}

impl Examined {
    pub fn of(output: &Output) -> Self {
        let json = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self {
            code: output.status.code().unwrap_or(-1),
            json,
        }
    }

    /// Numbers of the findings with their severity, each once.
    pub fn found(&self) -> Vec<(String, String)> {
        let findings = self.json["findings"].as_array().unwrap();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let mut found: Vec<(String, String)> = findings
            .iter()
            .map(|one| (word(&one["code"]), word(&one["severity"])))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    pub fn codes(&self) -> Vec<String> {
        let mut codes: Vec<String> = self.found().into_iter().map(|(code, _)| code).collect();
        codes.dedup();
        codes
    }

    /// Probes that did not pass, in words.
    pub fn failed_probes(&self) -> Vec<String> {
        let probes = self.json["probes"].as_array().unwrap();
        let passed = |probe: &&Value| probe["outcome"]["result"] != "passed";
        probes
            .iter()
            .filter(passed)
            .map(ToString::to_string)
            .collect()
    }

    /// Commands that `--fix` would run for a finding.
    pub fn actions(&self, code: &str) -> usize {
        let findings = self.json["findings"].as_array().unwrap();
        let count = |one: &Value| one["actions"].as_array().unwrap().len();
        let of_it = findings.iter().filter(|one| one["code"] == code);
        of_it.map(count).sum()
    }
}

/// Runs a line of shell; it must succeed.
pub fn sh(line: &str) {
    Cmd::new("bash").args(["-ec", line]).run().unwrap();
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

/// Everything that `ethtool` and `ip` show of a bed's interfaces.
pub fn state(bed: &Bed) -> String {
    let mut all = String::new();
    for place in ["pod", "node", "out"] {
        all += &bed.sh(
            place,
            "for i in $(ls /proc/self/net/dev_snmp6 | grep -v '^lo$' | sort); do ethtool -k $i; done; \
             ip -o link | sed 's/.*\\(mtu [0-9]*\\).*/\\1/'; nft list ruleset; \
             sysctl net.ipv4.tcp_mtu_probing",
        );
    }
    all
}

/// Writes a file of the bed.
pub fn write(bed: &Bed, name: &str, text: &str) -> PathBuf {
    let path = bed.path(name);
    fs::write(&path, text).unwrap();
    path
}

/// A Python program that reads both ports through rings of so many bytes a frame, with the virtio-net
/// header or without, and forwards nothing.
pub fn reader(frame: u32, header: bool) -> String {
    let header = u8::from(header);
    format!(
        "
import socket, struct, sys, time
SOL_PACKET, ADD_MEMBERSHIP, RX_RING, VNET_HDR, PROMISC = 263, 1, 5, 15, 1
BLOCK, BLOCKS = 4096, 4
kept = []
for name in ('p0', 'p1'):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((name, 3))
    index = socket.if_nametoindex(name)
    s.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack('IHH8s', index, PROMISC, 0, b''))
    s.setsockopt(SOL_PACKET, VNET_HDR, {header})
    frames = BLOCK * BLOCKS // {frame}
    s.setsockopt(SOL_PACKET, RX_RING, struct.pack('IIII', BLOCK, BLOCKS, {frame}, frames))
    kept.append(s)
open(sys.argv[1], 'w').close()
time.sleep(600)
"
    )
}
