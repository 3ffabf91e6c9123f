//! The lab's network: three namespaces, two veth pairs, routes, masquerade and offloads.
//!
//! ```text
//!  tg-X-pod            tg-X-node                        tg-X-out
//!  eth0 10.10.0.2 ---- tgp0 10.10.0.1                   nginx
//!                      up0  192.0.2.1 (masquerade) ---- eth0 192.0.2.10
//! ```

use crate::error::Result;
use crate::lab::Outside;
use crate::names::{
    INNER_IF, NODE_OUT_V4, NODE_OUT_V6, NODE_POD_V4, NODE_POD_V6, Names, OUT_V4, OUT_V6,
    POD_HOST_IF, POD_V4, POD_V6, UPLINK_IF,
};
use crate::run::{Cmd, netns_path};

/// Sizes of the two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Of the pod's veth pair, in bytes.
    pub pod: u16,
    /// Of the link to the outside, in bytes.
    pub out: u16,
}

/// Congestion control of every route. The machine's default may be BBR, which paces flows and so
/// hides differences; a route's setting needs no global change.
const CONGESTION_CONTROL: &str = "cubic";

/// Settings of every namespace; all of these are per namespace and change nothing outside.
const SYSCTL_ALL: [&str; 5] = [
    // Addresses are usable at once; nobody else is on these links.
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    // A measurement must not inherit the previous one's slow start threshold.
    "net.ipv4.tcp_no_metrics_save=1",
    "net.ipv4.tcp_fin_timeout=1",
];

/// Settings of the ends: tens of thousands of connections per second on one pair of addresses.
pub(crate) const SYSCTL_ENDS: [&str; 5] = [
    "net.ipv4.ip_local_port_range=1024 65535",
    "net.ipv4.tcp_tw_reuse=1",
    "net.core.somaxconn=16384",
    "net.ipv4.tcp_max_syn_backlog=16384",
    "net.ipv4.tcp_syncookies=0",
];

/// Settings of the ends that older kernels do not have.
pub(crate) const SYSCTL_ENDS_OPTIONAL: [&str; 1] = [
    // Milliseconds before a port in TIME-WAIT is used again; the default of 1000 runs dry.
    "net.ipv4.tcp_tw_reuse_delay=1",
];

/// Settings of the node: it forwards, and forgets closed connections quickly.
const SYSCTL_NODE: [&str; 5] = [
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait=1",
    "net.netfilter.nf_conntrack_tcp_timeout_close=1",
    "net.netfilter.nf_conntrack_tcp_timeout_last_ack=1",
];

/// Makes the namespaces and everything in them.
///
/// # Errors
/// A command failed; the error shows which and why.
pub fn create(names: &Names, mtu: Mtu, outside: Outside) -> Result<()> {
    for ns in names.namespaces() {
        Cmd::line(&format!("ip netns add {ns}")).run()?;
        ip(ns, "link set lo up")?;
        sysctl(ns, &SYSCTL_ALL)?;
    }
    links(names, mtu)?;
    addresses(names)?;
    for ns in [&names.pod, &names.out] {
        sysctl(ns, &SYSCTL_ENDS)?;
        sysctl_if_known(ns, &SYSCTL_ENDS_OPTIONAL)?;
    }
    masquerade(names)?;
    sysctl(&names.node, &SYSCTL_NODE)?;
    routes(names)?;
    match outside {
        Outside::Veth => Ok(()),
        Outside::Wire => like_a_wire(names),
    }
}

/// Removes the namespaces that exist; returns the names of those that could not be removed.
pub fn remove(names: &Names) -> Vec<String> {
    let present = names
        .namespaces()
        .into_iter()
        .filter(|ns| netns_path(ns).exists());
    present
        .filter(|ns| !Cmd::line(&format!("ip netns del {ns}")).run_even_if_interrupted())
        .map(ToOwned::to_owned)
        .collect()
}

/// One `ip` command in a namespace.
pub(crate) fn ip(ns: &str, line: &str) -> Result<()> {
    Cmd::line(&format!("ip -n {ns} {line}")).run().map(drop)
}

/// Settings of a namespace.
pub(crate) fn sysctl(ns: &str, settings: &[&str]) -> Result<()> {
    Cmd::new("sysctl")
        .arg("-qw")
        .args(settings)
        .in_netns(ns)
        .run()
        .map(drop)
}

