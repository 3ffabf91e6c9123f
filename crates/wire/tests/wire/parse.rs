//! Frames written out by hand, and what is read from them.

use std::net::IpAddr;

use tollgate_wire::packet::{Fragment, IcmpHeader, L4, Packet, ParseError, TcpFlags, parse};
use tollgate_wire::tcp_options::TcpOption;

use crate::sample::{layout_of, tcp_v4};

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// An Ethernet frame around `parts`.
fn eth(ethertype: u16, parts: &[&[u8]]) -> Vec<u8> {
    [&MACS[..], &ethertype.to_be_bytes(), &parts.concat()].concat()
}

/// An IPv4 frame; `word` is the flags and fragment offset.
fn v4(protocol: u8, word: u16, options: &[u8], body: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total = (header_len + body.len()) as u16;
    let mut header = vec![0x40 | (header_len / 4) as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(word.to_be_bytes());
    header.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    eth(0x0800, &[&header, options, body])
}

/// An IPv6 frame.
fn v6(next: u8, body: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((body.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    header.extend([1; 16]);
    header.extend([2; 16]);
    eth(0x86dd, &[&header, body])
}

/// A TCP header from port 1000 to port 80 with the given offset byte.
fn tcp(offset: u8) -> Vec<u8> {
    let mut header = vec![0x03, 0xe8, 0, 80, 0, 0, 0, 5, 0, 0, 0, 6, offset, 0x18];
    header.extend([0x01, 0x00, 0, 0, 0, 0]);
    header
}

/// A UDP header from port 1000 to port 53.
fn udp(len: u16) -> Vec<u8> {
    [&[0x03, 0xe8, 0, 53][..], &len.to_be_bytes(), &[0, 0]].concat()
}

fn fragment(offset: u16, more: bool, id: u32, ports: Option<(u16, u16)>) -> L4 {
    L4::Fragment(Fragment {
        offset,
        more,
        id,
        ports,
    })
}

/// A destination options header of 8 bytes.
fn options_header(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

#[test]
fn offsets_of_a_tagged_segment() {
    let frame = eth(
        0x8100,
        &[
            &[0x20, 0x05],
            &v4(6, 0x4000, &[1; 4], &tcp(0x50))[12..],
            b"body",
        ],
    );
    // Bytes after the IP length are padding.
    let layout = layout_of(&frame);
    assert_eq!(layout.eth.vlan, Some(0x2005));
    assert_eq!((layout.eth.ethertype, layout.eth.header_len), (0x0800, 18));
    assert_eq!((layout.ip_offset, layout.l4_offset), (18, 42));
    assert_eq!((layout.payload_offset, layout.end), (62, 62));
    assert_eq!(layout.payload(&frame), b"");
    assert_eq!(layout.src, IpAddr::from([10, 0, 0, 1]));
    let tcp = layout.tcp().unwrap();
    assert_eq!(
        (tcp.src_port, tcp.dst_port, tcp.seq, tcp.ack),
        (1000, 80, 5, 6)
    );
    assert_eq!((tcp.window, tcp.header_len), (256, 20));
    assert_eq!(tcp.flags, TcpFlags::PSH | TcpFlags::ACK);
    assert_eq!(tcp.flags.to_string(), "PSH|ACK");
}

#[test]
fn frames_that_are_not_ip() {
    let cases = [
        ("ARP", eth(0x0806, &[&[0; 28]]), 0x0806, None, 14),
        ("LLC", eth(38, &[&[0x42, 0x42, 3]]), 38, None, 14),
        ("nothing but a header", eth(0x88cc, &[]), 0x88cc, None, 14),
        (
            "tagged ARP",
            eth(0x88a8, &[&[0, 7, 8, 6]]),
            0x0806,
            Some(7),
            18,
        ),
        (
            "two tags",
            eth(0x8100, &[&[0, 7, 0x81, 0, 0, 8, 8, 0]]),
            0x8100,
            Some(7),
            18,
        ),
        (
            "service tag",
            eth(0x88a8, &[&[0, 7, 0x88, 0xa8, 0, 8]]),
            0x88a8,
            Some(7),
            18,
        ),
    ];
    for (name, frame, ethertype, vlan, header_len) in cases {
        let Ok(Packet::NonIp(eth)) = parse(&frame) else {
            panic!("{name}")
        };
        assert_eq!(
            (eth.ethertype, eth.vlan, eth.header_len),
            (ethertype, vlan, header_len)
        );
    }
}

#[test]
fn l4_of_well_formed_packets() {
    let sctp = [&[0x03, 0xe8, 0, 99][..], &[0; 8]].concat();
    let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
    let echo_v6 = [129, 0, 0, 0, 0x12, 0x34, 0, 1];
    let icmp = |icmp_type, code, identifier| {
        L4::Icmp(IcmpHeader {
            icmp_type,
            code,
            identifier,
        })
    };
    let tcp_l4 = layout_of(&v4(6, 0, &[], &tcp(0x50))).l4;
    let udp_l4 = L4::Udp {
        src_port: 1000,
        dst_port: 53,
    };
    let first = |more| [&[17, 0, 0, more][..], &[0, 1, 0, 2], &udp(100)].concat();
    let chain = |last: u8, body: &[u8]| {
        // Hop-by-hop, routing without segments left, authentication, destination options.
        let authentication = [&[60, 4][..], &[0; 22]].concat();
        let headers = [
            &options_header(43)[..],
            &[51, 0, 4, 0, 0, 0, 0, 0],
            &authentication,
        ];
        [&headers.concat()[..], &options_header(last), body].concat()
    };
    // (name, frame, protocol, l4 offset, payload offset, end, l4)
    let cases = [
        ("TCP", v4(6, 0x4000, &[], &tcp(0x50)), 6, 34, 54, 54, tcp_l4),
        (
            "IPv4 options",
            v4(6, 0, &[148, 4, 0, 0], &tcp(0x50)),
            6,
            38,
            58,
            58,
            tcp_l4,
        ),
        (
            "options ended early",
            v4(6, 0, &[1, 0, 9, 9], &tcp(0x50)),
            6,
            38,
            58,
            58,
            tcp_l4,
        ),
        ("IPv6 TCP", v6(6, &tcp(0x50)), 6, 54, 74, 74, tcp_l4),
        ("UDP", v4(17, 0, &[], &udp(8)), 17, 34, 42, 42, udp_l4),
        (
            "UDP surplus",
            v4(17, 0, &[], &[udp(9), vec![1, 2, 3]].concat()),
            17,
            34,
            42,
            43,
            udp_l4,
        ),
        (
            "UDP jumbogram",
            v6(17, &[udp(0), vec![1, 2]].concat()),
            17,
            54,
            62,
            64,
            udp_l4,
        ),
        (
            "SCTP",
            v4(132, 0, &[], &sctp),
            132,
            34,
            46,
            46,
            L4::Sctp {
                src_port: 1000,
                dst_port: 99,
            },
        ),
        (
            "echo",
            v4(1, 0, &[], &echo),
            1,
            34,
            42,
            42,
            icmp(8, 0, Some(0x1234)),
        ),
        (
            "unreachable",
            v4(1, 0, &[], &[3, 1, 0, 0, 0, 0, 0, 0]),
            1,
            34,
            42,
            42,
            icmp(3, 1, None),
        ),
        (
            "IPv6 echo reply",
            v6(58, &echo_v6),
            58,
            54,
            62,
            62,
            icmp(129, 0, Some(0x1234)),
        ),
        ("ICMP in IPv6", v6(1, &echo), 1, 54, 54, 62, L4::Other),
        (
            "ICMPv6 in IPv4",
            v4(58, 0, &[], &echo_v6),
            58,
            34,
            34,
            42,
            L4::Other,
        ),
        ("GRE", v4(47, 0, &[], &[0; 4]), 47, 34, 34, 38, L4::Other),
        ("ESP", v6(50, &[0; 16]), 50, 54, 54, 70, L4::Other),
        ("no next header", v6(59, &[]), 59, 54, 54, 54, L4::Other),
        (
            "extension headers",
            v6(0, &chain(17, &udp(8))),
            17,
            102,
            110,
            110,
            udp_l4,
        ),
        (
            "IPv4 first",
            v4(17, 0x2000, &[], &udp(100)),
            17,
            34,
            34,
            42,
            fragment(0, true, 0x1234, Some((1000, 53))),
        ),
        (
            "IPv4 middle",
            v4(17, 0x2003, &[], &udp(100)),
            17,
            34,
            34,
            42,
            fragment(24, true, 0x1234, None),
        ),
        (
            "IPv4 last",
            v4(6, 3, &[], &[7]),
            6,
            34,
            34,
            35,
            fragment(24, false, 0x1234, None),
        ),
        (
            "IPv4 first without ports",
            v4(6, 0x2000, &[], &[]),
            6,
            34,
            34,
            34,
            fragment(0, true, 0x1234, None),
        ),
        (
            "IPv4 first of GRE",
            v4(47, 0x2000, &[], &[0; 8]),
            47,
            34,
            34,
            42,
            fragment(0, true, 0x1234, None),
        ),
        (
            "IPv6 first",
            v6(44, &first(1)),
            17,
            62,
            62,
            70,
            fragment(0, true, 0x10002, Some((1000, 53))),
        ),
        (
            "IPv6 atomic",
            v6(44, &[17, 0, 0, 0, 0, 0, 0, 1, 3, 232, 0, 53, 0, 8, 0, 0]),
            17,
            62,
            70,
            70,
            udp_l4,
        ),
        (
            "IPv6 last",
            v6(44, &[6, 0, 0, 8, 0, 0, 0, 1, 9]),
            6,
            62,
            62,
            63,
            fragment(8, false, 1, None),
        ),
        (
            "IPv6 last, data like a header",
            v6(44, &[60, 0, 0, 8, 0, 0, 0, 1, 9]),
            60,
            62,
            62,
            63,
            fragment(8, false, 1, None),
        ),
    ];
    for (name, frame, protocol, l4_offset, payload_offset, end, l4) in cases {
        for padding in [0, 30] {
            let padded = [&frame[..], &vec![0; padding]].concat();
            let layout = layout_of(&padded);
            assert_eq!(layout.l4, l4, "{name}");
            let offsets = (
                layout.protocol,
                layout.l4_offset,
                layout.payload_offset,
                layout.end,
            );
            assert_eq!(
                offsets,
                (protocol, l4_offset, payload_offset, end),
                "{name}"
            );
        }
    }
}

/// IPv4 with a changed byte.
fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn malformed_frames() {
    use ParseError as E;
    let plain = || v4(6, 0, &[], &tcp(0x50));
    let plain_v6 = || v6(6, &tcp(0x50));
    let repeated = [
        &[44, 0, 0, 1, 0, 0, 0, 1][..],
        &[17, 0, 0, 1, 0, 0, 0, 1],
        &udp(8),
    ]
    .concat();
    let many: Vec<u8> = (0..9).flat_map(|_| options_header(60)).collect();
    let later_hop_by_hop = [options_header(0), options_header(17)].concat();
    let cases = [
        ("empty", vec![], E::EthernetTruncated),
        ("13 bytes", plain()[..13].to_vec(), E::EthernetTruncated),
        (
            "within a tag",
            eth(0x8100, &[&[0, 7, 8]]),
            E::EthernetTruncated,
        ),
        ("no IPv4 header", eth(0x0800, &[]), E::IpTruncated),
        (
            "within the IPv4 header",
            plain()[..33].to_vec(),
            E::IpTruncated,
        ),
        (
            "shorter than its length",
            plain()[..53].to_vec(),
            E::IpTruncated,
        ),
        (
            "within the IPv6 header",
            plain_v6()[..53].to_vec(),
            E::IpTruncated,
        ),
        (
            "IPv6 shorter than its length",
            plain_v6()[..73].to_vec(),
            E::IpTruncated,
        ),
        (
            "version 6 in IPv4",
            changed(plain(), 14, &[0x65]),
            E::IpBadVersion,
        ),
        (
            "version 4 in IPv6",
            changed(plain_v6(), 14, &[0x45]),
            E::IpBadVersion,
        ),
        (
            "header of 16 bytes",
            changed(plain(), 14, &[0x44]),
            E::IpBadHeaderLength,
        ),
        (
            "header longer than packet",
            changed(plain(), 14, &[0x4f]),
            E::IpBadHeaderLength,
        ),
        (
            "length below header",
            changed(plain(), 16, &[0, 19]),
            E::IpBadHeaderLength,
        ),
        ("length 0", changed(plain(), 16, &[0, 0]), E::IpBadLength),
        (
            "option of length 0",
            v4(6, 0, &[7, 0, 0, 0], &tcp(0x50)),
            E::Ipv4BadOptions,
        ),
        (
            "option of length 1",
            v4(6, 0, &[7, 1, 0, 0], &tcp(0x50)),
            E::Ipv4BadOptions,
        ),
        (
            "option without length",
            v4(6, 0, &[1, 1, 1, 7], &tcp(0x50)),
            E::Ipv4BadOptions,
        ),
        (
            "option beyond header",
            v4(6, 0, &[7, 5, 0, 0], &tcp(0x50)),
            E::Ipv4BadOptions,
        ),
        (
            "loose source route",
            v4(6, 0, &[131, 3, 4, 0], &tcp(0x50)),
            E::IpSourceRoute,
        ),
        (
            "strict source route",
            v4(6, 0, &[1, 137, 3, 4], &tcp(0x50)),
            E::IpSourceRoute,
        ),
        (
            "routing header",
            v6(43, &[6, 0, 0, 1, 0, 0, 0, 0]),
            E::IpSourceRoute,
        ),
        (
            "nine extension headers",
            v6(60, &many),
            E::Ipv6TooManyExtensionHeaders,
        ),
        (
            "within options",
            v6(60, &[6, 1, 0, 0, 0, 0, 0, 0]),
            E::Ipv6ExtensionTruncated,
        ),
        (
            "one byte of options",
            v6(60, &[6]),
            E::Ipv6ExtensionTruncated,
        ),
        (
            "short authentication",
            v6(51, &[6, 0, 0, 0, 0, 0, 0, 0]),
            E::Ipv6ExtensionTruncated,
        ),
        (
            "within a fragment header",
            v6(44, &[6, 0, 0, 1, 0, 0, 0]),
            E::Ipv6ExtensionTruncated,
        ),
        (
            "hop-by-hop later",
            v6(60, &later_hop_by_hop),
            E::Ipv6HopByHopMisplaced,
        ),
        (
            "two fragment headers",
            v6(44, &repeated),
            E::Ipv6RepeatedFragment,
        ),
        (
            "IPv4 fragment of 7 bytes",
            v4(17, 0x2000, &[], &[0; 7]),
            E::FragmentBadLength,
        ),
        (
            "IPv6 fragment of 7 bytes",
            v6(44, &[17, 0, 0, 1, 0, 0, 0, 1, 9]),
            E::FragmentBadLength,
        ),
        (
            "beyond 65535 bytes",
            v4(17, 0x1fff, &[], &[0; 8]),
            E::FragmentTooLong,
        ),
        (
            "TCP of 19 bytes",
            v4(6, 0, &[], &tcp(0x50)[..19]),
            E::TcpTruncated,
        ),
        ("no TCP", v6(6, &[]), E::TcpTruncated),
        ("TCP offset 4", v4(6, 0, &[], &tcp(0x40)), E::TcpBadOffset),
        (
            "TCP offset beyond packet",
            v4(6, 0, &[], &tcp(0x60)),
            E::TcpBadOffset,
        ),
        (
            "UDP of 7 bytes",
            v4(17, 0, &[], &udp(8)[..7]),
            E::UdpTruncated,
        ),
        ("UDP length 7", v4(17, 0, &[], &udp(7)), E::UdpBadLength),
        ("UDP length 0", v4(17, 0, &[], &udp(0)), E::UdpBadLength),
        ("UDP length 9 of 8", v6(17, &udp(9)), E::UdpBadLength),
        (
            "SCTP of 11 bytes",
            v4(132, 0, &[], &[0; 11]),
            E::SctpTruncated,
        ),
        ("ICMP of 7 bytes", v4(1, 0, &[], &[8; 7]), E::IcmpTruncated),
        ("ICMPv6 of 7 bytes", v6(58, &[128; 7]), E::IcmpTruncated),
    ];
    for (name, frame, error) in &cases {
        assert_eq!(parse(frame), Err(*error), "{name}");
    }
    for error in ParseError::ALL {
        assert!(
            cases.iter().any(|case| case.2 == error),
            "no case for {}",
            error.reason()
        );
    }
}

#[test]
fn reasons_are_words_and_unique() {
    let mut reasons: Vec<_> = ParseError::ALL.iter().map(ParseError::reason).collect();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(reasons.iter().all(|reason| reason.chars().all(is_word)));
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), ParseError::ALL.len());
}

#[test]
fn padding_is_not_read_in_place_of_an_l4_header() {
    // An IP packet without payload, padded to Ethernet's minimum with what looks like TCP.
    let frame = [v4(6, 0, &[], &[]), tcp(0x50)].concat();
    assert_eq!(parse(&frame), Err(ParseError::TcpTruncated));
    let frame = [v6(6, &[]), tcp(0x50)].concat();
    assert_eq!(parse(&frame), Err(ParseError::TcpTruncated));
}

#[test]
fn sequence_lengths_and_options() {
    for (flags, expected) in [
        (TcpFlags::ACK, 5),
        (TcpFlags::ACK | TcpFlags::FIN, 6),
        (TcpFlags::SYN, 6),
        (TcpFlags::SYN | TcpFlags::FIN, 7),
    ] {
        let mut frame = tcp_v4(b"hello").eth_frame();
        frame[47] = flags.0;
        let layout = layout_of(&frame);
        assert_eq!(layout.tcp_seq_len(), expected, "{flags}");
        let options: Vec<_> = layout.tcp_options(&frame).collect();
        assert_eq!(options, [Ok(TcpOption::Timestamps { value: 1, echo: 2 })]);
    }
    let layout = layout_of(&v4(17, 0, &[], &udp(8)));
    assert_eq!(layout.tcp_seq_len(), 0);
    assert_eq!(layout.ports(), Some((1000, 53)));
}

#[test]
fn a_layout_stays_small() {
    // It is copied along with every frame: two cache lines and a little.
    assert!(size_of::<tollgate_wire::packet::Layout>() <= 144);
}
