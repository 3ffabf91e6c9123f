//! Frame headers (RFC 9113 section 4.1) and what can be said about a frame from its header alone.

use super::{DATA_FRAME_MAX, FRAME_MAX, SETTINGS_MAX};
use crate::refusal::{
    HTTP2_FRAME_LENGTH, HTTP2_FRAME_TOO_LARGE, HTTP2_PUSH_PROMISE, HTTP2_STREAM_ID,
    HTTP2_TOO_MANY_SETTINGS, Refusal,
};

/// Bytes of a frame header.
pub(super) const HEADER_LEN: usize = 9;
/// The highest bit of a stream identifier is reserved and ignored.
const STREAM_MASK: u32 = 0x7fff_ffff;
/// Bytes of one setting.
const SETTING_LEN: u32 = 6;
/// Bytes of the priority fields in HEADERS and PRIORITY.
pub(super) const PRIORITY_LEN: u32 = 5;
/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// Flag of SETTINGS and PING.
const ACK: u8 = 0x1;
/// Flag of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// Flag of DATA and HEADERS.
const PADDED: u8 = 0x8;
/// Flag of HEADERS.
const PRIORITY: u8 = 0x20;

/// Frame types (RFC 9113 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// RFC 9218 section 7.1.
    PriorityUpdate,
    /// Must be ignored (RFC 9113 section 5.5).
    Unknown,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::RstStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            0x10 => Self::PriorityUpdate,
            _ => Self::Unknown,
        }
    }
}

/// One frame header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub kind: Kind,
    /// Bytes of the payload.
    pub length: u32,
    pub stream: u32,
    flags: u8,
}

impl Frame {
    pub(super) fn parse(header: [u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = header;
        Self {
            kind: Kind::of(kind),
            length: u32::from_be_bytes([0, l0, l1, l2]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MASK,
            flags,
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn end_stream(self) -> bool {
        self.has(END_STREAM)
    }

    pub(super) fn end_headers(self) -> bool {
        self.has(END_HEADERS)
    }

    pub(super) fn padded(self) -> bool {
        self.has(PADDED) && matches!(self.kind, Kind::Data | Kind::Headers)
    }

    pub(super) fn ack(self) -> bool {
        self.has(ACK) && matches!(self.kind, Kind::Settings | Kind::Ping)
    }

    /// Bytes of the payload before the content: pad length and priority fields.
    pub(super) fn prefix(self) -> u32 {
        let priority = self.kind == Kind::Headers && self.has(PRIORITY);
        u32::from(self.padded()) + if priority { PRIORITY_LEN } else { 0 }
    }

    /// Checks length and stream against the type.
    pub(super) fn check(self) -> Result<(), Refusal> {
        let max = if self.kind == Kind::Data {
            DATA_FRAME_MAX
        } else {
            FRAME_MAX
        };
        if self.length > max {
            return Err(HTTP2_FRAME_TOO_LARGE);
        }
        self.check_length()?;
        let on_connection = match self.kind {
            Kind::Settings | Kind::Ping | Kind::GoAway | Kind::PriorityUpdate => true,
            Kind::WindowUpdate | Kind::Unknown => return Ok(()),
            Kind::PushPromise => return Err(HTTP2_PUSH_PROMISE),
            _ => false,
        };
        if on_connection == (self.stream == 0) {
            Ok(())
        } else {
            Err(HTTP2_STREAM_ID)
        }
    }

    fn check_length(self) -> Result<(), Refusal> {
        let fits = match self.kind {
            Kind::Data | Kind::Headers => self.length >= self.prefix(),
            Kind::Priority => self.length == PRIORITY_LEN,
            Kind::RstStream | Kind::WindowUpdate => self.length == 4,
            Kind::Settings if self.ack() => self.length == 0,
            Kind::Settings if self.length > SETTINGS_MAX * SETTING_LEN => {
                return Err(HTTP2_TOO_MANY_SETTINGS);
            }
            Kind::Settings => self.length.is_multiple_of(SETTING_LEN),
            Kind::Ping => self.length == 8,
            // Last stream and error code.
            Kind::GoAway => self.length >= 8,
            // The stream that is meant.
            Kind::PriorityUpdate => self.length >= 4,
            Kind::PushPromise | Kind::Continuation | Kind::Unknown => true,
        };
        if fits {
            Ok(())
        } else {
            Err(HTTP2_FRAME_LENGTH)
        }
    }
}
