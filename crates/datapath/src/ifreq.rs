//! Interface ioctls by name, in the calling thread's network namespace.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::Error;

/// An `ifreq` with the interface's name filled in.
pub struct IfRequest {
    /// The structure itself; which member of its union is valid depends on the request.
    pub raw: libc::ifreq,
    name: String,
}

impl IfRequest {
    /// Checks the name: 1 to 15 bytes, without what the kernel refuses.
    pub fn new(name: &str) -> Result<Self, Error> {
        let bad = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace();
        let fits = (1..libc::IFNAMSIZ).contains(&name.len());
        if !fits || name == "." || name == ".." || name.bytes().any(bad) {
            return Err(Error::InterfaceName(name.to_owned()));
        }
        // SAFETY: `ifreq` is integers, arrays and pointers; all zero is a value of each.
        let mut raw: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in raw.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self {
            raw,
            name: name.to_owned(),
        })
    }

    /// Performs the request on `fd`.
    ///
    /// # Safety
    /// `request` must read and write nothing but the `ifreq`, or what a pointer in it points to,
    /// which must then be valid for what the request does.
    pub unsafe fn call_on(
        &mut self,
        fd: BorrowedFd<'_>,
        request: libc::Ioctl,
        action: &'static str,
    ) -> Result<(), Error> {
        // SAFETY: the structure lives for the call; the rest is the caller's promise.
        let status = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut self.raw) };
        if status < 0 {
            return Err(Error::os(action, &self.name)(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Performs the request on a socket of this namespace.
    ///
    /// # Safety
    /// As for [`Self::call_on`].
    pub unsafe fn call(&mut self, request: libc::Ioctl, action: &'static str) -> Result<(), Error> {
        let socket = control_socket().map_err(Error::os("opening", "a control socket"))?;
        // SAFETY: the caller's promise.
        unsafe { self.call_on(std::os::fd::AsFd::as_fd(&socket), request, action) }
    }
}

/// A socket for interface ioctls. Works without IPv4 configured.
fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
