//! What clients of today send first, recorded from the programs (`tests/hellos`).

use std::path::PathBuf;

use tollgate_l7::{ClientHello, QuicEvent, QuicReader, QuicVersion, TlsProgress};

use crate::drive::{cut, tls};
use crate::quic_build::unhex;
use crate::tls_build::records;
use crate::tls_differential::{agree, oracle};

/// The name that every recorded client asked for.
const NAME: &str = "api.example.com";
/// The group X25519MLKEM768.
const POST_QUANTUM: u16 = 0x11ec;
/// Its share is an ML-KEM-768 encapsulation key of 1184 bytes and 32 bytes of X25519.
const SHARE: usize = 1184 + 32;
/// The extension with key shares.
const KEY_SHARE: u16 = 51;
/// Type, version and length before a record's payload.
const RECORD_HEADER: usize = 5;
/// What a full-sized Ethernet segment carries.
const MSS: usize = 1460;

/// A recording over TCP: file and protocols.
const TCP: [(&str, &[&str]); 10] = [
    ("curl", &["h2", "http/1.1"]),
    ("python", &["http/1.1"]),
    ("nghttp", &["h2", "h2-16", "h2-14"]),
    ("go", &["h2", "http/1.1"]),
    ("node", &[]),
    ("rustls", &["h2", "http/1.1"]),
    ("chromium-1", &["h2", "http/1.1"]),
    ("chromium-2", &["h2", "http/1.1"]),
    ("chromium-3", &["h2", "http/1.1"]),
    ("firefox", &["h2", "http/1.1"]),
];
/// A recording over UDP: file, and whether the hello has a post-quantum share.
const QUIC: [(&str, bool); 5] = [
    ("quic-chromium-1", true),
    ("quic-chromium-2", true),
    ("quic-chromium-3", true),
    ("quic-firefox", true),
    ("quic-aioquic", false),
];

/// A recording: its comments, and what was sent in its pieces.
struct Recording {
    comments: String,
    parts: Vec<Vec<u8>>,
}

