//! QUIC between two namespaces: streams whose bytes come back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tollgate_doctor::case::ProbeOutcome;
use tollgate_doctor::probe::netns::within;

use crate::engine::HOST;
use crate::error::{ConformanceError, Result};

/// Bytes that the server reads and sends back at a time.
const CHUNK: usize = 64 << 10;

/// Opens a connection from one namespace to the other and sends `bytes` bytes there and back on each of
/// `streams` streams at once.
pub(crate) fn exchange(
    from: &Path,
    to: &Path,
    address: SocketAddr,
    streams: usize,
    bytes: u64,
    time: Duration,
) -> Result<ProbeOutcome> {
    let fail = |e: &dyn std::fmt::Display| ConformanceError::Quic(e.to_string());
    let any: SocketAddr = match address.is_ipv6() {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let server = within(to, || UdpSocket::bind(address))?.map_err(|e| fail(&e))?;
    let client = within(from, || UdpSocket::bind(any))?.map_err(|e| fail(&e))?;
    let configs = configs()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| fail(&e))?;
    runtime.block_on(async {
        let (server, client) = endpoints(server, client, configs).map_err(|e| fail(&e))?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let talk = talk(&client, address, streams, bytes);
        let talked = tokio::select! {
            talked = tokio::time::timeout(time, talk) => talked,
            () = serve(&server) => Ok(Err("the server ended".to_owned())),
        };
        Ok(match talked {
            Ok(Ok(())) => ProbeOutcome::Passed,
            Ok(Err(why)) => ProbeOutcome::Failed(why),
            Err(_) => ProbeOutcome::Failed(format!("not done within {} s", time.as_secs())),
        })
    })
}

/// A certificate of its own for each run: nobody else has the key.
fn configs() -> Result<(ServerConfig, ClientConfig)> {
    let fail = |e: &dyn std::fmt::Display| ConformanceError::Quic(e.to_string());
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).map_err(|e| fail(&e))?;
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server =
        ServerConfig::with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|e| fail(&e))?;
    let client = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(|e| fail(&e))?;
    Ok((server.map_err(|e| fail(&e))?, client))
}

fn endpoints(
    server: UdpSocket,
    client: UdpSocket,
    configs: (ServerConfig, ClientConfig),
) -> io::Result<(Endpoint, Endpoint)> {
    let runtime = || Arc::new(TokioRuntime);
    let config = EndpointConfig::default();
    let server = Endpoint::new(config.clone(), Some(configs.0), server, runtime())?;
    let mut client = Endpoint::new(config, None, client, runtime())?;
    client.set_default_client_config(configs.1);
    Ok((server, client))
}

/// Sends back what comes.
async fn serve(server: &Endpoint) {
    while let Some(incoming) = server.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(echo(send, recv));
            }
        });
    }
}

async fn echo(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    while let Ok(Some(chunk)) = recv.read_chunk(CHUNK, true).await {
        if send.write_all(&chunk.bytes).await.is_err() {
            return;
        }
    }
    // The client has gone: nobody waits for the end.
    let _ = send.finish();
}

async fn talk(
    client: &Endpoint,
    to: SocketAddr,
    streams: usize,
    bytes: usize,
) -> Result<(), String> {
    let connecting = client.connect(to, HOST).map_err(|e| e.to_string())?;
    let connection = connecting
        .await
        .map_err(|e| format!("no connection: {e}"))?;
    let all: Vec<_> = (0..streams)
        .map(|number| tokio::spawn(one(connection.clone(), number, bytes)))
        .collect();
    for stream in all {
        stream.await.map_err(|e| e.to_string())??;
    }
    connection.close(0_u32.into(), b"");
    Ok(())
}

/// One stream: what comes back must be what was sent, which differs from stream to stream.
async fn one(connection: Connection, number: usize, bytes: usize) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("stream {number}: {e}");
    let mut sent = vec![0; bytes];
    tollgate_lab::content::Stream::new(number as u64).fill(&mut sent);
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| told(&e))?;
    let write = async {
        send.write_all(&sent).await.map_err(|e| told(&e))?;
        send.finish().map_err(|e| told(&e))
    };
    let read = async { recv.read_to_end(bytes).await.map_err(|e| told(&e)) };
    let ((), back) = tokio::try_join!(write, read)?;
    match back == sent {
        true => Ok(()),
        false => Err(format!(
            "stream {number}: what came back is not what was sent"
        )),
    }
}
