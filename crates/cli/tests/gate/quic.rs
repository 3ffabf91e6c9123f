//! QUIC of a real client: its connections are judged by the name in their hellos, each by itself,
//! also those that share a socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, Incoming, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{API, Bed, FAMILIES, same, success};
use crate::net::{STUCK, any, outside, spawn};

const PORT: u16 = 443;
/// Goes both ways: many packets, with acknowledgements between them.
const ECHOED: usize = 1 << 20;
/// A name that the server's certificate has and the policy does not allow.
const DENIED: &str = "evil.example.net";
/// A connection that is not made in so long, to a server next door, is not let through: the hello
/// has been sent again by then.
const NOT_MADE: Duration = Duration::from_secs(3);

const QUIC_POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
    - name: quic
      action: Allow
      ports: [{protocol: UDP, port: 443}]
      l7Protocols: [{tls: {sni: api.example.com}}]
    - {name: rest, action: Reject}
";

/// A server that sends back what comes on each stream, and counts the connections asked for.
struct Server {
    asked: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(bed: &Bed, family: Family) -> Server {
        let (cert, key) = bed.lab.names.server_pem();
        let config = ServerConfig::with_single_cert(
            certificates(&cert),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        );
        let config = config.unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let thread = spawn(bed, Place::Out, move || {
            block_on(async {
                let address = SocketAddr::from((any(family), PORT));
                let endpoint = Endpoint::server(config, address).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(&endpoint, &count) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv_timeout(STUCK).expect("the server listens");
        Server {
            asked,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    // One thread: the namespace is the thread's.
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(work)
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(path).unwrap();
    all.map(Result::unwrap).collect()
}

async fn serve(endpoint: &Endpoint, asked: &AtomicUsize) {
    while let Some(incoming) = endpoint.accept().await {
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(echo(incoming));
    }
}

async fn echo(incoming: Incoming) {
    let Ok(connection) = incoming.await else {
        return;
    };
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        while let Ok(Some(chunk)) = recv.read_chunk(64 << 10, true).await {
            if send.write_all(&chunk.bytes).await.is_err() {
                return;
            }
        }
        let _ = send.finish();
    }
}

/// Sends [`ECHOED`] bytes and compares what comes back.
async fn exchange(connection: &Connection) {
    let sent: Vec<u8> = (0..ECHOED).map(|i| (i % 251) as u8).collect();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let write = async {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    };
    let ((), received) = tokio::join!(write, recv.read_to_end(ECHOED));
    assert!(received.unwrap() == sent, "the echo differs");
}

/// Whether a connection under a name is made; if it is, bytes go both ways over it.
async fn connects(endpoint: &Endpoint, server: SocketAddr, name: &str) -> bool {
    let connecting = endpoint.connect(server, name).unwrap();
    let Ok(Ok(connection)) = timeout(NOT_MADE, connecting).await else {
        return false;
    };
    let exchanged = timeout(STUCK, exchange(&connection)).await;
    exchanged.unwrap_or_else(|_| panic!("{name}: the echo is not complete"));
    connection.close(0_u32.into(), b"");
    true
}

#[test]
fn quic_protocols() {
    let mut bed = Bed::new("quic");
    bed.change(|bed| bed.replace("policy.yaml", QUIC_POLICY));
    bed.run(&[("one socket", connections_of_one_socket)]);
}

fn connections_of_one_socket(bed: &mut Bed) {
    for family in FAMILIES {
        let server = Server::start(bed, family);
        let asked = Arc::clone(&server.asked);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&bed.lab.names.ca()));
        let config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let client = spawn(bed, Place::Pod, move || {
            block_on(async {
                let mut endpoint = Endpoint::client((any(family), 0).into()).unwrap();
                endpoint.set_default_client_config(config);
                let mut found = Vec::new();
                for name in [API, DENIED, API] {
                    let made = connects(&endpoint, outside(family, PORT), name).await;
                    found.push((name, made, asked.load(Ordering::Relaxed)));
                }
                found
            })
        });
        // The name, whether it was made, and how many the server was asked for so far.
        let expected = vec![(API, true, 1), (DENIED, false, 1), (API, true, 2)];
        same("connections", client.join().unwrap(), expected);
    }
    let output = bed.tollgate(&["observe", "--verdict", "denied", "-o", "json"]);
    let events = success(&output);
    assert!(
        events.contains(DENIED) && events.contains("tls-sni-no-rule-matches"),
        "{events}"
    );
}
