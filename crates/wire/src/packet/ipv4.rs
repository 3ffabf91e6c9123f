//! IPv4 (RFC 791).

use std::net::{IpAddr, Ipv4Addr};

use crate::bytes::{array, be16};
use crate::packet::{Fragment, IP_LENGTH_MAX, Ip, ParseError};

/// Length of an IPv4 header without options.
pub(crate) const MIN_HEADER_LEN: usize = 20;
/// Where the total length lies in the header.
pub(crate) const LENGTH_OFFSET: usize = 2;
/// Where the checksum lies in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 10;

/// The "more fragments" bit of the flags-and-offset word.
const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset's bits in that word; it counts in units of 8 bytes.
const OFFSET_MASK: u16 = 0x1fff;

/// Reads the header that starts at `start`.
#[inline]
pub(super) fn parse(frame: &[u8], start: usize) -> Result<Ip, ParseError> {
    let packet = frame.get(start..).unwrap_or_default();
    let header: &[u8; MIN_HEADER_LEN] = packet.first_chunk().ok_or(ParseError::IpTruncated)?;
    let header_len = header_len(header[0])?;
    let len = packet_len(be16(header, LENGTH_OFFSET).unwrap_or(0), packet.len())?;
    if header_len > len {
        return Err(ParseError::IpBadHeaderLength);
    }
    if header_len > MIN_HEADER_LEN {
        check_options(packet.get(MIN_HEADER_LEN..header_len).unwrap_or_default())?;
    }
    Ok(Ip {
        l4_offset: start + header_len,
        end: start + len,
        src: address(header, 12),
        dst: address(header, 16),
        hop_limit: header[8],
        protocol: header[9],
        fragment: fragment(header, len - header_len)?,
    })
}

/// Checks the version and returns the header's length in bytes.
#[inline]
pub(super) fn header_len(first_byte: u8) -> Result<usize, ParseError> {
    if first_byte >> 4 != 4 {
        return Err(ParseError::IpBadVersion);
    }
    match usize::from(first_byte & 0x0f) * 4 {
        len if len < MIN_HEADER_LEN => Err(ParseError::IpBadHeaderLength),
        len => Ok(len),
    }
}

#[inline]
pub(super) fn address(header: &[u8], offset: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(
        array::<4>(header, offset).unwrap_or_default(),
    ))
}

/// The packet's length; a BIG TCP super-packet, too long for the field, says 0 and takes all that
/// the frame has.
#[inline]
fn packet_len(field: u16, available: usize) -> Result<usize, ParseError> {
    match usize::from(field) {
        0 if available > IP_LENGTH_MAX => Ok(available),
        0 => Err(ParseError::IpBadLength),
        len if len > available => Err(ParseError::IpTruncated),
        len => Ok(len),
    }
}

/// `len` is the length of what follows the header.
#[inline]
fn fragment(header: &[u8; MIN_HEADER_LEN], len: usize) -> Result<Option<Fragment>, ParseError> {
    let word = be16(header, 6).unwrap_or(0);
    let id = u32::from(be16(header, 4).unwrap_or(0));
    super::l4::fragment(
        (word & OFFSET_MASK) * 8,
        word & MORE_FRAGMENTS != 0,
        id,
        len,
    )
}

/// Walks the options: well-formed, and no source route (RFC 791, 3.1).
fn check_options(mut options: &[u8]) -> Result<(), ParseError> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some(&kind) = options.first() {
        let len = match kind {
            END => return Ok(()),
            NOP => 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(ParseError::IpSourceRoute),
            _ => match options.get(1) {
                Some(&len) if len >= 2 => usize::from(len),
                _ => return Err(ParseError::Ipv4BadOptions),
            },
        };
        options = options.get(len..).ok_or(ParseError::Ipv4BadOptions)?;
    }
    Ok(())
}
