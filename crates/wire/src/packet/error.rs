//! Why a frame could not be read.

/// Why a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its Ethernet header and tag.
    #[error("frame ends within the Ethernet header")]
    EthernetTruncated,
    /// The IP header, or the length that it states, goes beyond the frame.
    #[error("frame ends before the IP packet does")]
    IpTruncated,
    /// The version field does not match the EtherType.
    #[error("IP version does not match the EtherType")]
    IpBadVersion,
    /// IPv4 header length below 20 bytes or above the packet's length.
    #[error("IPv4 header length is impossible")]
    IpBadHeaderLength,
    /// IPv4 total length 0 in a packet that would fit the field.
    #[error("IP length field is impossible")]
    IpBadLength,
    /// IPv4 options break their format.
    #[error("IPv4 options are malformed")]
    Ipv4BadOptions,
    /// IPv4 source route option, or IPv6 routing header with segments left: the destination address
    /// is not where the packet goes in the end, so policy cannot be applied to it.
    #[error("packet is source routed")]
    IpSourceRoute,
    /// More IPv6 extension headers than the parser follows.
    #[error("too many IPv6 extension headers")]
    Ipv6TooManyExtensionHeaders,
    /// An IPv6 extension header goes beyond the packet (or the first fragment, RFC 7112).
    #[error("packet ends within an IPv6 extension header")]
    Ipv6ExtensionTruncated,
    /// A hop-by-hop header that does not come first (RFC 8200, 4.1).
    #[error("IPv6 hop-by-hop options are not the first extension header")]
    Ipv6HopByHopMisplaced,
    /// Two IPv6 fragment headers.
    #[error("packet has two IPv6 fragment headers")]
    Ipv6RepeatedFragment,
    /// A fragment that is not the last one, with a length that is no multiple of 8.
    #[error("IP fragment that is not the last has a length that is no multiple of 8")]
    FragmentBadLength,
    /// A fragment that would make the packet longer than 65535 bytes.
    #[error("IP fragment ends beyond the largest packet")]
    FragmentTooLong,
    /// Shorter than a TCP header.
    #[error("packet ends within the TCP header")]
    TcpTruncated,
    /// TCP data offset below 20 bytes or beyond the packet.
    #[error("TCP data offset is impossible")]
    TcpBadOffset,
    /// Shorter than a UDP header.
    #[error("packet ends within the UDP header")]
    UdpTruncated,
    /// UDP length below 8 bytes or beyond the packet.
    #[error("UDP length is impossible")]
    UdpBadLength,
    /// Shorter than an SCTP common header.
    #[error("packet ends within the SCTP header")]
    SctpTruncated,
    /// Shorter than an ICMP header.
    #[error("packet ends within the ICMP header")]
    IcmpTruncated,
}

impl ParseError {
    /// Every error, for tables of counters.
    pub const ALL: [Self; 19] = [
        Self::EthernetTruncated,
        Self::IpTruncated,
        Self::IpBadVersion,
        Self::IpBadHeaderLength,
        Self::IpBadLength,
        Self::Ipv4BadOptions,
        Self::IpSourceRoute,
        Self::Ipv6TooManyExtensionHeaders,
        Self::Ipv6ExtensionTruncated,
        Self::Ipv6HopByHopMisplaced,
        Self::Ipv6RepeatedFragment,
        Self::FragmentBadLength,
        Self::FragmentTooLong,
        Self::TcpTruncated,
        Self::TcpBadOffset,
        Self::UdpTruncated,
        Self::UdpBadLength,
        Self::SctpTruncated,
        Self::IcmpTruncated,
    ];

    /// Stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::EthernetTruncated => "ethernet-truncated",
            Self::IpTruncated => "ip-truncated",
            Self::IpBadVersion => "ip-bad-version",
            Self::IpBadHeaderLength => "ip-bad-header-length",
            Self::IpBadLength => "ip-bad-length",
            Self::Ipv4BadOptions => "ipv4-bad-options",
            Self::IpSourceRoute => "ip-source-route",
            Self::Ipv6TooManyExtensionHeaders => "ipv6-too-many-extension-headers",
            Self::Ipv6ExtensionTruncated => "ipv6-extension-truncated",
            Self::Ipv6HopByHopMisplaced => "ipv6-hop-by-hop-misplaced",
            Self::Ipv6RepeatedFragment => "ipv6-repeated-fragment-header",
            Self::FragmentBadLength => "fragment-bad-length",
            Self::FragmentTooLong => "fragment-too-long",
            Self::TcpTruncated => "tcp-truncated",
            Self::TcpBadOffset => "tcp-bad-offset",
            Self::UdpTruncated => "udp-truncated",
            Self::UdpBadLength => "udp-bad-length",
            Self::SctpTruncated => "sctp-truncated",
            Self::IcmpTruncated => "icmp-truncated",
        }
    }
}
