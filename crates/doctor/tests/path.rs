//! Paths through machines that are not here: VLANs, WireGuard, routers without an address, and
//! configurations that lead nowhere.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use tollgate_doctor::case::{Path, Via};
use tollgate_doctor::model::{
    Filter, Link, LinkKind, LinkRef, Netns, NetnsId, PacketSocket, Process, Route, Snapshot,
    TunnelRemote, Vxlan,
};
use tollgate_doctor::path::{self, Endpoint, PathError, Target};

fn netns(id: u64, name: &str, links: Vec<Link>, routes: Vec<Route>) -> Netns {
    Netns {
        id: NetnsId(id),
        name: name.to_owned(),
        path: PathBuf::from(format!("/run/netns/{name}")),
        pids: Vec::new(),
        aliases: Vec::new(),
        links,
        routes,
        sysctls: BTreeMap::new(),
        counters: BTreeMap::new(),
        packet_sockets: Vec::new(),
        filter: Filter::default(),
    }
}

fn link(ifindex: u32, name: &str, kind: LinkKind, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|net| net.parse().expect("a network"));
    Link {
        ifindex,
        name: name.to_owned(),
        kind,
        up: true,
        mtu: 1500,
        addresses: addresses.collect(),
        ..Link::default()
    }
}

fn on(mut link: Link, netns: u64, ifindex: u32) -> Link {
    link.link = Some(LinkRef {
        netns: NetnsId(netns),
        ifindex,
    });
    link
}

