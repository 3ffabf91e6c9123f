//! The engine: where frames, policy changes, ended flows and time come in.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_policy::{EndpointPolicy, Side};
use tollgate_wire::packet::{self, Fragment, L4};
use tollgate_wire::tag::{EndpointId, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

use crate::cache::{CacheEntry, Progress};
use crate::counters::Counters;
use crate::datagram::{
    is_icmp_error, likely_opener, opener, quoted_key, speaks_for_another, speaks_to_itself,
};
use crate::deny;
use crate::dns;
use crate::event::{Event, EventKind, L7Facts};
use crate::flow::{Flow, Refusing, State, of_direction};
use crate::flow_table::{FlowSummary, FlowTable, TableFull};
use crate::fragment::{FragmentKey, Fragments};
use crate::judged::Taken;
use crate::key::FlowKey;
use crate::limits::Limits;
use crate::lost;
use crate::names::NameTable;
use crate::open::{self, PASS};
use crate::output::Output;
use crate::policy_change;
use crate::quic;
use crate::segment::{Ctx, Packet, TCP};
use crate::table::PolicyTable;
use crate::tcp;
use crate::wheel::{Alarm, Wheel};

/// How long an ended flow is remembered, so that the last ACK and retransmitted FINs find it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a denied flow is remembered after its last packet, so that stragglers are answered
/// and one denial is reported once.
const DENIED_LINGER: Duration = Duration::from_secs(10);

/// How often a half-closed flow is looked at: the client's FIN may have come up and the server's not,
/// and then nobody tells that both are there.
const HALF_CLOSED_CHECK: Duration = Duration::from_secs(2);

/// What one engine hands to the next one over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Endpoint id.
    pub endpoint: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The endpoint's address and port.
    pub local: std::net::SocketAddr,
    /// The other side's.
    pub remote: std::net::SocketAddr,
    /// Who opened the flow.
    pub side: Side,
    /// The latest L7 facts.
    pub facts: Option<L7Facts>,
    /// Names known for the remote address when the flow was opened.
    #[serde(default)]
    pub names: Vec<Arc<str>>,
}

/// One worker's engine. See the crate's documentation.
pub struct Engine {
    policy: Arc<PolicyTable>,
    names: Arc<NameTable>,
    flows: FlowTable,
    fragments: Fragments,
    wheel: Wheel,
    limits: Limits,
    counters: Counters,
    scratch: Vec<u8>,
    held_bytes: Taken,
    judged_bytes: Taken,
    next_id: u64,
}

/// A context that borrows the engine's parts beside the flow table.
macro_rules! ctx {
    ($engine:expr, $now:expr, $out:expr) => {
        &mut Ctx {
            out: $out,
            counters: &mut $engine.counters,
            limits: &$engine.limits,
            scratch: &mut $engine.scratch,
            held_bytes: &mut $engine.held_bytes,
            judged_bytes: &mut $engine.judged_bytes,
            now: $now,
        }
    };
}

impl Engine {
    /// An engine without flows.
    pub fn new(policy: Arc<PolicyTable>, limits: Limits) -> Self {
        Self {
            policy,
            names: Arc::default(),
            flows: FlowTable::default(),
            fragments: Fragments::default(),
            wheel: Wheel::new(),
            limits,
            counters: Counters::default(),
            scratch: Vec::new(),
            held_bytes: Taken::default(),
            judged_bytes: Taken::default(),
            next_id: 1,
        }
    }

    /// Where names are learnt and looked up, shared with the other workers. Without it there are no
    /// resolvers, and nothing is known by name. To be called before the first frame.
    pub fn set_names(&mut self, names: Arc<NameTable>) {
        self.names = names;
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Flows in the table.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Bytes of memory held: the flow table with what each flow needs, frames held back, judged bytes
    /// that are remembered, and what readers hold of unfinished heads. What the allocator adds, names
    /// and facts of verdicts, and alarms of flows that are gone are not counted.
    pub fn memory(&self) -> usize {
        self.flows.memory()
            + self.held_bytes.all()
            + self.judged_bytes.all()
            + self.fragments.memory()
    }

    /// Bytes of memory of what is judged: inspections, remembered bytes, readers.
    pub fn judged_bytes(&self) -> usize {
        self.judged_bytes.all()
    }

    /// The same of one endpoint's flows.
    pub fn judged_bytes_of(&self, endpoint: EndpointId) -> usize {
        self.judged_bytes.of(endpoint)
    }

    /// [`Engine::judged_bytes`] and [`Engine::held_bytes`], counted flow by flow; for tests of both.
    #[doc(hidden)]
    pub fn counted_anew(&mut self) -> (usize, usize) {
        let mut counted = (0, 0);
        for at in self.flows.occupied() {
            if let Some(flow) = self.flows.get_mut(at) {
                counted.0 += flow.judged_bytes();
                counted.1 += flow.held_bytes();
            }
        }
        counted
    }

    /// Bytes of out-of-order frames that are held.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.all()
    }

