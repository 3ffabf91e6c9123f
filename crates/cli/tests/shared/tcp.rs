//! Reading from a connection in tests.

use std::io::{self, Read};
use std::net::TcpStream;

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Closed,
    /// RST.
    Reset,
    /// Nothing came within the connection's time limit.
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

/// Reads until a response head and a body of stated length are complete; returns the status.
pub fn read_response(tcp: &mut TcpStream) -> io::Result<u16> {
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
        .map_or("0", |rest| rest.split("\r\n").next().unwrap_or("0"));
    let mut body = vec![0; length.parse().unwrap()];
    tcp.read_exact(&mut body)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.ok_or_else(|| io::Error::other(head))
}
