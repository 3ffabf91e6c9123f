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
use tollgate_l7::{ClientHello, TlsProgress};

use crate::drive::{cut, tls};

/// What a rustls client sends first.
fn client_hello(name: &str, alpn: &[Vec<u8>], fragment: Option<usize>) -> Vec<u8> {
    let start = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.to_vec();
        config.max_fragment_size = fragment;
        let name = ServerName::try_from(name.to_owned())?;
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out)?;
        }
        Ok(out)
    };
    start().unwrap_or_else(|error| panic!("rustls makes no hello for {name}: {error}"))
}

/// SNI, ALPN and versions as tls-parser sees them, if it can read the one record.
type Facts = (Option<Vec<u8>>, Vec<Vec<u8>>, Vec<u16>);

fn oracle(record: &[u8]) -> Option<Facts> {
    let (_, plaintext) = parse_tls_plaintext(record).ok()?;
    let [TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello))] = &plaintext.msg[..]
    else {
        return None;
    };
    let (rest, extensions) = parse_tls_client_hello_extensions(hello.ext.unwrap_or(b"")).ok()?;
    let mut facts: Facts = (None, Vec::new(), Vec::new());
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
            _ => {}
        }
    }
    rest.is_empty().then_some(facts)
}

/// Where both read a hello they must have read the same.
fn agree(ours: &ClientHello, theirs: &Facts) {
    let (sni, alpn, versions) = theirs;
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
