//! Frames of a capture on their way through an engine.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::counters::Counters;
use tollgate_engine::event::{Event, EventKind};
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::output::CacheFull;
use tollgate_engine::{Engine, FlowSummary, Output};
use tollgate_l7::dns::{self, Answer};
use tollgate_wire::packet::{self, L4, Layout, PROTOCOL_ICMPV6, Packet};
use tollgate_wire::tag::{Direction, Tag};
use tollgate_wire::vnet::{DATA_VALID, VNET_HDR_LEN, VnetHdr};

use crate::capture::Captured;
use crate::link::{self, Ethernet, LinkError};
use crate::setup::Setup;
use crate::sides::{Nobody, Sides};

/// EtherType of an 802.1Q tag.
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// Where resolvers answer from (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

/// EtherType of ARP, which the kernel's part lets pass.
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Both addresses of an Ethernet header.
const MACS_LEN: usize = 12;
/// An 802.1Q tag.
const VLAN_LEN: usize = 4;

/// Engine time of the first packet. Not 0, so that nothing lies before it.
const START: Duration = Duration::from_secs(1);

/// How often the engine is told the time, as by the agent.
const TICK: Duration = Duration::from_secs(1);

/// Time that passes after the last packet: what has ended by then is closed, the engine's lingering
/// (1 s) included.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Gates that one packet passes: out of one endpoint and into another. Two more for an answer that
/// the second gate makes.
const GATES_MAX: u32 = 4;

/// Flows in the engine's table; fewer than openers are remembered.
const FLOWS: usize = 1_000_000;

/// Where a replay's results go.
pub trait Sink {
    /// Something was decided or ended. `time` is since 1970, UTC, and never goes back.
    fn event(&mut self, time: Duration, event: Event);

    /// A DNS answer went by (without a policy only, and over UDP only). `time` as above.
    fn answer(&mut self, time: Duration, to: IpAddr, resolver: IpAddr, answer: Answer);

    /// An Ethernet frame arrived where it was going: forwarded, or made by the engine. It has no
    /// VLAN tags.
    fn frame(&mut self, time: Duration, ethernet: &[u8]);
}

/// What became of the packets that no engine saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets in the capture.
    pub packets: u64,
    /// Skipped: the capture has only their beginning.
    pub cut: u64,
    /// Skipped: their link type is not known.
    pub unknown_link: u64,
    /// Skipped: their headers could not be read.
    pub malformed: u64,
    /// Passed without verdict: not IP.
    pub not_ip: u64,
    /// Passed without verdict: neither side is an endpoint, or neighbour discovery.
    pub not_governed: u64,
    /// Skipped: too many flows at a time.
    pub too_many_flows: u64,
    /// Packets that had VLAN tags, which were taken off.
    pub tagged: u64,
    /// Packets that had more than one.
    pub tagged_twice: u64,
    /// Packets whose time lies before that of an earlier one; taken for as late as that.
    pub out_of_order: u64,
    /// What the engine counted.
    pub engine: Counters,
}

/// Shows the packets of a capture to an engine.
pub struct Replay {
    engine: Engine,
    sides: Sides,
    reads_names: bool,
    report: Report,
    /// Time of the first packet, since 1970.
    origin: Option<Duration>,
    now: Duration,
    last_tick: Duration,
    outlet: Outlet,
}

/// The engine's way out: everything is collected.
#[derive(Default)]
struct Outlet {
    frames: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Output for Outlet {
    fn emit(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }

    /// There is no kernel that could take a flow over: every packet comes to the engine.
    fn cache_put(&mut self, _: &FlowKey, _: &CacheEntry) -> Result<(), CacheFull> {
        Err(CacheFull)
    }

    fn cache_get(&mut self, _: &FlowKey) -> Option<(CacheEntry, Progress)> {
        None
    }

    fn cache_delete(&mut self, _: &FlowKey) {}

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn wants_all(&self) -> bool {
        true
    }
}

impl Replay {
    /// A replay before its first packet.
    pub fn new(setup: Setup) -> Self {
        let limits = Limits {
            flows: FLOWS,
            flows_per_endpoint: FLOWS,
            ..Limits::default()
        };
        Self {
            engine: Engine::new(setup.table, limits),
            sides: setup.sides,
            reads_names: setup.reads_names,
            report: Report::default(),
            origin: None,
            now: START,
            last_tick: START,
            outlet: Outlet::default(),
        }
    }

