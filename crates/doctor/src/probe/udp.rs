//! UDP: a pair of sockets for each probe. The endpoint's says hello, so that the other side knows where
//! to send; then either sends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt as nix_sockopt};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover,
    set_ipv6_mtu_discover,
};

use super::content::Content;
use super::netns::within;
use super::tcp::waits;
use super::{Direction, Moved, Probe, ProbeError, ProbeKind, Trouble, Way};

/// Times that a single datagram is sent before it counts as lost: UDP may lose one.
const TRIES: u32 = 3;
/// Sizes that an MTU probe follows downwards, as routers on the way tell smaller ones.
const MTU_STEPS: u32 = 8;
/// Payload of a small datagram, and of hellos.
const SMALL: usize = 64;
/// Number, then content.
const NUMBER: usize = 8;
/// Datagrams of a checksum probe.
const CHECKSUM_DATAGRAMS: u64 = 64;
/// Of those, sent before any is read: fewer than fit into the smallest receive buffer.
const BATCH: u64 = 16;
/// Segments of one call with `UDP_SEGMENT`: fewer than every kernel's limit of 64, and their payload fits
/// into 64 KiB with jumbo frames too.
const GSO_SEGMENTS: usize = 16;
/// Bytes of one such call: an IP packet's limit, headers taken off generously.
const GSO_BYTES: usize = 60_000;
/// Such calls.
const GSO_CALLS: u64 = 8;
/// Largest UDP payload over IPv4: 65535 less IP and UDP header.
const PAYLOAD_MAX: usize = 65_507;
/// How long a receiver waits for what was just sent, at most: many round trips inside a cluster.
const PATIENCE: Duration = Duration::from_millis(400);
/// IP and UDP headers, IPv4 and IPv6 without options.
const HEADERS: [usize; 2] = [28, 48];
/// Seed of the payload's bytes.
const SEED: u64 = 0x7564_7070;

/// Any address of a family, any port.
pub(super) fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Two connected sockets.
struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
    ipv6: bool,
    deadline: Instant,
    begin: Instant,
    sent: u64,
    received: u64,
}

/// Sends one probe.
pub(super) fn probe(way: &Way<'_>, probe: Probe) -> Result<Result<Moved, Trouble>, ProbeError> {
    let mut pair = match Pair::open(way, probe.direction)? {
        Ok(pair) => pair,
        Err(trouble) => return Ok(Err(trouble)),
    };
    let sent = match probe.kind {
        ProbeKind::Small => pair.small(),
        ProbeKind::Mtu => pair.mtu(),
        ProbeKind::MtuPlusOne => pair.one_more(),
        ProbeKind::Checksum => pair.many(),
        ProbeKind::Gso | ProbeKind::UdpGso => pair.segmented(),
    };
    Ok(sent.map(|fault| Moved {
        sent: pair.sent,
        received: pair.received,
        complete: fault.is_none(),
        took: pair.begin.elapsed(),
        silent: Duration::ZERO,
        fault,
    }))
}

/// What is wrong, if anything.
type Found = Result<Option<String>, Trouble>;

fn options(error: impl Into<io::Error>) -> Trouble {
    Trouble::NotRun(format!("setting socket options: {}", error.into()))
}

impl Pair {
    fn open(way: &Way<'_>, direction: Direction) -> Result<Result<Self, Trouble>, ProbeError> {
        let begin = Instant::now();
        let other = match within(way.other, || UdpSocket::bind(way.address))? {
            Ok(socket) => socket,
            Err(e) => {
                return Ok(Err(Trouble::NotRun(format!(
                    "listening on {}: {e}",
                    way.address
                ))));
            }
        };
        let address = match other.local_addr() {
            Ok(address) => address,
            Err(e) => {
                return Ok(Err(Trouble::NotRun(format!(
                    "listening on {}: {e}",
                    way.address
                ))));
            }
        };
        let endpoint = within(way.endpoint, || {
            let socket = UdpSocket::bind(any(address.ip()))?;
            socket.connect(address)?;
            io::Result::Ok(socket)
        })?;
        let endpoint = match endpoint {
            Ok(socket) => socket,
            Err(e) => return Ok(Err(super::tcp::refused(&e, address, way.limits.each))),
        };
        if let Err(trouble) = hello(&endpoint, &other, direction) {
            return Ok(Err(trouble));
        }
        let (sender, receiver) = match direction {
            Direction::Outbound => (endpoint, other),
            Direction::Inbound => (other, endpoint),
        };
        Ok(Ok(Self {
            sender,
            receiver,
            ipv6: way.address.is_ipv6(),
            deadline: begin + way.limits.each,
            begin,
            sent: 0,
            received: 0,
        }))
    }

