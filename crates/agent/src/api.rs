//! What the admin socket speaks: HTTP/1.1 with JSON bodies, the types below. The command-line
//! client uses the same types.

use serde::{Deserialize, Serialize};
use tollgate_engine::event::L7Facts;
use tollgate_policy::Side;

use crate::record::{Peer, Traffic};

/// Path of [`Status`].
pub const STATUS: &str = "/v1/status";
/// Path of a list of [`FlowInfo`]; query: [`FlowQuery`].
pub const FLOWS: &str = "/v1/flows";
/// Path of a stream of [`Record`](crate::record::Record), a line each; query: [`ObserveQuery`].
pub const OBSERVE: &str = "/v1/observe";
/// Path of [`PolicyReport`].
pub const POLICY: &str = "/v1/policy";
/// Path of the metrics, the same text as on the metrics port.
pub const METRICS: &str = "/v1/metrics";

/// Whether the agent does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything works.
    Ok,
    /// Traffic is governed, but something needs attention; `warnings` says what.
    Degraded,
    /// Set-up is not complete yet.
    Starting,
}

/// The agent at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the agent does its work.
    pub health: Health,
    /// What needs attention, a sentence each.
    pub warnings: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// Since when it runs, RFC 3339.
    pub started: String,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The data path.
    pub datapath: DatapathStatus,
    /// The governed endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// The way of events.
    pub events: EventStatus,
    /// The offload state that is kept, if any is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offloads: Option<OffloadStatus>,
}

/// The offload state that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffloadStatus {
    /// Interfaces that are meant and there.
    pub interfaces: usize,
    /// Values that are as declared.
    pub held: usize,
    /// What cannot be had, a sentence each.
    pub problems: Vec<String>,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Where it was read from.
    pub directory: String,
    /// Counts changes since the agent's start; 0: none was loaded yet.
    pub generation: u64,
    /// When it was loaded, RFC 3339.
    pub loaded: Option<String>,
    /// Files it was read from.
    pub files: usize,
    /// Policies in it.
    pub policies: usize,
    /// Present if the directory has changed, but what is there now cannot be used.
    pub stale: Option<Stale>,
}

/// Why the directory's present content is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stale {
    /// Since when, RFC 3339.
    pub since: String,
    /// What is wrong, a line each.
    pub reasons: Vec<String>,
}

/// The data path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatapathStatus {
    /// Name of the TAP.
    pub tap: String,
    /// Where programs, links and maps are pinned.
    pub pin_dir: String,
    /// The Open vSwitch bridge that is the data path instead of programs, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Worker threads, one per queue.
    pub workers: usize,
    /// Whether pinned programs of an earlier agent were taken over.
    pub adopted: bool,
    /// Flows in the engines' tables.
    pub flows: u64,
    /// Packets by what the kernel programs did with them.
    pub kernel: Vec<NamedCount>,
    /// What the engines counted; zeros are left out.
    pub engine: Vec<NamedCount>,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCount {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// One governed endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Its name, e.g. `shop/web-0`.
    pub name: String,
    /// Its interface on the host.
    pub interface: String,
    /// Its identifier in the data path, if it is attached.
    pub id: Option<u16>,
    /// Whether the kernel program sits on the interface.
    pub state: EndpointState,
    /// Why not, where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whether a policy governs what it opens.
    pub egress: bool,
    /// Whether a policy governs what is opened towards it.
    pub ingress: bool,
}

/// Whether an endpoint is governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// The program sits on its interface.
    Attached,
    /// The interface is not there (yet).
    Waiting,
    /// Attaching failed; `detail` says why.
    Failed,
}

/// The way of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventStatus {
    /// The verdict log's file, if one is written.
    pub log: Option<String>,
    /// Whether the last write to it succeeded.
    pub log_writable: bool,
    /// Events lost because the writer did not keep up.
    pub dropped: u64,
}

/// One flow of the engines' tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowInfo {
    /// The flow's name.
    pub flow: String,
    /// The governed endpoint.
    pub endpoint: String,
    /// Who opened it.
    pub direction: Side,
    /// `tcp`, `udp`, ...
    pub protocol: String,
    /// Who opened it.
    pub source: Peer,
    /// Towards whom.
    pub destination: Peer,
    /// `open`, `inspected`, `denied` or `closing`.
    pub state: String,
    /// The kernel handles (part of) it on its own.
    pub cached: bool,
    /// What it was last judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l7: Option<L7Facts>,
    /// The policy that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What passed so far.
    pub traffic: Traffic,
}

/// The policies in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// As in [`Status::policy`].
    pub status: PolicyStatus,
    /// Names of the policies in the order in which they are evaluated.
    pub policies: Vec<serde_json::Value>,
    /// The endpoints and whether they are governed.
    pub endpoints: Vec<EndpointStatus>,
}

/// Which events to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObserveQuery {
    /// Go on after what is remembered.
    #[serde(default)]
    pub follow: bool,
    /// At most so many of the remembered ones; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Only what is not older, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// See [`Filter`](crate::filter::Filter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// Which flows to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowQuery {
    /// A [`Filter`](crate::filter::Filter) as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub error: String,
}
