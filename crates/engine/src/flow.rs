//! One flow: what was decided, and what is needed to go on deciding.

use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::{FlowQuery, RuleRef, Side};
use tollgate_wire::packet::{L4, TcpHeader};
use tollgate_wire::tag::{Direction, Tag};

use crate::cache::{CacheEntry, DirectionProgress, Progress};
use crate::datagram::likely_opener;
use crate::dns::Watch;
use crate::engine::Remembered;
use crate::event::L7Facts;
use crate::inspect::Inspection;
use crate::key::FlowKey;
use crate::output::Output;
use crate::quic::QuicFlow;
use crate::segment::{Ctx, Packet, TCP, segment_end};
use crate::seq;

/// How far an RST may be ahead of what its receiver has acknowledged: a window in flight.
const RST_AHEAD_MAX: u32 = 16 << 20;

/// Link-layer addresses of a flow, for frames that the engine makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkAddresses {
    /// The endpoint's.
    pub endpoint: [u8; 6],
    /// That of the next hop on the node's side.
    pub gateway: [u8; 6],
}

impl LinkAddresses {
    /// No packet has been seen.
    const UNKNOWN: Self = Self {
        endpoint: [0; 6],
        gateway: [0; 6],
    };

    /// From any packet of the flow; the other direction is its mirror image.
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        let eth = &packet.layout.eth;
        match packet.direction() {
            Direction::Outbound => Self {
                endpoint: eth.src,
                gateway: eth.dst,
            },
            Direction::Inbound => Self {
                endpoint: eth.dst,
                gateway: eth.src,
            },
        }
    }
}

/// How the packets of a denied flow are met.
#[derive(Debug, Default)]
pub(crate) struct Refusing {
    /// The policy says Drop: no answer at all.
    pub silent: bool,
    /// The client was sent a last word (403, alert) and a FIN; what it still sends is
    /// acknowledged so that it closes in order.
    pub parting: Option<Parting>,
    /// UDP: the server may hold a part of a hello that was never judged, and got the last of it before
    /// this time. As long as it can wait for the rest, no other flow begins in this one's place.
    pub half_hello: Option<Duration>,
    /// A last word whose place in the stream the client has not reached yet.
    pub waiting: Option<Box<LastWord>>,
}

/// A last word that goes behind what the server has sent, once the client has acknowledged all of it.
/// Until then the server is not told either, so that it can send again what was lost.
#[derive(Debug)]
pub(crate) struct LastWord {
    pub words: Vec<u8>,
    /// Next byte that the server expects of the client.
    pub delivered: u32,
    /// Behind the last byte that the client has sent.
    pub sent: u32,
    /// Behind the last byte of the server that went to the client: where the words belong.
    pub place: u32,
    /// The server has sent what it sends without being asked, at least a part of it.
    pub heard: bool,
    /// Packets of either side since.
    pub packets: u32,
    /// Segments that the client has sent again since.
    pub repeats: u32,
}

/// After a last word to the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parting {
    /// Our next sequence number towards the client (behind our FIN).
    pub seq: u32,
    /// Next byte expected of the client.
    pub expected: u32,
    /// Bytes discarded since.
    pub discarded: u32,
}

pub(crate) enum State {
    /// Allowed; nothing more to look at.
    Open,
    /// TCP under a rule set.
    Inspect(Box<Inspection>),
    /// UDP under a rule set: QUIC.
    Quic(Box<QuicFlow>),
    /// Allowed; the answers of a resolver are read on their way.
    Dns(Box<Watch>),
    /// Decided by an engine before this one, and under inspection: what it knew is gone, so the
    /// flow ends with the next packet that the kernel cannot pass.
    Lost,
    /// Denied; remembered for a while so that stragglers get their answer.
    Denied(Refusing),
}

pub(crate) struct Flow {
    pub id: u64,
    pub key: FlowKey,
    pub side: Side,
    pub links: LinkAddresses,
    pub state: State,
    /// The rule that let it in.
    pub rule: Option<RuleRef>,
    /// The latest L7 facts that were judged.
    pub facts: Option<Box<L7Facts>>,
    /// The kernel's entry as last written.
    pub cached: Option<CacheEntry>,
    /// What came up to the engine, in the kernel's terms.
    pub seen: Progress,
    pub last_packet: Duration,
    /// Ended (both FINs or an RST); removed when the linger time is over.
    pub closing: bool,
    /// ICMP type and code of the first packet.
    pub icmp: Option<(u8, u8)>,
    /// TCP: sequence number of the SYN that opened it, while it is known.
    pub syn: Option<u32>,
    /// Names known for the remote address when it was opened: they may expire, it goes on.
    pub names: Box<[Arc<str>]>,
}

