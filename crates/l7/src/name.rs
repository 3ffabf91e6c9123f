//! Host names and authorities, as Host, request targets and SNI carry them.

use std::net::Ipv6Addr;

use crate::refusal::{
    HTTP_HOST_EMPTY, HTTP_HOST_INVALID, HTTP_HOST_PORT, HTTP_HOST_USERINFO, Refusal,
};

/// Longest DNS name in text form, without the trailing dot (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;
/// Longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// A DNS name or IPv4 address in lower case without the trailing dot. `None`: not one (letters,
/// digits, `-` and `_` in labels of 1 to 63 characters).
pub(crate) fn host_name(bytes: &[u8]) -> Option<String> {
    let name = bytes.strip_suffix(b".").unwrap_or(bytes);
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut label = 0;
    for &b in name {
        label = match b {
            b'.' if label == 0 => return None,
            b'.' => 0,
            _ if label == LABEL_MAX => return None,
            b'-' | b'_' => label + 1,
            _ if b.is_ascii_alphanumeric() => label + 1,
            _ => return None,
        };
        out.push(char::from(b.to_ascii_lowercase()));
    }
    (label > 0).then_some(out)
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Lower case, no trailing dot; IPv6 in brackets, in its canonical form.
    pub host: String,
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host[:port]`. A colon without a port is refused: readers differ on it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.is_empty() {
            return Err(HTTP_HOST_EMPTY);
        }
        if bytes.contains(&b'@') {
            return Err(HTTP_HOST_USERINFO);
        }
        if let Some(rest) = bytes.strip_prefix(b"[") {
            return Self::parse_v6(rest);
        }
        let colon = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
        let (name, port) = bytes.split_at(colon);
        if name.is_empty() {
            return Err(HTTP_HOST_EMPTY);
        }
        let host = host_name(name).ok_or(HTTP_HOST_INVALID)?;
        Ok(Self {
            host,
            port: parse_port(port)?,
        })
    }

    fn parse_v6(rest: &[u8]) -> Result<Self, Refusal> {
        let end = rest
            .iter()
            .position(|&b| b == b']')
            .ok_or(HTTP_HOST_INVALID)?;
        let address = parse_v6_address(&rest[..end]).ok_or(HTTP_HOST_INVALID)?;
        let port = parse_port(&rest[end + 1..])?;
        Ok(Self {
            host: format!("[{address}]"),
            port,
        })
    }

    /// Same host, and same port if a missing one means `default`.
    pub(crate) fn same(&self, other: &Self, default: u16) -> bool {
        self.host == other.host && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// An IPv6 address without brackets and zone.
pub(crate) fn parse_v6_address(bytes: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Nothing, or a colon and one to five digits.
fn parse_port(bytes: &[u8]) -> Result<Option<u16>, Refusal> {
    let Some((colon, digits)) = bytes.split_first() else {
        return Ok(None);
    };
    if *colon != b':' {
        return Err(HTTP_HOST_INVALID);
    }
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HTTP_HOST_PORT);
    }
    let value = digits
        .iter()
        .fold(0u32, |sum, d| sum * 10 + u32::from(d - b'0'));
    u16::try_from(value).map(Some).map_err(|_| HTTP_HOST_PORT)
}
