//! Frames made by etherparse, for the other tests to read, change and compare.

use std::net::IpAddr;

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions,
    PacketBuilder, SingleVlanHeader, TcpHeader, VlanHeader,
};
use proptest::prelude::*;
use tollgate_wire::packet::{Layout, Packet, TcpFlags, parse};
use tollgate_wire::vnet::{NEEDS_CSUM, VNET_HDR_LEN, VnetHdr};

pub const SRC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const DST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A packet as a list of what is in it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub vlan: Option<u16>,
    pub ip: IpSample,
    pub l4: L4Sample,
    pub payload: Vec<u8>,
    /// Bytes after the IP packet.
    pub padding: usize,
}

#[derive(Clone, Debug)]
pub enum IpSample {
    V4 {
        src: [u8; 4],
        dst: [u8; 4],
        option_words: usize,
        id: u16,
        ttl: u8,
    },
    V6 {
        src: [u8; 16],
        dst: [u8; 16],
        extensions: Extensions,
        hop_limit: u8,
    },
}

/// Which IPv6 extension headers there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions {
    pub hop_by_hop: bool,
    pub destination: bool,
    pub routing: bool,
    pub atomic_fragment: bool,
    pub authentication: bool,
}

#[derive(Clone, Debug)]
pub enum L4Sample {
    Tcp {
        ports: (u16, u16),
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        urgent: u16,
        options: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
    },
    Echo {
        id: u16,
        seq: u16,
    },
}

impl Sample {
    /// The Ethernet frame.
    pub fn eth_frame(&self) -> Vec<u8> {
        let base = PacketBuilder::ethernet2(SRC_MAC, DST_MAC);
        let step = match self.vlan {
            None => base.ip(self.ip_headers()),
            Some(tci) => base
                .vlan(VlanHeader::Single(vlan_header(tci)))
                .ip(self.ip_headers()),
        };
        let mut out = Vec::new();
        match &self.l4 {
            L4Sample::Tcp { .. } => step
                .tcp_header(self.tcp_header())
                .write(&mut out, &self.payload),
            L4Sample::Udp { ports } => step.udp(ports.0, ports.1).write(&mut out, &self.payload),
            L4Sample::Echo { id, seq } if self.is_v4() => step
                .icmpv4_echo_request(*id, *seq)
                .write(&mut out, &self.payload),
            L4Sample::Echo { id, seq } => step
                .icmpv6_echo_request(*id, *seq)
                .write(&mut out, &self.payload),
        }
        .unwrap();
        out.resize(out.len() + self.padding, 0xee);
        out
    }

    /// The frame with a virtio-net header, which says nothing.
    pub fn full_frame(&self) -> Vec<u8> {
        [vec![0; VNET_HDR_LEN], self.eth_frame()].concat()
    }

    /// The frame with a partial checksum and the given GSO type and size.
    pub fn partial_frame(&self, gso_type: u8, gso_size: u16) -> Vec<u8> {
        let mut frame = self.full_frame();
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let csum_offset = if layout.tcp().is_some() { 16 } else { 6 };
        let header = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: layout.payload_offset as u16,
            gso_size,
            csum_start: layout.l4_offset as u16,
            csum_offset,
            num_buffers: 0,
        };
        header.write(&mut frame).unwrap();
        let field = VNET_HDR_LEN + layout.l4_offset + usize::from(csum_offset);
        frame[field..field + 2].copy_from_slice(&plain_pseudo_sum(&layout).to_be_bytes());
        frame
    }

    pub fn is_v4(&self) -> bool {
        matches!(self.ip, IpSample::V4 { .. })
    }

    fn ip_headers(&self) -> IpHeaders {
        match &self.ip {
            IpSample::V4 {
                src,
                dst,
                option_words,
                id,
                ttl,
            } => {
                let mut header = Ipv4Header::new(0, *ttl, IpNumber(0), *src, *dst).unwrap();
                header.identification = *id;
                header.options = options(*option_words);
                IpHeaders::Ipv4(header, Default::default())
            }
            IpSample::V6 {
                src,
                dst,
                extensions,
                hop_limit,
            } => {
                let header = Ipv6Header {
                    traffic_class: 0x12,
                    flow_label: Ipv6FlowLabel::try_new(0x34567).unwrap(),
                    payload_length: 0,
                    next_header: IpNumber(0),
                    hop_limit: *hop_limit,
                    source: *src,
                    destination: *dst,
                };
                IpHeaders::Ipv6(header, extensions.headers())
            }
        }
    }

    fn tcp_header(&self) -> TcpHeader {
        let L4Sample::Tcp {
            ports,
            seq,
            ack,
            flags,
            window,
            urgent,
            options,
        } = &self.l4
        else {
            panic!("not TCP: {self:?}")
        };
        let flags = TcpFlags(*flags);
        let mut header = TcpHeader::new(ports.0, ports.1, *seq, *window);
        header.acknowledgment_number = *ack;
        header.urgent_pointer = *urgent;
        header.fin = flags.contains(TcpFlags::FIN);
        header.syn = flags.contains(TcpFlags::SYN);
        header.rst = flags.contains(TcpFlags::RST);
        header.psh = flags.contains(TcpFlags::PSH);
        header.ack = flags.contains(TcpFlags::ACK);
        header.urg = flags.contains(TcpFlags::URG);
        header.ece = flags.contains(TcpFlags::ECE);
        header.cwr = flags.contains(TcpFlags::CWR);
        header.set_options_raw(options).unwrap();
        header
    }
}

