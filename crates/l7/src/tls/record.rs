//! From TLS records to one handshake message.

use super::hello;
use super::{HELLO_MAX, TlsProgress};
use crate::buffer;
use crate::refusal::{
    Refusal, TLS_AFTER_HELLO, TLS_EMPTY_RECORD, TLS_HELLO_TOO_LARGE, TLS_NOT_CLIENT_HELLO,
    TLS_NOT_HANDSHAKE, TLS_RECORD_LENGTH, TLS_RECORD_VERSION, TLS_TRAILING_DATA,
};

/// Content type, version, length (RFC 8446 section 5.1).
pub(super) const RECORD_HEADER: usize = 5;
/// Longest plaintext fragment of a record (RFC 8446 section 5.1).
pub(super) const FRAGMENT_MAX: usize = 1 << 14;
/// Content type `handshake`.
pub(super) const HANDSHAKE: u8 = 22;
/// Major version of every record since SSL 3.0.
pub(super) const MAJOR: u8 = 3;
/// Message type and 24-bit length (RFC 8446 section 4).
pub(super) const MESSAGE_HEADER: usize = 4;
/// Message type `client_hello`.
const CLIENT_HELLO: u8 = 1;
/// The most the buffer ever holds.
pub(super) const BUFFER_MAX: usize = MESSAGE_HEADER + HELLO_MAX;

/// Reads the ClientHello at the start of a client's stream. Records may cut it anywhere, pieces
/// may cut records anywhere. Holds at most [`HELLO_MAX`] and four bytes, and none at all if the
/// hello comes in one record and one piece.
///
/// Refuses at the first byte that is wrong for a record or message header; what is inside the
/// hello is looked at once it is complete. A server cannot act on less either.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    /// Header of the record being read.
    header: [u8; RECORD_HEADER],
    /// How many bytes of it are there.
    header_len: usize,
    /// How many bytes of the record's fragment are still to come.
    record_left: usize,
    /// Handshake bytes so far, without record headers.
    message: Vec<u8>,
    /// Bytes of the last piece that lie behind the hello.
    behind: usize,
    /// Final answer to everything that still comes.
    ended: Option<Refusal>,
}

impl ClientHelloReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory held for the hello.
    pub fn buffered(&self) -> usize {
        self.message.capacity()
    }

    /// After `Done`: so many bytes of the last piece lie behind the hello and were not looked at.
    pub fn behind(&self) -> usize {
        self.behind
    }

    /// Reads the next piece of the stream. After `Done` the reader has no more use: what follows
    /// the hello is refused.
    pub fn push(&mut self, bytes: &[u8]) -> TlsProgress {
        if let Some(refusal) = self.ended {
            return TlsProgress::Refused(refusal);
        }
        let result = match self.whole(bytes) {
            Some(message) => {
                self.behind = bytes.len() - RECORD_HEADER - message.len();
                hello::parse(message).map(Some)
            }
            None => self.reassemble(bytes),
        };
        match result {
            Ok(None) => TlsProgress::NeedMore,
            Ok(Some(hello)) => {
                self.end(TLS_AFTER_HELLO);
                TlsProgress::Done(hello)
            }
            Err(refusal) => {
                self.end(refusal);
                TlsProgress::Refused(refusal)
            }
        }
    }

    fn end(&mut self, refusal: Refusal) {
        self.ended = Some(refusal);
        self.message = Vec::new();
    }

    /// The hot path: the first piece holds exactly one record with exactly one hello in it.
    /// Whatever deviates from that is left to `reassemble`.
    fn whole<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if self.header_len > 0 || self.record_left > 0 || !self.message.is_empty() {
            return None;
        }
        let (&header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
        let len = check_header(&header).ok()??;
        let message = rest.get(..len)?;
        (message_len(message).ok()?? == len).then_some(message)
    }

    fn reassemble(&mut self, mut bytes: &[u8]) -> Result<Option<super::ClientHello>, Refusal> {
        while !bytes.is_empty() {
            if self.record_left == 0 {
                bytes = self.read_header(bytes)?;
                continue;
            }
            bytes = self.read_fragment(bytes)?;
            if message_len(&self.message)? == Some(self.message.len()) {
                if self.record_left > 0 {
                    return Err(TLS_TRAILING_DATA);
                }
                self.behind = bytes.len();
                return hello::parse(&self.message).map(Some);
            }
        }
        Ok(None)
    }

    /// Takes bytes of the record header and judges it as far as it is there.
    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let missing = &mut self.header[self.header_len..];
        let n = missing.len().min(bytes.len());
        missing[..n].copy_from_slice(&bytes[..n]);
        self.header_len += n;
        if let Some(len) = check_header(&self.header[..self.header_len])? {
            self.record_left = len;
            self.header_len = 0;
        }
        Ok(&bytes[n..])
    }

    /// Takes bytes of the record, up to the end of the message header or of the message.
    fn read_fragment<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let goal = message_len(&self.message)?.unwrap_or(MESSAGE_HEADER);
        let n = self
            .record_left
            .min(bytes.len())
            .min(goal - self.message.len());
        buffer::append(&mut self.message, &bytes[..n], BUFFER_MAX);
        self.record_left -= n;
        Ok(&bytes[n..])
    }
}

/// Judges a record header or the start of one. `Some`: it is whole, and so long is the fragment.
fn check_header(header: &[u8]) -> Result<Option<usize>, Refusal> {
    if header.first().is_some_and(|&kind| kind != HANDSHAKE) {
        return Err(TLS_NOT_HANDSHAKE);
    }
    if header.get(1).is_some_and(|&major| major != MAJOR) {
        return Err(TLS_RECORD_VERSION);
    }
    let &[_, _, _, high, low] = header else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(TLS_EMPTY_RECORD),
        len if len > FRAGMENT_MAX => Err(TLS_RECORD_LENGTH),
        len => Ok(Some(len)),
    }
}

/// Judges the header of the handshake message, or the start of one. `Some`: so long is the
/// message, with its header.
pub(super) fn message_len(message: &[u8]) -> Result<Option<usize>, Refusal> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(TLS_NOT_CLIENT_HELLO);
    }
    let &[_, a, b, c, ..] = message else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    if len > HELLO_MAX {
        return Err(TLS_HELLO_TOO_LARGE);
    }
    Ok(Some(MESSAGE_HEADER + len))
}
