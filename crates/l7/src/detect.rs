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

/// Set in the first byte of an SSLv2 record with a two-byte header, the only form that clients
/// started with (RFC 5246 appendix E.2).
const SSLV2_SHORT_HEADER: u8 = 0x80;
/// SSLv2 message type `client_hello`.
const SSLV2_CLIENT_HELLO: u8 = 1;
/// Version of SSLv2 itself; hellos in its format may ask for 3.x as well.
const SSLV2_VERSION: [u8; 2] = [0, 2];

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
    /// A hello in the format of SSLv2, whatever version it asks for. No TLS server may accept it
    /// (RFC 6176): refuse with [`TLS_SSLV2_HELLO`](crate::refusal::TLS_SSLV2_HELLO).
    SslV2,
    /// None of them. A leading empty line belongs here.
    Unknown,
}

/// Looks at the first bytes of a client's stream, all that came so far.
pub fn detect(prefix: &[u8]) -> Detected {
    match prefix {
        [] | [TLS_HANDSHAKE] => Detected::NeedMore,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Detected::Tls,
        [first, ..] if first & SSLV2_SHORT_HEADER != 0 => detect_sslv2(prefix),
        _ => detect_http(prefix),
    }
}

fn detect_sslv2(prefix: &[u8]) -> Detected {
    let [zero, two] = SSLV2_VERSION;
    match prefix.get(2..).unwrap_or_default() {
        [] | [SSLV2_CLIENT_HELLO] => Detected::NeedMore,
        [SSLV2_CLIENT_HELLO, TLS_MAJOR, ..] => Detected::SslV2,
        [SSLV2_CLIENT_HELLO, a] if *a == zero => Detected::NeedMore,
        [SSLV2_CLIENT_HELLO, a, b, ..] if (*a, *b) == (zero, two) => Detected::SslV2,
        _ => Detected::Unknown,
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
