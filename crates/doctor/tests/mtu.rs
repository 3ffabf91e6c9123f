//! TG11xx: each found, its near miss not, its repair enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::*;
use tollgate_doctor::action::Action;
use tollgate_doctor::case::{
    Case, Direction, ProbeKind, ProbeOutcome, ProbeResult, Transport, Via,
};
use tollgate_doctor::catalogue::judge;
use tollgate_doctor::finding::Severity;
use tollgate_doctor::model::*;

/// The pod's packets go into a VXLAN on the way out.
fn tunnelled(overhead: u32) -> Case {
    let mut case = bridged();
    let mut path = bridge_path();
    path.hops[3].via = Via::Tunnel("vxlan".to_owned());
    path.hops[3].overhead = overhead;
    case.path = Some(path);
    case
}

fn mtus(actions: &[Action]) -> Vec<(String, u32)> {
    actions
        .iter()
        .map(|action| match action {
            Action::Mtu { ifname, mtu, .. } => (ifname.clone(), *mtu),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn tunnel_does_not_fit() {
    not_found(&tunnelled(0), 1101);
    let finding = found(&tunnelled(50), 1101);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.sentence.contains("grow by 50 bytes"));
    // Both ends of the pair, or the other would send what this one refuses.
    let expected = [("eth0".to_owned(), 1450), ("veth-pod".to_owned(), 1450)];
    assert_eq!(mtus(&finding.actions), expected);
    let mut fits = tunnelled(50);
    find_link(&mut fits, HOST, "eth0").mtu = 1550;
    not_found(&fits, 1101);
}

#[test]
fn narrow_hop_that_routes_says_so() {
    let mut case = tunnelled(0);
    case.path.as_mut().unwrap().hops[3].via = Via::Route("default dev eth0".to_owned());
    find_link(&mut case, HOST, "eth0").mtu = 1460;
    // Of the uplink that is told by its own number.
    found(&case, 1106);
    not_found(&case, 1101);
    host(&mut case).routes[0].to = "10.0.0.0/8".parse().unwrap();
    not_found(&case, 1106);
    assert_eq!(found(&case, 1101).severity, Severity::Warning);
    host(&mut case).filter.clamps_mss = true;
    not_found(&case, 1101);
}

#[test]
fn what_differs_at_a_pair_is_told_once() {
    let mut case = tunnelled(0);
    case.path.as_mut().unwrap().hops[1].via = Via::Pair;
    find_link(&mut case, HOST, "veth-pod").mtu = 1400;
    found(&case, 1102);
    not_found(&case, 1101);
    // What probes lose for it is no finding beside it.
    case.probes = vec![
        probe(ProbeKind::Small, ProbeOutcome::Passed),
        probe(ProbeKind::Mtu, lost()),
        probe(ProbeKind::MtuPlusOne, lost()),
    ];
    not_found(&case, 1108);
    not_found(&case, 1109);
    find_link(&mut case, HOST, "veth-pod").mtu = 1500;
    found(&case, 1108);
    not_found(&case, 1109);
    case.probes.remove(1);
    found(&case, 1109);
}

#[test]
fn vxlan_over_its_card() {
    let mut case = bridged();
    let mut vxlan = link(5, "vx0", LinkKind::Vxlan(Vxlan::default()));
    vxlan.link = Some(at(HOST, 2));
    vxlan.mtu = 1451;
    host(&mut case).links.push(vxlan);
    assert_eq!(
        mtus(&found(&case, 1101).actions),
        [("vx0".to_owned(), 1450)]
    );
    find_link(&mut case, HOST, "vx0").mtu = 1450;
    not_found(&case, 1101);
    let ipv6 = Vxlan {
        ipv6: true,
        ..Vxlan::default()
    };
    find_link(&mut case, HOST, "vx0").kind = LinkKind::Vxlan(ipv6);
    assert_eq!(
        mtus(&found(&case, 1101).actions),
        [("vx0".to_owned(), 1430)]
    );
}

#[test]
fn vxlan_of_open_vswitch_is_larger_by_design() {
    let mut case = switched();
    let mut vxlan = port_of(
        link(9, "vxlan_sys_4789", LinkKind::Vxlan(Vxlan::default())),
        3,
    );
    vxlan.link = Some(at(HOST, 2));
    vxlan.mtu = 65_000;
    host(&mut case).links.push(vxlan);
    assert_eq!(judge(&case).findings, []);
}

#[test]
fn ends_of_a_pair_differ() {
    let mut case = bridged();
    not_found(&case, 1102);
    find_link(&mut case, POD, "eth0").mtu = 1400;
    let finding = found(&case, 1102);
    assert_eq!(mtus(&finding.actions), [("veth-pod".to_owned(), 1400)]);
    assert_eq!(finding.at, Some(at(HOST, 4)));
}

const ICMP_RULE: &str = "meta l4proto icmp drop";

/// A host that forwards from 1500 to 1400 and drops ICMP.
fn muted() -> Case {
    let mut case = bridged();
    find_link(&mut case, HOST, "eth0").mtu = 1400;
    host(&mut case).filter.drops_icmp = Some(ICMP_RULE.to_owned());
    case
}

#[test]
fn icmp_dropped_where_the_mtu_shrinks() {
    let finding = found(&muted(), 1103);
    assert!(finding.evidence.iter().any(|e| e.value == ICMP_RULE));
    assert!(
        matches!(&finding.actions[..], [Action::ClampMss { netns: None, ifname }] if ifname == "eth0"),
        "{:?}",
        finding.actions
    );
    let mut even = muted();
    find_link(&mut even, HOST, "eth0").mtu = 1500;
    not_found(&even, 1103);
    let mut clamped = muted();
    host(&mut clamped).filter.clamps_mss = true;
    not_found(&clamped, 1103);
    let mut still = muted();
    host(&mut still)
        .sysctls
        .insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    not_found(&still, 1103);
}

#[test]
fn unreadable_filter_is_told() {
    let mut case = bridged();
    host(&mut case).filter.readable = false;
    let judgement = judge(&case);
    assert_eq!(judgement.findings, []);
    assert!(
        judgement
            .untold
            .iter()
            .any(|why| why.contains("packet filter"))
    );
}

#[test]
fn no_probing_where_icmp_is_dropped() {
    let mut case = bridged();
    host(&mut case).filter.drops_icmp = Some(ICMP_RULE.to_owned());
    let finding = found(&case, 1104);
    assert_eq!(finding.severity, Severity::Info);
    assert!(matches!(
        &finding.actions[..],
        [Action::Sysctl { netns: None, .. }]
    ));
    // On a path it is the endpoint that has to probe.
    case.path = Some(bridge_path());
    let finding = found(&case, 1104);
    assert!(matches!(
        &finding.actions[..],
        [Action::Sysctl { netns: Some(_), .. }]
    ));
    case.path = None;
    host(&mut case)
        .sysctls
        .insert("net.ipv4.tcp_mtu_probing".to_owned(), "1".to_owned());
    not_found(&case, 1104);
}

fn with_wireguard() -> Case {
    let mut case = bridged();
    let mut tunnel = addressed(link(6, "wg0", LinkKind::Wireguard), "10.9.0.1/24");
    tunnel.mtu = 1420;
    host(&mut case).links.push(tunnel);
    host(&mut case).routes.push(route("10.9.0.0/16", 6));
    case
}

#[test]
fn tunnel_without_clamp() {
    let finding = found(&with_wireguard(), 1105);
    assert!(
        matches!(&finding.actions[..], [Action::ClampMss { ifname, .. }] if ifname == "wg0"),
        "{:?}",
        finding.actions
    );
    let mut clamped = with_wireguard();
    host(&mut clamped).filter.clamps_mss = true;
    not_found(&clamped, 1105);
    let mut advertised = with_wireguard();
    host(&mut advertised).routes.last_mut().unwrap().advmss = Some(1380);
    not_found(&advertised, 1105);
    // Nobody is behind this host.
    let mut alone = with_wireguard();
    host(&mut alone)
        .links
        .retain(|link| !matches!(link.kind, LinkKind::Bridge | LinkKind::Veth));
    not_found(&alone, 1105);
}

#[test]
fn uplink_narrower_than_what_is_behind() {
    let mut case = bridged();
    find_link(&mut case, HOST, "eth0").mtu = 1460;
    assert!(found(&case, 1106).sentence.contains("MTU 1460"));
    find_link(&mut case, HOST, "br0").mtu = 1460;
    not_found(&case, 1106);
    // The route's own MTU counts as well.
    let mut case = bridged();
    host(&mut case).routes[0].mtu = Some(1450);
    assert!(found(&case, 1106).sentence.contains("MTU 1450"));
}

#[test]
fn jumbo_frames_towards_the_internet() {
    let mut case = bridged();
    for (netns, name) in [
        (HOST, "eth0"),
        (HOST, "br0"),
        (HOST, "veth-pod"),
        (POD, "eth0"),
    ] {
        find_link(&mut case, netns, name).mtu = 9001;
    }
    not_found(&case, 1107);
    host(&mut case).filter.drops_icmp = Some(ICMP_RULE.to_owned());
    found(&case, 1107);
    not_found(&case, 1104);
    host(&mut case).routes[0].mtu = Some(1500);
    not_found(&case, 1107);
}

fn probe(kind: ProbeKind, outcome: ProbeOutcome) -> ProbeResult {
    ProbeResult {
        kind,
        transport: Transport::Udp,
        ipv6: false,
        direction: Direction::Outbound,
        outcome,
        sent: 1500,
        received: 0,
        millis: 1,
        receiver: Default::default(),
        sender: Default::default(),
    }
}

fn lost() -> ProbeOutcome {
    ProbeOutcome::Failed("no answer within 2 s".to_owned())
}

#[test]
fn full_size_lost_while_small_passes() {
    let mut case = bridged();
    case.path = Some(bridge_path());
    case.probes = vec![
        probe(ProbeKind::Small, ProbeOutcome::Passed),
        probe(ProbeKind::Mtu, lost()),
    ];
    let evidence = found(&case, 1108).evidence;
    assert!(
        evidence[0]
            .value
            .contains("UDP over IPv4, outbound: no answer")
    );
    // Nothing passes at all: not a question of size.
    case.probes[0].outcome = lost();
    not_found(&case, 1108);
    case.probes[0].outcome = ProbeOutcome::Passed;
    case.probes[1].outcome = ProbeOutcome::NotRun("no route".to_owned());
    not_found(&case, 1108);
}

#[test]
fn oversize_lost_silently() {
    let mut case = bridged();
    case.probes = vec![probe(ProbeKind::MtuPlusOne, lost())];
    found(&case, 1109);
    case.probes[0].outcome = ProbeOutcome::Passed;
    not_found(&case, 1109);
}
