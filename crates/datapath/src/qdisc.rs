//! The queueing discipline of the TAP: none. Its own ring is the queue; a discipline in front of it
//! costs a lock and two more list operations a frame and orders nothing.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::Error;

/// `struct nlmsghdr`, `struct tcmsg` and one attribute, padded.
const MESSAGE_LEN: usize = 16 + 20 + 12;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// `TCA_KIND`.
const KIND: u16 = 1;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE`.
const FLAGS: u16 = 0x001 | 0x004 | 0x400 | 0x100;

/// Replaces the root discipline of an interface by `noqueue`, in the calling thread's network
/// namespace.
///
/// # Errors
/// The kernel's answer to `RTM_NEWQDISC`.
pub fn set_noqueue(ifindex: u32) -> Result<(), Error> {
    request(ifindex).map_err(Error::os(
        "removing",
        format!("the queueing discipline of interface {ifindex}"),
    ))
}

fn request(ifindex: u32) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // 0: NETLINK_ROUTE
    )?;
    send(&socket, &message(ifindex), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // struct nlmsgerr: the error stands behind the header; 0 is the acknowledgement.
    let code = answer.get(16..20).filter(|_| len >= 20);
    let code = code
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn message(ifindex: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(MESSAGE_LEN);
    message.extend((MESSAGE_LEN as u32).to_ne_bytes());
    message.extend(libc::RTM_NEWQDISC.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question, one answer
    message.extend([0; 4]); // AF_UNSPEC and padding
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 4]); // handle: the kernel's choice
    message.extend(ROOT.to_ne_bytes());
    message.extend([0; 4]); // info
    message.extend(12u16.to_ne_bytes());
    message.extend(KIND.to_ne_bytes());
    message.extend(b"noqueue\0");
    message
}
