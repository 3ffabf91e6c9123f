//! Which side of a captured packet is the endpoint.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use tollgate_engine::key::FlowKey;
use tollgate_wire::packet::{self, Fragment, L4, Layout, TcpHeader};
use tollgate_wire::tag::{Direction, EndpointId, Tag};

/// First port of Linux's default range for connections that it opens
/// (`net.ipv4.ip_local_port_range`): who has a lower one is the server.
const EPHEMERAL_FIRST: u16 = 32_768;

/// Flows whose opener is remembered: a million, some 100 MiB. Above the engine's own bound in a
/// replay, so that the engine's counter tells first.
const FLOWS_MAX: usize = 1 << 20;

/// Fragmented packets whose way is remembered; as many as the engine's default.
const FRAGMENTS_MAX: usize = 4096;

/// One end of a flow.
type End = (IpAddr, u16);

/// A flow, whichever way its packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowName {
    protocol: u8,
    low: End,
    high: End,
}

impl FlowName {
    fn new(protocol: u8, a: End, b: End) -> Self {
        Self {
            protocol,
            low: a.min(b),
            high: a.max(b),
        }
    }
}

/// A fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FragmentName {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    id: u32,
}

/// How the endpoint of a packet is found. Maps are looked up in, never listed: their order is
/// nobody's.
pub(crate) enum Sides {
    /// By address.
    Addresses(HashMap<IpAddr, EndpointId>),
    /// Who opened the flow.
    Openers(Openers),
}

/// Remembers who opened which flow.
pub(crate) struct Openers {
    id: EndpointId,
    /// If one side of a flow is in here and the other is not, it is the endpoint.
    only: HashSet<IpAddr>,
    flows: HashMap<FlowName, End>,
    fragments: HashMap<FragmentName, Direction>,
}

/// Why a packet has no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Neither side is an endpoint.
    NotGoverned,
    /// Too many flows are remembered.
    Full,
}

impl Sides {
    pub(crate) fn openers(id: EndpointId, only: HashSet<IpAddr>) -> Self {
        Self::Openers(Openers {
            id,
            only,
            flows: HashMap::new(),
            fragments: HashMap::new(),
        })
    }

    /// The tag of a captured packet.
    pub(crate) fn tag(&mut self, ethernet: &[u8], layout: &Layout) -> Result<Tag, Nobody> {
        match self {
            Self::Addresses(addresses) => by_address(addresses, layout.src, layout.dst),
            Self::Openers(openers) => openers.tag(ethernet, layout),
        }
    }

    /// The endpoint that a packet goes to after it has left another one.
    pub(crate) fn next(&self, from: EndpointId, dst: IpAddr) -> Option<Tag> {
        let Self::Addresses(addresses) = self else {
            return None;
        };
        let endpoint = *addresses.get(&dst)?;
        (endpoint != from).then_some(Tag {
            endpoint,
            direction: Direction::Inbound,
        })
    }

    /// A flow is gone.
    pub(crate) fn forget(&mut self, key: &FlowKey) {
        if let Self::Openers(openers) = self {
            let local = (key.local, key.local_port);
            // ICMP echo has its identifier on one side in the key and on both here.
            let remote = match key.remote_port {
                0 => (key.remote, key.local_port),
                port => (key.remote, port),
            };
            let name = FlowName::new(key.protocol, local, remote);
            // Unless the other side has opened a new flow between the same ports since.
            if openers.flows.get(&name) == Some(&local) {
                openers.flows.remove(&name);
            }
        }
    }
}

fn by_address(
    addresses: &HashMap<IpAddr, EndpointId>,
    src: IpAddr,
    dst: IpAddr,
) -> Result<Tag, Nobody> {
    let tag = |address, direction| {
        let endpoint = *addresses.get(&address)?;
        Some(Tag {
            endpoint,
            direction,
        })
    };
    tag(src, Direction::Outbound)
        .or_else(|| tag(dst, Direction::Inbound))
        .ok_or(Nobody::NotGoverned)
}

