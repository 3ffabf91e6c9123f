//! Conversations in HTTP/1.

use crate::bytes::{ok, post, request, with_lines};
use crate::capture::{Burst, MSS, Talk};
use crate::cases::{Case, add, http, one, plain};

/// The usual requests under each set that is about HTTP.
pub fn grid(cases: &mut Vec<Case>) {
    let sets = [
        "nothing",
        "http",
        "path",
        "prefix",
        "suffix",
        "contains",
        "get",
        "host",
        "host-suffix",
        "host-prefix",
        "host-contains",
        "all-three",
        "two",
    ];
    for set in sets {
        for (method, target, host) in [
            ("GET", "/allowed", "www.alfa.test"),
            ("POST", "/allowed", "www.alfa.test"),
            ("GET", "/api/v2/x.png", "www.alfa.test"),
            ("GET", "/api/v2/x.png", "mail.bravo.test"),
            ("GET", "/public/a", "a.www.alfa.test"),
            ("DELETE", "/admin/a", "admin.alfa.test"),
            ("GET", "/denied", "alfa.test"),
        ] {
            let what = format!("{method} {host}{target}");
            add(cases, set, &what, one(request(method, target, host)));
        }
    }
    for set in ["http", "path", "nothing"] {
        let talk = Talk {
            is_v6: true,
            ..one(request("GET", "/allowed", "[fd10::3]:8080"))
        };
        add(cases, set, "IPv6", talk);
    }
}

/// Ways to write a target.
pub fn targets(cases: &mut Vec<Case>) {
    for (set, target) in [
        ("path", "/Allowed"),
        ("path", "/allowed/"),
        ("path", "/allowed?x=1"),
        ("path", "/allowed#part"),
        ("path", "/allowed;v=1"),
        ("path", "//allowed"),
        ("path", "/./allowed"),
        ("path", "/x/../allowed"),
        ("path", "/x/%2e%2e/allowed"),
        ("path", "/%61llowed"),
        ("path", "/allowed%00"),
        ("path", "/allowed%20"),
        ("path", "\\allowed"),
        ("path", "http://www.alfa.test/allowed"),
        ("path", "http://www.alfa.test/denied?/allowed"),
        ("path", "/denied?/allowed"),
        ("path", "/denied#/allowed"),
        ("path", "allowed"),
        ("path", "*"),
        ("prefix", "/api/../secret"),
        ("prefix", "/api/%2e%2e/secret"),
        ("prefix", "/api/..%2fsecret"),
        ("prefix", "/api/..;/secret"),
        ("prefix", "/api//x"),
        ("prefix", "/api"),
        ("prefix", "/API/x"),
        ("prefix", "/%61pi/x"),
        ("prefix", "/api%2fx"),
        ("prefix", "/x/../api/y"),
        ("prefix", "/api/x?y=/../z"),
        ("suffix", "/x.png?a=1"),
        ("suffix", "/secret?x=.png"),
        ("suffix", "/secret%3f.png"),
        ("suffix", "/secret#.png"),
        ("suffix", "/x.PNG"),
        ("suffix", "/x.pn%67"),
        ("contains", "/secret?/v2/"),
        ("contains", "/a/v2/b"),
        ("contains", "/a/V2/b"),
        ("contains", "/a/%762/b"),
        ("query", "/find?q=a"),
        ("query", "/find?q=ab"),
        ("query", "/find?q=%61"),
        ("query", "/find"),
        ("inner-star", "/a/*/c"),
        ("inner-star", "/a/b/c"),
        ("star-path", "/anything"),
        ("quoted-path", "/a\"b"),
        ("semicolon-path", "/a;b"),
        ("bar-path", "/a|b"),
    ] {
        add(
            cases,
            set,
            target,
            one(request("GET", target, "www.alfa.test")),
        );
    }
}

