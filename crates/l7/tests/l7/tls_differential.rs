//! Hellos of a real client, read by us and by tls-parser.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extensions,
    parse_tls_plaintext,
};
use tollgate_l7::{AfterHello, AfterHelloReader, ClientHello, TlsProgress};

use crate::drive::{cut, tls};
use crate::tls_build::{extension, message, record, vec8, vec16};

/// A rustls client that has not sent anything yet.
fn client(name: &str, alpn: &[Vec<u8>], fragment: Option<usize>) -> ClientConnection {
    let start = || -> Result<ClientConnection, Box<dyn std::error::Error>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.to_vec();
        config.max_fragment_size = fragment;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(ClientConnection::new(Arc::new(config), name)?)
    };
    start().unwrap_or_else(|error| panic!("rustls makes no hello for {name}: {error}"))
}

/// What the client sends until it waits.
fn sent(connection: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while connection.wants_write() {
        if let Err(error) = connection.write_tls(&mut out) {
            panic!("memory takes all: {error}");
        }
    }
    out
}

/// What a rustls client sends first.
fn client_hello(name: &str, alpn: &[Vec<u8>], fragment: Option<usize>) -> Vec<u8> {
    sent(&mut client(name, alpn, fragment))
}

/// A server's request for another hello, with a key for the group secp384r1 (RFC 8446 sections
/// 4.1.3 and 4.1.4).
fn hello_retry_request(session_id: &[u8]) -> Vec<u8> {
    const RANDOM: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8,
        0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8,
        0x33, 0x9c,
    ];
    let extensions = [extension(43, &[3, 4]), extension(51, &[0, 0x18])].concat();
    let body = [
        &[3, 3][..],
        &RANDOM,
        &vec8(session_id),
        &[0x13, 1, 0],
        &vec16(&extensions),
    ];
    record(22, &message(2, &body.concat()))
}

/// SNI, ALPN, versions, cipher suites and signature algorithms as tls-parser sees them, if it can
/// read the one record.
pub type Facts = (Option<Vec<u8>>, Vec<Vec<u8>>, Vec<u16>, Vec<u16>, Vec<u16>);

pub fn oracle(record: &[u8]) -> Option<Facts> {
    let (_, plaintext) = parse_tls_plaintext(record).ok()?;
    let [TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello))] = &plaintext.msg[..]
    else {
        return None;
    };
    let (rest, extensions) = parse_tls_client_hello_extensions(hello.ext.unwrap_or(b"")).ok()?;
    let ciphers = hello.ciphers.iter().map(|c| c.0).collect();
    let mut facts: Facts = (None, Vec::new(), Vec::new(), ciphers, Vec::new());
    for extension in extensions {
        match extension {
            TlsExtension::SNI(names) => {
                facts.0 = match &names[..] {
                    [(SNIType::HostName, name)] => Some(name.to_vec()),
                    _ => return None,
                };
            }
            TlsExtension::ALPN(list) => facts.1 = list.iter().map(|p| p.to_vec()).collect(),
            TlsExtension::SupportedVersions(list) => {
                facts.2 = list.iter().map(|v| v.0).collect();
            }
            TlsExtension::SignatureAlgorithms(list) => facts.4 = list,
            _ => {}
        }
    }
    rest.is_empty().then_some(facts)
}

/// Where both read a hello they must have read the same.
pub fn agree(ours: &ClientHello, theirs: &Facts) {
    let (sni, alpn, versions, ciphers, algorithms) = theirs;
    let sni = sni.as_ref().map(|name| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
    });
    if !sni.as_ref().is_some_and(|name| name.contains(':')) {
        assert_eq!(ours.sni, sni);
    }
    let alpn: Vec<_> = alpn
        .iter()
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect();
    assert_eq!(ours.alpn, alpn);
    if !versions.is_empty() {
        assert_eq!(&ours.versions, versions);
    }
    assert_eq!(&ours.cipher_suites, ciphers);
    assert_eq!(&ours.signature_algorithms, algorithms);
    assert_eq!(ours.alpn_ends.is_some(), !ours.alpn.is_empty());
    let lengths: Vec<_> = ours.ja4(false).split('_').map(str::len).collect();
    assert!(lengths == [10, 12, 12], "{}", ours.ja4(false));
}

