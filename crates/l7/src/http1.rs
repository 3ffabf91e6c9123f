//! HTTP/1.x requests: heads, framing, bodies (RFC 9110, RFC 9112).
//!
//! What is decided where the RFCs leave room:
//! - Exactly one empty line (CRLF) is tolerated before a request line (RFC 9112 section 2.2).
//! - Chunk extensions are refused; trailers are read, bounded, and may not name framing fields.
//! - `Content-Length` frames a body on every method; on `GET` and `HEAD` only one passes that nobody
//!   can take for a request, since servers that expect none (Python's `http.server`) look for one in it.
//! - A chunk is smaller than 2 GiB: servers that count in 32 bits would lose the rest.
//! - `Transfer-Encoding` is `chunked` alone or refused; so is any second `Content-Length`, even an
//!   equal one.
//! - A request target in absolute form must name the host that `Host` names.
//! - An upgrade to HTTP/2 (`h2c`) among several protocols is refused.

mod chunked;
mod fields;
mod head;
mod inert;
mod path;
mod reader;
pub(crate) mod scan;
mod target;

pub use path::PathForm;
pub use reader::{HttpEvent, RequestReader, Step};
pub use target::split_target;

/// Longest method: twice the longest registered one (`UPDATEREDIRECTREF`, 17).
pub const METHOD_MAX: usize = 32;
/// Longest request line with its CRLF. Servers accept 8 to 64 KiB; this is above their defaults,
/// so the server answers 414 itself.
pub const REQUEST_LINE_MAX: usize = 32 * 1024;
/// Largest head, request line and final empty line included. Servers accept 8 to 64 KiB.
pub const HEAD_MAX: usize = 64 * 1024;
/// Most header fields. Apache takes 100, Go's and nginx's limits are on bytes alone.
pub const FIELDS_MAX: usize = 256;
/// Most digits of a chunk size: what a 64-bit number needs, leading zeros included.
pub const CHUNK_SIZE_DIGITS: usize = 16;
/// Largest trailer section, final empty line included.
pub const TRAILERS_MAX: usize = 8 * 1024;
/// Most trailer fields.
pub const TRAILER_FIELDS_MAX: usize = 64;
/// So many bytes of `User-Agent` are kept; it is for people to read.
pub const USER_AGENT_MAX: usize = 256;

/// Protocol version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the end of a request's body is found (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body: neither `Content-Length` nor `Transfer-Encoding`.
    None,
    /// `Content-Length`, in bytes. Below 2^63.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// One request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method as sent; methods are case-sensitive.
    pub method: String,
    /// Request target as sent.
    pub target: String,
    /// The target's path. Empty for `CONNECT`, `*` for the asterisk form.
    pub path: PathForm,
    /// What stands behind the target's first `?`, as sent.
    pub query: Option<String>,
    /// Host in lower case without port and trailing dot; IPv6 in brackets, canonical. Empty only
    /// for HTTP/1.0 without `Host`. For `CONNECT` the host of the target.
    pub host: String,
    /// Port behind the host, if one is given.
    pub port: Option<u16>,
    /// Protocol version.
    pub version: Version,
    /// How the body ends.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body. Never set for HTTP/1.0.
    pub expect_continue: bool,
    /// `Upgrade`, lower case, several lines joined with `, `; whether or not `Connection` names it.
    /// If the server answers 101, what follows is a tunnel.
    pub upgrade: Option<String>,
    /// The method is `CONNECT`. If the server answers 2xx, what follows is a tunnel.
    pub connect: bool,
    /// The client means to send another request.
    pub keep_alive: bool,
    /// Bytes of the head, a tolerated empty line before it and the one behind it included.
    pub head_len: usize,
    /// Header fields as sent, in order, if the reader was told to keep them
    /// ([`RequestReader::keep_headers`]); bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The first [`USER_AGENT_MAX`] bytes of `User-Agent`; bytes that are not UTF-8 are replaced.
    pub user_agent: Option<String>,
}
