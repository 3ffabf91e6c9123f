//! Conversations in TLS, HTTP/2, and what is neither.

use crate::bytes::{
    Hello, client_rest, hello, hello_message, hello_to, preface, record, request, server_hello,
    stream, stream_ok,
};
use crate::capture::{Burst, Talk, Transport};
use crate::cases::{Case, add, one, plain};

/// A hello, in segments that end at the cuts, and the rest of a connection.
fn tls(hello: Vec<u8>, cuts: &[usize]) -> Talk {
    let first = Burst {
        requests: vec![hello],
        cuts: cuts.to_vec(),
        reply: server_hello(),
    };
    let second = Burst {
        requests: vec![client_rest()],
        cuts: Vec::new(),
        reply: record(23, [3, 3], &[0xaa; 300]),
    };
    Talk {
        port: 443,
        bursts: vec![first, second],
        ..plain()
    }
}

/// Names under each set that is about TLS.
pub fn names(cases: &mut Vec<Case>) {
    for set in [
        "tls",
        "sni",
        "sni-suffix",
        "sni-prefix",
        "sni-contains",
        "http-or-tls",
        "nothing",
    ] {
        for name in [
            "www.alfa.test",
            "mail.bravo.test",
            "a.www.alfa.test",
            "alfa.test",
            "www.alfa.test.evil.test",
            "WWW.ALFA.TEST",
            "www.alfa.test.",
        ] {
            add(cases, set, &format!("SNI {name}"), tls(hello_to(name), &[]));
        }
        add(cases, set, "no SNI", tls(hello(&Hello::default()), &[]));
    }
    let allowed = one(request("GET", "/allowed", "a.test"));
    let denied = one(request("GET", "/denied", "a.test"));
    add(cases, "http-or-tls", "GET /allowed", allowed.clone());
    add(cases, "http-or-tls", "GET /denied", denied);
    add(cases, "tls", "HTTP", allowed);
    add(cases, "http", "TLS", tls(hello_to("www.alfa.test"), &[]));
    add(cases, "path", "TLS", tls(hello_to("www.alfa.test"), &[]));
}

/// Hellos of other shapes.
pub fn hellos(cases: &mut Vec<Case>) {
    let usual = Hello {
        sni: Some(b"www.alfa.test"),
        ..Hello::default()
    };
    let denied = Hello {
        sni: Some(b"mail.bravo.test"),
        ..Hello::default()
    };
    for (what, alike) in [("allowed", usual), ("denied", denied)] {
        let message = hello_message(&alike);
        let len = hello(&alike).len();
        let two_records = [
            record(22, [3, 1], &message[..60]),
            record(22, [3, 1], &message[60..]),
        ];
        let pq = Hello {
            is_post_quantum: true,
            ..alike
        };
        for (form, bytes, cuts) in [
            (
                "TLS 1.2",
                hello(&Hello {
                    is_old: true,
                    ..alike
                }),
                vec![],
            ),
            ("post-quantum share", hello(&pq), vec![]),
            (
                "padded to 2300 bytes",
                hello(&Hello {
                    padding: 2100,
                    ..alike
                }),
                vec![],
            ),
            (
                "padded to 1300 bytes",
                hello(&Hello {
                    padding: 1100,
                    ..alike
                }),
                vec![],
            ),
            ("cut in the record's header", hello(&alike), vec![3]),
            ("cut after the record's header", hello(&alike), vec![5]),
            ("cut in the name", hello(&alike), vec![100]),
            ("cut before the last byte", hello(&alike), vec![len - 1]),
            ("two records, one segment", two_records.concat(), vec![]),
            (
                "two records, two segments",
                two_records.concat(),
                vec![two_records[0].len()],
            ),
            (
                "ALPN h2",
                hello(&Hello {
                    alpn: Some("h2"),
                    ..alike
                }),
                vec![],
            ),
        ] {
            add(cases, "sni", &format!("{what}, {form}"), tls(bytes, &cuts));
        }
        let v6 = Talk {
            is_v6: true,
            ..tls(hello(&alike), &[])
        };
        add(cases, "sni", &format!("{what}, IPv6"), v6);
    }
    for (what, sni) in [
        ("an address as SNI", &b"10.10.0.3"[..]),
        ("a byte that is no text in SNI", b"www.alfa\xfftest"),
        ("a zero byte in SNI", b"www.alfa.test\0"),
        ("empty SNI", b""),
    ] {
        let odd = Hello {
            sni: Some(sni),
            ..Hello::default()
        };
        add(cases, "sni", what, tls(hello(&odd), &[]));
        add(cases, "tls", what, tls(hello(&odd), &[]));
    }
    let alert = record(21, [3, 1], &[2, 40]);
    add(cases, "tls", "an alert first", tls(alert, &[]));
    let data = record(23, [3, 3], &[0x55; 100]);
    add(cases, "tls", "data first", tls(data, &[]));
}

