//! HTTP/2 field sections that are refused, each with its last byte.

use tollgate_l7::Refusal;
use tollgate_l7::http2::{FIELD_LIST_MAX, H2_FIELDS_MAX, HPACK_TABLE_MAX};
use tollgate_l7::refusal::*;

use crate::h2_build::*;
use crate::h2_refused::check;

/// A request with this block alone.
fn request(block: &[u8]) -> Vec<u8> {
    stream(&[headers(1, END_STREAM, block)])
}

/// A plain request with one more field.
fn with(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    request(&[block(&GET), literal(name, value)].concat())
}

fn hpack() -> Vec<(Refusal, Vec<u8>)> {
    let update = |size| integer(0x20, 5, size);
    let coded = |bytes: &[u8]| {
        let value = [integer(0x80, 7, bytes.len()), bytes.to_vec()].concat();
        request(&[block(&GET), vec![0, 1, b'a'], value].concat())
    };
    vec![
        (HTTP2_HPACK_TRUNCATED, request(&[0, 1])),
        (HTTP2_HPACK_TRUNCATED, request(&[0, 1, b'a'])),
        (HTTP2_HPACK_TRUNCATED, request(&[0, 1, b'a', 2, b'b'])),
        (HTTP2_HPACK_TRUNCATED, request(&[0xff, 0x80])),
        (
            HTTP2_HPACK_INTEGER,
            request(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
        ),
        (HTTP2_HPACK_INDEX, request(&[0x80])),
        (HTTP2_HPACK_INDEX, request(&[0xbe])),
        (HTTP2_HPACK_INDEX, request(&[0x7e, 0])),
        // EOS; padding of eight bits; padding with a zero.
        (HTTP2_HPACK_HUFFMAN, coded(&[0xff, 0xff, 0xff, 0xff])),
        (HTTP2_HPACK_HUFFMAN, coded(&[0x1f, 0xff])),
        (HTTP2_HPACK_HUFFMAN, coded(&[0x1e])),
        (
            HTTP2_HPACK_TABLE_SIZE,
            request(&update(HPACK_TABLE_MAX + 1)),
        ),
        (HTTP2_HPACK_TABLE_UPDATE, request(&update(0).repeat(3))),
        (
            HTTP2_HPACK_TABLE_UPDATE,
            request(&[block(&GET), update(0)].concat()),
        ),
        (
            HTTP2_TOO_MANY_FIELDS,
            request(&[block(&GET), literal("a", "b").repeat(H2_FIELDS_MAX - 3)].concat()),
        ),
        (HTTP2_FIELDS_TOO_LARGE, request(&bomb())),
    ]
}

/// A small block that becomes a large list: one long field named again and again.
fn bomb() -> Vec<u8> {
    let long = [
        vec![0x40],
        string(b"a", false),
        string(&[b'b'; 4000], false),
    ]
    .concat();
    [block(&GET), long, vec![0xbe; FIELD_LIST_MAX / 4033]].concat()
}

fn fields() -> Vec<(Refusal, Vec<u8>)> {
    let mut out = vec![
        (HTTP2_FIELD_NAME, with("", "b")),
        (HTTP2_FIELD_NAME, with("Accept", "b")),
        (HTTP2_FIELD_NAME, with("a b", "b")),
        (HTTP2_FIELD_NAME, with("a:", "b")),
        (HTTP2_FIELD_NAME, with("\u{e9}", "b")),
        (HTTP2_FIELD_VALUE, with("a", "b\0")),
        (HTTP2_FIELD_VALUE, with("a", "b\r\nc: d")),
        (HTTP2_FIELD_VALUE, with("a", "b\nc")),
        (HTTP2_FIELD_VALUE, with("a", " b")),
        (HTTP2_FIELD_VALUE, with("a", "b\t")),
        // Only a gRPC call may have such a value.
        (HTTP2_FIELD_VALUE, with("a-bin", "\0b")),
        (
            HTTP2_FIELD_VALUE,
            request(&get(&[
                ("content-type", "application/grpc"),
                ("a-bin", "\0b"),
            ])),
        ),
        (HTTP2_CONNECTION_FIELD, with("te", "gzip")),
        (HTTP2_CONNECTION_FIELD, with("te", "trailers, gzip")),
        (HTTP_FRAMING_LOOKALIKE, with("content_length", "1")),
        (HTTP_FRAMING_LOOKALIKE, with("transfer_encoding", "chunked")),
        (HTTP2_HOST_MISMATCH, with("host", "b.example")),
        (HTTP2_HOST_MISMATCH, with("host", "a.example:81")),
        (HTTP_HOST_INVALID, with("host", "a/b")),
        (
            HTTP2_DUPLICATE_HOST,
            request(&get(&[("host", "a.example"), ("host", "a.example")])),
        ),
        (
            HTTP2_DUPLICATE_LENGTH,
            request(&get(&[("content-length", "0"), ("content-length", "0")])),
        ),
        (
            HTTP2_DUPLICATE_TYPE,
            request(&get(&[("content-type", "a/b"), ("content-type", "a/b")])),
        ),
    ];
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        out.push((HTTP2_CONNECTION_FIELD, with(name, "x")));
    }
    for length in ["", "+1", "01", "1,1", "0x1", "9223372036854775808"] {
        out.push((HTTP2_BAD_LENGTH, with("content-length", length)));
    }
    out
}