impl Extensions {
    fn headers(self) -> Ipv6Extensions {
        let raw = |len| Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; len]).unwrap();
        Ipv6Extensions {
            hop_by_hop_options: self.hop_by_hop.then(|| raw(6)),
            destination_options: self.destination.then(|| raw(14)),
            // All zero: type 0 with no segments left.
            routing: self.routing.then(|| Ipv6RoutingExtensions {
                routing: raw(22),
                final_destination_options: None,
            }),
            fragment: self.atomic_fragment.then(|| {
                Ipv6FragmentHeader::new(IpNumber(0), IpFragOffset::ZERO, false, 0xdead_beef)
            }),
            auth: self
                .authentication
                .then(|| IpAuthHeader::new(IpNumber(0), 7, 9, &[1; 12]).unwrap()),
        }
    }
}

/// An 802.1Q tag.
pub fn vlan_header(tci: u16) -> SingleVlanHeader {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&tci.to_be_bytes());
    SingleVlanHeader::from_bytes(bytes)
}

/// Router alert, then NOPs.
fn options(words: usize) -> Ipv4Options {
    let mut bytes = vec![1; words * 4];
    if let Some(front) = bytes.get_mut(..4) {
        front.copy_from_slice(&[148, 4, 0, 0]);
    }
    Ipv4Options::try_from(&bytes[..]).unwrap()
}

/// The layout of a frame that must be IP.
pub fn layout_of(eth_frame: &[u8]) -> Layout {
    match parse(eth_frame) {
        Ok(Packet::Ip(layout)) => layout,
        other => panic!("{other:?}: {eth_frame:02x?}"),
    }
}

/// The pseudo header's sum, word by word.
pub fn plain_pseudo_sum(layout: &Layout) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let len = (layout.end - layout.l4_offset) as u32;
    let header = [
        octets(layout.src),
        octets(layout.dst),
        len.to_be_bytes().to_vec(),
    ]
    .concat();
    let mut sum = u32::from(layout.protocol);
    for pair in header.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A plain TCP segment over IPv4, to start a table's rows from.
pub fn tcp_v4(payload: &[u8]) -> Sample {
    Sample {
        vlan: None,
        ip: IpSample::V4 {
            src: [10, 0, 0, 1],
            dst: [192, 0, 2, 9],
            option_words: 0,
            id: 7,
            ttl: 63,
        },
        l4: L4Sample::Tcp {
            ports: (40000, 443),
            seq: 0xffff_fff0,
            ack: 0x0102_0304,
            flags: (TcpFlags::ACK | TcpFlags::PSH).0,
            window: 501,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        },
        payload: payload.to_vec(),
        padding: 0,
    }
}

/// The same over IPv6.
pub fn tcp_v6(payload: &[u8]) -> Sample {
    let ip = IpSample::V6 {
        src: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        dst: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        extensions: Extensions::default(),
        hop_limit: 63,
    };
    Sample {
        ip,
        ..tcp_v4(payload)
    }
}

prop_compose! {
    fn extensions()(
        hop_by_hop in any::<bool>(),
        destination in any::<bool>(),
        routing in any::<bool>(),
        atomic_fragment in any::<bool>(),
        authentication in any::<bool>(),
    ) -> Extensions {
        Extensions { hop_by_hop, destination, routing, atomic_fragment, authentication }
    }
}

fn ip() -> impl Strategy<Value = IpSample> {
    prop_oneof![
        (
            any::<[u8; 4]>(),
            any::<[u8; 4]>(),
            0..=10usize,
            any::<u16>(),
            any::<u8>()
        )
            .prop_map(|(src, dst, option_words, id, ttl)| IpSample::V4 {
                src,
                dst,
                option_words,
                id,
                ttl
            }),
        (
            any::<[u8; 16]>(),
            any::<[u8; 16]>(),
            extensions(),
            any::<u8>()
        )
            .prop_map(|(src, dst, extensions, hop_limit)| IpSample::V6 {
                src,
                dst,
                extensions,
                hop_limit
            }),
    ]
}

fn tcp() -> impl Strategy<Value = L4Sample> {
    let numbers = (any::<(u16, u16)>(), any::<u32>(), any::<u32>(), any::<u8>());
    // NOPs, so that any whole number of words is well-formed.
    let rest = (any::<u16>(), any::<u16>(), 0..=10usize);
    (numbers, rest).prop_map(|((ports, seq, ack, flags), (window, urgent, words))| {
        let options = vec![1; words * 4];
        L4Sample::Tcp {
            ports,
            seq,
            ack,
            flags,
            window,
            urgent,
            options,
        }
    })
}

fn l4() -> impl Strategy<Value = L4Sample> {
    prop_oneof![
        3 => tcp(),
        1 => any::<(u16, u16)>().prop_map(|ports| L4Sample::Udp { ports }),
        1 => any::<(u16, u16)>().prop_map(|(id, seq)| L4Sample::Echo { id, seq }),
    ]
}

/// Any packet of the kinds above.
pub fn sample() -> impl Strategy<Value = Sample> {
    with_l4(l4())
}

/// Any TCP segment.
pub fn tcp_sample() -> impl Strategy<Value = Sample> {
    with_l4(tcp())
}

/// Any TCP segment or UDP datagram.
pub fn ported_sample() -> impl Strategy<Value = Sample> {
    let udp = any::<(u16, u16)>().prop_map(|ports| L4Sample::Udp { ports });
    with_l4(prop_oneof![3 => tcp(), 1 => udp])
}

fn with_l4(l4: impl Strategy<Value = L4Sample>) -> impl Strategy<Value = Sample> {
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (any::<Option<u16>>(), ip(), l4, payload, 0..20usize).prop_map(
        |(vlan, ip, l4, payload, padding)| Sample {
            vlan,
            ip,
            l4,
            payload,
            padding,
        },
    )
}
