//! The chunked coding (RFC 9112 section 7.1), without chunk extensions.

use super::fields::is_framing;
use super::scan::HeadScanner;
use super::{CHUNK_SIZE_DIGITS, TRAILER_FIELDS_MAX, TRAILERS_MAX};
use crate::buffer;
use crate::refusal::{
    Fault, HTTP_BARE_CR, HTTP_BARE_LF, HTTP_CHUNK_END, HTTP_CHUNK_EXTENSION, HTTP_CHUNK_SIZE,
    HTTP_MALFORMED, HTTP_TRAILER_FORBIDDEN, Refusal,
};

#[derive(Debug)]
enum State {
    /// In a chunk-size line.
    Size { digits: usize, value: u64 },
    /// LF of a chunk-size line.
    SizeLf(u64),
    /// Inside a chunk; so many bytes are still to come, at least one.
    Data(u64),
    /// CR behind a chunk.
    DataCr,
    /// LF behind a chunk.
    DataLf,
    /// In the trailer section.
    Trailers(HeadScanner, Vec<u8>),
}

const SIZE_START: State = State::Size {
    digits: 0,
    value: 0,
};

/// Reads one chunked body.
#[derive(Debug)]
pub(super) struct ChunkReader {
    state: State,
}

impl ChunkReader {
    pub(super) const fn new() -> Self {
        Self { state: SIZE_START }
    }

    /// Bytes of memory held for trailers.
    pub(super) fn buffered(&self) -> usize {
        if let State::Trailers(_, buf) = &self.state {
            buf.capacity()
        } else {
            0
        }
    }

    /// Inside a chunk: how many of its bytes are still to come; 0 outside.
    pub(super) fn data_left(&self) -> u64 {
        if let State::Data(left) = self.state {
            left
        } else {
            0
        }
    }

    /// Reads the next piece. `Some`: the body ends behind so many bytes of it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Data(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    at += n;
                }
                State::Trailers(scanner, buf) => {
                    let end = trailers(scanner, buf, rest).map_err(|f| Fault {
                        at: at + f.at,
                        why: f.why,
                    })?;
                    return Ok(end.map(|n| at + n));
                }
                _ => {
                    self.line(bytes[at]).map_err(|why| Fault { at, why })?;
                    at += 1;
                }
            }
        }
        Ok(None)
    }

    /// States that take one byte.
    fn line(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (&self.state, byte) {
            (&State::Size { digits, value }, _) => size(digits, value, byte)?,
            (State::SizeLf(0), b'\n') => State::Trailers(HeadScanner::trailers(), Vec::new()),
            (&State::SizeLf(value), b'\n') => State::Data(value),
            (State::SizeLf(_), _) => return Err(HTTP_BARE_CR),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => SIZE_START,
            _ => return Err(HTTP_CHUNK_END),
        };
        Ok(())
    }
}

fn size(digits: usize, value: u64, byte: u8) -> Result<State, Refusal> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\n' => return Err(HTTP_BARE_LF),
        b'\r' if digits > 0 => return Ok(State::SizeLf(value)),
        // White space may only stand before an extension.
        b';' | b' ' | b'\t' if digits > 0 => return Err(HTTP_CHUNK_EXTENSION),
        _ => return Err(HTTP_CHUNK_SIZE),
    };
    let value = value << 4 | u64::from(digit);
    if digits == CHUNK_SIZE_DIGITS || i32::try_from(value).is_err() {
        return Err(HTTP_CHUNK_SIZE);
    }
    Ok(State::Size {
        digits: digits + 1,
        value,
    })
}

fn trailers(
    scanner: &mut HeadScanner,
    buf: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<Option<usize>, Fault> {
    let Some(end) = scanner.scan(bytes)? else {
        buffer::append(buf, bytes, TRAILERS_MAX);
        return Ok(None);
    };
    let section = if buf.is_empty() {
        &bytes[..end]
    } else {
        buffer::append(buf, &bytes[..end], TRAILERS_MAX);
        buf
    };
    check_trailers(section).map_err(|why| Fault { at: end, why })?;
    Ok(Some(end))
}

fn check_trailers(section: &[u8]) -> Result<(), Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    let parsed = httparse::parse_headers(section, &mut slots);
    let Ok(httparse::Status::Complete((_, fields))) = parsed else {
        return Err(HTTP_MALFORMED);
    };
    if fields.iter().any(|field| is_framing(field.name.as_bytes())) {
        return Err(HTTP_TRAILER_FORBIDDEN);
    }
    Ok(())
}
