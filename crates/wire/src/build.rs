//! Builds complete frames with right checksums: a zeroed virtio-net header, Ethernet, an 802.1Q tag
//! if wanted, IP, L4.
//!
//! Every function clears `out` first and reuses its memory. After an error `out` is empty.

use std::net::{IpAddr, SocketAddr};

use crate::bytes::put;
use crate::checksum::{finish, finish_udp, sum};
use crate::packet::{
    Ethernet, L4, Layout, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TcpFlags,
    TcpHeader, ipv4, ipv6, l4, quoted, tcp,
};

mod headers;

use headers::{Addresses, IpHeader};

/// Hop limit of packets that Tollgate makes up: the default TTL of RFC 1700 ("IP Time to Live").
pub const DEFAULT_HOP_LIMIT: u8 = 64;

/// The longest ICMP error datagram in IPv4 (RFC 1812, 4.3.2.3).
const ICMP_V4_MAX: usize = 576;
/// The longest ICMPv6 error datagram: the minimum MTU (RFC 4443, 2.4 c).
const ICMP_V6_MAX: usize = 1280;

/// Why a frame could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Source and destination are of different address families.
    #[error("build: source and destination are of different address families")]
    FamilyMismatch,
    /// The packet would be longer than an IP length field can say.
    #[error("build: payload of {len} bytes does not fit an IP packet")]
    PayloadTooLong {
        /// Length of the payload.
        len: usize,
    },
    /// A packet that must not be answered with an ICMP error (RFC 1122, 3.2.2; RFC 4443, 2.4 e) or
    /// with a RST (RFC 9293, 3.10.7.1).
    #[error("build: the packet must not be answered with an error")]
    NotAnswerable,
    /// The layout is not that of the packet to quote.
    #[error("build: the layout does not describe the packet to quote")]
    LayoutMismatch,
}

impl BuildError {
    /// Stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::FamilyMismatch => "build-family-mismatch",
            Self::PayloadTooLong { .. } => "build-payload-too-long",
            Self::NotAnswerable => "build-not-answerable",
            Self::LayoutMismatch => "build-layout-mismatch",
        }
    }
}

/// Ethernet addresses and tag of a frame to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2 {
    /// Source address.
    pub src: [u8; 6],
    /// Destination address.
    pub dst: [u8; 6],
    /// TCI of an 802.1Q tag.
    pub vlan: Option<u16>,
}

impl L2 {
    /// For a frame that goes the same way as `eth`, with the same tag.
    pub fn along(eth: &Ethernet) -> Self {
        Self {
            src: eth.src,
            dst: eth.dst,
            vlan: eth.vlan,
        }
    }

    /// For a frame that goes back to where `eth` came from, with the same tag.
    pub fn back(eth: &Ethernet) -> Self {
        Self {
            src: eth.dst,
            dst: eth.src,
            vlan: eth.vlan,
        }
    }

    /// The same with another tag.
    #[must_use]
    pub fn with_vlan(self, vlan: Option<u16>) -> Self {
        Self { vlan, ..self }
    }
}

