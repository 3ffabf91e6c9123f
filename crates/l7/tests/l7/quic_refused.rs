use tollgate_l7::QuicVersion::{V1, V2};
use tollgate_l7::quic::{BUFFERED_MAX, CONNECTIONS_MAX, CRYPTO_MAX, FORGOTTEN_MAX, GIVEN_UP_MAX};
use tollgate_l7::refusal::*;
use tollgate_l7::{QuicEvent, QuicReader, Refusal};

use crate::quic::{handed, hello_for, judged};
use crate::quic_build::*;
use crate::tls_build::{hello, sni, sni_of};

/// An Initial packet with a whole hello.
fn first() -> Initial {
    Initial::new(&crypto(0, &hello_for("a.example", 0)))
}

fn with(packet: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    let mut packet = packet;
    packet[at] = byte;
    packet
}

fn with_frames(frames: &[u8]) -> Vec<u8> {
    Initial::new(&[frames, &crypto(0, &hello_for("a", 0))].concat()).seal()
}

/// Datagrams that are refused at the start of a flow.
fn datagrams() -> Vec<(Refusal, Vec<u8>)> {
    let good = first().seal();
    let last = good.len() - 1;
    let mut clear_bit = first();
    clear_bit.extra_bits = 0x08;
    let bits_set = clear_bit.seal();
    let mut no_fixed_bit = short();
    no_fixed_bit[0] = 0;
    let mut empty = Initial::new(&[]).payload_len(0);
    empty.number_len = 4;
    let mut long_scid = first();
    long_scid.scid = vec![1; 21];
    vec![
        (QUIC_MALFORMED, vec![]),
        (QUIC_MALFORMED, good[..40].to_vec()),
        (QUIC_MALFORMED, good[..last].to_vec()),
        (QUIC_MALFORMED, vec![0xc0, 0, 0, 0, 1, 8, 1]),
        // A token and a packet that reach beyond the end.
        (QUIC_MALFORMED, with(good.clone(), 18, 0x7f)),
        (QUIC_MALFORMED, with(good.clone(), 19, 0xff)),
        (QUIC_MALFORMED, bits_set),
        (QUIC_MALFORMED, empty.seal_padded()),
        (QUIC_MALFORMED, with_frames(&[2, 0, 0, 0x7f, 0xff])),
        (
            QUIC_MALFORMED,
            Initial::new(&[6, 0]).payload_len(2).seal_padded(),
        ),
        (QUIC_FIXED_BIT, no_fixed_bit),
        (QUIC_FIXED_BIT, with(good.clone(), 0, good[0] ^ 0x40)),
        (QUIC_UNKNOWN_VERSION, with(good.clone(), 4, 2)),
        (QUIC_UNKNOWN_VERSION, with(good.clone(), 1, 0xff)),
        (QUIC_UNKNOWN_VERSION, [&[0xca; 5][..], &good[5..]].concat()),
        (QUIC_VERSION_NEGOTIATION, with(good.clone(), 4, 0)),
        (QUIC_RETRY_PACKET, long(V1, RETRY, &DCID)),
        (QUIC_RETRY_PACKET, long(V2, RETRY, &DCID)),
        (QUIC_CONNECTION_ID, first().of(&[1; 7]).seal()),
        (QUIC_CONNECTION_ID, first().of(&[1; 21]).seal()),
        (QUIC_CONNECTION_ID, first().of(&[]).seal()),
        (QUIC_CONNECTION_ID, long_scid.seal()),
        (QUIC_DATAGRAM_TOO_SMALL, first().payload_len(600).seal()),
        (
            QUIC_TOO_MANY_PACKETS,
            first().payload_len(400).seal().repeat(9),
        ),
        (
            QUIC_COALESCED,
            [first().seal(), first().of(&[9; 8]).seal()].concat(),
        ),
        (
            QUIC_COALESCED,
            [good.clone(), long(V1, ZERO_RTT, &[9; 8])].concat(),
        ),
        (QUIC_UNDECRYPTABLE, with(good.clone(), last, !good[last])),
        (QUIC_UNDECRYPTABLE, with(good.clone(), 100, !good[100])),
        (QUIC_UNDECRYPTABLE, with(good.clone(), 7, !good[7])),
        (
            QUIC_UNDECRYPTABLE,
            [&good[..], &good[..19], &[21], &[0xa5; 21]].concat(),
        ),
        // STREAM, HANDSHAKE_DONE, the application's CONNECTION_CLOSE, NEW_TOKEN, and PING in a
        // longer form than needed.
        (QUIC_FRAME_FORBIDDEN, with_frames(&[8, 0, 0])),
        (QUIC_FRAME_FORBIDDEN, with_frames(&[0x1e])),
        (QUIC_FRAME_FORBIDDEN, with_frames(&[0x1d, 0, 0])),
        (QUIC_FRAME_FORBIDDEN, with_frames(&[7, 1, 1])),
        (QUIC_FRAME_FORBIDDEN, with_frames(&[0x40, 1])),
        (
            QUIC_CRYPTO_CONFLICT,
            with_frames(&crypto(10, &[1, 2, 3, 4])),
        ),
        (
            QUIC_CRYPTO_AFTER_HELLO,
            with_frames(&crypto(hello_for("a", 0).len(), &[1])),
        ),
        (
            QUIC_HELLO_TOO_LARGE,
            Initial::new(&crypto(CRYPTO_MAX, &[1])).seal(),
        ),
        (
            QUIC_HELLO_TOO_LARGE,
            Initial::new(&[&[6][..], &varint((1 << 62) - 1), &[1, 1]].concat()).seal(),
        ),
        (
            QUIC_HELLO_TOO_LARGE,
            Initial::new(&crypto(0, &[1, 0, 0x40, 0])).seal(),
        ),
        (
            QUIC_NOT_CLIENT_HELLO,
            Initial::new(&crypto(0, &[2, 0, 0, 9])).seal(),
        ),
        (
            TLS_SNI_INVALID,
            Initial::new(&crypto(0, &hello(&sni(b"a b")))).seal(),
        ),
        (
            TLS_SNI_COUNT,
            Initial::new(&crypto(0, &hello(&sni_of(0, &[b"a", b"b"])))).seal(),
        ),
    ]
}