    /// A frame that the kernel could not decide: virtio-net header, Ethernet, 802.1Q tag.
    pub fn handle<O: Output>(&mut self, now: Duration, frame: &[u8], out: &mut O) {
        self.counters.frames_in += 1;
        self.counters.bytes_in += frame.len() as u64;
        let Some(packet) = self.read(frame) else {
            return;
        };
        let Some(policy) = self.policy.get(packet.tag.endpoint).cloned() else {
            self.counters.bad_tag += 1;
            return;
        };
        if speaks_to_itself(&packet, &policy) {
            self.counters.spoofed += 1;
            return;
        }
        if speaks_for_another(&packet, &policy) {
            self.counters.foreign_source += 1;
            return;
        }
        match packet.layout.l4 {
            L4::Fragment(fragment) => self.fragment(now, &packet, &fragment, &policy, out),
            L4::Icmp(icmp) if is_icmp_error(packet.layout.protocol, &icmp) => {
                self.icmp_error(now, &packet, out);
            }
            _ => self.packet(now, &packet, &policy, out),
        }
    }

    fn read<'a>(&mut self, frame: &'a [u8]) -> Option<Packet<'a>> {
        let Ok(parsed) = packet::parse(frame.get(VNET_HDR_LEN..).unwrap_or_default()) else {
            self.counters.malformed += 1;
            return None;
        };
        let packet::Packet::Ip(layout) = parsed else {
            self.counters.not_ip += 1;
            return None;
        };
        let Some(tag) = layout.eth.vlan.and_then(Tag::from_vlan_id) else {
            self.counters.bad_tag += 1;
            return None;
        };
        let packet = Packet { frame, layout, tag };
        if !packet.can_arrive() {
            self.counters.decoy += 1;
            return None;
        }
        Some(packet)
    }

    fn packet<O: Output>(
        &mut self,
        now: Duration,
        packet: &Packet<'_>,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        let found = self.flows.find(&FlowKey::of(packet.tag, &packet.layout));
        match (packet.tcp(), found) {
            (Some(tcp), found) if tcp.flags.is_syn() => {
                self.syn(now, packet, tcp.seq, found, policy, out);
            }
            (_, Some(at)) => self.known(now, at, packet, policy, out),
            (Some(_), None) => self.unknown_tcp(now, packet, policy, out),
            (None, None) => self.open(now, packet, policy, out),
        }
    }

    /// A SYN: a new flow, the same SYN again, or a new flow in an old one's place.
    fn syn<O: Output>(
        &mut self,
        now: Duration,
        packet: &Packet<'_>,
        seq: u32,
        found: Option<usize>,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        let Some(at) = found else {
            return self.open(now, packet, policy, out);
        };
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        let ctx = ctx!(self, now, out);
        if !flow.is_from_client(packet) && is_handshaking(flow) {
            ctx.counters.simultaneous_open += 1;
            return;
        }
        // After an end the same number opens a new connection: what is remembered is of the old one.
        let ended = flow.closing || Flow::has_ended(&flow.progress(ctx));
        // Whoever can speak in the server's name could have the flow judged by what may be opened towards
        // the endpoint. If its connection is alive it answers with a challenge (RFC 5961, section 4), and
        // the RST to that, if the other side has none, ends the flow.
        if !flow.is_from_client(packet) && !ended && is_judged(flow) {
            ctx.counters.syn_in_servers_name += 1;
            return tcp::forward_syn(packet, ctx);
        }
        let is_denied = matches!(flow.state, State::Denied(_));
        if flow.syn == Some(seq) && flow.is_from_client(packet) && (!ended || is_denied) {
            flow.note(packet, now);
            let held = flow.judged_bytes();
            match &flow.state {
                State::Denied(_) => deny::straggler(flow, packet, ctx),
                State::Open | State::Lost | State::Inspect(_) | State::Quic(_) | State::Dns(_) => {
                    tcp::forward_syn(packet, ctx);
                }
            }
            return ctx.recount(held, flow);
        }
        self.remove(at, now, out);
        self.open(now, packet, policy, out);
    }

    /// A packet of a flow in the table.
    fn known<O: Output>(
        &mut self,
        now: Duration,
        at: usize,
        packet: &Packet<'_>,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        flow.note(packet, now);
        let ctx = ctx!(self, now, out);
        flow.note_reset(packet, ctx);
        let held = flow.judged_bytes();
        let was_denied = matches!(flow.state, State::Denied(_));
        if matches!(flow.state, State::Lost) {
            flow.state = lost::regained(flow, policy);
        }
        match &flow.state {
            State::Open => {
                flow.put_cache(PASS, ctx);
                ctx.forward(packet.frame);
            }
            State::Inspect(_) => tcp::inspected(flow, packet, ctx),
            State::Quic(_) => quic::inspected(flow, packet, ctx),
            State::Dns(_) => {
                if let Some(policy) = self.policy.get(flow.key.endpoint) {
                    let names = &self.names;
                    dns::watched(flow, packet, &dns::Reading { policy, names }, ctx);
                }
            }
            State::Lost => lost::end(flow, packet, ctx),
            State::Denied(_) => deny::straggler(flow, packet, ctx),
        }
        ctx.recount(held, flow);
        if !was_denied && matches!(flow.state, State::Denied(_)) {
            let alarm = Alarm {
                index: at,
                id: flow.id,
            };
            self.wheel.arm(now + DENIED_LINGER, alarm);
        }
        let ends = packet
            .tcp()
            .is_some_and(|tcp| tcp.flags.fin() || tcp.flags.rst());
        if ends && !flow.closing {
            flow.closing = Flow::has_ended(&flow.seen);
            self.wheel.arm(
                now + LINGER,
                Alarm {
                    index: at,
                    id: flow.id,
                },
            );
        }
    }

    /// The first packet of a flow.
    fn open<O: Output>(
        &mut self,
        now: Duration,
        packet: &Packet<'_>,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        if !self.has_room(packet.tag.endpoint) {
            return;
        }
        let mut flow = self.new_flow(opener(packet), packet, now);
        flow.note(packet, now);
        flow.names = self.names_of(&flow, policy, now);
        let ctx = ctx!(self, now, out);
        let decision = policy.decide_audited_named(&flow.query(), &flow.names);
        let names = &self.names;
        open::begin(
            &mut flow,
            packet,
            decision,
            &dns::Reading { policy, names },
            ctx,
        );
        self.insert(flow, now);
    }

    /// A TCP packet in the middle of a connection that is not in the table: open before the
    /// engine was, or forgotten. It may go on only if no L7 fact is needed.
    fn unknown_tcp<O: Output>(
        &mut self,
        now: Duration,
        packet: &Packet<'_>,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        let key = FlowKey::of(packet.tag, &packet.layout);
        let likely = likely_opener(&key);
        let mut flow = self.new_flow(likely.unwrap_or(Side::Egress), packet, now);
        flow.note(packet, now);
        flow.names = self.names_of(&flow, policy, now);
        let mut refusal = lost::refusal_without_facts(&flow, policy);
        if likely.is_none() && refusal.is_none() {
            flow.side = Side::Ingress;
            refusal = lost::refusal_without_facts(&flow, policy);
        }
        let ctx = ctx!(self, now, out);
        let Some(why) = refusal else {
            if self.flows.room_for(key.endpoint, ctx.limits).is_err() {
                ctx.counters.flow_table_full += 1;
                return;
            }
            flow.put_cache(PASS, ctx);
            deny::report_allowed(&flow, None, ctx);
            ctx.forward(packet.frame);
            return self.insert(flow, now);
        };
        ctx.counters.unknown_flow += 1;
        deny::reset_unknown(&flow, packet, ctx);
        // Late FINs and ACKs of a flow that ended are no news; data is, once.
        if packet.payload().is_empty() || self.flows.room_for(key.endpoint, ctx.limits).is_err() {
            return;
        }
        deny::report(&flow, why, ctx);
        flow.state = State::Denied(Refusing::default());
        self.insert(flow, now);
    }

    /// ICMP errors go with the flow whose packet they quote.
    fn icmp_error<O: Output>(&mut self, now: Duration, packet: &Packet<'_>, out: &mut O) {
        let ctx = ctx!(self, now, out);
        let allowed = quoted_key(packet).is_some_and(|key| match self.flows.find(&key) {
            Some(at) => self
                .flows
                .get_mut(at)
                .is_some_and(|flow| !matches!(flow.state, State::Denied(_))),
            None => is_passed_by_kernel(&key, ctx),
        });
        if allowed {
            ctx.forward(packet.frame);
        } else {
            ctx.counters.icmp_unrelated += 1;
        }
    }

    fn fragment<O: Output>(
        &mut self,
        now: Duration,
        packet: &Packet<'_>,
        fragment: &Fragment,
        policy: &EndpointPolicy,
        out: &mut O,
    ) {
        let key = FragmentKey {
            tag: packet.tag,
            src: packet.layout.src,
            dst: packet.layout.dst,
            protocol: packet.layout.protocol,
            id: fragment.id,
        };
        if fragment.offset > 0 {
            if !self.fragments.is_allowed(&key, now) {
                self.counters.fragment_unknown += 1;
                return;
            }
            return ctx!(self, now, out).forward(packet.frame);
        }
        if packet.layout.protocol == TCP {
            self.counters.fragment_refused += 1;
            return;
        }
        let flow_key = FlowKey::of(packet.tag, &packet.layout);
        match self.flows.find(&flow_key) {
            Some(at) => self.known(now, at, packet, policy, out),
            // Fragments are steered by address alone: the flow may be another worker's.
            None if is_passed_by_kernel(&flow_key, ctx!(self, now, out)) => {
                ctx!(self, now, out).forward(packet.frame);
            }
            None => self.open(now, packet, policy, out),
        }
        let allowed = match self.flows.find(&flow_key) {
            Some(at) => self
                .flows
                .get_mut(at)
                .is_some_and(|flow| passes_fragments(flow)),
            None => is_passed_by_kernel(&flow_key, ctx!(self, now, out)),
        };
        if !allowed {
            self.fragments.deny(&key);
        } else if !self.fragments.allow(key, now, self.limits.fragments) {
            self.counters.fragments_full += 1;
        }
    }

    fn has_room(&mut self, endpoint: EndpointId) -> bool {
        match self.flows.room_for(endpoint, &self.limits) {
            Ok(()) => true,
            Err(TableFull::Flows) => {
                self.counters.flow_table_full += 1;
                false
            }
            Err(TableFull::Endpoint) => {
                self.counters.endpoint_flows_full += 1;
                false
            }
        }
    }

    fn new_flow(&mut self, side: Side, packet: &Packet<'_>, now: Duration) -> Flow {
        let id = self.next_id;
        self.next_id += 1;
        Flow::new(id, side, packet, now)
    }

    /// The names known for a flow's remote address, if the policy asks for any.
    fn names_of(&self, flow: &Flow, policy: &EndpointPolicy, now: Duration) -> Box<[Arc<str>]> {
        if !policy.wants_names() {
            return Box::default();
        }
        let known = self
            .names
            .names_for(flow.key.endpoint, &flow.key.remote, now);
        known.into()
    }

    fn insert(&mut self, flow: Flow, now: Duration) {
        self.counters.flows_opened += 1;
        self.judged_bytes
            .change(flow.key.endpoint, 0, flow.judged_bytes());
        let id = flow.id;
        let patience = patience(&flow, &flow.seen, &self.limits);
        let index = self.flows.insert(flow);
        self.wheel.arm(now + patience, Alarm { index, id });
    }

    fn remove<O: Output>(&mut self, at: usize, now: Duration, out: &mut O) {
        let Some(mut flow) = self.flows.remove(at) else {
            return;
        };
        self.counters.flows_closed += 1;
        let ctx = ctx!(self, now, out);
        ctx.held_bytes
            .change(flow.key.endpoint, flow.held_bytes(), 0);
        let held = flow.judged_bytes();
        ctx.judged_bytes.change(flow.key.endpoint, held, 0);
        deny::forget_last_word(&mut flow, ctx);
        tcp::forgotten(&flow, ctx);
        if !ctx.out.wants_all() {
            if flow.cached.is_some() {
                ctx.out.cache_delete(&flow.key);
            }
            return;
        }
        flow.drop_cache(ctx);
        let kind = EventKind::Closed {
            bytes_out: flow.seen.outbound.bytes,
            bytes_in: flow.seen.inbound.bytes,
            packets_out: flow.seen.outbound.packets,
            packets_in: flow.seen.inbound.packets,
        };
        ctx.out.event(Event {
            flow_id: flow.id,
            key: flow.key,
            side: flow.side,
            kind,
        });
    }

    /// The kernel saw the end of a flow (both FINs, or an RST).
    pub fn flow_closed<O: Output>(&mut self, now: Duration, key: &FlowKey, out: &mut O) {
        let Some(at) = self.flows.find(key) else {
            return;
        };
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        let ctx = ctx!(self, now, out);
        // The news may be of a flow that a new one has replaced since.
        if flow.closing || !Flow::has_ended(&flow.progress(ctx)) {
            return;
        }
        flow.closing = true;
        self.wheel.arm(
            now + LINGER,
            Alarm {
                index: at,
                id: flow.id,
            },
        );
    }

    /// Lets time pass: forgets flows that ended or fell silent. To be called about once a second.
    pub fn tick<O: Output>(&mut self, now: Duration, out: &mut O) {
        for alarm in self.wheel.due(now) {
            let Some(flow) = self.flows.get_mut(alarm.index) else {
                continue;
            };
            if flow.id != alarm.id {
                continue;
            }
            match time_left(flow, ctx!(self, now, out)) {
                Some(left) => self.wheel.arm(now + left, alarm),
                None => self.remove(alarm.index, now, out),
            }
        }
    }

    /// Puts a new policy in force: every flow is judged again, and what it forbids is cut.
    pub fn set_policy<O: Output>(&mut self, now: Duration, policy: Arc<PolicyTable>, out: &mut O) {
        self.policy = policy;
        for at in self.flows.occupied() {
            self.recheck(at, now, out);
        }
    }

    fn recheck<O: Output>(&mut self, at: usize, now: Duration, out: &mut O) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        let was_denied = matches!(flow.state, State::Denied(_));
        let ctx = ctx!(self, now, out);
        let held = flow.judged_bytes();
        let stays = policy_change::recheck(flow, &self.policy, &self.names, ctx);
        ctx.recount(held, flow);
        if !stays {
            return self.remove(at, now, out);
        }
        if !was_denied && matches!(flow.state, State::Denied(_)) {
            self.wheel.arm(
                now + DENIED_LINGER,
                Alarm {
                    index: at,
                    id: flow.id,
                },
            );
        }
    }

    /// What the next engine should know of the flows in the table.
    pub fn remember(&mut self) -> Vec<Remembered> {
        let mut remembered = Vec::new();
        for at in self.flows.occupied() {
            let Some(flow) = self.flows.get_mut(at) else {
                continue;
            };
            if flow.cached.is_some() && !matches!(flow.state, State::Denied(_)) {
                remembered.push(Remembered {
                    endpoint: flow.key.endpoint.get(),
                    protocol: flow.key.protocol,
                    local: flow.key.local_addr(),
                    remote: flow.key.remote_addr(),
                    side: flow.side,
                    facts: flow.facts.as_deref().cloned(),
                    names: flow.names.to_vec(),
                });
            }
        }
        remembered
    }

    /// Takes over a flow that an engine before this one has decided and the kernel still passes.
    /// `remembered` is what that engine left behind; `unchanged`: the policy is the one that it
    /// decided under.
    pub fn adopt<O: Output>(
        &mut self,
        now: Duration,
        key: FlowKey,
        entry: CacheEntry,
        remembered: Option<Remembered>,
        unchanged: bool,
        out: &mut O,
    ) {
        if self.flows.find(&key).is_some() || !self.has_room(key.endpoint) {
            return;
        }
        if key.protocol != TCP && entry == dns::WATCHED {
            // Nothing of it passes in the kernel: its next packet opens it anew.
            return out.cache_delete(&key);
        }
        let id = self.next_id;
        self.next_id += 1;
        let state = if entry == PASS {
            State::Open
        } else {
            State::Lost
        };
        let flow = Flow::adopted(id, key, entry, remembered, state, now);
        self.judged_bytes
            .change(flow.key.endpoint, 0, flow.judged_bytes());
        let at = self.flows.insert(flow);
        self.counters.flows_opened += 1;
        self.wheel
            .arm(now + HALF_CLOSED_CHECK, Alarm { index: at, id });
        if !unchanged {
            self.recheck(at, now, out);
        }
    }

    /// Every flow, for people to look at.
    pub fn summaries<O: Output>(&mut self, now: Duration, out: &mut O) -> Vec<FlowSummary> {
        let mut summaries = Vec::new();
        for at in self.flows.occupied() {
            let Some(flow) = self.flows.get_mut(at) else {
                continue;
            };
            let progress = flow.progress(ctx!(self, now, out));
            summaries.push(FlowSummary::of(flow, &progress));
        }
        summaries
    }
}

