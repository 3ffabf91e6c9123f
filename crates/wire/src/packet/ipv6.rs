//! IPv6 and its extension headers (RFC 8200).

use std::net::{IpAddr, Ipv6Addr};

use crate::bytes::{array, be16, be32};
use crate::packet::{Fragment, IP_LENGTH_MAX, Ip, ParseError};

/// Length of the fixed IPv6 header.
pub(crate) const HEADER_LEN: usize = 40;
/// Where the payload length lies in the header.
pub(crate) const LENGTH_OFFSET: usize = 4;
/// Where the next header's number lies in the header.
pub(crate) const NEXT_HEADER_OFFSET: usize = 6;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers that are followed. RFC 8200 section 4.1 foresees seven, destination options
/// counted twice; one more than that is nothing a sane sender makes.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Reads the header that starts at `start`, and the extension headers after it.
#[inline]
pub(super) fn parse(frame: &[u8], start: usize) -> Result<Ip, ParseError> {
    let packet = frame.get(start..).unwrap_or_default();
    let header: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(ParseError::IpTruncated)?;
    if header[0] >> 4 != 6 {
        return Err(ParseError::IpBadVersion);
    }
    let len = packet_len(be16(header, LENGTH_OFFSET).unwrap_or(0), packet.len())?;
    let packet = packet.get(..len).ok_or(ParseError::IpTruncated)?;
    let chain = walk(packet, HEADER_LEN, header[NEXT_HEADER_OFFSET])?;
    Ok(Ip {
        l4_offset: start + chain.offset,
        end: start + len,
        src: address(header, 8),
        dst: address(header, 24),
        hop_limit: header[7],
        protocol: chain.protocol,
        fragment: chain.fragment,
    })
}

#[inline]
pub(super) fn address(header: &[u8], offset: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(
        array::<16>(header, offset).unwrap_or_default(),
    ))
}

/// The packet's length with its header. A BIG TCP super-packet, too long for the field, says 0 and
/// takes all that the frame has; a short packet that says 0 has no payload.
#[inline]
fn packet_len(field: u16, available: usize) -> Result<usize, ParseError> {
    let len = match usize::from(field) {
        0 if available > HEADER_LEN + IP_LENGTH_MAX => available,
        len => HEADER_LEN + len,
    };
    if len > available {
        Err(ParseError::IpTruncated)
    } else {
        Ok(len)
    }
}

/// Where a chain of extension headers ends.
pub(super) struct Chain {
    /// Start of what follows the chain.
    pub offset: usize,
    /// What that is.
    pub protocol: u8,
    /// The packet is a fragment.
    pub fragment: Option<Fragment>,
}

/// Follows the extension headers of `packet` from `offset` on. Stops at the first header that is
/// none, and behind the fragment header of a fragment other than the first.
#[inline]
pub(super) fn walk(packet: &[u8], offset: usize, protocol: u8) -> Result<Chain, ParseError> {
    let mut chain = Chain {
        offset,
        protocol,
        fragment: None,
    };
    let mut fragment_seen = false;
    for index in 0..=MAX_EXTENSION_HEADERS {
        let rest = packet.get(chain.offset..).unwrap_or_default();
        let header = match chain.protocol {
            HOP_BY_HOP if index > 0 => return Err(ParseError::Ipv6HopByHopMisplaced),
            HOP_BY_HOP | DESTINATION_OPTIONS => extension(rest, options_len)?,
            ROUTING => routing(rest)?,
            AUTHENTICATION => authentication(rest)?,
            FRAGMENT if fragment_seen => return Err(ParseError::Ipv6RepeatedFragment),
            FRAGMENT => {
                fragment_seen = true;
                chain.fragment = fragment(rest)?;
                Extension {
                    next: rest.first().copied().unwrap_or(0),
                    len: FRAGMENT_HEADER_LEN,
                }
            }
            _ => return Ok(chain),
        };
        chain.protocol = header.next;
        chain.offset += header.len;
        if chain.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(chain);
        }
    }
    Err(ParseError::Ipv6TooManyExtensionHeaders)
}

struct Extension {
    next: u8,
    len: usize,
}

/// Length of an options or routing header: the field counts units of 8 bytes after the first.
fn options_len(field: u8) -> usize {
    (usize::from(field) + 1) * 8
}

/// Length of an authentication header: units of 4 bytes, less 2 (RFC 4302, 2.2).
fn authentication_len(field: u8) -> usize {
    (usize::from(field) + 2) * 4
}

/// An authentication header too short for its fixed fields is none.
fn authentication(rest: &[u8]) -> Result<Extension, ParseError> {
    const FIXED_LEN: usize = 12;
    extension(rest, authentication_len).and_then(|header| {
        (header.len >= FIXED_LEN)
            .then_some(header)
            .ok_or(ParseError::Ipv6ExtensionTruncated)
    })
}

fn extension(rest: &[u8], len_of: fn(u8) -> usize) -> Result<Extension, ParseError> {
    let [next, field] = array(rest, 0).ok_or(ParseError::Ipv6ExtensionTruncated)?;
    let len = len_of(field);
    if len > rest.len() {
        return Err(ParseError::Ipv6ExtensionTruncated);
    }
    Ok(Extension { next, len })
}

/// A routing header that has done its work is like any other; one with segments left is refused.
fn routing(rest: &[u8]) -> Result<Extension, ParseError> {
    const SEGMENTS_LEFT: usize = 3;
    let header = extension(rest, options_len)?;
    match rest.get(SEGMENTS_LEFT) {
        Some(0) => Ok(header),
        _ => Err(ParseError::IpSourceRoute),
    }
}

const FRAGMENT_HEADER_LEN: usize = 8;

/// The fragment that a fragment header makes of the packet; none if it is atomic (RFC 6946).
fn fragment(rest: &[u8]) -> Result<Option<Fragment>, ParseError> {
    /// The offset is in the high 13 bits, so that masking leaves it in bytes.
    const OFFSET_MASK: u16 = 0xfff8;
    const MORE_FRAGMENTS: u16 = 1;
    let truncated = ParseError::Ipv6ExtensionTruncated;
    let word = be16(rest, 2).ok_or(truncated)?;
    let id = be32(rest, 4).ok_or(truncated)?;
    let len = rest.len().saturating_sub(FRAGMENT_HEADER_LEN);
    super::l4::fragment(word & OFFSET_MASK, word & MORE_FRAGMENTS != 0, id, len)
}
