//! Built frames, read by etherparse.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use tollgate_wire::build::{self, BuildError, Datagram, L2, Segment};
use tollgate_wire::packet::{L4, Layout, TcpFlags, icmp_quoted};
use tollgate_wire::vnet::VNET_HDR_LEN;
use tollgate_wire::{ChecksumState, verify};

use crate::sample::{DST_MAC, L4Sample, SRC_MAC, Sample, layout_of, sample, tcp_v4, tcp_v6};

fn l2(vlan: Option<u16>) -> L2 {
    L2 {
        src: SRC_MAC,
        dst: DST_MAC,
        vlan,
    }
}

/// Source and destination of one family.
fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let ports = any::<(u16, u16)>();
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], ports)
        .prop_map(|((a, b), (c, d))| (SocketAddr::new(a, c), SocketAddr::new(b, d)))
}

fn agree_on_ip(packet: &SlicedPacket, src: SocketAddr, dst: SocketAddr, hop_limit: u8) {
    match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(
                SocketAddr::new(header.source_addr().into(), src.port()),
                src
            );
            assert_eq!(
                SocketAddr::new(header.destination_addr().into(), dst.port()),
                dst
            );
            assert_eq!(header.ttl(), hop_limit);
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert!(header.dont_fragment());
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(
                SocketAddr::new(header.source_addr().into(), src.port()),
                src
            );
            assert_eq!(
                SocketAddr::new(header.destination_addr().into(), dst.port()),
                dst
            );
            assert_eq!(header.hop_limit(), hop_limit);
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

proptest! {
    #[test]
    fn tcp(
        (src, dst) in addresses(),
        vlan in any::<Option<u16>>(),
        (seq, ack, window) in any::<(u32, u32, u16)>(),
        (flags, hop_limit) in any::<(u8, u8)>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        mut out in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let flags = TcpFlags(flags);
        let segment = Segment { src, dst, seq, ack, flags, window, payload: &payload, hop_limit };
        build::tcp(&mut out, &l2(vlan), &segment).unwrap();
        prop_assert_eq!(&out[..VNET_HDR_LEN], &[0; VNET_HDR_LEN]);
        let layout = layout_of(&out[VNET_HDR_LEN..]);
        prop_assert_eq!(layout.eth.vlan, vlan);
        let packet = SlicedPacket::from_ethernet(&out[VNET_HDR_LEN..]).unwrap();
        agree_on_ip(&packet, src, dst, hop_limit);
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("not TCP") };
        prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (src.port(), dst.port()));
        prop_assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (seq, ack));
        prop_assert_eq!((tcp.window_size(), tcp.urgent_pointer()), (window, 0));
        prop_assert_eq!(tcp.header_slice()[13], flags.0);
        prop_assert_eq!(tcp.payload(), &payload[..]);
        let check = match (src.ip(), dst.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => tcp.calc_checksum_ipv4(a.octets(), b.octets()),
            (IpAddr::V6(a), IpAddr::V6(b)) => tcp.calc_checksum_ipv6(a.octets(), b.octets()),
            _ => panic!("two families"),
        };
        prop_assert_eq!(tcp.checksum(), check.unwrap());
    }

    #[test]
    fn udp(
        (src, dst) in addresses(),
        vlan in any::<Option<u16>>(),
        hop_limit in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut out = Vec::new();
        let datagram = Datagram { src, dst, payload: &payload, hop_limit };
        build::udp(&mut out, &l2(vlan), &datagram).unwrap();
        let packet = SlicedPacket::from_ethernet(&out[VNET_HDR_LEN..]).unwrap();
        agree_on_ip(&packet, src, dst, hop_limit);
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("not UDP") };
        prop_assert_eq!((udp.source_port(), udp.destination_port()), (src.port(), dst.port()));
        prop_assert_eq!(udp.payload(), &payload[..]);
        let header = udp.to_header();
        let check = match (src.ip(), dst.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                header.calc_checksum_ipv4_raw(a.octets(), b.octets(), &payload)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                header.calc_checksum_ipv6_raw(a.octets(), b.octets(), &payload)
            }
            _ => panic!("two families"),
        };
        prop_assert_eq!(udp.checksum(), check.unwrap());
        prop_assert_eq!(verify(&out), ChecksumState::Good);
    }

    #[test]
    fn icmp(sample in sample(), extra in 0..2000usize, vlan in any::<Option<u16>>()) {
        let mut sample = sample;
        sample.payload.resize(sample.payload.len() + extra, 3);
        let frame = sample.eth_frame();
        let layout = layout_of(&frame);
        let mut out = Vec::new();
        let back = L2::back(&layout.eth).with_vlan(vlan);
        let from = layout.dst;
        if build::icmp_admin_prohibited(&mut out, &back, &frame, &layout, from).is_err() {
            prop_assert!(has_group_address(&layout));
            return Ok(());
        }
        prop_assert_eq!(verify(&out), ChecksumState::Good);
        let packet = SlicedPacket::from_ethernet(&out[VNET_HDR_LEN..]).unwrap();
        let (limit, kind) = match &packet.transport {
            Some(TransportSlice::Icmpv4(icmp)) => (576, (icmp.type_u8(), icmp.code_u8())),
            Some(TransportSlice::Icmpv6(icmp)) => (1280, (icmp.type_u8(), icmp.code_u8())),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(kind, if sample.is_v4() { (3, 13) } else { (1, 1) });
        let answer = layout_of(&out[VNET_HDR_LEN..]);
        prop_assert_eq!((answer.src, answer.dst), (layout.dst, layout.src));
        prop_assert_eq!((answer.eth.src, answer.eth.dst), (DST_MAC, SRC_MAC));
        prop_assert_eq!(answer.eth.vlan, vlan);
        let original = &frame[layout.ip_offset..layout.end];
        let quote = answer.payload(&out[VNET_HDR_LEN..]);
        let room = limit - (answer.payload_offset - answer.ip_offset);
        prop_assert_eq!(quote, &original[..original.len().min(room)]);
        let quoted = icmp_quoted(&out[VNET_HDR_LEN..], &answer).unwrap();
        prop_assert_eq!((quoted.src, quoted.dst), (layout.src, layout.dst));
        prop_assert_eq!(quoted.protocol, layout.protocol);
        let ports = match layout.l4 {
            L4::Icmp(icmp) => (icmp.identifier.unwrap(), 0),
            _ => layout.ports().unwrap(),
        };
        prop_assert_eq!((quoted.src_port, quoted.dst_port), ports);
    }

    #[test]
    fn resets(sample in crate::sample::tcp_sample()) {
        let frame = sample.eth_frame();
        let layout = layout_of(&frame);
        let tcp = *layout.tcp().unwrap();
        let mut out = Vec::new();
        let outcome = build::rst_reply(&mut out, &L2::back(&layout.eth), &layout);
        if tcp.flags.rst() {
            prop_assert_eq!(outcome, Err(BuildError::NotAnswerable));
        } else {
            prop_assert_eq!(verify(&out), ChecksumState::Good);
            let answer = layout_of(&out[VNET_HDR_LEN..]);
            let rst = answer.tcp().unwrap();
            prop_assert_eq!((answer.src, answer.dst), (layout.dst, layout.src));
            prop_assert_eq!((rst.src_port, rst.dst_port), (tcp.dst_port, tcp.src_port));
            prop_assert!(rst.flags.rst());
            prop_assert_eq!(rst.flags.ack(), !tcp.flags.ack());
            let end = tcp.seq.wrapping_add(layout.tcp_seq_len());
            let numbers = if tcp.flags.ack() { (tcp.ack, 0) } else { (0, end) };
            prop_assert_eq!((rst.seq, rst.ack), numbers);
        }
        build::rst_instead(&mut out, &L2::along(&layout.eth), &layout).unwrap();
        prop_assert_eq!(verify(&out), ChecksumState::Good);
        let instead = layout_of(&out[VNET_HDR_LEN..]);
        let rst = instead.tcp().unwrap();
        prop_assert_eq!((instead.src, instead.dst), (layout.src, layout.dst));
        prop_assert_eq!((rst.seq, rst.ack), (tcp.seq, tcp.ack));
        prop_assert!(rst.flags.rst());
    }
}

