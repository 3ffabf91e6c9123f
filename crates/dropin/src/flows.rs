//! Who is the client of a flow. On the switch's port both directions look alike: the engine has to be
//! told which packets are the client's, by whose rules they are judged, and with which Ethernet
//! addresses a packet of either direction travels.
//!
//! The sender of a flow's first packet is its client; of TCP, the sender of the SYN.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashMap;
use tollgate_wire::packet::{L4, Layout, PROTOCOL_TCP, Quoted, TcpFlags};
use tollgate_wire::tag::{Direction, EndpointId, Tag};

/// First port of Linux's default range for connections that it opens
/// (`net.ipv4.ip_local_port_range`).
const EPHEMERAL_FIRST: u16 = 32_768;

/// Flows that pass unjudged, at most; one more is dropped. Judged flows are bounded by the engine.
const UNJUDGED_MAX: usize = 65_536;

/// An unjudged flow that is silent so long is forgotten; its next packet is looked at afresh.
const UNJUDGED_IDLE: Duration = Duration::from_secs(600);

/// Fragmented packets remembered at most, and for how long: as long as the kernel waits for the rest
/// of a packet (`net.ipv4.ipfrag_time`).
const FRAGMENTS_MAX: usize = 4096;
/// See [`FRAGMENTS_MAX`].
const FRAGMENT_LIFE: Duration = Duration::from_secs(30);

/// Length of two Ethernet addresses, destination first.
pub const LINK_LEN: usize = 12;

/// Both ends of a flow in a VLAN, in an order that does not depend on the packet's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    vlan: u16,
    protocol: u8,
    low: SocketAddr,
    high: SocketAddr,
}

impl Ends {
    /// Of a flow by its key in the engine. `vlan`: of the key's endpoint.
    pub fn new(vlan: u16, protocol: u8, one: SocketAddr, other: SocketAddr) -> Self {
        Self {
            vlan,
            protocol,
            low: one.min(other),
            high: one.max(other),
        }
    }

    /// Of a packet.
    pub fn of(vlan: u16, layout: &Layout) -> Self {
        let (source, destination) = addresses(layout);
        Self::new(vlan, layout.protocol, source, destination)
    }
}

/// Source and destination. ICMP echo has its identifier for both ports, so that question and answer
/// have the same ends.
pub fn addresses(layout: &Layout) -> (SocketAddr, SocketAddr) {
    let ports = match layout.l4 {
        L4::Icmp(icmp) => {
            let id = icmp.identifier.unwrap_or(0);
            (id, id)
        }
        _ => layout.ports().unwrap_or((0, 0)),
    };
    (
        SocketAddr::new(layout.src, ports.0),
        SocketAddr::new(layout.dst, ports.1),
    )
}

/// One direction's sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

/// A flow.
#[derive(Debug)]
pub struct Flow {
    /// Number for the event log.
    pub id: u64,
    /// Whose rules judge it; none: it passes.
    pub endpoint: Option<EndpointId>,
    /// Who opened it.
    pub client: SocketAddr,
    /// The other side.
    pub server: SocketAddr,
    /// When its first packet came.
    pub start: jiff::Timestamp,
    /// Of the client's packets and of the server's.
    pub sums: [Sum; 2],
    /// Ethernet addresses of the client's packets and of the server's, as last seen.
    pub links: [Option<[u8; LINK_LEN]>; 2],
    /// A request whose answer's head is awaited, for the event log.
    pub awaited: Option<Box<crate::eve::Awaited>>,
    /// A request came before the last one's answer: from here on it is not told whose an answer is.
    pub pipelined: bool,
    /// The switch was told that it is decided.
    pub offloaded: bool,
    /// And has taken it over.
    pub released: bool,
    last: Duration,
    fins: [bool; 2],
    reset: bool,
}

/// Index of a direction in a flow's pairs.
pub fn side(direction: Direction) -> usize {
    match direction {
        Direction::Outbound => 0,
        Direction::Inbound => 1,
    }
}

