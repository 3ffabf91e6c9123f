//! Following a packet: routed from namespace to namespace, switched between, wrapped in tunnels.

use std::net::{IpAddr, Ipv4Addr};

use super::Begin;
use super::LEAVES;
use super::graph::{Graph, Reached, Search};
use crate::case::{Hop, Via};
use crate::model::{Link, LinkKind, LinkRef, Netns, NetnsId, Route, Snapshot};

/// A packet is not followed over more routers than its hop limit commonly allows.
const MAX_ROUTERS: usize = 64;
/// Tunnels in tunnels.
const MAX_TUNNELS: usize = 4;

// What a tunnel adds, in bytes: outer IP, and over IPv6 20 more.
const IPV6_MORE: u32 = 20;
/// Outer IPv4, UDP, VXLAN and the inner Ethernet header (RFC 7348, 5); Geneve without options the
/// same (RFC 8926, 3.4).
const VXLAN: u32 = 20 + 8 + 8 + 14;
/// Outer IPv4, UDP, WireGuard's header and authentication tag.
const WIREGUARD: u32 = 20 + 8 + 16 + 16;
/// Outer IPv4 and GRE without options (RFC 2784).
const GRE: u32 = 20 + 4;
const ETHERNET: u32 = 14;
const IPIP: u32 = 20;

/// Follows a packet; returns its hops, and why it could not be followed to the end.
pub fn follow(snapshot: &Snapshot, begin: Begin<'_>, to: IpAddr) -> (Vec<Hop>, String) {
    let graph = Graph::new(snapshot);
    let mut walk = Walk {
        snapshot,
        graph: &graph,
        hops: Vec::new(),
        overhead: 0,
        tunnels: 0,
    };
    let end = match begin {
        Begin::Netns(netns) => walk.routed(netns.id, to, Via::Start),
        Begin::Behind(at) => walk.received(at, to),
    };
    let ends = match end {
        End::At(_) => String::new(),
        End::Lost(why) => why,
    };
    (walk.hops, ends)
}

/// How following ended.
#[derive(Clone, Debug)]
enum End {
    /// In the namespace that has the address.
    At(NetnsId),
    /// Elsewhere, in words.
    Lost(String),
}

#[derive(Clone)]
struct Walk<'a> {
    snapshot: &'a Snapshot,
    graph: &'a Graph<'a>,
    hops: Vec<Hop>,
    overhead: u32,
    tunnels: usize,
}

/// Where a step led.
enum Step {
    /// To a namespace that has the packet now.
    To(NetnsId),
    /// Nowhere further.
    Over(End),
}

impl<'a> Walk<'a> {
    /// From a namespace that has the packet, over routers. `via` is how it gets to the first
    /// interface.
    fn routed(&mut self, from: NetnsId, to: IpAddr, via: Via) -> End {
        let mut at = from;
        let mut via = Some(via);
        let mut been = Vec::new();
        for _ in 0..MAX_ROUTERS {
            let Some(netns) = self.snapshot.netns(at) else {
                return End::Lost("the next namespace is not in the snapshot".to_owned());
            };
            if let Some(own) = owner_in(netns, to) {
                if self.hops.is_empty() {
                    self.own_address(netns, own);
                }
                return End::At(at);
            }
            if been.contains(&at) {
                return End::Lost(format!(
                    "the routes to {to} lead in a circle, back to {}",
                    netns.name
                ));
            }
            been.push(at);
            let Some(route) = route(netns, to) else {
                return End::Lost(format!("{} has no route to {to}", netns.name));
            };
            let text = text(netns, route);
            let via = via.take().unwrap_or(Via::Route(text));
            match self.sent(netns, route, to, via) {
                Step::To(next) => at = next,
                Step::Over(end) => return end,
            }
        }
        End::Lost(format!("not followed over more than {MAX_ROUTERS} routers"))
    }

    /// A packet to the namespace's own address goes through `lo`, whichever interface has it.
    fn own_address(&mut self, netns: &Netns, own: &Link) {
        let loopback = netns
            .links
            .iter()
            .find(|link| link.kind == LinkKind::Loopback);
        self.hop(netns.at(loopback.unwrap_or(own)), Via::Start);
    }

