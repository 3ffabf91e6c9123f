//! The state machine over a connection's requests.

use super::chunked::ChunkReader;
use super::inert::InertBody;
use super::scan::HeadScanner;
use super::{Framing, HEAD_MAX, Request, head};
use crate::buffer;
use crate::refusal::{Fault, HTTP_SKIPPED_TOO_MUCH, Refusal};

/// What one call of [`RequestReader::push`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// So many bytes of the piece are read; call again with the rest. With `Refused`: the place
    /// where it became certain; nothing of the piece may be forwarded.
    pub consumed: usize,
    /// What the bytes amount to.
    pub event: HttpEvent,
}

/// What [`RequestReader::push`] found.
#[allow(
    clippy::large_enum_variant,
    reason = "it is moved once to whoever judges it; a box would be an allocation for each request"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpEvent {
    /// All bytes are read, nothing was completed.
    NeedMore,
    /// A head is complete; what was read ends exactly behind its empty line. If its framing is
    /// `None` or `Length(0)` the request is over and no `BodyEnd` follows.
    Request(Request),
    /// The body of the last request is complete; what was read ends exactly behind it.
    BodyEnd,
    /// The bytes cannot be judged safely. The reader says the same from now on.
    Refused(Refusal),
}

#[derive(Debug)]
enum Phase {
    Head(HeadScanner),
    /// In a body of known length; so many bytes are still to come, at least one.
    Length(u64),
    /// In a body that some servers take for the next request; all of it is read.
    Inert(InertBody),
    Chunked(ChunkReader),
    Tunnel,
    Refused(Refusal),
}

