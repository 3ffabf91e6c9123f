//! What a client sends behind its first ClientHello, up to the place where no second one can come.

use super::record::{
    BUFFER_MAX, FRAGMENT_MAX, HANDSHAKE, MAJOR, MESSAGE_HEADER, RECORD_HEADER, message_len,
};
use super::{ClientHello, EARLY_DATA_MAX, hello};
use crate::buffer;
use crate::refusal::{
    Refusal, TLS_CHANGE_CIPHER_SPEC, TLS_EMPTY_RECORD, TLS_HELLO_TOO_LARGE, TLS_NOT_CLIENT_HELLO,
    TLS_RECORD_LENGTH, TLS_RECORD_TYPE, TLS_RECORD_VERSION, TLS_SPLIT_HELLO, TLS_TOO_MANY_RECORDS,
    TLS_TRAILING_DATA,
};

/// Content type `change_cipher_spec`.
const CHANGE_CIPHER_SPEC: u8 = 20;
/// Content type `alert`.
const ALERT: u8 = 21;
/// Content type `application_data`.
const APPLICATION_DATA: u8 = 23;
/// The only body that a `change_cipher_spec` record may have.
const CHANGE_CIPHER_SPEC_BODY: u8 = 1;
/// Length of an alert that is not encrypted.
const ALERT_LEN: usize = 2;
/// Alert level `warning`.
const WARNING: u8 = 1;
/// Alert `user_canceled`, which some servers ignore whatever its level.
const USER_CANCELED: u8 = 90;
/// Longest encrypted record (RFC 5246 section 6.2.3; RFC 8446 allows less).
const ENCRYPTED_MAX: usize = FRAGMENT_MAX + 2048;
/// Clients send one such record, some a second one behind early data.
const CHANGE_CIPHER_SPEC_MAX: u8 = 2;
/// Warnings before the handshake ends are rare, and servers give up after four or five.
const WARNINGS_MAX: u8 = 4;

/// What the bytes behind the first hello amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterHello {
    /// A second hello may still come.
    NeedMore,
    /// A second hello, complete and well-formed: the server has answered the first one with
    /// HelloRetryRequest (RFC 8446 section 4.1.4), and this is the one that it acts on. No third
    /// one may follow; the reader says `Settled` from now on.
    Second(ClientHello),
    /// No second hello comes. The reader says the same from now on.
    Settled,
    /// A server could find a hello in these bytes that another reader does not, or they are no
    /// TLS. The reader says the same from now on.
    Refused(Refusal),
}

/// What the record being read holds.
#[derive(Debug, Clone, Copy)]
enum Record {
    Hello,
    ChangeCipherSpec,
    /// With the first of its two bytes, once it is there.
    Alert(Option<u8>),
    EarlyData,
}

/// Reads what a client sends behind its first hello until a second one is there or cannot come.
/// Holds at most [`HELLO_MAX`](super::HELLO_MAX) and four bytes.
///
/// Records that a server ignores at this place are looked past: `change_cipher_spec`, warnings and,
/// if the first hello announced it, early data: a server that asks for a second hello skips it.
/// At most [`EARLY_DATA_MAX`] bytes of it, because a client whose early data was accepted sends
/// nothing else any more.
///
/// Behind `change_cipher_spec` a handshake record may be encrypted (TLS 1.2, resumed session), and
/// its first byte may then be that of a ClientHello by chance. Such a record is told from a hello
/// by what follows: a hello goes on until it is complete, with handshake records only.
#[derive(Debug)]
pub struct AfterHelloReader {
    early_data: bool,
    /// Header of the record being read.
    header: [u8; RECORD_HEADER],
    /// How many bytes of it are there.
    header_len: usize,
    record: Record,
    /// How many bytes of the record are still to come.
    left: usize,
    /// Handshake bytes so far, without record headers.
    message: Vec<u8>,
    /// They announced more than a hello may have; the rest of their record is looked past.
    oversized: bool,
    change_cipher_specs: u8,
    warnings: u8,
    early_bytes: usize,
    /// Final answer to everything that still comes.
    ended: Option<AfterHello>,
}

impl AfterHelloReader {
    /// A reader behind the first hello. `early_data` is what that hello says.
    pub fn new(early_data: bool) -> Self {
        Self {
            early_data,
            header: [0; RECORD_HEADER],
            header_len: 0,
            record: Record::Hello,
            left: 0,
            message: Vec::new(),
            oversized: false,
            change_cipher_specs: 0,
            warnings: 0,
            early_bytes: 0,
            ended: None,
        }
    }

    /// Bytes of memory held for the hello.
    pub fn buffered(&self) -> usize {
        self.message.capacity()
    }

