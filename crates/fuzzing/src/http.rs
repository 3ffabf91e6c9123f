//! HTTP in clear text.

use tollgate_l7::http1::{HEAD_MAX, TRAILERS_MAX};
use tollgate_l7::http2::{BLOCK_MAX, HPACK_TABLE_MAX, OPEN_STREAMS_MAX, PREFACE};
use tollgate_l7::{
    Detected, Http2Event, Http2Reader, HttpEvent, RequestReader, ResponseProgress, ResponseReader,
    detect,
};

use crate::cut::Stream;

/// What one stream costs an HTTP/2 reader at most, in bytes ("a few").
const STREAM_COST: usize = 64;
/// What the HPACK table costs at most: RFC 7541 counts 32 bytes for an entry beside its text, the
/// table in memory takes some more, and it grows by doubling.
const TABLE_COST: usize = 4 * HPACK_TABLE_MAX;
/// The most an HTTP/2 reader may hold.
const HTTP2_MAX: usize = BLOCK_MAX + TABLE_COST + STREAM_COST * OPEN_STREAMS_MAX;

/// HTTP/1 requests and responses: two bytes that choose the cuts, then the stream.
///
/// # Panics
/// If a promise of the readers is broken.
pub fn http1(data: &[u8]) {
    let Some(stream) = Stream::new(data) else {
        return;
    };
    stream.same_however_cut(requests);
    stream.same_however_cut(response);
    detection_is_stable(stream.bytes);
}

/// HTTP/2 with prior knowledge: two bytes that choose the cuts, then the client's stream. A stream
/// without the preface gets one, since a fuzzer spends long on finding it.
///
/// # Panics
/// If a promise of the reader is broken.
pub fn http2(data: &[u8]) {
    let Some(stream) = Stream::new(data) else {
        return;
    };
    let preface = &PREFACE[..];
    stream.same_however_cut(|pieces| http2_requests(Http2Reader::new(), pieces));
    if stream.bytes.starts_with(preface) {
        stream.same_however_cut(|pieces| http2_requests(Http2Reader::upgraded(), pieces));
        return;
    }
    stream.same_however_cut(|pieces| {
        let pieces = [&[preface], pieces].concat();
        http2_requests(Http2Reader::new(), &pieces)
    });
}

/// Every event with the place in the stream where it came, up to the first refusal.
fn requests(pieces: &[&[u8]]) -> Vec<(usize, HttpEvent)> {
    let mut reader = RequestReader::new();
    reader.keep_headers(true);
    let mut events = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let step = reader.push(rest);
            assert!(step.consumed <= rest.len());
            assert!(reader.buffered() <= HEAD_MAX + TRAILERS_MAX);
            assert!(reader.head_len() <= HEAD_MAX);
            offset += step.consumed;
            rest = rest.get(step.consumed..).unwrap_or_default();
            match step.event {
                HttpEvent::NeedMore => assert!(rest.is_empty(), "NeedMore before the end"),
                HttpEvent::Refused(_) => {
                    assert_eq!(reader.push(b"GET").event, step.event, "a refusal stays");
                    assert_eq!(reader.buffered(), 0);
                    events.push((offset, step.event));
                    return events;
                }
                _ => events.push((offset, step.event)),
            }
        }
    }
    events
}

fn response(pieces: &[&[u8]]) -> ResponseProgress {
    let mut reader = ResponseReader::new();
    let mut last = ResponseProgress::NeedMore;
    for piece in pieces {
        let progress = reader.push(piece);
        let ended = last != ResponseProgress::NeedMore;
        assert!(!ended || progress == last, "the answer stays");
        last = progress;
    }
    if let ResponseProgress::Done { head_len, .. } = last {
        assert!(head_len <= HEAD_MAX);
    }
    last
}

/// More bytes never change what was detected, and enough of them always tell.
fn detection_is_stable(bytes: &[u8]) {
    let mut before = Detected::NeedMore;
    let most = bytes.len().min(2 * tollgate_l7::DETECT_MAX);
    for len in 0..=most {
        let now = detect(bytes.get(..len).unwrap_or_default());
        assert!(before == Detected::NeedMore || now == before);
        assert!(now != Detected::NeedMore || len < tollgate_l7::DETECT_MAX);
        before = now;
    }
}

/// Every request and the refusal, with the place in the stream where it came.
fn http2_requests(mut reader: Http2Reader, pieces: &[&[u8]]) -> Vec<(usize, Http2Event)> {
    let mut events = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let step = reader.push(rest);
            assert!(step.consumed <= rest.len());
            assert!(reader.buffered() <= HTTP2_MAX, "{}", reader.buffered());
            offset += step.consumed;
            rest = rest.get(step.consumed..).unwrap_or_default();
            match step.event {
                Http2Event::NeedMore => assert!(step.consumed > 0, "no step forward"),
                Http2Event::Request(_) => events.push((offset, step.event)),
                Http2Event::Refused(_) => {
                    assert_eq!(reader.push(b"PRI").event, step.event, "a refusal stays");
                    events.push((offset, step.event));
                    return events;
                }
            }
        }
    }
    events
}