impl Flow {
    /// A flow that begins with `packet`.
    pub(crate) fn new(id: u64, side: Side, packet: &Packet<'_>, now: Duration) -> Self {
        Self {
            id,
            key: FlowKey::of(packet.tag, &packet.layout),
            side,
            links: LinkAddresses::of(packet),
            state: State::Open,
            rule: None,
            facts: None,
            cached: None,
            seen: Progress::default(),
            last_packet: now,
            closing: false,
            icmp: match packet.layout.l4 {
                L4::Icmp(icmp) => Some((icmp.icmp_type, icmp.code)),
                _ => None,
            },
            syn: packet
                .tcp()
                .filter(|tcp| tcp.flags.is_syn())
                .map(|tcp| tcp.seq),
            names: Box::default(),
        }
    }

    /// A flow taken over from an engine before this one. Its link-layer addresses are learnt from
    /// the first packet that comes up.
    pub(crate) fn adopted(
        id: u64,
        key: FlowKey,
        entry: CacheEntry,
        remembered: Option<Remembered>,
        state: State,
        now: Duration,
    ) -> Self {
        let (side, facts, names) = match remembered {
            Some(remembered) => {
                let facts = remembered.facts.map(Box::new);
                (remembered.side, facts, remembered.names)
            }
            None => {
                let side = likely_opener(&key).unwrap_or(Side::Egress);
                (side, None, Vec::new())
            }
        };
        Self {
            id,
            key,
            side,
            links: LinkAddresses::UNKNOWN,
            state,
            rule: None,
            facts,
            cached: Some(entry),
            seen: Progress::default(),
            last_packet: now,
            closing: false,
            icmp: None,
            syn: None,
            names: names.into(),
        }
    }

    /// What the policy is asked.
    pub(crate) fn query(&self) -> FlowQuery {
        FlowQuery {
            side: self.side,
            remote: self.key.remote,
            local: self.key.local,
            protocol: self.key.protocol,
            local_port: self.key.local_port,
            remote_port: self.key.remote_port,
            icmp: self.icmp,
        }
    }

    /// Direction of the packets that the opener sends.
    pub(crate) fn client_direction(&self) -> Direction {
        match self.side {
            Side::Egress => Direction::Outbound,
            Side::Ingress => Direction::Inbound,
        }
    }

    pub(crate) fn is_from_client(&self, packet: &Packet<'_>) -> bool {
        packet.direction() == self.client_direction()
    }

    pub(crate) fn tag(&self, direction: Direction) -> Tag {
        Tag {
            endpoint: self.key.endpoint,
            direction,
        }
    }

    /// Notes a packet that came up.
    pub(crate) fn note(&mut self, packet: &Packet<'_>, now: Duration) {
        self.last_packet = now;
        if self.links == LinkAddresses::UNKNOWN {
            self.links = LinkAddresses::of(packet);
        }
        // Under inspection a client's FIN may be held back or dropped: it counts when it goes out.
        let may_wait = matches!(self.state, State::Inspect(_)) && self.is_from_client(packet);
        let seen = self.seen_mut(packet.direction());
        let had_fin = seen.fin;
        seen.packets += 1;
        seen.bytes += packet.frame.len() as u64;
        if let Some(tcp) = packet.tcp() {
            note_tcp(seen, &tcp, packet.payload().len());
        }
        if may_wait {
            seen.fin = had_fin;
        }
    }

    /// Notes that the client's FIN went out.
    pub(crate) fn note_client_fin(&mut self) {
        self.seen_mut(self.client_direction()).fin = true;
    }

    /// Notes an RST that came up, if it can be what its receiver expects (RFC 5961): one that is
    /// guessed from afar does not make a flow end that goes on. As `rst_counts` of
    /// `bpf/tollgate.bpf.c`.
    pub(crate) fn note_reset<O: Output>(&mut self, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
        let Some(tcp) = packet.tcp().filter(|tcp| tcp.flags.rst()) else {
            return;
        };
        let direction = packet.direction();
        let progress = self.progress(ctx);
        let expected = of_direction(&progress, direction.reverse()).max_ack;
        if expected.is_none_or(|ack| tcp.seq.wrapping_sub(ack) <= RST_AHEAD_MAX) {
            self.seen_mut(direction).rst = true;
        }
    }

    fn seen_mut(&mut self, direction: Direction) -> &mut DirectionProgress {
        match direction {
            Direction::Outbound => &mut self.seen.outbound,
            Direction::Inbound => &mut self.seen.inbound,
        }
    }