/// Ways to write a host.
pub fn hosts(cases: &mut Vec<Case>) {
    for (set, host) in [
        ("host", "WWW.Alfa.Test"),
        ("host", "www.alfa.test:8080"),
        ("host", "www.alfa.test."),
        ("host", "www.alfa.test.:8080"),
        ("host", " www.alfa.test "),
        ("host", "user@www.alfa.test"),
        ("host", "www.alfa.test@bravo.test"),
        ("host", "www.alfa.test, bravo.test"),
        ("host", "www.alfa.test\r\nHost: mail.bravo.test"),
        ("host", "mail.bravo.test\r\nHost: www.alfa.test"),
        ("host", "www.alfa.test\r\nX-Forwarded-Host: mail.bravo.test"),
        ("host", "mail.bravo.test\r\nX-Forwarded-Host: www.alfa.test"),
        ("host", ""),
        ("host", "xwww.alfa.test"),
        ("host", "www.alfa.testx"),
        ("host-suffix", "alfa.test"),
        ("host-suffix", "a.b.ALFA.test"),
        ("host-suffix", "www.alfa.test.bravo.test"),
        ("host-suffix", "www.alfa.test:80"),
        ("host-prefix", "WWW.bravo.test"),
        ("host-contains", "x.alfa.bravo"),
        ("host-contains", "x.alfa"),
        ("upper-host", "www.alfa.test"),
        ("upper-host", "WWW.alfa.test"),
    ] {
        let what = format!("Host {}", host.escape_debug());
        add(cases, set, &what, one(request("GET", "/", host)));
    }
    for (what, head) in [
        ("no Host, 1.1", "GET / HTTP/1.1\r\n\r\n"),
        ("no Host, 1.0", "GET / HTTP/1.0\r\n\r\n"),
        (
            "absolute target beats Host",
            "GET http://mail.bravo.test/ HTTP/1.1\r\nHost: www.alfa.test\r\n\r\n",
        ),
        (
            "absolute target, other Host",
            "GET http://www.alfa.test/ HTTP/1.1\r\nHost: mail.bravo.test\r\n\r\n",
        ),
        (
            "folded Host",
            "GET / HTTP/1.1\r\nHost:\r\n www.alfa.test\r\n\r\n",
        ),
        (
            "space before the colon",
            "GET / HTTP/1.1\r\nHost : www.alfa.test\r\n\r\n",
        ),
        (
            "lower-case name",
            "GET / HTTP/1.1\r\nhost: www.alfa.test\r\n\r\n",
        ),
    ] {
        add(cases, "host", what, one(head.into()));
    }
}

