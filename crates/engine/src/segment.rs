//! A packet on its way through the engine, and what every handler needs beside it.

use std::time::Duration;

use tollgate_wire::packet::{self, L4, Layout, TcpHeader};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::vnet::{self, VNET_HDR_LEN, VnetHdr};
use tollgate_wire::{ChecksumState, checksum};

use crate::counters::Counters;
use crate::flow::Flow;
use crate::judged::Taken;
use crate::limits::Limits;
use crate::output::Output;
use crate::seq;

/// Where the checksum lies in a TCP header (RFC 9293 section 3.1).
const TCP_CHECKSUM_OFFSET: usize = 16;
/// Where it lies in a UDP header (RFC 768).
const UDP_CHECKSUM_OFFSET: usize = 6;

/// Of what may be held back one endpoint's flows get this part, as of the flow table.
const HELD_SHARE: usize = 2;

/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;

/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// A frame that came up, with where its headers lie.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Virtio-net header and Ethernet frame, as read.
    pub frame: &'a [u8],
    pub layout: Layout,
    pub tag: Tag,
}

impl<'a> Packet<'a> {
    /// A frame that was held was parsed once already, so this cannot fail; if it does, it is dropped.
    pub(crate) fn reparse(frame: &'a [u8], tag: Tag) -> Option<Self> {
        match packet::parse(frame.get(VNET_HDR_LEN..)?).ok()? {
            packet::Packet::Ip(layout) => Some(Self { frame, layout, tag }),
            packet::Packet::NonIp(_) => None,
        }
    }

    /// The Ethernet frame; `layout`'s offsets count from its start.
    pub(crate) fn ethernet(&self) -> &'a [u8] {
        self.frame.get(VNET_HDR_LEN..).unwrap_or_default()
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.layout.payload(self.ethernet())
    }

    /// Whether the receiver can get and accept the packet, as far as its headers tell: one with a wrong
    /// checksum or without a hop left would be judged and never be read.
    pub(crate) fn can_arrive(&self) -> bool {
        self.layout.hop_limit > 0 && self.ipv4_header_holds() && self.is_intact()
    }

    fn ipv4_header_holds(&self) -> bool {
        let options_end = match self.layout.src.is_ipv4() {
            true => self.layout.l4_offset,
            false => return true,
        };
        let header = self.ethernet().get(self.layout.ip_offset..options_end);
        header.is_some_and(|header| checksum::fold(checksum::sum(header)) == 0xffff)
    }

    /// The kernel vouches for a checksum that it has checked or will fill in.
    fn is_intact(&self) -> bool {
        let Ok(header) = VnetHdr::parse(self.frame) else {
            return false;
        };
        if header.needs_csum() {
            return self.tcp().is_none() || self.is_filled_in_place();
        }
        header.flags & vnet::DATA_VALID != 0
            || tollgate_wire::verify(self.frame) != ChecksumState::Bad
    }

    /// Whoever may send raw packets chooses where the kernel fills a checksum in. Inside of what was
    /// judged it would overwrite bytes behind the verdict. A UDP flow may be a tunnel, with the
    /// checksum of a packet inside it to be filled in; under an L7 rule it is none.
    pub(crate) fn is_filled_in_place(&self) -> bool {
        let Ok(header) = VnetHdr::parse(self.frame) else {
            return false;
        };
        let offset = match self.layout.l4 {
            L4::Tcp(_) => TCP_CHECKSUM_OFFSET,
            L4::Udp { .. } => UDP_CHECKSUM_OFFSET,
            _ => return true,
        };
        let place = (
            usize::from(header.csum_start),
            usize::from(header.csum_offset),
        );
        !header.needs_csum() || place == (self.layout.l4_offset, offset)
    }

    pub(crate) fn direction(&self) -> Direction {
        self.tag.direction
    }

    pub(crate) fn tcp(&self) -> Option<TcpHeader> {
        match self.layout.l4 {
            L4::Tcp(header) => Some(header),
            _ => None,
        }
    }
}

/// Sequence number behind a segment, SYN and FIN counted.
pub(crate) fn segment_end(header: &TcpHeader, payload_len: usize) -> u32 {
    let flags = u32::from(header.flags.syn()) + u32::from(header.flags.fin());
    header
        .seq
        .wrapping_add(seq::span(payload_len))
        .wrapping_add(flags)
}

/// What the handlers share: the way out, the counters, the bounds, a scratch buffer, the time.
pub(crate) struct Ctx<'a, O> {
    pub out: &'a mut O,
    pub counters: &'a mut Counters,
    pub limits: &'a Limits,
    /// For frames that the engine makes or changes.
    pub scratch: &'a mut Vec<u8>,
    /// Bytes of out-of-order frames held for all flows.
    pub held_bytes: &'a mut Taken,
    /// Memory of judged bytes and of what readers hold, of all flows.
    pub judged_bytes: &'a mut Taken,
    pub now: Duration,
}

impl<O: Output> Ctx<'_, O> {
    /// Counts what a flow holds, where it held `before`.
    pub(crate) fn recount(&mut self, before: usize, flow: &Flow) {
        self.judged_bytes
            .change(flow.key.endpoint, before, flow.judged_bytes());
    }

    /// Whether so many more bytes of the endpoint's flows may be held back.
    pub(crate) fn may_hold(&self, endpoint: EndpointId, more: usize) -> bool {
        let all = self.limits.held_bytes;
        let own = all / HELD_SHARE;
        self.held_bytes.all().saturating_add(more) <= all
            && self.held_bytes.of(endpoint).saturating_add(more) <= own
    }

    /// Sends a frame on as it came.
    pub(crate) fn forward(&mut self, frame: &[u8]) {
        self.counters.frames_forwarded += 1;
        self.out.emit(frame);
    }

    /// Sends what lies in the scratch buffer.
    pub(crate) fn emit_scratch(&mut self) {
        self.counters.frames_made += 1;
        self.out.emit(self.scratch);
    }
}
