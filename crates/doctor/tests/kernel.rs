//! What the catalogue says about the kernel, asked of the kernel: in namespaces of our own, as root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use tollgate_doctor::action::Action;
use tollgate_doctor::model::*;

/// Namespaces that are gone when the test ends, whatever way.
struct Spaces(Vec<String>);

impl Spaces {
    fn new(test: &str, names: &[&str]) -> Self {
        let spaces = Self(
            names
                .iter()
                .map(|name| format!("tg-doc-{test}-{}-{name}", std::process::id()))
                .collect(),
        );
        for name in &spaces.0 {
            run(&format!("ip netns add {name}"));
        }
        spaces
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn run(line: &str) -> String {
    let output = command(line)
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn start(line: &str) -> Running {
    Running(
        command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{line}: {e}")),
    )
}

/// Features as `ethtool -k` prints them, without its sums over several.
fn features(netns: &str, ifname: &str) -> Vec<Feature> {
    run(&format!("ip netns exec {netns} ethtool -k {ifname}"))
        .lines()
        .skip(1)
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| {
            ![
                "tx-checksumming",
                "scatter-gather",
                "tcp-segmentation-offload",
            ]
            .contains(name)
        })
        .map(|(name, state)| Feature {
            name: match name {
                "generic-segmentation-offload" => "tx-generic-segmentation",
                "generic-receive-offload" => "rx-gro",
                name => name,
            }
            .to_owned(),
            active: state.starts_with("on"),
            wanted: state.starts_with("on") || state.contains("requested on"),
            fixed: state.contains("[fixed]"),
        })
        .collect()
}

/// Whether datagram segmentation is dragged along differs between kernels, and the kernel has no
/// rule for AccECN.
fn compared(features: &[Feature]) -> BTreeMap<&str, bool> {
    features
        .iter()
        .map(|feature| (feature.name.as_str(), feature.active))
        .filter(|(name, _)| !["tx-udp-segmentation", "tx-tcp-accecn-segmentation"].contains(name))
        .collect()
}

#[test]
fn features_follow_each_other_as_in_the_kernel() {
    let spaces = Spaces::new("features", &["a"]);
    let netns = &spaces.0[0];
    run(&format!("ip -n {netns} link add va type veth peer name vb"));
    let link = Link {
        name: "va".to_owned(),
        kind: LinkKind::Veth,
        features: features(netns, "va"),
        ..Link::default()
    };
    let mut snapshot = Snapshot {
        namespaces: vec![Netns {
            pids: Vec::new(),
            aliases: Vec::new(),
            id: NetnsId(1),
            name: "host".to_owned(),
            path: Default::default(),
            links: vec![link],
            routes: Vec::new(),
            sysctls: Default::default(),
            counters: Default::default(),
            packet_sockets: Vec::new(),
            filter: Filter::default(),
        }],
        ..Snapshot::default()
    };
    let mut dragged = false;
    for (feature, on) in [
        ("tx-checksum-ip-generic", false),
        ("tx-checksum-ip-generic", true),
        ("tx-tcp6-segmentation", false),
        ("tx-checksum-ip-generic", false),
        ("tx-checksum-ip-generic", true),
        ("tx-scatter-gather", false),
        ("tx-scatter-gather", true),
        ("rx-gro", true),
        ("rx-gro", false),
    ] {
        let state = if on { "on" } else { "off" };
        run(&format!(
            "ip netns exec {netns} ethtool -K va {feature} {state}"
        ));
        let action = Action::Feature {
            netns: None,
            ifname: "va".to_owned(),
            feature: feature.to_owned(),
            on,
        };
        assert!(action.apply_to(&mut snapshot));
        let real = features(netns, "va");
        let modelled = &snapshot.namespaces[0].links[0].features;
        assert_eq!(
            compared(modelled),
            compared(&real),
            "after {feature} {state}"
        );
        dragged |= real
            .iter()
            .any(|f| f.name == "tx-tcp-segmentation" && !f.active && f.wanted);
    }
    assert!(dragged, "TSO never went with the checksums");
}

/// Packets enough to meet super-packets among them.
const PACKETS: usize = 200;
/// Data of a full TCP segment at MTU 1500 with time stamps.
const SEGMENT: usize = 1448;

/// What a raw reader at `b` gets of a bulk transfer: packets with unfinished checksums, and the
/// largest one's data.
fn transfer(a: &str, b: &str) -> (usize, usize) {
    let mut server = start(&format!(
        "ip netns exec {b} iperf3 --server --one-off --forceflush"
    ));
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Server listening")));
    let filter = "tcp and dst host 10.9.0.2 and dst port 5201 and greater 1000";
    let mut capture = start(&format!(
        "timeout 20 ip netns exec {b} tcpdump -nvv -i eth0 -c {PACKETS} {filter}"
    ));
    let mut complaints = BufReader::new(capture.0.stderr.take().unwrap()).lines();
    assert!(complaints.any(|line| line.unwrap().contains("listening on")));
    run(&format!(
        "ip netns exec {a} iperf3 --client 10.9.0.2 --bytes 50M"
    ));
    let mut text = String::new();
    capture
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let unfinished = text.matches("(incorrect").count();
    let finished = text.matches("(correct)").count();
    assert_eq!(unfinished + finished, PACKETS, "{text}");
    let lengths = text
        .lines()
        .filter_map(|line| line.rsplit_once("length ")?.1.parse().ok());
    (unfinished, lengths.max().unwrap())
}

#[test]
fn checksum_offload_off_before_the_reader_is_enough() {
    let spaces = Spaces::new("reader", &["a", "m", "b"]);
    let [a, m, b] = spaces.0.as_slice() else {
        unreachable!()
    };
    run(&format!("ip -n {m} link add br0 type bridge"));
    run(&format!("ip -n {m} link set br0 up"));
    for (netns, port, address) in [(a, "pa", "10.9.0.1/24"), (b, "pb", "10.9.0.2/24")] {
        run(&format!(
            "ip -n {m} link add {port} type veth peer name eth0 netns {netns}"
        ));
        run(&format!("ip -n {m} link set {port} master br0 up"));
        run(&format!("ip -n {netns} addr add {address} dev eth0"));
        run(&format!("ip -n {netns} link set eth0 up"));
    }
    let (unfinished, largest) = transfer(a, b);
    assert!(
        unfinished > 0 && largest > SEGMENT,
        "{unfinished} unfinished, {largest} bytes"
    );
    run(&format!(
        "ip netns exec {m} ethtool -K pb tx-checksum-ip-generic off"
    ));
    assert_eq!(transfer(a, b), (0, SEGMENT));
}