    fn headers(&self) -> usize {
        let [v4, v6] = HEADERS;
        if self.ipv6 { v6 } else { v4 }
    }

    /// What the kernel holds to be the path's MTU.
    fn path_mtu(&self) -> Result<usize, Trouble> {
        let mtu = match self.ipv6 {
            true => ipv6_mtu(&self.sender),
            false => ip_mtu(&self.sender),
        };
        let mtu = mtu.map_err(|e| Trouble::NotRun(format!("reading the path's MTU: {e}")))?;
        Ok(usize::try_from(mtu).unwrap_or(usize::MAX))
    }

    /// Never fragments, or always may.
    fn fragments(&self, may: bool) -> Result<(), Trouble> {
        let fd = self.sender.as_fd();
        let set = match (self.ipv6, may) {
            (false, false) => set_ip_mtu_discover(fd, Ipv4PathMtuDiscovery::DO),
            (false, true) => set_ip_mtu_discover(fd, Ipv4PathMtuDiscovery::DONT),
            (true, false) => set_ipv6_mtu_discover(fd, Ipv6PathMtuDiscovery::DO),
            (true, true) => set_ipv6_mtu_discover(fd, Ipv6PathMtuDiscovery::DONT),
        };
        set.map_err(options)
    }

    fn time_left(&self) -> bool {
        Instant::now() < self.deadline
    }

    fn small(&mut self) -> Found {
        self.deliver(SMALL, "a small datagram").map(Result::err)
    }

    /// One datagram, some tries. `Err` inside if none came, in words.
    fn deliver(&mut self, payload: usize, what: &str) -> Result<Result<(), String>, Trouble> {
        for number in 0..TRIES {
            match self.send(u64::from(number), payload) {
                Ok(()) => {}
                Err(e) => return self.refused(&e, what).map(Err),
            }
            if self.expect(u64::from(number), payload)? {
                return Ok(Ok(()));
            }
        }
        Ok(Err(format!(
            "{what} of {} bytes was lost {TRIES} times, and nothing on the way said why",
            payload + self.headers()
        )))
    }

    /// A packet of exactly the path's MTU that must not be fragmented. A router may tell a smaller
    /// MTU; one that keeps silent is a black hole.
    fn mtu(&mut self) -> Found {
        self.fragments(false)?;
        let mut lost = 0;
        let mut size = self.path_mtu()?;
        for number in 0..u64::from(MTU_STEPS) {
            let Some(payload) = self.payload(size) else {
                return Err(too_large(size));
            };
            let sent = self.send(number, payload);
            let told = matches!(&sent, Err(e) if is_too_long(e));
            match sent {
                Err(e) if !told => return self.refused(&e, "a packet of the MTU").map(Some),
                Ok(()) if self.expect(number, payload)? => return Ok(None),
                _ => {}
            }
            let now = self.path_mtu()?;
            if now < size {
                (size, lost) = (now, 0);
                continue;
            }
            lost += 1;
            if lost == TRIES || !self.time_left() {
                break;
            }
        }
        Ok(Some(format!(
            "a packet of {size} bytes, the MTU of the way as the sender knows it, was lost {lost} times, and no router \
             said that it is too big"
        )))
    }

    /// One byte more than the MTU: refused if it must not be fragmented, delivered if it may.
    fn one_more(&mut self) -> Found {
        self.fragments(false)?;
        let size = self.path_mtu()? + 1;
        let Some(payload) = self.payload(size) else {
            return Err(too_large(size));
        };
        match self.send(0, payload) {
            Err(e) if is_too_long(&e) => {}
            Err(e) => {
                return self
                    .refused(&e, "a packet of the MTU and one byte")
                    .map(Some);
            }
            Ok(()) => {
                let arrived = self.expect(0, payload)?;
                if !arrived && self.path_mtu()? >= size {
                    return Ok(Some(format!(
                        "a packet of {size} bytes, one more than the MTU, was taken and lost without a word"
                    )));
                }
            }
        }
        self.fragments(true)?;
        self.deliver(payload, "a fragmented datagram")
            .map(Result::err)
    }

