//! Byte grammar of heads: finds the end and refuses at the first byte that cannot be right.

use super::{FIELDS_MAX, HEAD_MAX, METHOD_MAX, REQUEST_LINE_MAX, TRAILER_FIELDS_MAX, TRAILERS_MAX};
use crate::chars::{TARGET, TOKEN, VALUE, run};
use crate::refusal::{
    Fault, HTTP_BAD_FIELD_NAME, HTTP_BAD_METHOD, HTTP_BAD_VERSION, HTTP_BARE_CR, HTTP_BARE_LF,
    HTTP_EMPTY_LINES, HTTP_FIELD_CONTROL, HTTP_HEAD_TOO_LARGE, HTTP_NO_COLON, HTTP_NO_VERSION,
    HTTP_OBS_FOLD, HTTP_REQUEST_LINE_TOO_LONG, HTTP_SPACE_BEFORE_COLON, HTTP_TARGET_CONTROL,
    HTTP_TARGET_EMPTY, HTTP_TARGET_NON_ASCII, HTTP_TOO_MANY_FIELDS, HTTP_TRAILERS_TOO_LARGE,
    Refusal,
};

/// What stands behind the target, up to the minor version.
const VERSION_PREFIX: &[u8] = b"HTTP/1.";

/// Where in the grammar the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// First byte of a request line or of the empty line that may precede it.
    Start,
    /// LF of that empty line.
    EmptyLf,
    /// First byte of the request line behind an empty line.
    AfterEmpty,
    /// In the method, of which so many bytes are read.
    Method(usize),
    /// First byte of the target.
    TargetStart,
    Target,
    /// In the version, of which so many bytes are read.
    Version(usize),
    /// CR behind the version.
    VersionCr,
    /// LF of the request line.
    RequestLf,
    /// First byte of a field line or of the final empty line.
    LineStart,
    Name,
    Value,
    /// LF of a field line.
    ValueLf,
    /// LF of the final empty line.
    EndLf,
    Done,
}

/// What a section may cost.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes: usize,
    fields: usize,
    too_large: Refusal,
}

const HEAD: Bounds = Bounds {
    bytes: HEAD_MAX,
    fields: FIELDS_MAX,
    too_large: HTTP_HEAD_TOO_LARGE,
};
const TRAILERS: Bounds = Bounds {
    bytes: TRAILERS_MAX,
    fields: TRAILER_FIELDS_MAX,
    too_large: HTTP_TRAILERS_TOO_LARGE,
};

/// Scans one head (or the field lines alone), byte by byte, each byte once.
#[derive(Debug)]
pub(crate) struct HeadScanner {
    state: State,
    /// Bytes scanned.
    seen: usize,
    /// Field lines begun.
    fields: usize,
    bounds: &'static Bounds,
}

impl HeadScanner {
    /// Starts at a request line.
    pub(crate) const fn request() -> Self {
        Self {
            state: State::Start,
            seen: 0,
            fields: 0,
            bounds: &HEAD,
        }
    }

    /// Starts at the field lines of a head of which `seen` bytes are read.
    pub(crate) const fn fields(seen: usize) -> Self {
        Self {
            state: State::LineStart,
            seen,
            fields: 0,
            bounds: &HEAD,
        }
    }

    /// Starts at a trailer section.
    pub(crate) const fn trailers() -> Self {
        Self {
            state: State::LineStart,
            seen: 0,
            fields: 0,
            bounds: &TRAILERS,
        }
    }

    /// No blank has come behind the method yet, nor a part of one.
    pub(crate) fn is_before_target(&self) -> bool {
        matches!(
            self.state,
            State::Start | State::EmptyLf | State::AfterEmpty | State::Method(_)
        )
    }

