//! What an endpoint asks its resolvers, and what they answer.
//!
//! Only flows of endpoints with `fqdn` peers are watched, and only those to port 53 of a configured
//! resolver. All their packets come up. They are forwarded as they are; an answer to what was asked is
//! taken in before it goes on, so that the endpoint never knows an address that the engine does not.

use std::collections::VecDeque;
use std::time::Duration;

use tollgate_l7::dns::{self, Framer, Question};
use tollgate_policy::{EndpointPolicy, Side};
use tollgate_wire::ChecksumState;
use tollgate_wire::packet::{L4, TcpHeader};
use tollgate_wire::tag::Direction;

use crate::cache::{CacheEntry, Steer};
use crate::flow::{Flow, State};
use crate::key::FlowKey;
use crate::names::NameTable;
use crate::output::Output;
use crate::segment::{Ctx, Packet, TCP, UDP};
use crate::seq;

/// The resolvers' port (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// Questions of one flow that wait for their answers; beyond it the oldest is given up. Stub resolvers
/// have two on the way.
const ASKED_MAX: usize = 64;

/// How long an answer is waited for. The usual stub resolver gives up after ten seconds, patient ones
/// after thirty.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// No message is shorter: the header's length (RFC 1035 section 4.1.1).
const MESSAGE_MIN: usize = 12;

/// The kernel's entry of a watched UDP flow: everything comes up, and other workers, to which
/// fragments may go, see that the flow is known.
pub(crate) const WATCHED: CacheEntry = CacheEntry {
    outbound: Steer::Divert,
    inbound: Steer::Divert,
};

const PASS: CacheEntry = CacheEntry {
    outbound: Steer::Pass,
    inbound: Steer::Pass,
};

/// Whether the answers of an allowed flow are to be read.
pub(crate) fn is_watched(flow: &Flow, policy: &EndpointPolicy, names: &NameTable) -> bool {
    // A late or made-up answer may be a UDP flow's first packet; the questions come all the same.
    let protocol = flow.key.protocol;
    (protocol == UDP || (protocol == TCP && flow.side == Side::Egress))
        && flow.key.remote_port == PORT
        && policy.wants_names()
        && names.is_resolver(&flow.key.remote)
}

/// Begins to watch a flow.
pub(crate) fn watch<O: Output>(flow: &mut Flow, ctx: &mut Ctx<'_, O>) {
    flow.state = State::Dns(Box::new(Watch::new(flow.syn)));
    if flow.key.protocol == UDP {
        flow.put_cache(WATCHED, ctx);
    }
}

/// Questions without answer, and where a TCP connection's two streams stand.
pub(crate) struct Watch {
    asked: VecDeque<(Duration, Question)>,
    outbound: Half,
    inbound: Half,
}

impl Watch {
    fn new(syn: Option<u32>) -> Self {
        Self {
            asked: VecDeque::new(),
            outbound: Half {
                next: syn.map(|seq| seq.wrapping_add(1)),
                framer: Framer::default(),
            },
            inbound: Half::default(),
        }
    }

    /// Bytes held for the flow.
    pub(crate) fn held_bytes(&self) -> usize {
        let questions = self.asked.iter().map(|(_, asked)| asked.name.len());
        let questions = questions.sum::<usize>() + self.asked.len() * size_of::<(u64, Question)>();
        questions + self.outbound.framer.held() + self.inbound.framer.held()
    }
}

/// One direction of a TCP connection.
#[derive(Default)]
struct Half {
    /// Next byte; the server's is unknown until its SYN-ACK.
    next: Option<u32>,
    framer: Framer,
}

impl Half {
    /// The part of a segment that is new; `None`: it comes too early.
    fn new_part<'p>(&mut self, start: u32, payload: &'p [u8]) -> Option<&'p [u8]> {
        let next = *self.next.get_or_insert(start);
        let old = usize::try_from(seq::distance(next, start)).ok()?;
        let new = payload.get(old..).unwrap_or_default();
        self.next = Some(next.wrapping_add(seq::span(new.len())));
        Some(new)
    }
}

/// What is to become of a packet.
enum Then {
    Forward,
    /// It comes too early, and will come again.
    Drop,
    /// Nothing more can be read from the flow.
    GiveUp,
}

/// What a watched flow's packets are read with.
pub(crate) struct Reading<'r> {
    pub policy: &'r EndpointPolicy,
    pub names: &'r NameTable,
}