/// A TCP segment to be built, without options.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port; of the same family.
    pub dst: SocketAddr,
    /// Sequence number of the first payload byte, or of SYN.
    pub seq: u32,
    /// Next sequence number expected.
    pub ack: u32,
    /// The flags.
    pub flags: TcpFlags,
    /// Receive window, as it goes into the header (not scaled).
    pub window: u16,
    /// The payload; may be longer than the MTU, nothing is cut.
    pub payload: &'a [u8],
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// A UDP datagram to be built.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port; of the same family.
    pub dst: SocketAddr,
    /// The payload.
    pub payload: &'a [u8],
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// Builds a TCP segment.
///
/// # Errors
/// The families differ, or the payload does not fit an IP packet.
pub fn tcp(out: &mut Vec<u8>, l2: &L2, segment: &Segment) -> Result<(), BuildError> {
    out.clear();
    let len = tcp::MIN_HEADER_LEN + segment.payload.len();
    let ip = IpHeader {
        addresses: Addresses::new(segment.src.ip(), segment.dst.ip())?,
        protocol: PROTOCOL_TCP,
        hop_limit: segment.hop_limit,
        traffic_class: 0,
    };
    let start = ip.begin(out, l2, len, segment.payload.len())?;
    out.extend(segment.src.port().to_be_bytes());
    out.extend(segment.dst.port().to_be_bytes());
    out.extend(segment.seq.to_be_bytes());
    out.extend(segment.ack.to_be_bytes());
    // The data offset, in words, fills the high half of its byte.
    out.extend([(tcp::MIN_HEADER_LEN as u8 / 4) << 4, segment.flags.0]);
    out.extend(segment.window.to_be_bytes());
    // Checksum, filled in below, and urgent pointer.
    out.extend([0; 4]);
    out.extend(segment.payload);
    let check = finish(ip.pseudo(len) + sum(out.get(start..).unwrap_or_default()));
    put_checksum(out, start + tcp::CHECKSUM_OFFSET, check);
    Ok(())
}

