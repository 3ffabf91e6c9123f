//! The inside of a ClientHello.

use super::cursor::Cursor;
use super::{ALPN_MAX, ClientHello, EXTENSIONS_MAX};
use crate::name;
use crate::refusal::{
    Refusal, TLS_DUPLICATE_EXTENSION, TLS_MALFORMED, TLS_PSK_NOT_LAST, TLS_SNI_COUNT,
    TLS_SNI_EMPTY, TLS_SNI_INVALID, TLS_SNI_TYPE, TLS_TOO_MANY_ALPN, TLS_TOO_MANY_EXTENSIONS,
};

/// Message type and length.
const MESSAGE_HEADER: usize = 4;
/// Length of the client's random.
const RANDOM: usize = 32;
/// Longest session ID (RFC 8446 section 4.1.2).
const SESSION_ID_MAX: usize = 32;
/// Name type `host_name` (RFC 6066 section 3).
const HOST_NAME: u8 = 0;

/// Extension numbers (IANA registry "TLS ExtensionType Values").
pub(super) mod extension {
    pub(in crate::tls) const SERVER_NAME: u16 = 0;
    pub(in crate::tls) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(in crate::tls) const ALPN: u16 = 16;
    pub(in crate::tls) const PRE_SHARED_KEY: u16 = 41;
    pub(in crate::tls) const EARLY_DATA: u16 = 42;
    pub(in crate::tls) const SUPPORTED_VERSIONS: u16 = 43;
    pub(in crate::tls) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    /// ECH's predecessor; some clients still send it.
    pub(in crate::tls) const ENCRYPTED_SERVER_NAME: u16 = 0xffce;
}

/// Reads a whole ClientHello, handshake header included.
pub(crate) fn parse(message: &[u8]) -> Result<ClientHello, Refusal> {
    let mut body = Cursor::new(message);
    body.take(MESSAGE_HEADER)?;
    let legacy_version = body.u16()?;
    body.take(RANDOM)?;
    let session_id = body.vec8()?;
    let cipher_suites = body.vec16()?;
    let compression = body.vec8()?;
    if session_id.len() > SESSION_ID_MAX || compression.is_empty() {
        return Err(TLS_MALFORMED);
    }
    let mut hello = ClientHello {
        sni: None,
        alpn: Vec::new(),
        versions: Vec::new(),
        ech: false,
        early_data: false,
        psk: false,
        cipher_suites: numbers(cipher_suites)?,
        extensions: Vec::new(),
        signature_algorithms: Vec::new(),
        alpn_ends: None,
        legacy_version,
        session_id_len: session_id.len(),
        len: message.len(),
    };
    // Before TLS 1.3 a hello may end here.
    if !body.is_empty() {
        let list = body.vec16()?;
        body.end()?;
        extensions(list, &mut hello)?;
    }
    if hello.versions.is_empty() {
        hello.versions.push(legacy_version);
    }
    Ok(hello)
}

fn extensions(list: &[u8], hello: &mut ClientHello) -> Result<(), Refusal> {
    let mut list = Cursor::new(list);
    while !list.is_empty() {
        let kind = list.u16()?;
        let body = list.vec16()?;
        if hello.extensions.contains(&kind) {
            return Err(TLS_DUPLICATE_EXTENSION);
        }
        if hello.extensions.len() == EXTENSIONS_MAX {
            return Err(TLS_TOO_MANY_EXTENSIONS);
        }
        // Its binders cover everything before it; a server must check the place (RFC 8446 section
        // 4.2.11), and one that does not reads other bytes than were signed.
        if hello.psk {
            return Err(TLS_PSK_NOT_LAST);
        }
        hello.extensions.push(kind);
        extension(kind, body, hello)?;
    }
    Ok(())
}

fn extension(kind: u16, body: &[u8], hello: &mut ClientHello) -> Result<(), Refusal> {
    match kind {
        extension::SERVER_NAME => hello.sni = Some(server_name(body)?),
        extension::ALPN => alpn(body, hello)?,
        extension::SIGNATURE_ALGORITHMS => {
            hello.signature_algorithms = signature_algorithms(body)?;
        }
        extension::PRE_SHARED_KEY => hello.psk = true,
        extension::SUPPORTED_VERSIONS => hello.versions = supported_versions(body)?,
        extension::EARLY_DATA => hello.early_data = true,
        extension::ENCRYPTED_CLIENT_HELLO | extension::ENCRYPTED_SERVER_NAME => hello.ech = true,
        _ => {}
    }
    Ok(())
}

/// Exactly one name: with several, servers differ on which one counts.
fn server_name(body: &[u8]) -> Result<String, Refusal> {
    let mut body = Cursor::new(body);
    let mut list = Cursor::new(body.vec16()?);
    body.end()?;
    if list.is_empty() {
        return Err(TLS_SNI_COUNT);
    }
    let kind = list.u8()?;
    if kind != HOST_NAME {
        return Err(TLS_SNI_TYPE);
    }
    let name = list.vec16()?;
    if !list.is_empty() {
        return Err(TLS_SNI_COUNT);
    }
    if name.is_empty() {
        return Err(TLS_SNI_EMPTY);
    }
    name::host_name(name)
        .or_else(|| name::parse_v6_address(name).map(|address| address.to_string()))
        .ok_or(TLS_SNI_INVALID)
}

fn alpn(body: &[u8], hello: &mut ClientHello) -> Result<(), Refusal> {
    let mut body = Cursor::new(body);
    let mut list = Cursor::new(body.vec16()?);
    body.end()?;
    while !list.is_empty() {
        let protocol = list.vec8()?;
        let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
            return Err(TLS_MALFORMED);
        };
        if hello.alpn.len() == ALPN_MAX {
            return Err(TLS_TOO_MANY_ALPN);
        }
        hello.alpn_ends.get_or_insert((first, last));
        hello
            .alpn
            .push(String::from_utf8_lossy(protocol).into_owned());
    }
    if hello.alpn.is_empty() {
        Err(TLS_MALFORMED)
    } else {
        Ok(())
    }
}

fn supported_versions(body: &[u8]) -> Result<Vec<u16>, Refusal> {
    let mut body = Cursor::new(body);
    let list = body.vec8()?;
    body.end()?;
    numbers(list)
}

fn signature_algorithms(body: &[u8]) -> Result<Vec<u16>, Refusal> {
    let mut body = Cursor::new(body);
    let list = body.vec16()?;
    body.end()?;
    numbers(list)
}

/// A list of at least one two-byte number.
fn numbers(list: &[u8]) -> Result<Vec<u16>, Refusal> {
    let (pairs, rest) = list.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(TLS_MALFORMED);
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}
