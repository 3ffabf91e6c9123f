//! Sockets of the test itself in a place of the bed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bed::{Bed, Place};

/// A peer that says nothing for so long is stuck.
pub const STUCK: Duration = Duration::from_secs(10);

impl Bed {
    /// Does something in a place's network.
    pub fn within<T: Send>(&self, place: Place, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.netns(place);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{netns}")).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A connection without Nagle's delay, with time limits.
    pub fn connect(&self, place: Place, address: &str, port: u16) -> TcpStream {
        let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
        let tcp = self.within(place, || TcpStream::connect_timeout(&to, STUCK));
        let tcp = tcp.expect("the connection is made");
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(STUCK)).unwrap();
        tcp.set_write_timeout(Some(STUCK)).unwrap();
        tcp
    }
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Closed,
    /// RST.
    Reset,
    /// Nothing came for [`STUCK`].
    Silent,
}

/// Reads to the end of the connection.
pub fn read_to_end(tcp: &mut TcpStream) -> (String, End) {
    let mut bytes = Vec::new();
    let end = match tcp.read_to_end(&mut bytes) {
        Ok(_) => End::Closed,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => End::Silent,
        Err(_) => End::Reset,
    };
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

/// Sends a GET and reads the answer; the connection stays open.
pub fn get(tcp: &mut TcpStream, path: &str) -> io::Result<u16> {
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes())?;
    response(tcp)
}

/// Reads a response with a body of stated length; returns the status.
pub fn response(tcp: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    tcp.read_exact(&mut body)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.ok_or_else(|| io::Error::other(head))
}
