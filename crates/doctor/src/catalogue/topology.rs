//! Which programs carry frames between interfaces, and which interfaces feed them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ipnet::IpNet;

use crate::case::{Case, Via};
use crate::model::{Link, LinkKind, LinkRef, Netns, PacketSocket, Process, Snapshot};

/// Programs that open packet sockets on several interfaces only to listen or to speak a protocol of
/// their own, as the kernel cuts their names (15 characters).
const LISTENERS: [&str; 21] = [
    "NetworkManager",
    "arpwatch",
    "avahi-daemon",
    "chronyd",
    "dhclient",
    "dhcpcd",
    "dhcrelay",
    "dnsmasq",
    "dumpcap",
    "hostapd",
    "keepalived",
    "lldpad",
    "lldpd",
    "ptp4l",
    "radvd",
    "systemd-network",
    "tcpdump",
    "tshark",
    "udhcpc",
    "wireshark",
    "wpa_supplicant",
];

/// Open vSwitch's daemon, whose packet sockets have rules of their own.
const OVS_DAEMON: &str = "ovs-vswitchd";

/// A program in user space that takes frames from one interface and puts them out on another.
pub(super) struct Engine<'a> {
    pub(super) process: Process,
    /// The interfaces that it reads and writes.
    pub(super) ports: Vec<LinkRef>,
    pub(super) sockets: Vec<(LinkRef, &'a PacketSocket)>,
    /// It does not get the virtio-net header, so that what says "super-packet" and "checksum to be
    /// filled in" is lost in it.
    pub(super) blind: bool,
    /// What feeds it.
    pub(super) feeds: Vec<Feed>,
    /// What lies behind the other end of a port that is one of a pair, by that other end.
    pub(super) behind: BTreeMap<LinkRef, Vec<Feed>>,
    /// Neighbours whose other end was not read.
    pub(super) unseen: Vec<LinkRef>,
}

/// How an interface can put super-packets or partial checksums on an engine's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The kernel sends through it: what its features promise is left undone for it.
    Sender,
    /// Frames enter by it: GRO and LRO merge them.
    Merger,
}

/// An interface that feeds an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Feed {
    pub(super) at: LinkRef,
    pub(super) role: Role,
}

impl Engine<'_> {
    /// What it is called in sentences.
    pub(super) fn name(&self) -> String {
        format!("{} (process {})", self.process.name, self.process.pid)
    }

    /// The interfaces that it reads and those that feed it.
    pub(super) fn touches(&self) -> Vec<LinkRef> {
        let behind = self.behind.values().flatten();
        let feeds = self.feeds.iter().chain(behind).map(|feed| feed.at);
        self.ports.iter().copied().chain(feeds).collect()
    }

    pub(super) fn is_ovs(&self) -> bool {
        self.process.name == OVS_DAEMON
    }
}

/// Every engine of the machine, with what feeds it.
pub(super) fn engines(case: &Case) -> Vec<Engine<'_>> {
    let mut engines = by_sockets(&case.now);
    for (process, ports) in by_path(case) {
        if !engines
            .iter()
            .any(|engine| engine.process.pid == process.pid)
        {
            let sockets = sockets_of(&case.now, &process, &ports);
            let blind = ports.iter().any(|at| is_headless_tap(&case.now, *at))
                || sockets.iter().any(|(_, socket)| !socket.vnet_hdr);
            engines.push(Engine {
                process,
                ports,
                sockets,
                blind,
                feeds: Vec::new(),
                behind: BTreeMap::new(),
                unseen: Vec::new(),
            });
        }
    }
    for engine in &mut engines {
        fill(case, engine);
    }
    engines
}

/// Packet sockets of processes that were not found out, on two interfaces of one namespace or more.
pub(super) fn nameless(netns: &Netns) -> bool {
    let bound: BTreeSet<u32> = netns
        .packet_sockets
        .iter()
        .filter(|socket| socket.process.is_none() && listens_to_all(socket))
        .map(|socket| socket.ifindex)
        .collect();
    bound.len() > 1
}

fn listens_to_all(socket: &PacketSocket) -> bool {
    socket.ifindex != 0 && socket.promiscuous != Some(false)
}

