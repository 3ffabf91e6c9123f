//! What the catalogue judges: a snapshot, an earlier one, the path, probes and declarations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{LinkRef, Process, Snapshot};

/// Everything that a judgement may rest on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Case {
    /// The machine now.
    pub now: Snapshot,
    /// The machine earlier: what grew since then.
    pub earlier: Option<Snapshot>,
    /// The way that was asked about; without it the whole machine is judged.
    pub path: Option<Path>,
    /// What probes found, if any were sent between `earlier` and `now`.
    pub probes: Vec<ProbeResult>,
    /// Offload state that somebody declared.
    pub declared: Vec<Declared>,
}

/// The chain of interfaces between an endpoint and a remote address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// What was asked for: the endpoint.
    pub from: String,
    /// What was asked for: the remote address or host.
    pub to: String,
    /// The interfaces, outbound order.
    pub hops: Vec<Hop>,
    /// Where the chain could not be followed further, in words; empty if it ends at the remote side.
    pub ends: String,
}

/// One interface of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// The interface.
    pub at: LinkRef,
    /// How the packet came to it from the hop before.
    pub via: Via,
    /// Bytes that the tunnels entered so far add to a packet.
    pub overhead: u32,
}

/// How a packet gets from one interface to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// The path begins here.
    Start,
    /// The other end of a pair.
    Pair,
    /// Through the ports of a bridge.
    Bridge,
    /// From a port to its bridge's own interface, or back.
    Master,
    /// Through Open vSwitch.
    Ovs,
    /// Routed, with the route as `ip route` prints it.
    Route(String),
    /// From an upper device to the lower one, or back: VLAN, macvlan; out of a tunnel at its other end.
    Lower,
    /// Encapsulated, with the tunnel's kind and the outer destination.
    Tunnel(String),
    /// Redirected in the kernel by a program or filter (tc, eBPF).
    Redirect,
    /// Through a program in user space that reads one interface and writes the other.
    Engine(Process),
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A few bytes.
    Small,
    /// A packet of exactly the MTU, not to be fragmented.
    Mtu,
    /// One byte more: must be refused or fragmented, never lost silently.
    MtuPlusOne,
    /// A burst that the kernel sends as super-packets.
    Gso,
    /// A burst whose checksums are left to the device.
    Checksum,
    /// A burst of datagrams sent as one (`UDP_SEGMENT`).
    UdpGso,
}

/// Transport of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Direction of a probe's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The endpoint sends.
    Outbound,
    /// The endpoint receives.
    Inbound,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result", content = "why")]
pub enum ProbeOutcome {
    /// Everything arrived intact.
    Passed,
    /// Something did not, in words.
    Failed(String),
    /// It could not be sent at all, in words; says nothing about the path.
    NotRun(String),
}

/// One probe with its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// What was sent.
    pub kind: ProbeKind,
    /// Over what.
    pub transport: Transport,
    /// Over IPv6 rather than IPv4.
    pub ipv6: bool,
    /// Which way.
    pub direction: Direction,
    /// What came of it.
    pub outcome: ProbeOutcome,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes that arrived, as far as the probe can tell.
    pub received: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What grew at the receiver meanwhile: counters by name, such as `Tcp:InCsumErrors`.
    pub receiver: BTreeMap<String, u64>,
    /// What grew at the sender meanwhile, such as `Tcp:RetransSegs`.
    pub sender: BTreeMap<String, u64>,
}

/// Offload state that somebody declared and that the machine should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Where it is declared: file and field.
    pub source: String,
    /// The interface, or every one that matches a wildcard (`veth*`).
    pub interface: String,
    /// Inside the endpoints' namespaces rather than on the node.
    pub endpoints: bool,
    /// The kernel's name of the feature.
    pub feature: String,
    /// On or off.
    pub on: bool,
}
