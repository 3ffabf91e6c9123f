//! What the kernel program does with a packet, done in user space: for data paths whose packets all
//! come up, such as a port of a switch. The engine cannot tell the difference; `bpf/tollgate.bpf.c` is
//! the original, and `crates/datapath/tests/twin.rs` holds the two against each other.
//!
//! No I/O and no clock; one [`FlowCache`] belongs to one worker, like the engine that fills it.
#![forbid(unsafe_code)]

use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tollgate_engine::cache::{CacheEntry, DirectionProgress, Progress, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_engine::output::CacheFull;
use tollgate_wire::packet::{L4, Layout, PROTOCOL_UDP, TcpFlags, TcpHeader};
use tollgate_wire::tag::{Direction, Tag};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on its way. `decided`: and so does every other packet of this direction, whatever it
    /// carries, until the flow's entry changes.
    Pass {
        /// Nothing in this direction is looked at any more.
        decided: bool,
    },
    /// The engine has to see it.
    Divert,
    /// It ends here.
    Drop,
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Whose it is, and which way it goes.
    pub tag: Tag,
    /// Where its parts lie in `ethernet`.
    pub layout: &'a Layout,
    /// The frame, without virtio-net header.
    pub ethernet: &'a [u8],
    /// Size of a super-packet's segments in bytes; 0: it is none.
    pub gso_size: u16,
}

/// An RST ends a flow only if its number can be what its receiver expects (RFC 5961), or lies at
/// most a window in flight ahead of what was acknowledged. `bpf/tollgate.bpf.c` has the same number.
const RST_AHEAD_MAX: u32 = 16 << 20;

/// Form bit of a QUIC packet (RFC 8999 section 5): long headers open connections.
const QUIC_LONG_HEADER: u8 = 0x80;

/// The most datagrams in a UDP super-packet (`UDP_MAX_SEGMENTS` in include/linux/udp.h).
const UDP_SEGMENTS_MAX: usize = 128;

/// A flow's entry with what was noted of it.
#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    entry: CacheEntry,
    progress: Progress,
    /// Its end was told.
    closed: bool,
}

/// The decided flows.
#[derive(Debug)]
pub struct FlowCache {
    flows: HashMap<FlowKey, Cached, foldhash::fast::RandomState>,
    capacity: usize,
    closed: Vec<FlowKey>,
}

impl FlowCache {
    /// A cache for at most that many flows.
    pub fn new(capacity: usize) -> Self {
        Self {
            flows: HashMap::default(),
            capacity,
            closed: Vec::new(),
        }
    }

    /// As [`tollgate_engine::Output::cache_put`].
    ///
    /// # Errors
    /// There is no room for another flow.
    pub fn put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        let full = self.flows.len() >= self.capacity;
        match self.flows.entry(*key) {
            Entry::Occupied(mut cached) => cached.get_mut().entry = *entry,
            Entry::Vacant(_) if full => return Err(CacheFull),
            Entry::Vacant(place) => {
                place.insert(Cached {
                    entry: *entry,
                    ..Cached::default()
                });
            }
        }
        Ok(())
    }

    /// As [`tollgate_engine::Output::cache_get`].
    pub fn get(&self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        let cached = self.flows.get(key)?;
        Some((cached.entry, cached.progress))
    }

    /// As [`tollgate_engine::Output::cache_delete`].
    pub fn delete(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    /// Notes the end of a flow that goes on somewhere else, where nothing of it is seen any more. False:
    /// there is no such flow.
    pub fn end(&mut self, key: &FlowKey) -> bool {
        let Some(cached) = self.flows.get_mut(key) else {
            return false;
        };
        cached.progress.outbound.rst = true;
        cached.closed = true;
        true
    }

    /// Takes a flow over from another cache, with what was noted of it.
    ///
    /// # Errors
    /// There is no room for another flow.
    pub fn restore(
        &mut self,
        key: &FlowKey,
        entry: &CacheEntry,
        progress: &Progress,
    ) -> Result<(), CacheFull> {
        self.put(key, entry)?;
        if let Some(cached) = self.flows.get_mut(key) {
            cached.progress = *progress;
        }
        Ok(())
    }

    /// Every flow, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (FlowKey, CacheEntry, Progress)> + '_ {
        let flows = self.flows.iter();
        flows.map(|(key, cached)| (*key, cached.entry, cached.progress))
    }

    /// Flows in the cache.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Is it empty?
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Flows that both sides closed, or one reset, since the last call: for
    /// [`tollgate_engine::Engine::flow_closed`].
    pub fn take_closed(&mut self) -> Vec<FlowKey> {
        std::mem::take(&mut self.closed)
    }

    /// What happens to a packet, which is noted if it passes.
    pub fn fate(&mut self, now: Duration, packet: &Packet<'_>) -> Fate {
        // The engine remembers which fragments follow an allowed first one.
        if matches!(packet.layout.l4, L4::Fragment(_)) {
            return Fate::Divert;
        }
        let segment = Segment::of(packet);
        // It may open a new flow under an old key.
        if segment.is_some_and(|segment| segment.flags.is_syn()) {
            return Fate::Divert;
        }
        let key = FlowKey::of(packet.tag, packet.layout);
        let Some(cached) = self.flows.get_mut(&key) else {
            return Fate::Divert;
        };
        let steer = match packet.tag.direction {
            Direction::Outbound => cached.entry.outbound,
            Direction::Inbound => cached.entry.inbound,
        };
        let passes = match steer {
            Steer::Divert => false,
            Steer::Pass => true,
            Steer::Drop => return Fate::Drop,
            Steer::Window { start, end } => {
                segment.is_some_and(|segment| segment.lies_in(start, end))
            }
            Steer::Quic => packet.layout.protocol == PROTOCOL_UDP && is_open_quic(packet),
        };
        if !passes {
            return Fate::Divert;
        }
        cached.note(now, packet, segment);
        if cached.is_closed() && !std::mem::replace(&mut cached.closed, true) {
            self.closed.push(key);
        }
        Fate::Pass {
            decided: steer == Steer::Pass,
        }
    }
}

