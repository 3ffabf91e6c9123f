//! The head of the server's answer to an Upgrade or CONNECT request: does a tunnel begin?

use crate::chars::VALUE;
use crate::http1::HEAD_MAX;
use crate::http1::scan::HeadScanner;
use crate::refusal::{HTTP_HEAD_TOO_LARGE, HTTP_RESPONSE_STATUS_LINE, Refusal};

/// Start of every status line (RFC 9112 section 4), up to the minor version.
const VERSION_PREFIX: &[u8] = b"HTTP/1.";
/// Where the three digits of the status stand in it.
const STATUS: std::ops::Range<usize> = 9..12;

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseProgress {
    /// The head is not complete.
    NeedMore,
    /// The final head, or that of a 101, is complete.
    Done {
        /// Status code.
        status: u16,
        /// Bytes from the first byte shown to the end of this head; interim heads included.
        head_len: usize,
    },
    /// The bytes cannot be judged safely. The reader says the same from now on.
    Refused(Refusal),
}

#[derive(Debug)]
enum Phase {
    /// At this byte of the status line.
    StatusLine(usize),
    Fields(HeadScanner),
    Ended(ResponseProgress),
}

/// Reads the head of one response; 1xx other than 101 are skipped. Show it the first byte behind
/// all earlier responses. Holds no bytes; interim heads and the final one together may have
/// [`HEAD_MAX`] bytes.
#[derive(Debug)]
pub struct ResponseReader {
    phase: Phase,
    /// Bytes read, all heads together.
    seen: usize,
    status: u16,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseReader {
    /// A reader at the start of a response.
    pub const fn new() -> Self {
        Self {
            phase: Phase::StatusLine(0),
            seen: 0,
            status: 0,
        }
    }

    /// Reads the next piece of the server's stream.
    pub fn push(&mut self, bytes: &[u8]) -> ResponseProgress {
        match self.read(bytes) {
            Ok(None) => ResponseProgress::NeedMore,
            Ok(Some(end)) => self.end(end),
            Err(why) => self.end(ResponseProgress::Refused(why)),
        }
    }

    fn end(&mut self, progress: ResponseProgress) -> ResponseProgress {
        self.phase = Phase::Ended(progress);
        progress
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Option<ResponseProgress>, Refusal> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.phase {
                Phase::Ended(progress) => return Ok(Some(*progress)),
                Phase::StatusLine(at) => {
                    let at = *at;
                    self.status_line(at, byte)?;
                    bytes = rest;
                }
                Phase::Fields(scanner) => {
                    let Some(n) = scanner.scan(bytes).map_err(|fault| fault.why)? else {
                        return Ok(None);
                    };
                    self.seen = scanner.seen();
                    if self.status >= 200 || self.status == 101 {
                        let done = ResponseProgress::Done {
                            status: self.status,
                            head_len: self.seen,
                        };
                        return Ok(Some(done));
                    }
                    self.status = 0;
                    self.phase = Phase::StatusLine(0);
                    bytes = &bytes[n..];
                }
            }
        }
        Ok(if let Phase::Ended(progress) = self.phase {
            Some(progress)
        } else {
            None
        })
    }

    /// `HTTP/1.x SP 3DIGIT [SP reason] CRLF`.
    fn status_line(&mut self, at: usize, byte: u8) -> Result<(), Refusal> {
        if self.seen >= HEAD_MAX {
            return Err(HTTP_HEAD_TOO_LARGE);
        }
        self.seen += 1;
        /// Stands for the LF behind the CR, wherever that was.
        const LF: usize = usize::MAX;
        let next = match at {
            LF if byte == b'\n' => {
                self.phase = Phase::Fields(HeadScanner::fields(self.seen));
                return Ok(());
            }
            LF => None,
            0..=6 => (VERSION_PREFIX[at] == byte).then_some(at + 1),
            7 => matches!(byte, b'0' | b'1').then_some(8),
            8 => (byte == b' ').then_some(STATUS.start),
            9..=11 => self.status_digit(at, byte),
            _ if byte == b'\r' => Some(LF),
            12 => (byte == b' ').then_some(13),
            _ => VALUE[usize::from(byte)].then_some(13),
        };
        self.phase = Phase::StatusLine(next.ok_or(HTTP_RESPONSE_STATUS_LINE)?);
        Ok(())
    }

    fn status_digit(&mut self, at: usize, byte: u8) -> Option<usize> {
        let valid = if at == STATUS.start {
            b'1'..=b'9'
        } else {
            b'0'..=b'9'
        };
        if !valid.contains(&byte) {
            return None;
        }
        self.status = self.status * 10 + u16::from(byte - b'0');
        Some(at + 1)
    }
}
