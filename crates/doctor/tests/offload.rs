//! TG12xx, TG13xx and TG14xx: each found, its near miss not, its repair enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::*;
use tollgate_doctor::action::Action;
use tollgate_doctor::case::{
    Case, Declared, Direction, ProbeKind, ProbeOutcome, ProbeResult, Transport,
};
use tollgate_doctor::catalogue::judge;
use tollgate_doctor::finding::Severity;
use tollgate_doctor::model::*;

fn recorded(text: &str) -> Case {
    serde_json::from_str(text).unwrap()
}

fn vxlan_behind_nat() -> Case {
    let mut case = bridged();
    let mut vxlan = link(5, "flannel.1", LinkKind::Vxlan(Vxlan::default()));
    vxlan.mtu = 1450;
    host(&mut case).links.push(vxlan);
    host(&mut case).filter.nat_of_tunnel = Some("meta mark 0x4000 masquerade".to_owned());
    case.now.kernel = "5.4.0-42-generic".to_owned();
    case
}

#[test]
fn vxlan_behind_nat_on_an_old_kernel() {
    let finding = found(&vxlan_behind_nat(), 1201);
    assert_eq!(changes(&finding), ["flannel.1 tx-checksum-ip-generic off"]);
    for kernel in ["5.8.0", "6.1.0-18-amd64"] {
        let mut case = vxlan_behind_nat();
        case.now.kernel = kernel.to_owned();
        not_found(&case, 1201);
    }
    let mut no_nat = vxlan_behind_nat();
    host(&mut no_nat).filter.nat_of_tunnel = None;
    not_found(&no_nat, 1201);
    let mut unknown = vxlan_behind_nat();
    unknown.now.kernel = String::new();
    not_found(&unknown, 1201);
    assert!(
        judge(&unknown)
            .untold
            .iter()
            .any(|why| why.contains("release is not known"))
    );
}

#[test]
fn recorded_vmxnet3_with_vxlan() {
    let case = recorded(include_str!("recorded/vmxnet3-vxlan.json"));
    let finding = found(&case, 1202);
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(
        changes(&finding),
        [
            "ens192 tx-udp_tnl-segmentation off",
            "ens192 tx-udp_tnl-csum-segmentation off"
        ]
    );
    // Other UDP port: it depends on the hypervisor.
    let mut other = case.clone();
    find_link(&mut other, HOST, "vxlan.calico").kind = LinkKind::Vxlan(Vxlan {
        port: 8472,
        ..Vxlan::default()
    });
    assert_eq!(found(&other, 1202).severity, Severity::Warning);
    let mut no_tunnel = case.clone();
    host(&mut no_tunnel)
        .links
        .retain(|link| link.name != "vxlan.calico");
    not_found(&no_tunnel, 1202);
    let mut other_driver = case;
    find_link(&mut other_driver, HOST, "ens192").driver = "i40e".to_owned();
    not_found(&other_driver, 1202);
}

fn probe(outcome: ProbeOutcome, receiver: &[(&str, u64)]) -> ProbeResult {
    ProbeResult {
        kind: ProbeKind::Checksum,
        transport: Transport::Tcp,
        ipv6: false,
        direction: Direction::Inbound,
        outcome,
        sent: 1 << 20,
        received: 0,
        millis: 1,
        receiver: receiver
            .iter()
            .map(|(name, by)| ((*name).to_owned(), *by))
            .collect(),
        sender: Default::default(),
    }
}

#[test]
fn checksum_errors_at_the_receiver_of_a_probe() {
    let mut case = bridged();
    let failed = ProbeOutcome::Failed("nothing arrived".to_owned());
    case.probes = vec![probe(failed.clone(), &[("Tcp:InCsumErrors", 1)])];
    let finding = found(&case, 1203);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.evidence[0].value.contains("TCP over IPv4, inbound"));
    case.probes = vec![probe(failed, &[("Tcp:InCsumErrors", 0), ("Tcp:InErrs", 5)])];
    not_found(&case, 1203);
}