#[test]
fn datagrams_are_refused_for_their_reason() {
    for (at, (why, datagram)) in datagrams().iter().enumerate() {
        let mut reader = QuicReader::new();
        // A repetition changes nothing.
        for _ in 0..2 {
            assert_eq!(
                reader.push(datagram),
                QuicEvent::Refused(*why),
                "number {at}"
            );
        }
    }
}

#[test]
fn a_refused_datagram_does_not_end_the_flow() {
    for (at, (_, datagram)) in datagrams().iter().enumerate() {
        let mut reader = QuicReader::new();
        reader.push(datagram);
        let other = first().of(&[0x55; 8]).seal();
        assert_eq!(handed(reader.push(&other)).0, "a.example", "number {at}");
    }
}

#[test]
fn the_bytes_that_were_judged_cannot_be_changed() {
    let message = hello_for("a.example", 0);
    for at in [0, 5, 60, message.len() - 1] {
        let mut reader = judged();
        let other = Initial::new(&crypto(at, &[!message[at]])).number(1);
        assert_eq!(
            reader.push(&other.seal()),
            QuicEvent::Refused(QUIC_CRYPTO_CONFLICT)
        );
        let other = Initial::new(&crypto(at, &message[at..])).number(2);
        assert_eq!(reader.push(&other.seal()), QuicEvent::Known);
    }
}

#[test]
fn no_third_hello() {
    let mut reader = judged();
    let message = hello_for("a.example", 0);
    let second = Initial::new(&crypto(message.len(), &message)).number(1);
    assert_eq!(handed(reader.push(&second.seal())).0, "a.example");
    let third = Initial::new(&crypto(2 * message.len(), &message)).number(2);
    assert_eq!(
        reader.push(&third.seal()),
        QuicEvent::Refused(QUIC_CRYPTO_AFTER_HELLO)
    );
}

#[test]
fn a_denied_hello_stays_denied() {
    let mut reader = judged();
    let bad = Initial::new(&crypto(0, &hello_for("bad.example", 0))).of(&[9; 8]);
    assert_eq!(handed(reader.push(&bad.seal())).0, "bad.example");
    reader.deny();
    let denied = QuicEvent::Refused(QUIC_CONNECTION_DENIED);
    assert_eq!(reader.push(&bad.seal()), denied);
    assert_eq!(reader.push(&bad.number(1).seal()), denied);
    assert_eq!(reader.push(&long(V1, ZERO_RTT, &[9; 8])), denied);
    // The other connection goes on.
    assert_eq!(reader.push(&first().number(1).seal()), QuicEvent::Known);
    assert_eq!(reader.push(&short()), QuicEvent::Known);
    // With no other connection nothing else is known.
    let mut reader = judged();
    reader.deny();
    assert_eq!(reader.push(&short()), QuicEvent::Early);
}

