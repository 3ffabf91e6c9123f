//! HTTP/2 framing that is refused. Each entry: the last byte is the first one after which the
//! stream is refused, however it is cut.

use tollgate_l7::http2::{
    BLOCK_MAX, CONTINUATIONS_MAX, DATA_FRAME_MAX, EMPTY_CONTINUATIONS_MAX, FLOOD_MAX, FRAME_MAX,
    OPEN_STREAMS_MAX, PREFACE, RESETS_MAX, SETTINGS_MAX,
};
use tollgate_l7::refusal::*;
use tollgate_l7::{Http2Event, Http2Reader, Refusal};

use crate::drive::{http2_from, http2_refusal};
use crate::h2_build::*;
use crate::h2_refused_fields;

/// Refused exactly with the last byte, whole and byte by byte.
pub fn check(entries: Vec<(Refusal, Vec<u8>)>) {
    for (why, bytes) in entries {
        let shown = &bytes[bytes.len().saturating_sub(80)..];
        let expected = Some((bytes.len(), why));
        assert_eq!(http2_refusal(&bytes, &[]), expected, "{shown:02x?}");
        assert_eq!(http2_refusal(&bytes, &[1]), expected, "{shown:02x?}");
        let longer = [bytes.as_slice(), b"xx"].concat();
        assert_eq!(http2_refusal(&longer, &[]), expected, "{shown:02x?}");
        let shorter = &bytes[..bytes.len() - 1];
        assert_eq!(http2_refusal(shorter, &[]), None, "{shown:02x?}");
    }
}

/// A request whose body is to come.
fn post(id: u32) -> Vec<u8> {
    headers(id, 0, &get(&[]))
}

/// A request without a body.
fn whole(id: u32) -> Vec<u8> {
    headers(id, END_STREAM, &get(&[]))
}

fn sized(length: &str) -> Vec<u8> {
    headers(1, 0, &get(&[("content-length", length)]))
}

fn connection() -> Vec<(Refusal, Vec<u8>)> {
    let head = |length, kind, flags, id| stream(&[frame_header(length, kind, flags, id)]);
    let too_large = FRAME_MAX as usize + 1;
    vec![
        (HTTP2_PREFACE, b"G".to_vec()),
        (HTTP2_PREFACE, b"PRI * HTTP/2.0\r\n\r\nSM\r\nx".to_vec()),
        (
            HTTP2_FIRST_FRAME,
            [PREFACE.to_vec(), frame_header(8, PING, 0, 0)].concat(),
        ),
        (
            HTTP2_FIRST_FRAME,
            [PREFACE.to_vec(), frame_header(0, SETTINGS, ACK, 0)].concat(),
        ),
        (HTTP2_FRAME_TOO_LARGE, head(too_large, 0x77, 0, 0)),
        (
            HTTP2_FRAME_TOO_LARGE,
            head(too_large, HEADERS, END_HEADERS, 1),
        ),
        (
            HTTP2_FRAME_TOO_LARGE,
            head(DATA_FRAME_MAX as usize + 1, DATA, 0, 1),
        ),
        (HTTP2_FRAME_LENGTH, head(7, PING, 0, 0)),
        (HTTP2_FRAME_LENGTH, head(5, SETTINGS, 0, 0)),
        (HTTP2_FRAME_LENGTH, head(6, SETTINGS, ACK, 0)),
        (HTTP2_FRAME_LENGTH, head(3, WINDOW_UPDATE, 0, 0)),
        (HTTP2_FRAME_LENGTH, head(5, RST_STREAM, 0, 1)),
        (HTTP2_FRAME_LENGTH, head(4, PRIORITY, 0, 1)),
        (HTTP2_FRAME_LENGTH, head(7, GOAWAY, 0, 0)),
        (HTTP2_FRAME_LENGTH, head(3, PRIORITY_UPDATE, 0, 0)),
        (HTTP2_FRAME_LENGTH, head(0, DATA, PADDED, 1)),
        (
            HTTP2_FRAME_LENGTH,
            head(5, HEADERS, PADDED | HAS_PRIORITY, 1),
        ),
        (
            HTTP2_TOO_MANY_SETTINGS,
            head((SETTINGS_MAX as usize + 1) * 6, SETTINGS, 0, 0),
        ),
        (HTTP2_STREAM_ID, head(0, SETTINGS, 0, 1)),
        (HTTP2_STREAM_ID, head(8, PING, 0, 1)),
        (HTTP2_STREAM_ID, head(8, GOAWAY, 0, 1)),
        (HTTP2_STREAM_ID, head(4, PRIORITY_UPDATE, 0, 1)),
        (HTTP2_STREAM_ID, head(5, PRIORITY, 0, 0)),
        (HTTP2_STREAM_ID, head(4, RST_STREAM, 0, 0)),
        (HTTP2_STREAM_ID, head(4, HEADERS, 0, 0)),
        (HTTP2_STREAM_ID, head(4, HEADERS, 0, 2)),
        (HTTP2_STREAM_ID, head(4, DATA, 0, 0)),
        (HTTP2_STREAM_ID, head(4, DATA, 0, 2)),
        (HTTP2_PUSH_PROMISE, head(4, PUSH_PROMISE, 0, 1)),
    ]
}

