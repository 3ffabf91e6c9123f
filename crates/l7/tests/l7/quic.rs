use proptest::prelude::*;
use tollgate_l7::QuicVersion::{V1, V2};
use tollgate_l7::quic::CONNECTIONS_MAX;
use tollgate_l7::{QuicEvent, QuicReader, QuicVersion, is_long_header};

use crate::quic_build::*;
use crate::tls_build::{alpn, extension, hello, sni, versions};

/// A hello for this name, as large as `filler` makes it.
pub fn hello_for(name: &str, filler: usize) -> Vec<u8> {
    let extensions = [
        sni(name.as_bytes()),
        alpn(&[b"h3"]),
        versions(&[0x304]),
        extension(51, &vec![0x33; filler]),
    ];
    hello(&extensions.concat())
}

/// The name and version that a datagram hands out.
pub fn handed(event: QuicEvent) -> (String, QuicVersion) {
    match event {
        QuicEvent::Hello(hello, version) => (hello.sni.unwrap_or_default(), version),
        other => panic!("{other:?}"),
    }
}

/// A reader that has handed out the hello of the connection `DCID`.
pub fn judged() -> QuicReader {
    let mut reader = QuicReader::new();
    let first = Initial::new(&crypto(0, &hello_for("a.example", 0))).seal();
    assert_eq!(handed(reader.push(&first)).0, "a.example");
    reader
}

fn rfc_frames() -> Vec<u8> {
    unhex(
        "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868
         04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578
         616d706c652e636f6dff01000100000a00080006001d00170018001000070005
         04616c706e000500050100000000003300260024001d00209370b2c9caa47fba
         baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400
         0d0010000e0403050306030203080408050806002d00020101001c0002400100
         3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000
         75300901100f088394c8f03e51570806048000ffff",
    )
}

