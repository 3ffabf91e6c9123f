//! Netlink, as much of it as reading takes: dumps and single questions, and their attributes
//! (linux/netlink.h).
//!
//! Attributes are read by number rather than into the types of a library: an attribute that is not
//! known, or longer than it was when the library was written, must not cost a namespace its links.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with, sockopt,
};

/// The kernel answers at once; one that says nothing must not hold the caller up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Receives any message of a dump: the kernel makes none larger than 32 KiB for such a buffer.
const BUFFER: usize = 64 * 1024;
/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP`.
const REQUEST: u16 = 0x001;
const ACK: u16 = 0x004;
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: something changed meanwhile.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Flags in an attribute's type: nested, byte order.
const TYPE_MASK: u16 = 0x3fff;
/// A dump that something interrupted is asked for again this often, then taken as it is.
const TRIES: usize = 3;

/// A netlink socket of the namespace that the thread was in when it was opened.
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one. `None` is routing.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            fd,
            buffer: vec![0; BUFFER],
        })
    }

    /// Everything of a kind. `read` makes a value of a message's type and body, or passes over it.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut read: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            found.clear();
            self.send(kind, REQUEST | DUMP, body)?;
            let mut interrupted = false;
            while self.receive(|kind, flags, body| {
                interrupted |= flags & INTERRUPTED != 0;
                found.extend(read(kind, body));
            })? {}
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }

    /// A single question, or a request that something be changed: the messages of the answer, of which
    /// there are none if there is nothing to say but that it was done.
    pub fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.send(kind, REQUEST | ACK, body)?;
        let mut answer = Vec::new();
        while self.receive(|kind, _, body| {
            answer.push(Message {
                kind,
                payload: body.to_vec(),
            });
        })? {}
        Ok(answer)
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        let len = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence number and port: one question at a time
        message.extend(body);
        send(&self.fd, &message, SendFlags::empty())?;
        Ok(())
    }

    /// One datagram of messages. False after the last of a dump.
    fn receive(&mut self, mut each: impl FnMut(u16, u16, &[u8])) -> io::Result<bool> {
        let (len, _) = recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = self.buffer.get(..len).unwrap_or_default();
        while let Some(header) = rest.get(..HEADER) {
            let len = u32_at(header, 0).unwrap_or(0) as usize;
            let Some(body) = rest.get(HEADER..len) else {
                break;
            };
            match u16_at(header, 4).unwrap_or(0) {
                DONE => return Ok(false),
                // struct nlmsgerr: a negative error number first.
                ERROR => match u32_at(body, 0).unwrap_or(0) as i32 {
                    0 => return Ok(false),
                    code => return Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                },
                kind => each(kind, u16_at(header, 6).unwrap_or(0), body),
            }
            rest = rest.get(aligned(len)..).unwrap_or_default();
        }
        Ok(true)
    }
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Appends an attribute to a request.
pub fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// The attributes in `bytes`: type and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Attributes after a fixed header of so many bytes.
pub fn attributes_after(bytes: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(bytes.get(header..).unwrap_or_default())
}

/// A 16-bit number in the machine's order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*raw))
}

/// A 32-bit number in the machine's order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*raw))
}

/// A 64-bit number in the machine's order.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*raw))
}

/// The first byte.
pub fn u8_of(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or(0)
}

/// A 32-bit number, 0 if it is none.
pub fn u32_of(bytes: &[u8]) -> u32 {
    u32_at(bytes, 0).unwrap_or(0)
}

/// A string up to its zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// An IP address of 4 or 16 bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

/// A hardware address as people write it.
pub fn mac(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    parts.join(":")
}

/// Which family is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_NETFILTER`.
    Netfilter,
}

/// One message: type and what follows the header.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// Asks for one object, or for all (`dump`), on a socket of its own.
pub fn ask(family: Family, kind: u16, dump: bool, body: &[u8]) -> io::Result<Vec<Message>> {
    let mut socket = Socket::open(match family {
        Family::Route => None,
        Family::Netfilter => Some(netlink::NETFILTER),
    })?;
    let message = |kind, payload: &[u8]| {
        Some(Message {
            kind,
            payload: payload.to_vec(),
        })
    };
    if dump {
        return socket.dump(kind, body, message);
    }
    socket.ask(kind, body)
}

/// The value of one attribute.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let mut body = Vec::new();
        push(&mut body, 3, b"eth0\0");
        push(&mut body, 4 | 0x8000, &7u32.to_ne_bytes());
        assert_eq!(body.len() % 4, 0);
        let all: Vec<_> = attributes(&body).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(text(attribute(&body, 3).unwrap()), "eth0");
        assert_eq!(u32_at(attribute(&body, 4).unwrap(), 0), Some(7));
        assert_eq!(attribute(&body, 5), None);
    }

    #[test]
    fn damaged_attributes_end_the_list() {
        for data in [
            &[][..],
            &[1],
            &[0, 0, 1, 0],
            &[3, 0, 1, 0, 9],
            &[200, 0, 1, 0, 9],
        ] {
            assert_eq!(attributes(data).count(), 0, "{data:?}");
        }
    }

    #[test]
    fn the_loopback_interface_answers() {
        let mut body = vec![0; 16];
        push(&mut body, 3, b"lo\0");
        let answer = ask(Family::Route, libc::RTM_GETLINK, false, &body).unwrap();
        assert_eq!(answer.len(), 1);
        let missing = {
            let mut body = vec![0; 16];
            push(&mut body, 3, b"tg-none\0");
            ask(Family::Route, libc::RTM_GETLINK, false, &body)
        };
        let error = missing.err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
