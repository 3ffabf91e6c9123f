//! UDP under a rule set: QUIC. Each connection's ClientHello is judged before the datagram that
//! completes it goes on; after that the kernel passes short headers, and datagrams with a long
//! header go on coming up, since one socket may open another connection at any time.

use std::time::Duration;

use tollgate_l7::quic::{QuicEvent, QuicReader};
use tollgate_l7::refusal::QUIC_CONNECTION_DENIED;
use tollgate_wire::packet::L4;
use tollgate_wire::tag::Direction;
use tollgate_wire::vnet::{self, VnetHdr};

use tollgate_policy::{Audited, Decision, EndpointPolicy, FlowVerdict};

use crate::cache::{CacheEntry, Steer};
use crate::deny::{self, Why};
use crate::event::Carrier;
use crate::flow::{Flow, Refusing, State};
use crate::inspect::Refused;
use crate::judge::{Judged, Judges};
use crate::output::Output;
use crate::segment::{Ctx, Packet};

/// Frames with early data held for a flow until its hello is judged. Clients send at most a
/// congestion window of it, ten packets (RFC 9002, section 7.2).
const EARLY_FRAMES_MAX: usize = 16;

/// UDP that is being read.
pub(crate) struct QuicFlow {
    pub judges: Judges,
    reader: QuicReader,
    /// Came ahead of the hello that they belong to.
    early: Vec<Vec<u8>>,
    /// A hello was let through.
    judged: bool,
    /// Something was, perhaps a part of a hello.
    forwarded: bool,
    /// A policy in audit mode let something go by that it could not read.
    given_up: bool,
    /// The latest reason for which a datagram was dropped; each is reported once in a row.
    refused: Option<&'static str>,
}

/// What becomes of a frame.
enum Fate {
    Forward,
    /// A hello in it was let through.
    Judged,
    Hold,
    Drop,
    /// The flow is refused.
    Refuse(Refused),
}

impl QuicFlow {
    fn new(judges: Judges) -> Self {
        Self {
            judges,
            reader: QuicReader::new(),
            early: Vec::new(),
            judged: false,
            forwarded: false,
            given_up: false,
            refused: None,
        }
    }

    /// A flow that an engine before this one has judged. Its open connections stay in the kernel;
    /// new ones are judged.
    pub(crate) fn adopted(judges: Judges) -> Self {
        Self {
            judged: true,
            forwarded: true,
            ..Self::new(judges)
        }
    }

    /// Whether something has gone by unread.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether no rule is enforced: everything goes by, read or not.
    pub(crate) fn is_audit_only(&self) -> bool {
        self.judges.enforced.is_none()
    }

    /// Whether the server may hold a part of a hello.
    pub(crate) fn has_forwarded(&self) -> bool {
        self.forwarded
    }

    /// Bytes of memory held, without the frames held back.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.reader.buffered()
    }

    /// Bytes of frames held back.
    pub(crate) fn held_bytes(&self) -> usize {
        self.early.iter().map(Vec::len).sum()
    }
}

/// The first packet of a UDP flow that a rule set governs.
pub(crate) fn open<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    judges: Judges,
    ctx: &mut Ctx<'_, O>,
) {
    flow.state = State::Quic(Box::new(QuicFlow::new(judges)));
    inspected(flow, packet, ctx);
}

/// A packet of a UDP flow under a rule set.
pub(crate) fn inspected<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    if !flow.is_from_client(packet) {
        return ctx.forward(packet.frame);
    }
    if matches!(&flow.state, State::Quic(quic) if quic.is_audit_only()) {
        return audited(flow, packet, ctx);
    }
    if !matches!(packet.layout.l4, L4::Udp { .. }) {
        // A fragment: what is not whole cannot be judged.
        ctx.counters.fragment_refused += 1;
        return;
    }
    let free = ctx.judged_bytes.free(flow.key.endpoint, ctx.limits);
    if !free.has_room(ctx.counters, |bytes| packet.frame.len() <= bytes) {
        return;
    }
    if !packet.is_filled_in_place() {
        ctx.counters.quic_dropped += 1;
        return;
    }
    // Taken out so that flow and reader can be used side by side; only a denial leaves another
    // state behind.
    let State::Quic(mut quic) = std::mem::replace(&mut flow.state, State::Open) else {
        return;
    };
    ctx.held_bytes
        .change(flow.key.endpoint, quic.held_bytes(), 0);
    match read(flow, &mut quic, packet, ctx) {
        Fate::Forward => {
            quic.forwarded = true;
            ctx.forward(packet.frame);
        }
        Fate::Judged => {
            quic.judged = true;
            quic.forwarded = true;
            // Before the frame goes out: what follows it must meet the new entry.
            flow.put_cache(entry(flow), ctx);
            ctx.forward(packet.frame);
            release(flow, &mut quic, ctx);
        }
        Fate::Hold => hold(&mut quic, packet, ctx),
        Fate::Drop => ctx.counters.quic_dropped += 1,
        Fate::Refuse(refused) => {
            let half_hello = quic.forwarded.then_some(ctx.now);
            return refuse(flow, packet, refused, half_hello, ctx);
        }
    }
    ctx.held_bytes
        .change(flow.key.endpoint, 0, quic.held_bytes());
    flow.state = State::Quic(quic);
}