    /// Out of the interface that a route names.
    fn sent(&mut self, netns: &Netns, route: &Route, to: IpAddr, via: Via) -> Step {
        let at = LinkRef {
            netns: netns.id,
            ifindex: route.ifindex,
        };
        let Some(link) = self.graph.link(at) else {
            return lost(format!(
                "interface {} of {} is not in the snapshot",
                route.ifindex, netns.name
            ));
        };
        self.hop(at, via);
        let next = route.via.unwrap_or(to);
        if is_tunnel(link) {
            return self.tunnelled(at, link, next, to);
        }
        self.switched(at, next, to)
    }

    /// From an interface to the one that has the next hop's address, or on from there as far as can
    /// be told.
    fn switched(&mut self, from: LinkRef, next: IpAddr, to: IpAddr) -> Step {
        let search = self.graph.search(from, false);
        if let Some(step) = self.find_owner(&search, next) {
            return step;
        }
        let programs = self.graph.search(from, true);
        if let Some(step) = self.find_owner(&programs, next) {
            return step;
        }
        // A tunnel on the way counts if it leads there.
        let tunnels = self.tunnels_of(&search);
        for &position in &tunnels {
            let mut trial = self.clone();
            if let step @ Step::To(_) = trial.through(&search, position, next, to) {
                *self = trial;
                return step;
            }
        }
        if let Some(position) = search.position(|reached| self.is_way_out(reached)) {
            self.append(&search, position);
            return lost(self.leaves(next));
        }
        if let Some(&position) = tunnels.first() {
            return self.through(&search, position, next, to);
        }
        if let Some(position) = programs.position(|reached| self.is_way_out(reached)) {
            self.append(&programs, position);
            return lost(self.leaves(next));
        }
        self.handed_over(&search, from, next)
    }

    /// To whoever answers for the next hop without having its address: the first namespace on the
    /// way that is another one (proxy ARP, as some network plugins have it).
    fn handed_over(&mut self, search: &Search, from: LinkRef, next: IpAddr) -> Step {
        let takes = |reached: &Reached| {
            reached.at.netns != from.netns
                && reached.tags.is_empty()
                && self
                    .graph
                    .link(reached.at)
                    .is_some_and(|link| link.master.is_none())
        };
        let Some(position) = search.position(takes) else {
            let name = self.name(from);
            return lost(format!(
                "no interface that {name} reaches has the next hop's address {next}"
            ));
        };
        self.append(search, position);
        match self.hops.last() {
            Some(hop) => Step::To(hop.at.netns),
            None => lost("nothing to follow".to_owned()),
        }
    }

    fn find_owner(&mut self, search: &Search, next: IpAddr) -> Option<Step> {
        let owns = |reached: &Reached| {
            let link = self.graph.link(reached.at);
            reached.tags.is_empty() && link.is_some_and(|link| has_address(link, next))
        };
        let position = search.position(owns)?;
        self.append(search, position);
        Some(Step::To(self.hops.last()?.at.netns))
    }

    fn tunnels_of(&self, search: &Search) -> Vec<usize> {
        search.positions(|reached| {
            reached.tags.is_empty() && self.graph.link(reached.at).is_some_and(is_tunnel)
        })
    }

    fn is_way_out(&self, reached: &Reached) -> bool {
        let link = self.graph.link(reached.at);
        link.is_some_and(|link| link.kind == LinkKind::Physical)
    }

    fn leaves(&self, next: IpAddr) -> String {
        let last = self
            .hops
            .last()
            .map(|hop| self.name(hop.at))
            .unwrap_or_default();
        format!("{LEAVES} {last}, to {next}")
    }

    /// Over a switch into a tunnel.
    fn through(&mut self, search: &Search, position: usize, next: IpAddr, to: IpAddr) -> Step {
        self.append(search, position);
        let Some(at) = self.hops.last().map(|hop| hop.at) else {
            return lost("nothing to follow".to_owned());
        };
        match self.graph.link(at) {
            Some(link) => self.tunnelled(at, link, next, to),
            None => lost("nothing to follow".to_owned()),
        }
    }

