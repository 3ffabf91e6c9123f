//! Bodies of methods that usually have none.

use proptest::prelude::*;
use tollgate_l7::HttpEvent;
use tollgate_l7::refusal::HTTP_UNEXPECTED_BODY;

use crate::drive::{cut, http, http_refusal};

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn head(method: &str, len: usize) -> String {
    format!("{method} /a HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n")
}

fn with_body(body: &[u8]) -> Vec<u8> {
    [head("GET", body.len()).as_bytes(), body, NEXT].concat()
}

#[test]
fn a_body_that_nobody_takes_for_a_request_is_read() {
    let long = format!("[{}]", "1,".repeat(3999));
    assert_eq!(long.len(), 8000);
    for body in [
        "{",
        "{}",
        "[]",
        r#"{"query":{"match":{"title":"two words / of many"}}}"#,
        r#"{"query": {"match": {"url": "http://a.example/x"}}}"#,
        "{\"name\":\"Å m\u{fc}ller\"}",
        &long,
    ] {
        for method in ["GET", "HEAD"] {
            let head = head(method, body.len());
            let stream = [head.as_bytes(), body.as_bytes(), NEXT].concat();
            for sizes in [&[][..], &[1], &[7, 100]] {
                let events = http(&cut(&stream, sizes));
                let [(_, first), (end, HttpEvent::BodyEnd), (_, second)] = &events[..] else {
                    panic!("{body:?}: {events:?}")
                };
                assert!(matches!(first, HttpEvent::Request(_)), "{body:?}");
                assert_eq!(*end, head.len() + body.len(), "{body:?}");
                assert!(matches!(second, HttpEvent::Request(r) if r.target == "/next"));
            }
        }
    }
}

#[test]
fn a_body_that_might_be_one_is_refused_at_the_first_such_byte() {
    // The body, and how much of it is read before.
    let cases: [(&[u8], usize); 22] = [
        (b"GET /admin HTTP/1.1\r\n\r\n", 0),
        (b" {}", 0),
        (b"\r\n", 0),
        (b"\"GET", 0),
        (b"(x)", 0),
        (b"\0", 0),
        (b"{\n}", 1),
        (b"{\r}", 1),
        (b"{\"a\":1}\r\nGET /admin HTTP/1.1\r\n\r\n", 7),
        (b"{\t}", 1),
        (b"{\0}", 1),
        (b"{\x0bGET", 1),
        (b"{\x7f}", 1),
        (b"{ /admin HTTP/1.1", 2),
        (b"{   /admin HTTP/1.1", 4),
        (b"{ %2fadmin", 2),
        (b"{ \\admin", 2),
        (b"{ *", 2),
        (b"{ ../admin", 2),
        (b"{ http://a/admin", 7),
        (b"{\xa0/admin", 2),
        (b"{ \"a\xa0/admin", 5),
    ];
    for (body, read) in cases {
        let stream = with_body(body);
        let expected = Some((head("GET", body.len()).len() + read, HTTP_UNEXPECTED_BODY));
        for sizes in [&[][..], &[1]] {
            let text = String::from_utf8_lossy(body);
            assert_eq!(http_refusal(&stream, sizes), expected, "{text:?}");
        }
    }
}

/// The requests that a server finds that does not read such bodies: the target of each line that has
/// one, whatever it takes for a blank, and whether or not it looks at the method.
fn targets(stream: &[u8], blank: fn(&u8) -> bool) -> Vec<String> {
    let lines = stream.split(|&byte| byte == b'\n' || byte == b'\r');
    let word = |line: &[u8]| {
        let mut words = line.split(blank).filter(|word| !word.is_empty());
        let target = words.nth(1)?;
        let is_target = target.starts_with(b"/") || target.windows(2).any(|two| two == b":/");
        is_target.then(|| String::from_utf8_lossy(target).into_owned())
    };
    lines.filter_map(word).collect()
}

proptest! {
    /// Whoever does not read the body finds the targets that were judged, and no other.
    #[test]
    fn what_passes_hides_no_target(
        first in "[{\\[]",
        rest in prop::collection::vec(
            prop::sample::select(vec![
                "/", " ", "\u{a0}", "GET", "http:", ":", "{", "HTTP/1.1", "\n", "\r", "a", "\"", "\t",
            ]),
            0..12,
        ),
    ) {
        let body = first + &rest.concat();
        let stream = with_body(body.as_bytes());
        if http_refusal(&stream, &[]).is_none() {
            // As bytes, and as those do that decode them as ISO 8859-1.
            for blank in [(|b: &u8| *b == b' ') as fn(&u8) -> bool, |b| matches!(b, b' ' | 0x85 | 0xa0)] {
                prop_assert!(
                    targets(&stream, blank).iter().all(|t| t == "/a" || t == "/next"),
                    "{body:?}",
                );
            }
        }
    }
}