#[test]
fn checksum_errors_between_readings() {
    let mut case = bridged();
    case.earlier = Some(case.now.clone());
    case.now.namespaces[1]
        .counters
        .insert("Udp:InCsumErrors".to_owned(), 10);
    assert_eq!(found(&case, 1203).severity, Severity::Warning);
    case.now.namespaces[1]
        .counters
        .insert("Udp:InCsumErrors".to_owned(), 9);
    not_found(&case, 1203);
}

#[test]
fn udp_segmentation_without_checksums() {
    let mut case = bridged();
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    not_found(&case, 1204);
    case.now.kernel = "6.8.0-31-generic".to_owned();
    assert_eq!(
        changes(&found(&case, 1204)),
        ["pod:eth0 tx-checksum-ip-generic on"]
    );
    // Where an engine needs it off, it stays off.
    let mut engine = with_engine(false);
    engine.now.kernel = "6.8.0-31-generic".to_owned();
    set(&mut engine, POD, "eth0", "tx-checksum-ip-generic", false);
    let finding = found(&engine, 1204);
    assert!(finding.actions.is_empty() && finding.fix.contains("6.11"));
}

#[test]
fn ipv6_nat_after_a_redirect() {
    let mut case = with_engine(true);
    case.path = Some(engine_path());
    case.now.kernel = "6.6.85".to_owned();
    host(&mut case).filter.nat = Some("oifname eth0 masquerade".to_owned());
    not_found(&case, 1205);
    let address = "2001:db8::2/64".parse().unwrap();
    find_link(&mut case, POD, "eth0").addresses.push(address);
    found(&case, 1205);
    for fixed in ["6.6.86", "6.1.133-amd64", "6.14.1", "6.18.0", "7.0.1"] {
        case.now.kernel = fixed.to_owned();
        not_found(&case, 1205);
    }
    for broken in ["5.4.300", "6.1.132", "6.8.12", "6.14.0"] {
        case.now.kernel = broken.to_owned();
        found(&case, 1205);
    }
    // For IPv4 only.
    host(&mut case).filter.nat = Some("ip saddr 10.0.0.0/24 masquerade".to_owned());
    not_found(&case, 1205);
}

#[test]
fn lro_while_forwarding() {
    let mut case = bridged();
    set(&mut case, HOST, "eth0", "rx-lro", true);
    assert_eq!(changes(&found(&case, 1301)), ["eth0 rx-lro off"]);
    host(&mut case)
        .sysctls
        .insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    not_found(&case, 1301);
}

#[test]
fn recorded_lro_card_in_a_bridge() {
    let case = recorded(include_str!("recorded/lro-ixgbe-bridge.json"));
    assert_eq!(changes(&found(&case, 1301)), ["eno1 rx-lro off"]);
    let mut alone = case;
    find_link(&mut alone, HOST, "eno1").master = None;
    not_found(&alone, 1301);
}

#[test]
fn xdp_in_the_driver_of_a_pair() {
    let mut case = bridged();
    find_link(&mut case, HOST, "veth-pod").xdp = Some(XdpMode::Native);
    assert!(matches!(
        &found(&case, 1302).actions[..],
        [Action::GenericXdp { .. }]
    ));
    find_link(&mut case, HOST, "veth-pod").xdp = Some(XdpMode::Generic);
    not_found(&case, 1302);
    find_link(&mut case, HOST, "veth-pod").xdp = None;
    find_link(&mut case, HOST, "eth0").xdp = Some(XdpMode::Native);
    not_found(&case, 1302);
}

