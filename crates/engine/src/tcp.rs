//! TCP under a rule set: the client's bytes are judged in order before they are delivered; the
//! server's decide nothing, except its SYN-ACK and its answer to a protocol switch.

use tollgate_l7::http2::PREFACE;
use tollgate_wire::edit;
use tollgate_wire::packet::TcpHeader;

use crate::cache::{CacheEntry, Steer};
use crate::deny::{self, Position, Turn};
use crate::event::L7Facts;
use crate::flow::{Flow, State, of_direction};
use crate::inspect::{Inspection, Refused, Tell};
use crate::judge::Judged;
use crate::output::Output;
use crate::response::Answer;
use crate::segment::{Ctx, Packet, segment_end};
use crate::seq;
use crate::stream::{OPAQUE_MAX, Old};

/// Judged bytes remembered before the kernel is asked what the server has acknowledged: some twenty
/// small requests, and what an idle flow may go on holding.
const KEPT_SOFT: usize = 4 * 1024;

/// Of what all flows may still take, one flow may hold this part: the less is left, the less each
/// gets, and some flows of one pod with large heads do not take it all.
const SHARES: usize = 1024;

/// A byte of a head is held at most this often: remembered, and by the reader of the head, whose buffer
/// may have grown to twice of what is in it.
const COPIES: usize = 3;

/// How far beyond the next expected byte a segment may begin to be held. More than any sender
/// keeps in flight over a gap within the holding limits.
const HOLD_AHEAD: i32 = 4 * 1024 * 1024;

/// A packet of a known flow that is under inspection.
pub(crate) fn inspected<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    let Some(tcp) = packet.tcp() else { return };
    // Taken out so that flow and inspection can be used side by side; a denial leaves its own
    // state behind, anything else gets the inspection back.
    let State::Inspect(mut inspection) = std::mem::replace(&mut flow.state, State::Open) else {
        return;
    };
    let held = inspection.stream.held_bytes();
    if inspection.is_settled() && !inspection.is_enforced() {
        update_cache(flow, &inspection, ctx);
        pass_any(flow, packet, ctx);
    } else if flow.is_from_client(packet) {
        if tcp.flags.urg() && !inspection.is_settled() {
            urgent_segment(flow, &mut inspection, packet, ctx);
        } else {
            client_segment(flow, &mut inspection, packet, &tcp, ctx);
        }
    } else {
        server_segment(flow, &mut inspection, packet, &tcp, ctx);
    }
    let endpoint = flow.key.endpoint;
    if matches!(flow.state, State::Denied(_)) || is_released(flow) {
        return ctx.held_bytes.change(endpoint, held, 0);
    }
    ctx.held_bytes
        .change(endpoint, held, inspection.stream.held_bytes());
    flow.state = State::Inspect(inspection);
}

/// Nothing of the flow needs the engine any more.
fn is_released(flow: &Flow) -> bool {
    flow.cached
        == Some(CacheEntry {
            outbound: Steer::Pass,
            inbound: Steer::Pass,
        })
}

/// The SYN of a flow, first sent or sent again. Data on it (TCP Fast Open) is cut off: it would
/// reach the server before the handshake shows that the server takes part. The client sends it
/// again afterwards.
pub(crate) fn forward_syn<O: Output>(packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    if packet.payload().is_empty() {
        return ctx.forward(packet.frame);
    }
    forward_without_payload(packet, ctx);
}

fn forward_without_payload<O: Output>(packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    set_scratch(packet, ctx);
    if edit::truncate_payload(ctx.scratch, &packet.layout, 0).is_ok() {
        ctx.counters.trimmed += 1;
        ctx.emit_scratch();
    }
}

/// The connection is forgotten, or a SYN begins a new one in its place. If the server still holds the
/// front of a head, it must not end in order there: its FIN would look like one of the new connection.
pub(crate) fn forgotten<O: Output>(flow: &Flow, ctx: &mut Ctx<'_, O>) {
    let State::Inspect(inspection) = &flow.state else {
        return;
    };
    if !inspection.established || !inspection.must_not_end() || !inspection.is_enforced() {
        return;
    }
    let delivered = inspection.stream.next();
    let expected = of_direction(&flow.progress(ctx), flow.client_direction()).max_ack;
    if let Some(expected) = expected {
        deny::reset_server(flow, delivered, expected, ctx);
    }
}

