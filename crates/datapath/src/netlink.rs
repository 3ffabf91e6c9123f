//! Questions over netlink that are asked and answered at once, and their attributes (linux/netlink.h).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};
use rustix::time::Timespec;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x001;
/// `NLM_F_ACK`.
const ACK: u16 = 0x004;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// A dump's messages come in pieces of at most this many bytes (`netlink_dump`).
const BUFFER: usize = 64 << 10;
/// Kernel answers come at once; a kernel that says nothing must not hold the caller up.
const PATIENCE_SECONDS: u64 = 2;
/// The types' upper bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// Which family is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_NETFILTER`.
    Netfilter,
}

/// One message: type and what follows the header.
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// Asks for one object, or for all (`dump`), and returns the messages of the answer.
pub fn ask(family: Family, kind: u16, dump: bool, body: &[u8]) -> io::Result<Vec<Message>> {
    let protocol = match family {
        Family::Route => None, // 0: NETLINK_ROUTE
        Family::Netfilter => Some(netlink::NETFILTER),
    };
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    let patience = std::time::Duration::from_secs(PATIENCE_SECONDS);
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience))?;
    let flags = REQUEST | if dump { DUMP } else { ACK };
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question, one answer
    message.extend(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let (len, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if take(buffer.get(..len).unwrap_or_default(), &mut answer)? {
            return Ok(answer);
        }
    }
}

/// Takes the messages of one datagram; true at the end of the answer.
fn take(mut data: &[u8], answer: &mut Vec<Message>) -> io::Result<bool> {
    while let Some((kind, payload, rest)) = first_message(data) {
        match kind {
            MSG_DONE => return Ok(true),
            MSG_ERROR => {
                // struct nlmsgerr: 0 is the acknowledgement.
                let code = number(payload).ok_or(io::ErrorKind::UnexpectedEof)? as i32;
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            kind => answer.push(Message {
                kind,
                payload: payload.to_vec(),
            }),
        }
        data = rest;
    }
    Ok(false)
}

fn first_message(data: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = number(data)? as usize;
    let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
    let payload = data.get(HEADER..len)?;
    Some((kind, payload, data.get(aligned(len)..).unwrap_or_default()))
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// The first four bytes as a number in the machine's order.
pub fn number(data: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?))
}

/// The attributes of a message or of a nested attribute: type and value.
pub fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(data.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = data.get(4..len)?;
        data = data.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of one attribute.
pub fn attribute(data: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(data).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// A text attribute without its terminator.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Appends an attribute.
pub fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = 4 + value.len();
    body.extend((len as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len() + aligned(len) - len, 0);
}

/// Says that links have changed, here and in every namespace that has an identifier here, which
/// the other ends of our veth pairs have.
pub struct LinkNotices {
    socket: OwnedFd,
}

/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;
/// `SOL_NETLINK` and `NETLINK_LISTEN_ALL_NSID`.
const SOL_NETLINK: libc::c_int = 270;
const LISTEN_ALL_NSID: libc::c_int = 8;

impl LinkNotices {
    /// Listens in the calling thread's namespace. Notices of other namespaces come only if the
    /// caller has `CAP_NET_BROADCAST` now; whether they do is returned.
    pub fn open() -> io::Result<(Self, bool)> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None, // 0: NETLINK_ROUTE
        )?;
        let on: libc::c_int = 1;
        // SAFETY: the option reads one int, which lives for the call.
        let status = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                SOL_NETLINK,
                LISTEN_ALL_NSID,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        Ok((Self { socket }, status == 0))
    }

    /// Waits for a notice, at most so many milliseconds; takes all that are there. True if there
    /// was one, or some were lost.
    pub fn wait(&self, millis: u32) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let time = Timespec {
            tv_sec: i64::from(millis / 1000),
            tv_nsec: i64::from(millis % 1000) * 1_000_000,
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 4096];
        loop {
            match recv(self.socket.as_fd(), &mut buffer, RecvFlags::empty()) {
                // ENOBUFS: some were lost; whoever looks at everything anyway misses nothing.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
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
        assert_eq!(number(attribute(&body, 4).unwrap()), Some(7));
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
