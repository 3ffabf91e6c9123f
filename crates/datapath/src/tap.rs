//! The TAP between the kernel programs and the engine.
//!
//! Opened with virtio-net headers and every offload, so that a super-packet or a partial checksum
//! comes up, and goes back, as it was. The device persists: an agent restart finds it, with its
//! interface index and its program, and traffic that nobody reads meanwhile is lost.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::ifreq::IfRequest;
use crate::links;
use crate::qdisc;

const DEVICE: &str = "/dev/net/tun";
/// `struct virtio_net_hdr_v1`: with `num_buffers`, as virtio 1.0 has it.
pub const VNET_HEADER_LEN: usize = 12;
/// The highest that a TAP takes (65535 less its Ethernet header): no endpoint's MTU is higher.
const MTU: i32 = 65_521;
/// Frames a queue holds while its worker is busy. A new connection's first packets arrive in
/// bursts; at 95,000 requests/s this is some 40 ms.
const QUEUE_LEN: i32 = 4096;
/// A frame at its largest: header, Ethernet and 802.1Q, and 64 KiB of IP packet.
pub const MAX_FRAME_LEN: usize = VNET_HEADER_LEN + 18 + 65_536;

/// What the device may leave for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums; the others need it.
    pub checksum: bool,
    /// TCP segmentation, IPv4 and IPv6, with ECN.
    pub tcp: bool,
    /// UDP segmentation (Linux 6.2 and later).
    pub udp: bool,
}

impl Offloads {
    /// All of them.
    pub const ALL: Self = Self {
        checksum: true,
        tcp: true,
        udp: true,
    };
    /// None of them: every frame is complete and fits the MTU.
    pub const NONE: Self = Self {
        checksum: false,
        tcp: false,
        udp: false,
    };

    fn bits(self) -> libc::c_uint {
        let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let bit = |on: bool, bits| if on { bits } else { 0 };
        bit(self.checksum, libc::TUN_F_CSUM) | bit(self.tcp, tcp) | bit(self.udp, udp)
    }
}

/// An open TAP.
pub struct Tap {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    /// What it offloads: what was asked for, less what the kernel does not know.
    pub offloads: Offloads,
    /// Its queues, one for each worker.
    pub queues: Vec<TapQueue>,
}

/// One queue of a TAP. Nonblocking; wait with epoll.
pub struct TapQueue {
    fd: OwnedFd,
}

impl Tap {
    /// Opens the device, which is created if need be, with that many queues (1 to 256). Queue `i` is
    /// the one that [`crate::steer::queue_of`] calls `i`, unless another process still has queues of
    /// the device open: the kernel numbers all of them, and anew when one is closed.
    pub fn open(name: &str, queues: usize, offloads: Offloads) -> Result<Self, Error> {
        let queues: Vec<TapQueue> = (0..queues.max(1))
            .map(|_| TapQueue::open(name))
            .collect::<Result<_, _>>()?;
        let first = queues
            .first()
            .ok_or_else(|| Error::NoQueue(name.to_owned()))?;
        first.set(libc::TUNSETPERSIST, 1, "making persistent", name)?;
        let offloads = first.set_offloads(offloads, name)?;
        silence(name);
        let ifindex = configure(name)?;
        qdisc::set_noqueue(ifindex)?;
        Ok(Self {
            name: name.to_owned(),
            ifindex,
            offloads,
            queues,
        })
    }

    /// Sets the program that chooses the queue ([`crate::bpf::Programs::steering`]); it stays with
    /// the device. Needs one of the queues: call it before giving them all away.
    pub fn set_steering(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        let queue = self
            .queues
            .first()
            .ok_or_else(|| Error::NoQueue(self.name.clone()))?;
        queue.set(
            libc::TUNSETSTEERINGEBPF,
            program.as_raw_fd(),
            "setting the steering program of",
            &self.name,
        )
    }
}

