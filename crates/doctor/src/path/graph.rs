//! Which interfaces a frame gets to without being routed: pairs, bridges, switches, VLANs, and
//! programs that read one interface and write another.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use crate::case::Via;
use crate::model::{Link, LinkKind, LinkRef, Ovs, Process, Snapshot};

/// A program with packet sockets on more interfaces than these watches them (LLDP, DHCP) and does not
/// forward between them.
const MAX_ENGINE_PORTS: usize = 4;

/// What an edge does to the VLAN tags of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Keep,
    Push(u16),
    Pop(u16),
}

#[derive(Clone, Debug)]
struct Edge {
    to: LinkRef,
    via: Via,
    tag: Tag,
}

/// The interfaces of a machine and what is between them.
pub struct Graph<'a> {
    links: HashMap<LinkRef, &'a Link>,
    edges: HashMap<LinkRef, Vec<Edge>>,
    /// Interfaces that one switch joins, and how: every one reaches every other one.
    groups: Vec<(Vec<LinkRef>, Via)>,
    group_of: HashMap<LinkRef, usize>,
    /// Interfaces that one program has packet sockets on.
    engines: HashMap<LinkRef, Vec<(LinkRef, Process)>>,
    /// Outer destinations of Open vSwitch's tunnels.
    pub tunnel_remotes: HashMap<LinkRef, IpAddr>,
}

/// An interface that a search came to.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The interface.
    pub at: LinkRef,
    /// How.
    pub via: Via,
    /// Tags that the frame carries there, outermost last.
    pub tags: Vec<u16>,
    /// Position, in the search's order, of the one before.
    before: Option<usize>,
}

/// All that a search came to, nearest first.
pub struct Search(Vec<Reached>);

impl Search {
    /// The first that fits.
    pub fn position(&self, fits: impl Fn(&Reached) -> bool) -> Option<usize> {
        self.0.iter().position(fits)
    }

    /// Positions of all that fit.
    pub fn positions(&self, fits: impl Fn(&Reached) -> bool) -> Vec<usize> {
        let all = self.0.iter().enumerate();
        all.filter(|(_, reached)| fits(reached))
            .map(|(position, _)| position)
            .collect()
    }

    /// The chain to one of them, without the interface that the search began at.
    pub fn chain(&self, position: usize) -> Vec<&Reached> {
        let mut chain = Vec::new();
        let mut next = self.0.get(position);
        while let Some(reached) = next {
            let before = reached.before;
            if before.is_some() {
                chain.push(reached);
            }
            next = before.and_then(|position| self.0.get(position));
        }
        chain.reverse();
        chain
    }
}

