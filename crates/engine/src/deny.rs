//! How a denial is told: 403, TLS alert, RST to both sides, ICMP, or silence.

use std::sync::Arc;

use tollgate_policy::{Denial, DenyHow, RuleSet};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::packet::{TcpFlags, TcpHeader};
use tollgate_wire::tag::Direction;

use crate::answer;
use crate::event::{Event, EventKind, L7Facts, Verdict, VerdictWord};
use crate::flow::{Flow, LastWord, Parting, Refusing, State};
use crate::inspect::{Refused, Tell};
use crate::judge::Judged;
use crate::output::Output;
use crate::segment::{Ctx, Packet, segment_end};
use crate::seq;

/// Hop limit of frames that the engine makes; what Linux uses for its own.
const HOP_LIMIT: u8 = 64;

/// Window announced in frames that the engine makes: enough for a client to finish its last
/// segments, never used for transfer.
const WINDOW: u16 = 65_535;

/// What a client may still send after its last word before it is reset: an upload that had begun
/// gets the chance to read the 403, an endless one does not.
const PARTING_MAX: u32 = 1024 * 1024;

/// Packets of both sides that may pass by before a last word has its turn: a first window of ten
/// segments (RFC 6928) each way with acknowledgements, and some that are sent again.
const WAIT_PACKETS_MAX: u32 = 64;

/// How often a client may send again before it acknowledges what came before its last word. Linux
/// probes once, and then doubles a time-out that begins at 200 ms: some 6 seconds.
const WAIT_REPEATS_MAX: u32 = 6;

/// How often a client has to send again before a server that was spoken to counts as silent: the
/// second time comes after 200 ms on Linux.
const SILENT_REPEATS: u32 = 2;

/// When a last word may go out to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At once: nothing of the server's can be under way.
    Now,
    /// As soon as the client has acknowledged the server's bytes before this place.
    Behind {
        /// Behind the last byte of the server so far.
        place: u32,
        /// The server has said something; otherwise it is about to.
        heard: bool,
    },
    /// Not at all: a response may be under way.
    Never,
}

/// Where both halves of a TCP connection stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// Next byte that the server expects of the client.
    pub delivered: u32,
    /// Behind the last byte that the client has sent.
    pub sent: u32,
    /// Next byte that the client expects of the server.
    pub expected: u32,
}

/// Why, for the event.
pub(crate) struct Why {
    pub policy: Option<Arc<str>>,
    pub rule: Option<Arc<str>>,
    pub reason: &'static str,
    pub detail: String,
    pub facts: Option<Box<L7Facts>>,
}

impl Why {
    /// What a policy said to a flow.
    pub(crate) fn of(denial: &Denial) -> Self {
        Self {
            policy: denial.policy.clone(),
            rule: denial.rule.as_ref().map(|rule| rule.rule().clone()),
            reason: denial.reason,
            detail: String::new(),
            facts: None,
        }
    }
}

/// Reports a denial.
pub(crate) fn report<O: Output>(flow: &Flow, why: Why, ctx: &mut Ctx<'_, O>) {
    ctx.counters.denied += 1;
    report_as(flow, VerdictWord::Denied, why, ctx);
}

fn report_as<O: Output>(flow: &Flow, word: VerdictWord, why: Why, ctx: &mut Ctx<'_, O>) {
    let verdict = Verdict {
        word,
        l7: why.facts.map(|facts| *facts),
        policy: why.policy,
        rule: why.rule,
        reason: why.reason,
        detail: why.detail,
        logged: true,
    };
    let event = Event {
        flow_id: flow.id,
        key: flow.key,
        side: flow.side,
        kind: EventKind::Verdict(verdict),
    };
    ctx.out.event(event);
}

/// Reports that something was let through, if anyone wants to know.
pub(crate) fn report_allowed<O: Output>(
    flow: &Flow,
    facts: Option<&L7Facts>,
    ctx: &mut Ctx<'_, O>,
) {
    ctx.counters.allowed += 1;
    let logged = flow.rule.as_ref().is_some_and(|rule| rule.logged());
    if !logged && !ctx.out.wants_all() {
        return;
    }
    let verdict = Verdict {
        word: VerdictWord::Allowed,
        l7: facts.cloned(),
        policy: flow.rule.as_ref().map(|rule| rule.policy().clone()),
        rule: flow.rule.as_ref().map(|rule| rule.rule().clone()),
        reason: if flow.rule.is_some() {
            "rule"
        } else {
            "no-policy"
        },
        detail: String::new(),
        logged,
    };
    let event = Event {
        flow_id: flow.id,
        key: flow.key,
        side: flow.side,
        kind: EventKind::Verdict(verdict),
    };
    ctx.out.event(event);
}