fn server_segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    if tcp.flags.is_syn_ack() {
        inspection.established |= tcp.ack == inspection.stream.next();
        return ctx.forward(packet.frame);
    }
    let payload = packet.payload();
    let Some(watch) = &mut inspection.response else {
        return ctx.forward(packet.frame);
    };
    match watch.push(tcp.seq, payload) {
        Answer::OutOfOrder => {
            if let_go(flow, inspection, packet, None, ctx) {
                return;
            }
            ctx.counters.response_out_of_order += 1;
            return;
        }
        Answer::Waiting => {}
        Answer::Agreed => inspection.switch_answered(true),
        Answer::Declined => inspection.switch_answered(false),
        Answer::Refused(refusal) => {
            let at = Position {
                delivered: tcp.ack,
                sent: tcp.ack,
                expected: tcp.seq,
            };
            let refused = Refused {
                reason: refusal.reason,
                detail: refusal.detail,
                facts: flow.facts.clone(),
                tell: Tell::Reset,
            };
            if let_go(flow, inspection, packet, Some(&refused), ctx) {
                return;
            }
            flow.drop_cache(ctx);
            return deny::refuse_stream(flow, at, Turn::Never, refused, ctx);
        }
    }
    update_cache(flow, inspection, ctx);
    ctx.forward(packet.frame);
}

/// A segment with an urgent pointer: a server that does not ask for it inline (RFC 6093, section 2)
/// reads the stream without the byte before it. Without the pointer everyone reads the same.
fn urgent_segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    if let_go(flow, inspection, packet, None, ctx) {
        return;
    }
    let mut frame = packet.frame.to_vec();
    if edit::clear_urgent(&mut frame, &packet.layout).is_err() {
        return;
    }
    let Some(plain) = Packet::reparse(&frame, packet.tag) else {
        return;
    };
    let Some(tcp) = plain.tcp() else { return };
    ctx.counters.urgent_cleared += 1;
    client_segment(flow, inspection, &plain, &tcp, ctx);
}

fn client_segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    let payload = packet.payload();
    if payload.is_empty() {
        return empty_segment(flow, inspection, packet, tcp, ctx);
    }
    if !is_established(flow, inspection, ctx) {
        return before_handshake(flow, inspection, packet, ctx);
    }
    let ahead = seq::distance(tcp.seq, inspection.stream.next());
    if ahead > 0 && inspection.is_settled() {
        return beyond_settled(flow, inspection, packet, ctx);
    }
    if ahead > 0 && !inspection.leap(ahead.unsigned_abs()) {
        return hold(flow, inspection, packet, ahead, ctx);
    }
    if !segment(flow, inspection, packet, tcp, ctx) {
        return;
    }
    while let Some(frame) = inspection.stream.take_ready() {
        let Some(held) = Packet::reparse(&frame, packet.tag) else {
            continue;
        };
        let Some(tcp) = held.tcp() else { continue };
        let goes_on = if held.payload().is_empty() {
            end_of_stream(flow, inspection, &held, &tcp, ctx)
        } else {
            segment(flow, inspection, &held, &tcp, ctx)
        };
        if !goes_on {
            return;
        }
    }
}

fn before_handshake<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    if !let_go(flow, inspection, packet, None, ctx) {
        ctx.counters.before_handshake += 1;
    }
}

/// Whether the server has answered this flow's SYN with a SYN-ACK. Any other acknowledgement proves
/// nothing: it may belong to an older connection between the same ports.
fn is_established<O: Output>(
    flow: &Flow,
    inspection: &mut Inspection,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    if !inspection.established {
        let progress = flow.progress(ctx);
        let server = of_direction(&progress, flow.client_direction().reverse());
        inspection.established = server.syn_ack == Some(inspection.stream.next());
    }
    inspection.established
}

/// ACK, FIN or RST without payload.
fn empty_segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) {
    if !tcp.flags.fin() || tcp.flags.rst() || inspection.is_settled() {
        return pass(flow, packet, ctx);
    }
    // It would be the end of an older connection that the server still has.
    if !is_established(flow, inspection, ctx) {
        return before_handshake(flow, inspection, packet, ctx);
    }
    let ahead = seq::distance(tcp.seq, inspection.stream.next());
    if ahead > 0 && !inspection.leap(ahead.unsigned_abs()) {
        // The server would remember it, and cut the stream there once it has got so far.
        return hold(flow, inspection, packet, ahead, ctx);
    }
    end_of_stream(flow, inspection, packet, tcp, ctx);
}