impl Recording {
    fn read(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/hellos");
        let path = dir.join(format!("{name}.hex"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut blocks = text.split("\n\n");
        let comments = blocks.next().unwrap_or_default().to_owned();
        let parts: Vec<_> = blocks.map(unhex).collect();
        assert!(!parts.is_empty(), "{name} has no bytes");
        Self { comments, parts }
    }

    /// The fingerprint that the recorder worked out by itself.
    fn ja4(&self) -> &str {
        let words = self.comments.split("JA4 ").nth(1);
        words.expect("a fingerprint").trim()
    }
}

/// The one recorded piece of a client over TCP.
fn hello_of(name: &str) -> (Recording, Vec<u8>) {
    let mut recording = Recording::read(name);
    assert_eq!(recording.parts.len(), 1, "{name}");
    let bytes = recording.parts.remove(0);
    (recording, bytes)
}

fn done(name: &str, pieces: &[&[u8]]) -> ClientHello {
    match tls(pieces) {
        TlsProgress::Done(hello) => hello,
        other => panic!("{name}: {other:?}"),
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte))
}

/// Groups and lengths of the key shares in a hello of one record, found by walking its fields.
fn key_shares(stream: &[u8]) -> Vec<(u16, usize)> {
    let mut rest = &stream[RECORD_HEADER + 4 + 2 + 32..];
    for length_size in [1, 2, 1] {
        rest = &rest[length_size + number(&rest[..length_size])..];
    }
    rest = &rest[2..];
    while number(&rest[..2]) != usize::from(KEY_SHARE) {
        rest = &rest[4 + number(&rest[2..4])..];
    }
    let mut list = &rest[6..4 + number(&rest[2..4])];
    let mut found = Vec::new();
    while !list.is_empty() {
        let len = number(&list[2..4]);
        found.push((u16::from_be_bytes([list[0], list[1]]), len));
        list = &list[4 + len..];
    }
    found
}

#[test]
fn name_protocols_and_fingerprint_are_found() {
    for (name, alpn) in TCP {
        let (recording, bytes) = hello_of(name);
        let hello = done(name, &[&bytes]);
        assert_eq!(hello.sni.as_deref(), Some(NAME), "{name}");
        assert_eq!(hello.alpn, alpn, "{name}");
        assert_eq!(hello.max_version(), Some(0x304), "{name}");
        assert!(!hello.early_data && !hello.psk, "{name}: a first hello");
        assert_eq!(hello.ja4(false), recording.ja4(), "{name}");
        let theirs = oracle(&bytes).unwrap_or_else(|| panic!("tls-parser does not read {name}"));
        agree(&hello, &theirs);
    }
}

#[test]
fn they_are_as_large_as_post_quantum_shares_make_them() {
    for (name, _) in TCP {
        let (_, bytes) = hello_of(name);
        let shares = key_shares(&bytes);
        assert!(
            shares.contains(&(POST_QUANTUM, SHARE)),
            "{name}: {shares:x?}"
        );
        assert!(bytes.len() > MSS, "{name} fits into a segment");
    }
}

#[test]
fn they_are_read_however_they_are_cut() {
    for (name, _) in TCP {
        let (_, bytes) = hello_of(name);
        let want = tls(&[&bytes]);
        for at in 1..bytes.len() {
            let (start, end) = bytes.split_at(at);
            assert_eq!(tls(&[start]), TlsProgress::NeedMore, "{name} up to {at}");
            assert_eq!(tls(&[start, end]), want, "{name} cut at {at}");
        }
        for size in [1, 2, 7, 88, 536, 1200, MSS] {
            assert_eq!(tls(&cut(&bytes, &[size])), want, "{name} in {size}");
        }
    }
}

#[test]
fn they_are_read_in_records_of_any_size() {
    for (name, _) in TCP {
        let (_, bytes) = hello_of(name);
        let want = tls(&[&bytes]);
        let message = &bytes[RECORD_HEADER..];
        for size in 1..message.len() {
            let stream = records(message, size);
            assert_eq!(tls(&[&stream]), want, "{name} in records of {size}");
        }
        let stream = records(message, 100);
        assert_eq!(tls(&cut(&stream, &[1])), want, "{name}, byte by byte");
    }
}

#[test]
fn a_browser_never_sends_the_same_hello_twice() {
    let hellos = ["chromium-1", "chromium-2", "chromium-3"].map(|name| {
        let (_, bytes) = hello_of(name);
        done(name, &[&bytes])
    });
    let [one, two, three] = &hellos;
    assert!(one.extensions != two.extensions && two.extensions != three.extensions);
    let prints = hellos.each_ref().map(|hello| hello.ja4(false));
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
}

/// The hello that datagrams amount to; those before the last one may be forwarded at once.
fn quic(name: &str, datagrams: &[&[u8]]) -> ClientHello {
    let mut reader = QuicReader::new();
    let mut found = None;
    for (at, datagram) in datagrams.iter().enumerate() {
        match reader.push(datagram) {
            QuicEvent::NeedMore | QuicEvent::Known => {}
            QuicEvent::Hello(hello, version) => {
                assert_eq!(version, QuicVersion::V1, "{name}");
                assert!(found.replace(hello).is_none(), "{name}: two hellos");
            }
            other => panic!("{name}, datagram {at}: {other:?}"),
        }
    }
    found.unwrap_or_else(|| panic!("{name}: no hello"))
}

#[test]
fn first_datagrams_of_quic_clients_are_read_in_any_order() {
    for (name, post_quantum) in QUIC {
        let recording = Recording::read(name);
        let mut datagrams: Vec<&[u8]> = recording.parts.iter().map(Vec::as_slice).collect();
        let hello = quic(name, &datagrams);
        assert_eq!(hello.sni.as_deref(), Some(NAME), "{name}");
        assert_eq!(hello.alpn, ["h3"], "{name}");
        assert!(hello.ja4(true).starts_with("q13d"), "{name}");
        assert_eq!(hello.len > SHARE, post_quantum, "{name}: {}", hello.len);
        // A share of that size does not fit into one datagram.
        assert_eq!(datagrams.len() > 1, post_quantum, "{name}");
        let twice: Vec<&[u8]> = datagrams.iter().flat_map(|d| [*d, *d]).collect();
        assert_eq!(quic(name, &twice), hello, "{name}, each twice");
        datagrams.reverse();
        assert_eq!(quic(name, &datagrams), hello, "{name}, last first");
    }
}

#[test]
fn a_denied_quic_client_stays_denied() {
    for (name, _) in QUIC {
        let recording = Recording::read(name);
        let mut reader = QuicReader::new();
        for datagram in &recording.parts {
            if matches!(reader.push(datagram), QuicEvent::Hello(..)) {
                reader.deny();
            }
        }
        for datagram in &recording.parts {
            let event = reader.push(datagram);
            assert!(matches!(event, QuicEvent::Refused(_)), "{name}: {event:?}");
        }
    }
}
