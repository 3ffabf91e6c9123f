//! Feeding the readers in pieces.

use tollgate_l7::http1::{HEAD_MAX, TRAILERS_MAX};
use tollgate_l7::http2::{BLOCK_MAX, HPACK_TABLE_MAX, OPEN_STREAMS_MAX};
use tollgate_l7::tls::HELLO_MAX;
use tollgate_l7::{
    ClientHelloReader, Http2Event, Http2Reader, Http2Step, HttpEvent, Refusal, RequestReader,
    ResponseProgress, ResponseReader, Step, TlsProgress,
};

/// Cuts `bytes` behind every size in turn, over and over; no sizes: one piece.
pub fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut sizes = sizes.iter().copied().filter(|&n| n > 0).cycle();
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        out.push(piece);
        rest = tail;
    }
    out
}

/// Every event with the place in the stream where it came, up to the first refusal.
pub fn http(pieces: &[&[u8]]) -> Vec<(usize, HttpEvent)> {
    let mut reader = RequestReader::new();
    let mut events = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let Step { consumed, event } = reader.push(rest);
            assert!(consumed <= rest.len());
            assert!(
                reader.buffered() <= HEAD_MAX + TRAILERS_MAX,
                "{}",
                reader.buffered()
            );
            offset += consumed;
            rest = &rest[consumed..];
            match event {
                HttpEvent::NeedMore => assert!(rest.is_empty(), "NeedMore before the end"),
                HttpEvent::Refused(_) => {
                    assert_eq!(reader.push(b"GET").event, event, "a refusal stays");
                    assert_eq!(reader.buffered(), 0);
                    events.push((offset, event));
                    return events;
                }
                _ => events.push((offset, event)),
            }
        }
    }
    events
}

/// The first refusal, and where it came.
pub fn http_refusal(bytes: &[u8], sizes: &[usize]) -> Option<(usize, Refusal)> {
    match http(&cut(bytes, sizes)).pop() {
        Some((at, HttpEvent::Refused(refusal))) => Some((at, refusal)),
        _ => None,
    }
}

/// A header block, the HPACK table with what it takes to hold it, and the open streams.
const HTTP2_MEMORY: usize = BLOCK_MAX + 2 * HPACK_TABLE_MAX + 32 * OPEN_STREAMS_MAX;

/// Every event with the place in the stream where it came, up to the first refusal.
pub fn http2(pieces: &[&[u8]]) -> Vec<(usize, Http2Event)> {
    http2_from(Http2Reader::new(), pieces)
}

/// The same with a reader of one's own.
pub fn http2_from(mut reader: Http2Reader, pieces: &[&[u8]]) -> Vec<(usize, Http2Event)> {
    let mut events = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let before = reader.data_left();
            let Http2Step { consumed, event } = reader.push(rest);
            assert!(consumed <= rest.len());
            assert!(reader.buffered() <= HTTP2_MEMORY, "{}", reader.buffered());
            offset += consumed;
            rest = &rest[consumed..];
            match event {
                Http2Event::NeedMore if rest.is_empty() => {}
                Http2Event::NeedMore => {
                    assert!(consumed > 0, "progress");
                    assert_ne!(before.is_some(), reader.data_left().is_some(), "an edge");
                }
                Http2Event::Refused(_) => {
                    assert_eq!(before, None, "no verdict in data");
                    assert_eq!(reader.push(b"x").event, event, "a refusal stays");
                    assert_eq!(reader.buffered(), 0);
                    events.push((offset, event));
                    return events;
                }
                Http2Event::Request(_) => {
                    assert!(reader.at_boundary());
                    events.push((offset, event));
                }
            }
        }
    }
    events
}

/// The first refusal, and where it came.
pub fn http2_refusal(bytes: &[u8], sizes: &[usize]) -> Option<(usize, Refusal)> {
    match http2(&cut(bytes, sizes)).pop() {
        Some((at, Http2Event::Refused(refusal))) => Some((at, refusal)),
        _ => None,
    }
}

/// The final answer.
pub fn tls(pieces: &[&[u8]]) -> TlsProgress {
    let mut reader = ClientHelloReader::new();
    for piece in pieces {
        let progress = reader.push(piece);
        assert!(reader.buffered() <= HELLO_MAX + 4, "{}", reader.buffered());
        if progress != TlsProgress::NeedMore {
            assert_eq!(reader.buffered(), 0);
            return progress;
        }
    }
    TlsProgress::NeedMore
}

/// The final answer.
pub fn response(pieces: &[&[u8]]) -> ResponseProgress {
    let mut reader = ResponseReader::new();
    for piece in pieces {
        let progress = reader.push(piece);
        if progress != ResponseProgress::NeedMore {
            assert_eq!(reader.push(b"x"), progress, "the answer stays");
            return progress;
        }
    }
    ResponseProgress::NeedMore
}