/// A FIN without payload at or before the next expected byte. False: the flow was denied.
fn end_of_stream<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    if ends_in_head(inspection, tcp.seq) {
        if let_go(flow, inspection, packet, Some(&head_incomplete()), ctx) {
            return true;
        }
        let at = Position {
            delivered: inspection.stream.next(),
            sent: segment_end(tcp, 0),
            expected: tcp.ack,
        };
        flow.drop_cache(ctx);
        deny::refuse_stream(flow, at, Turn::Never, head_incomplete(), ctx);
        return false;
    }
    if fin_fits(inspection, tcp.seq) {
        pass(flow, packet, ctx);
    } else if !let_go(flow, inspection, packet, None, ctx) {
        ctx.counters.fin_misplaced += 1;
    }
    true
}

/// A flow that only policies in audit mode look at, and that cannot be read any further without being
/// disturbed (`why`: because of its form), goes on unread. False: a rule is enforced.
fn let_go<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    why: Option<&Refused>,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    if inspection.is_enforced() {
        return false;
    }
    match why {
        None => ctx.counters.audit_unread += 1,
        Some(why) => {
            deny::report_unreadable(flow, inspection.judges.audited.as_deref(), why, ctx);
        }
    }
    stop_reading(flow, inspection, 0);
    update_cache(flow, inspection, ctx);
    for frame in inspection.stream.take_held() {
        if let Some(held) = Packet::reparse(&frame, packet.tag) {
            pass(flow, &held, ctx);
        }
    }
    pass_any(flow, packet, ctx);
    true
}

/// Nothing more is read of a flow that no rule is enforced on. The facts of what was read before do not
/// stand for what follows, should a rule be enforced later.
fn stop_reading(flow: &mut Flow, inspection: &mut Inspection, skipped: usize) {
    flow.facts = None;
    inspection.give_up(skipped);
}

/// Whether the stream would end at `fin`, in the middle of a head.
fn ends_in_head(inspection: &Inspection, fin: u32) -> bool {
    fin == inspection.stream.next() && inspection.must_not_end()
}

/// Whether the stream may end at `fin`: behind everything that was judged, or inside a body. Anywhere
/// else the server would be left with the front part of what was judged as a whole.
fn fin_fits(inspection: &Inspection, fin: u32) -> bool {
    inspection.is_settled()
        || fin == inspection.stream.next()
        || inspection.stream.is_opaque_at(fin)
}

fn head_incomplete() -> Refused {
    Refused {
        reason: "head-incomplete",
        detail: "the connection was closed in the middle of a request head or hello",
        facts: None,
        tell: Tell::Reset,
    }
}

/// TLS after its hello, or a switched protocol: the kernel's window has been used up. Once the
/// server has acknowledged everything that was judged, no byte can matter any more.
fn beyond_settled<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    if server_ack(flow, ctx).is_some_and(|ack| !seq::before(ack, inspection.stream.next())) {
        flow.put_cache(
            CacheEntry {
                outbound: Steer::Pass,
                inbound: Steer::Pass,
            },
            ctx,
        );
    }
    pass(flow, packet, ctx);
}

/// Holds back a segment that begins `ahead` of the next expected byte.
fn hold<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    ahead: i32,
    ctx: &mut Ctx<'_, O>,
) {
    let room = inspection.stream.held_bytes() + packet.frame.len()
        <= ctx.limits.held_bytes_per_flow
        && ctx.may_hold(flow.key.endpoint, packet.frame.len());
    if ahead > HOLD_AHEAD || !room {
        if !let_go(flow, inspection, packet, None, ctx) {
            ctx.counters.held_full += 1;
        }
        return;
    }
    ctx.counters.held += 1;
    let start = inspection.stream.next().wrapping_add_signed(ahead);
    inspection.stream.hold(start, packet.frame);
}