fn by_sockets(now: &Snapshot) -> Vec<Engine<'_>> {
    let mut found: BTreeMap<&Process, Vec<(LinkRef, &PacketSocket)>> = BTreeMap::new();
    for netns in &now.namespaces {
        for socket in netns.packet_sockets.iter().filter(|s| listens_to_all(s)) {
            let Some(process) = &socket.process else {
                continue;
            };
            if LISTENERS.contains(&process.name.as_str()) {
                continue;
            }
            let at = LinkRef {
                netns: netns.id,
                ifindex: socket.ifindex,
            };
            found.entry(process).or_default().push((at, socket));
        }
    }
    found
        .into_iter()
        .filter_map(|(process, sockets)| {
            let ports: BTreeSet<LinkRef> = sockets.iter().map(|(at, _)| *at).collect();
            // One interface only: whatever reads it cannot be on the way of a packet, except Open
            // vSwitch, whose other ports may be of a kind without packet sockets.
            if ports.len() < 2 && process.name != OVS_DAEMON {
                return None;
            }
            Some(Engine {
                process: process.clone(),
                ports: ports.into_iter().collect(),
                blind: sockets.iter().any(|(_, socket)| !socket.vnet_hdr),
                sockets,
                feeds: Vec::new(),
                behind: BTreeMap::new(),
                unseen: Vec::new(),
            })
        })
        .collect()
}

