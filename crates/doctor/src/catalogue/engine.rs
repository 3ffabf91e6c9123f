//! TG10xx: programs in user space on the way of a packet.

use crate::action::Action;
use crate::case::Via;
use crate::finding::Evidence;
use crate::model::{Link, LinkKind, LinkRef};

use super::topology::{self, Engine, Feed, Role};
use super::view::{Fault, MERGING, Report, TSO, TX_CHECKSUMS, View, command, namespaces, place};

/// What a packet ring puts before a frame's data: a TPACKET_V1 or V2 header with `sockaddr_ll` (52
/// bytes), aligned so that the network header lies on 16 (net/packet/af_packet.c, `tpacket_rcv`).
const RING_OVERHEAD: u32 = 66;
/// An Ethernet header.
const ETHERNET: u32 = 14;
/// An engine has two ports that belong together.
const PAIR: usize = 2;

/// What GRO does to datagrams beyond TCP.
const UDP_MERGING: [&str; 2] = ["rx-udp-gro-forwarding", "rx-gro-list"];

/// TG1001.
pub(super) fn super_packets(view: &View<'_>, report: &mut Report) {
    for engine in blind(view).filter(|engine| !engine.is_ovs()) {
        let culprits = culprits(view, engine, makes_super_packets);
        if culprits.is_empty() {
            continue;
        }
        report.faults.push(blind_fault(view, engine, &culprits, |names| {
            format!(
                "{} carries frames between {} without the virtio-net header, and gets super-packets \
                 from {names}: they exceed the MTU when they are sent on, and are lost.",
                engine.name(),
                view.names(&engine.ports),
            )
        }));
    }
    tell_what_is_unseen(view, report);
}

/// TG1002.
pub(super) fn partial_checksums(view: &View<'_>, report: &mut Report) {
    for engine in blind(view).filter(|engine| !engine.is_ovs()) {
        let culprits = culprits(view, engine, leaves_checksums);
        if culprits.is_empty() {
            continue;
        }
        report.faults.push(blind_fault(view, engine, &culprits, |names| {
            format!(
                "{} carries frames between {} without the virtio-net header, and gets packets from \
                 {names} whose checksums are to be filled in later: nobody does, and the receiver \
                 drops them.",
                engine.name(),
                view.names(&engine.ports),
            )
        }));
    }
}

/// TG1404: the same in Open vSwitch's own userspace datapath.
pub(super) fn ovs_without_metadata(view: &View<'_>, report: &mut Report) {
    for engine in blind(view).filter(|engine| engine.is_ovs()) {
        let mut culprits = culprits(view, engine, leaves_checksums);
        culprits.extend(self::culprits(view, engine, makes_super_packets));
        culprits.sort();
        culprits.dedup();
        if culprits.is_empty() {
            continue;
        }
        let mut fault = blind_fault(view, engine, &culprits, |names| {
            format!(
                "Open vSwitch's userspace datapath reads {} without the virtio-net header, and gets \
                 packets from {names} whose checksums and segmentation are left to the device: they \
                 are lost.",
                view.names(&engine.ports),
            )
        });
        fault.fix = "Let Open vSwitch carry the offload metadata (ovs-vsctl set Open_vSwitch . \
                     other_config:userspace-tso-enable=true, then restart it), or switch the \
                     offloads off where its ports are fed, as the repair does."
            .to_owned();
        report.faults.push(fault);
    }
}

/// TG1003.
pub(super) fn needless_workaround(view: &View<'_>, report: &mut Report) {
    let unsure: Vec<String> = blind(view)
        .filter(|e| is_unsure(e))
        .map(Engine::name)
        .collect();
    for (netns, link) in view.links() {
        let at = netns.at(link);
        let off = switched_off(link);
        let needed = blind(view).any(|engine| needs_off(view, engine, at));
        let asked = view.concerns(at) && !view.is_remote(at);
        if off.is_empty() || needed || declared_off(view, at) || !asked {
            continue;
        }
        if let Some(engine) = unsure.first() {
            report.untold.push(format!(
                "whether TX checksum offload of {} has to be off: what feeds {engine} was not found",
                view.name(at)
            ));
            continue;
        }
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "TX checksum offload of {} is off, and segmentation offload with it, though \
                 nothing on this machine needs that: every packet is summed and cut in software.",
                view.name(at)
            ),
            evidence: off
                .iter()
                .map(|name| view.shows_feature(at, name))
                .collect(),
            fix:
                "Switch it on again; the kernel then takes segmentation offload back by itself. If \
                  it is off because of a faulty driver, declare it off and this is not reported."
                    .to_owned(),
            actions: off
                .iter()
                .filter_map(|name| view.switch(at, name, true))
                .collect(),
            ..Fault::default()
        });
    }
}

