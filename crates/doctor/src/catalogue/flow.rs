//! TG14xx: connection tracking, drops, Open vSwitch.

use std::collections::BTreeMap;

use crate::action::Action;
use crate::case::ProbeOutcome;
use crate::finding::{Evidence, Severity};
use crate::model::{LinkRef, OvsPort};

use super::view::{Fault, Report, View, command, namespaces, place, sysctl};

/// Packets between two readings from which on a counter's growth is no accident.
const SEVERAL: u64 = 10;
/// One packet of so many may be lost: a burst fills a queue now and then, on a busy machine above
/// all, and TCP slows down by it.
const BEARABLE: u64 = 20;
/// Setting that accepts packets outside the window.
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// Counters of packets that an interface lost.
const LOSSES: [&str; 4] = ["rx_dropped", "tx_dropped", "rx_errors", "tx_errors"];

/// TG1401.
pub(super) fn strict_windows(view: &View<'_>, report: &mut Report) {
    let Some(earlier) = &view.case.earlier else {
        return;
    };
    for netns in namespaces(view) {
        let Some(rule) = &netns.filter.drops_invalid else {
            continue;
        };
        let before = earlier
            .netns(netns.id)
            .map(|netns| netns.counter("Conntrack:invalid"));
        let grown = before.map_or(0, |before| {
            netns.counter("Conntrack:invalid").saturating_sub(before)
        });
        if grown < SEVERAL || sysctl(netns, LIBERAL) != Some("0") {
            continue;
        }
        report.faults.push(Fault {
            namespaces: vec![netns.id],
            sentence: format!(
                "Connection tracking in {} finds packets invalid ({grown} between two readings), and a \
                 rule drops them: long transfers stall or are reset.",
                place(netns)
            ),
            evidence: vec![
                Evidence::new(command(netns, "conntrack -S"), format!("invalid +{grown}")),
                Evidence::new(command(netns, &format!("sysctl {LIBERAL}")), "0"),
                Evidence::new(command(netns, "nft list ruleset"), rule),
            ],
            fix: "First look for packets that take another way back (then tracking sees half a \
                  connection); if there are none, accept packets outside the window."
                .to_owned(),
            actions: vec![Action::Sysctl {
                netns: view.path_of(netns),
                key: LIBERAL.to_owned(),
                value: "1".to_owned(),
            }],
            ..Fault::default()
        });
    }
}

/// TG1402.
pub(super) fn lost_at_hop(view: &View<'_>, report: &mut Report) {
    let Some(earlier) = view
        .case
        .earlier
        .as_ref()
        .filter(|_| !view.case.probes.is_empty())
    else {
        return;
    };
    let failed = view
        .case
        .probes
        .iter()
        .any(|probe| matches!(probe.outcome, ProbeOutcome::Failed(_)));
    for (at, link) in view.hops() {
        let (Some(netns), Some(before)) = (view.case.now.netns(at.netns), earlier.link(at)) else {
            continue;
        };
        let grown = growth(&before.counters, &link.counters);
        let sum: u64 = grown.iter().map(|(_, grown)| *grown).sum();
        let passed = passed(&link.counters).saturating_sub(passed(&before.counters));
        let many = sum >= SEVERAL && sum.saturating_mul(BEARABLE) >= passed;
        if sum == 0 || (!failed && !many) {
            continue;
        }
        report.faults.push(Fault {
            at: Some(at),
            severity: (!failed).then_some(Severity::Warning),
            sentence: format!(
                "{} lost {sum} packets while probes were sent.",
                view.name(at)
            ),
            evidence: grown
                .iter()
                .map(|(name, grown)| {
                    Evidence::new(
                        command(netns, &format!("ip -s link show {}", link.name)),
                        format!("{name} +{grown}"),
                    )
                })
                .collect(),
            fix: "See the other findings for the cause; if there is none, trace the reason: \
                  perf trace -e skb:kfree_skb."
                .to_owned(),
            ..Fault::default()
        });
    }
}

/// Packets that the interface received and sent.
fn passed(counters: &BTreeMap<String, u64>) -> u64 {
    let count = |name| counters.get(name).copied().unwrap_or(0);
    count("rx_packets").saturating_add(count("tx_packets"))
}

fn growth<'a>(
    before: &BTreeMap<String, u64>,
    now: &'a BTreeMap<String, u64>,
) -> Vec<(&'a str, u64)> {
    now.iter()
        .filter(|(name, _)| LOSSES.contains(&name.as_str()))
        .map(|(name, now)| {
            // A counter that is 0 may have been left out.
            let before = before.get(name).copied().unwrap_or(0);
            (name.as_str(), now.saturating_sub(before))
        })
        .filter(|(_, grown)| *grown > 0)
        .collect()
}

/// TG1403.
pub(super) fn ovs_drops(view: &View<'_>, report: &mut Report) {
    let ports = |ovs: Option<&crate::model::Ovs>| -> Vec<OvsPort> {
        ovs.into_iter()
            .flat_map(|ovs| &ovs.bridges)
            .flat_map(|bridge| bridge.ports.iter().cloned())
            .collect()
    };
    let Some(earlier) = &view.case.earlier else {
        return;
    };
    let before = ports(earlier.ovs.as_ref());
    for port in ports(view.case.now.ovs.as_ref()) {
        let Some(before) = before.iter().find(|before| before.name == port.name) else {
            continue;
        };
        for (name, why) in OVS_DROPS {
            let count = |port: &OvsPort| port.statistics.get(name).copied().unwrap_or(0);
            let grown = count(&port).saturating_sub(count(before));
            let at = port_link(view, &port.name);
            if grown > 0 && at.is_none_or(|at| view.concerns(at)) {
                report
                    .faults
                    .push(ovs_drop(&port.name, at, name, why, grown));
            }
        }
    }
}

/// Counters of Open vSwitch's userspace datapath, with what makes them grow.
const OVS_DROPS: [(&str, &str); 2] = [
    (
        "ovs_tx_mtu_exceeded_drops",
        "frames are larger than the port's MTU: super-packets, if the MTUs agree",
    ),
    (
        "ovs_tx_failure_drops",
        "the port refuses them: it cannot take super-packets, or its reader is too slow",
    ),
];

fn ovs_drop(port: &str, at: Option<LinkRef>, name: &str, why: &str, grown: u64) -> Fault {
    Fault {
        at,
        sentence: format!("Open vSwitch dropped {grown} frames at port {port}: {why}."),
        evidence: vec![Evidence::new(
            format!("ovs-vsctl get Interface {port} statistics"),
            format!("{name} +{grown}"),
        )],
        fix: "With userspace-tso-enable on, every port has to take super-packets: upgrade to a release \
              that cuts them in software (3.3), or switch it off and restart Open vSwitch. Otherwise \
              give all ports of the bridge the same mtu_request."
            .to_owned(),
        ..Fault::default()
    }
}

fn port_link(view: &View<'_>, name: &str) -> Option<LinkRef> {
    let bridges = || view.case.now.ovs.iter().flat_map(|ovs| &ovs.bridges);
    view.case
        .now
        .namespaces
        .iter()
        .filter(|netns| bridges().any(|bridge| netns.link_named(&bridge.name).is_some()))
        .find_map(|netns| Some(netns.at(netns.link_named(name)?)))
}
