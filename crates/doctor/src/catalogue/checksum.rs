//! TG12xx: checksums.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::case::{ProbeOutcome, ProbeResult};
use crate::finding::{Evidence, Severity};
use crate::model::{Link, LinkKind, LinkRef, Netns};

use super::mtu::{between, direction};
use super::topology::ends_here;
use super::view::{Fault, Report, TX_CHECKSUMS, View, command, kernel, namespaces, place};

/// First kernel that fills in the outer UDP checksum of VXLAN correctly after the outer packet was
/// source-NATed.
const OUTER_CHECKSUM_FIXED: (u32, u32, u32) = (5, 8, 0);
/// First kernel that sends UDP super-packets over a device without checksum offload; before it,
/// `sendmsg` with `UDP_SEGMENT` fails with `EIO` there (net/ipv4/udp.c, `udp_send_skb`).
const UDP_GSO_FIXED: (u32, u32, u32) = (6, 11, 0);
/// Kernels from which on the checksum of source-NATed IPv6 packets is right after a redirect, one per
/// stable line; lines that are not listed and older than the last never got it.
const IPV6_NAT_FIXED: [(u32, u32, u32); 6] = [
    (5, 10, 236),
    (5, 15, 180),
    (6, 1, 133),
    (6, 6, 86),
    (6, 12, 22),
    (6, 14, 1),
];

/// Drivers whose checksum and segmentation offload for tunnels is known to send broken packets, with
/// the features that do.
const BROKEN_TUNNEL_OFFLOAD: [(&str, [&str; 2]); 1] = [(
    "vmxnet3",
    ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"],
)];
/// VXLAN's assigned port (RFC 7348): ESXi without NSX treats it, and only it, as its own.
const VXLAN_PORT: u16 = 4789;

/// Checksum errors between two readings from which on they are not single corrupted packets.
const SEVERAL: u64 = 10;

/// Counters of packets with a wrong checksum (`/proc/net/snmp`, `snmp6`).
const CHECKSUM_ERRORS: [&str; 5] = [
    "Tcp:InCsumErrors",
    "Udp:InCsumErrors",
    "Udp6:InCsumErrors",
    "Icmp:InCsumErrors",
    "Icmp6:InCsumErrors",
];

/// TG1201.
pub(super) fn outer_checksum_after_nat(view: &View<'_>, report: &mut Report) {
    let vxlans = || {
        view.links()
            .filter(|(_, link)| matches!(link.kind, LinkKind::Vxlan(_)) && link.tx_checksums())
    };
    let Some(release) = kernel(&view.case.now.kernel) else {
        if vxlans().next().is_some() {
            report.untold.push(
                "whether the kernel sums NATed VXLAN packets correctly: its release is \
                                not known"
                    .to_owned(),
            );
        }
        return;
    };
    if release >= OUTER_CHECKSUM_FIXED {
        return;
    }
    for (netns, link) in vxlans() {
        let Some(rule) = &netns.filter.nat_of_tunnel else {
            continue;
        };
        let at = netns.at(link);
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "Kernel {} gives packets of {} a wrong outer checksum when the outer packet is \
                 source-NATed, as a rule here does: connections through a service wait for seconds.",
                view.case.now.kernel,
                view.name(at)
            ),
            evidence: vec![
                Evidence::new("uname -r", &view.case.now.kernel),
                Evidence::new(command(netns, "nft list ruleset"), rule),
                view.shows_feature(at, "tx-checksum-ip-generic"),
            ],
            fix: "Update the kernel to 5.8 or later, or keep the encapsulated packet out of NAT; until \
                  then switch TX checksum offload off on the tunnel, after each boot."
                .to_owned(),
            actions: view.switch_off(at, &TX_CHECKSUMS),
            ..Fault::default()
        });
    }
}

