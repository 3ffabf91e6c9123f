//! Random datagrams: no panic, bounded memory, and a changed packet never makes another hello.

use proptest::prelude::*;
use tollgate_l7::QuicVersion::{V1, V2};
use tollgate_l7::quic::BUFFERED_MAX;
use tollgate_l7::{QuicEvent, QuicReader};

use crate::quic::hello_for;
use crate::quic_build::*;

/// Frames that, strung together, reach every state.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![0]),
        Just(vec![1]),
        Just(vec![2, 5, 0, 1, 1, 0, 1]),
        Just(vec![0x1c, 0, 6, 0]),
        Just(crypto(0, &hello_for("a", 0))),
        Just(crypto(hello_for("a", 0).len(), &hello_for("b", 0))),
        (0usize..400, 0usize..200).prop_map(|(at, len)| {
            let message = [hello_for("a", 0), hello_for("b", 0)].concat();
            let at = at.min(message.len());
            crypto(at, &message[at..message.len().min(at + len)])
        }),
        (0usize..20_000, prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(at, data)| crypto(at, &data)),
        prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let initial = (
        prop::collection::vec(frame(), 0..5),
        0u8..8,
        any::<bool>(),
        0u64..300,
        1usize..5,
        prop::sample::select(vec![0, 100, 1180]),
    )
        .prop_map(|(frames, id, v2, number, number_len, payload_len)| {
            let version = if v2 { V2 } else { V1 };
            let mut packet = Initial::new(&frames.concat()).of(&[id; 8]).version(version);
            packet.number_len = number_len;
            packet.number(number).payload_len(payload_len.max(4)).seal()
        });
    prop_oneof![
        6 => initial,
        1 => (0u8..4, 0u8..8).prop_map(|(kind, id)| long(V1, kind, &[id; 8])),
        1 => Just(short()),
        1 => prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn random_datagrams_are_survived(
        datagrams in prop::collection::vec(
            (prop::collection::vec(packet(), 1..3), any::<prop::sample::Index>(), any::<u8>()),
            1..20,
        ),
        change in 0u8..4,
    ) {
        let mut reader = QuicReader::new();
        for (packets, at, byte) in &datagrams {
            let mut datagram = packets.concat();
            if change == 0 && !datagram.is_empty() {
                let at = at.index(datagram.len());
                datagram[at] ^= byte;
            }
            reader.push(&datagram);
            prop_assert!(reader.buffered() <= BUFFERED_MAX);
        }
    }

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100), v2: bool) {
        let mut reader = QuicReader::new();
        prop_assert!(!matches!(reader.push(&bytes), QuicEvent::Hello(..)));
        let version = version_bytes(if v2 { V2 } else { V1 });
        let long = [&[0xc0][..], &version, &bytes].concat();
        prop_assert!(!matches!(reader.push(&long), QuicEvent::Hello(..)));
    }

    /// One changed byte in a packet: the hello is the same as before, or there is none.
    #[test]
    fn a_changed_byte_makes_no_other_hello(at: prop::sample::Index, change in 1u8..) {
        let good = Initial::new(&crypto(0, &hello_for("a", 0))).seal();
        let QuicEvent::Hello(want, _) = QuicReader::new().push(&good) else {
            panic!("no hello")
        };
        let mut bad = good;
        let at = at.index(bad.len());
        bad[at] ^= change;
        if let QuicEvent::Hello(hello, _) = QuicReader::new().push(&bad) {
            prop_assert_eq!(hello, want);
        }
    }
}
