//! HTTP/2 in clear text: the client's half of a connection (RFC 9113, HPACK of RFC 7541, extended
//! CONNECT of RFC 8441).
//!
//! What is decided where the RFCs leave room:
//! - The server's half is not seen. What it may have allowed (larger frames, a larger HPACK table)
//!   is accepted up to the limits below; what it forbade the server refuses itself.
//! - Everything that is wrong ends the connection, also where the RFC asks for a stream error:
//!   a request that servers may read in different ways must not pass.
//! - A frame header is judged as a whole, with its ninth byte; a field section when its last frame
//!   is complete. No server acts on less.
//! - `:scheme` is `http` or `https`; `:authority` and `host` must name the same host.
//! - Flow-control windows and the values in SETTINGS are left to the server.

mod fields;
mod flood;
mod frame;
mod hpack;
mod huffman;
mod reader;
mod request;
mod streams;
mod table;

pub use reader::Http2Reader;

use crate::http1::PathForm;
use crate::refusal::Refusal;

/// The bytes that every client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest payload of a DATA frame. Servers may allow more than the default of 16 KiB; 1 MiB is
/// the most that common servers can be set to without effort.
pub const DATA_FRAME_MAX: u32 = 1024 * 1024;
/// Largest payload of any other frame: what a whole header block may take.
pub const FRAME_MAX: u32 = 64 * 1024;
/// Largest header block, all its fragments together. The same as an HTTP/1 head.
pub const BLOCK_MAX: usize = 64 * 1024;
/// Largest decoded field section, counted as in RFC 9113 section 6.5.2 (32 bytes for each field).
pub const FIELD_LIST_MAX: usize = 64 * 1024;
/// Most fields of a section, pseudo fields included. The same as of an HTTP/1 head.
pub const H2_FIELDS_MAX: usize = 256;
/// Largest HPACK dynamic table, counted as in RFC 7541 section 4.1. Servers offer 4 to 64 KiB.
pub const HPACK_TABLE_MAX: usize = 64 * 1024;
/// Most CONTINUATION frames of one header block: a full block in pieces of 1 KiB.
pub const CONTINUATIONS_MAX: u32 = 64;
/// Most CONTINUATION frames of one header block that carry nothing.
pub const EMPTY_CONTINUATIONS_MAX: u32 = 8;
/// Most settings in one SETTINGS frame. Ten are registered.
pub const SETTINGS_MAX: u32 = 64;
/// Most streams whose client half is open. Servers allow 100 to 256 at a time.
pub const OPEN_STREAMS_MAX: usize = 1024;
/// Most frames that carry nothing for a request (PING, SETTINGS, PRIORITY, RST_STREAM, GOAWAY,
/// unknown types, empty DATA; acknowledgements do not count) ahead of what takes them off again:
/// see [`FLOOD_PER_REQUEST`], [`FLOOD_UNIT`] and [`Http2Reader::calm`]. A keep-alive PING every
/// ten seconds on an idle stream reaches it after a day.
pub const FLOOD_MAX: u32 = 10_000;
/// So many counted frames a request takes off the count.
pub const FLOOD_PER_REQUEST: u32 = 100;
/// One counted frame is taken off for so many bytes of DATA sent, or of window given back for the
/// whole connection (which is data received): senders probe the round trip with PING meanwhile.
pub const FLOOD_UNIT: u32 = 16 * 1024;
/// Most RST_STREAM in a row. Over time at most every second request may be reset: a reset counts
/// two, a request takes one off, [`Http2Reader::calm`] takes [`RESETS_PER_CALM`] resets off.
pub const RESETS_MAX: u32 = 200;
/// So many counted frames [`Http2Reader::calm`] takes off the count.
pub const FLOOD_PER_CALM: u32 = 100;
/// So many resets [`Http2Reader::calm`] takes off the count.
pub const RESETS_PER_CALM: u32 = 20;

/// What one call of [`Http2Reader::push`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Step {
    /// So many bytes of the piece are read; call again with the rest, if there is one. With
    /// `Request`: up to the last byte of the frame that completed it. With `Refused`: the place
    /// where it became certain; nothing of the piece may be forwarded. With `NeedMore`: all, or up
    /// to where the payload of a DATA frame begins or ends.
    pub consumed: usize,
    /// What the bytes amount to.
    pub event: Http2Event,
}

/// What [`Http2Reader::push`] found.
#[expect(
    clippy::large_enum_variant,
    reason = "an event is taken apart at once; a box would cost every request an allocation"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Http2Event {
    /// Nothing was completed.
    NeedMore,
    /// A request's field section is complete.
    Request(Http2Request),
    /// The bytes cannot be judged safely. The reader says the same from now on.
    Refused(Refusal),
}

/// The service and method of a gRPC call: the two segments of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// Full name of the service, e.g. `pkg.Service`.
    pub service: String,
    /// Name of the method.
    pub method: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Request {
    /// Stream identifier; odd.
    pub stream: u32,
    /// Method as sent; methods are case-sensitive.
    pub method: String,
    /// `http` or `https`; empty for `CONNECT` without `protocol`.
    pub scheme: String,
    /// Host in lower case without port and trailing dot; IPv6 in brackets, canonical. From
    /// `:authority`, or from `host` if that is missing.
    pub host: String,
    /// Port behind the host, if one is given.
    pub port: Option<u16>,
    /// `:path` as sent; for `CONNECT` without `protocol` the authority.
    pub target: String,
    /// The target's path. Empty for `CONNECT` without `protocol`, `*` for the asterisk form.
    pub path: PathForm,
    /// What stands behind the target's first `?`, as sent.
    pub query: Option<String>,
    /// Fields other than pseudo fields, in order; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Set if the content type is `application/grpc`, with a `+suffix` or parameters or without,
    /// and the path is `/pkg.Service/Method` in the letters of such names.
    pub grpc: Option<Grpc>,
    /// The request has no body and no trailers.
    pub end_stream: bool,
    /// `:protocol` of an extended CONNECT (RFC 8441), e.g. `websocket`, in lower case.
    pub protocol: Option<String>,
    /// The first [`USER_AGENT_MAX`](crate::http1::USER_AGENT_MAX) bytes of `user-agent`; bytes that
    /// are not UTF-8 are replaced.
    pub user_agent: Option<String>,
}