/// TG1202.
pub(super) fn broken_tunnel_offload(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let Some((driver, features)) = BROKEN_TUNNEL_OFFLOAD
            .iter()
            .find(|(driver, _)| *driver == link.driver)
        else {
            continue;
        };
        let on: Vec<&str> = features
            .iter()
            .copied()
            .filter(|name| link.has(name))
            .collect();
        let Some(port) = tunnel_port(view, netns).filter(|_| !on.is_empty()) else {
            continue;
        };
        let at = netns.at(link);
        report.faults.push(Fault {
            at: Some(at),
            severity: (port != VXLAN_PORT).then_some(Severity::Warning),
            sentence: format!(
                "{} ({driver}) offloads checksums and segmentation of tunnelled packets, which some \
                 releases of its hypervisor do wrongly, and tunnels to UDP port {port} go through it: \
                 TCP between nodes on different hypervisors fails.",
                view.name(at)
            ),
            evidence: on
                .iter()
                .map(|name| view.shows_feature(at, name))
                .chain([Evidence::new(
                    command(netns, &format!("ethtool -i {}", link.name)),
                    format!("driver: {driver}"),
                )])
                .collect(),
            fix: "Update the hypervisor, or move the tunnel to a port that it does not take for its own \
                  (8472 without NSX, 4789 with it); until then switch these two features off on the \
                  card, after each boot. Offloads of plain TCP stay on."
                .to_owned(),
            actions: view.switch_off(at, &on),
            ..Fault::default()
        });
    }
}

/// UDP port of a tunnel that ends in this namespace.
fn tunnel_port(view: &View<'_>, netns: &Netns) -> Option<u16> {
    let own = netns
        .links
        .iter()
        .filter(|link| link.up)
        .find_map(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => Some(vxlan.port),
            _ => None,
        });
    let ports = view
        .case
        .now
        .ovs
        .iter()
        .flat_map(|ovs| &ovs.bridges)
        .flat_map(|b| &b.ports);
    own.or_else(|| {
        ports
            .filter(|port| port.kind == "vxlan")
            .map(|port| {
                port.options
                    .get("dst_port")
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(VXLAN_PORT)
            })
            .next()
    })
}

/// TG1203.
pub(super) fn receiver_refuses(view: &View<'_>, report: &mut Report) {
    let refused: Vec<&ProbeResult> = view
        .case
        .probes
        .iter()
        .filter(|probe| has_wrong_sums(probe))
        .collect();
    let probed = !refused.is_empty();
    if probed {
        report.faults.push(refused_probes(view, &refused));
    }
    let Some(earlier) = view.case.earlier.as_ref().filter(|_| !probed) else {
        return;
    };
    for netns in namespaces(view) {
        let Some(before) = earlier.netns(netns.id) else {
            continue;
        };
        for name in CHECKSUM_ERRORS {
            let grown = netns.counter(name).saturating_sub(before.counter(name));
            if grown >= SEVERAL {
                report.faults.push(growing_errors(netns, name, grown));
            }
        }
    }
}

/// The probe's receiver refused packets for their checksum.
pub(super) fn has_wrong_sums(probe: &ProbeResult) -> bool {
    let count = |name| probe.receiver.get(name).copied().unwrap_or(0);
    CHECKSUM_ERRORS.into_iter().any(|name| count(name) > 0)
}

fn refused_probes(view: &View<'_>, refused: &[&ProbeResult]) -> Fault {
    let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for probe in refused {
        let grown = CHECKSUM_ERRORS
            .iter()
            .filter_map(|name| Some((*name, *probe.receiver.get(*name)?)));
        for (name, grown) in grown.filter(|(_, grown)| *grown > 0) {
            *counts.entry((direction(probe), name)).or_default() += grown;
        }
    }
    Fault {
        sentence: format!(
            "The receiver refuses packets with wrong checksums that are sent {}: something on the way \
             loses the mark that a checksum is still to be filled in, or changes the packet.",
            between(view)
        ),
        evidence: counts
            .iter()
            .map(|((way, name), grown)| {
                Evidence::new("nstat -az", format!("{name} +{grown} at the receiver, {way}"))
            })
            .collect(),
        fix: "See the other findings for what loses it. If there is none, capture on each hop from the \
              receiver backwards: the first hop where checksums are right is the one after the culprit."
            .to_owned(),
        ..Fault::default()
    }
}

fn growing_errors(netns: &Netns, name: &str, grown: u64) -> Fault {
    Fault {
        namespaces: vec![netns.id],
        severity: Some(Severity::Warning),
        sentence: format!(
            "Packets with wrong checksums arrive in {}: {name} grew by {grown} between two readings.",
            place(netns)
        ),
        evidence: vec![Evidence::new(
            command(netns, "nstat -az"),
            format!("{name} +{grown}"),
        )],
        fix: "Run the doctor with a path and probes to see where they come from.".to_owned(),
        ..Fault::default()
    }
}

