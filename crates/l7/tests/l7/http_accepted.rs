use tollgate_l7::http1::{FIELDS_MAX, HEAD_MAX, REQUEST_LINE_MAX, USER_AGENT_MAX, split_target};
use tollgate_l7::{Framing, HttpEvent, Request, RequestReader, Version};

use crate::drive::{cut, http};

/// The one request of a stream, read in one piece and byte by byte.
fn one(bytes: &str) -> Request {
    let events = http(&cut(bytes.as_bytes(), &[]));
    assert_eq!(events, http(&cut(bytes.as_bytes(), &[1])), "{bytes:?}");
    match events.as_slice() {
        [(at, HttpEvent::Request(request))] => {
            assert_eq!((*at, request.head_len), (bytes.len(), bytes.len()));
            request.clone()
        }
        other => panic!("{bytes:?}: {other:?}"),
    }
}

fn with(fields: &str) -> Request {
    one(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn a_plain_request_is_read_whole() {
    let request =
        one("GET /a/b?c=d?e HTTP/1.1\r\nHost: Example.COM.:8080\r\nUser-Agent: curl/8\r\n\r\n");
    assert_eq!(request.method, "GET");
    assert_eq!(request.target, "/a/b?c=d?e");
    assert_eq!(request.path.normal, "/a/b");
    assert_eq!(request.path.ambiguous, None);
    assert_eq!(request.query.as_deref(), Some("c=d?e"));
    assert_eq!(
        (request.host.as_str(), request.port),
        ("example.com", Some(8080))
    );
    assert_eq!(request.version, Version::Http11);
    assert_eq!(request.framing, Framing::None);
    assert_eq!(request.user_agent.as_deref(), Some("curl/8"));
    assert!(request.keep_alive && !request.connect && !request.expect_continue);
    assert_eq!(request.upgrade, None);
}

#[test]
fn hosts_are_brought_to_one_form() {
    let table = [
        ("a", "a", None),
        ("  A.b\t ", "a.b", None),
        ("a.", "a", None),
        ("a.:80", "a", Some(80)),
        ("a_b-c.d", "a_b-c.d", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        ("[::1]:8080", "[::1]", Some(8080)),
    ];
    for (sent, host, port) in table {
        let request = one(&format!("GET / HTTP/1.1\r\nhost:{sent}\r\n\r\n"));
        assert_eq!(
            (request.host.as_str(), request.port),
            (host, port),
            "{sent}"
        );
    }
}

#[test]
fn every_target_form_leads_to_host_and_path() {
    let table = [
        ("GET", "/", "a", ("a", None, "/", None)),
        ("GET", "/x?", "a", ("a", None, "/x", Some(""))),
        (
            "GET",
            "/x?http://b/",
            "a",
            ("a", None, "/x", Some("http://b/")),
        ),
        ("GET", "/http://b/", "a", ("a", None, "/http:/b/", None)),
        ("GET", "http://a", "a", ("a", None, "/", None)),
        ("GET", "HTTP://A/x", "a:80", ("a", None, "/x", None)),
        (
            "GET",
            "http://a:80/x?y",
            "a",
            ("a", Some(80), "/x", Some("y")),
        ),
        ("GET", "https://a/x", "a:443", ("a", None, "/x", None)),
        (
            "GET",
            "http://[::1]:80?y",
            "[::1]",
            ("[::1]", Some(80), "/", Some("y")),
        ),
        ("OPTIONS", "*", "a", ("a", None, "*", None)),
        ("OPTIONS", "/", "a", ("a", None, "/", None)),
        ("CONNECT", "a:443", "a:443", ("a", Some(443), "", None)),
        ("CONNECT", "a:443", "a", ("a", Some(443), "", None)),
        (
            "CONNECT",
            "[::1]:1",
            "[::1]:1",
            ("[::1]", Some(1), "", None),
        ),
    ];
    for (method, target, host, want) in table {
        let request = one(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ));
        let query = request.query.as_deref();
        let got = (
            request.host.as_str(),
            request.port,
            request.path.normal.as_str(),
            query,
        );
        assert_eq!(got, want, "{method} {target}");
        assert_eq!(request.connect, method == "CONNECT");
        // What was recorded of a request leads to the same path and query again.
        assert_eq!(split_target(method, target), (request.path.clone(), query));
    }
}

#[test]
fn http_1_0_needs_no_host_and_does_not_persist() {
    let request = one("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        (request.host.as_str(), request.version),
        ("", Version::Http10)
    );
    assert!(!request.keep_alive);
    assert!(one("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert_eq!(one("GET http://b/x HTTP/1.0\r\n\r\n").host, "b");
    assert!(!one("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

#[test]
fn fields_are_read_whatever_their_case() {
    assert!(with("EXPECT: 100-Continue\r\n").expect_continue);
    assert!(!with("Connection: Close\r\n").keep_alive);
    assert!(!with("Connection: x, close\r\n").keep_alive);
    assert_eq!(with("CONTENT-LENGTH:7 \r\n").framing, Framing::Length(7));
    assert_eq!(with("Content-Length: 0\r\n").framing, Framing::Length(0));
    assert_eq!(
        with("transfer-encoding: Chunked\r\n").framing,
        Framing::Chunked
    );
    let upgrade = with("Upgrade: WebSocket\r\nUpgrade: x\r\n").upgrade;
    assert_eq!(upgrade.as_deref(), Some("websocket, x"));
    let max = i64::MAX.cast_unsigned();
    assert_eq!(
        with(&format!("Content-Length: {max}\r\n")).framing,
        Framing::Length(max)
    );
}

#[test]
fn unusual_but_unambiguous_heads_pass() {
    with("Empty:\r\n");
    with("Tabs:\ta\tb\t\r\n");
    with("Latin: \u{e9}\r\n");
    with("!#$%&'*+-.^_`|~0Az: token\r\n");
    with("X_Under: score\r\n");
    one("!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n");
    one("GET /{a}|\"b\"<c>^`[d] HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn what_is_kept_of_the_user_agent_is_bounded() {
    let agent = "u".repeat(4 * USER_AGENT_MAX);
    let kept = with(&format!("User-Agent: {agent}\r\nUser-Agent: second\r\n")).user_agent;
    assert_eq!(kept.as_deref(), Some(&agent[..USER_AGENT_MAX]));
}

#[test]
fn heads_up_to_the_limits_pass() {
    let line = "POST / HTTP/1.1\r\nHost: a\r\n";
    // 20 KiB in one field, in many, and in the target.
    with(&format!("Cookie: {}\r\n", "c".repeat(20 * 1024)));
    with(&format!("X: {}\r\n", "c".repeat(200)).repeat(100));
    one(&format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "p".repeat(20 * 1024)
    ));
    // Exactly at the limits.
    with(&format!("A: {}\r\n", "c".repeat(HEAD_MAX - line.len() - 7)));
    let around = "GET / HTTP/1.1\r\n".len();
    one(&format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "p".repeat(REQUEST_LINE_MAX - around)
    ));
    with(&"A: b\r\n".repeat(FIELDS_MAX - 1));
}

fn words(bytes: &[u8], sizes: &[usize]) -> Vec<(usize, String)> {
    let word = |event| match event {
        HttpEvent::Request(r) => format!("{} {}", r.method, r.target),
        HttpEvent::BodyEnd => "end".to_owned(),
        other => format!("{other:?}"),
    };
    http(&cut(bytes, sizes))
        .into_iter()
        .map(|(at, event)| (at, word(event)))
        .collect()
}

#[test]
fn pipelined_requests_and_bodies_are_kept_apart() {
    // What the stream consists of, and the event at the end of each part. Bodies look like heads
    // and like the end of a chunked body.
    let parts = [
        (
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            "POST /1",
        ),
        ("GET", "end"),
        ("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2"),
        (
            "\r\nPUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT /3",
        ),
        (
            "5\r\nGET /\r\n00A\r\n0\r\n\r\nabcde\r\n0\r\nDigest: x\r\n\r\n",
            "end",
        ),
        (
            "POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST /4",
        ),
        ("GET /5 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /5"),
    ];
    let mut stream = Vec::new();
    let mut want = Vec::new();
    for (bytes, word) in parts {
        stream.extend_from_slice(bytes.as_bytes());
        want.push((stream.len(), word.to_owned()));
    }
    for size in 1..=stream.len() {
        assert_eq!(words(&stream, &[size]), want, "cut every {size}");
    }
}

#[test]
fn a_body_of_known_length_may_go_by_unseen() {
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n";
    let mut reader = RequestReader::new();
    assert!(reader.at_boundary());
    assert_eq!(reader.opaque_body(), None);
    reader.push(head);
    assert_eq!(reader.opaque_body(), Some(10_000_000_000));
    assert!(!reader.at_boundary());
    reader.skip_body(0);
    reader.skip_body(9_999_999_990);
    assert_eq!(reader.push(b"01234").consumed, 5);
    assert_eq!(reader.opaque_body(), Some(5));
    reader.skip_body(5);
    assert!(reader.at_boundary());
    assert_eq!(reader.opaque_body(), None);
    assert!(matches!(reader.push(head).event, HttpEvent::Request(_)));
}

#[test]
fn the_state_between_pieces_is_visible() {
    let mut reader = RequestReader::new();
    reader.push(b"GET / HT");
    assert_eq!((reader.head_len(), reader.at_boundary()), (8, false));
    assert!(reader.buffered() >= 8);
    reader.push(b"TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (reader.head_len(), reader.at_boundary(), reader.buffered()),
        (0, true, 0)
    );
}

#[test]
fn a_tunnel_accepts_anything() {
    let mut reader = RequestReader::new();
    reader.push(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
    reader.set_tunnel();
    assert!(reader.is_tunnel());
    let step = reader.push(b"\0\n\xff");
    assert_eq!((step.consumed, step.event), (3, HttpEvent::NeedMore));
}