fn streams() -> Vec<(Refusal, Vec<u8>)> {
    let open = (0..OPEN_STREAMS_MAX).flat_map(|i| post(2 * u32::try_from(i).unwrap_or(0) + 1));
    let more = frame_header(9, HEADERS, END_HEADERS, 2 * OPEN_STREAMS_MAX as u32 + 1);
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    vec![
        (HTTP2_IDLE_STREAM, stream(&[frame_header(4, DATA, 0, 1)])),
        (
            HTTP2_IDLE_STREAM,
            stream(&[post(1), frame_header(4, RST_STREAM, 0, 3)]),
        ),
        (
            HTTP2_IDLE_STREAM,
            stream(&[frame_header(4, WINDOW_UPDATE, 0, 1)]),
        ),
        (
            HTTP2_STREAM_CLOSED,
            stream(&[whole(1), frame_header(4, DATA, 0, 1)]),
        ),
        (
            HTTP2_STREAM_CLOSED,
            stream(&[whole(3), frame_header(4, HEADERS, 0, 1)]),
        ),
        (
            HTTP2_STREAM_CLOSED,
            stream(&[whole(1), frame_header(4, HEADERS, 1, 1)]),
        ),
        (
            HTTP2_STREAM_CLOSED,
            stream(&[post(1), reset, frame_header(4, DATA, 0, 1)]),
        ),
        (HTTP2_TOO_MANY_STREAMS, stream(&[open.collect(), more])),
        (
            HTTP2_TRAILERS_END,
            stream(&[post(1), frame_header(4, HEADERS, END_HEADERS, 1)]),
        ),
        (
            HTTP2_PADDING,
            stream(&[post(1), frame_header(4, DATA, PADDED, 1), vec![4]]),
        ),
        (
            HTTP2_PADDING,
            stream(&[frame_header(9, HEADERS, PADDED, 1), vec![9]]),
        ),
        (
            HTTP2_PADDING,
            stream(&[frame_header(9, HEADERS, PADDED | HAS_PRIORITY, 1), vec![4]]),
        ),
        (
            HTTP2_SELF_DEPENDENCY,
            stream(&[
                frame_header(9, HEADERS, HAS_PRIORITY, 1),
                vec![0, 0, 0, 1, 0],
            ]),
        ),
        (
            HTTP2_LENGTH_MISMATCH,
            stream(&[sized("4"), frame_header(5, DATA, 0, 1)]),
        ),
        (
            HTTP2_LENGTH_MISMATCH,
            stream(&[sized("4"), frame_header(3, DATA, END_STREAM, 1)]),
        ),
        (
            HTTP2_LENGTH_MISMATCH,
            stream(&[
                sized("4"),
                frame_header(5, DATA, PADDED | END_STREAM, 1),
                vec![1],
            ]),
        ),
        (
            HTTP2_LENGTH_MISMATCH,
            stream(&[sized("4"), headers(1, END_STREAM, &[])]),
        ),
        (
            HTTP2_LENGTH_MISMATCH,
            stream(&[headers(1, END_STREAM, &get(&[("content-length", "1")]))]),
        ),
    ]
}

