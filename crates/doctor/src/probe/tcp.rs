//! TCP: a connection for each transfer, opened by the endpoint, an HTTP head in front of the payload.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, poll};

use super::content::Content;
use super::netns::within;
use super::{Direction, Moved, Probe, ProbeError, ProbeKind, Trouble, Way};

/// How long one system call waits before the deadline and the other side are looked at again.
const TICK: Duration = Duration::from_millis(50);
/// Pause between two looks at what has arrived: less than a round trip on one machine.
const PACE: Duration = Duration::from_micros(20);
/// Size of writes of a burst: what a super-packet holds without BIG TCP (`GSO_LEGACY_MAX_SIZE`).
const BURST_WRITE: usize = 64 << 10;
/// Payload of a small probe.
const SMALL: u64 = 64;
/// Full-sized segments of an MTU probe: more than one, since the first may be sent in pieces.
const MTU_SEGMENTS: u64 = 8;
/// Writes of a checksum probe, and bytes of each: small ones in a number that shows also a fault that
/// strikes only some.
const CHECKSUM_WRITES: u64 = 256;
/// See [`CHECKSUM_WRITES`].
const CHECKSUM_WRITE: usize = 100;
/// Longest HTTP head that is read.
const HEAD_MAX: usize = 8192;
/// Bytes read at a time.
const READ: usize = 256 << 10;
/// Seed of the payload's bytes.
const SEED: u64 = 0x7463_7070;

/// How the payload is handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// So many bytes a call.
    Of(usize),
    /// One full-sized segment a call, or `extra` bytes more than that.
    Segments {
        /// Bytes beyond the segment.
        extra: usize,
    },
}

/// What to move over one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which way.
    pub direction: Direction,
    /// How it is written.
    pub writes: Writes,
    /// Number of writes.
    pub count: u64,
    /// Each write waits until the one before has arrived, and so is a packet by itself; without, the kernel
    /// joins them.
    pub paced: bool,
}

impl Job {
    /// A burst of at least one byte, in writes that become super-packets.
    pub fn burst(direction: Direction, bytes: u64) -> Self {
        Self {
            direction,
            writes: Writes::Of(BURST_WRITE),
            count: bytes.div_ceil(BURST_WRITE as u64).max(1),
            paced: false,
        }
    }

    fn of(probe: Probe, burst: u64) -> Self {
        let (writes, count) = match probe.kind {
            ProbeKind::Small => (Writes::Of(SMALL as usize), 1),
            ProbeKind::Mtu => (Writes::Segments { extra: 0 }, MTU_SEGMENTS),
            ProbeKind::MtuPlusOne => (Writes::Segments { extra: 1 }, 1),
            ProbeKind::Checksum => (Writes::Of(CHECKSUM_WRITE), CHECKSUM_WRITES),
            ProbeKind::Gso | ProbeKind::UdpGso => return Self::burst(probe.direction, burst),
        };
        Self {
            direction: probe.direction,
            writes,
            count,
            paced: true,
        }
    }
}

/// Sends one probe.
pub(super) fn probe(way: &Way<'_>, probe: Probe) -> Result<Result<Moved, Trouble>, ProbeError> {
    transfer(way, Job::of(probe, way.limits.burst))
}

/// Moves payload over a connection of its own, within the time of one probe.
///
/// # Errors
/// A namespace cannot be entered. What the way does to the connection is the inner result.
pub fn transfer(way: &Way<'_>, job: Job) -> Result<Result<Moved, Trouble>, ProbeError> {
    let moved = parallel(way, job, 1)?;
    Ok(moved.map(|all| all.into_iter().next().unwrap_or_default()))
}

/// Moves the same payload over some connections at once, within the time of one probe.
///
/// # Errors
/// As [`transfer`].
pub fn parallel(
    way: &Way<'_>,
    job: Job,
    connections: usize,
) -> Result<Result<Vec<Moved>, Trouble>, ProbeError> {
    let deadline = Instant::now() + way.limits.each;
    let listener = match within(way.other, || TcpListener::bind(way.address))? {
        Ok(listener) => listener,
        Err(e) => return Ok(Err(not_run(format!("listening on {}: {e}", way.address)))),
    };
    let mut open = Vec::new();
    for _ in 0..connections {
        match connect(way, &listener, deadline)? {
            Ok(pair) => open.push(pair),
            Err(trouble) => return Ok(Err(trouble)),
        }
    }
    let moved: Result<Vec<Moved>, Trouble> = std::thread::scope(|scope| {
        let start = |(client, server): (TcpStream, TcpStream)| {
            scope.spawn(move || exchange(way, job, &client, &server, deadline))
        };
        let threads: Vec<_> = open.into_iter().map(start).collect();
        let died = || Err(not_run("a probe's thread died".to_owned()));
        let ended = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| died()));
        ended.collect()
    });
    Ok(moved)
}

