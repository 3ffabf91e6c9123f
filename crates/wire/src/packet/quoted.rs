//! The packet that an ICMP error message quotes.

use std::net::IpAddr;

use crate::bytes::be16;
use crate::packet::{
    IcmpHeader, L4, Layout, PROTOCOL_ICMP, PROTOCOL_ICMPV6, ipv4,
    ipv6::{self, Chain},
    l4,
};

/// Addresses and ports of a packet that an ICMP error is about. Only its start is quoted, by a
/// stranger: enough to look a flow up, not to believe anything else of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source address of the quoted packet.
    pub src: IpAddr,
    /// Destination address of the quoted packet.
    pub dst: IpAddr,
    /// Its IP protocol number.
    pub protocol: u8,
    /// Source port; for ICMP echo the identifier; 0 for protocols without ports.
    pub src_port: u16,
    /// Destination port; 0 for protocols without ports and for ICMP echo.
    pub dst_port: u16,
}

/// Reads the packet quoted in an ICMP error (types 3, 4, 5, 11 and 12; ICMPv6 1 to 4).
///
/// `None` if the packet is no ICMP error, or if the quote is broken, does not reach the ports, or is
/// of a fragment that does not have them.
pub fn icmp_quoted(eth_frame: &[u8], layout: &Layout) -> Option<Quoted> {
    if !is_error(layout) {
        return None;
    }
    let quote = layout.payload(eth_frame);
    match layout.src {
        IpAddr::V4(_) => quoted_v4(quote),
        IpAddr::V6(_) => quoted_v6(quote),
    }
}

/// Whether the packet is an ICMP message that quotes another packet.
fn is_error(layout: &Layout) -> bool {
    let L4::Icmp(icmp) = layout.l4 else {
        return false;
    };
    match layout.src {
        IpAddr::V4(_) => matches!(icmp.icmp_type, 3 | 4 | 5 | 11 | 12),
        IpAddr::V6(_) => matches!(icmp.icmp_type, 1..=4),
    }
}

/// Whether the packet is an ICMP message that must not cause another one (RFC 1122, 3.2.2; RFC 4443,
/// 2.4 e).
pub(crate) fn is_error_or_redirect(layout: &Layout) -> bool {
    /// ICMPv6 redirect; that of IPv4 is among those that quote.
    const REDIRECT_V6: u8 = 137;
    let is_redirect = |icmp: IcmpHeader| layout.src.is_ipv6() && icmp.icmp_type == REDIRECT_V6;
    is_error(layout) || matches!(layout.l4, L4::Icmp(icmp) if is_redirect(icmp))
}

fn quoted_v4(quote: &[u8]) -> Option<Quoted> {
    const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
    let header_len = ipv4::header_len(*quote.first()?).ok()?;
    let l4 = quote.get(header_len..)?;
    if be16(quote, 6)? & FRAGMENT_OFFSET_MASK != 0 {
        return None;
    }
    let addresses = (ipv4::address(quote, 12), ipv4::address(quote, 16));
    quoted(addresses, *quote.get(9)?, l4)
}

fn quoted_v6(quote: &[u8]) -> Option<Quoted> {
    let header = quote.get(..ipv6::HEADER_LEN)?;
    if header.first()? >> 4 != 6 {
        return None;
    }
    let next = *header.get(ipv6::NEXT_HEADER_OFFSET)?;
    let Chain {
        offset,
        protocol,
        fragment,
    } = ipv6::walk(quote, ipv6::HEADER_LEN, next).ok()?;
    if fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    let addresses = (ipv6::address(header, 8), ipv6::address(header, 24));
    quoted(addresses, protocol, quote.get(offset..)?)
}

fn quoted((src, dst): (IpAddr, IpAddr), protocol: u8, l4: &[u8]) -> Option<Quoted> {
    let (src_port, dst_port) = match protocol {
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 if l4::is_echo(protocol, *l4.first()?) => (be16(l4, 4)?, 0),
        _ if has_ports(protocol) => l4::ports(l4, protocol)?,
        _ => (0, 0),
    };
    Some(Quoted {
        src,
        dst,
        protocol,
        src_port,
        dst_port,
    })
}

fn has_ports(protocol: u8) -> bool {
    use crate::packet::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
}
