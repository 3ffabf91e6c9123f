//! Frames of an interface by AF_PACKET, in the calling thread's network namespace (packet(7)).
//!
//! What the kernel knows of a frame beyond its bytes comes only if it is asked for: the virtio-net
//! header (segmentation still to be done, checksum still to be filled in) with
//! [`Options::vnet_header`], the 802.1Q tag, which the kernel takes out of the frame, always.
//! A user that sends a frame on without the header loses both offloads; one that does not put the
//! tag back loses the tag.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Error;
use crate::links;

/// Length of the virtio-net header in front of each frame: `struct virtio_net_hdr`, without
/// `num_buffers`, unlike the TAP's.
pub const VNET_HEADER_LEN: usize = 10;
/// Length of an 802.1Q tag, which [`Received::whole`] needs as room.
pub const TAG_LEN: usize = 4;
/// Length of the Ethernet addresses, behind which the tag stands.
const ADDRESSES_LEN: usize = 12;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: `csum_start` means something.
const NEEDS_CSUM: u8 = 1;
/// Offsets of `hdr_len` and `csum_start` in the virtio-net header.
const HDR_LEN: usize = 2;
const CSUM_START: usize = 6;
/// Bytes of control messages: one `struct tpacket_auxdata` with its header takes 40.
const CONTROL_LEN: usize = 64;
/// TPID of an 802.1Q tag, for kernels that do not tell it.
const TPID_8021Q: u16 = 0x8100;

/// How to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Each frame received or sent has a virtio-net header of [`VNET_HEADER_LEN`] bytes, in the
    /// machine's byte order, in front of it.
    pub vnet_header: bool,
    /// Frames that the node itself sends by the interface are received too.
    pub outgoing: bool,
    /// Nothing is received: the socket is only sent by.
    pub send_only: bool,
    /// Bytes that may wait for the reader; 0: the system's default (`net.core.rmem_default`). The
    /// kernel counts a frame with its bookkeeping, at least some 700 bytes each.
    pub receive_buffer: u32,
}

/// An 802.1Q or 802.1ad tag that the kernel has taken out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN number.
    pub tci: u16,
}

/// What is known of a frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer, the virtio-net header among them if there is one.
    pub len: usize,
    /// Bytes that the frame has; more than `len` if it was cut.
    pub full_len: usize,
    /// The tag that was taken out of it.
    pub vlan: Option<VlanTag>,
    /// Its checksum is still to be filled in (`TP_STATUS_CSUMNOTREADY`).
    pub partial_checksum: bool,
}

impl Received {
    /// The frame with its tag where it was on the link, ready to be sent on. `buffer` has
    /// [`TAG_LEN`] bytes of room and then what [`PacketSocket::receive`] wrote. With `vnet_header`
    /// there is such a header in front; what it says of offsets is changed to fit.
    pub fn whole<'a>(&self, buffer: &'a mut [u8], vnet_header: bool) -> &'a mut [u8] {
        let header_len = if vnet_header { VNET_HEADER_LEN } else { 0 };
        let end = (TAG_LEN + self.len).min(buffer.len());
        let front = header_len + ADDRESSES_LEN;
        let tag = self.vlan.filter(|_| end >= TAG_LEN + front);
        let Some(tag) = tag else {
            return buffer.get_mut(TAG_LEN..end).unwrap_or_default();
        };
        let frame = buffer.get_mut(..end).unwrap_or_default();
        frame.copy_within(TAG_LEN..TAG_LEN + front, 0);
        let place = frame.get_mut(front..front + TAG_LEN);
        let ([p0, p1], [t0, t1]) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
        place.unwrap_or_default().copy_from_slice(&[p0, p1, t0, t1]);
        if vnet_header {
            if frame.first().is_some_and(|flags| flags & NEEDS_CSUM != 0) {
                move_behind_tag(frame, CSUM_START);
            }
            move_behind_tag(frame, HDR_LEN);
        }
        frame
    }
}