/// A packet of a flow that only policies in audit mode look at. It goes on at once, whatever was read.
fn audited<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    let State::Quic(mut quic) = std::mem::replace(&mut flow.state, State::Open) else {
        return;
    };
    let free = ctx.judged_bytes.free(flow.key.endpoint, ctx.limits);
    let is_readable = matches!(packet.layout.l4, L4::Udp { .. })
        && packet.is_filled_in_place()
        && packet.frame.len() <= free.bytes();
    quic.forwarded = true;
    // Held while a rule was enforced.
    ctx.held_bytes
        .change(flow.key.endpoint, quic.held_bytes(), 0);
    for frame in std::mem::take(&mut quic.early) {
        ctx.forward(&frame);
    }
    if !is_readable {
        ctx.counters.audit_unread += 1;
        quic.given_up = true;
    } else if let Fate::Judged = read(flow, &mut quic, packet, ctx) {
        quic.judged = true;
        flow.put_cache(entry(flow), ctx);
    }
    flow.state = State::Quic(quic);
    ctx.forward(packet.frame);
}

/// What the kernel may do once a hello was let through.
fn entry(flow: &Flow) -> CacheEntry {
    match flow.client_direction() {
        Direction::Outbound => CacheEntry {
            outbound: Steer::Quic,
            inbound: Steer::Pass,
        },
        Direction::Inbound => CacheEntry {
            outbound: Steer::Pass,
            inbound: Steer::Quic,
        },
    }
}

/// Reads every datagram of a frame.
fn read<O: Output>(
    flow: &mut Flow,
    quic: &mut QuicFlow,
    packet: &Packet<'_>,
    ctx: &mut Ctx<'_, O>,
) -> Fate {
    let mut fate = Fate::Forward;
    for datagram in datagrams(packet) {
        match quic.reader.push(datagram) {
            QuicEvent::NeedMore | QuicEvent::Known => {}
            QuicEvent::Early if quic.judged || matches!(fate, Fate::Judged) => return Fate::Drop,
            QuicEvent::Early => fate = Fate::Hold,
            QuicEvent::Hello(hello, _) => {
                ctx.counters.quic_hellos += 1;
                match quic.judges.hello(hello, Some(Carrier::Quic)) {
                    Ok(judged) => allowed(flow, judged, ctx),
                    Err(refused) => return denied(flow, quic, packet, refused, ctx),
                }
                fate = Fate::Judged;
            }
            QuicEvent::Refused(refusal) => {
                let refused = Refused::form(refusal.reason, refusal.detail);
                return unreadable(flow, quic, refused, ctx);
            }
        }
    }
    fate
}

/// The datagrams of a frame: one, or those of a super-packet.
fn datagrams<'a>(packet: &Packet<'a>) -> impl Iterator<Item = &'a [u8]> {
    let payload = packet.payload();
    let header = VnetHdr::parse(packet.frame).unwrap_or_default();
    let size = match header.gso_kind() {
        vnet::GSO_UDP_L4 => usize::from(header.gso_size),
        _ => payload.len(),
    };
    // An empty datagram is one too, and no QUIC.
    let empty = payload.is_empty().then_some(payload);
    empty.into_iter().chain(payload.chunks(size.max(1)))
}

fn allowed<O: Output>(flow: &mut Flow, judged: Judged, ctx: &mut Ctx<'_, O>) {
    deny::report_judged(flow, &judged, ctx);
    flow.facts = Some(judged.facts);
}

