//! A packet on its way through the engine, and what every handler needs beside it.

use std::time::Duration;

use tollgate_wire::packet::{L4, Layout, TcpHeader};
use tollgate_wire::tag::{Direction, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

use crate::counters::Counters;
use crate::limits::Limits;
use crate::output::Output;
use crate::seq;

/// A frame that came up, with where its headers lie.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Virtio-net header and Ethernet frame, as read.
    pub frame: &'a [u8],
    pub layout: Layout,
    pub tag: Tag,
}

impl<'a> Packet<'a> {
    /// The Ethernet frame; `layout`'s offsets count from its start.
    pub(crate) fn ethernet(&self) -> &'a [u8] {
        self.frame.get(VNET_HDR_LEN..).unwrap_or_default()
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.layout.payload(self.ethernet())
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
    pub held_bytes: &'a mut usize,
    pub now: Duration,
}

impl<O: Output> Ctx<'_, O> {
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
