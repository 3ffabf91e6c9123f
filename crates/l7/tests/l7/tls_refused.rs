//! Streams that are refused, each with its reason, however they are cut.

use tollgate_l7::refusal::*;
use tollgate_l7::tls::{ALPN_MAX, EXTENSIONS_MAX, HELLO_MAX};
use tollgate_l7::{ClientHelloReader, Refusal, TlsProgress};

use crate::drive::{cut, tls};
use crate::tls_build::*;

/// Refused with the last byte shown.
fn headers() -> Vec<(Refusal, Vec<u8>)> {
    let part = &hello(&sni(b"a"))[..20];
    let too_large = u32::try_from(HELLO_MAX + 1).unwrap_or(0).to_be_bytes();
    [
        (TLS_NOT_HANDSHAKE, b"\x15".to_vec()),
        (TLS_NOT_HANDSHAKE, b"\x17".to_vec()),
        (TLS_NOT_HANDSHAKE, b"G".to_vec()),
        (TLS_NOT_HANDSHAKE, b"\x80".to_vec()),
        (TLS_NOT_HANDSHAKE, [record(22, part), vec![21]].concat()),
        (TLS_NOT_HANDSHAKE, [record(22, part), vec![20]].concat()),
        (TLS_RECORD_VERSION, b"\x16\x02".to_vec()),
        (TLS_RECORD_VERSION, b"\x16\x7f".to_vec()),
        (TLS_RECORD_LENGTH, b"\x16\x03\x01\x40\x01".to_vec()),
        (TLS_RECORD_LENGTH, b"\x16\x03\x01\xff\xff".to_vec()),
        (TLS_EMPTY_RECORD, b"\x16\x03\x01\x00\x00".to_vec()),
        (
            TLS_EMPTY_RECORD,
            [record(22, part), record(22, b"")].concat(),
        ),
        (TLS_NOT_CLIENT_HELLO, b"\x16\x03\x01\x00\x10\x02".to_vec()),
        (TLS_NOT_CLIENT_HELLO, b"\x16\x03\x01\x00\x10\x00".to_vec()),
        (
            TLS_HELLO_TOO_LARGE,
            [b"\x16\x03\x01\x00\x10\x01", &too_large[1..]].concat(),
        ),
        (
            TLS_HELLO_TOO_LARGE,
            b"\x16\x03\x01\x00\x10\x01\xff\xff\xff".to_vec(),
        ),
    ]
    .into()
}

/// Refused once the hello is complete.
fn hellos() -> Vec<(Refusal, Vec<u8>)> {
    let grown = |n: usize| {
        (0..n)
            .flat_map(|i| extension(1000 + i as u16, b""))
            .collect::<Vec<_>>()
    };
    let protocols = vec![&b"p"[..]; ALPN_MAX + 1];
    let fixed = fixed_part();
    let odd = |at: usize, byte: u8| {
        let mut body = [fixed.clone(), vec16(&[])].concat();
        body[at] = byte;
        message(1, &body)
    };
    [
        (TLS_MALFORMED, message(1, b"")),
        (TLS_MALFORMED, message(1, &fixed[..fixed.len() - 1])),
        (
            TLS_MALFORMED,
            message(1, &[fixed.clone(), vec![0]].concat()),
        ),
        (
            TLS_MALFORMED,
            message(1, &[fixed.clone(), vec![0, 1]].concat()),
        ),
        (
            TLS_MALFORMED,
            message(1, &[fixed.clone(), vec16(&[]), vec![0]].concat()),
        ),
        // Session ID of 33 bytes, an odd cipher list, none, no compression method.
        (
            TLS_MALFORMED,
            message(
                1,
                &[&[3, 3], &[7; 32][..], &vec8(&[9; 33]), &fixed[67..]].concat(),
            ),
        ),
        (TLS_MALFORMED, odd(68, 3)),
        (TLS_MALFORMED, odd(68, 0)),
        (TLS_MALFORMED, odd(73, 0)),
        (TLS_MALFORMED, hello(&[0])),
        (TLS_MALFORMED, hello(&[0, 0, 0])),
        (TLS_MALFORMED, hello(&[0, 9, 0, 1])),
        (TLS_MALFORMED, hello(&extension(0, b""))),
        (TLS_MALFORMED, hello(&extension(0, b"\0\x05\0\0\x01a"))),
        (TLS_MALFORMED, hello(&extension(0, b"\0\x04\0\0\x02a"))),
        (TLS_MALFORMED, hello(&extension(0, b"\0\x04\0\0\x01ax"))),
        (TLS_MALFORMED, hello(&extension(16, b""))),
        (TLS_MALFORMED, hello(&extension(16, b"\0\0"))),
        (TLS_MALFORMED, hello(&alpn(&[b"h2", b""]))),
        (TLS_MALFORMED, hello(&extension(16, b"\0\x03\x03h2"))),
        (TLS_MALFORMED, hello(&extension(43, b""))),
        (TLS_MALFORMED, hello(&extension(43, b"\0"))),
        (TLS_MALFORMED, hello(&extension(43, b"\x03\x03\x04\x03"))),
        (TLS_MALFORMED, hello(&extension(43, b"\x02\x03\x04\0"))),
        (
            TLS_DUPLICATE_EXTENSION,
            hello(&[sni(b"a"), sni(b"b")].concat()),
        ),
        (
            TLS_DUPLICATE_EXTENSION,
            hello(&[sni(b"a"), alpn(&[b"h2"]), sni(b"a")].concat()),
        ),
        (
            TLS_DUPLICATE_EXTENSION,
            hello(&[extension(9999, b""), extension(9999, b"x")].concat()),
        ),
        (
            TLS_PSK_NOT_LAST,
            hello(&[extension(41, b"x"), sni(b"a")].concat()),
        ),
        (TLS_MALFORMED, hello(&extension(13, b""))),
        (TLS_MALFORMED, hello(&extension(13, b"\0\0"))),
        (TLS_MALFORMED, hello(&extension(13, b"\0\x03\x04\x03\x05"))),
        (TLS_MALFORMED, hello(&extension(13, b"\0\x02\x04\x03\x05"))),
        (TLS_TOO_MANY_EXTENSIONS, hello(&grown(EXTENSIONS_MAX + 1))),
        (TLS_TOO_MANY_ALPN, hello(&alpn(&protocols))),
        (TLS_SNI_COUNT, hello(&sni_of(0, &[]))),
        (TLS_SNI_COUNT, hello(&sni_of(0, &[b"a", b"b"]))),
        (TLS_SNI_COUNT, hello(&sni_of(0, &[b"a", b"a"]))),
        (TLS_SNI_TYPE, hello(&sni_of(1, &[b"a"]))),
        (TLS_SNI_EMPTY, hello(&sni(b""))),
        (TLS_SNI_INVALID, hello(&sni(b"."))),
        (TLS_SNI_INVALID, hello(&sni(b"a b"))),
        (TLS_SNI_INVALID, hello(&sni(b"a\0.example"))),
        (TLS_SNI_INVALID, hello(&sni(b"a..b"))),
        (TLS_SNI_INVALID, hello(&sni(b".a"))),
        (TLS_SNI_INVALID, hello(&sni(b"a.."))),
        (TLS_SNI_INVALID, hello(&sni(b"a:443"))),
        (TLS_SNI_INVALID, hello(&sni(b"*.a"))),
        (TLS_SNI_INVALID, hello(&sni(b"b\xc3\xbccher"))),
        (TLS_SNI_INVALID, hello(&sni(b"[::1]"))),
        (TLS_SNI_INVALID, hello(&sni(&[b'a'; 64]))),
        (TLS_SNI_INVALID, hello(&sni(&b"abc.".repeat(64)))),
    ]
    .into()
}

