//! Requests for TLS inside other protocols.

use proptest::prelude::*;
use tollgate_l7::refusal::*;
use tollgate_l7::starttls::ANSWER_MAX;
use tollgate_l7::{Refusal, StarttlsEvent, StarttlsProtocol, StarttlsReader, server_agrees};

use crate::drive::cut;
use StarttlsEvent::{AwaitServer, NeedMore};
use StarttlsProtocol::{PostgreSql, Smtp};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// The last answer.
fn read(protocol: StarttlsProtocol, pieces: &[&[u8]]) -> StarttlsEvent {
    let mut reader = StarttlsReader::new(protocol);
    let mut last = NeedMore;
    for piece in pieces {
        last = reader.push(piece);
        assert_eq!(reader.push(b""), last, "nothing changes nothing");
        if let StarttlsEvent::Refused(_) = last {
            assert_eq!(reader.push(SSL_REQUEST), last, "a refusal stays");
            return last;
        }
    }
    last
}

fn answer(protocol: StarttlsProtocol, stream: &[u8]) -> StarttlsEvent {
    let whole = read(protocol, &[stream]);
    for sizes in [&[1][..], &[2], &[3, 7]] {
        assert_eq!(read(protocol, &cut(stream, sizes)), whole, "{sizes:?}");
    }
    whole
}

#[test]
fn the_request_for_tls_is_found() {
    let long = format!("EHLO {}\r\nSTARTTLS\r\n", "a".repeat(505));
    let table: [(StarttlsProtocol, &[u8]); 7] = [
        (PostgreSql, SSL_REQUEST),
        (Smtp, b"EHLO mail.example\r\nSTARTTLS\r\n"),
        (Smtp, b"ehlo [192.0.2.1]\r\nstarttls\r\n"),
        (Smtp, b"LHLO b\xc3\xbccher.example\r\nStartTLS\r\n"),
        (
            Smtp,
            b"EHLO a\r\nHELO a\r\nNOOP\r\nNOOP x\ty\r\nRSET\r\nHELP STARTTLS\r\nSTARTTLS\r\n",
        ),
        (Smtp, b"EHLO\r\nSTARTTLS\r\n"),
        (Smtp, long.as_bytes()),
    ];
    for (protocol, stream) in table {
        assert_eq!(
            answer(protocol, stream),
            AwaitServer,
            "{}",
            stream.escape_ascii()
        );
        for len in 0..stream.len() {
            assert_eq!(read(protocol, &[&stream[..len]]), NeedMore);
        }
        let more = [stream, b"\x16"].concat();
        assert_eq!(
            answer(protocol, &more),
            StarttlsEvent::Refused(STARTTLS_INJECTION)
        );
    }
    assert_eq!(answer(Smtp, b"EHLO a\r\nQUIT\r\n"), NeedMore);
}

/// Refused with the last byte shown.
fn refusals() -> Vec<(Refusal, StarttlsProtocol, Vec<u8>)> {
    let long = format!("EHLO {}\r", "a".repeat(507));
    let table: [(Refusal, StarttlsProtocol, &[u8]); 21] = [
        (POSTGRESQL_WITHOUT_TLS, PostgreSql, b"\0\0\0\x09"),
        (POSTGRESQL_WITHOUT_TLS, PostgreSql, b"\0\0\0\x08\0"),
        (
            POSTGRESQL_WITHOUT_TLS,
            PostgreSql,
            b"\0\0\0\x08\x04\xd2\x16\x30",
        ),
        (POSTGRESQL_WITHOUT_TLS, PostgreSql, b"\x16"),
        (
            STARTTLS_INJECTION,
            PostgreSql,
            b"\0\0\0\x08\x04\xd2\x16\x2f\0",
        ),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO a\r\nM"),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO a\r\nA"),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO a\r\nSE"),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO a\r\n\x16"),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO a\r\n "),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLOX"),
        (SMTP_WITHOUT_TLS, Smtp, b"STARTTLSX"),
        (SMTP_WITHOUT_TLS, Smtp, b"START\r"),
        (SMTP_WITHOUT_TLS, Smtp, b"EHLO\t"),
        (SMTP_MALFORMED, Smtp, b"EHLO\n"),
        (SMTP_MALFORMED, Smtp, b"\r"),
        (SMTP_MALFORMED, Smtp, b"EHLO a\n"),
        (SMTP_MALFORMED, Smtp, b"EHLO a\rS"),
        (SMTP_MALFORMED, Smtp, b"EHLO a\0"),
        (SMTP_MALFORMED, Smtp, b"EHLO a\r\nSTARTTLS "),
        (SMTP_MALFORMED, Smtp, long.as_bytes()),
    ];
    table
        .map(|(refusal, protocol, stream)| (refusal, protocol, stream.to_vec()))
        .into()
}