/// Adds the tag's length to a number of the virtio-net header, unless that is not set.
fn move_behind_tag(header: &mut [u8], offset: usize) {
    let Some(place) = header
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut())
    else {
        return;
    };
    let value = u16::from_ne_bytes(*place);
    if value != 0 {
        *place = value.saturating_add(TAG_LEN as u16).to_ne_bytes();
    }
}

/// An AF_PACKET socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens it; from then on every frame that the interface receives comes here too, those for other
    /// hosts' addresses as well: the interface is promiscuous while the socket is open. Needs
    /// CAP_NET_RAW.
    ///
    /// # Errors
    /// No such interface, or the kernel refuses an option.
    pub fn open(ifname: &str, options: Options) -> Result<Self, Error> {
        let ifindex = links::index(ifname)?;
        // Protocol 0: receives nothing until it is bound, so nothing of another interface.
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes three numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(Error::os("opening a packet socket on", ifname)(error));
        }
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd };
        socket.configure(ifname, options)?;
        socket
            .bind(ifindex, options.send_only)
            .map_err(Error::os("binding a packet socket to", ifname))?;
        socket
            .see_all(ifindex)
            .map_err(Error::os("asking for every frame of", ifname))?;
        Ok(socket)
    }

    fn see_all(&self, ifindex: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: ifindex as libc::c_int,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, request)
    }

    fn configure(&self, ifname: &str, options: Options) -> Result<(), Error> {
        let packet = libc::SOL_PACKET;
        let set = |level, name, value: libc::c_int, action| {
            self.set::<libc::c_int>(level, name, value)
                .map_err(Error::os(action, ifname))
        };
        set(packet, libc::PACKET_AUXDATA, 1, "asking for the tags of")?;
        let quiet = libc::c_int::from(!options.outgoing);
        let action = "leaving out what is sent by";
        set(packet, libc::PACKET_IGNORE_OUTGOING, quiet, action)?;
        if options.vnet_header {
            let action = "asking for the virtio-net header of";
            set(packet, libc::PACKET_VNET_HDR, 1, action)?;
        }
        if options.receive_buffer > 0 {
            let bytes = libc::c_int::try_from(options.receive_buffer).unwrap_or(libc::c_int::MAX);
            let action = "enlarging the receive buffer of";
            set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes, action)?;
        }
        Ok(())
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
        // SAFETY: the option reads a value of this size, which lives for the call.
        let status = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn bind(&self, ifindex: u32, send_only: bool) -> io::Result<()> {
        // Protocol 0 receives nothing.
        let protocol = if send_only { 0 } else { libc::ETH_P_ALL as u16 };
        // SAFETY: `sockaddr_ll` is integers and an array; all zero is a value of it.
        let mut addr: libc::sockaddr_ll = unsafe { mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as libc::c_ushort;
        addr.sll_protocol = protocol.to_be();
        addr.sll_ifindex = ifindex as libc::c_int;
        // SAFETY: the kernel reads the address, which lives for the call and has this size.
        let status = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const addr).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes one frame, without waiting. What does not fit into `buffer` is cut off;
    /// [`Received::full_len`] tells.
    ///
    /// # Errors
    /// `WouldBlock`: none there. `NetworkDown`: the interface went down (told once; frames come
    /// again when it is up).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = MaybeUninit::<Control>::uninit();
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: `msghdr` is integers and pointers; all zero is a value of it.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: the message's buffers live for the call and have the lengths that it states.
        let status = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
        let full_len = usize::try_from(status).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: recvmsg succeeded on this message, whose control buffer is still there.
        let aux = unsafe { auxdata(&message) };
        let has = |bit| aux.is_some_and(|aux| aux.tp_status & bit != 0);
        let tagged = aux.filter(|_| has(libc::TP_STATUS_VLAN_VALID));
        Ok(Received {
            len: full_len.min(buffer.len()),
            full_len,
            vlan: tagged.map(|aux| VlanTag {
                tpid: match has(libc::TP_STATUS_VLAN_TPID_VALID) {
                    true => aux.tp_vlan_tpid,
                    false => TPID_8021Q,
                },
                tci: aux.tp_vlan_tci,
            }),
            partial_checksum: has(libc::TP_STATUS_CSUMNOTREADY),
        })
    }

    /// Sends one frame; waits while the socket's send buffer is full.
    ///
    /// # Errors
    /// `EMSGSIZE` (raw OS error): it is longer than the MTU allows, and its virtio-net header, if
    /// there is one, does not say that it is to be segmented. `ENOBUFS`: the interface's queue
    /// dropped it. `EINVAL`: its virtio-net header does not fit it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads the frame, which lives for the call.
        let status =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Room for control messages, aligned for their headers.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// The auxiliary data among a message's control messages.