    fn payload(&self, size: usize) -> Option<usize> {
        let payload = size.checked_sub(self.headers())?;
        (NUMBER..=PAYLOAD_MAX).contains(&payload).then_some(payload)
    }

    /// Many small datagrams.
    fn many(&mut self) -> Found {
        let mut arrived = 0;
        for batch in 0..CHECKSUM_DATAGRAMS / BATCH {
            let numbers = batch * BATCH..(batch + 1) * BATCH;
            for number in numbers.clone() {
                if let Err(e) = self.send(number, SMALL) {
                    return self.refused(&e, "a small datagram").map(Some);
                }
            }
            match self.count(numbers, SMALL)? {
                Ok(n) => arrived += n,
                Err(wrong) => return Ok(Some(wrong)),
            }
            if !self.time_left() {
                break;
            }
        }
        Ok(missing(arrived, CHECKSUM_DATAGRAMS, "datagrams"))
    }

    /// Calls of many segments each, which the kernel or the device cuts.
    fn segmented(&mut self) -> Found {
        self.fragments(false)?;
        let size = self.path_mtu()?;
        let payload = match self.payload(size) {
            Some(payload) => payload.min(GSO_BYTES),
            None => return Err(too_large(size)),
        };
        let value = i32::try_from(payload).unwrap_or(i32::MAX);
        setsockopt(&self.sender, nix_sockopt::UdpGsoSegment, &value)
            .map_err(|e| Trouble::NotRun(format!("this kernel does not know UDP_SEGMENT: {e}")))?;
        let segments = (GSO_BYTES / payload).clamp(1, GSO_SEGMENTS) as u64;
        let (mut arrived, mut total) = (0, 0);
        for call in 0..GSO_CALLS {
            let numbers = call * segments..(call + 1) * segments;
            let buffer: Vec<u8> = numbers.clone().flat_map(|n| datagram(n, payload)).collect();
            match self.sender.send(&buffer) {
                Ok(n) => self.sent += n as u64,
                Err(e) => return self.refused(&e, SUPER).map(Some),
            }
            total += segments;
            match self.count(numbers, payload)? {
                Ok(n) => arrived += n,
                Err(wrong) => return Ok(Some(wrong)),
            }
            if !self.time_left() {
                break;
            }
        }
        Ok(missing(arrived, total, "segments"))
    }

    fn send(&mut self, number: u64, payload: usize) -> io::Result<()> {
        let sent = self.sender.send(&datagram(number, payload))?;
        self.sent += sent as u64;
        Ok(())
    }

    /// Waits for one datagram. Others, late or doubled, do not count.
    fn expect(&mut self, number: u64, payload: usize) -> Result<bool, Trouble> {
        Ok(self
            .count(number..number + 1, payload)?
            .is_ok_and(|n| n == 1))
    }

    /// Waits until all of these datagrams have come, and counts those that did. `Err` inside if one
    /// is not what was sent.
    fn count(
        &mut self,
        numbers: std::ops::Range<u64>,
        payload: usize,
    ) -> Result<Result<u64, String>, Trouble> {
        let until = (Instant::now() + PATIENCE).min(self.deadline);
        let expected = numbers.end - numbers.start;
        let mut come = std::collections::BTreeSet::new();
        let mut buffer = vec![0; PAYLOAD_MAX];
        while (come.len() as u64) < expected {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.receiver
                .set_read_timeout(Some(left))
                .map_err(options)?;
            match self.receiver.recv(&mut buffer) {
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    match number_of(bytes, payload) {
                        Ok(number) if numbers.contains(&number) && come.insert(number) => {
                            self.received += n as u64;
                        }
                        // An earlier one that was late.
                        Ok(_) => {}
                        Err(wrong) => return Ok(Err(wrong)),
                    }
                }
                Err(e) if waits(&e) => {}
                // ICMP about what this side sent, such as its hello.
                Err(_) => {}
            }
        }
        Ok(Ok(come.len() as u64))
    }

    /// A datagram that the kernel did not take.
    fn refused(&self, error: &io::Error, what: &str) -> Result<String, Trouble> {
        match Errno::from_io_error(error) {
            Some(Errno::IO) if what == SUPER => Ok(no_checksum_offload()),
            Some(Errno::MSGSIZE) => Ok(format!("{what} was refused as too long: {error}")),
            Some(Errno::CONNREFUSED | Errno::ACCESS | Errno::PERM) => Err(Trouble::NotRun(
                format!("{what} was refused ({error}); a policy or a packet filter does that"),
            )),
            _ => Ok(format!("{what} could not be sent: {error}")),
        }
    }
}

