//! TG10xx and TG1404: each found, its near miss not, its repair enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::*;
use tollgate_doctor::case::{Case, Declared, Path, Via};
use tollgate_doctor::catalogue::{explain, judge};
use tollgate_doctor::finding::Severity;
use tollgate_doctor::model::*;

const WORKAROUND: [&str; 2] = [
    "gw0 tx-checksum-ip-generic off",
    "pod:eth0 tx-checksum-ip-generic off",
];

#[test]
fn blind_engine_at_open_vswitch() {
    let case = with_engine(false);
    for number in [1001, 1002] {
        let finding = found(&case, number);
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(changes(&finding), WORKAROUND);
        assert!(finding.sentence.contains("gw0 in the host's namespace"));
        assert!(finding.sentence.contains("eth0 in namespace pod"));
        assert!(finding.cost.contains("TSO"));
    }
    // The commands work where the user stands.
    let sources: Vec<String> = found(&case, 1001)
        .evidence
        .into_iter()
        .map(|e| e.source)
        .collect();
    assert!(
        sources.contains(&"ip netns exec pod ethtool -k eth0".to_owned()),
        "{sources:?}"
    );
    assert!(
        sources.contains(&"ethtool -k gw0".to_owned()),
        "{sources:?}"
    );
}

#[test]
fn workaround_in_place_is_left_alone() {
    let mut case = with_engine(false);
    set(&mut case, HOST, "gw0", "tx-checksum-ip-generic", false);
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    assert_eq!(judge(&case).findings, []);
}

#[test]
fn workaround_in_the_pod_only_is_not_enough() {
    let mut case = with_engine(false);
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    assert_eq!(changes(&found(&case, 1001)), WORKAROUND[..1]);
    assert_eq!(changes(&found(&case, 1002)), WORKAROUND[..1]);
}

#[test]
fn segmentation_off_alone_leaves_the_checksums() {
    let mut case = with_engine(false);
    for (netns, name) in [(HOST, "gw0"), (POD, "eth0")] {
        set(&mut case, netns, name, "tx-tcp-segmentation", false);
        set(&mut case, netns, name, "tx-tcp6-segmentation", false);
    }
    not_found(&case, 1001);
    found(&case, 1002);
}

#[test]
fn only_what_is_on_the_path_is_changed() {
    let mut case = with_engine(false);
    // Another pod at the same switch.
    let other = NetnsId(9);
    let mut end = pair(port_of(link(20, "veth-other", LinkKind::Veth), 3), other, 2);
    end.mtu = 1500;
    host(&mut case).links.push(end);
    let mut namespace = netns(
        other,
        "other",
        vec![addressed(
            pair(link(2, "eth0", LinkKind::Veth), HOST, 20),
            "10.0.0.3/24",
        )],
    );
    namespace.filter.nat = None;
    case.now.namespaces.push(namespace);
    case.now.ovs.as_mut().unwrap().bridges[0]
        .ports
        .push(OvsPort {
            name: "veth-other".to_owned(),
            ..OvsPort::default()
        });
    assert_eq!(found(&case, 1001).actions.len(), 3);
    case.path = Some(engine_path());
    assert_eq!(changes(&found(&case, 1001)), WORKAROUND);
    // A path that does not touch the engine has nothing to do with it.
    case.path = Some(Path {
        hops: engine_path().hops.split_off(5),
        ..engine_path()
    });
    assert_eq!(judge(&case).findings, []);
}

/// An engine between two pairs: what their other ends send is finished there, and only there.
fn between_pairs() -> Case {
    let mut case = bridged();
    let links = &mut host(&mut case).links;
    links.push(pair(
        port_of(link(10, "in-far", LinkKind::Veth), 3),
        HOST,
        11,
    ));
    links.push(pair(link(11, "in", LinkKind::Veth), HOST, 10));
    links.push(pair(link(12, "out-far", LinkKind::Veth), HOST, 13));
    links.push(pair(link(13, "out", LinkKind::Veth), HOST, 12));
    host(&mut case).packet_sockets = vec![socket(11, "bump", false), socket(13, "bump", false)];
    case
}

#[test]
fn engine_between_pairs_is_fed_by_their_other_ends() {
    let off = [
        "in-far tx-checksum-ip-generic off",
        "out-far tx-checksum-ip-generic off",
    ];
    assert_eq!(changes(&found(&between_pairs(), 1001)), off);
    assert_eq!(changes(&found(&between_pairs(), 1002)), off);
}

#[test]
fn workaround_at_the_senders_behind_a_pair_counts() {
    let mut case = between_pairs();
    set(&mut case, HOST, "out-far", "tx-checksum-ip-generic", false);
    set(&mut case, HOST, "br0", "tx-checksum-ip-generic", false);
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    assert_eq!(judge(&case).findings, []);
}