/// A TCP segment, as far as windows and progress need it.
#[derive(Clone, Copy)]
struct Segment {
    seq: u32,
    ack: u32,
    payload: u32,
    flags: TcpFlags,
}

impl Segment {
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let L4::Tcp(TcpHeader {
            seq, ack, flags, ..
        }) = packet.layout.l4
        else {
            return None;
        };
        let payload = packet.layout.payload(packet.ethernet).len();
        Some(Self {
            seq,
            ack,
            payload: u32::try_from(payload).unwrap_or(u32::MAX),
            flags,
        })
    }

    /// A FIN cuts the stream where it stands, and an urgent pointer takes a byte out of it: the engine
    /// must see both. Payload on a SYN begins one further on.
    fn lies_in(&self, start: u32, end: u32) -> bool {
        if self.flags.fin() || self.flags.urg() {
            return false;
        }
        if self.payload == 0 {
            return true;
        }
        let size = end.wrapping_sub(start);
        let before = self.seq.wrapping_sub(start);
        !self.flags.syn() && before <= size && self.payload <= size - before
    }

    fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload)
            .wrapping_add(u32::from(self.flags.fin()))
            .wrapping_add(u32::from(self.flags.syn()))
    }
}

/// Does every datagram of the packet begin with a short header?
fn is_open_quic(packet: &Packet<'_>) -> bool {
    let payload = packet.layout.payload(packet.ethernet);
    let is_short = |datagram: &[u8]| {
        datagram
            .first()
            .is_none_or(|first| first & QUIC_LONG_HEADER == 0)
    };
    match usize::from(packet.gso_size) {
        0 => is_short(payload),
        size => {
            let mut datagrams = payload.chunks(size);
            datagrams.by_ref().take(UDP_SEGMENTS_MAX).all(is_short) && datagrams.next().is_none()
        }
    }
}

impl Cached {
    fn note(&mut self, now: Duration, packet: &Packet<'_>, segment: Option<Segment>) {
        let progress = &mut self.progress;
        progress.last_seen_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (own, other) = match packet.tag.direction {
            Direction::Outbound => (&mut progress.outbound, &progress.inbound),
            Direction::Inbound => (&mut progress.inbound, &progress.outbound),
        };
        own.packets += 1;
        own.bytes += packet.ethernet.len() as u64;
        if let Some(segment) = segment {
            note_segment(own, other, segment);
        }
    }

    fn is_closed(&self) -> bool {
        let Progress {
            outbound, inbound, ..
        } = self.progress;
        outbound.rst || inbound.rst || (outbound.fin && inbound.fin)
    }
}

fn note_segment(own: &mut DirectionProgress, other: &DirectionProgress, segment: Segment) {
    if segment.flags.rst() {
        // One that is guessed from afar must not make the engine forget a flow that goes on.
        let counts = other
            .max_ack
            .is_none_or(|acked| segment.seq.wrapping_sub(acked) <= RST_AHEAD_MAX);
        own.rst |= counts;
        return;
    }
    own.max_seq = Some(later(own.max_seq, segment.end()));
    if segment.flags.ack() {
        own.max_ack = Some(later(own.max_ack, segment.ack));
    }
    if segment.flags.is_syn_ack() {
        own.syn_ack = Some(segment.ack);
    }
    own.fin |= segment.flags.fin();
}

/// The one that lies further on, modulo 2^32.
fn later(seen: Option<u32>, value: u32) -> u32 {
    match seen {
        Some(seen) if value.wrapping_sub(seen).cast_signed() <= 0 => seen,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail so")]

    use tollgate_wire::packet::{self, PROTOCOL_ICMP};
    use tollgate_wire::tag::EndpointId;

    use super::*;

    /// An echo request with a tag, as a whole or as a first fragment.
    fn echo(more_fragments: bool) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 2, 0x08, 0];
        let flags = if more_fragments { 0x20 } else { 0 };
        frame.extend([0x45, 0, 0, 36, 0, 1, flags, 0, 64, PROTOCOL_ICMP, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([8, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame
    }

    fn fate_of(frame: &[u8]) -> Fate {
        let packet::Packet::Ip(layout) = packet::parse(frame).unwrap() else {
            unreachable!("it is an IP packet");
        };
        let tag = Tag {
            endpoint: EndpointId::new(1).unwrap(),
            direction: Direction::Outbound,
        };
        let packet = Packet {
            tag,
            layout: &layout,
            ethernet: frame,
            gso_size: 0,
        };
        let mut cache = FlowCache::new(1);
        let entry = CacheEntry {
            outbound: Steer::Pass,
            inbound: Steer::Pass,
        };
        cache.put(&FlowKey::of(tag, &layout), &entry).unwrap();
        cache.fate(Duration::ZERO, &packet)
    }

    /// Those behind it have no ports: who lets the first one pass must remember it for them.
    #[test]
    fn fragments_go_to_the_engine_whatever_is_decided() {
        assert_eq!(fate_of(&echo(false)), Fate::Pass { decided: true });
        assert_eq!(fate_of(&echo(true)), Fate::Divert);
    }
}