    /// What the kernel and the engine have seen together.
    pub(crate) fn progress<O: Output>(&self, ctx: &mut Ctx<'_, O>) -> Progress {
        match self.cached.and_then(|_| ctx.out.cache_get(&self.key)) {
            Some((_, kernel)) => Progress {
                outbound: merge(self.seen.outbound, kernel.outbound),
                inbound: merge(self.seen.inbound, kernel.inbound),
                last_seen_ns: kernel.last_seen_ns,
            },
            None => self.seen,
        }
    }

    /// Has the flow ended for both sides, as far as `progress` tells?
    pub(crate) fn has_ended(progress: &Progress) -> bool {
        let (out, inb) = (&progress.outbound, &progress.inbound);
        out.rst || inb.rst || (out.fin && inb.fin)
    }

    /// Writes the kernel's entry if it differs from what is there.
    pub(crate) fn put_cache<O: Output>(&mut self, entry: CacheEntry, ctx: &mut Ctx<'_, O>) {
        if self.cached == Some(entry) {
            return;
        }
        match ctx.out.cache_put(&self.key, &entry) {
            Ok(()) => self.cached = Some(entry),
            Err(_) => {
                ctx.counters.flow_cache_full += 1;
                self.drop_cache(ctx);
            }
        }
    }

    /// Takes the flow back from the kernel: every packet comes up again.
    pub(crate) fn drop_cache<O: Output>(&mut self, ctx: &mut Ctx<'_, O>) {
        if self.cached.is_some() {
            self.seen = self.progress(ctx);
            ctx.out.cache_delete(&self.key);
            self.cached = None;
        }
    }

    /// Whether a part of a hello may be at the server.
    pub(crate) fn has_half_hello(&self) -> bool {
        match &self.state {
            State::Quic(quic) => quic.has_forwarded(),
            State::Denied(refusing) => refusing.half_hello.is_some(),
            State::Open | State::Lost | State::Inspect(_) | State::Dns(_) => false,
        }
    }

    /// Whether a denied flow stays denied under a new policy.
    pub(crate) fn stays_denied(&self) -> bool {
        self.key.protocol == TCP || self.has_half_hello()
    }

    /// Memory of what is judged of the flow: bytes that are remembered, what its reader holds, and the
    /// latest facts.
    pub(crate) fn judged_bytes(&self) -> usize {
        let facts = self.facts.as_ref().map_or(0, |facts| facts.memory());
        facts + self.state_bytes()
    }

    fn state_bytes(&self) -> usize {
        match &self.state {
            State::Inspect(inspection) => inspection.memory(),
            State::Quic(quic) => quic.memory(),
            State::Denied(refusing) => {
                let waiting = refusing.waiting.as_ref();
                waiting.map_or(0, |word| size_of::<LastWord>() + word.words.capacity())
            }
            // Counted as held back.
            State::Open | State::Lost | State::Dns(_) => 0,
        }
    }

    /// Bytes held back for this flow.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.state {
            State::Inspect(inspection) => inspection.stream.held_bytes(),
            State::Quic(quic) => quic.held_bytes(),
            State::Dns(watch) => watch.held_bytes(),
            State::Open | State::Lost | State::Denied(_) => 0,
        }
    }
}

/// The direction of `progress` that `direction` names.
pub(crate) fn of_direction(progress: &Progress, direction: Direction) -> &DirectionProgress {
    match direction {
        Direction::Outbound => &progress.outbound,
        Direction::Inbound => &progress.inbound,
    }
}

fn note_tcp(seen: &mut DirectionProgress, tcp: &TcpHeader, payload_len: usize) {
    let flags = tcp.flags;
    seen.fin |= flags.fin() && !flags.rst();
    if flags.ack() && !flags.rst() {
        seen.max_ack = later(seen.max_ack, Some(tcp.ack));
    }
    if flags.is_syn_ack() {
        seen.syn_ack = Some(tcp.ack);
    }
    if !flags.rst() {
        seen.max_seq = later(seen.max_seq, Some(segment_end(tcp, payload_len)));
    }
}

fn merge(a: DirectionProgress, b: DirectionProgress) -> DirectionProgress {
    DirectionProgress {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        max_ack: later(a.max_ack, b.max_ack),
        max_seq: later(a.max_seq, b.max_seq),
        syn_ack: b.syn_ack.or(a.syn_ack),
        fin: a.fin || b.fin,
        rst: a.rst || b.rst,
    }
}

/// The later of two sequence numbers.
fn later(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if seq::before(a, b) { b } else { a }),
        (a, b) => a.or(b),
    }
}
