//! A server's end of a TCP connection, as far as its stream goes: puts together what is delivered, in
//! either of the two ways that there are, and says what a server would find in it.

use std::collections::BTreeMap;

use tollgate_l7::http1::{HttpEvent, RequestReader};
use tollgate_wire::tag::Direction;

use super::{Conn, Gate, Out};

/// Which of two versions of a byte counts that came before it was its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wins {
    /// The earlier one (Linux, BSD).
    First,
    /// The later one.
    Last,
}

/// What is delivered, put together.
pub struct Receiver {
    wins: Wins,
    first: u32,
    /// Bytes ahead of the stream, by offset.
    early: BTreeMap<u32, u8>,
    /// The stream, as far as it has no gap.
    pub read: Vec<u8>,
    fin: Option<u32>,
    /// The latest timestamp of the stream in order (RFC 7323, section 4.3).
    recent: Option<u32>,
}

impl Receiver {
    /// Of the connection whose client's first byte has this sequence number.
    pub fn new(wins: Wins, first: u32) -> Self {
        Self {
            wins,
            first,
            early: BTreeMap::new(),
            read: Vec::new(),
            fin: None,
            recent: None,
        }
    }

    /// Takes what came out of the gate in the server's direction.
    pub fn take(&mut self, out: &[Out], to: Direction) {
        for frame in out.iter().filter(|frame| frame.to == to) {
            self.segment(frame);
        }
    }

    fn segment(&mut self, frame: &Out) {
        let Some(header) = frame.header else { return };
        assert!(!header.flags.urg(), "a byte would be taken out");
        if header.flags.rst() || header.flags.syn() {
            return;
        }
        if !self.is_recent(frame.timestamp, header.seq) {
            return;
        }
        let start = header.seq.wrapping_sub(self.first);
        for (at, byte) in (start..).zip(&frame.payload) {
            let is_new = (at as usize) >= self.read.len() && at.cast_signed() >= 0;
            if is_new && (self.wins == Wins::Last || !self.early.contains_key(&at)) {
                self.early.insert(at, *byte);
            }
        }
        if header.flags.fin() {
            self.fin = Some(start.wrapping_add(frame.payload.len() as u32));
        }
        while !self.has_ended() {
            let Some(byte) = self.early.remove(&(self.read.len() as u32)) else {
                break;
            };
            self.read.push(byte);
        }
    }

    /// Protection against wrapped sequence numbers, as `tcp_paws_check` and `tcp_replace_ts_recent` of
    /// Linux have it: a segment with an older timestamp, by more than one, is thrown away; one without
    /// is not; a newer one counts from the segment that is next in order.
    fn is_recent(&mut self, timestamp: Option<u32>, seq: u32) -> bool {
        let Some(value) = timestamp else { return true };
        let older = self
            .recent
            .map_or(0, |recent| recent.wrapping_sub(value).cast_signed());
        if older > 1 {
            return false;
        }
        let in_order = seq.wrapping_sub(self.ack()).cast_signed() <= 0;
        if in_order && older <= 0 {
            self.recent = Some(value);
        }
        true
    }

    /// The client's half has ended.
    pub fn has_ended(&self) -> bool {
        self.fin == Some(self.read.len() as u32)
    }

    /// What it acknowledges.
    pub fn ack(&self) -> u32 {
        self.first
            .wrapping_add(self.read.len() as u32)
            .wrapping_add(u32::from(self.has_ended()))
    }

    /// Sends its acknowledgement through the gate.
    pub fn acknowledge(&self, gate: &mut Gate, conn: &Conn) {
        let flags = tollgate_wire::packet::TcpFlags::ACK;
        let frame = conn.frame(false, flags, conn.server_seq, self.ack(), b"");
        gate.arrives(conn.direction.reverse(), &frame);
    }

    /// Method and target of every request whose head is complete.
    pub fn requests(&self) -> Vec<(String, String)> {
        let mut reader = RequestReader::new();
        let mut rest = &self.read[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            if let Some(body) = reader.opaque_body() {
                let seen = body.min(rest.len() as u64);
                reader.skip_body(seen);
                rest = &rest[seen as usize..];
                continue;
            }
            let step = reader.push(rest);
            rest = &rest[step.consumed..];
            match step.event {
                HttpEvent::Request(request) => found.push((request.method, request.target)),
                HttpEvent::BodyEnd => {}
                HttpEvent::NeedMore => break,
                HttpEvent::Refused(refusal) => panic!("unreadable: {refusal:?}"),
            }
        }
        found
    }

    /// No request of another kind than the usual policy allows, and no end in the middle of a head.
    pub fn check(&self) {
        for (method, target) in self.requests() {
            let is_allowed = match method.as_str() {
                "GET" => target.starts_with("/v2/"),
                "PUT" => target.starts_with("/upload/"),
                _ => false,
            };
            assert!(
                is_allowed,
                "{:?}: {method} {target} was delivered",
                self.wins
            );
        }
    }
}