impl<'a> Graph<'a> {
    /// Of a snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut graph = Self {
            links: HashMap::new(),
            edges: HashMap::new(),
            groups: Vec::new(),
            group_of: HashMap::new(),
            engines: HashMap::new(),
            tunnel_remotes: HashMap::new(),
        };
        for (netns, link) in snapshot.links() {
            graph.links.insert(netns.at(link), link);
        }
        for (netns, link) in snapshot.links() {
            graph.stacked(netns.at(link), link);
        }
        graph.masters(snapshot);
        graph.switch(snapshot);
        graph.programs(snapshot);
        graph
    }

    /// An interface.
    pub fn link(&self, at: LinkRef) -> Option<&'a Link> {
        self.links.get(&at).copied()
    }

    fn edge(&mut self, from: LinkRef, to: LinkRef, via: Via, tag: Tag) {
        self.edges
            .entry(from)
            .or_default()
            .push(Edge { to, via, tag });
    }

    /// Pairs, and devices that lie on others.
    fn stacked(&mut self, at: LinkRef, link: &Link) {
        let Some(other) = link.link.filter(|other| self.links.contains_key(other)) else {
            return;
        };
        match &link.kind {
            // The other end has its own.
            LinkKind::Veth => self.edge(at, other, Via::Pair, Tag::Keep),
            LinkKind::Vlan { id } => {
                self.edge(at, other, Via::Lower, Tag::Push(*id));
                self.edge(other, at, Via::Lower, Tag::Pop(*id));
            }
            LinkKind::Other(kind)
                if matches!(
                    kind.as_str(),
                    "macvlan" | "ipvlan" | "macvtap" | "ipvtap" | "macsec"
                ) =>
            {
                self.edge(at, other, Via::Lower, Tag::Keep);
                self.edge(other, at, Via::Lower, Tag::Keep);
            }
            LinkKind::Other(kind) if kind == "netkit" => self.edge(at, other, Via::Pair, Tag::Keep),
            _ => {}
        }
    }

    /// Ports of bridges and bonds.
    fn masters(&mut self, snapshot: &Snapshot) {
        let mut bridges: BTreeMap<LinkRef, Vec<LinkRef>> = BTreeMap::new();
        for (netns, link) in snapshot.links() {
            let Some(ifindex) = link.master else {
                continue;
            };
            let port = netns.at(link);
            let master = LinkRef {
                netns: netns.id,
                ifindex,
            };
            match self.link(master).map(|master| &master.kind) {
                Some(LinkKind::Bridge) => bridges.entry(master).or_default().push(port),
                Some(LinkKind::Other(kind)) if matches!(kind.as_str(), "bond" | "team") => {}
                _ => continue,
            }
            self.edge(port, master, Via::Master, Tag::Keep);
            self.edge(master, port, Via::Master, Tag::Keep);
        }
        for ports in bridges.into_values() {
            self.group(ports, Via::Bridge);
        }
    }

    fn group(&mut self, members: Vec<LinkRef>, via: Via) {
        let number = self.groups.len();
        for member in &members {
            self.group_of.insert(*member, number);
        }
        self.groups.push((members, via));
    }

    /// Open vSwitch: by its database, or without it the ports of each datapath.
    fn switch(&mut self, snapshot: &Snapshot) {
        if let Some(ovs) = &snapshot.ovs {
            self.switch_by_database(ovs, snapshot);
            return;
        }
        for (netns, datapath) in snapshot.links() {
            if datapath.kind == LinkKind::OvsDatapath {
                let ports = netns.ports_of(datapath.ifindex);
                let mut ports: Vec<LinkRef> = ports.map(|port| netns.at(port)).collect();
                let internal = netns
                    .links
                    .iter()
                    .filter(|l| l.kind == LinkKind::OvsInternal);
                ports.extend(internal.map(|port| netns.at(port)));
                self.group(ports, Via::Ovs);
            }
        }
    }

    fn switch_by_database(&mut self, ovs: &Ovs, snapshot: &Snapshot) {
        for bridges in joined(ovs) {
            let mut members = Vec::new();
            let ports = bridges.iter().filter_map(|&bridge| ovs.bridges.get(bridge));
            for port in ports.flat_map(|bridge| &bridge.ports) {
                let remote = port.options.get("remote_ip");
                let is_it = |link: &Link| match remote {
                    Some(_) => is_tunnel_of(link, &port.kind),
                    None => link.name == port.name,
                };
                // Internal ports may have been moved into the namespaces of pods. The machine's own
                // namespace is the first.
                let found = snapshot.links().find(|(_, link)| is_it(link));
                let Some((netns, link)) = found else {
                    continue;
                };
                let at = netns.at(link);
                if let Some(remote) = remote.and_then(|remote| remote.parse().ok()) {
                    self.tunnel_remotes.entry(at).or_insert(remote);
                }
                members.push(at);
            }
            self.group(members, Via::Ovs);
        }
    }

    /// Programs with packet sockets on several interfaces.
    fn programs(&mut self, snapshot: &Snapshot) {
        let mut ports: BTreeMap<&Process, BTreeSet<LinkRef>> = BTreeMap::new();
        for netns in &snapshot.namespaces {
            for socket in netns
                .packet_sockets
                .iter()
                .filter(|socket| socket.ifindex != 0)
            {
                if let Some(process) = &socket.process {
                    let at = LinkRef {
                        netns: netns.id,
                        ifindex: socket.ifindex,
                    };
                    ports.entry(process).or_default().insert(at);
                }
            }
        }
        for (process, ports) in ports {
            if !(2..=MAX_ENGINE_PORTS).contains(&ports.len()) {
                continue;
            }
            for &from in &ports {
                let others = ports.iter().filter(|&&to| to != from);
                let others = others.map(|&to| (to, process.clone()));
                self.engines.entry(from).or_default().extend(others);
            }
        }
    }

    /// Everything that a frame sent by `from` may come to. `programs`: also through programs.
    pub fn search(&self, from: LinkRef, programs: bool) -> Search {
        let begin = Reached {
            at: from,
            via: Via::Start,
            tags: Vec::new(),
            before: None,
        };
        let mut reached = vec![begin];
        let mut seen = BTreeSet::from([(from, Vec::new())]);
        let mut queue = VecDeque::from([0]);
        while let Some(position) = queue.pop_front() {
            let Some(here) = reached.get(position).cloned() else {
                break;
            };
            for (to, via, tags) in self.next(&here, programs) {
                if seen.insert((to, tags.clone())) {
                    queue.push_back(reached.len());
                    reached.push(Reached {
                        at: to,
                        via,
                        tags,
                        before: Some(position),
                    });
                }
            }
        }
        Search(reached)
    }

    fn next(&self, here: &Reached, programs: bool) -> Vec<(LinkRef, Via, Vec<u16>)> {
        let mut next = Vec::new();
        for edge in self.edges.get(&here.at).into_iter().flatten() {
            // What left through a bridge's own interface, or came in by it, is between it and one
            // port; ports reach each other by their group.
            let mut tags = here.tags.clone();
            match edge.tag {
                Tag::Keep => {}
                // Two tags are as many as are in use; more would be a circle.
                Tag::Push(_) if tags.len() >= 2 => continue,
                Tag::Push(id) => tags.push(id),
                Tag::Pop(id) if tags.last() == Some(&id) => drop(tags.pop()),
                Tag::Pop(_) => continue,
            }
            next.push((edge.to, edge.via.clone(), tags));
        }
        // A frame that came to a port from another port of the same switch leaves by it.
        let from_switch = matches!(here.via, Via::Bridge | Via::Ovs);
        let group = self.group_of.get(&here.at).filter(|_| !from_switch);
        if let Some((members, via)) = group.and_then(|&number| self.groups.get(number)) {
            let others = members.iter().filter(|&&to| to != here.at);
            next.extend(others.map(|&to| (to, via.clone(), here.tags.clone())));
        }
        if programs {
            let others = self.engines.get(&here.at).into_iter().flatten();
            next.extend(
                others.map(|(to, process)| (*to, Via::Engine(process.clone()), here.tags.clone())),
            );
        }
        next
    }
}

