//! Bulk transfers: as fast as they go for a time, or of a stated size with a hash.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::args::Args;
use super::http::{Rest, read_response};
use super::stream::{BUFFER, Stream, client, client_config, connect};
use crate::content;
use crate::error::{LabError, Result};

/// Time before the measurement in which windows open and send buffers fill.
const WARM_UP: Duration = Duration::from_millis(200);
/// Body length of each request of a timed upload: long enough that heads do not count.
const UPLOAD_BYTES: u64 = 1 << 30;
/// Seed of bodies made on the fly.
pub(super) const STREAM_SEED: u64 = 0x5eed;

/// Result of a timed transfer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BulkResult {
    /// Body bytes moved by all streams in the time measured.
    pub bytes: u64,
    /// The time measured, in seconds.
    pub seconds: f64,
}

impl BulkResult {
    /// Rate in Gbit/s (10^9 bits of payload a second).
    pub fn gbits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }
}

/// Result of a transfer of a stated size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashResult {
    /// Body bytes moved.
    pub bytes: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// SHA-256 of what was sent, in hexadecimal.
    pub sent_sha256: String,
    /// SHA-256 of what arrived, in hexadecimal.
    pub received_sha256: String,
}

/// Where to and how, common to all transfers.
struct Target {
    addr: SocketAddr,
    host: String,
    path: String,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Target {
    fn from(args: &Args) -> Result<Target> {
        let ca: Option<PathBuf> = args.get("ca")?;
        Ok(Target {
            addr: args.need("addr")?,
            host: args.need("host")?,
            path: args.need("path")?,
            tls: ca.map(|ca| client_config(&ca)).transpose()?.map(Arc::new),
        })
    }

    fn open(&self) -> Result<Stream> {
        client(connect(self.addr)?, &self.host, self.tls.as_ref())
    }

    fn head(&self, method: &str, length: Option<u64>) -> String {
        let length = length
            .map(|l| format!("Content-Length: {l}\r\n"))
            .unwrap_or_default();
        format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n{length}\r\n",
            self.path, self.host
        )
    }
}

/// What the streams of a timed transfer share.
struct Shared {
    target: Target,
    /// All streams are connected and have their first request out.
    started: Barrier,
    stop: AtomicBool,
    bytes: AtomicU64,
}

/// Keep-alive GETs of the same object, over and over, for `--seconds` on `--streams` connections.
pub fn download(args: &Args) -> Result<BulkResult> {
    timed(args, download_stream)
}

/// Keep-alive PUTs with bodies of 1 GiB for `--seconds` on `--streams` connections.
pub fn upload(args: &Args) -> Result<BulkResult> {
    timed(args, upload_stream)
}

fn timed(args: &Args, run: fn(&Shared, Stream) -> Result<()>) -> Result<BulkResult> {
    let streams: usize = args.or("streams", 1)?;
    let seconds: f64 = args.or("seconds", 2.0)?;
    let time = Duration::try_from_secs_f64(seconds);
    let time = time.map_err(|e| LabError::Usage(format!("--seconds {seconds}: {e}")))?;
    let shared = Shared {
        target: Target::from(args)?,
        started: Barrier::new(streams + 1),
        stop: AtomicBool::new(false),
        bytes: AtomicU64::new(0),
    };
    // Connected one after the other, before any thread waits: a refusal is an error, not a hang.
    let open = (0..streams)
        .map(|_| shared.target.open())
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let shared = &shared;
        let spawn = |stream| {
            scope.spawn(move || {
                shared.started.wait();
                run(shared, stream)
            })
        };
        let threads: Vec<_> = open.into_iter().map(spawn).collect();
        shared.started.wait();
        std::thread::sleep(WARM_UP);
        let (begin, before) = (Instant::now(), shared.bytes.load(Ordering::Relaxed));
        std::thread::sleep(time);
        let bytes = shared.bytes.load(Ordering::Relaxed) - before;
        let seconds = begin.elapsed().as_secs_f64();
        shared.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let died = || Err(LabError::Traffic("a stream's thread died".into()));
            thread.join().unwrap_or_else(|_| died())?;
        }
        Ok(BulkResult { bytes, seconds })
    })
}

