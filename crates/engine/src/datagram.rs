//! What names the flow of a packet, and who opened a flow whose beginning was not seen.

use tollgate_policy::{EndpointPolicy, Side};
use tollgate_wire::packet::{self, IcmpHeader};
use tollgate_wire::tag::Direction;

use crate::key::FlowKey;
use crate::segment::Packet;

/// First port of Linux's default range for connections that it opens
/// (`net.ipv4.ip_local_port_range`).
const EPHEMERAL_FIRST: u16 = 32_768;

/// ICMP message types that quote the packet they are about (RFC 792, RFC 4443).
pub(crate) fn is_icmp_error(protocol: u8, icmp: &IcmpHeader) -> bool {
    match protocol {
        ICMP => matches!(icmp.icmp_type, 3 | 4 | 5 | 11 | 12),
        _ => matches!(icmp.icmp_type, 1..=4),
    }
}

/// IP protocol number of ICMP.
const ICMP: u8 = 1;

/// Who opens a flow with this, its first packet.
pub(crate) fn opener(packet: &Packet<'_>) -> Side {
    match packet.direction() {
        Direction::Outbound => Side::Egress,
        Direction::Inbound => Side::Ingress,
    }
}

/// Who opened a TCP flow that was there before the engine: the side whose port lies in the
/// ephemeral range, if only one does. `None`: cannot be told.
pub(crate) fn likely_opener(key: &FlowKey) -> Option<Side> {
    match (
        key.local_port >= EPHEMERAL_FIRST,
        key.remote_port >= EPHEMERAL_FIRST,
    ) {
        (true, false) => Some(Side::Egress),
        (false, true) => Some(Side::Ingress),
        _ => None,
    }
}

/// The flow of the packet that an ICMP error quotes.
pub(crate) fn quoted_key(packet: &Packet<'_>) -> Option<FlowKey> {
    let quoted = packet::icmp_quoted(packet.ethernet(), &packet.layout)?;
    // An error that comes in is about a packet that went out, and the other way round.
    let (local, local_port, remote, remote_port) = match packet.direction() {
        Direction::Inbound => (quoted.src, quoted.src_port, quoted.dst, quoted.dst_port),
        Direction::Outbound => (quoted.dst, quoted.dst_port, quoted.src, quoted.src_port),
    };
    Some(FlowKey {
        endpoint: packet.tag.endpoint,
        protocol: quoted.protocol,
        local,
        local_port,
        remote,
        remote_port,
    })
}

/// An endpoint that sends from an address which is not its own, and may not.
pub(crate) fn speaks_for_another(packet: &Packet<'_>, policy: &EndpointPolicy) -> bool {
    packet.direction() == Direction::Outbound && !policy.may_send_from(&packet.layout.src)
}

/// An endpoint that sends to its own address through its interface speaks for another: routed back,
/// the packet would come in as the server's, and acknowledge what the server never had.
pub(crate) fn speaks_to_itself(packet: &Packet<'_>, policy: &EndpointPolicy) -> bool {
    packet.direction() == Direction::Outbound && policy.addresses().contains(&packet.layout.dst)
}
