//! Random HTTP/2 streams: no panic, bounded memory, and the cut never matters.

use proptest::prelude::*;
use tollgate_l7::Http2Event;

use crate::drive::{cut, http2};
use crate::h2_build::*;

fn same_however_cut(stream: &[u8], sizes: &[usize]) {
    let whole = http2(&cut(stream, &[]));
    assert_eq!(http2(&cut(stream, sizes)), whole);
    assert_eq!(http2(&cut(stream, &[1])), whole);
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..60, 0..8)
}

/// Frames of every type on few streams, most with lengths and flags that fit.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![Just(0u32), 1u32..6];
    let random = (
        0u8..18,
        any::<u8>(),
        id,
        prop::collection::vec(any::<u8>(), 0..12),
    )
        .prop_map(|(kind, flags, id, payload)| frame(kind, flags, id, &payload));
    let section = (1u32..8, any::<u8>(), 0usize..3).prop_map(|(id, flags, cut)| {
        let block = get(&[("content-length", "4"), ("a", "b")]);
        let at = block.len() * cut / 2;
        let flags = flags & END_STREAM;
        [
            frame(HEADERS, flags, id, &block[..at]),
            frame(CONTINUATION, END_HEADERS, id, &block[at..]),
        ]
        .concat()
    });
    let data = (1u32..8, any::<bool>())
        .prop_map(|(id, end)| frame(DATA, u8::from(end) | PADDED, id, b"\x01abcd\0"));
    prop_oneof![random, section, data]
}

/// Streams that are valid for long.
fn valid_stream() -> impl Strategy<Value = Vec<u8>> {
    let exchange = (prop::collection::vec(any::<u8>(), 0..40), 0usize..4);
    prop::collection::vec(exchange, 1..8).prop_map(|exchanges| {
        let mut out = start();
        for (i, (body, form)) in exchanges.into_iter().enumerate() {
            let id = 2 * u32::try_from(i).expect("few") + 1;
            let length = body.len().to_string();
            let section = get(&[("content-length", &length), ("user-agent", "x")]);
            let (first, rest) = section.split_at(section.len() / 2);
            out.extend(frame(HEADERS, 0, id, first));
            out.extend(frame(CONTINUATION, END_HEADERS, id, rest));
            out.extend(frame(PING, 0, 0, &[0; 8]));
            let padded = [&[2], body.as_slice(), &[0; 2]].concat();
            match form {
                0 => out.extend(frame(DATA, END_STREAM, id, &body)),
                1 => out.extend(frame(DATA, END_STREAM | PADDED, id, &padded)),
                2 => {
                    out.extend(frame(DATA, 0, id, &body));
                    out.extend(headers(id, END_STREAM, &literal("t", "x")));
                }
                _ => out.extend(frame(RST_STREAM, 0, id, &[0; 4])),
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn valid_streams_pass_however_they_are_cut(stream in valid_stream(), sizes in sizes()) {
        let refused = |(_, event): &(usize, Http2Event)| matches!(event, Http2Event::Refused(_));
        prop_assert!(!http2(&cut(&stream, &[])).iter().any(refused));
        same_however_cut(&stream, &sizes);
    }

    #[test]
    fn changed_streams_give_the_same_events_however_they_are_cut(
        mut stream in valid_stream(), sizes in sizes(), at in any::<usize>(), byte in any::<u8>(),
    ) {
        let at = at % stream.len();
        stream[at] = byte;
        same_however_cut(&stream, &sizes);
    }

    #[test]
    fn frames_give_the_same_events_however_they_are_cut(
        frames in prop::collection::vec(any_frame(), 0..12), sizes in sizes(),
    ) {
        same_however_cut(&stream(&frames), &sizes);
    }

    #[test]
    fn random_blocks_panic_nowhere(
        block in prop::collection::vec(any::<u8>(), 0..200), sizes in sizes(),
    ) {
        let bytes = stream(&[headers(1, 0, &[get(&[]), block.clone()].concat())]);
        same_however_cut(&bytes, &sizes);
        same_however_cut(&stream(&[headers(1, 0, &block)]), &sizes);
        same_however_cut(&block, &sizes);
    }
}
