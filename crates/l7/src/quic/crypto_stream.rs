//! The CRYPTO stream of a client's Initial packets: its ClientHello, and after a HelloRetryRequest
//! a second one behind it.

use super::{CRYPTO_MAX, frames::Crypto};
use crate::ClientHello;
use crate::refusal::{
    QUIC_CRYPTO_AFTER_HELLO, QUIC_CRYPTO_CONFLICT, QUIC_HELLO_TOO_LARGE, QUIC_NOT_CLIENT_HELLO,
    Refusal,
};
use crate::tls::hello;

/// Message type and 24-bit length (RFC 8446 section 4).
const MESSAGE_HEADER: usize = 4;
/// Message type `client_hello`.
const CLIENT_HELLO: u8 = 1;
/// A server asks for a second hello at most once (RFC 8446 section 4.1.4).
const HELLOS_MAX: usize = 2;

/// Holds every byte of the stream, also those that were judged: a byte that comes again has to be
/// the same.
#[derive(Default)]
pub(super) struct CryptoStream {
    /// The bytes; where one is missing, zero.
    bytes: Vec<u8>,
    /// One bit for each of them: it is there.
    there: Vec<u64>,
    /// So many are there without a gap from the start.
    whole: usize,
    /// Where the message starts that was not handed out yet.
    start: usize,
    /// How many hellos were handed out.
    handed: usize,
}

impl CryptoStream {
    /// Bytes of memory held.
    pub(super) fn buffered(&self) -> usize {
        self.bytes.capacity() + self.there.capacity() * size_of::<u64>()
    }

    /// A hello was handed out.
    pub(super) fn judged(&self) -> bool {
        self.handed > 0
    }

    /// Bytes of a hello are there that was not handed out.
    pub(super) fn pending(&self) -> bool {
        self.bytes.len() > self.start
    }

    /// Takes the piece in a frame.
    pub(super) fn add(&mut self, frame: &Crypto<'_>) -> Result<(), Refusal> {
        let offset = usize::try_from(frame.offset).map_err(|_| QUIC_HELLO_TOO_LARGE)?;
        let end = offset.saturating_add(frame.data.len());
        if end > CRYPTO_MAX {
            return Err(QUIC_HELLO_TOO_LARGE);
        }
        if frame.data.is_empty() {
            return Ok(());
        }
        self.grow(end);
        for (at, &byte) in (offset..end).zip(frame.data) {
            self.put(at, byte)?;
        }
        while self.is_there(self.whole) {
            self.whole += 1;
        }
        Ok(())
    }

    fn grow(&mut self, end: usize) {
        let len = self.bytes.len();
        if end > len {
            // Capacity doubles, so that work is linear, and ends at the limit exactly.
            if end > self.bytes.capacity() {
                let room = end.max(self.bytes.capacity() * 2).min(CRYPTO_MAX);
                self.bytes.reserve_exact(room - len);
                let words = self.bytes.capacity().div_ceil(u64::BITS as usize);
                self.there
                    .reserve_exact(words.saturating_sub(self.there.len()));
                self.there.resize(words, 0);
            }
            self.bytes.resize(end, 0);
        }
    }

    fn put(&mut self, at: usize, byte: u8) -> Result<(), Refusal> {
        let known = self.is_there(at);
        let (word, bit) = place(at);
        if let (Some(slot), Some(there)) = (self.bytes.get_mut(at), self.there.get_mut(word)) {
            if known && *slot != byte {
                return Err(QUIC_CRYPTO_CONFLICT);
            }
            *slot = byte;
            *there |= bit;
        }
        Ok(())
    }

    fn is_there(&self, at: usize) -> bool {
        let (word, bit) = place(at);
        self.there.get(word).is_some_and(|there| there & bit != 0)
    }

    /// The next hello, if it is complete. It is still to be handed out: see [`Self::hand_out`].
    pub(super) fn next(&self) -> Result<Option<ClientHello>, Refusal> {
        if !self.pending() {
            return Ok(None);
        }
        if self.handed == HELLOS_MAX {
            return Err(QUIC_CRYPTO_AFTER_HELLO);
        }
        let there = self.bytes.get(self.start..self.whole).unwrap_or_default();
        let Some(len) = message_len(there)? else {
            return Ok(None);
        };
        if self.start + len > CRYPTO_MAX {
            return Err(QUIC_HELLO_TOO_LARGE);
        }
        // What follows a hello answers the server, which has not seen this one yet.
        if self.bytes.len() > self.start + len {
            return Err(QUIC_CRYPTO_AFTER_HELLO);
        }
        there.get(..len).map(hello::parse).transpose()
    }

    /// The hello that `next` gave is handed out now: it covers everything that is there.
    pub(super) fn hand_out(&mut self) {
        self.start = self.bytes.len();
        self.handed += 1;
    }
}

/// Word and bit that stand for a byte.
fn place(at: usize) -> (usize, u64) {
    let bits = u64::BITS as usize;
    (at / bits, 1 << (at % bits))
}

/// Judges the header of a handshake message, or the start of one. `Some`: so long is the message,
/// with its header.
fn message_len(message: &[u8]) -> Result<Option<usize>, Refusal> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(QUIC_NOT_CLIENT_HELLO);
    }
    let &[_, a, b, c, ..] = message else {
        return Ok(None);
    };
    Ok(Some(
        MESSAGE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize,
    ))
}