    /// Bytes scanned so far.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    /// Scans the next piece. `Some`: the section ends behind so many bytes of it.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            let view = &bytes[at..bytes.len().min(at.saturating_add(self.room()))];
            let n = self.step(view).map_err(|f| Fault {
                at: at + f.at,
                why: f.why,
            })?;
            at += n;
            self.seen += n;
            if self.state == State::Done {
                return Ok(Some(at));
            }
            // Refused as soon as the limit is reached, so that it does not depend on the cut.
            if self.room() == 0 {
                return Err(Fault {
                    at,
                    why: self.limit().1,
                });
            }
        }
        Ok(None)
    }

    /// The limit that holds in this state, and what breaking it means.
    fn limit(&self) -> (usize, Refusal) {
        match self.state {
            State::Start
            | State::EmptyLf
            | State::AfterEmpty
            | State::Method(_)
            | State::TargetStart
            | State::Target
            | State::Version(_)
            | State::VersionCr
            | State::RequestLf => (REQUEST_LINE_MAX, HTTP_REQUEST_LINE_TOO_LONG),
            _ => (self.bounds.bytes, self.bounds.too_large),
        }
    }

    fn room(&self) -> usize {
        self.limit().0.saturating_sub(self.seen)
    }

    /// Scans at least one byte of a view that is not empty; how many.
    fn step(&mut self, view: &[u8]) -> Result<usize, Fault> {
        match self.state {
            State::Method(n) => self.method(n, view),
            State::Target => self.target(view),
            State::Name => self.name(view),
            State::Value => self.value(view),
            _ => match view.first() {
                Some(&byte) => self
                    .single(byte)
                    .map(|()| 1)
                    .map_err(|why| Fault { at: 0, why }),
                None => Ok(0),
            },
        }
    }

    /// States that take one byte.
    fn single(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match self.state {
            State::Start if byte == b'\r' => State::EmptyLf,
            State::AfterEmpty if byte == b'\r' => return Err(HTTP_EMPTY_LINES),
            State::Start | State::AfterEmpty => start(byte)?,
            State::EmptyLf => expect_lf(byte, State::AfterEmpty)?,
            State::TargetStart => target_start(byte)?,
            State::Version(n) => version(n, byte)?,
            State::VersionCr => match byte {
                b'\r' => State::RequestLf,
                b'\n' => return Err(HTTP_BARE_LF),
                _ => return Err(HTTP_BAD_VERSION),
            },
            State::RequestLf | State::ValueLf => expect_lf(byte, State::LineStart)?,
            State::LineStart => self.line_start(byte)?,
            State::EndLf => expect_lf(byte, State::Done)?,
            // Only the states with a run of their own remain.
            other => other,
        };
        Ok(())
    }

    fn method(&mut self, before: usize, view: &[u8]) -> Result<usize, Fault> {
        let n = run(view, &TOKEN);
        if before + n > METHOD_MAX {
            return Err(Fault {
                at: METHOD_MAX - before,
                why: HTTP_BAD_METHOD,
            });
        }
        match view.get(n) {
            None => self.state = State::Method(before + n),
            Some(b' ') => self.state = State::TargetStart,
            Some(b'\n') => {
                return Err(Fault {
                    at: n,
                    why: HTTP_BARE_LF,
                });
            }
            Some(_) => {
                return Err(Fault {
                    at: n,
                    why: HTTP_BAD_METHOD,
                });
            }
        }
        Ok(view.len().min(n + 1))
    }

    fn target(&mut self, view: &[u8]) -> Result<usize, Fault> {
        let n = run(view, &TARGET);
        match view.get(n) {
            None => {}
            Some(b' ') => self.state = State::Version(0),
            Some(&byte) => {
                return Err(Fault {
                    at: n,
                    why: bad_in_target(byte),
                });
            }
        }
        Ok(view.len().min(n + 1))
    }

    fn line_start(&mut self, byte: u8) -> Result<State, Refusal> {
        match byte {
            b'\r' => return Ok(State::EndLf),
            b'\n' => return Err(HTTP_BARE_LF),
            b' ' | b'\t' => return Err(HTTP_OBS_FOLD),
            _ if !TOKEN[usize::from(byte)] => return Err(HTTP_BAD_FIELD_NAME),
            _ => {}
        }
        if self.fields == self.bounds.fields {
            return Err(HTTP_TOO_MANY_FIELDS);
        }
        self.fields += 1;
        Ok(State::Name)
    }

    fn name(&mut self, view: &[u8]) -> Result<usize, Fault> {
        let n = run(view, &TOKEN);
        let why = match view.get(n) {
            None => return Ok(n),
            Some(b':') => {
                self.state = State::Value;
                return Ok(n + 1);
            }
            Some(b' ' | b'\t') => HTTP_SPACE_BEFORE_COLON,
            Some(b'\n') => HTTP_BARE_LF,
            Some(b'\r') => HTTP_NO_COLON,
            Some(_) => HTTP_BAD_FIELD_NAME,
        };
        Err(Fault { at: n, why })
    }

    fn value(&mut self, view: &[u8]) -> Result<usize, Fault> {
        let n = run(view, &VALUE);
        match view.get(n) {
            None => Ok(n),
            Some(b'\r') => {
                self.state = State::ValueLf;
                Ok(n + 1)
            }
            Some(b'\n') => Err(Fault {
                at: n,
                why: HTTP_BARE_LF,
            }),
            Some(_) => Err(Fault {
                at: n,
                why: HTTP_FIELD_CONTROL,
            }),
        }
    }
}

fn expect_lf(byte: u8, next: State) -> Result<State, Refusal> {
    if byte == b'\n' {
        Ok(next)
    } else {
        Err(HTTP_BARE_CR)
    }
}

fn start(byte: u8) -> Result<State, Refusal> {
    match byte {
        b'\n' => Err(HTTP_BARE_LF),
        _ if TOKEN[usize::from(byte)] => Ok(State::Method(1)),
        _ => Err(HTTP_BAD_METHOD),
    }
}

fn target_start(byte: u8) -> Result<State, Refusal> {
    match byte {
        b' ' => Err(HTTP_TARGET_EMPTY),
        _ if TARGET[usize::from(byte)] => Ok(State::Target),
        _ => Err(bad_in_target(byte)),
    }
}

fn bad_in_target(byte: u8) -> Refusal {
    match byte {
        b'\n' => HTTP_BARE_LF,
        b'\r' => HTTP_NO_VERSION,
        0x80.. => HTTP_TARGET_NON_ASCII,
        _ => HTTP_TARGET_CONTROL,
    }
}

fn version(read: usize, byte: u8) -> Result<State, Refusal> {
    match VERSION_PREFIX.get(read) {
        Some(&expected) if byte == expected => Ok(State::Version(read + 1)),
        Some(_) => Err(HTTP_BAD_VERSION),
        None if matches!(byte, b'0' | b'1') => Ok(State::VersionCr),
        None => Err(HTTP_BAD_VERSION),
    }
}