/// TG1004.
pub(super) fn virtio_under_raw_reader(view: &View<'_>, report: &mut Report) {
    for engine in blind(view).filter(|engine| !engine.is_ovs()) {
        for at in &engine.ports {
            let Some(link) = view.case.now.link(*at) else {
                continue;
            };
            if link.driver != "virtio_net" || !link.has("rx-checksum") {
                continue;
            }
            report.faults.push(Fault {
                at: Some(*at),
                sentence: format!(
                    "{} reads {}, a virtio card: packets from other guests of the same hypervisor \
                     arrive there with checksums not filled in, and leave the engine like that.",
                    engine.name(),
                    view.name(*at)
                ),
                evidence: vec![view.shows_feature(*at, "rx-checksum")],
                fix: "Switch checksum offload off in the hypervisor's definition of the card \
                      (libvirt: <driver><host csum='off'/><guest csum='off'/></driver>), or use an \
                      engine that gets the virtio-net header."
                    .to_owned(),
                ..Fault::default()
            });
        }
    }
}

/// TG1005.
pub(super) fn ring_too_small(view: &View<'_>, report: &mut Report) {
    for engine in view.engines.iter().filter(|engine| !engine.is_ovs()) {
        for (at, socket) in &engine.sockets {
            let (Some(netns), Some(link)) =
                (view.case.now.netns(at.netns), view.case.now.link(*at))
            else {
                continue;
            };
            let needed = link.mtu.saturating_add(ETHERNET + RING_OVERHEAD);
            if socket.ring_frame == 0 || socket.ring_frame >= needed {
                continue;
            }
            report.faults.push(Fault {
                at: Some(*at),
                sentence: format!(
                    "The receive ring of {} on {} holds frames of {} bytes at most: a frame of the \
                     full MTU is cut off.",
                    engine.name(),
                    view.name(*at),
                    socket.ring_frame.saturating_sub(RING_OVERHEAD)
                ),
                evidence: vec![
                    Evidence::new(
                        command(netns, "ss -0 -a -e -p"),
                        format!("ring frame {} bytes, {needed} needed", socket.ring_frame),
                    ),
                    view.shows_mtu(*at),
                ],
                fix: format!(
                    "Set the ring's frame size in the engine's configuration to {needed} bytes or \
                     more (Suricata: af-packet, block-size and default-packet-size), and restart it."
                ),
                ..Fault::default()
            });
        }
    }
}

/// TG1006.
pub(super) fn asymmetric_hash(view: &View<'_>, report: &mut Report) {
    for engine in view.engines.iter().filter(|engine| !engine.is_ovs()) {
        for at in &engine.ports {
            let (Some(netns), Some(link)) =
                (view.case.now.netns(at.netns), view.case.now.link(*at))
            else {
                continue;
            };
            if link.queues.rx < 2
                || link.queues.symmetric_hash != Some(false)
                || !many_readers(engine, *at)
            {
                continue;
            }
            report.faults.push(Fault {
                at: Some(*at),
                sentence: format!(
                    "{} reads {} with several threads, and the card's hash sends the two directions \
                     of a flow to different ones: each sees half a connection.",
                    engine.name(),
                    view.name(*at)
                ),
                evidence: vec![
                    Evidence::new(
                        command(netns, &format!("ethtool -x {}", link.name)),
                        "hash key not symmetric",
                    ),
                    Evidence::new(
                        command(netns, &format!("ethtool -l {}", link.name)),
                        format!("{} receive queues", link.queues.rx),
                    ),
                ],
                fix: format!(
                    "Set a symmetric key: ethtool -X {} hkey 6d:5a repeated to the key's length (or \
                     'xfrm symmetric-xor' where the card has it); or let the engine spread flows by \
                     its own hash (PACKET_FANOUT_HASH).",
                    link.name
                ),
                ..Fault::default()
            });
        }
    }
}

