//! HTTP/2 that is accepted, and what it is read as.

use tollgate_l7::http2::{
    CONTINUATIONS_MAX, DATA_FRAME_MAX, EMPTY_CONTINUATIONS_MAX, FLOOD_MAX, FLOOD_PER_CALM,
    FLOOD_UNIT, H2_FIELDS_MAX, HPACK_TABLE_MAX, PREFACE, RESETS_MAX, SETTINGS_MAX,
};
use tollgate_l7::refusal::HTTP_PATH_DOT_SEGMENTS;
use tollgate_l7::{Grpc, Http2Event, Http2Reader, Http2Request};

use crate::drive::{cut, http2};
use crate::h2_build::*;

/// The requests, each with the place behind it; nothing may be refused, however it is cut.
fn read(bytes: &[u8]) -> Vec<(usize, Http2Request)> {
    let events = http2(&[bytes]);
    assert_eq!(http2(&cut(bytes, &[1])), events);
    let request = |(at, event)| match event {
        Http2Event::Request(request) => (at, request),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(request).collect()
}

/// A connection with this block alone.
fn one(block: &[u8]) -> Http2Request {
    let bytes = stream(&[headers(1, END_STREAM, block)]);
    let requests = read(&bytes);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].0, bytes.len());
    requests[0].1.clone()
}

fn set(name: &str, value: &str, more: &[(&str, &str)]) -> Http2Request {
    let fields = GET.map(|(n, v)| (n, if n == name { value } else { v }));
    one(&[block(&fields), block(more)].concat())
}

#[test]
fn a_request_is_read() {
    let long = "x".repeat(300);
    let request = one(&get(&[
        ("user-agent", &long),
        ("accept", "a/b"),
        ("x-empty", ""),
        ("x", "caf\u{e9} b"),
        ("te", "trailers"),
    ]));
    assert_eq!(request.stream, 1);
    assert_eq!(request.method, "GET");
    assert_eq!(request.scheme, "http");
    assert_eq!((request.host.as_str(), request.port), ("a.example", None));
    assert_eq!(request.target, "/");
    assert_eq!(request.path.normal, "/");
    assert_eq!(request.query, None);
    assert_eq!(request.grpc, None);
    assert_eq!(request.protocol, None);
    assert!(request.end_stream);
    assert_eq!(request.user_agent.as_deref(), Some(&long[..256]));
    assert_eq!(request.headers.len(), 5);
    assert_eq!(
        request.headers[3],
        ("x".to_owned(), "caf\u{e9} b".to_owned())
    );
}