    /// Reads the next piece of the stream. Bytes behind the answer are not looked at.
    pub fn push(&mut self, bytes: &[u8]) -> AfterHello {
        if let Some(answer) = &self.ended {
            return answer.clone();
        }
        let (answer, later) = match self.read(bytes) {
            Ok(None) => return AfterHello::NeedMore,
            Ok(Some(answer)) => (answer, AfterHello::Settled),
            Err(refusal) => (AfterHello::Refused(refusal), AfterHello::Refused(refusal)),
        };
        self.ended = Some(later);
        self.message = Vec::new();
        answer
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Option<AfterHello>, Refusal> {
        while !bytes.is_empty() {
            let wanted = if self.left == 0 {
                RECORD_HEADER - self.header_len
            } else {
                self.left
            };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            let answer = if self.left == 0 {
                self.read_header(piece)?
            } else {
                self.left -= piece.len();
                self.read_fragment(piece)?
            };
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// Takes bytes of the record header and judges it as far as it is there.
    fn read_header(&mut self, piece: &[u8]) -> Result<Option<AfterHello>, Refusal> {
        for &byte in piece {
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = byte;
            }
            self.header_len += 1;
            match self.header_len {
                1 if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&byte) => {
                    return Err(TLS_RECORD_TYPE);
                }
                2 if byte != MAJOR => return Err(TLS_RECORD_VERSION),
                _ => {}
            }
        }
        if self.header_len < RECORD_HEADER {
            return Ok(None);
        }
        self.header_len = 0;
        let [kind, _, _, high, low] = self.header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        self.left = len;
        match kind {
            HANDSHAKE => self.begin_handshake(len),
            CHANGE_CIPHER_SPEC => self.begin_change_cipher_spec(len),
            ALERT => self.begin_alert(len),
            _ => self.begin_data(len),
        }
    }

    /// The second hello has begun.
    fn in_hello(&self) -> bool {
        self.oversized || !self.message.is_empty()
    }

    fn begin_handshake(&mut self, len: usize) -> Result<Option<AfterHello>, Refusal> {
        match len {
            // It goes on, so it was meant as a hello.
            _ if self.oversized => Err(TLS_HELLO_TOO_LARGE),
            0 => Err(TLS_EMPTY_RECORD),
            _ if len > FRAGMENT_MAX => Err(TLS_RECORD_LENGTH),
            _ => {
                self.record = Record::Hello;
                Ok(None)
            }
        }
    }

    fn begin_change_cipher_spec(&mut self, len: usize) -> Result<Option<AfterHello>, Refusal> {
        if self.in_hello() {
            return Err(TLS_SPLIT_HELLO);
        }
        if len != 1 {
            return Err(TLS_CHANGE_CIPHER_SPEC);
        }
        if self.change_cipher_specs == CHANGE_CIPHER_SPEC_MAX {
            return Err(TLS_TOO_MANY_RECORDS);
        }
        self.change_cipher_specs += 1;
        self.record = Record::ChangeCipherSpec;
        Ok(None)
    }

    fn begin_alert(&mut self, len: usize) -> Result<Option<AfterHello>, Refusal> {
        if len > ENCRYPTED_MAX {
            return Err(TLS_RECORD_LENGTH);
        }
        // Encrypted: the handshake is over.
        if len != ALERT_LEN {
            return Ok(Some(AfterHello::Settled));
        }
        if self.in_hello() {
            return Err(TLS_SPLIT_HELLO);
        }
        self.record = Record::Alert(None);
        Ok(None)
    }

    fn begin_data(&mut self, len: usize) -> Result<Option<AfterHello>, Refusal> {
        if len > ENCRYPTED_MAX {
            return Err(TLS_RECORD_LENGTH);
        }
        if !self.early_data {
            return Ok(Some(AfterHello::Settled));
        }
        if self.in_hello() {
            return Err(TLS_SPLIT_HELLO);
        }
        self.early_bytes += RECORD_HEADER + len;
        if self.early_bytes > EARLY_DATA_MAX {
            return Ok(Some(AfterHello::Settled));
        }
        self.record = Record::EarlyData;
        Ok(None)
    }

    /// Takes bytes of the record, none of the next one.
    fn read_fragment(&mut self, piece: &[u8]) -> Result<Option<AfterHello>, Refusal> {
        match self.record {
            Record::Hello => self.read_message(piece),
            Record::EarlyData => Ok(None),
            Record::ChangeCipherSpec if piece == [CHANGE_CIPHER_SPEC_BODY] => Ok(None),
            Record::ChangeCipherSpec => Err(TLS_CHANGE_CIPHER_SPEC),
            Record::Alert(level) => match (level, piece) {
                (Some(level), &[alert]) | (None, &[level, alert]) => self.read_alert(level, alert),
                (_, piece) => {
                    self.record = Record::Alert(piece.first().copied());
                    Ok(None)
                }
            },
        }
    }

    fn read_alert(&mut self, level: u8, alert: u8) -> Result<Option<AfterHello>, Refusal> {
        if level != WARNING && alert != USER_CANCELED {
            return Ok(Some(AfterHello::Settled));
        }
        if self.warnings == WARNINGS_MAX {
            return Err(TLS_TOO_MANY_RECORDS);
        }
        self.warnings += 1;
        Ok(None)
    }

    fn read_message(&mut self, mut piece: &[u8]) -> Result<Option<AfterHello>, Refusal> {
        while !piece.is_empty() && !self.oversized {
            let goal = message_len(&self.message)?.unwrap_or(MESSAGE_HEADER);
            let missing = goal.saturating_sub(self.message.len());
            let (head, rest) = piece.split_at(missing.min(piece.len()));
            buffer::append(&mut self.message, head, BUFFER_MAX);
            piece = rest;
            match message_len(&self.message) {
                Err(TLS_NOT_CLIENT_HELLO) => return Ok(Some(AfterHello::Settled)),
                // Whoever means it goes on with a handshake record.
                Err(_) => self.oversized = true,
                Ok(Some(len)) if len == self.message.len() => {
                    if self.left > 0 || !piece.is_empty() {
                        return Err(TLS_TRAILING_DATA);
                    }
                    return hello::parse(&self.message)
                        .map(|hello| Some(AfterHello::Second(hello)));
                }
                Ok(_) => {}
            }
        }
        Ok(None)
    }
}