/// Another worker, or the agent before this one, has allowed the flow.
fn is_passed_by_kernel<O: Output>(key: &FlowKey, ctx: &mut Ctx<'_, O>) -> bool {
    ctx.out
        .cache_get(key)
        .is_some_and(|(entry, _)| entry == PASS || (key.protocol != TCP && entry == dns::WATCHED))
}

/// What its client sends is looked at, by rules that are enforced.
fn is_judged(flow: &Flow) -> bool {
    matches!(&flow.state, State::Inspect(inspection) if inspection.is_enforced())
        || matches!(flow.state, State::Lost)
}

fn is_handshaking(flow: &Flow) -> bool {
    matches!(&flow.state, State::Inspect(inspection) if !inspection.established && inspection.is_enforced())
}

/// Whether the fragments behind the first one pass.
fn passes_fragments(flow: &Flow) -> bool {
    match &flow.state {
        State::Open | State::Dns(_) => true,
        State::Quic(quic) => quic.is_audit_only(),
        State::Inspect(_) | State::Lost | State::Denied(_) => false,
    }
}

/// The server has answered, whatever it answered: a client may wait long before its first byte.
fn has_syn_ack(flow: &Flow, progress: &Progress) -> bool {
    of_direction(progress, flow.client_direction().reverse())
        .syn_ack
        .is_some()
}

