//! Network namespaces: the identity of the calling thread's, and work in another one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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

/// Moves the calling thread, for good, into a network namespace. Needs `CAP_SYS_ADMIN`.
pub fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Does some work in a network namespace, in a thread of its own that ends with it: whatever
/// happens there, the caller stays where it is. Sockets that are made there belong to it wherever they
/// are used. An error says that the namespace could not be entered; a panic goes on in the caller.
pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = || enter(namespace).map(|()| work());
        let thread = thread::Builder::new()
            .name("tg-netns".to_owned())
            .spawn_scoped(scope, inside)?;
        match thread.join() {
            Ok(result) => result,
            Err(cause) => std::panic::resume_unwind(cause),
        }
    })
}
