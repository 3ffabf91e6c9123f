//! What a client speaks, from its first bytes.

use crate::chars::{TOKEN, run};
use crate::http1::METHOD_MAX;

/// So many bytes of a stream suffice: [`detect`] never answers `NeedMore` for them. (The longest
/// method and the space behind it.)
pub const DETECT_MAX: usize = METHOD_MAX + 1;

/// First line of the HTTP/2 connection preface (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Content type of a TLS record that carries handshake messages.
const TLS_HANDSHAKE: u8 = 22;
/// Major version of every TLS record.
const TLS_MAJOR: u8 = 3;

/// What the first bytes look like. Only the recogniser of that protocol says whether it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// Too few bytes to tell.
    NeedMore,
    /// A method and a space: feed a [`RequestReader`](crate::RequestReader).
    Http1,
    /// The HTTP/2 connection preface (prior knowledge).
    Http2Preface,
    /// A TLS handshake record: feed a [`ClientHelloReader`](crate::ClientHelloReader).
    Tls,
    /// None of them. SSLv2 hellos and a leading empty line belong here.
    Unknown,
}

/// Looks at the first bytes of a client's stream, all that came so far.
pub fn detect(prefix: &[u8]) -> Detected {
    match prefix {
        [] | [TLS_HANDSHAKE] => Detected::NeedMore,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Detected::Tls,
        _ => detect_http(prefix),
    }
}

fn detect_http(prefix: &[u8]) -> Detected {
    if prefix.starts_with(HTTP2_PREFACE) {
        return Detected::Http2Preface;
    }
    if HTTP2_PREFACE.starts_with(prefix) {
        return Detected::NeedMore;
    }
    let method = run(prefix, &TOKEN);
    match prefix.get(method) {
        _ if method > METHOD_MAX => Detected::Unknown,
        None => Detected::NeedMore,
        Some(b' ') if method > 0 => Detected::Http1,
        Some(_) => Detected::Unknown,
    }
}