/// Makes a connection: from the endpoint to the listener.
fn connect(
    way: &Way<'_>,
    listener: &TcpListener,
    deadline: Instant,
) -> Result<Result<(TcpStream, TcpStream), Trouble>, ProbeError> {
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(e) => return Ok(Err(not_run(format!("listening on {}: {e}", way.address)))),
    };
    let client = within(way.endpoint, || {
        TcpStream::connect_timeout(&address, way.limits.each)
    })?;
    Ok(client
        .map_err(|e| refused(&e, address, way.limits.each))
        .and_then(|client| Ok((client, accept(listener, deadline)?))))
}

fn not_run(why: String) -> Trouble {
    Trouble::NotRun(why)
}

/// A connection that was not made, in words.
pub(super) fn refused(error: &io::Error, to: SocketAddr, within: Duration) -> Trouble {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Trouble::Failed(format!(
            "no connection within {:.0} s",
            within.as_secs_f64()
        )),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => not_run(format!(
            "the connection to {to} was refused; a policy or a packet filter does that"
        )),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            not_run(format!("the endpoint has no route to {}", to.ip()))
        }
        _ => not_run(format!("connecting to {to}: {error}")),
    }
}

fn accept(listener: &TcpListener, deadline: Instant) -> Result<TcpStream, Trouble> {
    let left = deadline.saturating_duration_since(Instant::now()).max(TICK);
    let timeout = left.try_into().ok();
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) => Err(Trouble::Failed(
            "the connection was answered, but not by the listener".to_owned(),
        )),
        Ok(_) => listener
            .accept()
            .map(|(stream, _)| stream)
            .map_err(|e| not_run(format!("accepting: {e}"))),
        Err(e) => Err(not_run(format!("waiting for the connection: {e}"))),
    }
}