/// RFC 9001 appendix A.1 and A.2, RFC 9369 appendix A.1 and A.2.
#[test]
fn the_examples_of_the_rfcs_are_read() {
    struct Vector {
        version: QuicVersion,
        keys: [&'static str; 3],
        header: &'static str,
        start: &'static str,
        end: &'static str,
    }
    let vectors = [
        Vector {
            version: V1,
            keys: [
                "1f369613dd76d5467730efcbe3b1a22d",
                "fa044b2f42a3fd3b46fb255c",
                "9f50449e04a0e810283a1e9933adedd2",
            ],
            header: "c300000001088394c8f03e5157080000449e00000002",
            start: "c000000001088394c8f03e5157080000449e7b9aec34
                    d1b1c98dd7689fb8ec11d242b123dc9b",
            end: "e221af44860018ab0856972e194cd934",
        },
        Vector {
            version: V2,
            keys: [
                "8b1a0bc121284290a29e0971b5cd045d",
                "91f73e2351d8fa91660e909f",
                "45b95e15235d6f45a6b19cbcb0294ba9",
            ],
            header: "d36b3343cf088394c8f03e5157080000449e00000002",
            start: "d76b3343cf088394c8f03e5157080000449ea0c95e82
                    ffe67b6abcdb4298b485dd04de806071",
            end: "a18b2faa745b6fe189cf772a9f84cbfc",
        },
    ];
    for vector in vectors {
        let sealer = Sealer::new(vector.version, &DCID);
        let keys = vector.keys.map(unhex);
        assert_eq!([&sealer.key, &sealer.iv, &sealer.hp], keys.each_ref());
        let mut payload = rfc_frames();
        payload.resize(1162, 0);
        let packet = sealer.seal(&unhex(vector.header), 4, 2, &payload);
        assert_eq!(packet.len(), 1200);
        assert!(packet.starts_with(&unhex(vector.start)));
        assert!(packet.ends_with(&unhex(vector.end)));
        let (name, version) = handed(QuicReader::new().push(&packet));
        assert_eq!((name.as_str(), version), ("example.com", vector.version));
    }
}

#[test]
fn a_hello_in_one_packet_is_handed_out_once() {
    for version in [V1, V2] {
        let mut reader = QuicReader::new();
        let message = hello_for("www.example.com", 0);
        let packet = Initial::new(&crypto(0, &message)).version(version);
        let QuicEvent::Hello(hello, seen) = reader.push(&packet.seal()) else {
            panic!("no hello")
        };
        assert_eq!(hello.sni.as_deref(), Some("www.example.com"));
        assert_eq!((hello.alpn, hello.len), (vec!["h3".into()], message.len()));
        assert_eq!((seen, seen.as_str()), (version, version.as_str()));
        // The same again under the next packet number, as after a loss.
        assert_eq!(reader.push(&packet.number(1).seal()), QuicEvent::Known);
    }
    assert_eq!((V1.as_str(), V2.to_string().as_str()), ("1", "2"));
}

#[test]
fn every_frame_that_initial_packets_may_carry_is_passed_over() {
    let frames: [&[u8]; 6] = [
        &[0, 0],
        &[1],
        // ACK with two ranges behind the first.
        &[2, 0x40, 9, 0, 2, 0, 1, 1, 0, 0],
        // ACK with ECN counts.
        &[3, 5, 0, 0, 5, 1, 0x40, 2, 3],
        &[6, 0, 0],
        &[0x1c, 0, 6, 2, b'n', b'o'],
    ];
    let frames = [&frames.concat()[..], &crypto(0, &hello_for("a", 0))].concat();
    let event = QuicReader::new().push(&Initial::new(&frames).seal());
    assert_eq!(handed(event).0, "a");
}

#[test]
fn tokens_connection_ids_and_packet_numbers_of_every_length() {
    let message = hello_for("a", 0);
    for (id_len, scid_len, token, number, number_len) in [
        (8, 0, 0, 0, 1),
        (20, 20, 300, 77, 1),
        (13, 4, 63, 70_000, 3),
        (9, 1, 64, 0xffff_ffff, 4),
    ] {
        let mut packet = Initial::new(&crypto(0, &message)).of(&vec![7; id_len]);
        packet.scid = vec![8; scid_len];
        packet.token = vec![9; token];
        (packet.number, packet.number_len) = (number, number_len);
        let mut reader = QuicReader::new();
        assert_eq!(handed(reader.push(&packet.seal())).0, "a");
        packet.number += 1;
        packet.number_len = 4;
        if packet.number < 1 << 32 {
            assert_eq!(reader.push(&packet.seal()), QuicEvent::Known);
        }
    }
}

#[test]
fn what_comes_before_a_hello_is_early_and_after_it_known() {
    let others = [
        long(V1, ZERO_RTT, &DCID),
        long(V1, HANDSHAKE, &[4; 5]),
        short(),
    ];
    let mut reader = QuicReader::new();
    for other in &others {
        assert_eq!(reader.push(other), QuicEvent::Early);
    }
    let mut reader = judged();
    for other in &others {
        assert_eq!(reader.push(other), QuicEvent::Known);
    }
    // An acknowledgment is smaller than the first packets, and goes to the server's own ID.
    let mut ack = Initial::new(&[2, 0, 0, 0, 0]).number(1).payload_len(20);
    ack.dcid = vec![4; 5];
    assert_eq!(reader.push(&ack.seal()), QuicEvent::Known);
    // Early data of a connection whose hello is in part there.
    let message = hello_for("b", 0);
    let (start, end) = message.split_at(50);
    let start = Initial::new(&crypto(0, start)).of(&[9; 8]);
    assert_eq!(reader.push(&start.seal()), QuicEvent::NeedMore);
    assert_eq!(reader.push(&long(V1, ZERO_RTT, &[9; 8])), QuicEvent::Early);
    let end = Initial::new(&crypto(50, end)).of(&[9; 8]).number(1);
    assert_eq!(handed(reader.push(&end.seal())).0, "b");
    assert_eq!(reader.push(&long(V1, ZERO_RTT, &[9; 8])), QuicEvent::Known);
}

#[test]
fn packets_may_share_a_datagram() {
    for version in [V1, V2] {
        let message = hello_for("a", 0);
        let (one, two) = message.split_at(30);
        let first = Initial::new(&crypto(0, one))
            .version(version)
            .payload_len(60);
        let second = Initial::new(&crypto(30, two)).version(version).number(1);
        let early = long(version, ZERO_RTT, &DCID);
        let whole = [first.seal(), second.seal(), early.clone()].concat();
        assert_eq!(handed(QuicReader::new().push(&whole)).0, "a");
        // Filled up with zeros outside of any packet.
        let filled = [whole, vec![0; 50]].concat();
        assert_eq!(handed(QuicReader::new().push(&filled)).0, "a");

        let mut reader = QuicReader::new();
        let part = [second.seal(), early].concat();
        assert_eq!(reader.push(&part), QuicEvent::Early);
        assert_eq!(handed(reader.push(&first.payload_len(1180).seal())).0, "a");
    }
    let mut reader = judged();
    let ack = Initial::new(&[2, 0, 0, 0, 0]).number(1).payload_len(20);
    let last = [ack.seal(), long(V1, HANDSHAKE, &DCID), short()].concat();
    assert_eq!(reader.push(&last), QuicEvent::Known);
}

#[test]
fn after_a_retry_the_hello_is_judged_again() {
    let mut reader = judged();
    let mut again = Initial::new(&crypto(0, &hello_for("a.example", 0))).of(&[0x77; 16]);
    again.token = vec![1; 80];
    again.number = 1;
    assert_eq!(handed(reader.push(&again.seal())).0, "a.example");
    assert_eq!(reader.push(&again.number(2).seal()), QuicEvent::Known);
}

#[test]
fn a_hello_after_a_hello_retry_request_is_judged_too() {
    let mut reader = judged();
    let at = hello_for("a.example", 0).len();
    let second = hello_for("b.example", 0);
    let (one, two) = second.split_at(60);
    let end = Initial::new(&crypto(at + 60, two)).number(2);
    assert_eq!(reader.push(&end.seal()), QuicEvent::NeedMore);
    let start = Initial::new(&crypto(at, one)).number(1);
    assert_eq!(handed(reader.push(&start.seal())).0, "b.example");
    assert_eq!(reader.push(&end.number(3).seal()), QuicEvent::Known);
}

#[test]
fn a_client_may_go_over_to_the_version_that_the_server_chose() {
    let mut reader = judged();
    let mut ack = Initial::new(&[2, 0, 0, 0, 0]).version(V2).number(1);
    ack.dcid = vec![4; 8];
    assert_eq!(reader.push(&ack.payload_len(20).seal()), QuicEvent::Known);
    assert_eq!(reader.push(&long(V2, HANDSHAKE, &[4; 8])), QuicEvent::Known);
}

#[test]
fn after_the_hello_the_fixed_bit_does_not_matter() {
    let mut reader = judged();
    let mut packet = short();
    packet[0] ^= 0x40;
    assert_eq!(reader.push(&packet), QuicEvent::Known);
}

#[test]
fn every_connection_of_a_flow_has_its_own_hello() {
    let mut reader = QuicReader::new();
    for round in 0..3 * CONNECTIONS_MAX {
        let name = format!("{round}.example");
        let id = [u8::try_from(round).unwrap_or_default(); 8];
        let first = Initial::new(&crypto(0, &hello_for(&name, 0))).of(&id);
        assert_eq!(handed(reader.push(&first.seal())).0, name);
        assert_eq!(reader.push(&first.number(1).seal()), QuicEvent::Known);
    }
}

#[test]
fn the_connection_used_last_stays() {
    let mut reader = judged();
    for round in 1..=CONNECTIONS_MAX {
        let known = Initial::new(&crypto(0, &hello_for("a.example", 0))).number(round as u64);
        assert_eq!(reader.push(&known.seal()), QuicEvent::Known);
        let id = [u8::try_from(round).unwrap_or_default(); 8];
        let other = Initial::new(&crypto(0, &hello_for("b", 0))).of(&id);
        assert_eq!(handed(reader.push(&other.seal())).0, "b");
    }
}

#[test]
fn long_headers_are_told_from_short_ones() {
    assert!(is_long_header(&long(V1, HANDSHAKE, &DCID)));
    assert!(!is_long_header(&short()) && !is_long_header(&[]));
}

/// The bytes `cuts` apart, in this order, and some of them twice.
fn pieces(message: &[u8], cuts: &[usize], order: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % message.len()).collect();
    places.extend([0, message.len()]);
    places.sort_unstable();
    places.dedup();
    let mut out: Vec<Vec<u8>> = places
        .windows(2)
        .map(|pair| crypto(pair[0], &message[pair[0]..pair[1]]))
        .collect();
    for (at, &other) in order.iter().enumerate() {
        let len = out.len();
        out.swap(at % len, other % len);
    }
    let more = order.first().map_or(0, |first| first % message.len());
    out.insert(
        out.len() / 2,
        crypto(more, &message[more..message.len().min(more + 90)]),
    );
    out
}