impl TapQueue {
    fn open(name: &str) -> Result<Self, Error> {
        let mut request = IfRequest::new(name)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(DEVICE, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(Error::os("opening", DEVICE))?;
        let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        request.raw.ifr_ifru.ifru_flags = wanted as libc::c_short;
        // SAFETY: TUNSETIFF reads name and flags of the ifreq and writes the name.
        unsafe { request.call_on(fd.as_fd(), libc::TUNSETIFF, "opening TAP")? };
        let queue = Self { fd };
        queue.set(
            libc::TUNSETVNETHDRSZ,
            VNET_HEADER_LEN as libc::c_int,
            "setting the header size of",
            name,
        )?;
        queue.set(libc::TUNSETVNETLE, 1, "setting the byte order of", name)?;
        Ok(queue)
    }

    /// An ioctl whose argument is a number or a pointer to one.
    fn set(
        &self,
        request: libc::Ioctl,
        value: libc::c_int,
        action: &'static str,
        name: &str,
    ) -> Result<(), Error> {
        let by_value = matches!(request, libc::TUNSETPERSIST | libc::TUNSETOFFLOAD);
        let status = if by_value {
            // SAFETY: these requests take a number and touch no memory.
            unsafe {
                libc::ioctl(
                    self.fd.as_raw_fd(),
                    request,
                    libc::c_ulong::from(value as u32),
                )
            }
        } else {
            // SAFETY: the others used here read one int, which lives for the call.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), request, &raw const value) }
        };
        if status < 0 {
            return Err(Error::os(action, name)(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Sets the offloads, without those of UDP if the kernel refuses them.
    fn set_offloads(&self, wanted: Offloads, name: &str) -> Result<Offloads, Error> {
        let set = |offloads: Offloads| {
            let bits = offloads.bits() as libc::c_int;
            self.set(libc::TUNSETOFFLOAD, bits, "setting the offloads of", name)
        };
        let less = Offloads {
            udp: false,
            ..wanted
        };
        match set(wanted) {
            Ok(()) => Ok(wanted),
            Err(_) if wanted.udp => set(less).map(|()| less),
            Err(e) => Err(e),
        }
    }

    /// Reads one frame with its virtio-net header. `WouldBlock`: none there. A frame that is longer
    /// than `frame` is cut; [`MAX_FRAME_LEN`] is enough for all.
    pub fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, frame)?)
    }

    /// Writes one frame with its virtio-net header.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, frame)?)
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which offload flags a TAP takes here, by their names in linux/if_tun.h: tried on a device that
/// goes with the attempt. `Err`: there is no such device at all.
pub fn offload_flags(name: &str) -> Result<Vec<(&'static str, bool)>, Error> {
    let queue = TapQueue::open(name)?;
    let base = libc::TUN_F_CSUM;
    // The kernel takes the two for UDP only together (`set_offload` in drivers/net/tun.c).
    let flags = [
        ("TUN_F_CSUM", base),
        ("TUN_F_TSO4", base | libc::TUN_F_TSO4),
        ("TUN_F_TSO6", base | libc::TUN_F_TSO6),
        (
            "TUN_F_TSO_ECN",
            base | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
        ),
        (
            "TUN_F_USO4, TUN_F_USO6",
            base | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        ),
    ];
    let tried = flags.map(|(flag, bits)| {
        let done = queue.set(libc::TUNSETOFFLOAD, bits as libc::c_int, "trying", name);
        (flag, done.is_ok())
    });
    Ok(tried.to_vec())
}

/// Keeps the kernel from sending anything of its own by the device.
fn silence(name: &str) {
    let path: PathBuf = Path::new("/proc/sys/net/ipv6/conf")
        .join(name)
        .join("disable_ipv6");
    // Absent where the kernel has no IPv6: nothing to silence then.
    if let Err(error) = fs::write(&path, "1") {
        tracing::debug!(path = %path.display(), %error, "cannot disable IPv6 on the TAP");
    }
}

/// Sets MTU and queue length, brings the device up, and returns its index.
fn configure(name: &str) -> Result<u32, Error> {
    let mut request = IfRequest::new(name)?;
    request.raw.ifr_ifru.ifru_mtu = MTU;
    // SAFETY: reads name and MTU of the ifreq.
    unsafe { request.call(libc::SIOCSIFMTU, "setting the MTU of")? };
    request.raw.ifr_ifru.ifru_metric = QUEUE_LEN;
    // SAFETY: reads name and queue length (an int in the union's place, as the metric is).
    unsafe { request.call(libc::SIOCSIFTXQLEN, "setting the queue length of")? };
    request.raw.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
    // SAFETY: reads name and flags of the ifreq.
    unsafe { request.call(libc::SIOCSIFFLAGS, "bringing up")? };
    links::index(name)
}

/// Sets the device's MTU, for a switch that cuts super-packets to it.
pub fn set_mtu(name: &str, mtu: u32) -> Result<(), Error> {
    let mut request = IfRequest::new(name)?;
    request.raw.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(MTU).min(MTU);
    // SAFETY: reads name and MTU of the ifreq.
    unsafe { request.call(libc::SIOCSIFMTU, "setting the MTU of") }
}

/// Removes the device; true if it was there. Queues still open elsewhere keep it alive until they
/// are closed.
pub fn remove(name: &str) -> Result<bool, Error> {
    match links::index(name) {
        Ok(_) => {}
        Err(e) if e.is_gone() => return Ok(false),
        Err(e) => return Err(e),
    }
    let queue = TapQueue::open(name)?;
    queue.set(libc::TUNSETPERSIST, 0, "removing", name)?;
    Ok(true)
}
