//! Right checksums for a changed frame: a fuzzer does not guess them, and the engine drops the rest.

use tollgate_wire::checksum;
use tollgate_wire::packet::{ETHERTYPE_IPV4, L4, Packet, parse};
use tollgate_wire::vnet::VNET_HDR_LEN;

/// Ethernet header with a tag; what [`super::gate::link_up`] sees to.
const IP_AT: usize = VNET_HDR_LEN + 18;
/// Where the checksum lies in an IPv4 header.
const IP_CHECKSUM: usize = 10;

/// Makes the checksums of the frame right, as far as it can be read.
pub(super) fn checksums(frame: &mut [u8]) {
    ipv4_header(frame);
    let Ok(Packet::Ip(layout)) = parse(frame.get(VNET_HDR_LEN..).unwrap_or_default()) else {
        return;
    };
    let field = match layout.l4 {
        L4::Tcp(_) => 16,
        L4::Udp { .. } => 6,
        L4::Icmp(_) => 2,
        L4::Sctp { .. } | L4::Fragment(_) | L4::Other => return,
    };
    let len = layout.end.saturating_sub(layout.l4_offset);
    let pseudo = match layout.l4 {
        L4::Icmp(_) if layout.src.is_ipv4() => 0,
        _ => {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            checksum::pseudo(layout.src, layout.dst, layout.protocol, len)
        }
    };
    let at = VNET_HDR_LEN + layout.l4_offset;
    let Some(segment) = frame.get_mut(at..VNET_HDR_LEN + layout.end) else {
        return;
    };
    fill(segment, field, pseudo);
}

fn ipv4_header(frame: &mut [u8]) {
    let is_ipv4 = frame.get(IP_AT - 2..IP_AT) == Some(&ETHERTYPE_IPV4.to_be_bytes());
    let Some(first) = frame.get(IP_AT).filter(|_| is_ipv4) else {
        return;
    };
    let len = usize::from(first & 0x0f) * 4;
    if let Some(header) = frame.get_mut(IP_AT..IP_AT + len) {
        fill(header, IP_CHECKSUM, 0);
    }
}

/// Writes the checksum of `bytes` and of what `start` stands for to `field`.
fn fill(bytes: &mut [u8], field: usize, start: u64) {
    let Some(place) = bytes.get_mut(field..field + 2) else {
        return;
    };
    place.fill(0);
    let sum = checksum::finish_udp(start + checksum::sum(bytes)).to_be_bytes();
    if let Some(place) = bytes.get_mut(field..field + 2) {
        place.copy_from_slice(&sum);
    }
}