fn read(stream: &[u8]) -> ClientHello {
    match tls(&[stream]) {
        TlsProgress::Done(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hellos_of_a_real_client_are_read_like_tls_parser_reads_them() {
    let long: Vec<Vec<u8>> = (0..40).map(|i| format!("{i:0>100}").into_bytes()).collect();
    for (name, alpn) in [
        ("www.example.com", vec![]),
        ("a.b", vec![b"h2".to_vec(), b"http/1.1".to_vec()]),
        ("192.0.2.1", vec![]),
        ("long.example", long),
    ] {
        let stream = client_hello(name, &alpn, None);
        assert!(
            alpn.len() < 40 || stream.len() > 3_000,
            "{} bytes",
            stream.len()
        );
        let hello = read(&stream);
        agree(&hello, &oracle(&stream).expect("tls-parser reads it"));
        let address = name.parse::<std::net::IpAddr>().is_ok();
        assert_eq!(hello.sni.as_deref(), (!address).then_some(name));
        assert_eq!(hello.alpn.len(), alpn.len());
        assert!(hello.versions.contains(&0x304));
    }
}

#[test]
fn a_real_clients_fragments_are_put_together() {
    let alpn: Vec<Vec<u8>> = (0..30).map(|i| format!("{i:0>120}").into_bytes()).collect();
    for fragment in [32, 100, 1000] {
        let stream = client_hello("frag.example", &alpn, Some(fragment));
        assert!(stream.len() > 3_000);
        for pieces in [&[][..], &[1], &[1448]] {
            let TlsProgress::Done(hello) = tls(&cut(&stream, pieces)) else {
                panic!("fragments of {fragment}")
            };
            assert_eq!(hello.sni.as_deref(), Some("frag.example"));
            assert_eq!(hello.alpn.len(), 30);
        }
    }
}

#[test]
fn a_real_clients_second_hello_is_found() {
    let mut client = client("retry.example", &[b"h2".to_vec()], None);
    let first = sent(&mut client);
    let hello = read(&first);
    // Record and message header, version, random, length of the session ID.
    let session_id = &first[5 + 4 + 2 + 32 + 1..][..hello.session_id_len];
    client
        .read_tls(&mut &hello_retry_request(session_id)[..])
        .expect("memory gives all");
    client.process_new_packets().expect("rustls takes it");
    let behind = sent(&mut client);
    assert_eq!(behind[0], 20, "change_cipher_spec comes first");
    for pieces in [&[][..], &[1], &[7, 64]] {
        let mut reader = AfterHelloReader::new(hello.early_data);
        let answers = cut(&behind, pieces)
            .into_iter()
            .map(|piece| reader.push(piece));
        let Some(AfterHello::Second(second)) = answers.last() else {
            panic!("no second hello in {}", behind.escape_ascii())
        };
        assert_eq!(second.sni, hello.sni);
        assert_eq!(second.ja4(false), hello.ja4(false));
    }
}

proptest! {
    /// A changed hello is refused or read as tls-parser reads it, and the cut does not matter.
    #[test]
    fn mutated_hellos_mean_the_same_to_both(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        sizes in prop::collection::vec(1usize..200, 0..6),
    ) {
        let mut stream = client_hello("www.example.com", &[b"h2".to_vec()], None);
        for (at, byte) in changes {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let whole = tls(&[&stream]);
        prop_assert_eq!(&tls(&cut(&stream, &sizes)), &whole);
        if let (TlsProgress::Done(hello), Some(facts)) = (&whole, oracle(&stream)) {
            agree(hello, &facts);
        }
    }
}
