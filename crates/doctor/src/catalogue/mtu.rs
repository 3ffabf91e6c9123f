//! TG11xx: sizes of packets.

use crate::action::Action;
use crate::case::{Direction, Hop, ProbeKind, ProbeOutcome, ProbeResult, Transport, Via};
use crate::finding::{Evidence, Severity};
use crate::model::{Link, LinkKind, LinkRef, Netns};

use super::checksum::has_wrong_sums;
use super::topology::ends_here;
use super::view::{Fault, Report, View, command, forwards, namespaces, place, sysctl};

/// What VXLAN adds over IPv4: inner Ethernet, VXLAN, UDP and IPv4 headers (RFC 7348).
const VXLAN_IPV4: u32 = 50;
/// The same over IPv6.
const VXLAN_IPV6: u32 = 70;
/// MTU of ordinary Ethernet, and of most of the Internet.
const ETHERNET_MTU: u32 = 1500;
/// Smallest MTU that IPv6 allows (RFC 8200, section 5): a repair does not go below.
const SMALLEST_MTU: u32 = 1280;

/// Setting for finding the path MTU without ICMP (RFC 4821).
const PROBING: &str = "net.ipv4.tcp_mtu_probing";

/// TG1101.
pub(super) fn overhead(view: &View<'_>, report: &mut Report) {
    match view.path() {
        Some(path) => path_overhead(view, &path.hops, report),
        None => tunnel_overhead(view, report),
    }
}

fn path_overhead(view: &View<'_>, hops: &[Hop], report: &mut Report) {
    let Some(start) = hops.first() else { return };
    let Some(sender) = view.case.now.link(start.at) else {
        return;
    };
    let tight = |hop: &&Hop| {
        view.case
            .now
            .link(hop.at)
            .is_some_and(|link| sender.mtu.saturating_add(hop.overhead) > link.mtu)
    };
    let Some(hop) = hops.iter().skip(1).find(tight) else {
        return;
    };
    if has_own_number(view, hop) {
        return;
    }
    let narrowest = hops
        .iter()
        .filter_map(|hop| Some(view.case.now.link(hop.at)?.mtu.saturating_sub(hop.overhead)))
        .min()
        .unwrap_or(sender.mtu);
    // A router says "too big" to the sender; a bridge or a tunnel's port says nothing.
    let routed = matches!(hop.via, Via::Route(_));
    if routed && clamped(view, hop.at) {
        return;
    }
    report.faults.push(Fault {
        at: Some(start.at),
        touches: vec![hop.at],
        severity: routed.then_some(Severity::Warning),
        sentence: format!(
            "Packets of {} bytes from {}{} do not fit {}: {}.",
            sender.mtu,
            view.name(start.at),
            match hop.overhead {
                0 => String::new(),
                more => format!(" grow by {more} bytes on their way and"),
            },
            view.name(hop.at),
            if routed {
                "each connection has to learn that from an ICMP message"
            } else {
                "they are dropped without a word"
            }
        ),
        evidence: vec![view.shows_mtu(start.at), view.shows_mtu(hop.at)],
        fix: format!(
            "Set the endpoint's MTU to {narrowest}, at both ends of its pair, and in the \
                      configuration that new endpoints are made from."
        ),
        actions: lower_mtu(view, start.at, narrowest),
        ..Fault::default()
    });
}

/// What is wrong here is not what tunnels add but a fault of its own, with a number and a repair of its
/// own: ends of a pair (TG1102) or ports of an engine (TG1007) that differ, a router that does not say
/// "too big" (TG1103) or that should clamp (TG1105, TG1106).
fn has_own_number(view: &View<'_>, hop: &Hop) -> bool {
    match &hop.via {
        Via::Pair | Via::Engine(_) => hop.overhead == 0,
        Via::Route(_) => {
            let mut report = Report::default();
            icmp_dropped(view, &mut report);
            tunnel_without_clamp(view, &mut report);
            narrow_uplink(view, &mut report);
            report
                .faults
                .iter()
                .any(|fault| fault.at == Some(hop.at) || fault.namespaces.contains(&hop.at.netns))
        }
        _ => false,
    }
}

