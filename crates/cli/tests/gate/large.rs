//! One connection that carries more than twice 2^32 bytes: sequence numbers wrap, windows move.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{Bed, same};
use crate::net::{STUCK, open, read_response, spawn};
use crate::transfer::unharmed;

/// Bytes of the flow: the sequence number wraps twice and then some.
const BYTES: u64 = 10 << 30;
/// SHA-256 of them; `generator` says what they are.
const SHA256: &str = "3f9f5928cab237e4c3cecf3ee9c90a454cbb748e785fcb9e2df470fae4842c09";
/// What one direction may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Frames that may come up: a window covers less than 2^31 bytes, so it has to be moved.
const FRAMES: u64 = 5_000;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

#[test]
fn ten_gibibytes_in_one_connection() {
    Bed::new("large").run(&[
        ("upload", |bed| measured(bed, "upload", upload)),
        ("download", |bed| measured(bed, "download", download)),
        ("nothing was wrong", |bed| unharmed(bed)),
    ]);
}

fn measured(bed: &mut Bed, what: &str, work: fn(&Bed) -> String) {
    let (begin, before) = (Instant::now(), bed.counter("frames_in"));
    same("hash of what arrived", work(bed).as_str(), SHA256);
    let (took, frames) = (begin.elapsed(), bed.counter("frames_in") - before);
    let rate = BYTES as f64 * 8.0 / took.as_secs_f64() / 1e9;
    eprintln!("{what}: {took:.1?}, {rate:.1} Gbit/s, {frames} frames came up");
    assert!(took < LIMIT, "{what}: {took:?}");
    assert!(frames < FRAMES, "{what}: {frames} frames came up");
}

/// A stream without repetition, faster than any hash: AES in counter mode over zeros, of which
/// the first [`BYTES`] are used.
fn generator() -> Child {
    let line = "enc -aes-128-ctr -nosalt -K 000102030405060708090a0b0c0d0e0f \
                -iv 00000000000000000000000000000000 -in /dev/zero";
    let mut command = Command::new("openssl");
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    fcntl_setpipe_size(child.stdout.as_ref().unwrap(), CHUNK).unwrap();
    child
}

/// Several times as fast as sha256sum, which does without the processor's instructions for it.
fn hasher() -> Child {
    let mut command = Command::new("openssl");
    command.args(["sha256", "-r"]).stdin(Stdio::piped());
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    fcntl_setpipe_size(child.stdin.as_ref().unwrap(), CHUNK).unwrap();
    child
}

/// Reads exactly [`BYTES`] and returns their hash.
fn hash(from: &mut impl Read) -> String {
    let mut child = hasher();
    let mut pipe = child.stdin.take().unwrap();
    let copied = copy(from, &mut pipe);
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    copied.unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

fn send(to: &mut TcpStream) -> io::Result<()> {
    let mut child = generator();
    let mut from: ChildStdout = child.stdout.take().unwrap();
    let sent = copy(&mut from, to);
    // It would go on for ever.
    let _ = child.kill();
    let _ = child.wait();
    sent
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut left = BYTES;
    while left > 0 {
        let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::Error::other(format!("{left} bytes are missing")));
        }
        to.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// A listener in the outside namespace.
fn listen(bed: &Bed) -> TcpListener {
    let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
    spawn(bed, Place::Out, bind).join().unwrap()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (tcp, _) = listener.accept().unwrap();
    tcp.set_read_timeout(Some(STUCK)).unwrap();
    tcp.set_write_timeout(Some(STUCK)).unwrap();
    tcp
}

fn read_head(tcp: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

fn upload(bed: &Bed) -> String {
    let listener = listen(bed);
    let server = std::thread::spawn(move || {
        let mut tcp = accept(&listener);
        read_head(&mut tcp);
        let hash = hash(&mut tcp);
        tcp.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        hash
    });
    let mut tcp = open(bed, Family::V4, 8080);
    let head = format!(
        "PUT /upload/large HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {BYTES}\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).unwrap();
    send(&mut tcp).unwrap();
    let hash = server.join().unwrap();
    same("answer", read_response(&mut tcp).unwrap(), 201);
    // The connection is still HTTP: the next request is judged, 10 GiB later.
    tcp.write_all(b"GET /admin HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        .unwrap();
    let denied = read_response(&mut tcp);
    assert!(matches!(denied, Ok(403) | Err(_)), "{denied:?}");
    hash
}

fn download(bed: &Bed) -> String {
    let listener = listen(bed);
    let server = std::thread::spawn(move || {
        let mut tcp = accept(&listener);
        read_head(&mut tcp);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        send(&mut tcp)
    });
    let mut tcp = open(bed, Family::V4, 8080);
    tcp.write_all(b"GET /v2/large HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        .unwrap();
    read_head(&mut tcp);
    let hash = hash(&mut tcp);
    server.join().unwrap().unwrap();
    hash
}
