//! One-pass, allocation-free parse of an Ethernet frame.
//!
//! The parser is strict: a packet whose parts contradict each other is an error with a reason, so
//! that nothing is judged by a reading that its receiver does not share. Checksums are not looked
//! at; see [`crate::verify()`].

use std::net::IpAddr;

use crate::bytes::{array, be16};
use crate::tcp_options::TcpOptions;

mod error;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod l4;
pub(crate) mod quoted;
pub(crate) mod tcp;

pub use error::ParseError;
pub use quoted::{Quoted, icmp_quoted};
pub use tcp::{TcpFlags, TcpHeader};

/// Length of an Ethernet header without a tag.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Bytes that an 802.1Q tag adds.
pub const VLAN_TAG_LEN: usize = 4;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q customer tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// IP protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = 132;

/// Largest value of a 16-bit IP length field. A BIG TCP super-packet is longer and says 0.
pub(crate) const IP_LENGTH_MAX: usize = u16::MAX as usize;

/// The Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub dst: [u8; 6],
    /// Source address.
    pub src: [u8; 6],
    /// TCI (priority, DEI, VLAN id) of the outermost 802.1Q tag.
    pub vlan: Option<u16>,
    /// The innermost EtherType that was read: after the tag, if there is one. A second tag's own
    /// EtherType shows up here.
    pub ethertype: u16,
    /// 14 bytes, 18 with a tag.
    pub header_len: usize,
}

impl Ethernet {
    #[inline]
    fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        let truncated = ParseError::EthernetTruncated;
        let dst = array(frame, 0).ok_or(truncated)?;
        let src = array(frame, 6).ok_or(truncated)?;
        let ethertype = be16(frame, 12).ok_or(truncated)?;
        if !is_vlan(ethertype) {
            return Ok(Self {
                dst,
                src,
                vlan: None,
                ethertype,
                header_len: ETHERNET_HEADER_LEN,
            });
        }
        let vlan = be16(frame, ETHERNET_HEADER_LEN).ok_or(truncated)?;
        let ethertype = be16(frame, ETHERNET_HEADER_LEN + 2).ok_or(truncated)?;
        let header_len = ETHERNET_HEADER_LEN + VLAN_TAG_LEN;
        Ok(Self {
            dst,
            src,
            vlan: Some(vlan),
            ethertype,
            header_len,
        })
    }
}

/// Whether an EtherType announces a VLAN tag.
pub(crate) fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// What an IP packet is and where its parts lie. Offsets count from the start of the Ethernet
/// header: `ip_offset <= l4_offset <= payload_offset <= end <= frame length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The Ethernet header.
    pub eth: Ethernet,
    /// Start of the IP header.
    pub ip_offset: usize,
    /// Start of the L4 header, after IPv4 options and IPv6 extension headers.
    pub l4_offset: usize,
    /// Start of the L4 payload; equal to `l4_offset` for [`L4::Fragment`] and [`L4::Other`].
    pub payload_offset: usize,
    /// End of the packet by its IP length (for UDP by its own length, if that is shorter): Ethernet
    /// padding is excluded.
    pub end: usize,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IP protocol number of the L4 header, after IPv6 extension headers.
    pub protocol: u8,
    /// The L4 header.
    pub l4: L4,
}

/// What follows the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// A TCP segment.
    Tcp(TcpHeader),
    /// A UDP datagram.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// An SCTP packet.
    Sctp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp(IcmpHeader),
    /// A part of a packet, whatever its protocol; an IPv6 atomic fragment (RFC 6946) is none.
    Fragment(Fragment),
    /// A protocol that is not looked into.
    Other,
}

/// The start of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type; its meaning depends on the IP version.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// Identifier of an echo request or reply.
    pub identifier: Option<u16>,
}

/// An IP fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its data belongs in the whole packet, in bytes.
    pub offset: u16,
    /// More fragments follow this one.
    pub more: bool,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Source and destination port, from a first fragment of TCP, UDP or SCTP that holds them.
    pub ports: Option<(u16, u16)>,
}

/// A frame that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// IPv4 or IPv6.
    Ip(Layout),
    /// Anything else: ARP, LLC, a frame with two VLAN tags.
    NonIp(Ethernet),
}

/// Reads an Ethernet frame (without virtio-net header). Bytes after the IP packet are padding.
///
/// # Errors
/// The frame is not well-formed; [`ParseError::reason`] says in what way.
// Runs for every frame: inlined with all that it calls, it is several times as fast, since the parts
// of the layout are not copied from one function to the next.
#[inline]
pub fn parse(eth_frame: &[u8]) -> Result<Packet, ParseError> {
    let eth = Ethernet::parse(eth_frame)?;
    let ip = match eth.ethertype {
        ETHERTYPE_IPV4 => ipv4::parse(eth_frame, eth.header_len)?,
        ETHERTYPE_IPV6 => ipv6::parse(eth_frame, eth.header_len)?,
        _ => return Ok(Packet::NonIp(eth)),
    };
    let l4 = l4::parse(eth_frame, &ip)?;
    Ok(Packet::Ip(Layout {
        eth,
        ip_offset: eth.header_len,
        l4_offset: ip.l4_offset,
        payload_offset: l4.payload_offset,
        end: l4.end,
        src: ip.src,
        dst: ip.dst,
        hop_limit: ip.hop_limit,
        protocol: ip.protocol,
        l4: l4.l4,
    }))
}

/// What the IP headers say.
struct Ip {
    l4_offset: usize,
    end: usize,
    src: IpAddr,
    dst: IpAddr,
    hop_limit: u8,
    protocol: u8,
    fragment: Option<Fragment>,
}

impl Layout {
    /// The L4 payload; empty if `frame` is not the frame that was parsed and too short.
    pub fn payload<'a>(&self, eth_frame: &'a [u8]) -> &'a [u8] {
        eth_frame
            .get(self.payload_offset..self.end)
            .unwrap_or_default()
    }

    /// Length of the L4 payload in bytes.
    pub fn payload_len(&self) -> usize {
        self.end.saturating_sub(self.payload_offset)
    }

    /// The TCP header, if the packet is a TCP segment.
    pub fn tcp(&self) -> Option<&TcpHeader> {
        match &self.l4 {
            L4::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    /// Sequence numbers that a TCP segment takes: payload, SYN and FIN; 0 for other protocols.
    pub fn tcp_seq_len(&self) -> u32 {
        let Some(tcp) = self.tcp() else { return 0 };
        let payload = u32::try_from(self.payload_len()).unwrap_or(u32::MAX);
        let controls = u32::from(tcp.flags.syn()) + u32::from(tcp.flags.fin());
        payload.saturating_add(controls)
    }

    /// The options of a TCP segment; none for other protocols.
    pub fn tcp_options<'a>(&self, eth_frame: &'a [u8]) -> TcpOptions<'a> {
        let start = self.l4_offset.saturating_add(tcp::MIN_HEADER_LEN);
        let options = self
            .tcp()
            .and_then(|_| eth_frame.get(start..self.payload_offset));
        TcpOptions::new(options.unwrap_or_default())
    }

    /// Source and destination port of TCP, UDP, SCTP, or of a first fragment of these.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.l4 {
            L4::Tcp(tcp) => Some((tcp.src_port, tcp.dst_port)),
            L4::Udp { src_port, dst_port } | L4::Sctp { src_port, dst_port } => {
                Some((src_port, dst_port))
            }
            L4::Fragment(fragment) => fragment.ports,
            L4::Icmp(_) | L4::Other => None,
        }
    }
}