#[test]
fn a_packet_that_completes_nothing_in_a_small_datagram_is_tolerated_only_later() {
    let message = hello_for("a", 0);
    let mut reader = QuicReader::new();
    let start = Initial::new(&crypto(0, &message[..50]));
    assert_eq!(reader.push(&start.seal()), QuicEvent::NeedMore);
    let end = Initial::new(&crypto(50, &message[50..])).number(1);
    let small = end.clone().payload_len(200).seal();
    assert_eq!(
        reader.push(&small),
        QuicEvent::Refused(QUIC_DATAGRAM_TOO_SMALL)
    );
    assert_eq!(handed(reader.push(&end.seal())).0, "a");
    assert_eq!(reader.push(&small), QuicEvent::Known);
}

/// A server that has seen fewer packets reads another number, and with it other bytes.
#[test]
fn packet_numbers_are_not_cut() {
    let refused = QuicEvent::Refused(QUIC_PACKET_NUMBER);
    let mut reader = judged();
    let mut packet = first().number(70_000);
    packet.number_len = 3;
    assert_eq!(reader.push(&packet.seal()), QuicEvent::Known);
    packet.number_len = 2;
    assert_eq!(reader.push(&packet.clone().number(70_001).seal()), refused);
    packet.number_len = 1;
    assert_eq!(reader.push(&packet.clone().number(70_002).seal()), refused);
    packet.number_len = 4;
    assert_eq!(reader.push(&packet.number(70_003).seal()), QuicEvent::Known);
}

#[test]
fn two_connections_cannot_share_a_datagram_under_one_id() {
    let mut reader = judged();
    // Both packets name the new connection; one is sealed with the old one's keys.
    let new = first().of(&[9; 8]);
    let mut old = Initial::new(&[1]).number(1);
    old.dcid = vec![9; 8];
    let datagram = [old.seal(), new.seal()].concat();
    assert_eq!(reader.push(&datagram), QuicEvent::Refused(QUIC_COALESCED));
}

#[test]
fn a_connection_that_made_room_does_not_come_back() {
    let mut reader = judged();
    for id in 1..=CONNECTIONS_MAX {
        let id = [u8::try_from(id).unwrap_or_default(); 8];
        handed(reader.push(&first().of(&id).seal()));
    }
    assert_eq!(
        reader.push(&first().number(1).seal()),
        QuicEvent::Refused(QUIC_CONNECTION_FORGOTTEN)
    );
    // Behind the server's own ID nothing opens its packets.
    let mut ack = Initial::new(&[1]).number(2);
    ack.dcid = vec![0x99; 8];
    assert_eq!(
        reader.push(&ack.seal()),
        QuicEvent::Refused(QUIC_UNDECRYPTABLE)
    );
}

#[test]
fn a_connection_with_half_a_hello_that_makes_room_never_gets_the_rest() {
    let mut reader = QuicReader::new();
    let message = hello_for("a", 0);
    let id = |number: usize| [u8::try_from(number + 1).unwrap_or_default(); 8];
    let start = |number| {
        Initial::new(&crypto(0, &message[..50]))
            .of(&id(number))
            .seal()
    };
    let end = |number| {
        Initial::new(&crypto(50, &message[50..]))
            .of(&id(number))
            .number(1)
    };
    for number in 0..CONNECTIONS_MAX {
        assert_eq!(reader.push(&start(number)), QuicEvent::NeedMore);
    }
    assert_eq!(handed(reader.push(&first().seal())).0, "a.example");
    // The oldest had to go. Neither under its own ID nor under the server's does it go on.
    let forgotten = QuicEvent::Refused(QUIC_CONNECTION_FORGOTTEN);
    assert_eq!(reader.push(&start(0)), forgotten);
    assert_eq!(reader.push(&end(0).seal()), forgotten);
    let mut moved = end(0);
    moved.dcid = vec![0x99; 8];
    assert_eq!(reader.push(&moved.seal()), forgotten);
    let early = [&long(V1, 1, &id(0))[..], &[20], &[7; 20]].concat();
    assert_eq!(reader.push(&early), forgotten);
    // The others do.
    assert_eq!(handed(reader.push(&end(2).seal())).0, "a");
}