fn route(to: &str, via: Option<&str>, ifindex: u32) -> Route {
    Route {
        to: to.parse().expect("a network"),
        via: via.map(ip),
        ifindex,
        mtu: None,
        advmss: None,
        metric: 0,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn machine(namespaces: Vec<Netns>) -> Snapshot {
    Snapshot {
        namespaces,
        ..Snapshot::default()
    }
}

fn way(snapshot: &Snapshot, from: &str, to: &str) -> Path {
    let from = Endpoint::Named(from.to_owned());
    path::resolve(snapshot, &from, &Target::from(ip(to))).expect("the endpoint is there")
}

fn names(snapshot: &Snapshot, path: &Path) -> Vec<String> {
    let hops = path.hops.iter().map(|hop| {
        let netns = snapshot.netns(hop.at.netns).expect("of the snapshot");
        let link = netns.link(hop.at.ifindex).expect("of the snapshot");
        format!("{}/{}+{}", netns.name, link.name, hop.overhead)
    });
    hops.collect()
}

/// Two namespaces on a pair, with a VLAN on each end.
fn vlans(here: u16, there: u16) -> Snapshot {
    let side = |id, name, other: u64, vlan, address: &str| {
        let links = vec![
            on(link(2, "wire", LinkKind::Veth, &[]), other, 2),
            on(
                link(3, "vlan", LinkKind::Vlan { id: vlan }, &[address]),
                id,
                2,
            ),
        ];
        netns(id, name, links, vec![route("192.0.2.0/24", None, 3)])
    };
    machine(vec![
        side(1, "a", 2, here, "192.0.2.1/24"),
        side(2, "b", 1, there, "192.0.2.2/24"),
    ])
}

#[test]
fn a_vlan_leads_to_the_same_vlan_only() {
    let same = vlans(100, 100);
    let path = way(&same, "a", "192.0.2.2");
    assert_eq!(
        names(&same, &path),
        ["a/vlan+0", "a/wire+0", "b/wire+0", "b/vlan+0"]
    );
    let vias: Vec<&Via> = path.hops.iter().map(|hop| &hop.via).collect();
    assert_eq!(vias, [&Via::Start, &Via::Lower, &Via::Pair, &Via::Lower]);
    assert_eq!(path.ends, "");

    let other = vlans(100, 200);
    let path = way(&other, "a", "192.0.2.2");
    assert!(
        path.ends.contains("no interface that vlan of a reaches"),
        "{}",
        path.ends
    );
}

#[test]
fn a_next_hop_that_nobody_has_is_answered_by_the_other_end_of_the_pair() {
    let pod = netns(
        2,
        "pod",
        vec![on(link(2, "eth0", LinkKind::Veth, &["10.1.0.2/32"]), 1, 7)],
        vec![
            route("169.254.1.1/32", None, 2),
            route("0.0.0.0/0", Some("169.254.1.1"), 2),
        ],
    );
    let links = vec![
        on(link(7, "cali1", LinkKind::Veth, &[]), 2, 2),
        link(2, "eth0", LinkKind::Physical, &["198.51.100.5/24"]),
    ];
    let host = netns(
        1,
        "host",
        links,
        vec![route("0.0.0.0/0", Some("198.51.100.1"), 2)],
    );
    let snapshot = machine(vec![host, pod]);
    let path = way(&snapshot, "pod", "203.0.113.9");
    assert_eq!(
        names(&snapshot, &path),
        ["pod/eth0+0", "host/cali1+0", "host/eth0+0"]
    );
    assert_eq!(
        path.ends,
        "leaves this machine by eth0 of host, to 198.51.100.1"
    );
    // The node's end of the pair means the pod.
    let from = Endpoint::Interface("cali1".to_owned());
    let found = path::namespace(&snapshot, &from).map(|netns| netns.name.as_str());
    assert_eq!(found, Ok("pod"));
}

#[test]
fn tunnels_add_up_and_one_without_a_known_peer_is_said_to_be_so() {
    let mut vxlan = link(
        4,
        "flannel.1",
        LinkKind::Vxlan(Vxlan::default()),
        &["10.2.0.0/32"],
    );
    for (station, at) in [("10.2.1.0", "10.9.0.1"), ("10.2.2.0", "10.9.0.2")] {
        vxlan.remotes.push(TunnelRemote {
            mac: String::new(),
            ip: Some(ip(station)),
            at: ip(at),
        });
    }
    let links = vec![
        link(2, "eth0", LinkKind::Physical, &["198.51.100.5/24"]),
        link(3, "wg0", LinkKind::Wireguard, &["10.9.0.5/24"]),
        vxlan,
    ];
    let routes = vec![
        route("0.0.0.0/0", Some("198.51.100.1"), 2),
        route("10.9.0.0/24", None, 3),
        route("10.2.2.0/24", Some("10.2.2.0"), 4),
    ];
    let snapshot = machine(vec![netns(1, "host", links, routes)]);
    let path = way(&snapshot, "host", "10.2.2.7");
    assert_eq!(
        names(&snapshot, &path),
        ["host/flannel.1+0", "host/wg0+50", "host/eth0+110"]
    );
    let via = path.hops.get(1).map(|hop| hop.via.clone());
    assert_eq!(
        via,
        Some(Via::Tunnel("vxlan to 10.9.0.2".to_owned())),
        "the station's own node"
    );
    assert!(
        path.ends
            .contains("wg0 of host (wireguard) sends its packets is not known")
    );
}

#[test]
fn routes_in_a_circle_end() {
    let side = |id, name, other: u64, own: &str, via: &str| {
        let wire = on(link(2, "wire", LinkKind::Veth, &[own]), other, 2);
        netns(id, name, vec![wire], vec![route("0.0.0.0/0", Some(via), 2)])
    };
    let snapshot = machine(vec![
        side(1, "a", 2, "192.0.2.1/24", "192.0.2.2"),
        side(2, "b", 1, "192.0.2.2/24", "192.0.2.1"),
    ]);
    let path = way(&snapshot, "a", "203.0.113.1");
    assert!(path.ends.contains("in a circle"), "{}", path.ends);
}

#[test]
fn the_longest_prefix_then_the_lowest_metric_is_taken_and_none_over_a_link_that_is_down() {
    let mut down = link(4, "down", LinkKind::Physical, &[]);
    down.up = false;
    let links = vec![
        link(2, "far", LinkKind::Physical, &[]),
        link(3, "near", LinkKind::Physical, &[]),
        down,
    ];
    let mut dear = route("10.0.0.0/8", None, 2);
    dear.metric = 100;
    let routes = vec![
        route("0.0.0.0/0", None, 2),
        dear,
        route("10.0.0.0/8", None, 3),
        route("10.1.0.0/16", None, 4),
    ];
    let snapshot = machine(vec![netns(1, "host", links, routes)]);
    assert_eq!(
        names(&snapshot, &way(&snapshot, "host", "10.1.2.3")),
        ["host/near+0"]
    );
    assert_eq!(
        names(&snapshot, &way(&snapshot, "host", "11.1.2.3")),
        ["host/far+0"]
    );
}

#[test]
fn a_program_that_watches_every_interface_is_no_way_through() {
    let mut links: Vec<Link> = (2..8)
        .map(|ifindex| link(ifindex, &format!("nic{ifindex}"), LinkKind::Dummy, &[]))
        .collect();
    if let Some(last) = links.last_mut() {
        last.addresses = vec!["192.0.2.2/24".parse().expect("a network")];
    }
    let mut host = netns(1, "host", links, Vec::new());
    let pod = netns(
        2,
        "pod",
        vec![on(link(2, "eth0", LinkKind::Veth, &["192.0.2.9/24"]), 1, 2)],
        vec![route("192.0.2.0/24", None, 2)],
    );
    let watch = |host: &mut Netns, upto: u32| {
        let sockets = [2, 7]
            .into_iter()
            .chain(3..upto)
            .map(|ifindex| PacketSocket {
                ifindex,
                process: Some(Process {
                    pid: 9,
                    name: "ips".to_owned(),
                }),
                ..PacketSocket::default()
            });
        host.packet_sockets = sockets.collect();
    };
    watch(&mut host, 3);
    let engine = machine(vec![host.clone(), pod.clone()]);
    let path = way(&engine, "pod", "192.0.2.2");
    assert_eq!(
        names(&engine, &path),
        ["pod/eth0+0", "host/nic2+0", "host/nic7+0"]
    );
    assert!(
        matches!(path.hops.last().map(|hop| &hop.via), Some(Via::Engine(process)) if process.pid == 9)
    );
    watch(&mut host, 7);
    let watched = machine(vec![host, pod]);
    let path = way(&watched, "pod", "192.0.2.2");
    assert!(
        !path
            .hops
            .iter()
            .any(|hop| matches!(hop.via, Via::Engine(_))),
        "{path:?}"
    );
}

#[test]
fn containers_are_found_by_the_beginning_of_their_name_if_only_one_has_it() {
    let container = |id, digit: char| {
        let lo = link(1, "lo", LinkKind::Loopback, &[]);
        let mut netns = netns(id, &format!("pid:{id}"), vec![lo], Vec::new());
        netns.aliases = vec![format!("0123456789ab{}", digit.to_string().repeat(52))];
        netns
    };
    let snapshot = machine(vec![container(1, 'c'), container(2, 'd')]);
    let find = |text: &str| {
        let from: Endpoint = text.parse().unwrap_or_else(|e| match e {});
        path::namespace(&snapshot, &from).map(|netns| netns.id.0)
    };
    assert_eq!(find("container:0123456789abd"), Ok(2));
    assert_eq!(find("0123456789abcc"), Ok(1));
    assert!(matches!(
        find("0123456789ab"),
        Err(PathError::Ambiguous { .. })
    ));
    assert!(matches!(find("0123456"), Err(PathError::Unknown(_))));
}