/// Ways to write a head.
pub fn heads(cases: &mut Vec<Case>) {
    for (set, what, bytes) in [
        (
            "path",
            "HTTP/1.0",
            "GET /allowed HTTP/1.0\r\nHost: a.test\r\n\r\n",
        ),
        ("path", "HTTP/0.9", "GET /allowed\r\n"),
        (
            "path",
            "HTTP/1.2",
            "GET /allowed HTTP/1.2\r\nHost: a.test\r\n\r\n",
        ),
        (
            "path",
            "line feeds only",
            "GET /allowed HTTP/1.1\nHost: a.test\n\n",
        ),
        (
            "path",
            "empty line first",
            "\r\nGET /allowed HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "path",
            "tab in the request line",
            "GET\t/allowed\tHTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "path",
            "two spaces",
            "GET  /allowed  HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "path",
            "length and chunks",
            "POST /allowed HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "path",
            "two lengths",
            "POST /allowed HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 2\r\n\r\nabcde",
        ),
        (
            "path",
            "chunks",
            "POST /allowed HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "path",
            "expects 100",
            "POST /allowed HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na",
        ),
        (
            "path",
            "asks for h2c",
            "GET /allowed HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        ),
        (
            "path",
            "asks for a web socket",
            "GET /allowed HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "path",
            "CONNECT",
            "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n",
        ),
        (
            "http",
            "CONNECT",
            "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n",
        ),
        (
            "http",
            "unknown method",
            "BREW /pot HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        ("get", "get", "get / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        (
            "get",
            "FORGETS",
            "FORGETS / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        ("get", "HEAD", "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        (
            "get",
            "POST overridden to GET",
            "POST / HTTP/1.1\r\nHost: a.test\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        add(cases, set, what, one(bytes.into()));
    }
}

/// A head or a hello that comes in more than one segment.
pub fn splits(cases: &mut Vec<Case>) {
    let allowed = request("GET", "/allowed", "www.alfa.test");
    let denied = request("GET", "/denied", "www.alfa.test");
    let cut_at = |bytes: &Vec<u8>, cuts: &[usize]| Talk {
        bursts: vec![Burst {
            requests: vec![bytes.clone()],
            cuts: cuts.to_vec(),
            reply: ok(),
        }],
        ..plain()
    };
    let end = allowed.len();
    for (what, cuts) in [
        ("cut in the method", vec![2]),
        ("cut in the target", vec![8]),
        ("cut after the request line", vec![23]),
        ("cut in Host", vec![32]),
        ("cut before the last line feed", vec![end - 1]),
        ("cut before the empty line", vec![end - 2]),
        ("a byte a segment", (1..end).collect()),
    ] {
        add(
            cases,
            "path",
            &format!("allowed, {what}"),
            cut_at(&allowed, &cuts),
        );
        add(
            cases,
            "path",
            &format!("denied, {what}"),
            cut_at(&denied, &cuts),
        );
    }
    let long = |target: &str, bytes: usize| {
        with_lines(
            target,
            "www.alfa.test",
            &format!("Cookie: {}\r\n", "c".repeat(bytes)),
        )
    };
    add(
        cases,
        "path",
        "allowed, cookie of 3000 bytes",
        one(long("/allowed", 3000)),
    );
    add(
        cases,
        "path",
        "denied, cookie of 3000 bytes",
        one(long("/denied", 3000)),
    );
    add(
        cases,
        "path",
        "allowed, cookie of 1000 bytes",
        one(long("/allowed", 1000)),
    );
    let query = format!("/api/x?{}", "q".repeat(2000));
    add(
        cases,
        "prefix",
        "query of 2000 bytes",
        one(request("GET", &query, "www.alfa.test")),
    );
    let body = vec![b'b'; 3 * MSS];
    add(
        cases,
        "path",
        "allowed, body of three segments",
        one(post("/allowed", "a.test", &body)),
    );
    add(
        cases,
        "path",
        "denied, body of three segments",
        one(post("/denied", "a.test", &body)),
    );
    let upload = post("/allowed", "a.test", b"bbbb");
    let head = upload.len() - 4;
    add(
        cases,
        "path",
        "allowed, body in a segment of its own",
        cut_at(&upload, &[head]),
    );
}

/// More than one request on a connection.
pub fn sequences(cases: &mut Vec<Case>) {
    let allowed = request("GET", "/allowed", "www.alfa.test");
    let denied = request("GET", "/denied", "www.alfa.test");
    let other = request("POST", "/allowed", "www.alfa.test");
    let bravo = request("GET", "/", "mail.bravo.test");
    let alfa = request("GET", "/", "www.alfa.test");
    let (a, d) = (&allowed, &denied);
    for (what, requests) in [
        ("allowed, allowed", vec![a.clone(), a.clone()]),
        ("allowed, denied", vec![a.clone(), d.clone()]),
        ("denied, allowed", vec![d.clone(), a.clone()]),
        (
            "allowed, allowed, denied",
            vec![a.clone(), a.clone(), d.clone()],
        ),
        (
            "allowed, denied, allowed",
            vec![a.clone(), d.clone(), a.clone()],
        ),
        (
            "upload allowed, denied",
            vec![post("/allowed", "a.test", b"body"), d.clone()],
        ),
        (
            "upload of a denied request's bytes",
            vec![post("/allowed", "a.test", d)],
        ),
    ] {
        add(cases, "path", what, http(&requests));
    }
    add(
        cases,
        "get",
        "GET, then POST",
        http(&[a.clone(), other.clone()]),
    );
    add(
        cases,
        "host",
        "alfa, then bravo",
        http(&[alfa.clone(), bravo.clone()]),
    );
    add(cases, "host", "bravo, then alfa", http(&[bravo, alfa]));
    add(cases, "http", "two requests", http(&[a.clone(), d.clone()]));
    for (what, requests, cuts) in [
        ("both allowed, one segment", [a, a], vec![]),
        ("allowed and denied, one segment", [a, d], vec![]),
        ("denied and allowed, one segment", [d, a], vec![]),
        ("allowed and denied, two segments", [a, d], vec![a.len()]),
        ("denied and allowed, two segments", [d, a], vec![d.len()]),
        (
            "allowed and half of denied, then the rest",
            [a, d],
            vec![a.len() + 8],
        ),
    ] {
        let talk = Talk {
            bursts: vec![Burst {
                requests: requests.map(Vec::clone).to_vec(),
                cuts,
                reply: [ok(), ok()].concat(),
            }],
            ..plain()
        };
        add(cases, "path", &format!("pipelined: {what}"), talk);
    }
}