///
/// # Safety
/// `message` must be as a successful recvmsg left it, with its control buffer alive.
unsafe fn auxdata(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: the caller's promise; null if there is no control message.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points at a header inside the control buffer.
        let found = unsafe { &*header };
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: the kernel writes a whole `tpacket_auxdata` into such a message, or marks
            // the buffer as too small and shortens the length, which is looked at.
            let whole = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as _) } as usize;
            if (found.cmsg_len as usize) < whole {
                return None;
            }
            // SAFETY: as above; it need not be aligned.
            return Some(unsafe {
                libc::CMSG_DATA(header)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            });
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_interface_is_not_there() {
        let error = PacketSocket::open("tg-none", Options::default()).unwrap_err();
        assert!(error.is_gone(), "{error}");
        assert!(error.to_string().contains("tg-none"), "{error}");
    }

    #[test]
    fn the_control_buffer_holds_what_is_asked_for() {
        // SAFETY: computes from a number.
        let space = unsafe { libc::CMSG_SPACE(size_of::<libc::tpacket_auxdata>() as _) };
        assert!(space as usize <= CONTROL_LEN);
    }

    const TAG: VlanTag = VlanTag {
        tpid: TPID_8021Q,
        tci: 100,
    };

    fn received(len: usize, vlan: Option<VlanTag>) -> Received {
        Received {
            len,
            full_len: len,
            vlan,
            partial_checksum: false,
        }
    }

    #[test]
    fn the_tag_stands_behind_the_addresses() {
        let bytes = |from, to| {
            [0; TAG_LEN]
                .into_iter()
                .chain(from..=to)
                .collect::<Vec<u8>>()
        };
        let mut buffer = bytes(1, 16);
        let frame = received(16, Some(TAG)).whole(&mut buffer, false);
        let expected: Vec<u8> = (1..=12).chain([0x81, 0, 0, 100, 13, 14, 15, 16]).collect();
        assert_eq!(frame, expected);
        let mut buffer = bytes(1, 16);
        let frame = received(16, None).whole(&mut buffer, false);
        assert_eq!(frame, (1..=16).collect::<Vec<u8>>());
    }

    #[test]
    fn the_header_points_behind_the_tag() {
        let header = |hdr_len: u16, csum_start: u16| {
            let mut header = vec![NEEDS_CSUM, 1];
            for word in [hdr_len, 1448, csum_start, 16] {
                header.extend(word.to_ne_bytes());
            }
            header
        };
        let frame: Vec<u8> = (1..=14).collect();
        let mut buffer = [vec![0; TAG_LEN], header(66, 34), frame.clone()].concat();
        let whole = received(24, Some(TAG)).whole(&mut buffer, true);
        let tag = [0x81, 0, 0, 100];
        let expected = [
            header(70, 38),
            frame[..12].to_vec(),
            tag.to_vec(),
            frame[12..].to_vec(),
        ];
        assert_eq!(whole, expected.concat());
    }

    #[test]
    fn what_is_no_frame_stays_as_it_is() {
        for len in 0..ADDRESSES_LEN {
            let mut buffer = vec![7; TAG_LEN + len];
            let whole = received(len, Some(TAG)).whole(&mut buffer, false);
            assert_eq!(whole, vec![7; len]);
        }
        assert!(received(99, Some(TAG)).whole(&mut [], true).is_empty());
    }
}