/// A segment that begins at or before the next expected byte. False: the flow was denied.
fn segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let payload = packet.payload();
    let next = inspection.stream.next();
    let old_len = (next.wrapping_sub(tcp.seq) as usize).min(payload.len());
    let (old, new) = payload.split_at(old_len);
    let front = match old.is_empty() {
        true => Front::Judged,
        false => check_old(flow, inspection, tcp.seq, old, ctx),
    };
    if front != Front::Judged && let_go(flow, inspection, packet, None, ctx) {
        return true;
    }
    if new.is_empty() {
        return old_segment(flow, inspection, packet, tcp, front, ctx);
    }
    if !has_room(flow, inspection, new.len(), ctx) {
        // Under an enforced rule it is dropped, and sent again.
        let_go(flow, inspection, packet, None, ctx);
        return true;
    }
    if !judge(flow, inspection, packet, tcp, new, ctx) {
        return false;
    }
    update_cache(flow, inspection, ctx);
    if front == Front::Judged {
        pass(flow, packet, ctx);
    } else {
        forward_trimmed(flow, packet, old_len, ctx);
    }
    true
}

/// What the bytes of a segment from before `next` are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    /// Those that were judged.
    Judged,
    /// Others, or they cannot be compared any more, where the server has said that it has its own.
    Acknowledged,
    /// Others, that the server might take.
    Other,
}

/// A segment without a new byte. False: the flow was denied.
fn old_segment<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    front: Front,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let len = packet.payload().len();
    let fin = TcpHeader {
        seq: tcp.seq.wrapping_add(seq::span(len)),
        ..*tcp
    };
    match front {
        Front::Other => true,
        Front::Judged if tcp.flags.fin() => end_of_stream(flow, inspection, packet, &fin, ctx),
        Front::Judged => {
            pass(flow, packet, ctx);
            true
        }
        Front::Acknowledged if tcp.flags.fin() => {
            let mut frame = packet.frame.to_vec();
            if edit::trim_payload_front(&mut frame, &packet.layout, len).is_err() {
                return true;
            }
            match Packet::reparse(&frame, packet.tag) {
                Some(bare) => end_of_stream(flow, inspection, &bare, &fin, ctx),
                None => true,
            }
        }
        Front::Acknowledged => {
            forward_without_payload(packet, ctx);
            true
        }
    }
}

/// Whether bytes from before `next` are those that were judged.
fn check_old<O: Output>(
    flow: &mut Flow,
    inspection: &Inspection,
    start: u32,
    old: &[u8],
    ctx: &mut Ctx<'_, O>,
) -> Front {
    let known = inspection.stream.check_old(start, old);
    if known == Old::Same {
        return Front::Judged;
    }
    // A keep-alive probe may carry any byte there (RFC 9293, section 3.8.4).
    let end = start.wrapping_add(seq::span(old.len()));
    if believable_ack(flow, inspection, ctx).is_some_and(|ack| !seq::before(ack, end)) {
        return Front::Acknowledged;
    }
    match known {
        Old::Forgotten => ctx.counters.retransmission_unknown += 1,
        Old::Different | Old::Same => ctx.counters.retransmission_differs += 1,
    }
    Front::Other
}

/// Makes room among the judged bytes. False: too many are unacknowledged, which is counted.
fn has_room<O: Output>(
    flow: &Flow,
    inspection: &mut Inspection,
    new_len: usize,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let free = ctx.judged_bytes.free(flow.key.endpoint, ctx.limits);
    let per_flow = ctx.limits.kept_bytes_per_flow;
    let allowance = |free: usize| per_flow.min(free / SHARES);
    if inspection.stream.memory() > KEPT_SOFT.min(allowance(free.bytes()))
        && let Some(ack) = believable_ack(flow, inspection, ctx)
    {
        inspection.stream.acknowledged(ack);
    }
    let needed = new_len.saturating_mul(COPIES);
    let memory = inspection.stream.memory();
    free.has_room(ctx.counters, |free| {
        free >= needed && memory <= allowance(free)
    })
}

/// What the server has acknowledged of the client's bytes.
fn server_ack<O: Output>(flow: &Flow, ctx: &mut Ctx<'_, O>) -> Option<u32> {
    let progress = flow.progress(ctx);
    of_direction(&progress, flow.client_direction().reverse()).max_ack
}

