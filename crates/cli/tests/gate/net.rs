//! Work inside a namespace: sockets of the test itself, and the kernel's error counters.

#[path = "../shared/tcp.rs"]
mod tcp;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, connect, ipproto, recv, send, socket, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::Bed;

pub use tcp::{End, read_response, read_to_end};

/// A peer that says nothing for so long is stuck.
pub const STUCK: Duration = Duration::from_secs(20);

/// Moves this thread into a namespace.
fn enter(netns: &str) {
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Starts a thread in a namespace.
pub fn spawn<T: Send + 'static>(
    bed: &Bed,
    place: Place,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let netns = bed.lab.netns(place).to_owned();
    std::thread::spawn(move || {
        enter(&netns);
        work()
    })
}

/// Does something in a namespace and waits for it.
pub fn within<T: Send>(bed: &Bed, place: Place, work: impl FnOnce() -> T + Send) -> T {
    let netns = bed.lab.netns(place);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(netns);
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The outside's address and a port.
pub fn outside(family: Family, port: u16) -> SocketAddr {
    (family.outside(), port).into()
}

/// Any address of a family.
pub fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A connection from the pod, without Nagle's delay, with time limits.
pub fn open(bed: &Bed, family: Family, port: u16) -> TcpStream {
    let tcp = within(bed, Place::Pod, || {
        TcpStream::connect_timeout(&outside(family, port), STUCK)
    });
    let tcp = tcp.expect("the connection is made");
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(STUCK)).unwrap();
    tcp.set_write_timeout(Some(STUCK)).unwrap();
    tcp
}

/// Sends a GET and reads the answer; the connection stays open.
pub fn get(tcp: &mut TcpStream, path: &str) -> io::Result<u16> {
    tcp.write_all(request("GET", path).as_bytes())?;
    read_response(tcp)
}

/// A request of the allowed host.
pub fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
}

/// A UDP socket in the pod, connected to the outside.
pub fn udp(bed: &Bed, family: Family, port: u16, timeout: Duration) -> UdpSocket {
    let socket = within(bed, Place::Pod, || {
        let socket = UdpSocket::bind((any(family), 0))?;
        socket.connect(outside(family, port))?;
        io::Result::Ok(socket)
    });
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(timeout)).unwrap();
    socket
}

/// Sends an ICMP echo request from the pod; `Ok` if the echo came. The pod's `ping_group_range`
/// must have root's group.
pub fn ping(bed: &Bed, family: Family, payload: usize) -> rustix::io::Result<()> {
    within(bed, Place::Pod, || {
        let socket = ping_socket(family)?;
        let (kind, echo) = match family {
            Family::V4 => (8, 0),
            Family::V6 => (128, 129),
        };
        let mut request = vec![0; 8 + payload];
        request[0] = kind;
        send(&socket, &request, SendFlags::empty())?;
        let mut answer = vec![0; 16 << 10];
        let (_, received) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
        assert_eq!((answer[0], received), (echo, request.len()));
        Ok(())
    })
}

fn ping_socket(family: Family) -> rustix::io::Result<OwnedFd> {
    let socket = match family {
        Family::V4 => socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)),
        Family::V6 => socket(
            AddressFamily::INET6,
            SocketType::DGRAM,
            Some(ipproto::ICMPV6),
        ),
    }?;
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_secs(2)),
    )?;
    connect(&socket, &outside(family, 0))?;
    Ok(socket)
}

/// The checksum errors that the kernels of the lab have counted, those that are not zero.
pub fn checksum_errors(bed: &Bed) -> BTreeMap<String, u64> {
    let mut errors = BTreeMap::new();
    for place in [Place::Pod, Place::Node, Place::Out] {
        let (snmp, snmp6) = within(bed, place, || {
            let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            (read("snmp").unwrap(), read("snmp6").unwrap())
        });
        let all = pairs(&snmp).into_iter().chain(lines(&snmp6));
        let wrong = all.filter(|(name, value)| name.ends_with("InCsumErrors") && *value > 0);
        errors.extend(wrong.map(|(name, value)| (format!("{place:?} {name}"), value)));
    }
    errors
}

/// `/proc/net/snmp`: a line of names and a line of values for each protocol.
fn pairs(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for pair in lines.chunks(2) {
        let mut names = pair[0].split_whitespace();
        let protocol = names.next().unwrap();
        let values = pair[1].split_whitespace().skip(1);
        let named = names
            .zip(values)
            .filter_map(|(n, v)| Some((n, v.parse().ok()?)));
        found.extend(named.map(|(name, value)| (format!("{protocol}{name}"), value)));
    }
    assert!(
        found.iter().any(|(name, _)| name == "Tcp:InCsumErrors"),
        "{text}"
    );
    found
}

/// `/proc/net/snmp6`: a name and a value a line.
fn lines(text: &str) -> Vec<(String, u64)> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