/// The MTU at both ends of a pair: what comes from the other one has to fit too.
fn lower_mtu(view: &View<'_>, at: LinkRef, mtu: u32) -> Vec<Action> {
    if mtu < SMALLEST_MTU {
        return Vec::new();
    }
    let peer = view
        .case
        .now
        .link(at)
        .filter(|link| link.kind == LinkKind::Veth)
        .and_then(|link| link.link);
    [Some(at), peer]
        .into_iter()
        .flatten()
        .filter(|at| view.case.now.link(*at).is_some_and(|link| link.mtu > mtu))
        .filter_map(|at| view.set_mtu(at, mtu))
        .collect()
}

fn tunnel_overhead(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let LinkKind::Vxlan(vxlan) = &link.kind else {
            continue;
        };
        // Open vSwitch makes its tunnel ports larger than anything and looks at the route instead.
        if of_ovs(netns, link) {
            continue;
        }
        let Some((lower_at, lower)) = link.link.and_then(|at| Some((at, view.case.now.link(at)?)))
        else {
            continue;
        };
        let overhead = if vxlan.ipv6 { VXLAN_IPV6 } else { VXLAN_IPV4 };
        if link.mtu.saturating_add(overhead) <= lower.mtu {
            continue;
        }
        let at = netns.at(link);
        report.faults.push(Fault {
            at: Some(at),
            severity: Some(Severity::Warning),
            sentence: format!(
                "{} has MTU {}, and its tunnel adds {overhead} bytes, which do not fit {} with MTU {}.",
                view.name(at),
                link.mtu,
                view.name(lower_at),
                lower.mtu
            ),
            evidence: vec![view.shows_mtu(at), view.shows_mtu(lower_at)],
            fix: "Lower the MTU of the tunnel and of the endpoints behind it, or raise the network's."
                .to_owned(),
            actions: Some(lower.mtu.saturating_sub(overhead))
                .filter(|mtu| *mtu >= SMALLEST_MTU)
                .and_then(|mtu| view.set_mtu(at, mtu))
                .into_iter()
                .collect(),
            ..Fault::default()
        });
    }
}

fn of_ovs(netns: &Netns, link: &Link) -> bool {
    link.master
        .and_then(|master| netns.link(master))
        .is_some_and(|master| master.kind == LinkKind::OvsDatapath)
}

/// TG1102.
pub(super) fn unequal_pair(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let at = netns.at(link);
        let Some(peer_at) = link.link.filter(|_| link.kind == LinkKind::Veth) else {
            continue;
        };
        // Once per pair, told at the end that sends what the other refuses.
        let Some(peer) = view
            .case
            .now
            .link(peer_at)
            .filter(|peer| peer.mtu < link.mtu)
        else {
            continue;
        };
        let seen = view
            .case
            .probes
            .iter()
            .any(|probe| probe.kind == ProbeKind::Mtu && is_failed(probe));
        report.faults.push(Fault {
            at: Some(at),
            touches: vec![peer_at],
            severity: seen.then_some(Severity::Error),
            sentence: format!(
                "{} with MTU {} is a pair with {} with MTU {}, which drops larger packets without a word.",
                view.name(at),
                link.mtu,
                view.name(peer_at),
                peer.mtu
            ),
            evidence: vec![view.shows_mtu(at), view.shows_mtu(peer_at)],
            fix: "Give both ends the same MTU.".to_owned(),
            actions: view.set_mtu(at, peer.mtu).into_iter().collect(),
            ..Fault::default()
        });
    }
}

