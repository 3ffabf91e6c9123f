//! Packets quoted in ICMP errors.

use std::net::IpAddr;

use tollgate_wire::packet::{Quoted, icmp_quoted};

use crate::sample::{L4Sample, Sample, layout_of, tcp_v4, tcp_v6};

/// An ICMP message of this type around `quote`, and the layout's view of it.
fn quoted(is_v4: bool, icmp_type: u8, quote: &[u8]) -> Option<Quoted> {
    let outer = if is_v4 { tcp_v4(quote) } else { tcp_v6(quote) };
    let mut frame = Sample {
        l4: L4Sample::Echo { id: 0, seq: 0 },
        ..outer
    }
    .eth_frame();
    frame[if is_v4 { 34 } else { 54 }] = icmp_type;
    let layout = layout_of(&frame);
    icmp_quoted(&frame, &layout)
}

fn ip_packet(sample: &Sample) -> Vec<u8> {
    sample.eth_frame()[14..].to_vec()
}

#[test]
fn the_types_that_quote() {
    for is_v4 in [true, false] {
        let inner = if is_v4 {
            tcp_v4(b"hello")
        } else {
            tcp_v6(b"hello")
        };
        let expected = Quoted {
            src: if is_v4 {
                [10, 0, 0, 1].into()
            } else {
                "fd00::1".parse::<IpAddr>().unwrap()
            },
            dst: if is_v4 {
                [192, 0, 2, 9].into()
            } else {
                "fd00::2".parse::<IpAddr>().unwrap()
            },
            protocol: 6,
            src_port: 40000,
            dst_port: 443,
        };
        for icmp_type in 0..=255 {
            let quotes = if is_v4 {
                &[3, 4, 5, 11, 12][..]
            } else {
                &[1, 2, 3, 4]
            };
            let expected = quotes.contains(&icmp_type).then_some(expected);
            assert_eq!(
                quoted(is_v4, icmp_type, &ip_packet(&inner)),
                expected,
                "type {icmp_type}"
            );
        }
    }
}

#[test]
fn quotes_are_cut_anywhere() {
    for is_v4 in [true, false] {
        let inner = if is_v4 {
            tcp_v4(b"hello")
        } else {
            tcp_v6(b"hello")
        };
        let packet = ip_packet(&inner);
        let ports_end = if is_v4 { 24 } else { 44 };
        for len in 0..packet.len() {
            let quote = quoted(is_v4, if is_v4 { 3 } else { 1 }, &packet[..len]);
            assert_eq!(quote.is_some(), len >= ports_end, "{len} bytes");
        }
    }
}

#[test]
fn protocols_without_ports_and_fragments() {
    let echo = ip_packet(&Sample {
        l4: L4Sample::Echo { id: 77, seq: 1 },
        ..tcp_v4(b"")
    });
    let quote = quoted(true, 3, &echo).unwrap();
    assert_eq!((quote.protocol, quote.src_port, quote.dst_port), (1, 77, 0));

    let mut gre = echo.clone();
    gre[9] = 47;
    let quote = quoted(true, 3, &gre).unwrap();
    assert_eq!((quote.protocol, quote.src_port, quote.dst_port), (47, 0, 0));

    let mut fragment = ip_packet(&tcp_v4(b"hello"));
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    assert!(
        quoted(true, 11, &fragment).is_some(),
        "a first fragment has the ports"
    );
    fragment[6..8].copy_from_slice(&[0, 1]);
    assert_eq!(quoted(true, 11, &fragment), None);

    let mut wrong_version = ip_packet(&tcp_v4(b"hello"));
    wrong_version[0] = 0x65;
    assert_eq!(quoted(true, 3, &wrong_version), None);
    assert_eq!(quoted(false, 1, &ip_packet(&tcp_v4(b"hello"))), None);
}

#[test]
fn a_tcp_segment_quotes_nothing() {
    let frame = tcp_v4(b"hello").eth_frame();
    assert_eq!(icmp_quoted(&frame, &layout_of(&frame)), None);
}
