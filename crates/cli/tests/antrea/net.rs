//! Sockets of the test itself in a place of the bed.

#[path = "../shared/tcp.rs"]
mod tcp;

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bed::{Bed, Place};

pub use tcp::{End, read_response, read_to_end};

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

/// Sends a GET and reads the answer; the connection stays open.
pub fn get(tcp: &mut TcpStream, path: &str) -> io::Result<u16> {
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes())?;
    read_response(tcp)
}