/// TG1008.
pub(super) fn udp_merging(view: &View<'_>, report: &mut Report) {
    for engine in blind(view) {
        let behind = engine.behind.values().flatten();
        for feed in engine.feeds.iter().chain(behind) {
            let Some(link) = view.case.now.link(feed.at) else {
                continue;
            };
            if feed.role != Role::Merger || !link.has("rx-gro") || !is_near(view, engine, feed.at) {
                continue;
            }
            let on: Vec<&str> = UDP_MERGING
                .into_iter()
                .filter(|name| link.has(name))
                .collect();
            if on.is_empty() {
                continue;
            }
            report.faults.push(Fault {
                at: Some(feed.at),
                touches: engine.touches(),
                sentence: format!(
                    "{} merges UDP datagrams that it forwards, and {} does not get told where one \
                     ends: QUIC and other datagrams are glued together.",
                    view.name(feed.at),
                    engine.name()
                ),
                evidence: on
                    .iter()
                    .map(|name| view.shows_feature(feed.at, name))
                    .collect(),
                fix: "Switch off that one feature; GRO for TCP does not depend on it.".to_owned(),
                actions: view.switch_off(feed.at, &on),
                ..Fault::default()
            });
        }
    }
}

/// TG1009.
pub(super) fn tap_without_header(view: &View<'_>, report: &mut Report) {
    let hops = view.path().map_or(&[][..], |path| &path.hops);
    for pair in hops.windows(2) {
        let [before, after] = pair else { continue };
        let Via::Engine(process) = &after.via else {
            continue;
        };
        for at in [before.at, after.at] {
            let Some(link) = view.case.now.link(at) else {
                continue;
            };
            let headless = matches!(
                link.kind,
                LinkKind::Tun {
                    vnet_hdr: false,
                    ..
                }
            );
            if !headless || link.tx_checksums() {
                continue;
            }
            report.faults.push(Fault {
                at: Some(at),
                sentence: format!(
                    "{} reads {} without the virtio-net header: the kernel cuts and sums every \
                     super-packet for it. Nothing is lost, but the path is slower than need be.",
                    process.name,
                    view.name(at)
                ),
                evidence: vec![view.shows_feature(at, "tx-checksum-ip-generic")],
                fix: "Open the TAP with IFF_VNET_HDR and TUNSETOFFLOAD, if the engine can."
                    .to_owned(),
                ..Fault::default()
            });
        }
    }
}

fn blind<'v, 'a>(view: &'v View<'a>) -> impl Iterator<Item = &'v Engine<'a>> {
    view.engines.iter().filter(|engine| engine.blind)
}