    /// Into a tunnel, to its other end, and out there.
    fn tunnelled(&mut self, at: LinkRef, link: &Link, next: IpAddr, to: IpAddr) -> Step {
        let kind = tunnel_kind(link);
        let Some(remote) = self.remote(at, link, next) else {
            return self.tunnelled_somewhere(at, link);
        };
        if self.tunnels >= MAX_TUNNELS {
            return lost(format!(
                "not followed through more than {MAX_TUNNELS} tunnels"
            ));
        }
        let before = self.overhead;
        self.overhead = before.saturating_add(overhead(link, remote));
        self.tunnels += 1;
        let outer = self.routed(at.netns, remote, Via::Tunnel(format!("{kind} to {remote}")));
        let netns = match outer {
            End::At(netns) => netns,
            lost @ End::Lost(_) => return Step::Over(lost),
        };
        self.overhead = before;
        let Some(other) = self.other_end(netns, at, link) else {
            let name = self
                .snapshot
                .netns(netns)
                .map_or("", |netns| netns.name.as_str());
            return lost(format!(
                "{name} has no interface at the other end of {}",
                self.name(at)
            ));
        };
        self.hop(other, Via::Lower);
        // A tunnel of packets ends in a router; one of frames may be a port of a switch.
        let owns = self
            .graph
            .link(other)
            .is_some_and(|link| has_address(link, next));
        if owns {
            return Step::To(other.netns);
        }
        let search = self.graph.search(other, false);
        let programs = self.graph.search(other, true);
        for search in [&search, &programs] {
            if let Some(step) = self.find_owner(search, next) {
                return step;
            }
        }
        match self
            .graph
            .link(other)
            .is_some_and(|link| link.master.is_some())
        {
            true => self.switched_from_tunnel(&search, next, to),
            false => Step::To(other.netns),
        }
    }

    /// Into a tunnel whose other end the snapshot does not have: as far as the interface that its
    /// packets leave by, if it is that of the default route.
    fn tunnelled_somewhere(&mut self, at: LinkRef, link: &Link) -> Step {
        let kind = tunnel_kind(link);
        let why = format!(
            "where {} ({kind}) sends its packets is not known",
            self.name(at)
        );
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let default = || {
            let netns = self.snapshot.netns(at.netns)?;
            let ifindex = route(netns, any)?.ifindex;
            Some(LinkRef {
                netns: at.netns,
                ifindex,
            })
        };
        let Some(lower) = link.link.or_else(default).filter(|&lower| lower != at) else {
            return lost(why);
        };
        self.overhead = self.overhead.saturating_add(overhead(link, any));
        self.hop(
            lower,
            Via::Tunnel(format!("{kind} to a peer that is not known")),
        );
        let search = self.graph.search(lower, false);
        if let Some(position) = search.position(|reached| self.is_way_out(reached)) {
            self.append(&search, position);
        }
        lost(format!("{why}; drawn as if by the default route"))
    }

    /// Behind a tunnel nothing is entered a second time.
    fn switched_from_tunnel(&mut self, search: &Search, next: IpAddr, to: IpAddr) -> Step {
        match search.position(|reached| self.is_way_out(reached)) {
            Some(position) => {
                self.append(search, position);
                lost(self.leaves(next))
            }
            None => lost(format!(
                "nothing behind the tunnel has {next}, on the way to {to}"
            )),
        }
    }

    fn remote(&self, at: LinkRef, link: &Link, next: IpAddr) -> Option<IpAddr> {
        let behind = |ip| link.remotes.iter().find(|remote| remote.ip == ip);
        let any = || link.remotes.first().map(|remote| remote.at);
        let group = link.remote.filter(|ip| !ip.is_multicast());
        let known = behind(Some(next)).map(|remote| remote.at);
        known
            .or(group)
            .or_else(|| self.graph.tunnel_remotes.get(&at).copied())
            .or_else(any)
    }

    /// The tunnel's interface in the namespace that the outer packet came to: the same kind and
    /// number, preferably one that sends back to where it came from.
    fn other_end(&self, netns: NetnsId, from: LinkRef, link: &Link) -> Option<LinkRef> {
        let netns = self.snapshot.netns(netns)?;
        let home = self.snapshot.netns(from.netns)?;
        let fits = |other: &&Link| match (&other.kind, &link.kind) {
            (LinkKind::Vxlan(a), LinkKind::Vxlan(b)) => a.vni == b.vni,
            (a, b) => a == b,
        };
        let back = |other: &&Link| {
            let ours = |ip| owner_in(home, ip).is_some();
            other.remote.is_some_and(ours) || other.remotes.iter().any(|remote| ours(remote.at))
        };
        let mut ends = netns
            .links
            .iter()
            .filter(|other| netns.at(other) != from)
            .filter(fits);
        let all: Vec<&Link> = ends.by_ref().collect();
        let best = all
            .iter()
            .copied()
            .find(|other| back(other))
            .or(all.first().copied())?;
        Some(netns.at(best))
    }

