//! Random streams: no panic, bounded memory, and the cut never matters.

use proptest::prelude::*;
use tollgate_l7::{Detected, HttpEvent, PathForm, detect};

use crate::drive::{cut, http, response, tls};
use crate::tls_build::{alpn, hello, record, records, sni, versions};

/// Bits of HTTP that, strung together, reach every state.
const BITS: &[&str] = &[
    "GET ",
    "POST ",
    "CONNECT ",
    "OPTIONS ",
    "*",
    "/",
    "/a/../b",
    "/%2e%2F",
    "a:443",
    "http://a/x?y",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "\r\n",
    "\r",
    "\n",
    " ",
    "\0",
    ":",
    ";",
    "Host: a\r\n",
    "Host: b:80\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "X: y\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
];

fn http_stream() -> impl Strategy<Value = Vec<u8>> {
    let bit = prop_oneof![
        9 => prop::sample::select(BITS).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(bit, 0..24).prop_map(|bits| bits.concat())
}

/// Streams that are valid for long: every framing, pipelined, now and then one byte changed.
fn valid_stream() -> impl Strategy<Value = Vec<u8>> {
    let request = (
        0usize..3,
        prop::collection::vec(any::<u8>(), 1..40),
        any::<bool>(),
    )
        .prop_map(|(framing, body, newline)| {
            let mut out = if newline {
                b"\r\n".to_vec()
            } else {
                Vec::new()
            };
            out.extend_from_slice(b"PUT /a%20b HTTP/1.1\r\nHost: a.example\r\n");
            match framing {
                0 => out.extend_from_slice(b"\r\n"),
                1 => {
                    let head = format!("Content-Length: {}\r\n\r\n", body.len());
                    out.extend_from_slice(head.as_bytes());
                    out.extend_from_slice(&body);
                }
                _ => {
                    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(7) {
                        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        out.extend_from_slice(chunk);
                        out.extend_from_slice(b"\r\n");
                    }
                    out.extend_from_slice(b"0\r\nT: x\r\n\r\n");
                }
            }
            out
        });
    prop::collection::vec(request, 1..6).prop_map(|requests| requests.concat())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..60, 0..8)
}

fn same_however_cut(stream: &[u8], sizes: &[usize]) {
    let whole = http(&cut(stream, &[]));
    assert_eq!(http(&cut(stream, sizes)), whole);
    assert_eq!(http(&cut(stream, &[1])), whole);
}

proptest! {
    #[test]
    fn http_bits_give_the_same_events_however_they_are_cut(
        stream in http_stream(), sizes in sizes(),
    ) {
        same_however_cut(&stream, &sizes);
        response(&cut(&stream, &sizes));
    }

    #[test]
    fn valid_requests_pass_however_they_are_cut(stream in valid_stream(), sizes in sizes()) {
        let refused = |(_, event): &(usize, HttpEvent)| matches!(event, HttpEvent::Refused(_));
        prop_assert!(!http(&cut(&stream, &[])).iter().any(refused));
        same_however_cut(&stream, &sizes);
    }

    #[test]
    fn changed_requests_give_the_same_events_however_they_are_cut(
        mut stream in valid_stream(), sizes in sizes(), at in any::<usize>(), byte in any::<u8>(),
    ) {
        let at = at % stream.len();
        stream[at] = byte;
        same_however_cut(&stream, &sizes);
    }

    #[test]
    fn random_bytes_panic_nowhere(
        bytes in prop::collection::vec(any::<u8>(), 0..300), sizes in sizes(),
    ) {
        same_however_cut(&bytes, &sizes);
        prop_assert_eq!(tls(&cut(&bytes, &sizes)), tls(&[&bytes]));
        prop_assert_eq!(response(&cut(&bytes, &sizes)), response(&[&bytes]));
        detect(&bytes);
    }

    /// More bytes never change what was detected.
    #[test]
    fn detection_is_stable(bytes in http_stream()) {
        let mut before = Detected::NeedMore;
        for len in 0..=bytes.len() {
            let now = detect(&bytes[..len]);
            prop_assert!(before == Detected::NeedMore || now == before);
            before = now;
        }
    }

    /// A normal form is a fixed point: nothing is left in it to resolve.
    #[test]
    fn clear_paths_are_fixed_points(path in "/([a-z.;%25fF0-2/\\\\#-]{0,12}|[ -~]{0,12})") {
        let form = PathForm::new(&path);
        prop_assert!(form.normal.starts_with('/'));
        if form.ambiguous.is_none() {
            prop_assert!(!form.normal.contains("//"));
            prop_assert!(!form.normal.split('/').any(|s| s == "." || s == ".."));
            if !form.normal.contains(['%', '#', ';']) {
                prop_assert_eq!(&PathForm::new(&form.normal), &form);
            }
        }
    }

    #[test]
    fn built_hellos_mean_the_same_however_they_are_cut(
        name in "[a-z0-9-]{1,20}(\\.[A-Z_]{1,10}){0,3}",
        fragment in 1usize..300,
        sizes in sizes(),
        change in prop::option::of((any::<usize>(), any::<u8>())),
    ) {
        let extensions = [versions(&[0x304]), sni(name.as_bytes()), alpn(&[b"h2"])].concat();
        let mut message = hello(&extensions);
        if let Some((at, byte)) = change {
            let at = at % message.len();
            message[at] = byte;
        }
        // One record, so that only the records differ.
        let whole = tls(&[&record(22, &message)]);
        let cut_up = tls(&cut(&records(&message, fragment), &sizes));
        // A changed length may make the record go on behind the hello, or end before it.
        let length_changed = change.is_some_and(|(at, _)| (1..4).contains(&(at % message.len())));
        if !length_changed {
            prop_assert_eq!(cut_up, whole);
        }
    }
}
