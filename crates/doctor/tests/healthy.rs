//! Nothing is found on machines that are well.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::*;
use tollgate_doctor::case::{Case, Path};
use tollgate_doctor::catalogue::judge;
use tollgate_doctor::model::*;

fn healthy(name: &str, case: &Case, path: &Path) {
    assert_eq!(judge(case).findings, [], "{name}");
    let mut asked = case.clone();
    asked.path = Some(path.clone());
    asked.earlier = Some(case.now.clone());
    assert_eq!(judge(&asked).findings, [], "{name}, with a path");
}

fn listener(ifindex: u32, name: &str) -> PacketSocket {
    PacketSocket {
        promiscuous: None,
        ..socket(ifindex, name, false)
    }
}

#[test]
fn pod_at_a_bridge() {
    healthy("bridge", &bridged(), &bridge_path());
}

#[test]
fn pod_at_open_vswitch() {
    healthy("Open vSwitch", &switched(), &engine_path_without_engine());
}

fn engine_path_without_engine() -> Path {
    let mut path = engine_path();
    path.hops.drain(2..4);
    path
}

#[test]
fn engine_that_carries_the_header() {
    healthy("engine", &with_engine(true), &engine_path());
}

#[test]
fn vxlan_cluster() {
    let mut case = bridged();
    let mut vxlan = addressed(
        link(
            5,
            "flannel.1",
            LinkKind::Vxlan(Vxlan {
                vni: 1,
                port: 8472,
                ..Vxlan::default()
            }),
        ),
        "10.244.0.0/32",
    );
    vxlan.link = Some(at(HOST, 2));
    vxlan.mtu = 1450;
    host(&mut case).links.push(vxlan);
    host(&mut case).routes.push(route("10.244.1.0/24", 5));
    for (netns, name) in [(HOST, "br0"), (HOST, "veth-pod"), (POD, "eth0")] {
        find_link(&mut case, netns, name).mtu = 1450;
    }
    // kube-proxy's mark survives encapsulation on every kernel; newer ones get the checksum right.
    host(&mut case).filter.nat_of_tunnel = Some("meta mark 0x4000 masquerade".to_owned());
    healthy("VXLAN", &case, &bridge_path());
}

#[test]
fn userspace_open_vswitch_without_engine() {
    let mut case = switched();
    let ovs = case.now.ovs.as_mut().unwrap();
    ovs.bridges[0].datapath_type = "netdev".to_owned();
    // Set up as its manual says: TX offloads of what sends to its ports are off.
    host(&mut case).packet_sockets = vec![listener(5, "ovs-vswitchd")];
    set(&mut case, POD, "eth0", "tx-checksum-ip-generic", false);
    for link in &mut host(&mut case).links {
        if link.kind == LinkKind::OvsInternal {
            link.kind = LinkKind::Tun {
                tap: true,
                vnet_hdr: false,
            };
            // What nobody asked for with TUNSETOFFLOAD is wanted and off.
            for feature in &mut link.features {
                feature.active = !feature.name.starts_with("tx-") && feature.active;
            }
        }
    }
    healthy(
        "userspace Open vSwitch",
        &case,
        &engine_path_without_engine(),
    );
}

#[test]
fn programs_that_only_listen() {
    for (name, interfaces) in [
        ("tcpdump", vec![2]),
        ("tcpdump", vec![2, 4]),
        ("some-capture", vec![4]),
        ("dhclient", vec![2, 3]),
        ("lldpd", vec![2, 3, 4]),
        ("systemd-network", vec![2, 3]),
        ("wpa_supplicant", vec![2, 3]),
    ] {
        let mut case = bridged();
        host(&mut case).packet_sockets = interfaces.iter().map(|i| listener(*i, name)).collect();
        healthy(name, &case, &bridge_path());
    }
}

#[test]
fn unknown_programs_that_see_only_their_own_frames_are_no_engines() {
    let mut case = bridged();
    host(&mut case).packet_sockets = [2, 3]
        .map(|ifindex| PacketSocket {
            promiscuous: Some(false),
            ..socket(ifindex, "my-protocol", false)
        })
        .into();
    healthy("protocol daemon", &case, &bridge_path());
}

/// Read from a real machine: a pair, a bridge, VXLAN, TAP and `lo` as Linux 6.18 makes them.
#[test]
fn recorded_machine() {
    let recorded = include_str!("recorded/healthy-linux-6.18.json");
    let case: Case = serde_json::from_str(recorded).unwrap();
    assert!(case.now.links().count() > 6);
    assert_eq!(judge(&case).findings, []);
}