/// What the server has acknowledged, unless it was never sent: the server did not say that, and
/// believing it would let judged bytes be replaced. One more than was judged is the FIN.
fn believable_ack<O: Output>(
    flow: &Flow,
    inspection: &Inspection,
    ctx: &mut Ctx<'_, O>,
) -> Option<u32> {
    let next = inspection.stream.next();
    server_ack(flow, ctx).filter(|ack| inspection.is_settled() || seq::distance(*ack, next) <= 1)
}

/// Shows new bytes to the inspection. False: the flow was denied.
fn judge<O: Output>(
    flow: &mut Flow,
    inspection: &mut Inspection,
    packet: &Packet<'_>,
    tcp: &TcpHeader,
    new: &[u8],
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let delivered = inspection.stream.next();
    let first_request = inspection.requests == 0;
    let mut let_through = Vec::new();
    inspection.calm(ctx.now);
    let mut outcome = inspection.feed(new, &mut |judged| let_through.push(judged));
    if outcome.is_ok() && tcp.flags.fin() && inspection.must_not_end() {
        outcome = Err(head_incomplete());
    }
    note_first(flow, inspection, ctx);
    if outcome.is_ok() && inspection.asks_too_early(tcp.ack, || has_all_now(flow, tcp.ack, ctx)) {
        let why = tollgate_l7::refusal::SMTP_TOO_EARLY;
        outcome = Err(Refused::form(why.reason, why.detail));
    }
    if let Err(refused) = outcome {
        if inspection.judges.enforced.is_none() {
            report_let_through(flow, &let_through, ctx);
            deny::report_unreadable(flow, inspection.judges.audited.as_deref(), &refused, ctx);
            let read = inspection.stream.next().wrapping_sub(delivered) as usize;
            stop_reading(flow, inspection, new.len().saturating_sub(read));
            return true;
        }
        count(refused.facts.is_some(), &refused.tell, ctx);
        flow.drop_cache(ctx);
        let at = Position {
            delivered,
            sent: segment_end(tcp, packet.payload().len()),
            expected: tcp.ack,
        };
        let turn = match refused.tell {
            _ if !let_through.is_empty() => Turn::Never,
            // Answers to other streams may be under way, and a stop in them may be anywhere.
            Tell::Http2 { .. } if first_request => behind_server(flow, inspection, &at, tcp.ack),
            Tell::Http2 { .. } => Turn::Never,
            _ if first_request || is_quiet(flow, inspection, tcp.ack) => Turn::Now,
            _ => Turn::Never,
        };
        deny::refuse_stream(flow, at, turn, refused, ctx);
        return false;
    }
    // Only where an answer is awaited: it asks the kernel, and most requests have none to be watched.
    if inspection.response.is_some() {
        let begin = answer_begins(flow, inspection, tcp.ack, ctx);
        if let Some(watch) = &mut inspection.response {
            watch.starts_at(begin);
        }
    }
    if let_through.is_empty() {
        return true;
    }
    let is_answered = first_request || seq::before(inspection.last_request_ack, tcp.ack);
    inspection.pipelined |= let_through.len() > 1 || !is_answered;
    inspection.last_request_ack = tcp.ack;
    report_let_through(flow, &let_through, ctx);
    flow.facts = let_through.pop().map(|judged| judged.facts);
    true
}

fn report_let_through<O: Output>(flow: &Flow, all: &[Judged], ctx: &mut Ctx<'_, O>) {
    for judged in all {
        count(true, &tell_of(&judged.facts), ctx);
        deny::report_judged(flow, judged, ctx);
    }
}

fn tell_of(facts: &L7Facts) -> Tell {
    match facts {
        L7Facts::Http { .. } => Tell::Http { head_only: false },
        L7Facts::Tls { .. } => Tell::Tls,
    }
}

fn count<O>(judged: bool, tell: &Tell, ctx: &mut Ctx<'_, O>) {
    match tell {
        Tell::Http { .. } | Tell::Http2 { .. } if judged => ctx.counters.http_requests += 1,
        Tell::Tls if judged => ctx.counters.tls_hellos += 1,
        Tell::Http { .. } | Tell::Http2 { .. } | Tell::Tls | Tell::Reset => {}
    }
}

/// No response can be under way: the client has acknowledged something since its last request,
/// and everything that the server has sent. (A client that pipelines is reset instead.)
fn is_quiet(flow: &Flow, inspection: &Inspection, client_ack: u32) -> bool {
    !inspection.pipelined
        && seq::before(inspection.last_request_ack, client_ack)
        && has_all(flow, client_ack)
}