fn download_stream(shared: &Shared, mut stream: Stream) -> Result<()> {
    let head = shared.target.head("GET", None);
    let mut buffer = vec![0; BUFFER];
    loop {
        send(&mut stream, head.as_bytes())?;
        let (mut left, rest) = expect_ok(&mut stream, Vec::new())?;
        left -= rest.len() as u64;
        while left > 0 {
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let n = receive(&mut stream, &mut buffer)?;
            shared.bytes.fetch_add(n as u64, Ordering::Relaxed);
            left = left.saturating_sub(n as u64);
        }
    }
}

fn upload_stream(shared: &Shared, mut stream: Stream) -> Result<()> {
    let head = shared.target.head("PUT", Some(UPLOAD_BYTES));
    let mut body = vec![0; BUFFER];
    content::Stream::new(STREAM_SEED).fill(&mut body);
    loop {
        send(&mut stream, head.as_bytes())?;
        for _ in 0..UPLOAD_BYTES / BUFFER as u64 {
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            send(&mut stream, &body)?;
            shared.bytes.fetch_add(BUFFER as u64, Ordering::Relaxed);
        }
        expect_ok(&mut stream, Vec::new())?;
    }
}

/// One GET of `--bytes` bytes, which the sink makes on the fly, in one connection.
pub fn hash_download(args: &Args) -> Result<HashResult> {
    let target = Target::from(args)?;
    let bytes: u64 = args.need("bytes")?;
    let mut stream = target.open()?;
    let begin = Instant::now();
    send(&mut stream, target.head("GET", None).as_bytes())?;
    let (length, rest) = expect_ok(&mut stream, Vec::new())?;
    if length != bytes {
        return Err(LabError::Traffic(format!(
            "a body of {length} bytes, not {bytes}"
        )));
    }
    let received = hash_body(&mut stream, &rest, length)?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut sent = Sha256::new();
    make_body(bytes, |chunk| {
        sent.update(chunk);
        Ok(())
    })?;
    let sent_sha256 = content::hex(&sent.finalize());
    Ok(HashResult {
        bytes,
        seconds,
        sent_sha256,
        received_sha256: received,
    })
}

/// One PUT of `--bytes` bytes in one connection; the sink answers with the hash of what arrived.
pub fn hash_upload(args: &Args) -> Result<HashResult> {
    let target = Target::from(args)?;
    let bytes: u64 = args.need("bytes")?;
    let mut stream = target.open()?;
    let begin = Instant::now();
    send(&mut stream, target.head("PUT", Some(bytes)).as_bytes())?;
    let mut sent = Sha256::new();
    make_body(bytes, |chunk| {
        sent.update(chunk);
        send(&mut stream, chunk)
    })?;
    let (length, mut answer) = expect_ok(&mut stream, Vec::new())?;
    let mut buffer = vec![0; BUFFER];
    while (answer.len() as u64) < length {
        let n = receive(&mut stream, &mut buffer)?;
        answer.extend_from_slice(&buffer[..n]);
    }
    Ok(HashResult {
        bytes,
        seconds: begin.elapsed().as_secs_f64(),
        sent_sha256: content::hex(&sent.finalize()),
        received_sha256: String::from_utf8_lossy(&answer).into_owned(),
    })
}

/// Makes a body of `bytes` bytes, chunk by chunk.
pub(super) fn make_body(bytes: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut stream = content::Stream::new(STREAM_SEED);
    let mut buffer = vec![0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        stream.fill(&mut buffer[..n]);
        each(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// Hash of a body of which `rest` was read already.
pub(super) fn hash_body(stream: &mut Stream, rest: &[u8], length: u64) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(rest);
    let mut left = length.saturating_sub(rest.len() as u64);
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let n = receive(stream, &mut buffer)?;
        hash.update(&buffer[..n]);
        left = left.saturating_sub(n as u64);
    }
    Ok(content::hex(&hash.finalize()))
}

pub(super) fn send(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(|e| LabError::Traffic(format!("sending: {e}")))
}

pub(super) fn receive(stream: &mut Stream, buffer: &mut [u8]) -> Result<usize> {
    match stream.read(buffer) {
        Ok(0) => Err(LabError::Traffic("closed inside a body".into())),
        Ok(n) => Ok(n),
        Err(e) => Err(LabError::Traffic(format!("receiving: {e}"))),
    }
}

/// A good response's body length, and what was read of the body.
fn expect_ok(stream: &mut Stream, rest: Rest) -> Result<(u64, Rest)> {
    let (head, rest) = read_response(stream, rest)?;
    match (head.status, head.length) {
        (200..=299, Some(length)) => Ok((length, rest)),
        (status, _) => Err(LabError::Traffic(format!("the answer was {status}"))),
    }
}