fn has_group_address(layout: &Layout) -> bool {
    let is_group = |ip: IpAddr| {
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        ip.is_multicast() || ip.is_unspecified() || is_broadcast
    };
    is_group(layout.src) || is_group(layout.dst)
}

#[test]
fn what_cannot_be_built() {
    let v4: SocketAddr = "192.0.2.1:80".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
    let big = vec![0; 65_536];
    let cases = [
        ("two families", v4, v6, 0, Err(BuildError::FamilyMismatch)),
        ("two families", v6, v4, 0, Err(BuildError::FamilyMismatch)),
        ("IPv4 at its limit", v4, v4, 65_495, Ok(())),
        (
            "IPv4 beyond",
            v4,
            v4,
            65_496,
            Err(BuildError::PayloadTooLong { len: 65_496 }),
        ),
        ("IPv6 at its limit", v6, v6, 65_515, Ok(())),
        (
            "IPv6 beyond",
            v6,
            v6,
            65_516,
            Err(BuildError::PayloadTooLong { len: 65_516 }),
        ),
        (
            "far beyond",
            v6,
            v6,
            65_536,
            Err(BuildError::PayloadTooLong { len: 65_536 }),
        ),
    ];
    for (name, src, dst, len, expected) in cases {
        let mut out = vec![1, 2, 3];
        let payload = &big[..len];
        let flags = TcpFlags::ACK;
        let segment = Segment {
            src,
            dst,
            seq: 1,
            ack: 2,
            flags,
            window: 3,
            payload,
            hop_limit: 64,
        };
        assert_eq!(
            build::tcp(&mut out, &l2(None), &segment),
            expected,
            "{name}"
        );
        if expected.is_ok() {
            assert_eq!(verify(&out), ChecksumState::Good, "{name}");
        } else {
            assert!(out.is_empty(), "{name}");
        }
    }
}

