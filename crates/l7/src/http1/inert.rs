//! The body of a request whose method usually has none, read so that nobody can take it for a
//! request.
//!
//! Some servers do not read such a body: they look for the next request in it. What they find there is
//! a line that starts with a byte that no method can contain, has no end but that of the next
//! request's first line, and no second word that could be a target. A server that checks the method
//! answers 400 and closes (RFC 9112 section 2.2); one that does not finds the next request's target, or
//! none.

use crate::refusal::{Fault, HTTP_UNEXPECTED_BODY};

/// Longest such body. A server should be able to read a line of 8000 bytes (RFC 9112 section 3); simple
/// ones cut a longer one into two, and the second could begin as a request does.
pub(super) const INERT_MAX: u64 = 8000;

/// Words of the line that matter: the method and the target.
const WORDS: u8 = 2;

/// Reads the body piece by piece.
#[derive(Debug)]
pub(super) struct InertBody {
    left: u64,
    /// Words that a space has ended; none beyond [`WORDS`] is counted.
    words: u8,
    /// What some server takes for a blank was there.
    blank_seen: bool,
    /// 0 at the start.
    last: u8,
}

impl InertBody {
    /// A body of `len` bytes, at least one.
    pub(super) fn new(len: u64) -> Self {
        Self {
            left: len,
            words: 0,
            blank_seen: false,
            last: 0,
        }
    }

    /// Reads on. `Some`: the body ends behind so many bytes of the piece.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let most = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        for (at, &byte) in bytes.iter().take(most).enumerate() {
            if !self.is_inert(byte) {
                return Err(Fault {
                    at,
                    why: HTTP_UNEXPECTED_BODY,
                });
            }
            self.last = byte;
        }
        self.left -= most as u64;
        Ok((self.left == 0).then_some(most))
    }

    fn is_inert(&mut self, byte: u8) -> bool {
        if self.last == 0 {
            return matches!(byte, b'{' | b'[');
        }
        // A line might end here, or what is behind it be cut off.
        if byte.is_ascii_control() {
            return false;
        }
        if self.words == WORDS {
            return true;
        }
        if byte == b' ' && self.last != b' ' {
            self.words += 1;
        }
        let begins = is_blank(self.last) && !is_blank(byte);
        self.blank_seen |= is_blank(byte);
        let target = begins && matches!(byte, b'/' | b'\\' | b'*' | b'%' | b'?' | b'.');
        let absolute = self.blank_seen && self.last == b':' && matches!(byte, b'/' | b'\\');
        !target && !absolute
    }
}

/// A space, and what is one in ISO 8859-1 to those that split decoded lines.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | 0x85 | 0xa0)
}