/// Builds a RST that answers the TCP segment `layout` as its receiver would
/// (RFC 9293, 3.10.7.1): with the acknowledged sequence number if it has one, else with sequence
/// number 0 and an acknowledgement of all that it holds. `l2` is that of the answer.
///
/// # Errors
/// [`BuildError::NotAnswerable`]: no TCP segment, or one with RST.
pub fn rst_reply(out: &mut Vec<u8>, l2: &L2, layout: &Layout) -> Result<(), BuildError> {
    out.clear();
    let segment = layout.tcp().filter(|segment| !segment.flags.rst());
    let segment = segment.ok_or(BuildError::NotAnswerable)?;
    let (seq, ack, flags) = if segment.flags.ack() {
        (segment.ack, 0, TcpFlags::RST)
    } else {
        let ack = segment.seq.wrapping_add(layout.tcp_seq_len());
        (0, ack, TcpFlags::RST | TcpFlags::ACK)
    };
    let rst = Segment {
        src: SocketAddr::new(layout.dst, segment.dst_port),
        dst: SocketAddr::new(layout.src, segment.src_port),
        seq,
        ack,
        flags,
        window: 0,
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    tcp(out, l2, &rst)
}

/// Builds a RST in the place of the TCP segment `layout`: it goes the same way, and its sequence
/// number is the segment's, so that the receiver takes it whenever it would have taken the segment.
///
/// # Errors
/// [`BuildError::NotAnswerable`]: no TCP segment.
pub fn rst_instead(out: &mut Vec<u8>, l2: &L2, layout: &Layout) -> Result<(), BuildError> {
    out.clear();
    let segment: &TcpHeader = layout.tcp().ok_or(BuildError::NotAnswerable)?;
    let flags = if segment.flags.ack() {
        TcpFlags::RST | TcpFlags::ACK
    } else {
        TcpFlags::RST
    };
    let rst = Segment {
        src: SocketAddr::new(layout.src, segment.src_port),
        dst: SocketAddr::new(layout.dst, segment.dst_port),
        seq: segment.seq,
        ack: segment.ack,
        flags,
        window: 0,
        payload: &[],
        hop_limit: layout.hop_limit,
    };
    tcp(out, l2, &rst)
}

/// Builds a UDP datagram.
///
/// # Errors
/// The families differ, or the payload does not fit an IP packet.
pub fn udp(out: &mut Vec<u8>, l2: &L2, datagram: &Datagram) -> Result<(), BuildError> {
    out.clear();
    let payload_len = datagram.payload.len();
    let len = l4::UDP_HEADER_LEN + payload_len;
    let too_long = BuildError::PayloadTooLong { len: payload_len };
    let len_field = u16::try_from(len).map_err(|_| too_long)?;
    let ip = IpHeader {
        addresses: Addresses::new(datagram.src.ip(), datagram.dst.ip())?,
        protocol: PROTOCOL_UDP,
        hop_limit: datagram.hop_limit,
        traffic_class: 0,
    };
    let start = ip.begin(out, l2, len, payload_len)?;
    out.extend(datagram.src.port().to_be_bytes());
    out.extend(datagram.dst.port().to_be_bytes());
    out.extend(len_field.to_be_bytes());
    out.extend([0; 2]);
    out.extend(datagram.payload);
    let check = finish_udp(ip.pseudo(len) + sum(out.get(start..).unwrap_or_default()));
    put_checksum(out, start + l4::UDP_CHECKSUM_OFFSET, check);
    Ok(())
}

/// Builds the ICMP error "administratively prohibited" (IPv4: type 3 code 13, IPv6: type 1 code 1)
/// that `from` sends to the source of a packet. It quotes the packet up to the limits of RFC 1812
/// (576 bytes in all) and RFC 4443 (1280 bytes in all). `l2` is that of the answer.
///
/// # Errors
/// `from` is of the other family, `layout` is not that of the packet, or the packet must not be
/// answered: it is an ICMP error or redirect, a fragment other than the first, or its source or
/// destination, on either layer, names more than one node or none.
pub fn icmp_admin_prohibited(
    out: &mut Vec<u8>,
    l2: &L2,
    original_eth_frame: &[u8],
    layout: &Layout,
    from: IpAddr,
) -> Result<(), BuildError> {
    out.clear();
    if !is_answerable(layout) {
        return Err(BuildError::NotAnswerable);
    }
    let addresses = Addresses::new(from, layout.src)?;
    let (ip, message, room) = match layout.src {
        IpAddr::V4(_) => {
            let ip = icmp_header(addresses, PROTOCOL_ICMP, NETWORK_CONTROL);
            (
                ip,
                [3, 13],
                ICMP_V4_MAX - ipv4::MIN_HEADER_LEN - l4::ICMP_HEADER_LEN,
            )
        }
        IpAddr::V6(_) => {
            let ip = icmp_header(addresses, PROTOCOL_ICMPV6, 0);
            (
                ip,
                [1, 1],
                ICMP_V6_MAX - ipv6::HEADER_LEN - l4::ICMP_HEADER_LEN,
            )
        }
    };
    let original = original_eth_frame.get(layout.ip_offset..layout.end);
    let original = original.ok_or(BuildError::LayoutMismatch)?;
    let quote = original.get(..room).unwrap_or(original);
    let len = l4::ICMP_HEADER_LEN + quote.len();
    let start = ip.begin(out, l2, len, quote.len())?;
    out.extend(message);
    // Checksum, filled in below, and four unused bytes.
    out.extend([0; 6]);
    out.extend(quote);
    let pseudo = if from.is_ipv4() { 0 } else { ip.pseudo(len) };
    let check = finish(pseudo + sum(out.get(start..).unwrap_or_default()));
    put_checksum(out, start + l4::ICMP_CHECKSUM_OFFSET, check);
    Ok(())
}

/// IPv4 precedence of ICMP errors (RFC 1812, 4.3.2.5): network control.
const NETWORK_CONTROL: u8 = 0xc0;

fn icmp_header(addresses: Addresses, protocol: u8, traffic_class: u8) -> IpHeader {
    IpHeader {
        addresses,
        protocol,
        hop_limit: DEFAULT_HOP_LIMIT,
        traffic_class,
    }
}

/// Whether an ICMP error may be sent about a packet (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
fn is_answerable(layout: &Layout) -> bool {
    /// The bit of an Ethernet address that says "group" (IEEE 802.3, 3.2.3).
    const GROUP: u8 = 1;
    let is_later_fragment = matches!(layout.l4, L4::Fragment(f) if f.offset > 0);
    let to_group = layout.eth.dst[0] & GROUP != 0 || !is_unicast(layout.dst);
    !quoted::is_error_or_redirect(layout)
        && !is_later_fragment
        && !to_group
        && is_unicast(layout.src)
}

fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn put_checksum(out: &mut [u8], offset: usize, check: u16) {
    // The header was just written, so the field is there.
    let written = put(out, offset, check.to_be_bytes());
    debug_assert!(written.is_some());
}