#[test]
fn icmp_errors_are_not_answered_with_errors() {
    let from: IpAddr = "192.0.2.254".parse().unwrap();
    let mut out = Vec::new();
    let plain = tcp_v4(b"hello").eth_frame();
    let layout = layout_of(&plain);
    let back = L2::back(&layout.eth);
    build::icmp_admin_prohibited(&mut out, &back, &plain, &layout, from).unwrap();

    let error = out[VNET_HDR_LEN..].to_vec();
    let mut fragment = plain.clone();
    fragment[20..22].copy_from_slice(&[0, 1]);
    let mut to_all = plain.clone();
    to_all[0] = 1;
    let mut from_group = plain.clone();
    from_group[26] = 224;
    let mut from_none = plain.clone();
    from_none[26..30].copy_from_slice(&[0; 4]);
    let mut redirect = {
        let l4 = L4Sample::Echo { id: 1, seq: 1 };
        Sample { l4, ..tcp_v6(b"") }.eth_frame()
    };
    redirect[54] = 137;
    let cases = [
        ("an ICMP error", error),
        ("a later fragment", fragment),
        ("to a group on the link", to_all),
        ("from a group", from_group),
        ("from nobody", from_none),
        ("an ICMPv6 redirect", redirect),
    ];
    for (name, frame) in cases {
        let layout = layout_of(&frame);
        let from = layout.dst;
        let outcome = build::icmp_admin_prohibited(&mut out, &back, &frame, &layout, from);
        assert_eq!(outcome, Err(BuildError::NotAnswerable), "{name}");
        assert!(out.is_empty(), "{name}");
    }
    let v6 = "2001:db8::1".parse().unwrap();
    let outcome = build::icmp_admin_prohibited(&mut out, &back, &plain, &layout, v6);
    assert_eq!(outcome, Err(BuildError::FamilyMismatch));
    let outcome = build::icmp_admin_prohibited(&mut out, &back, &plain[..30], &layout, from);
    assert_eq!(outcome, Err(BuildError::LayoutMismatch));
}

#[test]
fn only_tcp_is_reset() {
    let udp = Sample {
        l4: L4Sample::Udp { ports: (1, 2) },
        ..tcp_v4(b"")
    };
    let layout = layout_of(&udp.eth_frame());
    let back = L2::back(&layout.eth);
    let mut out = vec![1];
    assert_eq!(
        build::rst_reply(&mut out, &back, &layout),
        Err(BuildError::NotAnswerable)
    );
    assert_eq!(
        build::rst_instead(&mut out, &back, &layout),
        Err(BuildError::NotAnswerable)
    );
    assert!(out.is_empty());
}