/// A packet of a watched flow.
pub(crate) fn watched<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    reading: &Reading<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    let State::Dns(watch) = &mut flow.state else {
        return;
    };
    let endpoint = flow.key.endpoint;
    ctx.held_bytes.change(endpoint, watch.held_bytes(), 0);
    let then = match packet.layout.l4 {
        // The endpoint will not take it either.
        _ if tollgate_wire::verify(packet.frame) == ChecksumState::Bad => Then::Forward,
        L4::Udp { .. } => {
            reading.message(watch, &flow.key, packet.direction(), packet.payload(), ctx);
            Then::Forward
        }
        L4::Tcp(tcp) => reading.segment(watch, &flow.key, packet, &tcp, ctx),
        _ => Then::Forward,
    };
    ctx.held_bytes.change(endpoint, 0, watch.held_bytes());
    match then {
        Then::Forward => ctx.forward(packet.frame),
        Then::Drop => ctx.counters.dns_out_of_order += 1,
        Then::GiveUp => {
            ctx.held_bytes.change(endpoint, watch.held_bytes(), 0);
            flow.state = State::Open;
            flow.put_cache(PASS, ctx);
            ctx.forward(packet.frame);
        }
    }
}

impl Reading<'_> {
    fn segment<O: Output>(
        &self,
        watch: &mut Watch,
        key: &FlowKey,
        packet: &Packet<'_>,
        tcp: &TcpHeader,
        ctx: &mut Ctx<'_, O>,
    ) -> Then {
        let payload = packet.payload();
        let half = match packet.direction() {
            Direction::Outbound => &mut watch.outbound,
            Direction::Inbound => &mut watch.inbound,
        };
        if tcp.flags.is_syn_ack() {
            half.next = Some(tcp.seq.wrapping_add(1));
            return Then::Forward;
        }
        if payload.is_empty() {
            return Then::Forward;
        }
        let Some(new) = half.new_part(tcp.seq, payload) else {
            return Then::Drop;
        };
        if !ctx.may_hold(key.endpoint, half.framer.held() + new.len()) {
            ctx.counters.dns_held_full += 1;
            return Then::GiveUp;
        }
        let mut framer = std::mem::take(&mut half.framer);
        let mut readable = true;
        framer.push(new, |message| {
            readable &= message.len() >= MESSAGE_MIN;
            self.message(watch, key, packet.direction(), message, ctx);
        });
        match packet.direction() {
            Direction::Outbound => watch.outbound.framer = framer,
            Direction::Inbound => watch.inbound.framer = framer,
        }
        if readable {
            Then::Forward
        } else {
            Then::GiveUp
        }
    }

    fn message<O: Output>(
        &self,
        watch: &mut Watch,
        key: &FlowKey,
        direction: Direction,
        message: &[u8],
        ctx: &mut Ctx<'_, O>,
    ) {
        let expired = |asked: &(Duration, _)| ctx.now.saturating_sub(asked.0) > ANSWER_WAIT;
        while watch.asked.front().is_some_and(expired) {
            watch.asked.pop_front();
        }
        match direction {
            Direction::Outbound => self.question(watch, key, message, ctx),
            Direction::Inbound => self.answer(watch, key, message, ctx),
        }
    }

    fn question<O: Output>(
        &self,
        watch: &mut Watch,
        key: &FlowKey,
        message: &[u8],
        ctx: &mut Ctx<'_, O>,
    ) {
        let Some(question) = dns::question(message) else {
            return;
        };
        // A question that is sent again is still one question.
        let known = watch.asked.iter().any(|(_, asked)| *asked == question);
        if known || !self.policy.wants_name(&question.name) {
            return;
        }
        if !ctx.may_hold(key.endpoint, watch.held_bytes() + question.name.len()) {
            ctx.counters.dns_held_full += 1;
            return;
        }
        if watch.asked.len() >= ASKED_MAX {
            watch.asked.pop_front();
        }
        watch.asked.push_back((ctx.now, question));
    }

    fn answer<O: Output>(
        &self,
        watch: &mut Watch,
        key: &FlowKey,
        message: &[u8],
        ctx: &mut Ctx<'_, O>,
    ) {
        let Some(answer) = dns::answer(message) else {
            return;
        };
        let name = &answer.question.name;
        if !self.policy.wants_name(name) {
            return;
        }
        let mut asked = watch.asked.iter();
        let Some(at) = asked.position(|(_, asked)| *asked == answer.question) else {
            ctx.counters.dns_unasked += 1;
            return;
        };
        watch.asked.remove(at);
        let learnt = self
            .names
            .learn(key.endpoint, name, &answer.addresses, ctx.now);
        ctx.counters.dns_learnt += 1;
        ctx.counters.names_replaced += learnt.replaced;
        ctx.counters.names_full += learnt.refused;
    }
}