proptest! {
    /// Whatever the order of the pieces and however many go into a packet or a datagram: the
    /// hello comes exactly with the datagram that completes it.
    #[test]
    fn a_hello_may_come_in_pieces_in_any_order(
        filler in 0usize..4000,
        cuts in prop::collection::vec(0usize..4000, 0..12),
        order in prop::collection::vec(0usize..100, 0..12),
        per_packet in 1usize..4,
        per_datagram in 1usize..4,
        v2: bool,
    ) {
        let version = if v2 { V2 } else { V1 };
        let message = hello_for("www.example.com", filler);
        let packets: Vec<Vec<u8>> = pieces(&message, &cuts, &order)
            .chunks(per_packet)
            .enumerate()
            .map(|(number, frames)| {
                let packet = Initial::new(&frames.concat()).version(version);
                packet.number(number as u64).seal()
            })
            .collect();
        let mut whole = QuicReader::new();
        let mut single = Vec::new();
        for packet in &packets {
            single.push(whole.push(packet));
        }
        let hellos = |events: &[QuicEvent]| {
            events.iter().filter(|event| matches!(event, QuicEvent::Hello(..))).count()
        };
        prop_assert_eq!(hellos(&single), 1);
        let complete = single.iter().position(|event| matches!(event, QuicEvent::Hello(..)));
        let complete = complete.unwrap_or_default();
        prop_assert!(single[..complete].iter().all(|event| *event == QuicEvent::NeedMore));
        prop_assert!(single[complete + 1..].iter().all(|event| *event == QuicEvent::Known));

        let mut reader = QuicReader::new();
        let coalesced: Vec<QuicEvent> = packets
            .chunks(per_datagram)
            .map(|packets| reader.push(&packets.concat()))
            .collect();
        prop_assert_eq!(hellos(&coalesced), 1);
        prop_assert_eq!(&coalesced[complete / per_datagram], &single[complete]);
    }
}

