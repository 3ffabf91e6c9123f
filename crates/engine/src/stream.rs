//! The client's half of a TCP stream: what has been judged, what may still be sent again, and what
//! came too early.
//!
//! "What was judged is what is delivered": bytes that a verdict was based on are remembered until
//! the server has acknowledged them, and a retransmission is compared with them.

use std::collections::VecDeque;

use crate::seq;

/// A remembered range is grown up to this size before a new one is begun, so that a flow of small
/// requests does not allocate for each.
const RANGE_BYTES: usize = 4096;

/// What a range costs beside its bytes: itself, and what an allocator adds to a small allocation.
const RANGE_COST: usize = size_of::<Range>() + 16;

/// Longest opaque range remembered. Nothing older can still be in flight: a TCP window is at most
/// 2^30 bytes (RFC 7323, section 2.3).
pub(crate) const OPAQUE_MAX: u32 = 1 << 30;

/// What is known of bytes that lie before `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// The bytes that were judged, or bytes that no verdict depends on.
    Same,
    /// Other bytes than those that were judged.
    Different,
    /// Not remembered any more (or never seen).
    Forgotten,
}

/// A contiguous range of the stream.
#[derive(Debug)]
struct Range {
    start: u32,
    len: u32,
    /// `None`: opaque, no verdict depends on the bytes.
    bytes: Option<Vec<u8>>,
}

impl Range {
    fn end(&self) -> u32 {
        self.start.wrapping_add(self.len)
    }
}