/// What is neither HTTP/1 nor TLS, and what is nothing.
pub fn others(cases: &mut Vec<Case>) {
    let talk = |bursts: &[(&[u8], &[u8])]| Talk {
        bursts: bursts
            .iter()
            .map(|(sent, reply)| Burst {
                requests: vec![sent.to_vec()],
                cuts: Vec::new(),
                reply: reply.to_vec(),
            })
            .collect(),
        ..plain()
    };
    let dns = b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06google\x03com\x00\x00\x01\x00\x01";
    let quic = [&[0xc0, 0, 0, 0, 1, 8][..], &[0x11; 1194]].concat();
    for set in ["http", "path", "sni", "tls", "nothing"] {
        add(cases, set, "DNS over TCP", talk(&[(dns, b"")]));
        add(
            cases,
            set,
            "SSH",
            Talk {
                greeting: b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
                ..talk(&[(b"SSH-2.0-OpenSSH_9.2\r\n", b"")])
            },
        );
        add(cases, set, "nothing, then the end", plain());
        let udp = |bursts: &[(&[u8], &[u8])]| Talk {
            transport: Transport::Udp,
            ..talk(bursts)
        };
        let dns = &dns[2..];
        add(
            cases,
            set,
            "UDP, one way",
            udp(&[(dns, b""), (dns, b""), (dns, b"")]),
        );
        add(
            cases,
            set,
            "UDP, answered",
            udp(&[(dns, dns), (dns, dns), (dns, dns)]),
        );
        add(
            cases,
            set,
            "QUIC version 1, unreadable",
            udp(&[(&quic, &quic), (&quic, &quic)]),
        );
    }
    for (set, what, sent) in [
        ("http", "spaces", &b"     \r\n\r\n"[..]),
        (
            "http",
            "bytes of no protocol",
            &[0, 1, 2, 3, 0xff, 0xfe, 7, 8],
        ),
        ("http", "a word and a line end", b"HELLO\r\n"),
        (
            "tls",
            "bytes of no protocol",
            &[0, 1, 2, 3, 0xff, 0xfe, 7, 8],
        ),
        ("http", "Redis", b"*1\r\n$4\r\nPING\r\n"),
        (
            "http",
            "MySQL's answer",
            b"\x20\x00\x00\x01\x85\xa6\xff\x01\x00\x00\x00\x01",
        ),
    ] {
        add(cases, set, what, talk(&[(sent, b"")]));
    }
    let smtp = Talk {
        greeting: b"220 mail.test ESMTP\r\n".to_vec(),
        ..talk(&[
            (b"EHLO a.test\r\n", b"250 STARTTLS\r\n"),
            (b"STARTTLS\r\n", b"220 go\r\n"),
        ])
    };
    add(cases, "tls", "SMTP with STARTTLS", smtp);
    let probed = Talk {
        probe: true,
        ..one(request("GET", "/allowed", "www.alfa.test"))
    };
    add(
        cases,
        "path",
        "probe of the idle connection, then allowed",
        probed,
    );
    let one_way = |name: &str| {
        let (first, second) = (stream(1, "/allowed", "a.test"), stream(3, name, "a.test"));
        Talk {
            bursts: vec![
                Burst {
                    requests: vec![[preface(), first].concat()],
                    cuts: Vec::new(),
                    reply: stream_ok(1),
                },
                Burst {
                    requests: vec![second],
                    cuts: Vec::new(),
                    reply: stream_ok(3),
                },
            ],
            ..plain()
        }
    };
    add(
        cases,
        "path",
        "HTTP/2: allowed, allowed",
        one_way("/allowed"),
    );
    add(cases, "path", "HTTP/2: allowed, denied", one_way("/denied"));
    let only = |name: &str, cuts: Vec<usize>| Talk {
        bursts: vec![Burst {
            requests: vec![[preface(), stream(1, name, "a.test")].concat()],
            cuts,
            reply: stream_ok(1),
        }],
        ..plain()
    };
    add(cases, "path", "HTTP/2: denied", only("/denied", vec![]));
    add(cases, "path", "HTTP/2: allowed", only("/allowed", vec![]));
    add(
        cases,
        "path",
        "HTTP/2: allowed, preface alone",
        only("/allowed", vec![24]),
    );
    add(
        cases,
        "path",
        "HTTP/2: allowed, preface and settings alone",
        only("/allowed", vec![33]),
    );
}