/// Reports a request or hello that was let through.
pub(crate) fn report_judged<O: Output>(flow: &Flow, judged: &Judged, ctx: &mut Ctx<'_, O>) {
    match &judged.audit {
        None => report_allowed(flow, Some(&judged.facts), ctx),
        Some((rule, reason)) => {
            let why = Why {
                policy: Some(rule.policy().clone()),
                rule: Some(rule.rule().clone()),
                reason,
                detail: String::new(),
                facts: Some(judged.facts.clone()),
            };
            report_audited(flow, why, ctx);
        }
    }
}

/// Reports a stream that a rule in audit mode cannot judge any further.
pub(crate) fn report_unreadable<O: Output>(
    flow: &Flow,
    rules: Option<&RuleSet>,
    refused: &Refused,
    ctx: &mut Ctx<'_, O>,
) {
    let rule = rules.map(RuleSet::rule);
    let why = Why {
        policy: rule.map(|rule| rule.policy().clone()),
        rule: rule.map(|rule| rule.rule().clone()),
        reason: refused.reason,
        detail: refused.detail.to_owned(),
        facts: refused.facts.clone(),
    };
    report_audited(flow, why, ctx);
}

/// Reports what would have been refused, had the policy been enforced.
pub(crate) fn report_audited<O: Output>(flow: &Flow, why: Why, ctx: &mut Ctx<'_, O>) {
    ctx.counters.audited += 1;
    report_as(flow, VerdictWord::Audited, why, ctx);
}

/// Refuses a TCP stream because of what the client sent in `packet`.
/// `turn` tells when a 403 lands in the place of a response.
pub(crate) fn refuse_stream<O: Output>(
    flow: &mut Flow,
    position: Position,
    turn: Turn,
    refused: Refused,
    ctx: &mut Ctx<'_, O>,
) {
    let (policy, rule) = match &flow.rule {
        Some(rule) => (Some(rule.policy().clone()), Some(rule.rule().clone())),
        None => (None, None),
    };
    let last_word = match refused.tell {
        _ if turn == Turn::Never => None,
        Tell::Http { head_only } => {
            let text = answer::sentence(policy.as_deref(), rule.as_deref(), &refused);
            Some(answer::http1(&text, head_only))
        }
        Tell::Http2 {
            stream,
            head_only,
            grpc,
        } => {
            let text = answer::sentence(policy.as_deref(), rule.as_deref(), &refused);
            Some(answer::http2(&text, stream, head_only, grpc))
        }
        Tell::Tls => Some(answer::TLS_ACCESS_DENIED.to_vec()),
        Tell::Reset => None,
    };
    let facts = refused.facts.clone();
    if facts.is_some() {
        flow.facts.clone_from(&facts);
    }
    let (reason, detail) = (refused.reason, refused.detail.to_owned());
    report(
        flow,
        Why {
            policy,
            rule,
            reason,
            detail,
            facts,
        },
        ctx,
    );
    match (last_word, turn) {
        (Some(words), Turn::Behind { place, heard }) => {
            let word = LastWord {
                words,
                delivered: position.delivered,
                sent: position.sent,
                place,
                heard,
                packets: 0,
                repeats: 0,
            };
            flow.state = State::Denied(Refusing {
                waiting: Some(Box::new(word)),
                ..Refusing::default()
            });
        }
        (Some(words), _) => part(flow, position, &words, ctx),
        (None, _) => reset_both(flow, position, ctx),
    }
}

/// A last word and a FIN for the client, RST for the server.
fn part<O: Output>(flow: &mut Flow, at: Position, words: &[u8], ctx: &mut Ctx<'_, O>) {
    let flags = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN;
    to_client(flow, at.expected, at.sent, flags, words, ctx);
    to_server(
        flow,
        at.delivered,
        at.expected,
        TcpFlags::RST | TcpFlags::ACK,
        ctx,
    );
    let parting = Parting {
        seq: at
            .expected
            .wrapping_add(seq::span(words.len()))
            .wrapping_add(1),
        expected: at.sent,
        discarded: 0,
    };
    flow.state = State::Denied(Refusing {
        parting: Some(parting),
        ..Refusing::default()
    });
}