#[test]
fn engine_on_a_card_gets_no_merged_frames() {
    let mut case = bridged();
    host(&mut case)
        .links
        .push(link(10, "eth1", LinkKind::Physical));
    host(&mut case).packet_sockets = vec![socket(2, "snort", false), socket(10, "snort", false)];
    assert_eq!(
        changes(&found(&case, 1001)),
        ["eth0 rx-gro off", "eth1 rx-gro off"]
    );
    not_found(&case, 1002);
}

/// An engine whose ports are connected to nothing.
fn in_the_air() -> Case {
    let mut case = with_engine(false);
    for name in ["tap0", "tap1"] {
        find_link(&mut case, HOST, name).kind = LinkKind::Dummy;
    }
    case.now.ovs = None;
    case
}

#[test]
fn switch_without_its_database() {
    let mut case = with_engine(false);
    case.now.ovs = None;
    assert_eq!(changes(&found(&case, 1001)), WORKAROUND);
}

#[test]
fn what_feeds_an_engine_is_unknown() {
    let mut case = with_engine(false);
    // The pod's namespace could not be entered.
    case.now.namespaces.truncate(1);
    let judgement = judge(&case);
    assert!(
        judgement.untold.iter().any(|why| why.contains("veth-pod")),
        "{judgement:?}"
    );
    // Ports that hang in the air: something redirects to them.
    let mut case = in_the_air();
    let judgement = judge(&case);
    assert!(judgement.findings.is_empty());
    assert!(
        judgement
            .untold
            .iter()
            .any(|why| why.contains("name a path")),
        "{judgement:?}"
    );
    // With the path it is plain.
    case.path = Some(engine_path());
    for hop in &mut case.path.as_mut().unwrap().hops {
        if hop.via == Via::Ovs {
            hop.via = Via::Redirect;
        }
    }
    assert_eq!(changes(&found(&case, 1001)), WORKAROUND);
}

#[test]
fn sockets_of_unknown_programs_are_told() {
    let mut case = with_engine(false);
    for socket in &mut host(&mut case).packet_sockets {
        socket.process = None;
    }
    let judgement = judge(&case);
    assert!(judgement.findings.is_empty());
    assert!(
        judgement
            .untold
            .iter()
            .any(|why| why.contains("process was not found"))
    );
}

#[test]
fn offload_off_without_an_engine() {
    let mut case = switched();
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    assert!(!find_link(&mut case, POD, "eth0").has("tx-tcp-segmentation"));
    let finding = found(&case, 1003);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(changes(&finding), ["pod:eth0 tx-checksum-ip-generic on"]);
    assert!(finding.actions[0].apply_to(&mut case.now));
    assert!(
        find_link(&mut case, POD, "eth0").has("tx-tcp-segmentation"),
        "comes back with it"
    );
}

#[test]
fn offload_off_that_is_meant() {
    let mut case = switched();
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    case.declared = vec![Declared {
        source: "tollgate.yaml: offloads[0]".to_owned(),
        interface: "eth*".to_owned(),
        endpoints: true,
        feature: "tx-checksum-ip-generic".to_owned(),
        on: false,
    }];
    not_found(&case, 1003);
    // A device that cannot do it.
    let mut case = switched();
    let feature = &mut find_link(&mut case, POD, "eth0").features[1];
    assert_eq!(feature.name, "tx-checksum-ip-generic");
    (feature.active, feature.wanted, feature.fixed) = (false, false, true);
    not_found(&case, 1003);
}

#[test]
fn offload_off_is_not_judged_where_feeders_are_unknown() {
    let mut case = in_the_air();
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    not_found(&case, 1003);
    assert!(
        judge(&case)
            .untold
            .iter()
            .any(|why| why.contains("has to be off"))
    );
}

#[test]
fn virtio_under_a_raw_reader() {
    let mut case = bridged();
    host(&mut case)
        .links
        .push(link(10, "eth1", LinkKind::Physical));
    host(&mut case).packet_sockets = vec![socket(2, "snort", false), socket(10, "snort", false)];
    not_found(&case, 1004);
    find_link(&mut case, HOST, "eth1").driver = "virtio_net".to_owned();
    assert!(found(&case, 1004).sentence.contains("eth1"));
    // Nobody reads it raw.
    host(&mut case).packet_sockets.clear();
    not_found(&case, 1004);
}

#[test]
fn ring_smaller_than_the_mtu() {
    let mut case = with_engine(true);
    // 1500 bytes, an Ethernet header and the ring's own 66 fit exactly.
    host(&mut case).packet_sockets[0].ring_frame = 1580;
    not_found(&case, 1005);
    host(&mut case).packet_sockets[0].ring_frame = 1579;
    assert!(found(&case, 1005).sentence.contains("1513 bytes"));
    // A capture may cut frames off.
    host(&mut case).packet_sockets = vec![PacketSocket {
        ring_frame: 256,
        ..socket(6, "tcpdump", false)
    }];
    not_found(&case, 1005);
}