#[test]
fn anything_else_is_refused_at_its_first_byte() {
    for (want, protocol, stream) in refusals() {
        let shown = stream.escape_ascii();
        assert_eq!(
            answer(protocol, &stream),
            StarttlsEvent::Refused(want),
            "{shown}"
        );
        let before = read(protocol, &[&stream[..stream.len() - 1]]);
        assert!(!matches!(before, StarttlsEvent::Refused(_)), "{shown}");
    }
}

#[test]
fn a_declined_request_may_be_repeated_with_smtp_only() {
    let mut reader = StarttlsReader::new(Smtp);
    assert_eq!(reader.push(b"EHLO a\r\nSTARTTLS\r\n"), AwaitServer);
    reader.server_declined();
    assert_eq!(reader.push(b"NOOP\r\nSTARTTLS\r\n"), AwaitServer);
    reader.server_declined();
    assert_eq!(
        reader.push(b"MAIL"),
        StarttlsEvent::Refused(SMTP_WITHOUT_TLS)
    );
    reader.server_declined();
    assert_eq!(
        reader.push(b"NOOP"),
        StarttlsEvent::Refused(SMTP_WITHOUT_TLS)
    );

    let mut reader = StarttlsReader::new(PostgreSql);
    assert_eq!(reader.push(SSL_REQUEST), AwaitServer);
    reader.server_declined();
    assert_eq!(
        reader.push(b"\0"),
        StarttlsEvent::Refused(POSTGRESQL_WITHOUT_TLS)
    );
}

#[test]
fn the_servers_answer_is_read() {
    let table: [(StarttlsProtocol, &[u8], Option<bool>); 19] = [
        (PostgreSql, b"", None),
        (PostgreSql, b"S", Some(true)),
        (PostgreSql, b"N", Some(false)),
        (PostgreSql, b"E\0\0", Some(false)),
        (PostgreSql, b"SR", Some(false)),
        (Smtp, b"", None),
        (Smtp, b"2", None),
        (Smtp, b"22", None),
        (Smtp, b"25", Some(false)),
        (Smtp, b"220 go ahead", None),
        (Smtp, b"220 go ahead\r\n", Some(true)),
        (Smtp, b"220\r\n", Some(true)),
        (Smtp, b"220-go\r\n", None),
        (Smtp, b"220-go\r\n220 ahead\r\n", Some(true)),
        (Smtp, b"220-go\r\n250 ahead\r\n", Some(false)),
        (Smtp, b"220 go\r\n220 on\r\n", Some(false)),
        (Smtp, b"2200\r\n", Some(false)),
        (Smtp, b"454 TLS not available\r\n", Some(false)),
        (Smtp, b"\r\n", Some(false)),
    ];
    for (protocol, answer, want) in table {
        assert_eq!(
            server_agrees(protocol, answer),
            want,
            "{}",
            answer.escape_ascii()
        );
    }
    for filling in [&b"220-a\r\n"[..], b"220 a", b"a"] {
        let mut endless = filling.to_vec();
        while endless.len() < ANSWER_MAX {
            let len = filling.len().min(ANSWER_MAX - endless.len());
            endless.extend_from_slice(&filling[..len]);
        }
        assert_eq!(server_agrees(Smtp, &endless), Some(false));
    }
}

const BITS: &[&str] = &[
    "EHLO a\r\n",
    "HELO",
    "LHLO ",
    "NOOP\r\n",
    "rset\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "START",
    "TLS",
    "MAIL FROM:<a>\r\n",
    " ",
    "\r",
    "\n",
    "\r\n",
    "\0",
];

proptest! {
    #[test]
    fn commands_mean_the_same_however_they_are_cut(
        bits in prop::collection::vec(prop::sample::select(BITS), 0..10),
        sizes in prop::collection::vec(1usize..20, 0..6),
    ) {
        let stream = bits.concat().into_bytes();
        let whole = read(Smtp, &[&stream]);
        prop_assert_eq!(read(Smtp, &cut(&stream, &sizes)), whole);
        prop_assert_eq!(read(Smtp, &cut(&stream, &[1])), whole);
    }

    #[test]
    fn random_bytes_mean_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        good in 0..=SSL_REQUEST.len(),
        sizes in prop::collection::vec(1usize..20, 0..6),
    ) {
        let stream = [&SSL_REQUEST[..good], &bytes].concat();
        for protocol in [Smtp, PostgreSql] {
            prop_assert_eq!(read(protocol, &cut(&stream, &sizes)), read(protocol, &[&stream]));
            server_agrees(protocol, &bytes);
        }
    }
}