fn blocks() -> Vec<(Refusal, Vec<u8>)> {
    let begun = || stream(&[frame(HEADERS, 0, 1, &[0])]);
    let then = |more: Vec<u8>| [begun(), more].concat();
    let continued = |n: u32, payload: &[u8]| frame(CONTINUATION, 0, 1, payload).repeat(n as usize);
    let last = frame_header(1, CONTINUATION, 0, 1);
    let empty = frame_header(0, CONTINUATION, 0, 1);
    let unfinished = [vec![0], integer(0, 7, 4 * BLOCK_MAX)].concat();
    let halves = vec![
        frame(HEADERS, 0, 1, &unfinished),
        frame(
            CONTINUATION,
            0,
            1,
            &vec![b'a'; BLOCK_MAX - unfinished.len()],
        ),
        frame_header(1, CONTINUATION, 0, 1),
    ];
    vec![
        (
            HTTP2_CONTINUATION_UNEXPECTED,
            stream(&[frame_header(4, CONTINUATION, 0, 1)]),
        ),
        (
            HTTP2_CONTINUATION_UNEXPECTED,
            stream(&[whole(1), frame_header(4, CONTINUATION, 4, 1)]),
        ),
        (
            HTTP2_CONTINUATION_EXPECTED,
            then(frame_header(8, PING, 0, 0)),
        ),
        (
            HTTP2_CONTINUATION_EXPECTED,
            then(frame_header(8, 0x77, 0, 0)),
        ),
        (
            HTTP2_CONTINUATION_EXPECTED,
            then(frame_header(8, CONTINUATION, 0, 3)),
        ),
        (
            HTTP2_CONTINUATION_EXPECTED,
            then(frame_header(8, HEADERS, 0, 1)),
        ),
        (
            HTTP2_TOO_MANY_CONTINUATIONS,
            then([continued(CONTINUATIONS_MAX, b"a"), last].concat()),
        ),
        (
            HTTP2_TOO_MANY_CONTINUATIONS,
            then([continued(EMPTY_CONTINUATIONS_MAX, b""), empty].concat()),
        ),
        (HTTP2_BLOCK_TOO_LARGE, stream(&halves)),
    ]
}

fn floods() -> Vec<(Refusal, Vec<u8>)> {
    let mut out = vec![];
    // And how much of the last one decides: a frame header, or a pad length behind it.
    let frames = [
        (frame(PING, 0, 0, &[0; 8]), 9),
        (frame(SETTINGS, 0, 0, &[]), 9),
        (frame(PRIORITY, 0, 1, &[0; 5]), 9),
        (frame(0x77, 0, 0, &[]), 9),
        (frame(DATA, 0, 1, &[]), 9),
        (frame(DATA, PADDED, 1, &[1, 0]), 10),
    ];
    for (counted, decides) in frames {
        // The first SETTINGS count, and the request takes them off.
        let most = counted.repeat(FLOOD_MAX as usize);
        out.push((
            HTTP2_FLOOD,
            stream(&[post(1), most, counted[..decides].to_vec()]),
        ));
    }
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]).repeat(RESETS_MAX as usize);
    let again = frame_header(4, RST_STREAM, 0, 1);
    out.push((HTTP2_RAPID_RESET, stream(&[whole(1), reset, again])));
    let pair = |i: u32| [whole(2 * i + 1), frame(RST_STREAM, 0, 2 * i + 1, &[0; 4])].concat();
    let pairs = (0..2 * RESETS_MAX - 1).flat_map(pair).collect();
    let id = 4 * RESETS_MAX - 1;
    let last = [whole(id), frame_header(4, RST_STREAM, 0, id)].concat();
    out.push((HTTP2_RAPID_RESET, stream(&[pairs, last])));
    out
}

#[test]
fn connections_are_refused_at_the_earliest_byte() {
    check(connection());
}

#[test]
fn frames_on_streams_are_refused_at_the_earliest_byte() {
    check(streams());
}

#[test]
fn header_blocks_are_refused_at_the_earliest_byte() {
    check(blocks());
}

#[test]
fn floods_are_refused_at_the_earliest_byte() {
    check(floods());
}

#[test]
fn stream_one_is_in_use_behind_an_upgrade() {
    for id in [1, 3] {
        let bytes = stream(&[whole(id)]);
        let events = http2_from(Http2Reader::upgraded(), &[&bytes]);
        let refused = events.last().map(|(_, event)| event)
            == Some(&Http2Event::Refused(HTTP2_STREAM_CLOSED));
        assert_eq!(refused, id == 1);
    }
}

#[test]
fn every_reason_is_tested() {
    let tested: Vec<Refusal> = [connection(), streams(), blocks(), floods()]
        .into_iter()
        .flatten()
        .map(|(why, _)| why)
        .chain(h2_refused_fields::reasons())
        .collect();
    for why in ALL {
        // What the reader of HTTP/1 says about an upgrade.
        if why.reason.starts_with("http2-") && *why != HTTP2_UNSUPPORTED {
            assert!(tested.contains(why), "{}", why.reason);
        }
    }
}