/// Engines that the path goes through, with the interfaces before and after them.
fn by_path(case: &Case) -> Vec<(Process, Vec<LinkRef>)> {
    let hops = case.path.as_ref().map_or(&[][..], |path| &path.hops);
    hops.windows(2)
        .filter_map(|pair| match pair {
            [before, after] => match &after.via {
                Via::Engine(process) => Some((process.clone(), vec![before.at, after.at])),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// Packet sockets of a process on some interfaces. One that carries frames between the two halves of a
/// path need not ask for promiscuous mode: pairs deliver everything.
fn sockets_of<'a>(
    now: &'a Snapshot,
    process: &Process,
    ports: &[LinkRef],
) -> Vec<(LinkRef, &'a PacketSocket)> {
    let mut found = Vec::new();
    for at in ports {
        let netns = now.netns(at.netns);
        let sockets = netns.into_iter().flat_map(|netns| &netns.packet_sockets);
        found.extend(
            sockets
                .filter(|socket| socket.ifindex == at.ifindex)
                .filter(|socket| socket.process.as_ref() == Some(process))
                .map(|socket| (*at, socket)),
        );
    }
    found
}

fn is_headless_tap(now: &Snapshot, at: LinkRef) -> bool {
    now.link(at).is_some_and(|link| {
        matches!(
            link.kind,
            LinkKind::Tun {
                vnet_hdr: false,
                ..
            }
        )
    })
}

fn fill(case: &Case, engine: &mut Engine<'_>) {
    let mut feeds = BTreeSet::new();
    let mut unseen = BTreeSet::new();
    for port in &engine.ports {
        let Some(link) = case.now.link(*port) else {
            continue;
        };
        match &link.kind {
            // Whatever reaches the port leaves through the other end, and the kernel finishes there
            // what that end does not promise to do: nothing beyond needs to be touched.
            LinkKind::Veth => {
                feeds.insert(merger(*port));
                let Some(peer) = link.link.filter(|peer| case.now.link(*peer).is_some()) else {
                    unseen.insert(*port);
                    continue;
                };
                feeds.insert(sender(peer));
                let mut behind = BTreeSet::new();
                let ports: BTreeSet<LinkRef> = engine.ports.iter().copied().chain([peer]).collect();
                walk(case, peer, &ports, &mut behind, &mut BTreeSet::new());
                engine.behind.insert(peer, behind.into_iter().collect());
            }
            LinkKind::Physical => {
                feeds.insert(merger(*port));
            }
            // Its features are those that the reader asked for (TUNSETOFFLOAD).
            LinkKind::Tun { .. } => {
                feeds.insert(sender(*port));
            }
            _ => {
                let ports = engine.ports.iter().copied().collect();
                walk(case, *port, &ports, &mut feeds, &mut unseen);
            }
        }
    }
    engine.feeds = feeds.into_iter().collect();
    engine.unseen = unseen.into_iter().collect();
}

fn sender(at: LinkRef) -> Feed {
    Feed {
        at,
        role: Role::Sender,
    }
}

fn merger(at: LinkRef) -> Feed {
    Feed {
        at,
        role: Role::Merger,
    }
}

/// Goes from a port through bridges, switches and pairs, and along the path as far as it is not
/// routed, and notes who sends there and where frames enter.
fn walk(
    case: &Case,
    port: LinkRef,
    ports: &BTreeSet<LinkRef>,
    feeds: &mut BTreeSet<Feed>,
    unseen: &mut BTreeSet<LinkRef>,
) {
    let mut seen = BTreeSet::from([port]);
    let mut queue = VecDeque::from([port]);
    while let Some(at) = queue.pop_front() {
        let (Some(netns), Some(link)) = (case.now.netns(at.netns), case.now.link(at)) else {
            continue;
        };
        if !ports.contains(&at) {
            note(case, at, link, feeds, unseen);
        }
        let mut next = neighbours(&case.now, netns, link);
        next.extend(path_neighbours(case, at));
        queue.extend(next.into_iter().filter(|at| seen.insert(*at)));
    }
}

fn note(
    case: &Case,
    at: LinkRef,
    link: &Link,
    feeds: &mut BTreeSet<Feed>,
    unseen: &mut BTreeSet<LinkRef>,
) {
    if ends_here(link) {
        feeds.insert(sender(at));
    }
    match &link.kind {
        LinkKind::Physical => {
            feeds.insert(merger(at));
        }
        LinkKind::Vxlan(_) | LinkKind::Tunnel(_) => {
            feeds.insert(merger(at));
            // GRO of the card merges what is inside the tunnel too.
            if let Some(lower) = link.link.filter(|lower| is_physical(&case.now, *lower)) {
                feeds.insert(merger(lower));
            }
        }
        LinkKind::Veth => {
            feeds.insert(merger(at));
            if link.link.is_none_or(|peer| case.now.link(peer).is_none()) {
                unseen.insert(at);
            }
        }
        _ => {}
    }
}

fn is_physical(now: &Snapshot, at: LinkRef) -> bool {
    now.link(at)
        .is_some_and(|link| link.kind == LinkKind::Physical)
}

/// A host's own stack sends through it: it has an address beyond those that every interface gets.
pub(super) fn ends_here(link: &Link) -> bool {
    link.kind != LinkKind::Loopback && link.addresses.iter().any(|address| !is_link_local(address))
}

/// `fe80::/10`.
fn is_link_local(address: &IpNet) -> bool {
    match address {
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    }
}

/// Where frames go from an interface without being routed.
fn neighbours(now: &Snapshot, netns: &Netns, link: &Link) -> Vec<LinkRef> {
    let mut next = Vec::new();
    if link.kind == LinkKind::Bridge {
        next.extend(netns.ports_of(link.ifindex).map(|port| netns.at(port)));
    }
    let master = link.master.and_then(|master| netns.link(master));
    next.extend(
        master
            .filter(|master| master.kind == LinkKind::Bridge)
            .map(|bridge| netns.at(bridge)),
    );
    if matches!(link.kind, LinkKind::Veth | LinkKind::Vlan { .. }) {
        next.extend(link.link);
    }
    next.extend(ovs_neighbours(now, netns, link));
    next
}

/// The other ports of the switch that the interface is a port of.
fn ovs_neighbours(now: &Snapshot, netns: &Netns, link: &Link) -> Vec<LinkRef> {
    let Some(ovs) = &now.ovs else {
        return datapath_neighbours(netns, link);
    };
    // Every bridge has an interface of its own name in the namespace that Open vSwitch runs in.
    let bridge = ovs.bridges.iter().find(|bridge| {
        bridge.ports.iter().any(|port| port.name == link.name)
            && netns.link_named(&bridge.name).is_some()
    });
    bridge
        .iter()
        .flat_map(|bridge| &bridge.ports)
        .filter_map(|port| netns.link_named(&port.name))
        .map(|link| netns.at(link))
        .collect()
}

/// Without Open vSwitch's database: every port of its kernel datapath, which all bridges share.
fn datapath_neighbours(netns: &Netns, link: &Link) -> Vec<LinkRef> {
    let is_port = |link: &Link| {
        let master = link.master.and_then(|master| netns.link(master));
        link.kind == LinkKind::OvsInternal
            || master.is_some_and(|master| master.kind == LinkKind::OvsDatapath)
    };
    if !is_port(link) {
        return Vec::new();
    }
    netns
        .links
        .iter()
        .filter(|link| is_port(link))
        .map(|link| netns.at(link))
        .collect()
}

/// The hops before and after an interface, as far as nothing is routed between them.
fn path_neighbours(case: &Case, at: LinkRef) -> Vec<LinkRef> {
    let hops = case.path.as_ref().map_or(&[][..], |path| &path.hops);
    let mut next = Vec::new();
    for pair in hops.windows(2) {
        let [before, after] = pair else { continue };
        if matches!(
            after.via,
            Via::Route(_) | Via::Tunnel(_) | Via::Start | Via::Lower
        ) {
            continue;
        }
        if before.at == at {
            next.push(after.at);
        }
        if after.at == at {
            next.push(before.at);
        }
    }
    next
}