/// What a client of the capture sent to port 443 (pcap, Ethernet, IPv4 without options).
fn sent(capture: &[u8]) -> Vec<&[u8]> {
    let mut rest = &capture[24..];
    let mut datagrams = Vec::new();
    while let Some((header, tail)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
        let (packet, tail) = tail.split_at(len);
        if packet[36..38] == 443u16.to_be_bytes() {
            datagrams.push(&packet[42..]);
        }
        rest = tail;
    }
    datagrams
}

/// aioquic's client, which speaks both versions and finished its handshake with aioquic's server.
#[test]
fn another_implementations_connections_are_read_in_both_versions() {
    let captures: [(&[u8], QuicVersion); 2] = [
        (include_bytes!("../../../cli/tests/captures/quic.pcap"), V1),
        (
            include_bytes!("../../../cli/tests/captures/quic-v2.pcap"),
            V2,
        ),
    ];
    for (capture, version) in captures {
        let datagrams = sent(capture);
        assert!(datagrams.len() > 2, "a handshake");
        let mut reader = QuicReader::new();
        let events: Vec<_> = datagrams.iter().map(|sent| reader.push(sent)).collect();
        let QuicEvent::Hello(hello, found) = &events[0] else {
            panic!("{events:?}")
        };
        assert_eq!(hello.sni.as_deref(), Some("www.example.com"));
        assert_eq!(*found, version);
        let known = events[1..].iter().all(|event| *event == QuicEvent::Known);
        assert!(known, "{events:?}");
    }
}