/// RST to both sides.
pub(crate) fn reset_both<O: Output>(flow: &mut Flow, at: Position, ctx: &mut Ctx<'_, O>) {
    to_client(
        flow,
        at.expected,
        at.sent,
        TcpFlags::RST | TcpFlags::ACK,
        &[],
        ctx,
    );
    to_server(
        flow,
        at.delivered,
        at.expected,
        TcpFlags::RST | TcpFlags::ACK,
        ctx,
    );
    flow.state = State::Denied(Refusing::default());
}

/// RST to the server alone.
pub(crate) fn reset_server<O: Output>(
    flow: &Flow,
    delivered: u32,
    expected: u32,
    ctx: &mut Ctx<'_, O>,
) {
    let flags = TcpFlags::RST | TcpFlags::ACK;
    to_server(flow, delivered, expected, flags, ctx);
}

/// Meets the first packet of a flow that the policy denies.
pub(crate) fn refuse_first<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    how: DenyHow,
    ctx: &mut Ctx<'_, O>,
) {
    let silent = how == DenyHow::Drop;
    flow.state = State::Denied(Refusing {
        silent,
        ..Refusing::default()
    });
    if silent {
        return;
    }
    match packet.tcp() {
        Some(tcp) => reset_sender(flow, packet, &tcp, ctx),
        None => prohibit(flow, packet, ctx),
    }
}

/// A packet of a flow that was denied before.
pub(crate) fn straggler<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    ctx.counters.after_denial += 1;
    let State::Denied(refusing) = &mut flow.state else {
        return;
    };
    if refusing.silent {
        return;
    }
    let Some(tcp) = packet.tcp() else {
        return prohibit(flow, packet, ctx);
    };
    if let Some(word) = refusing.waiting.take() {
        return await_turn(flow, word, packet, &tcp, ctx);
    }
    let parting = refusing.parting;
    match parting {
        Some(parting) if flow.is_from_client(packet) => {
            client_parts(flow, parting, packet, &tcp, ctx);
        }
        _ => reset_sender(flow, packet, &tcp, ctx),
    }
}

/// A packet of a flow whose last word waits for its turn.
fn await_turn<O: Output>(
    flow: &mut Flow,
    mut word: Box<LastWord>,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    word.packets += 1;
    let from_client = flow.is_from_client(packet);
    let has_all = match from_client {
        true => from_waiting_client(&mut word, packet, tcp),
        false => {
            from_server(&mut word, packet, tcp);
            false
        }
    };
    let at = Position {
        delivered: word.delivered,
        sent: word.sent,
        expected: word.place,
    };
    if has_all && (word.heard || word.repeats >= SILENT_REPEATS) {
        return part(flow, at, &word.words, ctx);
    }
    let ends = tcp.flags.rst() || (tcp.flags.fin() && !from_client);
    if ends || word.packets > WAIT_PACKETS_MAX || word.repeats > WAIT_REPEATS_MAX {
        return reset_both(flow, at, ctx);
    }
    if !from_client {
        ctx.forward(packet.frame);
    }
    flow.state = State::Denied(Refusing {
        waiting: Some(word),
        ..Refusing::default()
    });
}

/// The flow is forgotten before its last word had its turn: the client has gone, or has no use for it.
pub(crate) fn forget_last_word<O: Output>(flow: &mut Flow, ctx: &mut Ctx<'_, O>) {
    let State::Denied(refusing) = &mut flow.state else {
        return;
    };
    if let Some(word) = refusing.waiting.take() {
        let at = Position {
            delivered: word.delivered,
            sent: word.sent,
            expected: word.place,
        };
        reset_both(flow, at, ctx);
    }
}

/// Whether the client has everything that the server has sent.
fn from_waiting_client(word: &mut LastWord, packet: &Packet<'_>, tcp: &TcpHeader) -> bool {
    let end = segment_end(tcp, packet.payload().len());
    if tcp.flags.syn() || tcp.flags.rst() || !tcp.flags.ack() {
        return false;
    }
    if seq::before(word.sent, end) {
        if !seq::before(word.sent, tcp.seq) {
            word.sent = end;
        }
    } else if !packet.payload().is_empty() {
        word.repeats += 1;
    }
    // Bytes of the server that the kernel let through while its entry was being removed.
    if seq::before(word.place, tcp.ack) {
        word.place = tcp.ack;
        word.heard = true;
    }
    tcp.ack == word.place
}