fn sizes(action: &Action) -> Vec<(&str, u32)> {
    match action {
        Action::Sizes { sizes, .. } => sizes.iter().map(|(n, v)| (n.as_str(), *v)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn larger_than_the_device_takes() {
    let mut case = bridged();
    let link = find_link(&mut case, HOST, "eth0");
    link.sizes.tso_max = 65_536;
    not_found(&case, 1303);
    find_link(&mut case, HOST, "eth0").sizes.gso_max = 196_608;
    find_link(&mut case, HOST, "eth0").sizes.gso_ipv4_max = 196_608;
    let finding = found(&case, 1303);
    let expected = [("gso_max_size", 65_536), ("gso_ipv4_max_size", 65_536)];
    assert_eq!(sizes(&finding.actions[0]), expected);
    // The kernel does not say what the device takes.
    find_link(&mut case, HOST, "eth0").sizes.tso_max = 0;
    not_found(&case, 1303);
}

#[test]
fn size_for_ipv4_fell_back() {
    let mut case = bridged();
    not_found(&case, 1304);
    find_link(&mut case, HOST, "eth0").sizes.gso_max = 131_072;
    // Larger for IPv6 only: somebody may have meant that.
    let finding = found(&case, 1304);
    assert_eq!(
        (finding.severity, finding.actions.len()),
        (Severity::Info, 0)
    );
    find_link(&mut case, HOST, "eth0").sizes.gro_ipv4_max = 131_072;
    let finding = found(&case, 1304);
    assert_eq!(finding.severity, Severity::Warning);
    let expected = [("gso_max_size", 131_072), ("gso_ipv4_max_size", 131_072)];
    assert_eq!(sizes(&finding.actions[0]), expected);
    find_link(&mut case, HOST, "eth0").sizes.gso_ipv4_max = 131_072;
    not_found(&case, 1304);
    // Before Linux 6.3 there is only one size.
    find_link(&mut case, HOST, "eth0").sizes.gso_ipv4_max = 0;
    find_link(&mut case, HOST, "eth0").sizes.gro_ipv4_max = 0;
    not_found(&case, 1304);
}

#[test]
fn writing_the_size_also_sets_that_for_ipv4() {
    let mut case = bridged();
    find_link(&mut case, HOST, "eth0").sizes.gso_ipv4_max = 131_072;
    let wrong_order = Action::Sizes {
        netns: None,
        ifname: "eth0".to_owned(),
        sizes: vec![
            ("gso_ipv4_max_size".to_owned(), 131_072),
            ("gso_max_size".to_owned(), 65_536),
        ],
    };
    assert!(wrong_order.apply_to(&mut case.now));
    assert_eq!(
        find_link(&mut case, HOST, "eth0").sizes.gso_ipv4_max,
        65_536
    );
}

fn declared(interface: &str, endpoints: bool, feature: &str, on: bool) -> Declared {
    Declared {
        source: "tollgate.yaml: offloads[0]".to_owned(),
        interface: interface.to_owned(),
        endpoints,
        feature: feature.to_owned(),
        on,
    }
}

#[test]
fn not_as_declared() {
    let mut case = bridged();
    case.declared = vec![declared("veth*", false, "tx-udp-segmentation", false)];
    let finding = found(&case, 1305);
    assert_eq!(changes(&finding), ["veth-pod tx-udp-segmentation off"]);
    assert!(finding.sentence.contains("tollgate.yaml"));
    for other in [
        declared("veth*", false, "tx-udp-segmentation", true),
        declared("eth*", false, "tx-nocache-copy", false),
        declared("veth*", true, "tx-udp-segmentation", false),
        declared("*-pot", false, "tx-udp-segmentation", false),
        declared("veth*", false, "no-such-feature", false),
    ] {
        case.declared = vec![other];
        not_found(&case, 1305);
    }
}

#[test]
fn declared_segmentation_needs_checksums_first() {
    let mut case = bridged();
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    case.declared = vec![declared("eth0", true, "tx-tcp-segmentation", true)];
    let expected = [
        "pod:eth0 tx-checksum-ip-generic on",
        "pod:eth0 tx-tcp-segmentation on",
    ];
    assert_eq!(changes(&found(&case, 1305)), expected);
    // Declarations that contradict each other are not carried out.
    case.declared
        .push(declared("eth0", true, "tx-checksum-ip-generic", false));
    assert!(found(&case, 1305).actions.is_empty());
}

#[test]
fn asked_for_and_off() {
    let mut case = bridged();
    let link = find_link(&mut case, HOST, "eth0");
    for feature in &mut link.features {
        feature.active &= feature.name != "tx-tcp-segmentation";
    }
    assert_eq!(found(&case, 1306).severity, Severity::Info);
    // Off because the checksums are: plain to see, and told elsewhere.
    let mut case = bridged();
    set(&mut case, HOST, "eth0", "tx-checksum-ipv4", false);
    set(&mut case, HOST, "eth0", "tx-checksum-ipv6", false);
    assert!(!find_link(&mut case, HOST, "eth0").has("tx-tcp-segmentation"));
    not_found(&case, 1306);
}

fn invalid(grown: u64) -> Case {
    let mut case = bridged();
    host(&mut case)
        .counters
        .insert("Conntrack:invalid".to_owned(), 100);
    host(&mut case).filter.drops_invalid = Some("ct state invalid drop".to_owned());
    case.earlier = Some(case.now.clone());
    host(&mut case)
        .counters
        .insert("Conntrack:invalid".to_owned(), 100 + grown);
    case
}

#[test]
fn tracking_drops_what_is_outside_the_window() {
    let finding = found(&invalid(10), 1401);
    assert!(matches!(&finding.actions[..], [Action::Sysctl { .. }]));
    not_found(&invalid(9), 1401);
    let mut liberal = invalid(10);
    let key = "net.netfilter.nf_conntrack_tcp_be_liberal".to_owned();
    host(&mut liberal).sysctls.insert(key, "1".to_owned());
    not_found(&liberal, 1401);
    let mut no_rule = invalid(10);
    host(&mut no_rule).filter.drops_invalid = None;
    not_found(&no_rule, 1401);
    let mut once = invalid(10);
    once.earlier = None;
    not_found(&once, 1401);
}

#[test]
fn packets_lost_at_a_hop() {
    let mut case = bridged();
    case.path = Some(bridge_path());
    find_link(&mut case, HOST, "veth-pod")
        .counters
        .insert("rx_dropped".to_owned(), 5);
    case.earlier = Some(case.now.clone());
    let failed = ProbeOutcome::Failed("no answer".to_owned());
    case.probes = vec![probe(failed, &[])];
    not_found(&case, 1402);
    find_link(&mut case, HOST, "veth-pod")
        .counters
        .insert("rx_dropped".to_owned(), 6);
    let finding = found(&case, 1402);
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.evidence[0].value, "rx_dropped +1");
    // A counter that was 0 was left out.
    let mut first = case.clone();
    let before = first.earlier.as_mut().unwrap();
    before.namespaces[0].links[3].counters.clear();
    assert_eq!(found(&first, 1402).evidence[0].value, "rx_dropped +6");
    // A packet of somebody else's, while every probe passed.
    case.probes = vec![probe(ProbeOutcome::Passed, &[])];
    not_found(&case, 1402);
    find_link(&mut case, HOST, "veth-pod")
        .counters
        .insert("rx_dropped".to_owned(), 15);
    assert_eq!(found(&case, 1402).severity, Severity::Warning);
}

#[test]
fn open_vswitch_drops_at_a_port() {
    for name in ["ovs_tx_mtu_exceeded_drops", "ovs_tx_failure_drops"] {
        let mut case = switched();
        let count = |case: &mut Case, value: u64| {
            let ovs = case.now.ovs.as_mut().unwrap();
            ovs.bridges[0].ports[1]
                .statistics
                .insert(name.to_owned(), value);
        };
        count(&mut case, 7);
        case.earlier = Some(case.now.clone());
        not_found(&case, 1403);
        count(&mut case, 9);
        let finding = found(&case, 1403);
        assert!(
            finding.sentence.contains("2 frames at port gw0"),
            "{}",
            finding.sentence
        );
    }
}