#[test]
fn ports_of_different_mtu() {
    let mut case = with_engine(true);
    not_found(&case, 1007);
    find_link(&mut case, HOST, "tap1").mtu = 1450;
    let finding = found(&case, 1007);
    assert!(
        changes(&finding)[0].contains("mtu_request"),
        "{:?}",
        finding.actions
    );
    let mut case = between_pairs();
    find_link(&mut case, HOST, "in").mtu = 1400;
    find_link(&mut case, HOST, "in-far").mtu = 1400;
    // Both ends of its pair are raised.
    assert_eq!(found(&case, 1007).actions.len(), 2);
}

#[test]
fn merged_datagrams_under_a_raw_reader() {
    for feature in ["rx-udp-gro-forwarding", "rx-gro-list"] {
        let mut case = bridged();
        host(&mut case)
            .links
            .push(link(10, "eth1", LinkKind::Physical));
        set(&mut case, HOST, "eth0", feature, true);
        not_found(&case, 1008);
        host(&mut case).packet_sockets =
            vec![socket(2, "snort", false), socket(10, "snort", false)];
        assert_eq!(
            changes(&found(&case, 1008)),
            [format!("eth0 {feature} off")]
        );
        // It has no effect without GRO.
        set(&mut case, HOST, "eth0", "rx-gro", false);
        not_found(&case, 1008);
    }
}

fn on_taps() -> Case {
    let mut case = with_engine(true);
    host(&mut case).packet_sockets.clear();
    for name in ["tap0", "tap1"] {
        let tap = find_link(&mut case, HOST, name);
        tap.kind = LinkKind::Tun {
            tap: true,
            vnet_hdr: false,
        };
        for feature in &mut tap.features {
            feature.active &= !feature.name.starts_with("tx-");
        }
    }
    case.path = Some(engine_path());
    case
}

#[test]
fn tap_without_header_on_the_path() {
    let case = on_taps();
    let judgement = judge(&case);
    assert_eq!(numbers(&judgement), [1009], "{judgement:#?}");
    assert!(
        judgement
            .findings
            .iter()
            .all(|f| f.severity == Severity::Info)
    );
    let mut with_header = on_taps();
    for name in ["tap0", "tap1"] {
        find_link(&mut with_header, HOST, name).kind = LinkKind::Tun {
            tap: true,
            vnet_hdr: true,
        };
    }
    not_found(&with_header, 1009);
}

#[test]
fn tap_without_header_that_promises_offloads() {
    // TUNSETOFFLOAD without IFF_VNET_HDR: the kernel leaves the work to a reader that is not told.
    let mut case = on_taps();
    let tap = find_link(&mut case, HOST, "tap0");
    for feature in &mut tap.features {
        feature.active |= feature.name.starts_with("tx-");
    }
    assert!(found(&case, 1001).sentence.contains("tap0"));
    assert!(found(&case, 1002).sentence.contains("tap0"));
}

#[test]
fn incorrect_checksum_at_the_sender_is_explained_not_reported() {
    let mut case = switched();
    not_found(&case, 1010);
    let note = explain(&case, at(POD, 2)).unwrap();
    assert_eq!((note.number.0, note.severity), (1010, Severity::Info));
    assert!(note.sentence.contains("eth0 in namespace pod"));
    // With the offload off, an incorrect checksum is one.
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    assert_eq!(explain(&case, at(POD, 2)), None);
}

#[test]
fn userspace_open_vswitch_on_pairs() {
    let mut case = switched();
    case.now.ovs.as_mut().unwrap().bridges[0].datapath_type = "netdev".to_owned();
    host(&mut case).packet_sockets = vec![socket(5, "ovs-vswitchd", false)];
    let finding = found(&case, 1404);
    assert_eq!(changes(&finding), ["pod:eth0 tx-checksum-ip-generic off"]);
    not_found(&case, 1001);
    // With userspace TSO its sockets carry the header.
    host(&mut case).packet_sockets[0].vnet_hdr = true;
    not_found(&case, 1404);
}

#[test]
fn recorded_card_with_a_one_sided_hash() {
    let recorded = include_str!("recorded/multiqueue-i40e.json");
    let mut case: Case = serde_json::from_str(recorded).unwrap();
    let finding = found(&case, 1006);
    assert!(finding.sentence.contains("ens1f0"), "{}", finding.sentence);
    for link in &mut host(&mut case).links {
        link.queues.symmetric_hash = Some(true);
    }
    not_found(&case, 1006);
}

#[test]
fn changes_are_made_in_the_right_namespace() {
    let mut case = with_engine(false);
    // The doctor runs in the pod: what is the host's is somewhere else now.
    case.now.own = Some(POD);
    let places: Vec<bool> = found(&case, 1001)
        .actions
        .iter()
        .map(|action| action.netns().is_none())
        .collect();
    assert_eq!(places, [false, true]);
}