/// How long a flow may be silent before it is forgotten.
fn patience(flow: &Flow, progress: &Progress, limits: &Limits) -> Duration {
    match &flow.state {
        State::Denied(_) if flow.has_half_hello() => limits.datagram_idle,
        State::Denied(_) => DENIED_LINGER,
        _ if flow.key.protocol != TCP => limits.datagram_idle,
        State::Inspect(inspection) if !inspection.established && !has_syn_ack(flow, progress) => {
            limits.tcp_handshake
        }
        State::Open | State::Lost | State::Inspect(_) | State::Quic(_) | State::Dns(_) => {
            limits.tcp_idle
        }
    }
}

/// How long until the flow must be looked at again; `None`: it is to be forgotten.
fn time_left<O: Output>(flow: &Flow, ctx: &mut Ctx<'_, O>) -> Option<Duration> {
    let progress = flow.progress(ctx);
    let last = match &flow.state {
        // What comes meanwhile does not reach the server.
        State::Denied(Refusing {
            half_hello: Some(since),
            ..
        }) => *since,
        _ => flow
            .last_packet
            .max(Duration::from_nanos(progress.last_seen_ns)),
    };
    let silent = ctx.now.saturating_sub(last);
    let patience = if flow.closing || (Flow::has_ended(&progress) && flow.key.protocol == TCP) {
        LINGER
    } else if progress.outbound.fin || progress.inbound.fin {
        patience(flow, &progress, ctx.limits).min(silent + HALF_CLOSED_CHECK)
    } else {
        patience(flow, &progress, ctx.limits)
    };
    (silent < patience).then(|| patience - silent)
}