/// Settings of a namespace that not every kernel has.
pub(crate) fn sysctl_if_known(ns: &str, settings: &[&str]) -> Result<()> {
    for setting in settings {
        let cmd = Cmd::new("sysctl").args(["-qw", setting]);
        cmd.in_netns(ns).output()?;
    }
    Ok(())
}

fn links(names: &Names, mtu: Mtu) -> Result<()> {
    let Names { pod, node, out, .. } = names;
    for (own, peer, size) in [(POD_HOST_IF, pod, mtu.pod), (UPLINK_IF, out, mtu.out)] {
        let queues = "numtxqueues 1 numrxqueues 1";
        ip(
            node,
            &format!(
                "link add {own} mtu {size} {queues} type veth \
                 peer name {INNER_IF} mtu {size} {queues} netns {peer}"
            ),
        )?;
    }
    for (ns, dev) in [
        (pod, INNER_IF),
        (node, POD_HOST_IF),
        (node, UPLINK_IF),
        (out, INNER_IF),
    ] {
        ip(ns, &format!("link set {dev} up"))?;
    }
    Ok(())
}

fn addresses(names: &Names) -> Result<()> {
    let Names { pod, node, out, .. } = names;
    let add = |ns: &str, dev: &str, v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr| {
        ip(ns, &format!("addr add {v4}/24 dev {dev}"))?;
        ip(ns, &format!("addr add {v6}/64 dev {dev} nodad"))
    };
    add(pod, INNER_IF, POD_V4, POD_V6)?;
    add(node, POD_HOST_IF, NODE_POD_V4, NODE_POD_V6)?;
    add(node, UPLINK_IF, NODE_OUT_V4, NODE_OUT_V6)?;
    add(out, INNER_IF, OUT_V4, OUT_V6)
}

/// Default routes at the ends, and the congestion control on every route of every end.
fn routes(names: &Names) -> Result<()> {
    let ends = [
        (
            &names.pod,
            NODE_POD_V4,
            NODE_POD_V6,
            "10.10.0.0/24",
            POD_V4,
            "fd10::/64",
        ),
        (
            &names.out,
            NODE_OUT_V4,
            NODE_OUT_V6,
            "192.0.2.0/24",
            OUT_V4,
            "2001:db8:2::/64",
        ),
    ];
    let cc = format!("congctl {CONGESTION_CONTROL}");
    for (ns, gateway_v4, gateway_v6, net_v4, own_v4, net_v6) in ends {
        ip(ns, &format!("route add default via {gateway_v4} {cc}"))?;
        ip(ns, &format!("-6 route add default via {gateway_v6} {cc}"))?;
        connected(ns, INNER_IF, net_v4, own_v4, net_v6)?;
    }
    connected(
        &names.node,
        POD_HOST_IF,
        "10.10.0.0/24",
        NODE_POD_V4,
        "fd10::/64",
    )?;
    connected(
        &names.node,
        UPLINK_IF,
        "192.0.2.0/24",
        NODE_OUT_V4,
        "2001:db8:2::/64",
    )
}

/// The routes to a device's own networks, with the lab's congestion control.
pub(crate) fn connected(
    ns: &str,
    dev: &str,
    v4: &str,
    own: std::net::Ipv4Addr,
    v6: &str,
) -> Result<()> {
    let cc = format!("congctl {CONGESTION_CONTROL}");
    ip(
        ns,
        &format!("route replace {v4} dev {dev} proto kernel scope link src {own} {cc}"),
    )?;
    ip(
        ns,
        &format!("-6 route replace {v6} dev {dev} proto kernel metric 256 {cc}"),
    )
}

fn masquerade(names: &Names) -> Result<()> {
    let rules = format!(
        "table inet lab {{\n chain postrouting {{\n  type nat hook postrouting priority 100;\n  \
         oifname \"{UPLINK_IF}\" masquerade\n }}\n}}\n"
    );
    Cmd::line("nft -f -")
        .stdin(rules)
        .in_netns(&names.node)
        .run()
        .map(drop)
}

/// Frames from the outside cross at MTU size with full checksums, and the node's uplink merges them
/// by GRO, as behind a real network card.
fn like_a_wire(names: &Names) -> Result<()> {
    let ethtool = |ns: &str, line: String| Cmd::line(&line).in_netns(ns).run().map(drop);
    ethtool(
        &names.out,
        format!("ethtool -K {INNER_IF} tso off gso off tx off"),
    )?;
    ethtool(&names.node, format!("ethtool -K {UPLINK_IF} gro on"))
}