/// The place behind the frames with which a server of HTTP/2 begins without being asked. Once it has
/// the client's preface, they are on their way.
fn behind_server(flow: &Flow, inspection: &Inspection, at: &Position, client_ack: u32) -> Turn {
    let server = of_direction(&flow.seen, flow.client_direction().reverse());
    let Some(place) = server.max_seq.filter(|_| !server.fin) else {
        return Turn::Never;
    };
    let heard = inspection.heard_first != Some(place);
    let preface = flow
        .syn
        .map(|syn| syn.wrapping_add(1).wrapping_add(seq::span(PREFACE.len())));
    let asked = preface.is_none_or(|end| !seq::before(at.delivered, end));
    match seq::distance(place, client_ack) {
        0 if heard || !asked => Turn::Now,
        0.. => Turn::Behind { place, heard },
        _ => Turn::Never,
    }
}

/// The same, when the kernel may have passed more since.
fn has_all_now<O: Output>(flow: &Flow, client_ack: u32, ctx: &mut Ctx<'_, O>) -> bool {
    server_end(flow, ctx) == Some(client_ack)
}

/// Behind the last byte that the server has sent.
fn server_end<O: Output>(flow: &Flow, ctx: &mut Ctx<'_, O>) -> Option<u32> {
    let progress = flow.progress(ctx);
    of_direction(&progress, flow.client_direction().reverse()).max_seq
}

/// Where the answer to a request begins: behind what the server has sent. What the client says that it
/// has read may be a lie; but where earlier answers go by unseen it is all there is, and an
/// agreement on a connection in use is doubted in any case (`Inspection::doubted`).
fn answer_begins<O: Output>(
    flow: &Flow,
    inspection: &Inspection,
    client_ack: u32,
    ctx: &mut Ctx<'_, O>,
) -> u32 {
    match server_end(flow, ctx) {
        Some(end) if !(ctx.out.passes_unseen() && inspection.requests > 1) => end,
        Some(end) if seq::before(client_ack, end) => end,
        _ => client_ack,
    }
}

fn note_first<O: Output>(flow: &Flow, inspection: &mut Inspection, ctx: &mut Ctx<'_, O>) {
    if inspection.heard_first.is_none() {
        inspection.heard_first = server_end(flow, ctx);
    }
}

/// The client has everything that the server has sent.
fn has_all(flow: &Flow, client_ack: u32) -> bool {
    let server = of_direction(&flow.seen, flow.client_direction().reverse());
    server.max_seq == Some(client_ack)
}

/// Brings the kernel's entry in line with the inspection, before the frame that changed it goes
/// out: what follows the frame must meet the new entry.
pub(crate) fn update_cache<O: Output>(
    flow: &mut Flow,
    inspection: &Inspection,
    ctx: &mut Ctx<'_, O>,
) {
    let client_is_local = flow.client_direction() == tollgate_wire::tag::Direction::Outbound;
    flow.put_cache(inspection.cache_entry(client_is_local), ctx);
}

/// Sends a segment of either side on as it came.
fn pass_any<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    match flow.is_from_client(packet) {
        true => pass(flow, packet, ctx),
        false => ctx.forward(packet.frame),
    }
}

/// Sends a segment of the client on as it came.
fn pass<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    note_fin(flow, packet);
    ctx.forward(packet.frame);
}

fn note_fin(flow: &mut Flow, packet: &Packet<'_>) {
    if packet.tcp().is_some_and(|tcp| tcp.flags.fin()) {
        flow.note_client_fin();
    }
}

/// Cuts the first `len` payload bytes off a segment: they are not those that were judged.
fn forward_trimmed<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    len: usize,
    ctx: &mut Ctx<'_, O>,
) {
    note_fin(flow, packet);
    set_scratch(packet, ctx);
    if edit::trim_payload_front(ctx.scratch, &packet.layout, len).is_ok() {
        ctx.counters.trimmed += 1;
        ctx.emit_scratch();
    }
}

fn set_scratch<O>(packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    ctx.scratch.clear();
    ctx.scratch.extend_from_slice(packet.frame);
}

const _: () = assert!(
    OPAQUE_MAX < 1 << 31,
    "a window must stay below half the sequence space"
);