/// One fault over an engine, with the offloads to switch off where packets come from.
fn blind_fault(
    view: &View<'_>,
    engine: &Engine<'_>,
    culprits: &[(LinkRef, Vec<&'static str>)],
    sentence: impl Fn(&str) -> String,
) -> Fault {
    let links: Vec<LinkRef> = culprits.iter().map(|(at, _)| *at).collect();
    let mut evidence = vec![socket_evidence(view, engine)];
    let mut actions = Vec::new();
    for (at, features) in culprits {
        evidence.extend(features.iter().map(|name| view.shows_feature(*at, name)));
        actions.extend(view.switch_off(*at, features));
    }
    Fault {
        at: links.first().copied(),
        touches: engine.touches(),
        sentence: sentence(&view.names(&links)),
        evidence,
        fix: "Use an engine that carries the virtio-net header (PACKET_VNET_HDR on its sockets, \
              IFF_VNET_HDR on its TAPs). Where this one has to stay: switch TX checksum offload off \
              on what sends to it, and GRO off where frames enter, and nowhere else."
            .to_owned(),
        actions,
        ..Fault::default()
    }
}

fn socket_evidence(view: &View<'_>, engine: &Engine<'_>) -> Evidence {
    let netns = engine
        .ports
        .first()
        .and_then(|at| view.case.now.netns(at.netns));
    match netns {
        Some(netns) if !engine.sockets.is_empty() => Evidence::new(
            command(netns, "ss -0 -a -e -p"),
            format!(
                "{} packet sockets of {} on {}, without PACKET_VNET_HDR",
                engine.sockets.len(),
                engine.name(),
                view.names(&engine.ports)
            ),
        ),
        Some(netns) => Evidence::new(
            command(netns, "ip -d tuntap show"),
            format!("{} reads TAPs without vnet_hdr", engine.name()),
        ),
        None => Evidence::new("ss -0 -a -e -p", engine.name()),
    }
}

/// What feeds the engine in a way that it cannot cope with, with the features to switch off.
fn culprits(
    view: &View<'_>,
    engine: &Engine<'_>,
    features: fn(&Link, Role) -> Vec<&'static str>,
) -> Vec<(LinkRef, Vec<&'static str>)> {
    let active = |feed: &Feed| {
        view.case
            .now
            .link(feed.at)
            .map(|link| features(link, feed.role))
            .filter(|features| !features.is_empty())
    };
    engine
        .feeds
        .iter()
        .filter(|feed| is_near(view, engine, feed.at))
        .filter(|feed| match engine.behind.get(&feed.at) {
            // The workaround sits further back: on every sender behind the other end.
            Some(behind) => {
                !behind.iter().any(|b| b.role == Role::Sender)
                    || behind.iter().any(|b| active(b).is_some())
            }
            None => true,
        })
        .filter_map(|feed| Some((feed.at, active(feed)?)))
        .collect()
}

/// On the path that was asked about, or right at the engine's ports.
fn is_near(view: &View<'_>, engine: &Engine<'_>, at: LinkRef) -> bool {
    view.concerns(at) || engine.ports.contains(&at) || engine.behind.contains_key(&at)
}

/// The features to switch off so that no super-packet comes from it.
fn makes_super_packets(link: &Link, role: Role) -> Vec<&'static str> {
    let on = |names: &[&'static str]| -> Vec<&'static str> {
        names
            .iter()
            .copied()
            .filter(|name| link.has(name))
            .collect()
    };
    match role {
        Role::Merger => on(&MERGING),
        Role::Sender if on(&TSO).is_empty() => Vec::new(),
        // Segmentation offload goes with it.
        Role::Sender if link.tx_checksums() => on(&TX_CHECKSUMS),
        Role::Sender => on(&TSO),
    }
}

/// The features to switch off so that no partial checksum comes from it.
fn leaves_checksums(link: &Link, role: Role) -> Vec<&'static str> {
    match role {
        Role::Merger => Vec::new(),
        Role::Sender => TX_CHECKSUMS
            .into_iter()
            .filter(|name| link.has(name))
            .collect(),
    }
}

/// Checksum offloads that somebody switched off, if all of them are.
fn switched_off(link: &Link) -> Vec<&'static str> {
    let known = matches!(
        link.kind,
        LinkKind::Physical | LinkKind::Veth | LinkKind::OvsInternal | LinkKind::Bridge
    );
    if !known || link.tx_checksums() {
        return Vec::new();
    }
    TX_CHECKSUMS
        .into_iter()
        .filter(|name| link.feature(name).is_some_and(|f| !f.fixed && !f.wanted))
        .collect()
}

/// This engine is the reason for the interface's checksum offload to be off.
fn needs_off(view: &View<'_>, engine: &Engine<'_>, at: LinkRef) -> bool {
    let sends = |feeds: &[Feed]| feeds.iter().any(|f| f.at == at && f.role == Role::Sender);
    engine.ports.contains(&at)
        || sends(&engine.feeds)
        || engine.behind.iter().any(|(peer, behind)| {
            sends(behind) && view.case.now.link(*peer).is_some_and(Link::tx_checksums)
        })
}

fn is_unsure(engine: &Engine<'_>) -> bool {
    engine.feeds.is_empty() || !engine.unseen.is_empty()
}

fn declared_off(view: &View<'_>, at: LinkRef) -> bool {
    super::offload::declared_for(view, at)
        .iter()
        .any(|declared| TX_CHECKSUMS.contains(&declared.feature.as_str()) && !declared.on)
}