/// TG1103.
pub(super) fn icmp_dropped(view: &View<'_>, report: &mut Report) {
    for netns in namespaces(view).filter(|netns| forwards(netns)) {
        if !netns.filter.readable {
            report.untold.push(format!(
                "whether {} drops the ICMP messages that path MTU discovery needs: its packet filter \
                 could not be read",
                place(netns)
            ));
            continue;
        }
        let (Some(rule), Some((narrow, wide))) = (&netns.filter.drops_icmp, mtu_step(netns)) else {
            continue;
        };
        if netns.filter.clamps_mss {
            continue;
        }
        report.faults.push(Fault {
            namespaces: vec![netns.id],
            sentence: format!(
                "{} forwards from {} (MTU {}) to {} (MTU {}) and drops the ICMP messages that would \
                 tell senders so: large packets vanish.",
                capital(&place(netns)),
                wide.name,
                wide.mtu,
                narrow.name,
                narrow.mtu
            ),
            evidence: vec![
                Evidence::new(command(netns, "nft list ruleset"), rule),
                view.shows_mtu(netns.at(narrow)),
                view.shows_mtu(netns.at(wide)),
            ],
            fix: "Accept ICMP type 3 code 4 and ICMPv6 type 2 in that chain. The repair leaves the \
                  rules alone and clamps the MSS of TCP connections, which helps TCP only."
                .to_owned(),
            actions: vec![clamp(view, netns, narrow)],
            ..Fault::default()
        });
    }
}

/// Narrowest interface that packets are routed out of, and the widest one of the others.
fn mtu_step(netns: &Netns) -> Option<(&Link, &Link)> {
    let routed = || {
        netns.links.iter().filter(|link| {
            link.up
                && link.kind != LinkKind::Loopback
                && netns
                    .routes
                    .iter()
                    .any(|route| route.ifindex == link.ifindex)
        })
    };
    let narrow = routed().min_by_key(|link| link.mtu)?;
    let wide = routed().max_by_key(|link| link.mtu)?;
    (narrow.mtu < wide.mtu).then_some((narrow, wide))
}

/// TG1104.
pub(super) fn no_probing(view: &View<'_>, report: &mut Report) {
    let Some((blocker, rule)) =
        namespaces(view).find_map(|netns| Some((netns, netns.filter.drops_icmp.as_ref()?)))
    else {
        return;
    };
    let senders = namespaces(view).filter(|netns| match view.path() {
        Some(path) => path
            .hops
            .first()
            .is_some_and(|hop| hop.at.netns == netns.id),
        None => netns.id == blocker.id,
    });
    for netns in senders {
        if sysctl(netns, PROBING) != Some("0") || beyond_ethernet(netns).is_some() {
            continue;
        }
        report.faults.push(Fault {
            namespaces: vec![netns.id],
            sentence: format!(
                "{} drops the ICMP messages of path MTU discovery, and TCP in {} does not probe for \
                 the path's MTU by itself: a smaller MTU further on would stall its connections.",
                capital(&place(blocker)),
                place(netns)
            ),
            evidence: vec![
                Evidence::new(command(blocker, "nft list ruleset"), rule),
                Evidence::new(command(netns, &format!("sysctl {PROBING}")), "0"),
            ],
            fix: "Accept those ICMP messages; until then let TCP probe when a connection stalls (1)."
                .to_owned(),
            actions: vec![probe(view, netns)],
            ..Fault::default()
        });
    }
}

/// TG1105.
pub(super) fn tunnel_without_clamp(view: &View<'_>, report: &mut Report) {
    for netns in
        namespaces(view).filter(|n| forwards(n) && n.filter.readable && !n.filter.clamps_mss)
    {
        for tunnel in netns
            .links
            .iter()
            .filter(|link| link.up && is_ip_tunnel(&link.kind))
        {
            let clear = netns
                .routes
                .iter()
                .filter(|route| route.ifindex == tunnel.ifindex)
                .any(|route| route.advmss.is_none());
            let Some(inside) = widest_inside(netns).filter(|link| link.mtu > tunnel.mtu && clear)
            else {
                continue;
            };
            report
                .faults
                .push(clamp_fault(view, netns, tunnel, inside, tunnel.mtu));
        }
    }
}

fn is_ip_tunnel(kind: &LinkKind) -> bool {
    matches!(
        kind,
        LinkKind::Wireguard | LinkKind::Tunnel(_) | LinkKind::Tun { tap: false, .. }
    )
}

