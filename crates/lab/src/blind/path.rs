//! The path of the story: the lab's node with a gateway interface, a switch, and an engine's two
//! ports.
//!
//! ```text
//!   pod                node                                                        outside
//!  eth0 ---- tgp0 [ switch ] gw0-sw ---- gw0 10.10.0.1   routing, masquerade   up0 ---- eth0
//!                l7-sw0 | l7-sw1
//!                   |       |
//!                l7-p0   l7-p1
//!                   [ engine ]
//! ```
//!
//! The node routes to the pod by `gw0`, whose offload settings count as those of any interface that
//! a packet leaves by. Without an engine the switch is a Linux bridge. With one, IP frames of both
//! directions leave the switch by `l7-sw0`, tagged, and must come back by `l7-sw1`.

use std::path::Path;

use super::helper::Helper;
use crate::error::Result;
use crate::lab::{Lab, Place};
use crate::names::{INNER_IF, NODE_POD_V4, NODE_POD_V6, POD_HOST_IF};
use crate::net;
use crate::run::Cmd;

/// The node's interface towards the pod.
pub const GATEWAY_IF: &str = "gw0";
/// Its other end, a port of the switch.
const GATEWAY_SWITCH_IF: &str = "gw0-sw";
/// The switch for what takes no detour.
const SWITCH_IF: &str = "sw0";
/// The engine's ports: frames come to it by the first and are expected from the second.
pub const ENGINE_PORTS: [&str; 2] = ["l7-p0", "l7-p1"];
/// The switch's ends of these.
const SWITCH_PORTS: [&str; 2] = ["l7-sw0", "l7-sw1"];
/// The tag that the engine sees; a switch has one for each policy.
pub const VLAN: u16 = 100;

/// Where the kernel has it, netfilter would look at frames in the switch as if they were routed, a
/// second time, and translate their addresses again.
const SWITCH_ONLY: [&str; 2] = [
    "net.bridge.bridge-nf-call-iptables=0",
    "net.bridge.bridge-nf-call-ip6tables=0",
];

/// What is switched off, and where; everything else is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Off {
    /// TX checksums inside the pod, and with them segmentation.
    pub pod_checksum: bool,
    /// TX checksums at the gateway, and with them segmentation.
    pub gateway_checksum: bool,
    /// TCP segmentation at the gateway.
    pub gateway_tso: bool,
}

/// Rebuilds the lab's node.
///
/// # Errors
/// A command failed.
pub(crate) fn build(lab: &Lab) -> Result<()> {
    let node = &lab.names.node;
    let mtu = lab.info.pod_mtu;
    // Nothing but the pod's traffic: no router solicitations, no multicast queries.
    net::sysctl(node, &["net.ipv6.conf.default.disable_ipv6=1"])?;
    let pairs = [
        (GATEWAY_IF, GATEWAY_SWITCH_IF),
        (ENGINE_PORTS[0], SWITCH_PORTS[0]),
        (ENGINE_PORTS[1], SWITCH_PORTS[1]),
    ];
    for (one, other) in pairs {
        let line = format!("link add {one} mtu {mtu} type veth peer name {other} mtu {mtu}");
        net::ip(node, &line)?;
    }
    net::ip(
        node,
        &format!("link add {SWITCH_IF} mtu {mtu} type bridge mcast_snooping 0"),
    )?;
    // Only the gateway may answer for the gateway's address.
    net::ip(node, &format!("link set {SWITCH_IF} arp off"))?;
    net::sysctl_if_known(node, &SWITCH_ONLY)?;
    net::ip(node, &format!("addr flush dev {POD_HOST_IF}"))?;
    for port in [POD_HOST_IF, GATEWAY_SWITCH_IF] {
        net::ip(node, &format!("link set {port} master {SWITCH_IF}"))?;
        net::sysctl(node, &[&format!("net.ipv6.conf.{port}.disable_ipv6=1")])?;
    }
    let all = pairs.into_iter().flat_map(|(one, other)| [one, other]);
    for link in all.chain([SWITCH_IF]) {
        net::ip(node, &format!("link set {link} up"))?;
    }
    net::sysctl(
        node,
        &[&format!("net.ipv6.conf.{GATEWAY_IF}.disable_ipv6=0")],
    )?;
    net::ip(node, &format!("addr add {NODE_POD_V4}/24 dev {GATEWAY_IF}"))?;
    net::ip(
        node,
        &format!("addr add {NODE_POD_V6}/64 dev {GATEWAY_IF} nodad"),
    )?;
    net::connected(node, GATEWAY_IF, "10.10.0.0/24", NODE_POD_V4, "fd10::/64")?;
    // The pod knew the gateway by the address of another interface.
    net::ip(&lab.names.pod, &format!("neigh flush dev {INNER_IF}"))
}

/// Switches offloads off, and all others back on.
///
/// # Errors
/// A command failed.
pub(crate) fn set_offloads(lab: &Lab, off: Off) -> Result<()> {
    let set = |place, interface: &str, tx: bool, tso: bool| {
        let word = |off| if off { "off" } else { "on" };
        let line = format!(
            "ethtool -K {interface} tx {} tso {}",
            word(tx),
            word(tx || tso)
        );
        lab.at(place, Cmd::line(&line)).run().map(drop)
    };
    set(Place::Pod, INNER_IF, off.pod_checksum, false)?;
    set(
        Place::Node,
        GATEWAY_IF,
        off.gateway_checksum,
        off.gateway_tso,
    )
}

/// Starts the detour by the engine's ports.
///
/// # Errors
/// The kernel refuses the switch's programs.
pub(crate) fn detour(lab: &Lab, tollgate: &Path) -> Result<Helper> {
    let show = lab.at(
        Place::Node,
        Cmd::line(&format!("ip -o link show {GATEWAY_IF}")),
    );
    let text = show.run()?.stdout;
    let mac = text.split("link/ether ").nth(1);
    let mac = mac.and_then(|rest| rest.split_whitespace().next());
    let cmd = Cmd::new(tollgate)
        .args(["lab", "traffic", "detour"])
        .args(["--endpoint", POD_HOST_IF])
        .args(["--gateway", GATEWAY_SWITCH_IF])
        .args(["--gateway-mac", mac.unwrap_or_default()])
        .args(["--to-engine", SWITCH_PORTS[0]])
        .args(["--from-engine", SWITCH_PORTS[1]])
        .args(["--vlan", &VLAN.to_string()]);
    Helper::start("the lab's switch", &lab.at(Place::Node, cmd))
}
