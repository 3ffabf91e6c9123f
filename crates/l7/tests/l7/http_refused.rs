//! Each entry: the last byte is the first one after which the stream cannot be valid any more.

use tollgate_l7::http1::{
    FIELDS_MAX, HEAD_MAX, REQUEST_LINE_MAX, TRAILER_FIELDS_MAX, TRAILERS_MAX,
};
use tollgate_l7::refusal::*;
use tollgate_l7::{HttpEvent, Refusal, RequestReader};

use crate::drive::http_refusal;

/// A head that is complete only with its last byte.
fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\n{fields}\r\n")
}

fn get(fields: &str) -> String {
    head("GET / HTTP/1.1", fields)
}

fn host(value: &str) -> String {
    get(&format!("Host: {value}\r\n"))
}

fn post(fields: &str) -> String {
    head("POST / HTTP/1.1", &format!("Host: a\r\n{fields}"))
}

fn target(target: &str) -> String {
    head(&format!("GET {target} HTTP/1.1"), "Host: a\r\n")
}

fn body(bytes: &str) -> String {
    post("Transfer-Encoding: chunked\r\n") + bytes
}

fn grammar() -> Vec<(Refusal, String)> {
    let line = "GET / HTTP/1.1\r\n";
    let long = |n| "x".repeat(n);
    let fields = |n| "A: b\r\n".repeat(n);
    [
        (HTTP_BARE_LF, "\n".to_owned()),
        (HTTP_BARE_LF, "GET\n".into()),
        (HTTP_BARE_LF, "GET /\n".into()),
        (HTTP_BARE_LF, "GET / HTTP/1.1\n".into()),
        (HTTP_BARE_LF, format!("{line}\n")),
        (HTTP_BARE_LF, format!("{line}Host\n")),
        (HTTP_BARE_LF, format!("{line}Host: a\n")),
        (HTTP_BARE_LF, format!("{line}Host: a\r\nB: c\r\n\n")),
        (HTTP_BARE_CR, "\rG".into()),
        (HTTP_BARE_CR, "\r\r".into()),
        (HTTP_BARE_CR, "GET / HTTP/1.1\rH".into()),
        (HTTP_BARE_CR, format!("{line}Host: a\rb")),
        (HTTP_BARE_CR, format!("{line}Host: a\r\r")),
        (HTTP_BARE_CR, format!("{line}Host: a\r\n\rG")),
        (HTTP_EMPTY_LINES, "\r\n\r".into()),
        (HTTP_BAD_METHOD, " ".into()),
        (HTTP_BAD_METHOD, "\0".into()),
        (HTTP_BAD_METHOD, "\u{16}".into()),
        (HTTP_BAD_METHOD, "GE\t".into()),
        (HTTP_BAD_METHOD, "GET\r".into()),
        (HTTP_BAD_METHOD, "GE(".into()),
        (HTTP_BAD_METHOD, "A".repeat(33)),
        (HTTP_TARGET_EMPTY, "GET  ".into()),
        (HTTP_TARGET_CONTROL, "GET \t".into()),
        (HTTP_TARGET_CONTROL, "GET /\0".into()),
        (HTTP_TARGET_CONTROL, "GET /\u{7f}".into()),
        (HTTP_TARGET_CONTROL, "GET /\t".into()),
        (HTTP_NO_VERSION, "GET \r".into()),
        (HTTP_NO_VERSION, "GET /\r".into()),
        (HTTP_BAD_VERSION, "GET /a b".into()),
        (HTTP_BAD_VERSION, "GET /  ".into()),
        (HTTP_BAD_VERSION, "GET / \r".into()),
        (HTTP_BAD_VERSION, "GET / h".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/0".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/2".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/1.2".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/1.\r".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/1.1 ".into()),
        (HTTP_BAD_VERSION, "GET / HTTP/1.10".into()),
        (HTTP_BAD_VERSION, "PRI * HTTP/2".into()),
        (
            HTTP_REQUEST_LINE_TOO_LONG,
            format!("GET /{}", long(REQUEST_LINE_MAX - 5)),
        ),
        (
            HTTP_HEAD_TOO_LARGE,
            format!("{line}A: {}", long(HEAD_MAX - line.len() - 3)),
        ),
        (
            HTTP_HEAD_TOO_LARGE,
            format!("{line}{}", long(HEAD_MAX - line.len())),
        ),
        (
            HTTP_TOO_MANY_FIELDS,
            format!("{line}{}A", fields(FIELDS_MAX)),
        ),
        (HTTP_OBS_FOLD, format!("{line} ")),
        (HTTP_OBS_FOLD, format!("{line}\t")),
        (HTTP_OBS_FOLD, format!("{line}Host: a\r\n ")),
        (HTTP_SPACE_BEFORE_COLON, format!("{line}Host ")),
        (HTTP_SPACE_BEFORE_COLON, format!("{line}Host\t")),
        (HTTP_BAD_FIELD_NAME, format!("{line}:")),
        (HTTP_BAD_FIELD_NAME, format!("{line}\0")),
        (HTTP_BAD_FIELD_NAME, format!("{line}Ho\0")),
        (HTTP_BAD_FIELD_NAME, format!("{line}Ho(")),
        (HTTP_BAD_FIELD_NAME, format!("{line}Ho\"")),
        (HTTP_NO_COLON, format!("{line}Host\r")),
        (HTTP_FIELD_CONTROL, format!("{line}A: \0")),
        (HTTP_FIELD_CONTROL, format!("{line}A: b\u{1}")),
        (HTTP_FIELD_CONTROL, format!("{line}A: b\u{7f}")),
        (HTTP_FIELD_CONTROL, format!("{line}A: b\u{b}")),
    ]
    .into()
}

fn semantics() -> Vec<(Refusal, String)> {
    [
        (
            HTTP_LENGTH_AND_CHUNKED,
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            HTTP_LENGTH_AND_CHUNKED,
            post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ),
        (
            HTTP_LENGTH_AND_CHUNKED,
            post("Content-Length: 5\r\nTransfer-Encoding: x\r\n"),
        ),
        (
            HTTP_DUPLICATE_LENGTH,
            post("Content-Length: 5\r\ncontent-length: 6\r\n"),
        ),
        (
            HTTP_DUPLICATE_LENGTH,
            post("Content-Length: 5\r\nContent-Length: 5\r\n"),
        ),
        (HTTP_BAD_LENGTH, post("Content-Length:\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 5, 5\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: +5\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: -5\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 0x5\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 5 5\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 5.0\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 010\r\n")),
        (HTTP_BAD_LENGTH, post("Content-Length: 1_0\r\n")),
        (
            HTTP_BAD_LENGTH,
            post("Content-Length: 9223372036854775808\r\n"),
        ),
        (
            HTTP_BAD_LENGTH,
            post("Content-Length: 18446744073709551621\r\n"),
        ),
        (
            HTTP_DUPLICATE_TRANSFER_ENCODING,
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            HTTP_DUPLICATE_TRANSFER_ENCODING,
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: chunked, chunked\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: identity\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: xchunked\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: chunked;a=b\r\n"),
        ),
        (
            HTTP_BAD_TRANSFER_ENCODING,
            post("Transfer-Encoding: \"chunked\"\r\n"),
        ),
        (HTTP_BAD_TRANSFER_ENCODING, post("Transfer-Encoding:\r\n")),
        (
            HTTP_TRANSFER_ENCODING_IN_10,
            head(
                "POST / HTTP/1.0",
                "Host: a\r\nTransfer-Encoding: chunked\r\n",
            ),
        ),
        (HTTP_FRAMING_LOOKALIKE, post("Content_Length: 5\r\n")),
        (
            HTTP_FRAMING_LOOKALIKE,
            post("transfer_encoding: chunked\r\n"),
        ),
        (
            HTTP_CONNECTION_FRAMING,
            get("Host: a\r\nConnection: close, Content-Length\r\n"),
        ),
        (
            HTTP_CONNECTION_FRAMING,
            get("Host: a\r\nConnection: host\r\n"),
        ),
        (
            HTTP_CONNECT_BODY,
            head(
                "CONNECT a:1 HTTP/1.1",
                "Host: a:1\r\nTransfer-Encoding: chunked\r\n",
            ),
        ),
        (
            HTTP_CONNECT_BODY,
            head("CONNECT a:1 HTTP/1.1", "Host: a:1\r\nContent-Length: 1\r\n"),
        ),
        (HTTP_BAD_EXPECT, post("Expect: 200-ok\r\n")),
        (HTTP_BAD_EXPECT, post("Expect: y 100-continue\r\n")),
        (
            HTTP_BAD_EXPECT,
            post("Expect: 100-continue\r\nExpect: 100-continue\r\n"),
        ),
        (
            HTTP_UNEXPECTED_BODY,
            get("Host: a\r\nContent-Length: 8001\r\n"),
        ),
        (
            HTTP_UNEXPECTED_BODY,
            get("Host: a\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            HTTP_UNEXPECTED_BODY,
            head(
                "HEAD / HTTP/1.1",
                "Host: a\r\nTransfer-Encoding: chunked\r\n",
            ),
        ),
        (HTTP2_UNSUPPORTED, get("Host: a\r\nUpgrade: h2\r\n")),
        (
            HTTP2_UNSUPPORTED,
            get("Host: a\r\nUpgrade: websocket, H2C\r\n"),
        ),
        (
            HTTP2_UNSUPPORTED,
            get("Host: a\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
        ),
        (HTTP2_UNSUPPORTED, get("Host: a\r\nUpgrade: HTTP/2.0\r\n")),
    ]
    .into()
}

fn hosts_and_targets() -> Vec<(Refusal, String)> {
    let label = "a".repeat(64);
    let name = "abc.".repeat(64);
    [
        (HTTP_HOST_MISSING, get("")),
        (HTTP_HOST_MISSING, get("X-Host: a\r\n")),
        (HTTP_HOST_MISSING, head("GET http://a/ HTTP/1.1", "")),
        (HTTP_DUPLICATE_HOST, get("Host: a\r\nHost: a\r\n")),
        (HTTP_DUPLICATE_HOST, get("Host: a\r\nA: b\r\nhOST: b\r\n")),
        (HTTP_HOST_EMPTY, host("")),
        (HTTP_HOST_EMPTY, host(":80")),
        (HTTP_HOST_EMPTY, head("GET / HTTP/1.0", "Host:\r\n")),
        (HTTP_HOST_INVALID, host("a b")),
        (HTTP_HOST_INVALID, host("a,b")),
        (HTTP_HOST_INVALID, host("a/b")),
        (HTTP_HOST_INVALID, host("a?b")),
        (HTTP_HOST_INVALID, host("a#b")),
        (HTTP_HOST_INVALID, host("a\\b")),
        (HTTP_HOST_INVALID, host("a%2eb")),
        (HTTP_HOST_INVALID, host("bücher.example")),
        (HTTP_HOST_INVALID, host("*")),
        (HTTP_HOST_INVALID, host(".")),
        (HTTP_HOST_INVALID, host("a..")),
        (HTTP_HOST_INVALID, host(".a")),
        (HTTP_HOST_INVALID, host("a..b")),
        (HTTP_HOST_INVALID, host(&label)),
        (HTTP_HOST_INVALID, host(&name)),
        (HTTP_HOST_INVALID, host("[::1")),
        (HTTP_HOST_INVALID, host("[::g]")),
        (HTTP_HOST_INVALID, host("[]")),
        (HTTP_HOST_INVALID, host("[1.2.3.4]")),
        (HTTP_HOST_INVALID, host("[fe80::1%25eth0]")),
        (HTTP_HOST_INVALID, host("[::1]x")),
        (HTTP_HOST_EMPTY, host("::1")),
        (HTTP_HOST_USERINFO, host("u@a")),
        (HTTP_HOST_USERINFO, host("u:p@a:80")),
        (HTTP_HOST_PORT, host("a:")),
        (HTTP_HOST_PORT, host("a:b")),
        (HTTP_HOST_PORT, host("a:+80")),
        (HTTP_HOST_PORT, host("a:65536")),
        (HTTP_HOST_PORT, host("a:000080")),
        (HTTP_HOST_PORT, host("a:80:80")),
        (HTTP_HOST_PORT, host("[::1]:")),
        (HTTP_HOST_MISMATCH, target("http://b/")),
        (HTTP_HOST_MISMATCH, target("http://a:81/")),
        (HTTP_HOST_MISMATCH, target("https://a:80/")),
        (HTTP_HOST_MISMATCH, target("http://a.b/")),
        (
            HTTP_HOST_MISMATCH,
            head("CONNECT b:443 HTTP/1.1", "Host: a:443\r\n"),
        ),
        (
            HTTP_HOST_MISMATCH,
            head("CONNECT a:443 HTTP/1.1", "Host: a:444\r\n"),
        ),
        (HTTP_HOST_EMPTY, target("http:///x")),
        (HTTP_HOST_USERINFO, target("http://u@a/")),
        (HTTP_HOST_INVALID, target("http://a\\b/")),
        (HTTP_TARGET_FORM, target("x")),
        (HTTP_TARGET_FORM, target("a:80")),
        (HTTP_TARGET_FORM, target("*")),
        (HTTP_TARGET_FORM, target("?x")),
        (HTTP_TARGET_FORM, target("\\x")),
        (HTTP_TARGET_FORM, target("x/http://a/")),
        (HTTP_TARGET_FORM, head("CONNECT / HTTP/1.1", "Host: a\r\n")),
        (
            HTTP_TARGET_FORM,
            head("CONNECT http://a:1/ HTTP/1.1", "Host: a\r\n"),
        ),
        (HTTP_TARGET_FORM, head("OPTIONS ** HTTP/1.1", "Host: a\r\n")),
        (HTTP_HOST_PORT, head("CONNECT a HTTP/1.1", "Host: a\r\n")),
        (
            HTTP_HOST_USERINFO,
            head("CONNECT u@a:1 HTTP/1.1", "Host: a\r\n"),
        ),
        (HTTP_TARGET_SCHEME, target("ftp://a/")),
        (HTTP_TARGET_SCHEME, target("file:///etc/passwd")),
    ]
    .into()
}

fn bodies() -> Vec<(Refusal, String)> {
    let trailers = |n| "A: b\r\n".repeat(n);
    [
        (HTTP_CHUNK_SIZE, body("\r")),
        (HTTP_CHUNK_SIZE, body("g")),
        (HTTP_CHUNK_SIZE, body("+")),
        (HTTP_CHUNK_SIZE, body("-")),
        (HTTP_CHUNK_SIZE, body("0x")),
        (HTTP_CHUNK_SIZE, body(" ")),
        (HTTP_CHUNK_SIZE, body(";")),
        (HTTP_CHUNK_SIZE, body("5\0")),
        (HTTP_CHUNK_SIZE, body("80000000")),
        (HTTP_CHUNK_SIZE, body("00000000000000000")),
        (HTTP_CHUNK_EXTENSION, body("5;")),
        (HTTP_CHUNK_EXTENSION, body("5 ")),
        (HTTP_CHUNK_EXTENSION, body("5\t")),
        (HTTP_CHUNK_EXTENSION, body("0;")),
        (HTTP_BARE_LF, body("5\n")),
        (HTTP_BARE_LF, body("\n")),
        (HTTP_BARE_CR, body("5\rx")),
        (HTTP_CHUNK_END, body("2\r\nabc")),
        (HTTP_CHUNK_END, body("2\r\nab\n")),
        (HTTP_CHUNK_END, body("2\r\nab\r\r")),
        (HTTP_BARE_LF, body("0\r\n\n")),
        (HTTP_BARE_CR, body("0\r\n\rx")),
        (HTTP_OBS_FOLD, body("0\r\n ")),
        (HTTP_SPACE_BEFORE_COLON, body("0\r\nA ")),
        (HTTP_BARE_LF, body("0\r\nA: b\n")),
        (
            HTTP_TRAILERS_TOO_LARGE,
            body("0\r\n") + &"A".repeat(TRAILERS_MAX),
        ),
        (
            HTTP_TOO_MANY_FIELDS,
            body("0\r\n") + &trailers(TRAILER_FIELDS_MAX) + "A",
        ),
        (
            HTTP_TRAILER_FORBIDDEN,
            body("0\r\nContent-Length: 5\r\n\r\n"),
        ),
        (
            HTTP_TRAILER_FORBIDDEN,
            body("0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n"),
        ),
        (HTTP_TRAILER_FORBIDDEN, body("0\r\nHost: b\r\n\r\n")),
        // Behind a body the next head is judged as strictly.
        (HTTP_BAD_METHOD, post("Content-Length: 2\r\n") + "ab("),
        (HTTP_BAD_METHOD, body("2\r\nab\r\n0\r\n\r\n") + "("),
        (HTTP_EMPTY_LINES, post("Content-Length: 2\r\n") + "ab\r\n\r"),
        (HTTP_BARE_LF, get("Host: a\r\n") + "\n"),
    ]
    .into()
}

fn all() -> Vec<(Refusal, String)> {
    [grammar(), semantics(), hosts_and_targets(), bodies()].concat()
}

#[test]
fn the_last_byte_is_refused_with_its_reason() {
    for (want, bytes) in all() {
        let shown = &bytes[bytes.len().saturating_sub(120)..];
        let (at, got) = http_refusal(bytes.as_bytes(), &[])
            .unwrap_or_else(|| panic!("{} not refused: {shown:?}", want.reason));
        assert_eq!(got.reason, want.reason, "{shown:?}");
        assert!(
            at + 1 >= bytes.len(),
            "refused at {at} of {}: {shown:?}",
            bytes.len()
        );
        assert_eq!(
            http_refusal(bytes.as_bytes(), &[1]),
            Some((at, got)),
            "{shown:?}"
        );
    }
}

#[test]
fn nothing_is_refused_before_the_last_byte() {
    for (want, bytes) in all() {
        let shown = &bytes[bytes.len().saturating_sub(120)..];
        let before = &bytes.as_bytes()[..bytes.len() - 1];
        assert_eq!(
            http_refusal(before, &[]),
            None,
            "{}: {shown:?}",
            want.reason
        );
        assert_eq!(
            http_refusal(before, &[1]),
            None,
            "{}: {shown:?}",
            want.reason
        );
    }
}

#[test]
fn raw_bytes_that_are_not_ascii_are_refused_in_targets() {
    assert_eq!(
        http_refusal(b"GET /\xc3", &[]),
        Some((5, HTTP_TARGET_NON_ASCII))
    );
    assert_eq!(
        http_refusal(b"GET \xff", &[1]),
        Some((4, HTTP_TARGET_NON_ASCII))
    );
}

#[test]
fn skipping_more_than_the_body_has_is_refused() {
    let head = post("Content-Length: 10\r\n");
    let cases: [(&str, &[u64]); 4] = [
        (&head, &[11]),
        (&head, &[10, 1]),
        (&body(""), &[1]),
        ("GET /", &[1]),
    ];
    for (bytes, skips) in cases {
        let mut reader = RequestReader::new();
        reader.push(bytes.as_bytes());
        skips.iter().for_each(|&n| reader.skip_body(n));
        let event = reader.push(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").event;
        assert_eq!(
            event,
            HttpEvent::Refused(HTTP_SKIPPED_TOO_MUCH),
            "{bytes} {skips:?}"
        );
        reader.set_tunnel();
        assert!(!reader.is_tunnel(), "a refusal stays");
    }
}

#[test]
fn every_http_reason_is_tested() {
    let elsewhere = [
        // Only if httparse refuses what the scanner let through.
        HTTP_MALFORMED,
        HTTP_TARGET_NON_ASCII,
        HTTP_SKIPPED_TOO_MUCH,
        HTTP_RESPONSE_STATUS_LINE,
    ];
    let tested: Vec<_> = all()
        .into_iter()
        .map(|(refusal, _)| refusal)
        .chain(elsewhere)
        .collect();
    for refusal in ALL {
        let other_file =
            !refusal.reason.starts_with("http-") || refusal.reason.starts_with("http-path-");
        assert!(other_file || tested.contains(refusal), "{}", refusal.reason);
    }
}

/// The scanner knows every byte that the head parser would stumble over, so that it can refuse it
/// before the head is complete.
#[test]
fn nothing_is_left_for_the_head_parser_to_refuse() {
    let places = [
        "@ / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /@ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX@: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: @\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a@b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX@: y@\r\n\r\n",
    ];
    for place in places {
        for byte in 0..=255u8 {
            let put = |b| if b == b'@' { byte } else { b };
            let stream: Vec<u8> = place.bytes().map(put).collect();
            let refusal = http_refusal(&stream, &[]).map(|(_, refusal)| refusal);
            assert_ne!(refusal, Some(HTTP_MALFORMED), "{}", stream.escape_ascii());
        }
    }
}

#[test]
fn reasons_are_unique_kebab_words() {
    let mut seen = std::collections::BTreeSet::new();
    for Refusal { reason, detail } in ALL {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        assert!(reason.bytes().all(word), "{reason}");
        assert!(seen.insert(reason), "{reason} twice");
        assert!(detail.ends_with('.'), "{detail}");
    }
}