fn many_readers(engine: &Engine<'_>, at: LinkRef) -> bool {
    let mut sockets = engine.sockets.iter().filter(|(on, _)| *on == at);
    sockets.clone().any(|(_, socket)| socket.fanout) || sockets.nth(1).is_some()
}

/// Engines whose surroundings could not be read, and sockets of unknown programs.
fn tell_what_is_unseen(view: &View<'_>, report: &mut Report) {
    let near = |engine: &&Engine<'_>| engine.touches().iter().any(|at| view.concerns(*at));
    for engine in blind(view).filter(near) {
        for at in &engine.unseen {
            report.untold.push(format!(
                "what comes to {} from beyond {}: its other end was not read",
                engine.name(),
                view.name(*at)
            ));
        }
        if engine.feeds.is_empty() {
            report.untold.push(format!(
                "what feeds {} over {}: no sender was found behind it; name a path (FROM and TO) that \
                 goes through it",
                engine.name(),
                view.names(&engine.ports)
            ));
        }
    }
    for netns in namespaces(view).filter(|netns| topology::nameless(netns)) {
        report.untold.push(format!(
            "whether packet sockets in {} belong to an inline engine: their process was not found",
            place(netns)
        ));
    }
}

/// TG1007.
pub(super) fn unequal_ports(view: &View<'_>, report: &mut Report) {
    for engine in view
        .engines
        .iter()
        .filter(|e| !e.is_ovs() && e.ports.len() == PAIR)
    {
        let mut ports: Vec<(&Link, LinkRef)> = engine
            .ports
            .iter()
            .filter_map(|at| Some((view.case.now.link(*at)?, *at)))
            .collect();
        ports.sort_by_key(|(link, _)| link.mtu);
        let [(small, small_at), (large, large_at)] = ports.as_slice() else {
            continue;
        };
        if small.mtu == large.mtu {
            continue;
        }
        let (at, actions) = match (is_movable(view, small), is_movable(view, large)) {
            (true, _) => (*small_at, port_mtu(view, *small_at, large.mtu)),
            (false, true) => (*large_at, port_mtu(view, *large_at, small.mtu)),
            (false, false) => (*small_at, Vec::new()),
        };
        report.faults.push(Fault {
            at: Some(at),
            touches: engine.touches(),
            sentence: format!(
                "{} carries frames between {} with MTU {} and {} with MTU {}: what fits the one \
                 does not fit the other, and is lost.",
                engine.name(),
                view.name(*small_at),
                small.mtu,
                view.name(*large_at),
                large.mtu
            ),
            evidence: vec![view.shows_mtu(*small_at), view.shows_mtu(*large_at)],
            fix:
                "Give both ports the same MTU, explicitly: ports of Open vSwitch with mtu_request, \
                  or it sets them to the smallest of the bridge again."
                    .to_owned(),
            actions,
            ..Fault::default()
        });
    }
}

/// A card's MTU is the network's, and an endpoint's is its owner's; anything between can be changed.
fn is_movable(view: &View<'_>, link: &Link) -> bool {
    let endpoint = link
        .link
        .filter(|_| link.kind == LinkKind::Veth)
        .and_then(|peer| view.case.now.link(peer))
        .is_some_and(topology::ends_here);
    link.kind != LinkKind::Physical && !endpoint && !topology::ends_here(link)
}

/// Sets a port's MTU, through Open vSwitch if the port is its own.
fn port_mtu(view: &View<'_>, at: LinkRef, mtu: u32) -> Vec<Action> {
    let Some(link) = view.case.now.link(at) else {
        return Vec::new();
    };
    let bridges = view.case.now.ovs.iter().flat_map(|ovs| &ovs.bridges);
    let requested = bridges
        .flat_map(|bridge| &bridge.ports)
        .any(|port| port.name == link.name);
    if link.kind == LinkKind::OvsInternal && requested {
        return vec![Action::Ovs {
            table: "Interface".to_owned(),
            record: link.name.clone(),
            column: "mtu_request".to_owned(),
            value: mtu.to_string(),
        }];
    }
    // Both ends of a pair: the one would refuse what the other sends.
    let peer = link.link.filter(|_| link.kind == LinkKind::Veth);
    [Some(at), peer]
        .into_iter()
        .flatten()
        .filter_map(|at| view.set_mtu(at, mtu))
        .collect()
}
