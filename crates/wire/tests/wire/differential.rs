//! Every field against etherparse, on well-formed and on mutated frames.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use tollgate_wire::packet::{L4, Layout, Packet, ParseError, parse};

use crate::robust::mutated;
use crate::sample::{DST_MAC, SRC_MAC, sample};

proptest! {
    #[test]
    fn well_formed_frames_read_the_same(sample in sample()) {
        let frame = sample.eth_frame();
        let Packet::Ip(layout) = parse(&frame).unwrap() else { panic!("not IP") };
        prop_assert_eq!(layout.payload(&frame), &sample.payload[..]);
        prop_assert_eq!(layout.payload_len(), sample.payload.len());
        prop_assert_eq!((layout.eth.src, layout.eth.dst), (SRC_MAC, DST_MAC));
        prop_assert_eq!(layout.eth.vlan, sample.vlan);
        agree(&layout, &frame, &SlicedPacket::from_ethernet(&frame).unwrap());
    }

    #[test]
    fn mutated_frames_read_the_same_or_are_refused(frame in mutated(sample())) {
        if is_zero_length_ipv6(&frame) {
            return Ok(());
        }
        let ours = parse(&frame);
        let theirs = SlicedPacket::from_ethernet(&frame);
        match (ours, theirs) {
            (Ok(Packet::Ip(layout)), Ok(packet)) => agree(&layout, &frame, &packet),
            (Err(error), Ok(_)) => prop_assert!(is_stricter(error), "{error}: {frame:02x?}"),
            (Ok(Packet::Ip(layout)), Err(error)) => {
                prop_assert!(reads_less(&layout), "{error}: {layout:?}")
            }
            (Ok(Packet::NonIp(_)), _) | (Err(_), Err(_)) => {}
        }
    }
}

/// An IPv6 packet that says it has no payload. etherparse takes all of the frame then; Linux takes
/// it at its word (`ip6_rcv_core`), and so does this crate.
fn is_zero_length_ipv6(frame: &[u8]) -> bool {
    let ip = frame.get(12..).and_then(|rest| match rest {
        [0x86, 0xdd, ip @ ..] => Some(ip),
        [0x81, 0, _, _, 0x86, 0xdd, ip @ ..] | [0x88, 0xa8, _, _, 0x86, 0xdd, ip @ ..] => Some(ip),
        _ => None,
    });
    ip.is_some_and(|ip| ip.get(4..6) == Some(&[0, 0]))
}

/// What etherparse lets pass and this crate does not.
fn is_stricter(error: ParseError) -> bool {
    matches!(
        error,
        ParseError::Ipv4BadOptions
            | ParseError::IpSourceRoute
            | ParseError::IpBadLength
            | ParseError::FragmentBadLength
            | ParseError::FragmentTooLong
            | ParseError::Ipv6TooManyExtensionHeaders
            | ParseError::Ipv6RepeatedFragment
            | ParseError::UdpBadLength
    )
}

/// Where etherparse looks further than this crate does and may find an error there: protocols that
/// are `Other` here (IGMP, ICMP of the other family, IPv4 authentication headers), the data of later
/// fragments as extension headers, ICMP timestamps.
fn reads_less(layout: &Layout) -> bool {
    matches!(layout.l4, L4::Other | L4::Fragment(_) | L4::Icmp(_))
}

fn agree(layout: &Layout, frame: &[u8], packet: &SlicedPacket) {
    let payload = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(layout.src, header.source_addr());
            assert_eq!(layout.dst, header.destination_addr());
            assert_eq!(layout.hop_limit, header.ttl());
            if !ip.extensions().is_empty() {
                return;
            }
            ip.payload()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(layout.src, header.source_addr());
            assert_eq!(layout.dst, header.destination_addr());
            assert_eq!(layout.hop_limit, header.hop_limit());
            ip.payload()
        }
        NetSlice::Arp(_) => panic!("ARP read as IP"),
    };
    assert_eq!(matches!(layout.l4, L4::Fragment(_)), payload.fragmented);
    if payload.fragmented {
        return;
    }
    assert_eq!(layout.protocol, payload.ip_number.0);
    let rest = &frame[layout.l4_offset..];
    assert_eq!(&rest[..payload.payload.len()], payload.payload);
    agree_l4(layout, frame, packet);
}

fn agree_l4(layout: &Layout, frame: &[u8], packet: &SlicedPacket) {
    match (layout.l4, packet.transport.as_ref()) {
        (L4::Tcp(ours), Some(TransportSlice::Tcp(theirs))) => {
            assert_eq!(ours.src_port, theirs.source_port());
            assert_eq!(ours.dst_port, theirs.destination_port());
            assert_eq!(ours.seq, theirs.sequence_number());
            assert_eq!(ours.ack, theirs.acknowledgment_number());
            assert_eq!(ours.window, theirs.window_size());
            assert_eq!(ours.urgent, theirs.urgent_pointer());
            assert_eq!(usize::from(ours.header_len), theirs.header_slice().len());
            assert_eq!(ours.flags.0, theirs.header_slice()[13]);
            assert_eq!(
                (ours.flags.fin(), ours.flags.rst()),
                (theirs.fin(), theirs.rst())
            );
            assert_eq!(ours.flags.is_syn(), theirs.syn() && !theirs.ack());
            assert_eq!(ours.flags.is_syn_ack(), theirs.syn() && theirs.ack());
            assert_eq!(layout.payload(frame), theirs.payload());
        }
        (L4::Udp { src_port, dst_port }, Some(TransportSlice::Udp(theirs))) => {
            assert_eq!(
                (src_port, dst_port),
                (theirs.source_port(), theirs.destination_port())
            );
            assert_eq!(layout.payload(frame), theirs.payload());
        }
        (L4::Icmp(ours), Some(TransportSlice::Icmpv4(theirs))) => {
            assert_eq!(
                (ours.icmp_type, ours.code),
                (theirs.type_u8(), theirs.code_u8())
            );
        }
        (L4::Icmp(ours), Some(TransportSlice::Icmpv6(theirs))) => {
            assert_eq!(
                (ours.icmp_type, ours.code),
                (theirs.type_u8(), theirs.code_u8())
            );
        }
        // IGMP, and ICMP of the other family.
        (L4::Other | L4::Sctp { .. }, _) => {}
        (ours, theirs) => panic!("{ours:?} {theirs:?}"),
    }
}
