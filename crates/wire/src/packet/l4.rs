//! What follows the IP headers.

use std::net::IpAddr;

use crate::bytes::{array, be16};
use crate::packet::{
    Fragment, IP_LENGTH_MAX, IcmpHeader, Ip, L4, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP,
    PROTOCOL_TCP, PROTOCOL_UDP, ParseError, TcpHeader,
};

/// Length of a UDP header.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Where the checksum lies in a UDP header.
pub(crate) const UDP_CHECKSUM_OFFSET: usize = 6;
/// Length of an ICMP header with the four bytes whose meaning depends on the type.
pub(crate) const ICMP_HEADER_LEN: usize = 8;
/// Where the checksum lies in an ICMP header.
pub(crate) const ICMP_CHECKSUM_OFFSET: usize = 2;
/// Length of the SCTP common header (RFC 9260, 3.1).
const SCTP_HEADER_LEN: usize = 12;

/// The L4 header, where its payload starts and where the packet ends.
pub(super) struct Parsed {
    pub l4: L4,
    pub payload_offset: usize,
    pub end: usize,
}

/// Reads the L4 header of the packet that `ip` describes.
#[inline]
pub(super) fn parse(frame: &[u8], ip: &Ip) -> Result<Parsed, ParseError> {
    let segment = frame.get(ip.l4_offset..ip.end).unwrap_or_default();
    let parsed = |l4, header_len| Parsed {
        l4,
        payload_offset: ip.l4_offset + header_len,
        end: ip.end,
    };
    if let Some(fragment) = ip.fragment {
        let ports = if fragment.offset == 0 {
            ports(segment, ip.protocol)
        } else {
            None
        };
        return Ok(parsed(L4::Fragment(Fragment { ports, ..fragment }), 0));
    }
    match (ip.protocol, ip.src) {
        (PROTOCOL_TCP, _) => {
            let tcp = TcpHeader::parse(segment)?;
            Ok(parsed(L4::Tcp(tcp), usize::from(tcp.header_len)))
        }
        (PROTOCOL_UDP, _) => udp(segment, ip),
        (PROTOCOL_ICMP, IpAddr::V4(_)) | (PROTOCOL_ICMPV6, IpAddr::V6(_)) => Ok(parsed(
            L4::Icmp(icmp(segment, ip.protocol)?),
            ICMP_HEADER_LEN,
        )),
        (PROTOCOL_SCTP, _) => {
            let (src_port, dst_port) = ports(segment, PROTOCOL_SCTP)
                .filter(|_| segment.len() >= SCTP_HEADER_LEN)
                .ok_or(ParseError::SctpTruncated)?;
            Ok(parsed(L4::Sctp { src_port, dst_port }, SCTP_HEADER_LEN))
        }
        _ => Ok(parsed(L4::Other, 0)),
    }
}

/// The ports of a protocol that begins with them.
pub(crate) fn ports(segment: &[u8], protocol: u8) -> Option<(u16, u16)> {
    match protocol {
        PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP => Some((be16(segment, 0)?, be16(segment, 2)?)),
        _ => None,
    }
}

fn udp(datagram: &[u8], ip: &Ip) -> Result<Parsed, ParseError> {
    let header: [u8; UDP_HEADER_LEN] = array(datagram, 0).ok_or(ParseError::UdpTruncated)?;
    let [s0, s1, d0, d1, l0, l1, _, _] = header;
    let len = match usize::from(u16::from_be_bytes([l0, l1])) {
        // A jumbogram (RFC 2675, 4): as long as the IP payload.
        0 if ip.src.is_ipv6() => datagram.len(),
        len => len,
    };
    if !(UDP_HEADER_LEN..=datagram.len()).contains(&len) {
        return Err(ParseError::UdpBadLength);
    }
    let src_port = u16::from_be_bytes([s0, s1]);
    let dst_port = u16::from_be_bytes([d0, d1]);
    Ok(Parsed {
        l4: L4::Udp { src_port, dst_port },
        payload_offset: ip.l4_offset + UDP_HEADER_LEN,
        end: ip.l4_offset + len,
    })
}

fn icmp(message: &[u8], protocol: u8) -> Result<IcmpHeader, ParseError> {
    let header: [u8; ICMP_HEADER_LEN] = array(message, 0).ok_or(ParseError::IcmpTruncated)?;
    let [icmp_type, code, _, _, i0, i1, _, _] = header;
    let identifier = is_echo(protocol, icmp_type).then_some(u16::from_be_bytes([i0, i1]));
    Ok(IcmpHeader {
        icmp_type,
        code,
        identifier,
    })
}

/// Echo request or reply: ICMP 8 and 0 (RFC 792), ICMPv6 128 and 129 (RFC 4443).
pub(super) fn is_echo(protocol: u8, icmp_type: u8) -> bool {
    matches!(
        (protocol, icmp_type),
        (PROTOCOL_ICMP, 0 | 8) | (PROTOCOL_ICMPV6, 128 | 129)
    )
}

/// Checks a fragment's place (`offset` in bytes) against its length; `None` if it is the whole
/// packet.
#[inline]
pub(super) fn fragment(
    offset: u16,
    more: bool,
    id: u32,
    len: usize,
) -> Result<Option<Fragment>, ParseError> {
    if offset == 0 && !more {
        return Ok(None);
    }
    if more && !len.is_multiple_of(8) {
        return Err(ParseError::FragmentBadLength);
    }
    if usize::from(offset) + len > IP_LENGTH_MAX {
        return Err(ParseError::FragmentTooLong);
    }
    Ok(Some(Fragment {
        offset,
        more,
        id,
        ports: None,
    }))
}
