use tollgate_l7::{ClientHello, TlsProgress};

use crate::drive::{cut, tls};
use crate::tls_build::*;

fn done(stream: &[u8]) -> ClientHello {
    match tls(&[stream]) {
        TlsProgress::Done(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_is_read_whole() {
    let extensions = [
        sni(b"WWW.Example.com."),
        alpn(&[b"h2", b"http/1.1"]),
        versions(&[0x0a0a, 0x304, 0x303]),
    ];
    let message = hello(&extensions.concat());
    let want = ClientHello {
        sni: Some("www.example.com".into()),
        alpn: vec!["h2".into(), "http/1.1".into()],
        versions: vec![0x0a0a, 0x304, 0x303],
        ech: false,
        early_data: false,
        psk: false,
        cipher_suites: vec![0x1301, 0x1302],
        extensions: vec![0, 16, 43],
        signature_algorithms: vec![],
        alpn_ends: Some((b'h', b'2')),
        legacy_version: 0x303,
        session_id_len: 32,
        len: message.len(),
    };
    assert_eq!(done(&records(&message, 16384)), want);
    // What follows the hello's record is not looked at.
    assert_eq!(
        done(&[records(&message, 16384), record(20, &[1])].concat()),
        want
    );
}

#[test]
fn names_are_brought_to_one_form() {
    let table: [(&[u8], &str); 7] = [
        (b"a", "a"),
        (b"A.B", "a.b"),
        (b"a.b.", "a.b"),
        (b"_x-1.example", "_x-1.example"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"2001:DB8::1", "2001:db8::1"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
    ];
    for (sent, want) in table {
        let hello = done(&records(&hello(&sni(sent)), 16384));
        assert_eq!(hello.sni.as_deref(), Some(want));
    }
}

#[test]
fn optional_parts_may_be_missing() {
    let bare = done(&records(&message(1, &fixed_part()), 16384));
    assert_eq!((bare.sni, bare.versions), (None, vec![0x303]));
    let empty = done(&records(&hello(&[]), 16384));
    assert!(empty.alpn.is_empty() && !empty.ech && !empty.early_data);
}

#[test]
fn encryption_of_the_hello_and_early_data_are_seen() {
    for kind in [0xfe0d, 0xffce] {
        assert!(done(&records(&hello(&extension(kind, &[0, 1, 2])), 16384)).ech);
    }
    assert!(done(&records(&hello(&extension(42, &[])), 16384)).early_data);
}

#[test]
fn protocols_that_are_not_text_are_replaced() {
    let hello = done(&records(&hello(&alpn(&[b"\x8a\x8a", b"h2"])), 16384));
    assert_eq!(hello.alpn, ["\u{fffd}\u{fffd}", "h2"]);
}

#[test]
fn records_and_pieces_may_cut_anywhere() {
    let message = hello(&[sni(b"a.example"), alpn(&[b"h2"])].concat());
    let want = tls(&[&records(&message, 16384)]);
    assert!(matches!(want, TlsProgress::Done(_)));
    for record in [1, 2, 3, 4, 5, 50, message.len() - 1, message.len()] {
        let stream = records(&message, record);
        for piece in [1, 2, 5, 6, 7, 64, stream.len()] {
            assert_eq!(
                tls(&cut(&stream, &[piece])),
                want,
                "records {record} pieces {piece}"
            );
        }
        assert_eq!(tls(&[&stream[..stream.len() - 1]]), TlsProgress::NeedMore);
    }
}

#[test]
fn large_hellos_pass() {
    for size in [3_000, 17_000, 60_000] {
        let message = hello(&[extension(21, &vec![0; size]), sni(b"a")].concat());
        for pieces in [&[][..], &[1], &[1448]] {
            let stream = records(&message, 16384);
            let TlsProgress::Done(hello) = tls(&cut(&stream, pieces)) else {
                panic!("{size}")
            };
            assert_eq!(
                (hello.sni.as_deref(), hello.len),
                (Some("a"), message.len())
            );
        }
    }
}

#[test]
fn resumption_is_seen() {
    let psk = extension(41, &[0; 8]);
    let resumed = done(&records(&hello(&[sni(b"a"), psk].concat()), 16384));
    assert!(resumed.psk);
    assert!(!done(&records(&hello(&sni(b"a")), 16384)).psk);
}

#[test]
fn the_highest_version_is_found_among_others() {
    let table: [(&[u16], Option<u16>); 7] = [
        (&[0x304, 0x303], Some(0x304)),
        (&[0x303, 0x304], Some(0x304)),
        (&[0xfafa, 0x302], Some(0x302)),
        (&[0x7f1c, 0x301], Some(0x301)),
        (&[0xfefd, 0x300], Some(0x300)),
        (&[0x305, 0x304], Some(0x305)),
        (&[0x1a1a], None),
    ];
    for (offered, want) in table {
        let hello = done(&records(&hello(&versions(offered)), 16384));
        assert_eq!(hello.max_version(), want, "{offered:x?}");
    }
    assert_eq!(
        done(&records(&hello(&[]), 16384)).max_version(),
        Some(0x303)
    );
}

#[test]
fn versions_have_names() {
    let names: Vec<_> = (0x2ff..0x306).map(tollgate_l7::version_name).collect();
    let want = [
        None,
        None,
        Some("1.0"),
        Some("1.1"),
        Some("1.2"),
        Some("1.3"),
        None,
    ];
    assert_eq!(names, want);
}
