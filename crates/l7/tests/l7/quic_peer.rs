//! What a real client sends: quinn's, in a conversation with quinn's server in memory.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    ServerConfig,
};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::PrivateKeyDer;
use tollgate_l7::{QuicEvent, QuicReader, QuicVersion};

use crate::quic::handed;

const NAME: &str = "www.example.com";
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// What the server does beyond the plain handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    /// A Retry packet before it looks at the hello.
    Retry,
    /// Another key share: a HelloRetryRequest.
    KeyShare,
}

fn provider(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.kx_groups = groups.to_vec();
    Arc::new(provider)
}

fn configs(demand: Demand) -> (ClientConfig, ServerConfig) {
    use ring::kx_group::{SECP256R1, X25519};
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("certificate");
    let cert = issued.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.clone()).expect("root");

    let mut client = rustls::ClientConfig::builder_with_provider(provider(&[X25519, SECP256R1]))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let groups: &[&dyn SupportedKxGroup] = match demand {
        Demand::KeyShare => &[SECP256R1],
        _ => &[X25519],
    };
    let mut server = rustls::ServerConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("certificate and key");
    server.alpn_protocols = vec![b"h3".to_vec()];

    let client = QuicClientConfig::try_from(client).expect("client");
    let server = QuicServerConfig::try_from(server).expect("server");
    let client = ClientConfig::new(Arc::new(client));
    (client, ServerConfig::with_crypto(Arc::new(server)))
}

struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    peer: SocketAddr,
}

impl Side {
    /// The next datagrams that the connection wants to send.
    fn send(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let Some((handle, connection)) = &mut self.connection else {
            return Vec::new();
        };
        while connection.poll().is_some() {}
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut out = Vec::new();
        loop {
            let mut buf = Vec::new();
            let Some(transmit) = connection.poll_transmit(now, 1, &mut buf) else {
                return out;
            };
            buf.truncate(transmit.size);
            out.push(buf);
        }
    }

    /// Takes a datagram; what the endpoint itself answers comes back.
    fn receive(&mut self, now: Instant, datagram: &[u8], retry: bool) -> Option<Vec<u8>> {
        let mut buf = Vec::new();
        let peer = self.peer;
        let event = self
            .endpoint
            .handle(now, peer, None, None, datagram.into(), &mut buf);
        match event? {
            DatagramEvent::ConnectionEvent(_, event) => {
                self.connection.as_mut()?.1.handle_event(event);
                None
            }
            DatagramEvent::NewConnection(incoming) => {
                if retry && !incoming.remote_address_validated() {
                    let sent = self.endpoint.retry(incoming, &mut buf);
                    assert!(sent.is_ok());
                    return Some(buf);
                }
                let accepted = self.endpoint.accept(incoming, now, &mut buf, None);
                self.connection = accepted.ok();
                None
            }
            DatagramEvent::Response(_) => Some(buf),
        }
    }
}

/// A handshake and a little data; what the reader says to each of the client's datagrams.
fn talk(demand: Demand) -> Vec<QuicEvent> {
    let (client_config, server_config) = configs(demand);
    let config = Arc::new(EndpointConfig::default());
    let now = Instant::now();
    let mut client = Endpoint::new(config.clone(), None, false, None);
    let connection = client
        .connect(now, client_config, SERVER, NAME)
        .expect("connect");
    let mut client = Side {
        endpoint: client,
        connection: Some(connection),
        peer: SERVER,
    };
    let mut server = Side {
        endpoint: Endpoint::new(config, Some(Arc::new(server_config)), false, None),
        connection: None,
        peer: CLIENT,
    };
    let mut reader = QuicReader::new();
    let mut events = Vec::new();
    let mut wrote = false;
    for _ in 0..20 {
        let mut answers = Vec::new();
        for datagram in client.send(now) {
            events.push(reader.push(&datagram));
            answers.extend(server.receive(now, &datagram, demand == Demand::Retry));
        }
        answers.extend(server.send(now));
        for datagram in answers {
            client.receive(now, &datagram, false);
        }
        if let Some((_, connection)) = &mut client.connection
            && !connection.is_handshaking()
            && !wrote
        {
            let stream = connection.streams().open(Dir::Uni).expect("stream");
            let done = connection.send_stream(stream).write(b"hello");
            wrote = done.is_ok();
        }
    }
    let connected = server.connection.is_some_and(|(_, c)| !c.is_handshaking());
    assert!(connected && wrote);
    events
}

/// So many hellos are handed out, all for the same name, and everything else belongs to them.
fn check(events: Vec<QuicEvent>, hellos: usize) {
    assert!(matches!(events.last(), Some(QuicEvent::Known)));
    let mut seen = 0;
    for event in events {
        match event {
            QuicEvent::Hello(..) => {
                assert_eq!(handed(event), (NAME.to_owned(), QuicVersion::V1));
                seen += 1;
            }
            QuicEvent::Known => assert!(seen > 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, hellos);
}

#[test]
fn a_real_handshake_is_followed() {
    check(talk(Demand::Nothing), 1);
}

#[test]
fn a_real_handshake_with_a_retry_is_followed() {
    check(talk(Demand::Retry), 2);
}

#[test]
fn a_real_handshake_with_a_second_hello_is_followed() {
    check(talk(Demand::KeyShare), 2);
}
