//! Identity of the network namespace that the calling thread is in.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::Error;

/// The namespace's cookie (`SO_NETNS_COOKIE`, Linux 5.14): unlike the inode number of its file it is
/// not given to another namespace until the machine is started anew.
pub fn cookie() -> Result<u64, Error> {
    let failed = |error: io::Error| Error::os("identifying", "the network namespace")(error);
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| failed(error.into()))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a 64-bit integer; `cookie` is one, `length` says so, both live for the
    // call and the kernel writes no more than `length`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match status {
        0 => Ok(cookie),
        _ => Err(failed(io::Error::last_os_error())),
    }
}