fn trailing() -> Vec<(Refusal, Vec<u8>)> {
    let message = hello(&sni(b"a"));
    [
        (
            TLS_TRAILING_DATA,
            record(22, &[&message[..], b"\0"].concat()),
        ),
        (
            TLS_TRAILING_DATA,
            record(22, &[&message[..], &message[..]].concat()),
        ),
        (
            TLS_TRAILING_DATA,
            [
                record(22, &message[..9]),
                record(22, &[&message[9..], b"\0"].concat()),
            ]
            .concat(),
        ),
    ]
    .into()
}

#[test]
fn wrong_headers_are_refused_at_their_first_wrong_byte() {
    for (want, stream) in headers() {
        let shown = stream.escape_ascii();
        assert_eq!(tls(&[&stream]), TlsProgress::Refused(want), "{shown}");
        assert_eq!(
            tls(&cut(&stream, &[1])),
            TlsProgress::Refused(want),
            "{shown}"
        );
        let before = &stream[..stream.len() - 1];
        assert_eq!(tls(&cut(before, &[1])), TlsProgress::NeedMore, "{shown}");
        assert_eq!(tls(&[before]), TlsProgress::NeedMore, "{shown}");
    }
}

#[test]
fn wrong_hellos_are_refused_however_they_are_cut() {
    let mut table = trailing();
    for (want, message) in hellos() {
        table.push((want, records(&message, 16384)));
        table.push((want, records(&message, 100)));
    }
    for (i, (want, stream)) in table.iter().enumerate() {
        for pieces in [&[][..], &[1], &[7, 64]] {
            let got = tls(&cut(stream, pieces));
            assert_eq!(
                got,
                TlsProgress::Refused(*want),
                "case {i}, pieces {pieces:?}"
            );
        }
    }
}

#[test]
fn a_reader_has_no_use_behind_the_hello() {
    let mut reader = ClientHelloReader::new();
    assert!(matches!(
        reader.push(&records(&hello(&[]), 99)),
        TlsProgress::Done(_)
    ));
    assert_eq!(reader.push(b"\x16"), TlsProgress::Refused(TLS_AFTER_HELLO));
}

#[test]
fn every_tls_reason_is_tested() {
    let tested: Vec<_> = [headers(), hellos(), trailing()]
        .concat()
        .into_iter()
        .map(|(refusal, _)| refusal)
        .collect();
    for refusal in ALL.iter().filter(|r| r.reason.starts_with("tls-")) {
        // They have their own tests: behind the hello, and in what `detect` finds.
        let elsewhere = [
            TLS_AFTER_HELLO,
            TLS_RECORD_TYPE,
            TLS_CHANGE_CIPHER_SPEC,
            TLS_TOO_MANY_RECORDS,
            TLS_SPLIT_HELLO,
            TLS_SSLV2_HELLO,
        ];
        assert!(
            tested.contains(refusal) || elsewhere.contains(refusal),
            "{}",
            refusal.reason
        );
    }
}