fn from_server(word: &mut LastWord, packet: &Packet<'_>, tcp: &TcpHeader) {
    let end = segment_end(tcp, packet.payload().len());
    if !packet.payload().is_empty() && seq::before(word.place, end) {
        word.place = end;
        word.heard = true;
    }
}

/// Acknowledges what the client still sends after its last word, within bounds.
fn client_parts<O: Output>(
    flow: &mut Flow,
    mut parting: Parting,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    let payload = packet.payload().len();
    if tcp.flags.rst() || (payload == 0 && !tcp.flags.fin()) {
        return;
    }
    let end = segment_end(tcp, payload);
    if !seq::before(parting.expected, tcp.seq) && seq::before(parting.expected, end) {
        parting.discarded = parting
            .discarded
            .saturating_add(end.wrapping_sub(parting.expected));
        parting.expected = end;
    }
    flow.state = State::Denied(Refusing {
        parting: Some(parting),
        ..Refusing::default()
    });
    let flags = if parting.discarded > PARTING_MAX {
        TcpFlags::RST | TcpFlags::ACK
    } else {
        TcpFlags::ACK
    };
    to_client(flow, parting.seq, parting.expected, flags, &[], ctx);
}

/// RST in answer to one packet, to its sender (RFC 9293, section 3.10.7.1). An RST is not
/// answered.
pub(crate) fn reset_sender<O: Output>(
    flow: &Flow,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    if tcp.flags.rst() {
        return;
    }
    let ack = segment_end(tcp, packet.payload().len());
    let seq = if tcp.flags.ack() { tcp.ack } else { 0 };
    let flags = TcpFlags::RST | TcpFlags::ACK;
    send(
        flow,
        packet.direction().reverse(),
        seq,
        ack,
        flags,
        &[],
        ctx,
    );
}

/// RST to both sides of a connection that is not known: to the sender of this packet, and to its
/// receiver in the sender's name.
pub(crate) fn reset_unknown<O: Output>(flow: &Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    let Some(tcp) = packet.tcp() else { return };
    reset_sender(flow, packet, &tcp, ctx);
    if !tcp.flags.rst() && tcp.flags.ack() {
        let flags = TcpFlags::RST | TcpFlags::ACK;
        send(flow, packet.direction(), tcp.seq, tcp.ack, flags, &[], ctx);
    }
}

/// ICMP "administratively prohibited" to the sender of a packet.
pub(crate) fn prohibit<O: Output>(flow: &Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    let back = packet.direction().reverse();
    let l2 = link(flow, back);
    let from = packet.layout.dst;
    let frame = packet.ethernet();
    if build::icmp_admin_prohibited(ctx.scratch, &l2, frame, &packet.layout, from).is_ok() {
        ctx.emit_scratch();
    }
}

fn to_client<O: Output>(
    flow: &Flow,
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    payload: &[u8],
    ctx: &mut Ctx<'_, O>,
) {
    send(
        flow,
        flow.client_direction().reverse(),
        seq,
        ack,
        flags,
        payload,
        ctx,
    );
}

fn to_server<O: Output>(flow: &Flow, seq: u32, ack: u32, flags: TcpFlags, ctx: &mut Ctx<'_, O>) {
    send(flow, flow.client_direction(), seq, ack, flags, &[], ctx);
}

/// Makes and sends a segment that goes `direction`, in the name of the side that sends that way.
fn send<O: Output>(
    flow: &Flow,
    direction: Direction,
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    payload: &[u8],
    ctx: &mut Ctx<'_, O>,
) {
    let (src, dst) = match direction {
        Direction::Outbound => (flow.key.local_addr(), flow.key.remote_addr()),
        Direction::Inbound => (flow.key.remote_addr(), flow.key.local_addr()),
    };
    let segment = Segment {
        src,
        dst,
        seq,
        ack,
        flags,
        window: WINDOW,
        payload,
        hop_limit: HOP_LIMIT,
    };
    if build::tcp(ctx.scratch, &link(flow, direction), &segment).is_ok() {
        ctx.emit_scratch();
    }
}

fn link(flow: &Flow, direction: Direction) -> L2 {
    let vlan = Some(flow.tag(direction).vlan_id());
    match direction {
        Direction::Outbound => L2 {
            src: flow.links.endpoint,
            dst: flow.links.gateway,
            vlan,
        },
        Direction::Inbound => L2 {
            src: flow.links.gateway,
            dst: flow.links.endpoint,
            vlan,
        },
    }
}