/// The bridge or pair with the largest MTU that the namespace routes for.
fn widest_inside(netns: &Netns) -> Option<&Link> {
    netns
        .links
        .iter()
        .filter(|link| link.up && matches!(link.kind, LinkKind::Bridge | LinkKind::Veth))
        .filter(|link| {
            ends_here(link)
                || netns
                    .routes
                    .iter()
                    .any(|route| route.ifindex == link.ifindex)
        })
        .max_by_key(|link| link.mtu)
}

/// TG1106.
pub(super) fn narrow_uplink(view: &View<'_>, report: &mut Report) {
    for netns in
        namespaces(view).filter(|n| forwards(n) && n.filter.readable && !n.filter.clamps_mss)
    {
        let Some((uplink, mtu)) = default_route(netns) else {
            continue;
        };
        let Some(inside) = widest_inside(netns).filter(|link| link.mtu > mtu) else {
            continue;
        };
        if uplink.kind == LinkKind::Physical {
            report
                .faults
                .push(clamp_fault(view, netns, uplink, inside, mtu));
        }
    }
}

fn clamp_fault(view: &View<'_>, netns: &Netns, to: &Link, inside: &Link, mtu: u32) -> Fault {
    Fault {
        at: Some(netns.at(to)),
        touches: vec![netns.at(inside)],
        sentence: format!(
            "{} has MTU {mtu}, {} has {}, and the MSS of forwarded connections is not clamped: they \
             hang at the first full packet unless an ICMP message gets through.",
            view.name(netns.at(to)),
            view.name(netns.at(inside)),
            inside.mtu
        ),
        evidence: vec![
            view.shows_mtu(netns.at(to)),
            view.shows_mtu(netns.at(inside)),
            Evidence::new(command(netns, "nft list ruleset"), "no rule sets maxseg"),
        ],
        fix: format!(
            "Set the MTU of {} to {mtu} in the configuration that makes it; until then clamp \
                      the MSS towards {}.",
            inside.name, to.name
        ),
        actions: vec![clamp(view, netns, to)],
        ..Fault::default()
    }
}

/// The interface of the default route, with the MTU that applies.
fn default_route(netns: &Netns) -> Option<(&Link, u32)> {
    let route = netns
        .routes
        .iter()
        .filter(|route| route.to.prefix_len() == 0)
        .min_by_key(|route| route.metric)?;
    let link = netns.link(route.ifindex).filter(|link| link.up)?;
    Some((link, route.mtu.unwrap_or(link.mtu)))
}

/// TG1107.
pub(super) fn jumbo_to_the_world(view: &View<'_>, report: &mut Report) {
    for netns in namespaces(view) {
        let (Some(rule), Some((uplink, mtu))) = (&netns.filter.drops_icmp, beyond_ethernet(netns))
        else {
            continue;
        };
        if sysctl(netns, PROBING) != Some("0") {
            continue;
        }
        report.faults.push(Fault {
            at: Some(netns.at(uplink)),
            namespaces: vec![netns.id],
            sentence: format!(
                "The default route goes over {} with MTU {mtu}, more than the Internet carries, and \
                 the ICMP messages that say so are dropped: some remote hosts hang.",
                view.name(netns.at(uplink))
            ),
            evidence: vec![
                view.shows_mtu(netns.at(uplink)),
                Evidence::new(command(netns, "nft list ruleset"), rule),
                Evidence::new(command(netns, &format!("sysctl {PROBING}")), "0"),
            ],
            fix: format!("Accept those ICMP messages, and give the default route an MTU of \
                          {ETHERNET_MTU} (ip route change default ... mtu {ETHERNET_MTU}), leaving \
                          the large one to the routes inside. The repair lets TCP probe."),
            actions: vec![probe(view, netns)],
            ..Fault::default()
        });
    }
}

/// The default route's interface, if its MTU is larger than the world's.
fn beyond_ethernet(netns: &Netns) -> Option<(&Link, u32)> {
    default_route(netns)
        .filter(|(link, mtu)| link.kind == LinkKind::Physical && *mtu > ETHERNET_MTU)
}

