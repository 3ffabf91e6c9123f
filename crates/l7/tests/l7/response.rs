use tollgate_l7::ResponseProgress::{Done, NeedMore, Refused};
use tollgate_l7::http1::HEAD_MAX;
use tollgate_l7::refusal::*;

use crate::drive::{cut, response};

#[test]
fn the_final_status_is_found_behind_interim_ones() {
    let table: [(&str, u16); 8] = [
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            101,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", 200),
        ("HTTP/1.0 200 \r\nA: b\r\n\r\n", 200),
        ("HTTP/1.1 200\r\n\r\n", 200),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nA: b\r\n\r\n",
            403,
        ),
        (
            "HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 \r\n\r\n",
            101,
        ),
        ("HTTP/1.1 999 X\r\n\r\n", 999),
        ("HTTP/1.1 502 Pas d\u{e9}j\u{e0}\r\n\r\n", 502),
    ];
    for (head, status) in table {
        let stream = format!("{head}body");
        let want = Done {
            status,
            head_len: head.len(),
        };
        for size in 1..=stream.len() {
            assert_eq!(
                response(&cut(stream.as_bytes(), &[size])),
                want,
                "{head:?} by {size}"
            );
        }
        assert_eq!(
            response(&[&head.as_bytes()[..head.len() - 1]]),
            NeedMore,
            "{head:?}"
        );
    }
}

#[test]
fn unreadable_answers_are_refused_at_once() {
    let long = format!("HTTP/1.1 200 {}", "x".repeat(HEAD_MAX - 12));
    let interim = "HTTP/1.1 100 C\r\n\r\n";
    let many = interim.repeat(HEAD_MAX / interim.len() + 1);
    let table = [
        (HTTP_RESPONSE_STATUS_LINE, "\r"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/2"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.2"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1  "),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 0"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 20 "),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 2000"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 200 OK\n"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 200 OK\r\r"),
        (HTTP_RESPONSE_STATUS_LINE, "HTTP/1.1 200 O\0"),
        (HTTP_BARE_LF, "HTTP/1.1 200 OK\r\n\n"),
        (HTTP_OBS_FOLD, "HTTP/1.1 200 OK\r\n "),
        (HTTP_HEAD_TOO_LARGE, &long),
        (HTTP_HEAD_TOO_LARGE, &many),
    ];
    for (want, bytes) in table {
        let shown = &bytes[..bytes.len().min(60)];
        assert_eq!(response(&[bytes.as_bytes()]), Refused(want), "{shown:?}");
        assert_eq!(
            response(&cut(bytes.as_bytes(), &[1])),
            Refused(want),
            "{shown:?}"
        );
    }
}