    /// A packet that came in by an interface from somebody who is not in the snapshot: switched to
    /// the address, or else routed by the namespace that the interface, or its bridge, is in.
    fn received(&mut self, at: LinkRef, to: IpAddr) -> End {
        self.hop(at, Via::Start);
        let search = self.graph.search(at, false);
        if let Some(step) = self.find_owner(&search, to) {
            return match step {
                Step::To(netns) => End::At(netns),
                Step::Over(end) => end,
            };
        }
        let bridge = |reached: &Reached| {
            self.graph
                .link(reached.at)
                .is_some_and(|link| link.kind == LinkKind::Bridge && !link.addresses.is_empty())
        };
        if let Some(position) = search.position(bridge) {
            self.append(&search, position);
        }
        let netns = self.hops.last().map_or(at.netns, |hop| hop.at.netns);
        let Some(home) = self.snapshot.netns(netns) else {
            return End::Lost("the interface's namespace is not in the snapshot".to_owned());
        };
        let text = route(home, to)
            .map(|route| text(home, route))
            .unwrap_or_default();
        self.routed(netns, to, Via::Route(text))
    }

    fn hop(&mut self, at: LinkRef, via: Via) {
        let overhead = self.overhead;
        self.hops.push(Hop { at, via, overhead });
    }

    fn append(&mut self, search: &Search, position: usize) {
        for reached in search.chain(position) {
            self.hop(reached.at, reached.via.clone());
        }
    }

    fn name(&self, at: LinkRef) -> String {
        let netns = self
            .snapshot
            .netns(at.netns)
            .map_or("?", |netns| netns.name.as_str());
        let link = self.graph.link(at).map_or("?", |link| link.name.as_str());
        format!("{link} of {netns}")
    }
}

fn lost(why: String) -> Step {
    Step::Over(End::Lost(why))
}

fn has_address(link: &Link, ip: IpAddr) -> bool {
    link.addresses.iter().any(|net| net.addr() == ip)
}

fn owner_in(netns: &Netns, ip: IpAddr) -> Option<&Link> {
    netns.links.iter().find(|link| has_address(link, ip))
}

/// The route that a namespace takes: the longest prefix, then the lowest metric.
fn route(netns: &Netns, to: IpAddr) -> Option<&Route> {
    let usable = |route: &&Route| {
        // A device that is down has no routes that are taken.
        route.to.contains(&to) && netns.link(route.ifindex).is_some_and(|link| link.up)
    };
    let routes = netns.routes.iter().filter(usable);
    routes.min_by_key(|route| (u8::MAX - route.to.prefix_len(), route.metric))
}

/// A route as `ip route` prints it.
fn text(netns: &Netns, route: &Route) -> String {
    let to = route.to;
    let mut text = match to.prefix_len() {
        0 => "default".to_owned(),
        _ => to.to_string(),
    };
    if let Some(via) = route.via {
        text += &format!(" via {via}");
    }
    let name = netns
        .link(route.ifindex)
        .map_or("?", |link| link.name.as_str());
    text += &format!(" dev {name}");
    if let Some(mtu) = route.mtu {
        text += &format!(" mtu {mtu}");
    }
    text
}

fn is_tunnel(link: &Link) -> bool {
    matches!(
        link.kind,
        LinkKind::Vxlan(_) | LinkKind::Wireguard | LinkKind::Tunnel(_)
    )
}

fn tunnel_kind(link: &Link) -> &str {
    match &link.kind {
        LinkKind::Vxlan(_) => "vxlan",
        LinkKind::Wireguard => "wireguard",
        LinkKind::Tunnel(kind) => kind,
        _ => "tunnel",
    }
}

/// Bytes that a tunnel adds to a packet, with an outer destination of that family.
fn overhead(link: &Link, remote: IpAddr) -> u32 {
    let base = match &link.kind {
        LinkKind::Vxlan(_) => VXLAN,
        LinkKind::Wireguard => WIREGUARD,
        LinkKind::Tunnel(kind) => match kind.as_str() {
            "geneve" => VXLAN,
            "gre" | "ip6gre" => GRE,
            "gretap" | "ip6gretap" | "erspan" | "ip6erspan" => GRE + ETHERNET,
            _ => IPIP,
        },
        _ => 0,
    };
    match remote {
        IpAddr::V4(_) => base,
        IpAddr::V6(_) => base + IPV6_MORE,
    }
}