    /// Shows the next packet.
    pub fn packet(&mut self, captured: &Captured, sink: &mut impl Sink) {
        self.report.packets += 1;
        self.pass_time(captured.time, sink);
        if !captured.whole {
            self.report.cut += 1;
            return;
        }
        match link::to_ethernet(captured.link_type, &captured.data) {
            Ok(ethernet) => self.ethernet(&ethernet, sink),
            Err(LinkError::Unknown(_)) => self.report.unknown_link += 1,
            Err(LinkError::Malformed) => self.report.malformed += 1,
        }
    }

    /// Ends the capture: what has ended is reported. Returns what the engine did not see and the
    /// flows that are still open, in the order in which they were first seen.
    pub fn finish(mut self, sink: &mut impl Sink) -> (Report, Vec<FlowSummary>) {
        // What ends now ended with the capture: the time shown stays.
        let shown = self.now;
        self.engine.tick(shown + AFTERWARDS, &mut self.outlet);
        self.hand_out_events(sink);
        self.report.engine = *self.engine.counters();
        let mut open = self.engine.summaries(shown, &mut self.outlet);
        open.sort_by_key(|flow| flow.id);
        (self.report, open)
    }

    /// Time of the latest packet, since 1970.
    pub fn time(&self) -> Duration {
        self.origin.unwrap_or_default() + (self.now - START)
    }

    fn pass_time(&mut self, time: Duration, sink: &mut impl Sink) {
        let origin = *self.origin.get_or_insert(time);
        let now = time.saturating_sub(origin) + START;
        if now < self.now || time < origin {
            self.report.out_of_order += 1;
        }
        self.now = self.now.max(now);
        if self.now >= self.last_tick + TICK {
            self.last_tick = self.now;
            self.engine.tick(self.now, &mut self.outlet);
            self.forget();
            self.hand_out_events(sink);
        }
    }

    fn ethernet(&mut self, ethernet: &Ethernet<'_>, sink: &mut impl Sink) {
        self.report.tagged += u64::from(ethernet.tags > 0);
        self.report.tagged_twice += u64::from(ethernet.tags > 1);
        let plain = plain_frame(ethernet);
        let layout = match packet::parse(&plain) {
            Ok(Packet::Ip(layout)) => layout,
            Ok(Packet::NonIp(_)) => {
                self.report.not_ip += 1;
                if ethernet.ethertype == ETHERTYPE_ARP {
                    sink.frame(self.time(), &plain);
                }
                return;
            }
            Err(_) => {
                self.report.malformed += 1;
                return;
            }
        };
        if is_of_the_link(&layout) {
            self.report.not_governed += 1;
            return sink.frame(self.time(), &plain);
        }
        if self.reads_names
            && let Some(answer) = answer(&plain, &layout)
        {
            sink.answer(self.time(), layout.dst, layout.src, answer);
        }
        match self.sides.tag(&plain, &layout) {
            Ok(tag) => self.gates(tagged_frame(&plain, tag), sink),
            Err(Nobody::Full) => self.report.too_many_flows += 1,
            Err(Nobody::NotGoverned) => {
                self.report.not_governed += 1;
                sink.frame(self.time(), &plain);
            }
        }
    }

    /// Through the gate of the endpoint in the tag, and from there through that of the endpoint
    /// that the packet goes to, if it is one.
    fn gates(&mut self, frame: Vec<u8>, sink: &mut impl Sink) {
        let mut waiting = VecDeque::from([(frame, 1)]);
        while let Some((frame, gate)) = waiting.pop_front() {
            self.engine.handle(self.now, &frame, &mut self.outlet);
            self.hand_out_events(sink);
            for out in std::mem::take(&mut self.outlet.frames) {
                let Some(plain) = untagged(&out) else {
                    continue;
                };
                match self.next_gate(&out, &plain).filter(|_| gate < GATES_MAX) {
                    Some(tag) => waiting.push_back((tagged_frame(&plain, tag), gate + 1)),
                    None => sink.frame(self.time(), &plain),
                }
            }
        }
    }