/// A hello was judged and refused. The flow ends with it, unless other connections were let through.
fn denied<O: Output>(
    flow: &Flow,
    quic: &mut QuicFlow,
    packet: &Packet<'_>,
    refused: Refused,
    ctx: &mut Ctx<'_, O>,
) -> Fate {
    quic.reader.deny();
    if !quic.judged {
        return Fate::Refuse(refused);
    }
    deny::report(flow, why(flow, refused), ctx);
    deny::prohibit(flow, packet, ctx);
    Fate::Drop
}

/// A datagram that cannot be judged.
fn unreadable<O: Output>(
    flow: &Flow,
    quic: &mut QuicFlow,
    refused: Refused,
    ctx: &mut Ctx<'_, O>,
) -> Fate {
    let audit_only = quic.is_audit_only();
    quic.given_up |= audit_only;
    if !audit_only && !quic.judged {
        return Fate::Refuse(refused);
    }
    let told = refused.reason == QUIC_CONNECTION_DENIED.reason;
    if !told && quic.refused.replace(refused.reason) != Some(refused.reason) {
        match audit_only {
            true => {
                deny::report_unreadable(flow, quic.judges.audited.as_deref(), &refused, ctx);
            }
            false => deny::report(flow, why(flow, refused), ctx),
        }
    }
    if audit_only {
        Fate::Forward
    } else {
        Fate::Drop
    }
}

fn why(flow: &Flow, refused: Refused) -> Why {
    Why {
        policy: flow.rule.as_ref().map(|rule| rule.policy().clone()),
        rule: flow.rule.as_ref().map(|rule| rule.rule().clone()),
        reason: refused.reason,
        detail: refused.detail.to_owned(),
        facts: refused.facts,
    }
}

fn refuse<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    refused: Refused,
    half_hello: Option<Duration>,
    ctx: &mut Ctx<'_, O>,
) {
    let facts = refused.facts.clone();
    deny::report(flow, why(flow, refused), ctx);
    flow.facts = facts.or(flow.facts.take());
    flow.drop_cache(ctx);
    deny::prohibit(flow, packet, ctx);
    flow.state = State::Denied(Refusing {
        half_hello,
        ..Refusing::default()
    });
}

fn hold<O: Output>(quic: &mut QuicFlow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    let endpoint = packet.tag.endpoint;
    let held = quic.held_bytes() + packet.frame.len();
    let room = quic.early.len() < EARLY_FRAMES_MAX
        && held <= ctx.limits.held_bytes_per_flow
        && ctx.may_hold(endpoint, held);
    if !room {
        ctx.counters.held_full += 1;
        return;
    }
    ctx.counters.held += 1;
    quic.early.push(packet.frame.to_vec());
}

/// Sends on what was held, as far as it belongs to what was let through.
fn release<O: Output>(flow: &mut Flow, quic: &mut QuicFlow, ctx: &mut Ctx<'_, O>) {
    for frame in std::mem::take(&mut quic.early) {
        let Some(packet) = Packet::reparse(&frame, flow.tag(flow.client_direction())) else {
            continue;
        };
        let known = |datagram| matches!(quic.reader.push(datagram), QuicEvent::Known);
        if datagrams(&packet).all(known) {
            ctx.forward(&frame);
        } else {
            ctx.counters.quic_dropped += 1;
        }
    }
}

/// A UDP flow that the engine before this one was reading: its open connections stay in the kernel,
/// what comes up is judged anew.
pub(crate) fn adopted(flow: &Flow, policy: &EndpointPolicy) -> State {
    let Decision { verdict, audit } = policy.decide_audited(&flow.query());
    let audited = match audit {
        Some(Audited::Inspect(rules)) => Some(rules),
        Some(Audited::Deny(_)) | None => None,
    };
    match verdict {
        FlowVerdict::Inspect(rules) => {
            let enforced = Some(rules);
            State::Quic(Box::new(QuicFlow::adopted(Judges { enforced, audited })))
        }
        FlowVerdict::Allow(_) if audited.is_some() => {
            let enforced = None;
            State::Quic(Box::new(QuicFlow::adopted(Judges { enforced, audited })))
        }
        FlowVerdict::Allow(_) => State::Open,
        FlowVerdict::Deny(_) => State::Lost,
    }
}