/// Reads the requests of one connection, in order. Holds at most [`HEAD_MAX`] bytes, and none
/// when a head comes in one piece.
///
/// Behind an Upgrade or CONNECT request the client must wait for the server. The reader cannot
/// see the answer: it goes on to read requests until [`set_tunnel`](Self::set_tunnel). The caller
/// holds what the client sends meanwhile.
#[derive(Debug)]
pub struct RequestReader {
    phase: Phase,
    /// The start of a head that came in several pieces.
    buf: Vec<u8>,
    keep_headers: bool,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestReader {
    /// A reader at the start of a stream.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Head(HeadScanner::request()),
            buf: Vec::new(),
            keep_headers: false,
        }
    }

    /// Whether requests from now on come with all their header fields: copying them costs time, and
    /// few rules look at them.
    pub fn keep_headers(&mut self, keep: bool) {
        self.keep_headers = keep;
    }

    /// Reads the next piece, up to the first event in it.
    pub fn push(&mut self, bytes: &[u8]) -> Step {
        let result = match &mut self.phase {
            Phase::Head(_) => self.push_head(bytes),
            Phase::Length(left) => {
                let n = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= n as u64;
                Ok(if *left == 0 {
                    self.body_end(n)
                } else {
                    need_more(n)
                })
            }
            Phase::Inert(body) => match body.push(bytes) {
                Ok(Some(n)) => Ok(self.body_end(n)),
                Ok(None) => Ok(need_more(bytes.len())),
                Err(fault) => Err(fault),
            },
            Phase::Chunked(chunks) => match chunks.push(bytes) {
                Ok(Some(n)) => Ok(self.body_end(n)),
                Ok(None) => Ok(need_more(bytes.len())),
                Err(fault) => Err(fault),
            },
            Phase::Tunnel => Ok(need_more(bytes.len())),
            Phase::Refused(why) => Err(Fault { at: 0, why: *why }),
        };
        result.unwrap_or_else(|fault| self.refuse(fault))
    }

    fn push_head(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        let Phase::Head(scanner) = &mut self.phase else {
            return Ok(need_more(0));
        };
        let Some(end) = scanner.scan(bytes)? else {
            buffer::append(&mut self.buf, bytes, HEAD_MAX);
            return Ok(need_more(bytes.len()));
        };
        let parsed = if self.buf.is_empty() {
            head::parse(&bytes[..end], self.keep_headers)
        } else {
            buffer::append(&mut self.buf, &bytes[..end], HEAD_MAX);
            let parsed = head::parse(&self.buf, self.keep_headers);
            self.buf = Vec::new();
            parsed
        };
        let request = parsed.map_err(|why| Fault { at: end, why })?;
        self.phase = match request.framing {
            Framing::None | Framing::Length(0) => Phase::Head(HeadScanner::request()),
            Framing::Length(n) if head::has_no_usual_body(&request.method) => {
                Phase::Inert(InertBody::new(n))
            }
            Framing::Length(n) => Phase::Length(n),
            Framing::Chunked => Phase::Chunked(ChunkReader::new()),
        };
        Ok(Step {
            consumed: end,
            event: HttpEvent::Request(request),
        })
    }

    fn body_end(&mut self, consumed: usize) -> Step {
        self.phase = Phase::Head(HeadScanner::request());
        Step {
            consumed,
            event: HttpEvent::BodyEnd,
        }
    }

    fn refuse(&mut self, fault: Fault) -> Step {
        self.phase = Phase::Refused(fault.why);
        self.buf = Vec::new();
        Step {
            consumed: fault.at,
            event: HttpEvent::Refused(fault.why),
        }
    }

    /// In a body of known length that nobody takes for anything else: how many of its bytes are still
    /// to come, at least one. They need
    /// not be shown to the reader; tell it with [`skip_body`](Self::skip_body).
    pub fn opaque_body(&self) -> Option<u64> {
        if let Phase::Length(left) = self.phase {
            Some(left)
        } else {
            None
        }
    }

    /// In a chunked body: how many bytes of data come before the next byte of framing, 0 where
    /// framing is being read. Unlike [`opaque_body`](Self::opaque_body) they must be shown to the
    /// reader; but nothing depends on what they are.
    pub fn chunk_data(&self) -> Option<u64> {
        if let Phase::Chunked(chunks) = &self.phase {
            Some(chunks.data_left())
        } else {
            None
        }
    }

    /// These many bytes of the body went by unseen. When they were the last, the reader is at a
    /// boundary; no `BodyEnd` follows. More than the body has, or outside of a body of known
    /// length: everything from now on is refused, since a head may have gone by unseen.
    pub fn skip_body(&mut self, n: u64) {
        match &mut self.phase {
            _ if n == 0 => {}
            Phase::Length(left) if n < *left => *left -= n,
            Phase::Length(left) if n == *left => {
                self.phase = Phase::Head(HeadScanner::request());
            }
            Phase::Tunnel | Phase::Refused(_) => {}
            _ => {
                self.refuse(Fault {
                    at: 0,
                    why: HTTP_SKIPPED_TOO_MUCH,
                });
            }
        }
    }

    /// The bytes are no longer HTTP; everything is accepted unread.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.phase, Phase::Tunnel)
    }

    /// The server accepted an Upgrade (101) or CONNECT (2xx): what follows is not HTTP. A refusal
    /// stays.
    pub fn set_tunnel(&mut self) {
        if !matches!(self.phase, Phase::Refused(_)) {
            self.phase = Phase::Tunnel;
            self.buf = Vec::new();
        }
    }

    /// Between requests: no byte of a next head is read, and no body is open.
    pub fn at_boundary(&self) -> bool {
        matches!(&self.phase, Phase::Head(scanner) if scanner.seen() == 0)
    }

    /// Between requests, or in a head of which only a part of the method is read: if the stream ended
    /// here, no server would find a request in what is behind the last one.
    pub fn may_end(&self) -> bool {
        matches!(&self.phase, Phase::Head(scanner) if scanner.is_before_target())
    }

    /// Bytes of the incomplete head read so far; 0 outside of a head.
    pub fn head_len(&self) -> usize {
        if let Phase::Head(scanner) = &self.phase {
            scanner.seen()
        } else {
            0
        }
    }

    /// Bytes of memory held.
    pub fn buffered(&self) -> usize {
        let chunks = if let Phase::Chunked(chunks) = &self.phase {
            chunks.buffered()
        } else {
            0
        };
        self.buf.capacity() + chunks
    }
}

fn need_more(consumed: usize) -> Step {
    Step {
        consumed,
        event: HttpEvent::NeedMore,
    }
}