    /// The gate that stands between a frame that came out of one and its destination.
    fn next_gate(&self, frame: &[u8], plain: &[u8]) -> Option<Tag> {
        let tag = tag_of(frame)?;
        let Ok(Packet::Ip(layout)) = packet::parse(plain) else {
            return None;
        };
        match tag.direction {
            Direction::Outbound => self.sides.next(tag.endpoint, layout.dst),
            Direction::Inbound => None,
        }
    }

    fn hand_out_events(&mut self, sink: &mut impl Sink) {
        let time = self.time();
        for event in self.outlet.events.drain(..) {
            sink.event(time, event);
        }
    }

    /// Forgets who opened the flows that time has ended. Those that a new flow has replaced are not
    /// among them: their names are the new ones'.
    fn forget(&mut self) {
        for event in &self.outlet.events {
            if let EventKind::Closed { .. } = event.kind {
                self.sides.forget(&event.key);
            }
        }
    }
}

/// Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 3810), which the kernel's part
/// lets pass whatever the policy says: `parse_icmp` in `bpf/parse.h`.
fn is_of_the_link(layout: &Layout) -> bool {
    const ND_HOP_LIMIT: u8 = 255;
    const MLD_HOP_LIMIT: u8 = 1;
    let L4::Icmp(icmp) = layout.l4 else {
        return false;
    };
    layout.protocol == PROTOCOL_ICMPV6
        && match layout.hop_limit {
            ND_HOP_LIMIT => matches!(icmp.icmp_type, 133..=137),
            MLD_HOP_LIMIT => matches!(icmp.icmp_type, 130..=132 | 143),
            _ => false,
        }
}

/// The DNS answer in a packet, if it has one with addresses in it.
fn answer(plain: &[u8], layout: &Layout) -> Option<Answer> {
    match layout.l4 {
        L4::Udp {
            src_port: DNS_PORT, ..
        } => dns::answer(plain.get(layout.payload_offset..layout.end)?),
        _ => None,
    }
}

fn plain_frame(ethernet: &Ethernet<'_>) -> Vec<u8> {
    let head = [&ethernet.macs[..], &ethernet.ethertype].concat();
    [&head[..], ethernet.payload].concat()
}

/// The frame as it comes up from the kernel. It arrived, so its checksum counts as verified: in
/// captures of the sending host it is not filled in.
fn tagged_frame(plain: &[u8], tag: Tag) -> Vec<u8> {
    let (macs, rest) = plain.split_at_checked(MACS_LEN).unwrap_or((plain, &[]));
    let mut frame = vec![0; VNET_HDR_LEN];
    let header = VnetHdr {
        flags: DATA_VALID,
        ..VnetHdr::default()
    };
    // The header has just been made room for.
    let _ = header.write(&mut frame);
    frame.extend(macs);
    frame.extend(ETHERTYPE_VLAN);
    frame.extend(tag.vlan_id().to_be_bytes());
    frame.extend(rest);
    frame
}

fn tag_of(frame: &[u8]) -> Option<Tag> {
    let tci = frame.get(VNET_HDR_LEN + MACS_LEN + 2..)?.first_chunk()?;
    Tag::from_vlan_id(u16::from_be_bytes(*tci))
}

/// What the endpoint or the outside gets: no virtio-net header, no tag.
fn untagged(frame: &[u8]) -> Option<Vec<u8>> {
    let macs = frame.get(VNET_HDR_LEN..VNET_HDR_LEN + MACS_LEN)?;
    let rest = frame.get(VNET_HDR_LEN + MACS_LEN + VLAN_LEN..)?;
    Some([macs, rest].concat())
}