/// The interface that Open vSwitch makes in the kernel for all its tunnels of a kind.
fn is_tunnel_of(link: &Link, kind: &str) -> bool {
    let prefix = match kind {
        "vxlan" => "vxlan_sys_",
        "geneve" => "genev_sys_",
        "gre" => "gre_sys",
        _ => return false,
    };
    link.name.starts_with(prefix)
}

/// Positions of bridges that patch ports join, each set once.
fn joined(ovs: &Ovs) -> Vec<Vec<usize>> {
    let bridge_of = |name: &str| {
        let mut bridges = ovs.bridges.iter();
        bridges.position(|bridge| bridge.ports.iter().any(|port| port.name == name))
    };
    let mut sets: Vec<Vec<usize>> = (0..ovs.bridges.len()).map(|bridge| vec![bridge]).collect();
    for (here, bridge) in ovs.bridges.iter().enumerate() {
        let patches = bridge.ports.iter().filter(|port| port.kind == "patch");
        for there in patches.filter_map(|port| bridge_of(port.options.get("peer")?)) {
            let find =
                |sets: &[Vec<usize>], bridge| sets.iter().position(|set| set.contains(&bridge));
            if let (Some(a), Some(b)) = (find(&sets, here), find(&sets, there))
                && a != b
            {
                let moved = sets.get_mut(b).map(std::mem::take).unwrap_or_default();
                if let Some(set) = sets.get_mut(a) {
                    set.extend(moved);
                }
            }
        }
    }
    sets.retain(|set| !set.is_empty());
    sets
}