impl Openers {
    fn tag(&mut self, ethernet: &[u8], layout: &Layout) -> Result<Tag, Nobody> {
        let direction = match layout.l4 {
            L4::Fragment(fragment) if fragment.offset > 0 => self.later(layout, &fragment)?,
            _ => self.first_or_whole(ethernet, layout)?,
        };
        Ok(Tag {
            endpoint: self.id,
            direction,
        })
    }

    fn first_or_whole(&mut self, ethernet: &[u8], layout: &Layout) -> Result<Direction, Nobody> {
        if let Some(quoted) = packet::icmp_quoted(ethernet, layout) {
            let src = (quoted.src, quoted.src_port);
            let dst = match quoted.dst_port {
                0 => (quoted.dst, quoted.src_port),
                port => (quoted.dst, port),
            };
            return self.of_error(layout, FlowName::new(quoted.protocol, src, dst));
        }
        let (src, dst) = ends(layout);
        let name = FlowName::new(layout.protocol, src, dst);
        let known = match layout.tcp() {
            // Whatever was there before: this is a new flow.
            Some(tcp) if tcp.flags.is_syn() => None,
            _ => self.flows.get(&name).copied(),
        };
        let endpoint = match known {
            Some(endpoint) => endpoint,
            None => self.new_flow(name, layout, src, dst)?,
        };
        let direction = direction(endpoint == src);
        if let L4::Fragment(fragment) = layout.l4 {
            self.note(layout, &fragment, direction);
        }
        Ok(direction)
    }

    fn new_flow(
        &mut self,
        name: FlowName,
        layout: &Layout,
        src: End,
        dst: End,
    ) -> Result<End, Nobody> {
        let endpoint = match self.given(src.0, dst.0)? {
            Some(Direction::Outbound) => src,
            Some(Direction::Inbound) => dst,
            None if is_answer(layout.tcp()) => dst,
            None => src,
        };
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&name) {
            return Err(Nobody::Full);
        }
        self.flows.insert(name, endpoint);
        Ok(endpoint)
    }

    /// What the given addresses say of a packet; nothing if it is between two, or there are none.
    fn given(&self, src: IpAddr, dst: IpAddr) -> Result<Option<Direction>, Nobody> {
        match (self.only.contains(&src), self.only.contains(&dst)) {
            (true, false) => Ok(Some(Direction::Outbound)),
            (false, true) => Ok(Some(Direction::Inbound)),
            (true, true) => Ok(None),
            (false, false) if self.only.is_empty() => Ok(None),
            (false, false) => Err(Nobody::NotGoverned),
        }
    }

    /// An ICMP error goes to the sender of the packet that it quotes, or comes from the endpoint.
    fn of_error(&self, layout: &Layout, name: FlowName) -> Result<Direction, Nobody> {
        match self.flows.get(&name) {
            Some((endpoint, _)) => Ok(direction(*endpoint != layout.dst)),
            None => Ok(self
                .given(layout.src, layout.dst)?
                .unwrap_or(Direction::Outbound)),
        }
    }

    fn later(&self, layout: &Layout, fragment: &Fragment) -> Result<Direction, Nobody> {
        let noted = self.fragments.get(&fragment_name(layout, fragment));
        match noted {
            Some(direction) => Ok(*direction),
            None => Ok(self
                .given(layout.src, layout.dst)?
                .unwrap_or(Direction::Outbound)),
        }
    }

    fn note(&mut self, layout: &Layout, fragment: &Fragment, direction: Direction) {
        if self.fragments.len() >= FRAGMENTS_MAX {
            self.fragments.clear();
        }
        self.fragments
            .insert(fragment_name(layout, fragment), direction);
    }
}

fn fragment_name(layout: &Layout, fragment: &Fragment) -> FragmentName {
    FragmentName {
        protocol: layout.protocol,
        src: layout.src,
        dst: layout.dst,
        id: fragment.id,
    }
}

