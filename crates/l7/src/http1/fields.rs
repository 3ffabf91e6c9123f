//! The header fields that matter, collected from one head.

use super::{Framing, USER_AGENT_MAX, Version};
use crate::chars::trim_ows;
use crate::refusal::{
    HTTP_BAD_EXPECT, HTTP_BAD_LENGTH, HTTP_BAD_TRANSFER_ENCODING, HTTP_CONNECTION_FRAMING,
    HTTP_DUPLICATE_HOST, HTTP_DUPLICATE_LENGTH, HTTP_DUPLICATE_TRANSFER_ENCODING,
    HTTP_FRAMING_LOOKALIKE, HTTP_LENGTH_AND_CHUNKED, HTTP_TRANSFER_ENCODING_IN_10,
    HTTP2_UNSUPPORTED, Refusal,
};

/// Fields that decide where a message ends or where it goes.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// Values as sent, without surrounding white space.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub host: Option<&'a [u8]>,
    pub upgrade: Option<String>,
    pub user_agent: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    /// Collects; refuses what may not be repeated.
    pub(super) fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut out = Self::default();
        for header in headers {
            out.field(header.name, trim_ows(header.value))?;
        }
        Ok(out)
    }

    fn field(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        // The length tells most fields apart without comparing them.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                once(&mut self.host, value, HTTP_DUPLICATE_HOST)
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                once(&mut self.expect, value, HTTP_BAD_EXPECT)
            }
            7 if name.eq_ignore_ascii_case("upgrade") => {
                self.upgrade(value);
                Ok(())
            }
            10 if name.eq_ignore_ascii_case("connection") => self.connection(value),
            10 if name.eq_ignore_ascii_case("user-agent") => {
                self.user_agent.get_or_insert(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                once(&mut self.content_length, value, HTTP_DUPLICATE_LENGTH)
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => once(
                &mut self.transfer_encoding,
                value,
                HTTP_DUPLICATE_TRANSFER_ENCODING,
            ),
            14 | 17 if is_lookalike(name) => Err(HTTP_FRAMING_LOOKALIKE),
            _ => Ok(()),
        }
    }

    fn upgrade(&mut self, value: &[u8]) {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        match &mut self.upgrade {
            Some(list) => {
                list.push_str(", ");
                list.push_str(&value);
            }
            None => self.upgrade = Some(value),
        }
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|&b| b == b',').map(trim_ows) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if is_framing(option) {
                return Err(HTTP_CONNECTION_FRAMING);
            }
        }
        Ok(())
    }

    /// Where the body ends (RFC 9112 section 6.3, without its tolerance).
    pub(super) fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.content_length, self.transfer_encoding) {
            (None, None) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(HTTP_LENGTH_AND_CHUNKED),
            (Some(length), None) => content_length(length).map(Framing::Length),
            (None, Some(_)) if version == Version::Http10 => Err(HTTP_TRANSFER_ENCODING_IN_10),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(_)) => Err(HTTP_BAD_TRANSFER_ENCODING),
        }
    }

    /// `Expect: 100-continue`. A server ignores it in HTTP/1.0 (RFC 9110 section 10.1.1).
    pub(super) fn expect_continue(&self, version: Version) -> Result<bool, Refusal> {
        match self.expect {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
                Ok(version == Version::Http11)
            }
            Some(_) => Err(HTTP_BAD_EXPECT),
        }
    }

    /// Refuses an upgrade to HTTP/2 among others: which one the server took would decide how the
    /// bytes behind it are to be read. `h2c` alone (RFC 7540 section 3.2) is for the caller to follow.
    pub(super) fn check_upgrade(&self) -> Result<(), Refusal> {
        let Some(list) = &self.upgrade else {
            return Ok(());
        };
        if list == "h2c" {
            return Ok(());
        }
        let http2 = |p: &str| p.starts_with("h2") || p.starts_with("http/2");
        if list.split(',').any(|protocol| http2(protocol.trim())) {
            return Err(HTTP2_UNSUPPORTED);
        }
        Ok(())
    }

    /// Persistence (RFC 9112 section 9.3).
    pub(super) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    pub(super) fn user_agent_text(&self) -> Option<String> {
        let value = self.user_agent?;
        let kept = &value[..value.len().min(USER_AGENT_MAX)];
        Some(String::from_utf8_lossy(kept).into_owned())
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], again: Refusal) -> Result<(), Refusal> {
    if slot.replace(value).is_some() {
        Err(again)
    } else {
        Ok(())
    }
}

/// `content_length` and `transfer_encoding`: gateways that map names to variables confuse them
/// with the real ones.
fn is_lookalike(name: &str) -> bool {
    name.contains('_') && is_framing(name.replace('_', "-").as_bytes())
}

/// The field decides framing or routing; neither a trailer nor `Connection` may name it.
pub(super) fn is_framing(name: &[u8]) -> bool {
    FRAMING
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// Digits alone, without leading zeros (some readers take those for octal), below 2^63 (what
/// readers with a signed type can hold).
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let padded = value.len() > 1 && value.first() == Some(&b'0');
    if value.is_empty() || padded || !value.iter().all(u8::is_ascii_digit) {
        return Err(HTTP_BAD_LENGTH);
    }
    let text = std::str::from_utf8(value).map_err(|_| HTTP_BAD_LENGTH)?;
    text.parse::<i64>()
        .map(i64::cast_unsigned)
        .map_err(|_| HTTP_BAD_LENGTH)
}