/// What a call with `UDP_SEGMENT` sends.
const SUPER: &str = "a burst of datagrams in one call";

/// `EIO` of `UDP_SEGMENT` (udp_send_skb in net/ipv4/udp.c, kernels before 6.11).
fn no_checksum_offload() -> String {
    "sendmsg with UDP_SEGMENT: EIO: the interface on the way out does not fill in checksums \
     (tx-checksumming is off), which this kernel needs to send datagrams in bursts"
        .to_owned()
}

fn is_too_long(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

fn too_large(mtu: usize) -> Trouble {
    Trouble::NotRun(format!("an MTU of {mtu} is more than a datagram can have"))
}

/// Fewer than nine of ten did not arrive: UDP may lose one, not more on a way as short as this.
fn missing(arrived: u64, total: u64, what: &str) -> Option<String> {
    (arrived * 10 < total * 9).then(|| format!("{arrived} of {total} {what} arrived"))
}

fn datagram(number: u64, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; payload.max(NUMBER)];
    let (head, body) = bytes.split_at_mut(NUMBER);
    head.copy_from_slice(&number.to_le_bytes());
    Content::new(SEED.wrapping_add(number)).fill(0, body);
    bytes
}

/// The number of a datagram that is what was sent.
fn number_of(bytes: &[u8], payload: usize) -> Result<u64, String> {
    if bytes.len() != payload {
        // A hello is shorter or longer than this only if it is none.
        if bytes.len() == SMALL + 1 {
            return Ok(u64::MAX);
        }
        return Err(format!(
            "a datagram of {} bytes arrived that was sent with {payload}",
            bytes.len()
        ));
    }
    let number = bytes
        .first_chunk::<NUMBER>()
        .copied()
        .map(u64::from_le_bytes);
    match number {
        Some(number) if bytes == datagram(number, payload) => Ok(number),
        _ => Err("a datagram arrived whose content is not what was sent".to_owned()),
    }
}

/// The endpoint's socket makes itself known to the other one, which then talks to it alone. Going in, this has
/// to work before anything can be said about the way in.
fn hello(endpoint: &UdpSocket, other: &UdpSocket, direction: Direction) -> Result<(), Trouble> {
    let mut buffer = [0; SMALL + 1];
    other.set_read_timeout(Some(PATIENCE)).map_err(options)?;
    for _ in 0..TRIES {
        // Of a length of its own: not mistaken for a probe.
        if let Err(e) = endpoint.send(&[0; SMALL + 1]) {
            match e.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied => {
                    return Err(Trouble::NotRun(format!(
                        "a small datagram was refused ({e}); a policy or a packet filter does that"
                    )));
                }
                _ => return Err(Trouble::NotRun(format!("sending a small datagram: {e}"))),
            }
        }
        if let Ok((_, from)) = other.recv_from(&mut buffer) {
            return other.connect(from).map_err(options);
        }
    }
    let lost = format!("{TRIES} small datagrams of the endpoint were lost");
    Err(match direction {
        Direction::Outbound => Trouble::Failed(lost),
        Direction::Inbound => {
            Trouble::NotRun(format!("{lost}, which would have asked for this one"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_known_by_number_and_content() {
        let mut bytes = datagram(7, 100);
        assert_eq!(number_of(&bytes, 100), Ok(7));
        assert!(number_of(&bytes, 101).unwrap_err().contains("101"));
        bytes[50] ^= 1;
        assert!(number_of(&bytes, 100).unwrap_err().contains("content"));
    }

    #[test]
    fn one_in_ten_may_be_lost() {
        assert_eq!(missing(58, 64, "x"), None);
        assert_eq!(missing(57, 64, "x").as_deref(), Some("57 of 64 x arrived"));
    }

    #[test]
    fn an_io_error_of_a_burst_names_its_cause() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let pair = Pair {
            sender: socket(),
            receiver: socket(),
            ipv6: false,
            deadline: Instant::now(),
            begin: Instant::now(),
            sent: 0,
            received: 0,
        };
        let eio = io::Error::from(Errno::IO);
        let words = pair.refused(&eio, SUPER).unwrap();
        assert!(
            words.contains("EIO") && words.contains("tx-checksumming"),
            "{words}"
        );
        let words = pair.refused(&eio, "a small datagram").unwrap();
        assert!(!words.contains("UDP_SEGMENT"), "{words}");
    }
}
