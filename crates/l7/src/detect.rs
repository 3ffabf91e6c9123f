//! What a client speaks, from its first bytes.

use crate::chars::{TOKEN, run};
use crate::http1::METHOD_MAX;
use crate::starttls::{ldap, mysql, postgres, smtp};

/// So many bytes of a stream suffice: [`detect`] never answers `NeedMore` for them. (The longest
/// method and the space behind it; every other protocol shows itself sooner.)
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
    /// An SMTP or LMTP client's greeting, `EHLO`, `HELO` or `LHLO`: feed a
    /// [`StarttlsReader`](crate::StarttlsReader).
    Smtp,
    /// PostgreSQL's request for TLS: feed a [`StarttlsReader`](crate::StarttlsReader).
    PostgreSqlTls,
    /// PostgreSQL without TLS, or with GSSAPI encryption: refuse with
    /// [`POSTGRESQL_WITHOUT_TLS`](crate::refusal::POSTGRESQL_WITHOUT_TLS).
    PostgreSqlPlain,
    /// The answer of a MySQL client to the server's greeting, with or without TLS to follow:
    /// refuse with [`MYSQL_UNSUPPORTED`](crate::refusal::MYSQL_UNSUPPORTED).
    MySql,
    /// A request of LDAP, StartTLS among others: refuse with
    /// [`LDAP_UNSUPPORTED`](crate::refusal::LDAP_UNSUPPORTED).
    Ldap,
    /// None of them. A leading empty line belongs here.
    Unknown,
}

/// What one protocol says to the bytes so far. More bytes never change `Yes` and `No`.
#[derive(Clone, Copy)]
pub(crate) enum Match {
    No,
    Maybe,
    Yes(Detected),
}

/// In order of precedence. HTTP takes any word, so it comes behind those that want certain ones;
/// MySQL's packets have little to be known by.
const PROTOCOLS: [fn(&[u8]) -> Match; 8] = [
    tls,
    sslv2,
    postgres::recognise,
    smtp::recognise,
    ldap::recognise,
    http2,
    http1,
    mysql::recognise,
];

/// Looks at the first bytes of a client's stream, all that came so far.
pub fn detect(prefix: &[u8]) -> Detected {
    for protocol in PROTOCOLS {
        match protocol(prefix) {
            Match::No => {}
            Match::Yes(detected) => return detected,
            // Whatever comes behind it must wait, or the answer would depend on the cut.
            Match::Maybe => return Detected::NeedMore,
        }
    }
    Detected::Unknown
}

fn tls(prefix: &[u8]) -> Match {
    match prefix {
        [] | [TLS_HANDSHAKE] => Match::Maybe,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Match::Yes(Detected::Tls),
        _ => Match::No,
    }
}

fn sslv2(prefix: &[u8]) -> Match {
    if prefix.first().is_some_and(|b| b & SSLV2_SHORT_HEADER == 0) {
        return Match::No;
    }
    let [zero, two] = SSLV2_VERSION;
    match prefix.get(2..).unwrap_or_default() {
        [] | [SSLV2_CLIENT_HELLO] => Match::Maybe,
        [SSLV2_CLIENT_HELLO, TLS_MAJOR, ..] => Match::Yes(Detected::SslV2),
        [SSLV2_CLIENT_HELLO, a] if *a == zero => Match::Maybe,
        [SSLV2_CLIENT_HELLO, a, b, ..] if (*a, *b) == (zero, two) => Match::Yes(Detected::SslV2),
        _ => Match::No,
    }
}

fn http2(prefix: &[u8]) -> Match {
    if prefix.starts_with(HTTP2_PREFACE) {
        Match::Yes(Detected::Http2Preface)
    } else if HTTP2_PREFACE.starts_with(prefix) {
        Match::Maybe
    } else {
        Match::No
    }
}

fn http1(prefix: &[u8]) -> Match {
    let method = run(prefix, &TOKEN);
    match prefix.get(method) {
        _ if method > METHOD_MAX => Match::No,
        None => Match::Maybe,
        Some(b' ') if method > 0 => Match::Yes(Detected::Http1),
        Some(_) => Match::No,
    }
}
