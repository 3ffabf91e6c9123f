//! Notices of the kernel that links have changed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::time::Timespec;

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