/// TG1108.
pub(super) fn full_size_lost(view: &View<'_>, report: &mut Report) {
    let small_passes = |lost: &ProbeResult| {
        let mut probes = view.case.probes.iter();
        let small = probes.find(|probe| probe.kind == ProbeKind::Small && same_way(probe, lost));
        small.is_some_and(|probe| probe.outcome == ProbeOutcome::Passed)
    };
    let lost = failed(view, ProbeKind::Mtu, |probe| {
        // Others arrive and are refused there (TG1203).
        small_passes(probe) && !has_wrong_sums(probe)
    });
    if lost.is_empty() {
        return;
    }
    report.faults.push(Fault {
        sentence: format!(
            "Small packets pass {}, packets of the full MTU do not: something on the way has a smaller \
             MTU and does not say so.",
            between(view)
        ),
        evidence: lost,
        fix: "Find the narrow hop (tracepath -n TO), let its ICMP messages through, or lower the \
              endpoint's MTU."
            .to_owned(),
        ..Fault::default()
    });
}

/// TG1109.
pub(super) fn oversize_silent(view: &View<'_>, report: &mut Report) {
    let lost = failed(view, ProbeKind::MtuPlusOne, |lost| {
        let mut probes = view.case.probes.iter();
        let smaller = probes.find(|probe| probe.kind == ProbeKind::Mtu && same_way(probe, lost));
        // What is lost at the MTU is lost above it (TG1108), and what is refused at the receiver
        // comes through (TG1203).
        !smaller.is_some_and(is_failed) && !has_wrong_sums(lost)
    });
    if lost.is_empty() {
        return;
    }
    report.faults.push(Fault {
        sentence: format!(
            "A packet of one byte more than the MTU is lost silently {}: the sender is never told to \
             send smaller ones.",
            between(view)
        ),
        evidence: lost,
        fix: "Make the interface that drops it answer: allow ICMP, and make bridges' ports and \
              both ends of pairs the same MTU."
            .to_owned(),
        ..Fault::default()
    });
}

/// Evidence of the probes of a kind that failed.
fn failed(view: &View<'_>, kind: ProbeKind, is: impl Fn(&ProbeResult) -> bool) -> Vec<Evidence> {
    let probes = view.case.probes.iter();
    let probes = probes.filter(|probe| probe.kind == kind && is(probe));
    let evidence = |probe: &ProbeResult| match &probe.outcome {
        ProbeOutcome::Failed(why) => {
            let value = format!("{}: {why}", direction(probe));
            Some(Evidence::new("tollgate doctor --probe", value))
        }
        _ => None,
    };
    probes.filter_map(evidence).collect()
}

fn is_failed(probe: &ProbeResult) -> bool {
    matches!(probe.outcome, ProbeOutcome::Failed(_))
}

fn same_way(one: &ProbeResult, other: &ProbeResult) -> bool {
    (one.transport, one.ipv6, one.direction) == (other.transport, other.ipv6, other.direction)
}

/// `between A and B`.
pub(super) fn between(view: &View<'_>) -> String {
    let (from, to) = view.path().map_or(("here", "there"), |path| {
        (path.from.as_str(), path.to.as_str())
    });
    format!("between {from} and {to}")
}

/// `TCP over IPv4, outbound`.
pub(super) fn direction(probe: &ProbeResult) -> String {
    let transport = match probe.transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    };
    let direction = match probe.direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    };
    let family = if probe.ipv6 { "IPv6" } else { "IPv4" };
    format!("{transport} over {family}, {direction}")
}

/// MSS of what leaves by this hop is clamped where it is routed.
fn clamped(view: &View<'_>, at: LinkRef) -> bool {
    view.case
        .now
        .netns(at.netns)
        .is_some_and(|netns| netns.filter.clamps_mss)
}

fn clamp(view: &View<'_>, netns: &Netns, to: &Link) -> Action {
    Action::ClampMss {
        netns: view.path_of(netns),
        ifname: to.name.clone(),
    }
}

fn probe(view: &View<'_>, netns: &Netns) -> Action {
    Action::Sysctl {
        netns: view.path_of(netns),
        key: PROBING.to_owned(),
        value: "1".to_owned(),
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
