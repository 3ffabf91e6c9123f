//! The fields of one section, checked one by one (RFC 9113 section 8.2).

use super::hpack::Sink;
use super::table::ENTRY_OVERHEAD;
use super::{FIELD_LIST_MAX, H2_FIELDS_MAX};
use crate::chars;
use crate::http1::USER_AGENT_MAX;
use crate::refusal::{
    HTTP_FRAMING_LOOKALIKE, HTTP2_BAD_LENGTH, HTTP2_CONNECTION_FIELD, HTTP2_DUPLICATE_HOST,
    HTTP2_DUPLICATE_LENGTH, HTTP2_DUPLICATE_TYPE, HTTP2_FIELD_NAME, HTTP2_FIELD_VALUE,
    HTTP2_FIELDS_TOO_LARGE, HTTP2_PSEUDO_DUPLICATE, HTTP2_PSEUDO_ORDER, HTTP2_PSEUDO_UNKNOWN,
    HTTP2_TOO_MANY_FIELDS, HTTP2_TRAILER_FORBIDDEN, Refusal,
};

/// How much a section holds so far.
#[derive(Debug, Default)]
struct Extent {
    fields: usize,
    bytes: usize,
}

impl Extent {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        self.bytes += name.len() + value.len() + ENTRY_OVERHEAD;
        if self.fields > H2_FIELDS_MAX {
            return Err(HTTP2_TOO_MANY_FIELDS);
        }
        if self.bytes > FIELD_LIST_MAX {
            return Err(HTTP2_FIELDS_TOO_LARGE);
        }
        Ok(())
    }
}

/// The fields of a request.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub method: Option<Vec<u8>>,
    pub scheme: Option<Vec<u8>>,
    pub authority: Option<Vec<u8>>,
    pub path: Option<Vec<u8>>,
    pub protocol: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub host: Option<Vec<u8>>,
    pub content_length: Option<u64>,
    pub content_type: Option<Vec<u8>>,
    pub user_agent: Option<String>,
    /// There is a value that only gRPC allows.
    pub grpc_binary: bool,
    extent: Extent,
}

impl Sink for Fields {
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.extent.add(name, value)?;
        if let Some(pseudo) = name.strip_prefix(b":") {
            return self.pseudo(pseudo, value);
        }
        check_name(name)?;
        if is_grpc_binary(name, value) {
            self.grpc_binary = true;
        } else {
            check_value(value)?;
        }
        check_connection(name, value)?;
        match name {
            b"host" => once(&mut self.host, value, HTTP2_DUPLICATE_HOST)?,
            b"content-type" => once(&mut self.content_type, value, HTTP2_DUPLICATE_TYPE)?,
            b"content-length" => {
                let length = content_length(value)?;
                if self.content_length.replace(length).is_some() {
                    return Err(HTTP2_DUPLICATE_LENGTH);
                }
            }
            b"user-agent" => {
                let kept = value.get(..USER_AGENT_MAX).unwrap_or(value);
                self.user_agent.get_or_insert_with(|| text(kept));
            }
            b"content_length" | b"transfer_encoding" => return Err(HTTP_FRAMING_LOOKALIKE),
            _ => {}
        }
        self.headers.push((text(name), text(value)));
        Ok(())
    }
}

impl Fields {
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let slot = match name {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            b"protocol" => &mut self.protocol,
            _ => return Err(HTTP2_PSEUDO_UNKNOWN),
        };
        if !self.headers.is_empty() {
            return Err(HTTP2_PSEUDO_ORDER);
        }
        check_value(value)?;
        once(slot, value, HTTP2_PSEUDO_DUPLICATE)
    }
}

/// Trailers: checked and forgotten.
#[derive(Debug, Default)]
pub(super) struct Trailers(Extent);

impl Sink for Trailers {
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.0.add(name, value)?;
        let forbidden: [&[u8]; 4] = [b"host", b"content-length", b"content_length", b"te"];
        if name.starts_with(b":") || forbidden.contains(&name) {
            return Err(HTTP2_TRAILER_FORBIDDEN);
        }
        check_name(name)?;
        check_value(value)?;
        check_connection(name, value)
    }
}

/// A token in lower case.
fn check_name(name: &[u8]) -> Result<(), Refusal> {
    let token = chars::run(name, &chars::TOKEN) == name.len();
    if name.is_empty() || !token || name.iter().any(u8::is_ascii_uppercase) {
        return Err(HTTP2_FIELD_NAME);
    }
    Ok(())
}

/// No control characters, no white space at the ends.
fn check_value(value: &[u8]) -> Result<(), Refusal> {
    let clean = chars::run(value, &chars::VALUE) == value.len();
    if !clean || chars::trim_ows(value).len() < value.len() {
        return Err(HTTP2_FIELD_VALUE);
    }
    Ok(())
}

/// gRPC's libraries in C send metadata as it is, behind a zero, to a server that agreed to that in its
/// SETTINGS (gRFC G1, true binary metadata). HTTP itself has no such values.
fn is_grpc_binary(name: &[u8], value: &[u8]) -> bool {
    name.ends_with(b"-bin") && value.first() == Some(&0) && !holds_a_line(value)
}

/// A gateway that hands the value on in HTTP/1 as it is would send a field or a request that nobody
/// judged: behind the end of a line there is a word and what ends a name or a method. That is rare in
/// binary data.
fn holds_a_line(value: &[u8]) -> bool {
    let mut lines = value.split(|byte| matches!(byte, b'\r' | b'\n')).skip(1);
    lines.any(|line| {
        let word = chars::run(line, &chars::TOKEN);
        word > 0 && matches!(line.get(word), Some(b':' | b' ' | b'\t'))
    })
}

/// RFC 9113 section 8.2.2.
fn check_connection(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Err(HTTP2_CONNECTION_FIELD)
        }
        b"te" if !value.eq_ignore_ascii_case(b"trailers") => Err(HTTP2_CONNECTION_FIELD),
        _ => Ok(()),
    }
}

fn once(slot: &mut Option<Vec<u8>>, value: &[u8], again: Refusal) -> Result<(), Refusal> {
    if slot.replace(value.to_vec()).is_some() {
        Err(again)
    } else {
        Ok(())
    }
}

/// Digits alone, without leading zeros, below 2^63: as strict as for HTTP/1.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let padded = value.len() > 1 && value.first() == Some(&b'0');
    if value.is_empty() || padded || !value.iter().all(u8::is_ascii_digit) {
        return Err(HTTP2_BAD_LENGTH);
    }
    let text = std::str::from_utf8(value).map_err(|_| HTTP2_BAD_LENGTH)?;
    let length = text.parse::<i64>().map_err(|_| HTTP2_BAD_LENGTH)?;
    Ok(length.cast_unsigned())
}

/// Bytes that are not UTF-8 are replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
