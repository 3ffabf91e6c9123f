//! Whether a frame's checksums hold.

use std::net::IpAddr;

use crate::bytes::be16;
use crate::checksum::{fold, pseudo, sum};
use crate::packet::{L4, Layout, Packet, l4, parse, tcp};
use crate::vnet::{self, VnetHdr};

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumState {
    /// The IPv4 header's and the L4 checksum are right.
    Good,
    /// One of them is wrong.
    Bad,
    /// The L4 checksum is still to be filled in: the field holds the right pseudo header sum.
    Partial,
    /// There is none to check: not IP, not well-formed, a fragment, a protocol without an Internet
    /// checksum, UDP over IPv4 without one, or the partial checksum of an encapsulated packet.
    NotApplicable,
}

/// Checks the checksums of a frame (virtio-net header and Ethernet). Those of a super-packet cover
/// all of it, as the kernel has it.
pub fn verify(frame: &[u8]) -> ChecksumState {
    let Ok((header, eth_frame)) = vnet::split(frame) else {
        return ChecksumState::NotApplicable;
    };
    match parse(eth_frame) {
        Ok(Packet::Ip(layout)) => verify_ip(&header, eth_frame, &layout),
        Ok(Packet::NonIp(_)) | Err(_) => ChecksumState::NotApplicable,
    }
}

fn verify_ip(header: &VnetHdr, eth_frame: &[u8], layout: &Layout) -> ChecksumState {
    if !ip_header_holds(eth_frame, layout) {
        return ChecksumState::Bad;
    }
    let Some(field) = checksum_field(layout) else {
        return ChecksumState::NotApplicable;
    };
    if header.needs_csum() {
        verify_partial(header, eth_frame, layout, field)
    } else {
        verify_full(eth_frame, layout, field)
    }
}

/// Only IPv4 has a header checksum.
fn ip_header_holds(eth_frame: &[u8], layout: &Layout) -> bool {
    let header = eth_frame
        .get(layout.ip_offset..layout.l4_offset)
        .unwrap_or_default();
    layout.src.is_ipv6() || fold(sum(header)) == 0xffff
}

fn verify_partial(
    header: &VnetHdr,
    eth_frame: &[u8],
    layout: &Layout,
    field: usize,
) -> ChecksumState {
    let start = usize::from(header.csum_start);
    match be16(eth_frame, header.csum_field()) {
        None => ChecksumState::Bad,
        Some(value) if start == layout.l4_offset && header.csum_field() == field => {
            if value == fold(pseudo_sum(layout)) {
                ChecksumState::Partial
            } else {
                ChecksumState::Bad
            }
        }
        // Further in, it is that of a packet in a tunnel.
        Some(_) if start > layout.l4_offset => ChecksumState::NotApplicable,
        Some(_) => ChecksumState::Bad,
    }
}

fn verify_full(eth_frame: &[u8], layout: &Layout, field: usize) -> ChecksumState {
    let segment = eth_frame
        .get(layout.l4_offset..layout.end)
        .unwrap_or_default();
    let is_udp = matches!(layout.l4, L4::Udp { .. });
    if is_udp && be16(eth_frame, field) == Some(0) {
        // "No checksum" is allowed in IPv4 (RFC 768), not in IPv6 (RFC 8200, 8.1).
        return match layout.src {
            IpAddr::V4(_) => ChecksumState::NotApplicable,
            IpAddr::V6(_) => ChecksumState::Bad,
        };
    }
    match fold(pseudo_sum(layout) + sum(segment)) {
        0xffff => ChecksumState::Good,
        _ => ChecksumState::Bad,
    }
}

/// Where the L4 checksum lies, from the Ethernet header; `None` for protocols without one.
pub(crate) fn checksum_field(layout: &Layout) -> Option<usize> {
    let offset = match layout.l4 {
        L4::Tcp(_) => tcp::CHECKSUM_OFFSET,
        L4::Udp { .. } => l4::UDP_CHECKSUM_OFFSET,
        L4::Icmp(_) => l4::ICMP_CHECKSUM_OFFSET,
        L4::Sctp { .. } | L4::Fragment(_) | L4::Other => return None,
    };
    layout.l4_offset.checked_add(offset)
}

/// Sum of what the L4 checksum covers beside the segment itself; ICMP in IPv4 covers nothing else.
pub(crate) fn pseudo_sum(layout: &Layout) -> u64 {
    if matches!(layout.l4, L4::Icmp(_)) && layout.src.is_ipv4() {
        return 0;
    }
    let len = layout.end.saturating_sub(layout.l4_offset);
    pseudo(
        layout.src,
        layout.dst,
        layout.protocol,
        u32::try_from(len).unwrap_or(u32::MAX),
    )
}