fn direction(is_outbound: bool) -> Direction {
    match is_outbound {
        true => Direction::Outbound,
        false => Direction::Inbound,
    }
}

fn ends(layout: &Layout) -> (End, End) {
    let (src_port, dst_port) = match layout.l4 {
        L4::Icmp(icmp) => {
            let identifier = icmp.identifier.unwrap_or(0);
            (identifier, identifier)
        }
        _ => layout.ports().unwrap_or((0, 0)),
    };
    ((layout.src, src_port), (layout.dst, dst_port))
}

/// Whether the first packet that the capture has of a TCP flow comes from its server.
fn is_answer(tcp: Option<&TcpHeader>) -> bool {
    tcp.is_some_and(|tcp| {
        let by_ports = tcp.src_port < EPHEMERAL_FIRST && tcp.dst_port >= EPHEMERAL_FIRST;
        tcp.flags.is_syn_ack() || (!tcp.flags.is_syn() && by_ports)
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tollgate_wire::build::{self, DEFAULT_HOP_LIMIT, Datagram, L2, Segment};
    use tollgate_wire::packet::{Packet, TcpFlags, parse};
    use tollgate_wire::vnet::VNET_HDR_LEN;

    use super::*;

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";

    fn l2() -> L2 {
        L2 {
            src: [2; 6],
            dst: [4; 6],
            vlan: None,
        }
    }

    fn at(address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), port)
    }

    fn udp(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
        let datagram = Datagram {
            src,
            dst,
            payload: b"payload!",
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut frame = Vec::new();
        build::udp(&mut frame, &l2(), &datagram).unwrap();
        frame.split_off(VNET_HDR_LEN)
    }

    fn tcp(src: SocketAddr, dst: SocketAddr, flags: TcpFlags) -> Vec<u8> {
        let segment = Segment {
            src,
            dst,
            seq: 1,
            ack: 1,
            flags,
            window: 1,
            payload: b"",
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut frame = Vec::new();
        build::tcp(&mut frame, &l2(), &segment).unwrap();
        frame.split_off(VNET_HDR_LEN)
    }

    /// IPv4 with the payload and fragment field given; checksums are nobody's concern here.
    fn ipv4(src: &str, dst: &str, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [f0, f1] = fragment.to_be_bytes();
        let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
        let head = [0x45, 0, len[0], len[1], 0, 9, f0, f1, 64, protocol, 0, 0];
        let eth = [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0];
        [&eth[..], &head, &address(src), &address(dst), payload].concat()
    }

    fn layout(frame: &[u8]) -> Layout {
        match parse(frame).unwrap() {
            Packet::Ip(layout) => layout,
            Packet::NonIp(_) => panic!("IP"),
        }
    }

    fn way(sides: &mut Sides, frame: &[u8]) -> Result<Direction, Nobody> {
        sides.tag(frame, &layout(frame)).map(|tag| tag.direction)
    }

    fn openers(only: &[&str]) -> Sides {
        let only = only.iter().map(|text| text.parse().unwrap()).collect();
        Sides::openers(EndpointId::new(1).unwrap(), only)
    }

    const OUT: Result<Direction, Nobody> = Ok(Direction::Outbound);
    const IN: Result<Direction, Nobody> = Ok(Direction::Inbound);

    #[test]
    fn who_opens_a_flow_is_its_endpoint() {
        let sides = &mut openers(&[]);
        assert_eq!(way(sides, &udp(at(A, 5), at(B, 53))), OUT);
        assert_eq!(way(sides, &udp(at(B, 53), at(A, 5))), IN);
        assert_eq!(way(sides, &udp(at(B, 5), at(A, 53))), OUT);
        // On one address, ports tell.
        assert_eq!(
            way(sides, &tcp(at(A, 40_000), at(A, 80), TcpFlags::SYN)),
            OUT
        );
        let answer = TcpFlags::SYN | TcpFlags::ACK;
        assert_eq!(way(sides, &tcp(at(A, 80), at(A, 40_000), answer)), IN);
    }

    #[test]
    fn without_a_beginning_flags_and_ports_tell() {
        let sides = &mut openers(&[]);
        let answer = TcpFlags::SYN | TcpFlags::ACK;
        assert_eq!(way(sides, &tcp(at(B, 40_001), at(A, 80), answer)), IN);
        assert_eq!(
            way(sides, &tcp(at(B, 80), at(A, 40_002), TcpFlags::ACK)),
            IN
        );
        assert_eq!(
            way(sides, &tcp(at(A, 40_003), at(B, 80), TcpFlags::ACK)),
            OUT
        );
        assert_eq!(way(sides, &tcp(at(A, 90), at(B, 80), TcpFlags::ACK)), OUT);
    }

    #[test]
    fn given_addresses_decide_who_is_the_endpoint() {
        let sides = &mut openers(&[B]);
        assert_eq!(way(sides, &udp(at(A, 5), at(B, 53))), IN);
        assert_eq!(way(sides, &udp(at(B, 53), at(A, 5))), OUT);
        let strangers = udp(at(A, 5), at("10.0.0.3", 53));
        assert_eq!(way(sides, &strangers), Err(Nobody::NotGoverned));
        // Between two of them, who opens.
        let sides = &mut openers(&[A, B]);
        assert_eq!(way(sides, &udp(at(A, 5), at(B, 53))), OUT);
        assert_eq!(way(sides, &udp(at(B, 53), at(A, 5))), IN);
    }

    #[test]
    fn pings_are_flows_and_errors_belong_to_theirs() {
        let sides = &mut openers(&[]);
        let echo = |kind: u8| [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(way(sides, &ipv4(A, B, 1, 0, &echo(8))), OUT);
        assert_eq!(way(sides, &ipv4(B, A, 1, 0, &echo(0))), IN);

        let sent = udp(at(A, 5), at(B, 53));
        assert_eq!(way(sides, &sent), OUT);
        let quote = [&[3, 3, 0, 0, 0, 0, 0, 0], &sent[14..]].concat();
        // From the receiver, or from a router on the way.
        assert_eq!(way(sides, &ipv4(B, A, 1, 0, &quote)), IN);
        assert_eq!(way(sides, &ipv4("10.9.9.9", A, 1, 0, &quote)), IN);
    }

    #[test]
    fn later_fragments_go_the_way_of_the_first() {
        const MORE: u16 = 0x2000;
        let sides = &mut openers(&[]);
        assert_eq!(way(sides, &udp(at(A, 5), at(B, 53))), OUT);
        let first = [0, 53, 0, 5, 0, 24, 0, 0];
        assert_eq!(way(sides, &ipv4(B, A, 17, MORE, &first)), IN);
        assert_eq!(way(sides, &ipv4(B, A, 17, 1, &first)), IN);
        // Of another packet nothing is known.
        assert_eq!(way(sides, &ipv4("10.0.0.9", A, 17, 1, &first)), OUT);
    }

    #[test]
    fn a_forgotten_flow_may_be_opened_from_the_other_side() {
        let sides = &mut openers(&[]);
        let key = |local: SocketAddr, remote: SocketAddr| FlowKey {
            endpoint: EndpointId::new(1).unwrap(),
            protocol: 17,
            local: local.ip(),
            local_port: local.port(),
            remote: remote.ip(),
            remote_port: remote.port(),
        };
        assert_eq!(way(sides, &udp(at(A, 5), at(B, 53))), OUT);
        // The end of another flow between the same ports, opened by the other side.
        sides.forget(&key(at(B, 53), at(A, 5)));
        assert_eq!(way(sides, &udp(at(B, 53), at(A, 5))), IN);
        sides.forget(&key(at(A, 5), at(B, 53)));
        assert_eq!(way(sides, &udp(at(B, 53), at(A, 5))), OUT);
    }
}