/// A packet with a high number that never arrives makes a short one ambiguous to whoever saw it, and not
/// to the server.
#[test]
fn a_lost_packet_does_not_bring_a_given_up_connection_back() {
    let mut reader = QuicReader::new();
    let message = hello_for("a", 0);
    let start = |id: u8| Initial::new(&crypto(0, &message[..50])).of(&[id; 8]);
    assert_eq!(reader.push(&start(1).seal()), QuicEvent::NeedMore);
    assert_eq!(
        reader.push(&start(1).number(200).seal()),
        QuicEvent::NeedMore
    );
    for id in 2..6 {
        assert_eq!(reader.push(&start(id).seal()), QuicEvent::NeedMore);
    }
    let end = || {
        Initial::new(&crypto(50, &message[50..]))
            .number(1)
            .of(&[1; 8])
    };
    let mut moved = end();
    moved.dcid = vec![0x99; 8];
    for mut packet in [end(), moved] {
        packet.number_len = 1;
        assert_eq!(
            reader.push(&packet.seal()),
            QuicEvent::Refused(QUIC_CONNECTION_FORGOTTEN)
        );
    }
}

#[test]
fn connections_that_were_given_up_are_bounded() {
    let mut reader = QuicReader::new();
    let message = hello_for("a", 0);
    for number in 0..GIVEN_UP_MAX + CONNECTIONS_MAX + 1 {
        let id = [u8::try_from(number + 1).unwrap_or_default(); 8];
        let start = Initial::new(&crypto(0, &message[..50])).of(&id);
        let expected = match number < GIVEN_UP_MAX + CONNECTIONS_MAX {
            true => QuicEvent::NeedMore,
            false => QuicEvent::Refused(QUIC_TOO_MANY_CONNECTIONS),
        };
        assert_eq!(reader.push(&start.seal()), expected, "{number}");
        assert!(reader.buffered() <= BUFFERED_MAX);
    }
    let end = Initial::new(&crypto(50, &message[50..])).number(1);
    let last = u8::try_from(GIVEN_UP_MAX + CONNECTIONS_MAX).unwrap_or_default();
    let end = end.of(&[last; 8]).seal();
    assert_eq!(
        handed(reader.push(&end)).0,
        "a",
        "those that are held go on"
    );
}

#[test]
fn connections_and_memory_of_a_flow_are_bounded() {
    let mut reader = QuicReader::new();
    let id = |number: usize| (number as u64 + 1).to_be_bytes();
    let filler = vec![1; 1000];
    for number in 0..FORGOTTEN_MAX + CONNECTIONS_MAX {
        handed(reader.push(&first().of(&id(number)).seal()));
    }
    assert_eq!(
        reader.push(&first().seal()),
        QuicEvent::Refused(QUIC_TOO_MANY_CONNECTIONS)
    );
    // The connections that are there fill their streams to the end.
    for number in FORGOTTEN_MAX..FORGOTTEN_MAX + CONNECTIONS_MAX {
        for at in (300..CRYPTO_MAX).step_by(filler.len()) {
            let piece = &filler[..filler.len().min(CRYPTO_MAX - at)];
            let packet = Initial::new(&crypto(at, piece))
                .of(&id(number))
                .number(at as u64);
            reader.push(&packet.seal());
            assert!(reader.buffered() <= BUFFERED_MAX);
        }
    }
    assert!(
        reader.buffered() > CONNECTIONS_MAX * CRYPTO_MAX,
        "{}",
        reader.buffered()
    );
    const { assert!(BUFFERED_MAX < 128 * 1024) };
}

#[test]
fn every_quic_reason_is_tested() {
    let elsewhere = [
        QUIC_CONNECTION_DENIED,
        QUIC_CONNECTION_FORGOTTEN,
        QUIC_TOO_MANY_CONNECTIONS,
        QUIC_AMBIGUOUS,
        QUIC_PACKET_NUMBER,
    ];
    let tested: Vec<_> = datagrams()
        .into_iter()
        .map(|(refusal, _)| refusal)
        .collect();
    for refusal in ALL.iter().filter(|r| r.reason.starts_with("quic-")) {
        assert!(
            tested.contains(refusal) || elsewhere.contains(refusal),
            "{}",
            refusal.reason
        );
    }
}
