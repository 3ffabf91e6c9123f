//! Machines to judge, built by hand from what `ethtool -k` and `ip` show of real ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::PathBuf;

use tollgate_doctor::action::Action;
use tollgate_doctor::case::{Case, Hop, Path, Via};
use tollgate_doctor::catalogue::{self, Judgement};
use tollgate_doctor::finding::{Finding, Number, Severity};
use tollgate_doctor::model::*;

/// The namespace called `host`.
pub const HOST: NetnsId = NetnsId(1);
pub const POD: NetnsId = NetnsId(2);

/// Features of a pair's end: everything on but GRO.
pub const VETH: [(&str, bool); 11] = [
    ("rx-checksum", true),
    ("tx-checksum-ip-generic", true),
    ("tx-scatter-gather", true),
    ("tx-tcp-segmentation", true),
    ("tx-tcp6-segmentation", true),
    ("tx-tcp-mangleid-segmentation", true),
    ("tx-udp-segmentation", true),
    ("tx-nocache-copy", false),
    ("rx-gro", false),
    ("rx-gro-list", false),
    ("rx-udp-gro-forwarding", false),
];

/// A card's: GRO on, LRO there and off.
pub const NIC: [(&str, bool); 14] = [
    ("rx-checksum", true),
    ("tx-checksum-ipv4", true),
    ("tx-checksum-ipv6", true),
    ("tx-scatter-gather", true),
    ("tx-tcp-segmentation", true),
    ("tx-tcp6-segmentation", true),
    ("tx-udp_tnl-segmentation", true),
    ("tx-udp_tnl-csum-segmentation", true),
    ("tx-nocache-copy", false),
    ("rx-gro", true),
    ("rx-lro", false),
    ("rx-gro-list", false),
    ("rx-udp-gro-forwarding", false),
    ("rx-gro-hw", false),
];

/// A virtual interface with a stack behind it (OVS internal port, VXLAN, bridge): GRO on.
pub const VIRTUAL: [(&str, bool); 9] = [
    ("tx-checksum-ip-generic", true),
    ("tx-scatter-gather", true),
    ("tx-tcp-segmentation", true),
    ("tx-tcp6-segmentation", true),
    ("tx-nocache-copy", false),
    ("tx-udp-segmentation", true),
    ("rx-gro", true),
    ("rx-gro-list", false),
    ("rx-udp-gro-forwarding", false),
];

pub fn features(table: &[(&str, bool)]) -> Vec<Feature> {
    table
        .iter()
        .map(|(name, on)| Feature {
            name: (*name).to_owned(),
            active: *on,
            wanted: *on,
            fixed: false,
        })
        .collect()
}

pub fn link(ifindex: u32, name: &str, kind: LinkKind) -> Link {
    let table: &[(&str, bool)] = match kind {
        LinkKind::Veth => &VETH,
        LinkKind::Physical => &NIC,
        LinkKind::Loopback => &[],
        _ => &VIRTUAL,
    };
    Link {
        ifindex,
        name: name.to_owned(),
        kind,
        up: true,
        mtu: 1500,
        features: features(table),
        sizes: Sizes {
            gso_max: 65_536,
            gso_ipv4_max: 65_536,
            gso_max_segs: 65_535,
            gro_max: 65_536,
            gro_ipv4_max: 65_536,
            tso_max: 524_280,
            tso_max_segs: 65_535,
        },
        queues: Queues {
            rx: 1,
            tx: 1,
            symmetric_hash: None,
        },
        ..Link::default()
    }
}

pub fn addressed(mut link: Link, address: &str) -> Link {
    link.addresses = vec![address.parse().unwrap(), "fe80::1/64".parse().unwrap()];
    link
}

pub fn port_of(mut link: Link, master: u32) -> Link {
    link.master = Some(master);
    link
}

pub fn pair(mut link: Link, netns: NetnsId, ifindex: u32) -> Link {
    link.link = Some(LinkRef { netns, ifindex });
    link
}

