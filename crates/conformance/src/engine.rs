//! What stands in the path, and what is expected of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tollgate_lab::LabError;
use tollgate_lab::agent::AgentHandle;
use tollgate_lab::blind::BlindEngine;
use tollgate_lab::lab::{Lab, Place as LabPlace};
use tollgate_lab::names::{INNER_IF, NODE_POD_V4, NODE_POD_V6, POD_HOST_IF, POD_V4, POD_V6};
use tollgate_lab::run::Cmd;

use crate::error::Result;

/// Port of everything but QUIC, TCP and UDP.
pub(crate) const PORT: u16 = 8099;
/// Port of QUIC.
pub(crate) const QUIC_PORT: u16 = 8443;
/// The host that the cases ask for; Tollgate's policy lets it through by that name.
pub(crate) const HOST: &str = "conformance.example.com";
/// A host that the policy does not let through.
pub(crate) const OTHER_HOST: &str = "other.example.com";

/// Why nothing passes the blind engine while offloads are on: the very first packet has a checksum that is
/// to be filled in later, and nobody does.
const BLIND: &str =
    "a blind engine loses that checksums are still to be filled in, and cannot send super-packets";
/// The node's interface towards the pod while the blind engine stands between.
const GATEWAY_IF: &str = "gw0";
/// Its other end: the engine's port.
const GATEWAY_PORT: &str = "gw0-port";
/// Answers no ARP request at all (Documentation/networking/ip-sysctl.rst).
const NO_ARP: u8 = 8;

/// What stands in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Nothing: the kernel alone; between given namespaces, whatever is there.
    None,
    /// An inline engine that copies frames by AF_PACKET without their virtio-net header, as many do: it loses
    /// what the kernel knew about them.
    Blind,
    /// The Tollgate agent under an L7 policy that lets the cases through.
    Tollgate,
}

/// What is expected of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It passes.
    Pass,
    /// It fails, for this reason.
    Fail(&'static str),
}

impl Engine {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 3] = [Self::None, Self::Blind, Self::Tollgate];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Blind => "blind",
            Self::Tollgate => "tollgate",
        }
    }

    /// What it is, in one line.
    pub fn describe(self) -> &'static str {
        match self {
            Self::None => "no engine in the path; between given namespaces, as it is now",
            Self::Blind => {
                "an inline engine that is blind to offloads (AF_PACKET without virtio-net header)"
            }
            Self::Tollgate => "the Tollgate agent with an L7 policy",
        }
    }

    /// What is expected of its cases.
    pub fn expected(self) -> Expected {
        match self {
            Self::None | Self::Tollgate => Expected::Pass,
            Self::Blind => Expected::Fail(BLIND),
        }
    }
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no engine {text:?}; there are {names}")
        })
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An engine in a lab's path; dropping it takes it out.
#[derive(Debug)]
pub(crate) enum Running {
    /// Nothing.
    None,
    /// The copier.
    Blind(#[expect(dead_code, reason = "held for its drop")] BlindEngine),
    /// The agent.
    Tollgate(#[expect(dead_code, reason = "held for its drop")] AgentHandle),
}

impl Running {
    /// Puts an engine into the path between the lab's pod and its node.
    pub fn start(engine: Engine, lab: &Lab, tollgate: &Path) -> Result<Self> {
        Ok(match engine {
            Engine::None => Self::None,
            Engine::Blind => Self::Blind(insert_copier(lab, tollgate)?),
            Engine::Tollgate => {
                let policy = write_policy(lab)?;
                Self::Tollgate(AgentHandle::start(lab, tollgate, &policy)?)
            }
        })
    }
}

/// Moves the node's addresses behind the copier: `pod eth0 -- tgp0 [copier] gw0-port -- gw0`.
fn insert_copier(lab: &Lab, tollgate: &Path) -> Result<BlindEngine> {
    let mtu = lab.info.pod_mtu;
    let node = &lab.names.node;
    let mut lines = vec![
        format!("ip link add {GATEWAY_IF} mtu {mtu} type veth peer name {GATEWAY_PORT} mtu {mtu}"),
        format!("ip addr flush dev {POD_HOST_IF}"),
    ];
    for port in [POD_HOST_IF, GATEWAY_PORT] {
        // The ports are no hosts: answering the pod's ARP, they would lead its packets past the engine.
        lines.push(format!(
            "sysctl -qw net.ipv6.conf.{port}.disable_ipv6=1 net.ipv4.conf.{port}.arp_ignore={NO_ARP}"
        ));
    }
    lines.extend([
        format!("ip link set {GATEWAY_PORT} up"),
        format!("ip link set {GATEWAY_IF} up"),
        format!("ip addr add {NODE_POD_V4}/24 dev {GATEWAY_IF}"),
        format!("ip addr add {NODE_POD_V6}/64 dev {GATEWAY_IF} nodad"),
    ]);
    for line in lines {
        Cmd::line(&line).in_netns(node).run()?;
    }
    let dir = lab.names.dir();
    Ok(BlindEngine::start(
        tollgate,
        node,
        POD_HOST_IF,
        GATEWAY_PORT,
        &dir,
    )?)
}

/// Does something while nothing is left to be filled in or cut later, the usual way round for blind
/// engines, at the endpoint and at the node's gateway.
pub(crate) fn without_offloads<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let switch = |words: &str| -> Result<()> {
        for (place, dev) in [(LabPlace::Pod, INNER_IF), (LabPlace::Node, GATEWAY_IF)] {
            lab.at(place, Cmd::line(&format!("ethtool -K {dev} {words}")))
                .run()?;
        }
        Ok(())
    };
    switch("tx off")?;
    let done = work();
    // Segmentation follows by itself when checksums are on again.
    switch("tx on")?;
    done
}

/// A policy under which the cases pass by what they ask for, and nothing else does.
fn write_policy(lab: &Lab) -> Result<PathBuf> {
    let dir = lab.names.dir().join("conformance-policy");
    let inventory = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: conformance}}\n---\n\
         apiVersion: policy.tollgate.dev/v1alpha1\nkind: Endpoint\n\
         metadata: {{name: client, namespace: conformance, labels: {{app: client}}}}\n\
         spec: {{interface: {POD_HOST_IF}, addresses: [{POD_V4}, \"{POD_V6}\"]}}\n"
    );
    let policy = format!(
        "apiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: conformance}}\nspec:\n  priority: 5\n  \
         appliedTo: [{{podSelector: {{matchLabels: {{app: client}}}}}}]\n  egress:\n    \
         - name: http\n      action: Allow\n      ports: [{{protocol: TCP, port: {PORT}}}]\n      \
         l7Protocols: [{{http: {{host: {HOST}}}}}]\n    \
         - name: quic\n      action: Allow\n      ports: [{{protocol: UDP, port: {QUIC_PORT}}}]\n      \
         l7Protocols: [{{tls: {{sni: {HOST}}}}}]\n    \
         - {{name: datagrams, action: Allow, ports: [{{protocol: UDP, port: {PORT}}}]}}\n    \
         - {{name: rest, action: Reject}}\n"
    );
    let write = || {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("inventory.yaml"), inventory)?;
        fs::write(dir.join("policy.yaml"), policy)
    };
    write().map_err(|source| LabError::Io {
        doing: "writing",
        path: dir.clone(),
        source,
    })?;
    Ok(dir)
}