fn pseudo() -> Vec<(Refusal, Vec<u8>)> {
    let set = |name: &str, value: &str| {
        let fields = GET.map(|(n, v)| (n, if n == name { value } else { v }));
        request(&block(&fields))
    };
    let without = |name: &str| {
        let fields: Vec<_> = GET.into_iter().filter(|(n, _)| *n != name).collect();
        request(&block(&fields))
    };
    let connect = |fields: &[(&str, &str)]| {
        let fields = [&[(":method", "CONNECT")], fields].concat();
        request(&block(&fields))
    };
    let mut out = vec![
        (HTTP2_HOST_MISSING, without(":authority")),
        (HTTP2_PSEUDO_MISSING, request(&[])),
        (HTTP2_PSEUDO_EXCESS, with(":protocol", "websocket")),
        (HTTP2_PSEUDO_UNKNOWN, with(":status", "200")),
        (HTTP2_PSEUDO_UNKNOWN, with(":", "x")),
        (HTTP2_PSEUDO_UNKNOWN, with(":Path", "x")),
        (
            HTTP2_PSEUDO_ORDER,
            request(&[literal("a", "b"), block(&GET)].concat()),
        ),
        (HTTP2_METHOD, set(":method", "")),
        (HTTP2_METHOD, set(":method", "GE T")),
        (HTTP2_METHOD, set(":method", &"A".repeat(33))),
        (HTTP2_SCHEME, set(":scheme", "ftp")),
        (HTTP2_SCHEME, set(":scheme", "HTTP")),
        (HTTP2_PATH_EMPTY, set(":path", "")),
        (HTTP2_PATH_INVALID, set(":path", "*")),
        (HTTP2_PATH_INVALID, set(":path", "a")),
        (HTTP2_PATH_INVALID, set(":path", "http://a/")),
        (HTTP2_PATH_INVALID, set(":path", "/a b")),
        (HTTP2_PATH_INVALID, set(":path", "/\u{e9}")),
        (HTTP2_FIELD_VALUE, set(":path", "/a\0")),
        (HTTP_HOST_EMPTY, set(":authority", "")),
        (HTTP_HOST_USERINFO, set(":authority", "u@a.example")),
        (HTTP_HOST_INVALID, set(":authority", "a/b")),
        (HTTP_HOST_PORT, set(":authority", "a:65536")),
        (HTTP_HOST_PORT, connect(&[(":authority", "a")])),
        (HTTP2_PSEUDO_MISSING, connect(&[("host", "a:1")])),
        (
            HTTP2_PSEUDO_EXCESS,
            connect(&[(":authority", "a:1"), (":path", "/")]),
        ),
        (
            HTTP2_PSEUDO_EXCESS,
            connect(&[(":authority", "a:1"), (":scheme", "http")]),
        ),
        (
            HTTP2_PSEUDO_MISSING,
            connect(&[(":authority", "a:1"), (":protocol", "x")]),
        ),
        (
            HTTP2_HOST_MISMATCH,
            connect(&[(":authority", "a:1"), ("host", "a:2")]),
        ),
        (
            HTTP_CONNECT_BODY,
            connect(&[(":authority", "a:1"), ("content-length", "0")]),
        ),
    ];
    for name in [":method", ":scheme", ":path"] {
        out.push((HTTP2_PSEUDO_MISSING, without(name)));
    }
    for (name, value) in GET {
        out.push((HTTP2_PSEUDO_DUPLICATE, with(name, value)));
    }
    out
}

fn trailers() -> Vec<(Refusal, Vec<u8>)> {
    let with = |name: &str, value: &str| {
        let trailers = headers(1, END_STREAM, &literal(name, value));
        stream(&[headers(1, 0, &get(&[])), trailers])
    };
    vec![
        (HTTP2_TRAILER_FORBIDDEN, with(":path", "/")),
        (HTTP2_TRAILER_FORBIDDEN, with("host", "a.example")),
        (HTTP2_TRAILER_FORBIDDEN, with("content-length", "0")),
        (HTTP2_CONNECTION_FIELD, with("transfer-encoding", "chunked")),
        (HTTP2_FIELD_NAME, with("A", "b")),
        (HTTP2_FIELD_VALUE, with("a", "b\n")),
    ]
}

/// The reasons that are tested here.
pub fn reasons() -> impl Iterator<Item = Refusal> {
    [hpack(), fields(), pseudo(), trailers()]
        .into_iter()
        .flatten()
        .map(|(why, _)| why)
}

#[test]
fn header_compression_is_refused() {
    check(hpack());
}

#[test]
fn fields_are_refused() {
    check(fields());
}

#[test]
fn pseudo_fields_are_refused() {
    check(pseudo());
}

#[test]
fn trailers_are_refused() {
    check(trailers());
}

/// A gateway to HTTP/1 that copies such a value would send another request, or another field.
#[test]
fn binary_metadata_with_a_line_of_http1_in_it_is_refused() {
    let values = [
        "\0\r\n\r\nGET /admin HTTP/1.1\r\n",
        "\0\nTransfer-Encoding: chunked",
        "\0\rA:",
        "\0a\n\nPOST\t/",
    ];
    let call = |value| {
        let fields = GET.map(|(n, v)| (n, if n == ":path" { "/a.B/C" } else { v }));
        let more = [("content-type", "application/grpc"), ("a-bin", value)];
        request(&[block(&fields), block(&more)].concat())
    };
    check(values.map(|value| (HTTP2_FIELD_VALUE, call(value))).into());
}
