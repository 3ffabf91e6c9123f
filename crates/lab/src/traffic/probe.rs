//! Probes with exact bytes: what a client sees when it sends just that.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

use super::args::Args;
use super::http::read_response;
use super::stream::{client_config, connect};
use crate::error::{LabError, Result};

/// Most bytes kept of what a probe receives.
const KEEP: usize = 64 << 10;
/// Longest protocol name in ALPN (RFC 7301, section 3.1: one length byte).
const ALPN_NAME: usize = 255;

/// What to send, in JSON on standard input of `raw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawRequest {
    /// Pieces, each sent on its own (without Nagle's delay, so as a TCP segment of its own).
    pub pieces: Vec<String>,
    /// Pause after each piece, in milliseconds.
    pub pause_ms: u64,
    /// The server's silence after which the probe ends, in milliseconds.
    pub idle_ms: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// FIN from the other side.
    Closed,
    /// RST from the other side.
    Reset,
    /// Nothing more came; still open.
    Silent,
    /// The connection could not be made: refused or reset.
    Refused,
}

/// What `raw` saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawResult {
    /// What came, lossily decoded, at most 64 KiB.
    pub received: String,
    /// How it ended.
    pub ending: Ending,
}

impl RawResult {
    /// The status codes of the HTTP/1.1 responses received, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let heads = self.received.split("HTTP/1.1 ").skip(1);
        heads.filter_map(|h| h.get(..3)?.parse().ok()).collect()
    }
}

/// What `hello` saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HelloResult {
    /// Bytes of the first flight: the ClientHello with its record header.
    pub hello_bytes: usize,
    /// TCP writes it was sent in.
    pub pieces: usize,
    /// Status of the GET that followed; `None` if there was no connection.
    pub status: Option<u16>,
    /// What went wrong instead.
    pub error: Option<String>,
}

/// Sends exact pieces to `--addr` and tells what came back.
pub fn raw(args: &Args) -> Result<RawResult> {
    let addr: SocketAddr = args.need("addr")?;
    let request: RawRequest = serde_json::from_reader(std::io::stdin())
        .map_err(|e| LabError::Usage(format!("standard input: {e}")))?;
    let Ok(mut tcp) = connect(addr) else {
        return Ok(RawResult {
            received: String::new(),
            ending: Ending::Refused,
        });
    };
    let idle = Duration::from_millis(request.idle_ms.max(1));
    tcp.set_read_timeout(Some(idle))
        .map_err(|e| LabError::Traffic(e.to_string()))?;
    for piece in &request.pieces {
        // A failure to send shows again, and better, when reading.
        let _ = tcp.write_all(piece.as_bytes());
        std::thread::sleep(Duration::from_millis(request.pause_ms));
    }
    Ok(read_all(&mut tcp))
}

fn read_all(tcp: &mut TcpStream) -> RawResult {
    let mut received = Vec::new();
    let mut buffer = [0; 16 << 10];
    let ending = loop {
        match tcp.read(&mut buffer) {
            Ok(0) => break Ending::Closed,
            Ok(n) if received.len() < KEEP => received.extend_from_slice(&buffer[..n]),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break Ending::Silent,
            Err(_) => break Ending::Reset,
        }
    };
    RawResult {
        received: String::from_utf8_lossy(&received).into_owned(),
        ending,
    }
}

/// A TLS client whose ClientHello has at least `--size` bytes and goes out in `--pieces` writes,
/// followed by a GET of `--path`.
pub fn hello(args: &Args) -> Result<HelloResult> {
    let addr: SocketAddr = args.need("addr")?;
    let (host, path): (String, String) = (args.need("host")?, args.need("path")?);
    let ca: PathBuf = args.need("ca")?;
    let (size, pieces): (usize, usize) = (args.need("size")?, args.or("pieces", 1)?);
    let mut config = client_config(&ca)?;
    config.alpn_protocols = alpn_of_size(size);
    let name = ServerName::try_from(host.clone());
    let name = name.map_err(|e| LabError::Usage(format!("--host {host:?}: {e}")))?;
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    let mut flight = Vec::new();
    tls.write_tls(&mut flight)
        .map_err(|e| LabError::Traffic(e.to_string()))?;
    let outcome = finish(addr, &mut tls, &flight, pieces.max(1), &host, &path);
    let (status, error) = match outcome {
        Ok(status) => (Some(status), None),
        Err(e) => (None, Some(e.to_string())),
    };
    Ok(HelloResult {
        hello_bytes: flight.len(),
        pieces: pieces.max(1),
        status,
        error,
    })
}

fn finish(
    addr: SocketAddr,
    tls: &mut ClientConnection,
    flight: &[u8],
    pieces: usize,
    host: &str,
    path: &str,
) -> Result<u16> {
    let failed = |e: std::io::Error| LabError::Traffic(e.to_string());
    let mut tcp = connect(addr)?;
    for piece in flight.chunks(flight.len().div_ceil(pieces).max(1)) {
        tcp.write_all(piece).map_err(failed)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut stream = rustls::Stream::new(tls, &mut tcp);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    read_response(&mut stream, Vec::new()).map(|(head, _)| head.status)
}

/// Protocol names that nobody speaks, some `size` bytes of them, after the one that is meant.
fn alpn_of_size(size: usize) -> Vec<Vec<u8>> {
    let fillers = (0..size.div_ceil(ALPN_NAME)).map(|i| {
        let mut name = format!("x-filler-{i:03}-").into_bytes();
        name.resize(ALPN_NAME, b'x');
        name
    });
    std::iter::once(b"http/1.1".to_vec())
        .chain(fillers)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_statuses_in_order() {
        let received = "HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 403 Forbidden\r\n\r\n".to_owned();
        let result = RawResult {
            received,
            ending: Ending::Closed,
        };
        assert_eq!(result.statuses(), [200, 403]);
    }

    #[test]
    fn fills_a_hello_to_its_size() {
        let names = alpn_of_size(3000);
        assert_eq!(names[0], b"http/1.1");
        assert!(names.iter().map(|n| n.len() + 1).sum::<usize>() > 3000);
        assert!(names.iter().all(|n| n.len() <= 255));
    }
}