impl Flow {
    /// Which way a packet of the flow from this source goes.
    fn direction_from(&self, source: &SocketAddr) -> Direction {
        if *source == self.client {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }

    fn has_ended(&self) -> bool {
        self.reset || self.fins == [true, true]
    }

    fn note(&mut self, now: Duration, layout: &Layout, frame: &[u8], direction: Direction) {
        let at = side(direction);
        self.last = now;
        if let Some(sum) = self.sums.get_mut(at) {
            sum.packets += 1;
            sum.bytes += frame.len() as u64;
        }
        if let (Some(link), Some(seen)) = (self.links.get_mut(at), frame.first_chunk()) {
            *link = Some(*seen);
        }
        if let Some(tcp) = layout.tcp() {
            self.reset |= tcp.flags.rst();
            if let Some(fin) = self.fins.get_mut(at) {
                *fin |= tcp.flags.fin();
            }
        }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Part of a judged flow.
    Judged {
        /// For the engine.
        tag: Tag,
        /// Its flow was not known before.
        new: bool,
    },
    /// It passes unjudged.
    Unjudged,
    /// Nobody's, and its VLAN has no rules.
    Unknown,
    /// It ends here.
    Dropped(Why),
}

/// Why a packet ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A SYN from the server of a connection that the engine knows.
    ReversedSyn,
    /// An ICMP error about no known flow.
    UnrelatedIcmp,
    /// A fragment whose first part was not seen.
    UnknownFragment,
    /// A SYN-ACK whose SYN was not seen.
    EarlyAnswer,
    /// There is no room.
    Full,
}

/// A packet's circumstances.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When.
    pub now: Duration,
    /// In which VLAN.
    pub vlan: u16,
    /// Where its parts lie in `ethernet`.
    pub layout: &'a Layout,
    /// The frame.
    pub ethernet: &'a [u8],
    /// The packet that it quotes, if it is an ICMP error.
    pub quoted: Option<Quoted>,
    /// Whose rules judge new flows of the VLAN.
    pub endpoint: Option<EndpointId>,
    /// Connections whose beginning was not seen pass unjudged.
    pub midstream_passes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FragmentKey {
    vlan: u16,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

/// The flows of one packet thread.
pub struct Flows {
    flows: HashMap<Ends, Flow, foldhash::fast::RandomState>,
    fragments: HashMap<FragmentKey, (Class, Duration), foldhash::fast::RandomState>,
    unjudged: usize,
    next_id: u64,
}

impl Flows {
    /// None yet; numbers in the event log count on from `first_id`.
    pub fn new(first_id: u64) -> Self {
        Self {
            flows: HashMap::default(),
            fragments: HashMap::default(),
            unjudged: 0,
            next_id: first_id,
        }
    }

    /// A flow.
    pub fn get(&self, ends: &Ends) -> Option<&Flow> {
        self.flows.get(ends)
    }

    /// A flow, to be changed.
    pub fn get_mut(&mut self, ends: &Ends) -> Option<&mut Flow> {
        self.flows.get_mut(ends)
    }

    /// Forgets a flow, if it belongs to that endpoint.
    pub fn remove(&mut self, ends: &Ends, endpoint: EndpointId) -> Option<Flow> {
        let is_its = |flow: &Flow| flow.endpoint == Some(endpoint);
        if !self.flows.get(ends).is_some_and(is_its) {
            return None;
        }
        self.flows.remove(ends)
    }

    /// Lets what may still come of a flow pass unjudged, as far as there is room.
    pub fn let_pass(&mut self, ends: Ends, mut flow: Flow) {
        if self.unjudged < UNJUDGED_MAX {
            flow.endpoint = None;
            self.flows.insert(ends, flow);
            self.unjudged += 1;
        }
    }

    /// Flows that are known.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Is none known?
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        self.fragments
            .retain(|_, (_, since)| now.saturating_sub(*since) < FRAGMENT_LIFE);
        let unjudged = &mut self.unjudged;
        self.flows.retain(|_, flow| {
            let gone = flow.endpoint.is_none()
                && (flow.has_ended() || now.saturating_sub(flow.last) > UNJUDGED_IDLE);
            *unjudged -= usize::from(gone);
            !gone
        });
    }

    /// What a packet is. Its flow is known afterwards, unless the packet is dropped. `replaced` is the
    /// flow that a new one with the same ends took the place of.
    pub fn classify(&mut self, seen: &Seen<'_>, replaced: &mut Option<Flow>) -> Class {
        if let Some(quoted) = seen.quoted {
            return self.of_quoted(seen, &quoted);
        }
        let L4::Fragment(fragment) = seen.layout.l4 else {
            return self.of_packet(seen, replaced);
        };
        let key = FragmentKey {
            vlan: seen.vlan,
            src: seen.layout.src,
            dst: seen.layout.dst,
            protocol: seen.layout.protocol,
            id: fragment.id,
        };
        if fragment.offset > 0 {
            return match (self.fragments.get(&key), seen.endpoint) {
                (Some((class, _)), _) => *class,
                (None, None) => Class::Unknown,
                (None, Some(_)) => Class::Dropped(Why::UnknownFragment),
            };
        }
        let class = self.of_packet(seen, replaced);
        if self.fragments.len() >= FRAGMENTS_MAX {
            return Class::Dropped(Why::Full);
        }
        let rest = match class {
            Class::Judged { tag, .. } => Class::Judged { tag, new: false },
            other => other,
        };
        self.fragments.insert(key, (rest, seen.now));
        class
    }

    /// An error goes the other way than the packet that it is about.
    fn of_quoted(&self, seen: &Seen<'_>, quoted: &Quoted) -> Class {
        let is_echo = !matches!(quoted.protocol, PROTOCOL_TCP | 17 | 132);
        let back = if is_echo {
            quoted.src_port
        } else {
            quoted.dst_port
        };
        let source = SocketAddr::new(quoted.src, quoted.src_port);
        let destination = SocketAddr::new(quoted.dst, back);
        let ends = Ends::new(seen.vlan, quoted.protocol, source, destination);
        match (self.flows.get(&ends), seen.endpoint) {
            (Some(flow), _) => match flow.endpoint {
                Some(endpoint) => Class::Judged {
                    tag: Tag {
                        endpoint,
                        direction: flow.direction_from(&source).reverse(),
                    },
                    new: false,
                },
                None => Class::Unjudged,
            },
            (None, None) => Class::Unknown,
            (None, Some(_)) => Class::Dropped(Why::UnrelatedIcmp),
        }
    }

    fn of_packet(&mut self, seen: &Seen<'_>, replaced: &mut Option<Flow>) -> Class {
        let ends = Ends::of(seen.vlan, seen.layout);
        let (source, _) = addresses(seen.layout);
        let flags = seen.layout.tcp().map(|tcp| tcp.flags);
        let is_syn = flags.is_some_and(TcpFlags::is_syn);
        if let Some(flow) = self.flows.get_mut(&ends) {
            let direction = flow.direction_from(&source);
            // Whether the connection has ended is for the engine to say: an RST that nobody heeds must not
            // make the client the server, whose packets are not judged.
            let is_reversed = direction == Direction::Inbound;
            if is_syn && is_reversed && flow.endpoint.is_some() {
                return Class::Dropped(Why::ReversedSyn);
            }
            // A new connection belongs to the rules of its own time.
            let is_new = is_syn && flow.endpoint != seen.endpoint;
            if !is_new {
                flow.note(seen.now, seen.layout, seen.ethernet, direction);
                return match flow.endpoint {
                    Some(endpoint) => Class::Judged {
                        tag: Tag {
                            endpoint,
                            direction,
                        },
                        new: false,
                    },
                    None => Class::Unjudged,
                };
            }
            *replaced = self.flows.remove(&ends);
            self.unjudged -= usize::from(replaced.as_ref().is_some_and(|f| f.endpoint.is_none()));
        }
        let Some(endpoint) = seen.endpoint else {
            return Class::Unknown;
        };
        self.open(seen, ends, endpoint, is_syn)
    }

    fn open(&mut self, seen: &Seen<'_>, ends: Ends, endpoint: EndpointId, is_syn: bool) -> Class {
        let tcp = seen.layout.tcp();
        if tcp.is_some_and(|tcp| tcp.flags.is_syn_ack()) {
            // The client's next SYN is seen, and then so is who it is.
            return Class::Dropped(Why::EarlyAnswer);
        }
        let is_midstream = tcp.is_some() && !is_syn;
        let passes = is_midstream && seen.midstream_passes;
        if passes && self.unjudged >= UNJUDGED_MAX {
            return Class::Dropped(Why::Full);
        }
        let (source, destination) = addresses(seen.layout);
        let sender_is_client = !is_midstream || sends_as_client(source, destination);
        let (client, server, direction) = if sender_is_client {
            (source, destination, Direction::Outbound)
        } else {
            (destination, source, Direction::Inbound)
        };
        let mut flow = Flow {
            id: self.next_id,
            endpoint: (!passes).then_some(endpoint),
            client,
            server,
            start: jiff::Timestamp::now(),
            sums: [Sum::default(); 2],
            links: [None; 2],
            awaited: None,
            pipelined: false,
            offloaded: false,
            released: false,
            last: seen.now,
            fins: [false; 2],
            reset: false,
        };
        self.next_id += 1;
        flow.note(seen.now, seen.layout, seen.ethernet, direction);
        self.flows.insert(ends, flow);
        if passes {
            self.unjudged += 1;
            return Class::Unjudged;
        }
        let tag = Tag {
            endpoint,
            direction,
        };
        Class::Judged { tag, new: true }
    }
}

/// Whether the sender of a packet in the middle of a connection opened it, as far as ports tell: the
/// client's lies in the range of those that are chosen. The engine has the same rule, and must not
/// come to another result: it would take the connection for one that nobody's rules are about.
fn sends_as_client(source: SocketAddr, destination: SocketAddr) -> bool {
    source.port() >= EPHEMERAL_FIRST || destination.port() < EPHEMERAL_FIRST
}