/// What both threads of a transfer look at.
struct Shared {
    deadline: Instant,
    done: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Shared {
    fn over(&self) -> bool {
        self.done.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Moves the payload. The sockets are borrowed: a thread that ends first must not close its side under the
/// other.
fn exchange(
    way: &Way<'_>,
    job: Job,
    client: &TcpStream,
    server: &TcpStream,
    deadline: Instant,
) -> Result<Moved, Trouble> {
    for stream in [client, server] {
        prepare(stream).map_err(|e| not_run(format!("setting socket options: {e}")))?;
    }
    let sender = match job.direction {
        Direction::Outbound => client,
        Direction::Inbound => server,
    };
    let write = match job.writes {
        Writes::Of(bytes) => bytes,
        Writes::Segments { extra } => segment(sender)? + extra,
    };
    let total = write as u64 * job.count;
    let shared = Shared {
        deadline,
        done: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
    };
    let payload = Payload {
        write,
        total,
        paced: job.paced,
    };
    let begin = Instant::now();
    let moved = std::thread::scope(|scope| {
        let shared = &shared;
        match job.direction {
            Direction::Outbound => {
                let head = request(way, "POST", Some(total));
                scope.spawn(move || {
                    let _ = send(client, head.as_bytes(), shared)
                        .and_then(|()| send_payload(client, payload, shared));
                });
                receive(server, total, shared)
            }
            Direction::Inbound => {
                let head = request(way, "GET", None);
                scope.spawn(move || {
                    let _ = answer(server, payload, shared);
                });
                send(client, head.as_bytes(), shared)
                    .map_err(|e| Trouble::Failed(broken(&e)))
                    .and_then(|()| receive(client, total, shared))
            }
        }
    });
    let moved = moved.map_err(|trouble| denied(client).unwrap_or(trouble));
    moved.map(|arrived| Moved {
        sent: shared.sent.load(Ordering::Relaxed),
        received: arrived.bytes,
        complete: arrived.bytes == total,
        took: begin.elapsed(),
        silent: arrived.last.elapsed(),
        fault: arrived.fault,
    })
}

/// What a policy on the way may have answered instead of the other side, which then got nothing.
fn denied(mut client: &TcpStream) -> Option<Trouble> {
    let mut buffer = [0; HEAD_MAX];
    let n = client.read(&mut buffer).ok()?;
    let head = String::from_utf8_lossy(buffer.get(..n)?).into_owned();
    denial(&head).map(denied_with)
}

fn denied_with(status: &str) -> Trouble {
    not_run(format!(
        "something on the way answered with HTTP {status}; a policy does that"
    ))
}

/// Payload bytes of a full-sized segment, options taken off.
fn segment(stream: &TcpStream) -> Result<usize, Trouble> {
    let mss = getsockopt(stream, sockopt::TcpMaxSeg);
    let mss = mss.map_err(|e| not_run(format!("reading the segment size: {e}")))?;
    Ok(usize::try_from(mss).unwrap_or(usize::MAX))
}

/// No delay for small writes, calls that end soon, and no lingering: what is not acknowledged when a probe
/// ends must not be sent again while the next one is counted.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

fn request(way: &Way<'_>, method: &str, length: Option<u64>) -> String {
    let length = length.map_or_else(String::new, |l| format!("Content-Length: {l}\r\n"));
    format!(
        "{method} /tollgate-probe HTTP/1.1\r\nHost: {}\r\n{length}\r\n",
        way.host
    )
}

/// What is written.
#[derive(Clone, Copy)]
struct Payload {
    write: usize,
    total: u64,
    paced: bool,
}

/// The other side of an inbound transfer: reads the request, answers with the payload.
fn answer(stream: &TcpStream, payload: Payload, shared: &Shared) -> io::Result<()> {
    read_head(stream, shared)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        payload.total
    );
    send(stream, head.as_bytes(), shared)?;
    send_payload(stream, payload, shared)
}

fn send_payload(stream: &TcpStream, payload: Payload, shared: &Shared) -> io::Result<()> {
    let content = Content::new(SEED);
    let mut buffer = vec![0; payload.write];
    let mut at = 0;
    while at < payload.total {
        content.fill(at, &mut buffer);
        send_counted(stream, &buffer, shared, &shared.sent)?;
        at += payload.write as u64;
        while payload.paced && shared.received.load(Ordering::Relaxed) < at && !shared.over() {
            std::thread::sleep(PACE);
        }
    }
    Ok(())
}

fn send(stream: &TcpStream, bytes: &[u8], shared: &Shared) -> io::Result<()> {
    send_counted(stream, bytes, shared, &AtomicU64::new(0))
}

fn send_counted(
    mut stream: &TcpStream,
    bytes: &[u8],
    shared: &Shared,
    sent: &AtomicU64,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        if shared.over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.write(rest) {
            Ok(n) => {
                sent.fetch_add(n as u64, Ordering::Relaxed);
                rest = rest.get(n..).unwrap_or_default();
            }
            Err(e) if waits(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What arrived.
struct Arrived {
    bytes: u64,
    last: Instant,
    fault: Option<String>,
}

/// Reads the head and the payload behind it, and ends the sender.
fn receive(stream: &TcpStream, total: u64, shared: &Shared) -> Result<Arrived, Trouble> {
    let received = receive_all(stream, total, shared);
    shared.done.store(true, Ordering::Relaxed);
    received
}

fn receive_all(mut stream: &TcpStream, total: u64, shared: &Shared) -> Result<Arrived, Trouble> {
    let (head, rest) = match read_head(stream, shared) {
        Ok(read) => read,
        Err(e) => return Err(Trouble::Failed(broken(&e))),
    };
    if let Some(status) = denial(&head) {
        return Err(denied_with(status));
    }
    let content = Content::new(SEED);
    let mut scratch = Vec::new();
    let mut arrived = Arrived {
        bytes: 0,
        last: Instant::now(),
        fault: None,
    };
    arrived.take(content, &rest, &mut scratch);
    shared.received.store(arrived.bytes, Ordering::Relaxed);
    let mut buffer = vec![0; READ];
    while arrived.bytes < total && arrived.fault.is_none() && !shared.over() {
        match stream.read(&mut buffer) {
            Ok(0) => arrived.fault = Some("the connection was closed in the middle".to_owned()),
            Ok(n) => arrived.take(content, buffer.get(..n).unwrap_or_default(), &mut scratch),
            Err(e) if waits(&e) => {}
            Err(e) => arrived.fault = Some(broken(&e)),
        }
        shared.received.store(arrived.bytes, Ordering::Relaxed);
    }
    Ok(arrived)
}

impl Arrived {
    fn take(&mut self, content: Content, bytes: &[u8], scratch: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let right = content.right(self.bytes, bytes, scratch);
        self.bytes += right as u64;
        self.last = Instant::now();
        if right < bytes.len() {
            self.fault = Some(format!("byte {} is not what was sent", self.bytes));
        }
    }
}

/// The status of a response that is no success.
fn denial(head: &str) -> Option<&str> {
    let status = head.strip_prefix("HTTP/1.1 ")?.split_whitespace().next()?;
    (!status.starts_with('2')).then_some(status)
}

/// Reads a head; returns it and what came behind it.
fn read_head(mut stream: &TcpStream, shared: &Shared) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; HEAD_MAX];
    loop {
        if shared.over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) if waits(&e) => continue,
            Err(e) => return Err(e),
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Nothing happened within a tick.
pub(super) fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A connection that broke, in words.
fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            "the connection was made, but not even the first bytes arrived".to_owned()
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was reset".to_owned()
        }
        io::ErrorKind::UnexpectedEof => {
            "the connection was closed before anything arrived".to_owned()
        }
        _ => format!("the connection broke: {error}"),
    }
}