pub fn netns(id: NetnsId, name: &str, links: Vec<Link>) -> Netns {
    Netns {
        pids: Vec::new(),
        aliases: Vec::new(),
        id,
        name: name.to_owned(),
        path: PathBuf::from(format!("/run/netns/{name}")),
        links,
        routes: Vec::new(),
        sysctls: [
            ("net.ipv4.ip_forward", if id == HOST { "1" } else { "0" }),
            ("net.ipv4.tcp_mtu_probing", "0"),
            ("net.netfilter.nf_conntrack_tcp_be_liberal", "0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        counters: Default::default(),
        packet_sockets: Vec::new(),
        filter: Filter {
            readable: true,
            nat: Some("ip saddr 10.0.0.0/24 oifname eth0 masquerade".to_owned()),
            ..Filter::default()
        },
    }
}

pub fn route(to: &str, ifindex: u32) -> Route {
    Route {
        to: to.parse().unwrap(),
        via: None,
        ifindex,
        mtu: None,
        advmss: None,
        metric: 0,
    }
}

pub fn at(netns: NetnsId, ifindex: u32) -> LinkRef {
    LinkRef { netns, ifindex }
}

/// A pod's pair at a bridge, a card to the outside.
pub fn bridged() -> Case {
    let mut host = netns(
        HOST,
        "host",
        vec![
            link(1, "lo", LinkKind::Loopback),
            addressed(link(2, "eth0", LinkKind::Physical), "192.0.2.10/24"),
            addressed(link(3, "br0", LinkKind::Bridge), "10.0.0.1/24"),
            pair(port_of(link(4, "veth-pod", LinkKind::Veth), 3), POD, 2),
        ],
    );
    host.routes = vec![route("0.0.0.0/0", 2), route("10.0.0.0/24", 3)];
    Case {
        now: Snapshot {
            kernel: "6.12.30-amd64".to_owned(),
            namespaces: vec![host, pod(4)],
            ..Snapshot::default()
        },
        ..Case::default()
    }
}

pub fn pod(host_end: u32) -> Netns {
    let mut pod = netns(
        POD,
        "pod",
        vec![
            link(1, "lo", LinkKind::Loopback),
            addressed(
                pair(link(2, "eth0", LinkKind::Veth), HOST, host_end),
                "10.0.0.2/24",
            ),
        ],
    );
    pod.routes = vec![route("0.0.0.0/0", 2)];
    pod.filter.nat = None;
    pod
}

/// A pod and a gateway at Open vSwitch, with two more ports for an engine (6 and 7).
pub fn switched() -> Case {
    let mut host = netns(
        HOST,
        "host",
        vec![
            link(1, "lo", LinkKind::Loopback),
            addressed(link(2, "eth0", LinkKind::Physical), "192.0.2.10/24"),
            link(3, "ovs-system", LinkKind::OvsDatapath),
            link(8, "br-int", LinkKind::OvsInternal),
            addressed(link(4, "gw0", LinkKind::OvsInternal), "10.0.0.1/24"),
            pair(port_of(link(5, "veth-pod", LinkKind::Veth), 3), POD, 2),
            link(6, "tap0", LinkKind::OvsInternal),
            link(7, "tap1", LinkKind::OvsInternal),
        ],
    );
    host.routes = vec![route("0.0.0.0/0", 2), route("10.0.0.0/24", 4)];
    let ports = ["br-int", "gw0", "veth-pod", "tap0", "tap1"].map(|name| OvsPort {
        name: name.to_owned(),
        kind: "internal".to_owned(),
        mtu: Some(1500),
        ..OvsPort::default()
    });
    Case {
        now: Snapshot {
            kernel: "6.12.30-amd64".to_owned(),
            namespaces: vec![host, pod(5)],
            own: None,
            ovs: Some(Ovs {
                userspace_tso: false,
                bridges: vec![OvsBridge {
                    name: "br-int".to_owned(),
                    datapath_type: "system".to_owned(),
                    ports: ports.into(),
                }],
            }),
            unreadable: Vec::new(),
        },
        ..Case::default()
    }
}

/// The same with a program that reads the two ports.
pub fn with_engine(vnet_hdr: bool) -> Case {
    let mut case = switched();
    host(&mut case).packet_sockets = vec![
        socket(6, "Suricata-Main", vnet_hdr),
        socket(7, "Suricata-Main", vnet_hdr),
    ];
    case
}

/// Outbound from the pod, through the engine, out of the card.
pub fn engine_path() -> Path {
    let hop = |netns, ifindex, via| Hop {
        at: at(netns, ifindex),
        via,
        overhead: 0,
    };
    Path {
        from: "pod".to_owned(),
        to: "203.0.113.9".to_owned(),
        hops: vec![
            hop(POD, 2, Via::Start),
            hop(HOST, 5, Via::Pair),
            hop(HOST, 6, Via::Ovs),
            hop(HOST, 7, Via::Engine(process("Suricata-Main"))),
            hop(HOST, 4, Via::Ovs),
            hop(HOST, 2, Via::Route("default dev eth0".to_owned())),
        ],
        ends: String::new(),
    }
}

/// From the pod through the bridge and out of the card.
pub fn bridge_path() -> Path {
    let hop = |netns, ifindex, via| Hop {
        at: at(netns, ifindex),
        via,
        overhead: 0,
    };
    Path {
        from: "pod".to_owned(),
        to: "203.0.113.9".to_owned(),
        hops: vec![
            hop(POD, 2, Via::Start),
            hop(HOST, 4, Via::Pair),
            hop(HOST, 3, Via::Master),
            hop(HOST, 2, Via::Route("default dev eth0".to_owned())),
        ],
        ends: String::new(),
    }
}

pub fn process(name: &str) -> Process {
    Process {
        pid: 812,
        name: name.to_owned(),
    }
}

pub fn socket(ifindex: u32, name: &str, vnet_hdr: bool) -> PacketSocket {
    PacketSocket {
        ifindex,
        vnet_hdr,
        process: Some(process(name)),
        promiscuous: Some(true),
        ..PacketSocket::default()
    }
}

pub fn host(case: &mut Case) -> &mut Netns {
    &mut case.now.namespaces[0]
}

pub fn find_link<'a>(case: &'a mut Case, netns: NetnsId, name: &str) -> &'a mut Link {
    case.now
        .namespaces
        .iter_mut()
        .find(|n| n.id == netns)
        .and_then(|n| n.links.iter_mut().find(|link| link.name == name))
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Switches a feature by hand, with what the kernel drags along.
pub fn set(case: &mut Case, netns: NetnsId, name: &str, feature: &str, on: bool) {
    let netns = case.now.netns(netns).unwrap();
    let action = Action::Feature {
        netns: (netns.id != HOST).then(|| netns.path.clone()),
        ifname: name.to_owned(),
        feature: feature.to_owned(),
        on,
    };
    assert!(action.apply_to(&mut case.now), "{name} has no {feature}");
}

pub fn numbers(judgement: &Judgement) -> Vec<u16> {
    let mut numbers: Vec<u16> = judgement.findings.iter().map(|f| f.number.0).collect();
    numbers.dedup();
    numbers
}

/// The case has exactly one finding of this number; what it offers, if anything, removes it and
/// brings no other fault.
pub fn found(case: &Case, number: u16) -> Finding {
    let judgement = catalogue::judge(case);
    let all: Vec<&Finding> = judgement
        .findings
        .iter()
        .filter(|finding| finding.number == Number(number))
        .collect();
    assert_eq!(all.len(), 1, "TG{number}: {:#?}", judgement);
    let finding = all[0].clone();
    assert!(!finding.sentence.is_empty() && !finding.fix.is_empty() && !finding.cost.is_empty());
    assert!(!finding.evidence.is_empty(), "TG{number} shows nothing");
    if !finding.actions.is_empty() {
        let mut repaired = case.clone();
        for action in &finding.actions {
            assert!(action.apply_to(&mut repaired.now), "{action:?}");
        }
        let after = catalogue::judge(&repaired);
        assert!(!numbers(&after).contains(&number), "{after:#?}");
        let before = numbers(&judgement);
        let new: Vec<&Finding> = after
            .findings
            .iter()
            .filter(|f| f.severity > Severity::Info && !before.contains(&f.number.0))
            .collect();
        assert!(new.is_empty(), "the repair of TG{number} breaks: {new:#?}");
    }
    finding
}

/// Nothing of this number is found.
pub fn not_found(case: &Case, number: u16) {
    let judgement = catalogue::judge(case);
    assert!(!numbers(&judgement).contains(&number), "{judgement:#?}");
}

/// What a finding's repair does, one line per change.
pub fn changes(finding: &Finding) -> Vec<String> {
    finding
        .actions
        .iter()
        .map(|action| match action {
            Action::Feature {
                netns,
                ifname,
                feature,
                on,
            } => format!(
                "{}{ifname} {feature} {}",
                netns.as_ref().map_or(String::new(), |_| "pod:".to_owned()),
                if *on { "on" } else { "off" }
            ),
            other => format!("{other:?}"),
        })
        .collect()
}