/// A frame whose payload lies beyond the next expected byte.
#[derive(Debug)]
struct Held {
    start: u32,
    frame: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct ClientStream {
    /// Sequence number of the next byte to judge. Everything before it has been let through.
    next: u32,
    /// Ascending and contiguous; the last one ends at `next`.
    ranges: VecDeque<Range>,
    kept_bytes: usize,
    held: Vec<Held>,
    held_bytes: usize,
}

impl ClientStream {
    pub(crate) fn new(first: u32) -> Self {
        Self {
            next: first,
            ranges: VecDeque::new(),
            kept_bytes: 0,
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Bytes of memory of what is remembered, each range with its own. Held frames are counted by
    /// [`Self::held_bytes`].
    pub(crate) fn memory(&self) -> usize {
        self.kept_bytes + self.ranges.len() * RANGE_COST
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Judged bytes: remembered, and `next` moves behind them.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.kept_bytes += bytes.len();
        let len = seq::span(bytes.len());
        let start = self.next;
        self.next = start.wrapping_add(len);
        if let Some(Range {
            len: last,
            bytes: Some(kept),
            ..
        }) = self.ranges.back_mut()
            && kept.len() + bytes.len() <= RANGE_BYTES
        {
            kept.extend_from_slice(bytes);
            *last += len;
            return;
        }
        self.ranges.push_back(Range {
            start,
            len,
            bytes: Some(bytes.to_vec()),
        });
    }

    /// Bytes that no verdict depends on: `next` moves behind them, seen or not.
    /// `len` is at most [`OPAQUE_MAX`].
    pub(crate) fn skip(&mut self, len: u32) {
        if len == 0 {
            return;
        }
        let start = self.next;
        self.next = start.wrapping_add(len);
        match self.ranges.back_mut() {
            Some(last) if last.bytes.is_none() => last.len = last.len.saturating_add(len),
            _ => self.ranges.push_back(Range {
                start,
                len,
                bytes: None,
            }),
        }
        self.forget_before_long_opaque();
    }

    /// Keeps the whole remembered span below 2^31, where sequence arithmetic is sound.
    fn forget_before_long_opaque(&mut self) {
        let Some(last) = self.ranges.back_mut() else {
            return;
        };
        if last.len <= OPAQUE_MAX {
            return;
        }
        last.start = last.end().wrapping_sub(OPAQUE_MAX);
        last.len = OPAQUE_MAX;
        let last = self.ranges.pop_back();
        self.ranges.clear();
        self.kept_bytes = 0;
        self.ranges.extend(last);
    }

    /// The opaque range that ends at `next`, if the stream ends in one.
    pub(crate) fn opaque_tail(&self) -> Option<(u32, u32)> {
        let last = self.ranges.back()?;
        last.bytes.is_none().then(|| (last.start, last.end()))
    }

    /// Whether no verdict depends on the byte at `at`.
    pub(crate) fn is_opaque_at(&self, at: u32) -> bool {
        self.ranges.iter().any(|range| {
            range.bytes.is_none() && !seq::before(at, range.start) && seq::before(at, range.end())
        })
    }

    /// What is known of `bytes` at `start`, all of which lie before `next`.
    pub(crate) fn check_old(&self, start: u32, bytes: &[u8]) -> Old {
        let end = start.wrapping_add(seq::span(bytes.len()));
        let Some(first) = self.ranges.front() else {
            return Old::Forgotten;
        };
        if seq::before(start, first.start) {
            return Old::Forgotten;
        }
        for range in &self.ranges {
            let Some(kept) = &range.bytes else { continue };
            let from = if seq::before(start, range.start) {
                range.start
            } else {
                start
            };
            let to = if seq::before(end, range.end()) {
                end
            } else {
                range.end()
            };
            if !seq::before(from, to) {
                continue;
            }
            let ours = kept_slice(kept, range.start, from, to);
            let theirs = kept_slice(bytes, start, from, to);
            if ours != theirs {
                return Old::Different;
            }
        }
        Old::Same
    }

    /// The server has everything before `ack`: it need not be remembered any longer.
    pub(crate) fn acknowledged(&mut self, ack: u32) {
        while let Some(first) = self.ranges.front() {
            if seq::before(ack, first.end()) {
                return;
            }
            self.kept_bytes -= first.bytes.as_ref().map_or(0, Vec::len);
            self.ranges.pop_front();
        }
    }

    /// Holds back a frame whose payload begins at `start`, beyond `next`.
    pub(crate) fn hold(&mut self, start: u32, frame: &[u8]) {
        self.held_bytes += frame.len();
        self.held.push(Held {
            start,
            frame: frame.to_vec(),
        });
    }

    /// All held frames, in the order in which they came.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
            .into_iter()
            .map(|held| held.frame)
    }

    /// A held frame that is beyond `next` no longer.
    pub(crate) fn take_ready(&mut self) -> Option<Vec<u8>> {
        let next = self.next;
        let at = self
            .held
            .iter()
            .position(|held| !seq::before(next, held.start))?;
        let held = self.held.swap_remove(at);
        self.held_bytes -= held.frame.len();
        Some(held.frame)
    }
}

/// `bytes` begin at `start`; the part of them within `[from, to)`.
fn kept_slice(bytes: &[u8], start: u32, from: u32, to: u32) -> Option<&[u8]> {
    bytes.get(from.wrapping_sub(start) as usize..to.wrapping_sub(start) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_compared_across_ranges_and_the_wrap() {
        let first = 0xffff_fff8;
        let mut stream = ClientStream::new(first);
        stream.keep(b"0123456789");
        stream.skip(100);
        stream.keep(b"abcdef");
        assert_eq!(stream.next(), first.wrapping_add(116));
        assert_eq!(stream.check_old(first, b"0123456789"), Old::Same);
        assert_eq!(stream.check_old(first, b"0123X"), Old::Different);
        assert_eq!(
            stream.check_old(first.wrapping_add(8), &[b"89", &[0u8; 50][..]].concat()),
            Old::Same
        );
        assert_eq!(
            stream.check_old(first.wrapping_add(109), b"?abcdef"),
            Old::Same
        );
        assert_eq!(
            stream.check_old(first.wrapping_add(109), b"?abXdef"),
            Old::Different
        );
        assert_eq!(
            stream.check_old(first.wrapping_sub(1), b"?0123"),
            Old::Forgotten
        );
    }

    #[test]
    fn acknowledged_bytes_are_forgotten() {
        let mut stream = ClientStream::new(1);
        stream.keep(&[7; 5000]);
        stream.keep(b"tail");
        assert_eq!(stream.kept_bytes(), 5004);
        stream.acknowledged(5000);
        assert_eq!(stream.kept_bytes(), 5004);
        stream.acknowledged(5001);
        assert_eq!(stream.kept_bytes(), 4);
        assert_eq!(stream.check_old(1, &[7; 10]), Old::Forgotten);
    }

    #[test]
    fn a_long_opaque_range_keeps_arithmetic_sound() {
        let mut stream = ClientStream::new(0);
        stream.keep(b"head");
        for _ in 0..20 {
            stream.skip(OPAQUE_MAX / 2);
        }
        let (start, end) = stream.opaque_tail().unwrap();
        assert_eq!(end.wrapping_sub(start), OPAQUE_MAX);
        assert_eq!(end, stream.next());
        assert_eq!(stream.kept_bytes(), 0);
    }

    #[test]
    fn held_frames_come_back_when_the_gap_is_filled() {
        let mut stream = ClientStream::new(100);
        stream.hold(110, b"later");
        assert_eq!(stream.take_ready(), None);
        stream.keep(&[0; 10]);
        assert_eq!(stream.take_ready().as_deref(), Some(&b"later"[..]));
        assert_eq!(stream.held_bytes(), 0);
    }
}