/// `curl --http2-prior-knowledge -d hello -H 'X-Foo: Bar' http://127.0.0.1:…/a/b?c`, curl 7.88.1
/// with nghttp2 1.52.0.
#[test]
fn a_real_client_is_read() {
    let bytes = hex(
        "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a00001204000000000000030000006400040200
         000000020000000000000408000000000001ff000100004d010400000001830485606c47fe1386418b089d
         5c0b8170dc69e7c2df7a8825b650c3abbcf2e153032a2f2a4084f2b4a73f034261720f0d01355f981d75d0
         620d263d4c795bc78f0b4a7b295adb282d443c859300000500010000000168656c6c6f",
    );
    let requests = read(&bytes);
    assert_eq!(requests.len(), 1);
    let request = &requests[0].1;
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/a/b?c")
    );
    assert_eq!(
        (request.host.as_str(), request.port),
        ("127.0.0.1", Some(48915))
    );
    assert_eq!(request.user_agent.as_deref(), Some("curl/7.88.1"));
    assert!(!request.end_stream);
    let field = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let fields = [
        ("user-agent", "curl/7.88.1"),
        ("accept", "*/*"),
        ("x-foo", "Bar"),
        ("content-length", "5"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(request.headers, fields.map(field));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn hosts_have_one_form() {
    for (authority, host, port) in [
        ("A.Example.", "a.example", None),
        ("a.example:8080", "a.example", Some(8080)),
        ("[2001:DB8::0:1]:1", "[2001:db8::1]", Some(1)),
        ("10.0.0.1", "10.0.0.1", None),
    ] {
        let request = set(":authority", authority, &[("host", authority)]);
        assert_eq!((request.host.as_str(), request.port), (host, port));
    }
    let request = set(":authority", "a.example", &[("host", "A.EXAMPLE:80")]);
    assert_eq!(request.port, None);
    let fields = [GET[0], GET[1], GET[3], ("host", "B:1")];
    let request = one(&block(&fields));
    assert_eq!((request.host.as_str(), request.port), ("b", Some(1)));
}

#[test]
fn paths_have_one_form() {
    let request = set(":path", "/a/../%62?c=d?", &[]);
    assert_eq!(request.target, "/a/../%62?c=d?");
    assert_eq!(request.path.normal, "/b");
    assert_eq!(request.path.ambiguous, Some(HTTP_PATH_DOT_SEGMENTS));
    assert_eq!(request.query.as_deref(), Some("c=d?"));
    let fields = [(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")];
    assert_eq!(one(&block(&fields)).path.normal, "*");
    assert_eq!(set(":scheme", "https", &[]).scheme, "https");
}

#[test]
fn connect_has_an_authority_alone() {
    let request = one(&block(&[(":method", "CONNECT"), (":authority", "A.b:443")]));
    assert_eq!((request.host.as_str(), request.port), ("a.b", Some(443)));
    assert_eq!(request.target, "A.b:443");
    assert_eq!(
        (request.path.normal.as_str(), request.scheme.as_str()),
        ("", "")
    );
}

#[test]
fn extended_connect_has_a_path() {
    let fields = [(":method", "CONNECT"), (":protocol", "WebSocket")];
    let request = one(&[
        block(&fields),
        block(&GET[1..3]),
        block(&[(":path", "/chat?x")]),
    ]
    .concat());
    assert_eq!(request.protocol.as_deref(), Some("websocket"));
    assert_eq!(
        (request.path.normal.as_str(), request.query.as_deref()),
        ("/chat", Some("x"))
    );
}

/// gRFC G1: metadata as it is, behind a zero; only in fields whose names say so.
#[test]
fn binary_metadata_of_grpc_calls_is_read() {
    let grpc = ("content-type", "application/grpc");
    for value in ["\0", "\0a\r\n\0b ", "\0\n\x05hello: \r\x10ab\n"] {
        let request = set(":path", "/a.B/C", &[grpc, ("trace-bin", value)]);
        let found = request.headers.iter().find(|(name, _)| name == "trace-bin");
        assert_eq!(found.map(|(_, v)| v.as_str()), Some(value));
    }
}

#[test]
fn grpc_calls_are_told_by_type_and_path() {
    let call = Some(Grpc {
        service: "pkg.v1.Service".to_owned(),
        method: "Do_It".to_owned(),
    });
    let path = "/pkg.v1.Service/Do_It";
    for (content_type, path, expected) in [
        ("application/grpc", path, &call),
        ("Application/gRPC+proto", path, &call),
        ("application/grpc; x=y", path, &call),
        ("application/grpc-web", path, &None),
        ("application/json", path, &None),
        ("application/grpc", "/pkg.v1.Service/Do%5fIt", &None),
        ("application/grpc", "/pkg.v1.Service/Do_It?x", &None),
        ("application/grpc", "/pkg.v1.Service/Do_It/", &None),
        ("application/grpc", "/pkg.v1.Service/", &None),
        ("application/grpc", "//Do_It", &None),
        ("application/grpc", "/x", &None),
    ] {
        let request = set(":path", path, &[("content-type", content_type)]);
        assert_eq!(&request.grpc, expected, "{content_type} {path}");
    }
}

#[test]
fn frames_without_a_request_pass() {
    let post = headers(1, 0, &get(&[]));
    let after = headers(5, END_STREAM, &get(&[]));
    let requests = read(&stream(&[
        frame(SETTINGS, ACK, 0, &[]),
        frame(SETTINGS, 0, 0, &vec![0; SETTINGS_MAX as usize * 6]),
        frame(PING, 0, 0, &[1; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(PRIORITY, 0, 3, &[0; 5]),
        frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"),
        frame(0x77, 0xff, 9, b"anything"),
        post,
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        after,
        frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye"),
    ]));
    let ids: Vec<u32> = requests.iter().map(|(_, request)| request.stream).collect();
    assert_eq!(ids, [1, 5]);
}

#[test]
fn blocks_come_in_fragments_with_padding_and_priority() {
    let block = get(&[("a", "b")]);
    let (first, rest) = block.split_at(7);
    let opening = [&[3, 0, 0, 0, 9, 16], first, &[0; 3]].concat();
    // Together with the empty ones and the last.
    let (few, last) = rest.split_at((CONTINUATIONS_MAX - EMPTY_CONTINUATIONS_MAX - 1) as usize);
    let continuations = few
        .iter()
        .map(|byte| frame(CONTINUATION, 0, 1, &[*byte]))
        .collect::<Vec<_>>()
        .concat();
    let bytes = stream(&[
        frame(HEADERS, END_STREAM | PADDED | HAS_PRIORITY, 1, &opening),
        frame(CONTINUATION, 0, 1, &[]).repeat(EMPTY_CONTINUATIONS_MAX as usize),
        continuations,
        frame(CONTINUATION, END_HEADERS, 1, last),
    ]);
    let requests = read(&bytes);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].0, bytes.len());
    assert!(requests[0].1.end_stream);
    assert_eq!(requests[0].1.headers, [("a".to_owned(), "b".to_owned())]);
}

#[test]
fn bodies_match_their_length() {
    let sized = |id, length| headers(id, 0, &get(&[("content-length", length)]));
    let trailers = headers(3, END_STREAM, &literal("grpc-status", "0"));
    let requests = read(&stream(&[
        sized(1, "5"),
        sized(3, "3"),
        sized(5, "0"),
        headers(7, END_STREAM, &get(&[("content-length", "0")])),
        frame(DATA, 0, 1, b"ab"),
        frame(DATA, PADDED, 3, b"\x02abc\0\0"),
        frame(DATA, END_STREAM, 1, b"cde"),
        trailers,
        frame(DATA, END_STREAM, 5, &[]),
    ]));
    assert_eq!(requests.len(), 4);
}

#[test]
fn limits_are_reached() {
    let many = literal("a", "b").repeat(H2_FIELDS_MAX - 4);
    assert_eq!(
        one(&[get(&[]), many].concat()).headers.len(),
        H2_FIELDS_MAX - 4
    );
    let update = [integer(0x20, 5, 0), integer(0x20, 5, HPACK_TABLE_MAX)].concat();
    one(&[update, get(&[])].concat());
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]).repeat(RESETS_MAX as usize);
    let first = headers(1, 0, &get(&[]));
    let ping = frame(PING, 0, 0, &[0; 8]);
    // Acknowledgements are the server's doing.
    let acks = frame(PING, ACK, 0, &[0; 8]).repeat(FLOOD_MAX as usize + 1);
    let pings = ping.repeat((FLOOD_MAX - RESETS_MAX) as usize);
    let window = frame(WINDOW_UPDATE, 0, 0, &(2 * FLOOD_UNIT).to_be_bytes());
    read(&stream(&[
        first,
        reset,
        acks,
        pings,
        window,
        ping.repeat(2),
    ]));
}

#[test]
fn data_is_marked_off() {
    let mut reader = Http2Reader::new();
    assert!(!reader.at_boundary());
    reader.push(&PREFACE[..23]);
    assert!(!reader.at_boundary());
    reader.push(&PREFACE[23..]);
    assert!(reader.at_boundary());
    let large = DATA_FRAME_MAX as usize;
    let opening = [frame(SETTINGS, 0, 0, &[]), headers(1, 0, &get(&[]))].concat();
    assert_eq!(reader.push(&opening).consumed, opening.len());
    let step = reader.push(&[frame_header(large, DATA, 0, 1), b"body".to_vec()].concat());
    assert_eq!((step.consumed, step.event), (9, Http2Event::NeedMore));
    assert_eq!(reader.data_left(), Some(u64::from(DATA_FRAME_MAX)));
    assert!(!reader.at_boundary());
    assert_eq!(reader.push(b"body").consumed, 4);
    assert_eq!(reader.data_left(), Some(u64::from(DATA_FRAME_MAX) - 4));
    let rest = [
        vec![0; large - 4],
        frame_header(3, DATA, PADDED, 1),
        vec![1, b'a', 0],
    ]
    .concat();
    assert_eq!(reader.push(&rest).consumed, large - 4);
    assert_eq!(reader.data_left(), None);
    assert!(reader.at_boundary());
    assert_eq!(reader.push(&rest[large - 4..]).consumed, 10);
    assert_eq!(reader.data_left(), Some(2));
    assert_eq!(reader.push(&rest[large + 6..]).consumed, 2);
    assert!(reader.at_boundary());
    reader.push(&frame_header(9, HEADERS, 0, 3));
    reader.push(&[0; 9]);
    assert!(!reader.at_boundary(), "a block is open");
}

#[test]
fn floods_wear_off_with_time() {
    let mut reader = Http2Reader::new();
    reader.push(&start());
    let seconds = 2 * FLOOD_MAX / FLOOD_PER_CALM;
    for _ in 0..seconds {
        let step = reader.push(&frame(PING, 0, 0, &[0; 8]).repeat(FLOOD_PER_CALM as usize));
        assert_eq!(step.event, Http2Event::NeedMore);
        reader.calm();
    }
}