/// TG1204.
pub(super) fn udp_gso_without_checksums(view: &View<'_>, report: &mut Report) {
    if kernel(&view.case.now.kernel).is_none_or(|release| release >= UDP_GSO_FIXED) {
        return;
    }
    for (netns, link) in view
        .links()
        .filter(|(_, link)| ends_here(link) && sums_switched_off(link))
    {
        let at = netns.at(link);
        if !view.concerns(at) || view.is_remote(at) {
            continue;
        }
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "On {}, whose TX checksum offload is off, kernel {} refuses to send bursts of datagrams \
                 (UDP_SEGMENT): QUIC implementations that do not expect that fall silent.",
                view.name(at),
                view.case.now.kernel
            ),
            evidence: vec![
                view.shows_feature(at, "tx-checksum-ip-generic"),
                Evidence::new("uname -r", &view.case.now.kernel),
            ],
            fix: udp_gso_fix(view, at),
            actions: udp_gso_actions(view, at, link),
            ..Fault::default()
        });
    }
}

fn sums_switched_off(link: &Link) -> bool {
    !link.tx_checksums()
        && TX_CHECKSUMS
            .iter()
            .any(|name| link.feature(name).is_some_and(|f| !f.fixed && !f.wanted))
}

fn feeds_blind_engine(view: &View<'_>, at: LinkRef) -> bool {
    view.engines
        .iter()
        .any(|engine| engine.blind && engine.touches().contains(&at))
}

fn udp_gso_fix(view: &View<'_>, at: LinkRef) -> String {
    if feeds_blind_engine(view, at) {
        "An engine on the way needs the offload off: update the kernel to 6.11 or later, or switch GSO \
         off in the QUIC implementation."
            .to_owned()
    } else {
        "Switch TX checksum offload on again, or update the kernel to 6.11 or later.".to_owned()
    }
}

fn udp_gso_actions(view: &View<'_>, at: LinkRef, link: &Link) -> Vec<crate::action::Action> {
    if feeds_blind_engine(view, at) {
        return Vec::new();
    }
    TX_CHECKSUMS
        .iter()
        .filter(|name| link.feature(name).is_some())
        .filter_map(|name| view.switch(at, name, true))
        .collect()
}

/// TG1205.
pub(super) fn ipv6_nat_after_redirect(view: &View<'_>, report: &mut Report) {
    let Some(release) = kernel(&view.case.now.kernel) else {
        return;
    };
    if !view.redirected() || has_ipv6_nat_fix(release) {
        return;
    }
    let speaks_ipv6 = view
        .hops()
        .first()
        .is_some_and(|(_, link)| ends_in_ipv6(link));
    for netns in namespaces(view).filter(|_| speaks_ipv6) {
        let Some(rule) = netns
            .filter
            .nat
            .as_ref()
            .filter(|rule| !rule.contains("ip saddr"))
        else {
            continue;
        };
        let failed = view
            .case
            .probes
            .iter()
            .any(|probe| probe.ipv6 && matches!(probe.outcome, ProbeOutcome::Failed(_)));
        report.faults.push(Fault {
            namespaces: vec![netns.id],
            severity: failed.then_some(Severity::Error),
            sentence: format!(
                "Kernel {} gets the checksum of IPv6 packets wrong that are redirected and then \
                 source-NATed in {}: IPv6 to the outside fails while IPv4 works.",
                view.case.now.kernel,
                place(netns)
            ),
            evidence: vec![
                Evidence::new("uname -r", &view.case.now.kernel),
                Evidence::new(command(netns, "nft list ruleset"), rule),
            ],
            fix:
                "Update the kernel: 5.10.236, 5.15.180, 6.1.133, 6.6.86, 6.12.22, 6.14.1 or later."
                    .to_owned(),
            ..Fault::default()
        });
    }
}

fn ends_in_ipv6(link: &Link) -> bool {
    link.addresses.iter().any(|net| match net.addr() {
        IpAddr::V6(address) => !address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    })
}

fn has_ipv6_nat_fix(release: (u32, u32, u32)) -> bool {
    IPV6_NAT_FIXED
        .iter()
        .any(|fixed| (fixed.0, fixed.1) == (release.0, release.1) && release >= *fixed)
        || IPV6_NAT_FIXED
            .iter()
            .max()
            .is_some_and(|newest| release > *newest)
}
