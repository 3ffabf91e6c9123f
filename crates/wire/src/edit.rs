//! Changes frames in place (virtio-net header and Ethernet), and keeps them right.
//!
//! * A full checksum is updated by the difference that the change makes (RFC 1624), so that a frame
//!   that came with a wrong checksum leaves with a wrong one.
//! * A partial checksum ([`crate::vnet::NEEDS_CSUM`]) stays partial: its pseudo header sum follows
//!   the length.
//! * A super-packet whose payload fits one segment afterwards is marked as an ordinary packet, and
//!   `hdr_len` never exceeds the frame, which the kernel would refuse.
//!
//! After a change of length the [`Layout`] no longer describes the frame: parse it again. If a
//! function fails, the frame is as it was. The contents of an authentication header (RFC 4302) are
//! not made to match.

use std::ops::Range;

use crate::bytes::{be16, put};
use crate::checksum::{pseudo, sum, update, update_partial};
use crate::packet::{
    ETHERNET_HEADER_LEN, IP_LENGTH_MAX, L4, Layout, TcpFlags, TcpHeader, ipv4, ipv6, is_vlan, l4,
    tcp,
};
use crate::verify::checksum_field;
use crate::vnet::{VNET_HDR_LEN, VnetHdr, VnetTruncated};

/// Why a frame could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The frame has no virtio-net header.
    #[error(transparent)]
    Vnet(#[from] VnetTruncated),
    /// The layout is not that of this frame.
    #[error("edit: the layout does not describe the frame")]
    LayoutMismatch,
    /// The packet is of a protocol that this change is not made for.
    #[error("edit: IP protocol {protocol} cannot be changed this way")]
    WrongProtocol {
        /// Its IP protocol number.
        protocol: u8,
    },
    /// The bytes to change are not all in the payload.
    #[error("edit: bytes up to {wanted} of a payload of {payload_len}")]
    OutOfRange {
        /// Where the bytes would end, from the start of the payload.
        wanted: usize,
        /// Length of the payload.
        payload_len: usize,
    },
    /// The front of a segment with SYN cannot be cut off: SYN comes before the payload.
    #[error("edit: the segment has SYN set")]
    Syn,
    /// The partial checksum is not that of the L4 header.
    #[error("edit: the partial checksum is not that of the L4 header")]
    ForeignPartial,
    /// The length of an IPv6 jumbogram (RFC 2675) is in an option that is not rewritten.
    #[error("edit: the length of an IPv6 jumbogram cannot be changed")]
    Jumbogram,
    /// There is no 802.1Q tag to rewrite.
    #[error("edit: the frame has no VLAN tag")]
    NoTag,
}

impl EditError {
    /// Stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Vnet(error) => error.reason(),
            Self::LayoutMismatch => "edit-layout-mismatch",
            Self::WrongProtocol { .. } => "edit-wrong-protocol",
            Self::OutOfRange { .. } => "edit-out-of-range",
            Self::Syn => "edit-syn",
            Self::ForeignPartial => "edit-foreign-partial-checksum",
            Self::Jumbogram => "edit-jumbogram",
            Self::NoTag => "edit-no-vlan-tag",
        }
    }
}

/// Cuts a TCP segment's payload to its first `new_payload_len` bytes. FIN, which comes after the
/// payload, is cleared, even if nothing was cut; other flags are kept.
///
/// # Errors
/// Not TCP, the payload is shorter than that, or the frame cannot be changed (see [`EditError`]).
pub fn truncate_payload(
    frame: &mut Vec<u8>,
    layout: &Layout,
    new_payload_len: usize,
) -> Result<(), EditError> {
    let target = Target::locate(frame, layout)?;
    let tcp = target.tcp()?;
    let payload_len = layout.payload_len();
    let cut = payload_len
        .checked_sub(new_payload_len)
        .ok_or(EditError::OutOfRange {
            wanted: new_payload_len,
            payload_len,
        })?;
    target.resize(frame, cut, |frame| {
        frame.truncate(target.payload.start + new_payload_len);
        let flags = tcp.flags.without(TcpFlags::FIN);
        put(frame, target.l4 + tcp::FLAGS_OFFSET, [flags.0])
    })
}

/// Drops the first `n` payload bytes of a TCP segment and advances its sequence number and urgent
/// pointer accordingly.
///
/// # Errors
/// Not TCP, SYN is set, the payload is shorter than that, or the frame cannot be changed (see
/// [`EditError`]).
pub fn trim_payload_front(frame: &mut Vec<u8>, layout: &Layout, n: usize) -> Result<(), EditError> {
    let target = Target::locate(frame, layout)?;
    let tcp = target.tcp()?;
    if tcp.flags.syn() {
        return Err(EditError::Syn);
    }
    let payload_len = layout.payload_len();
    let advance =
        u32::try_from(n)
            .ok()
            .filter(|_| n <= payload_len)
            .ok_or(EditError::OutOfRange {
                wanted: n,
                payload_len,
            })?;
    target.resize(frame, n, |frame| {
        frame.truncate(target.payload.end);
        frame.drain(target.payload.start..target.payload.start + n);
        let seq = tcp.seq.wrapping_add(advance);
        put(frame, target.l4 + tcp::SEQ_OFFSET, seq.to_be_bytes())?;
        target.move_urgent_pointer(frame, tcp, advance)
    })
}

/// Overwrites payload bytes of a TCP segment or UDP datagram, from `at` bytes into the payload on.
///
/// # Errors
/// Another protocol, the bytes do not fit the payload, or the frame cannot be changed (see
/// [`EditError`]).
pub fn replace_payload(
    frame: &mut [u8],
    layout: &Layout,
    at: usize,
    bytes: &[u8],
) -> Result<(), EditError> {
    let target = Target::locate(frame, layout)?;
    let payload_len = layout.payload_len();
    let wanted = at.saturating_add(bytes.len());
    if wanted > payload_len {
        return Err(EditError::OutOfRange {
            wanted,
            payload_len,
        });
    }
    let start = target.payload.start + at;
    let end = start + bytes.len();
    // Sums start at an even distance from the L4 header, whose own length is even.
    let words = start - at % 2..end;
    let old = sum(frame.get(words.clone()).ok_or(EditError::LayoutMismatch)?);
    frame
        .get_mut(start..end)
        .ok_or(EditError::LayoutMismatch)?
        .copy_from_slice(bytes);
    let new = sum(frame.get(words).ok_or(EditError::LayoutMismatch)?);
    if target.coverage == Coverage::Full {
        target
            .update_checksum(frame, old, new)
            .ok_or(EditError::LayoutMismatch)?;
    }
    Ok(())
}

/// Clears the URG flag and the urgent pointer of a TCP segment: every payload byte is ordinary data.
///
/// # Errors
/// Not TCP, or the frame cannot be changed (see [`EditError`]).
pub fn clear_urgent(frame: &mut [u8], layout: &Layout) -> Result<(), EditError> {
    let target = Target::locate(frame, layout)?;
    let tcp = target.tcp()?;
    let end = target.payload.end;
    let old = target.covered_sum(frame, end);
    put(
        frame,
        target.l4 + tcp::FLAGS_OFFSET,
        [tcp.flags.without(TcpFlags::URG).0],
    )
    .and_then(|()| put(frame, target.l4 + tcp::URGENT_OFFSET, [0; 2]))
    .and_then(|()| {
        let new = target.covered_sum(frame, end);
        target.update_checksum(frame, old, new)
    })
    .ok_or(EditError::LayoutMismatch)
}

/// Overwrites the TCI (priority, DEI, VLAN id) of a frame's outermost 802.1Q tag.
///
/// # Errors
/// The frame is too short, or has no tag.
pub fn set_vlan(frame: &mut [u8], tci: u16) -> Result<(), EditError> {
    const TPID: usize = VNET_HDR_LEN + ETHERNET_HEADER_LEN - 2;
    VnetHdr::parse(frame)?;
    if !be16(frame, TPID).is_some_and(is_vlan) {
        return Err(EditError::NoTag);
    }
    put(frame, TPID + 2, tci.to_be_bytes()).ok_or(EditError::NoTag)
}

/// What the checksum field in the frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    /// Pseudo header, L4 header and payload.
    Full,
    /// The pseudo header.
    Partial,
    /// Nothing: UDP over IPv4 without a checksum.
    None,
}

/// A frame that matches its layout; offsets count from the virtio-net header.
struct Target<'a> {
    layout: &'a Layout,
    header: VnetHdr,
    ip: usize,
    l4: usize,
    payload: Range<usize>,
    checksum: usize,
    coverage: Coverage,
}

impl<'a> Target<'a> {
    /// Finds the parts of a TCP or UDP frame, and checks that they are where the layout says.
    fn locate(frame: &[u8], layout: &'a Layout) -> Result<Self, EditError> {
        let header = VnetHdr::parse(frame)?;
        let wrong_protocol = EditError::WrongProtocol {
            protocol: layout.protocol,
        };
        if !matches!(layout.l4, L4::Tcp(_) | L4::Udp { .. }) {
            return Err(wrong_protocol);
        }
        if !matches(frame, layout) {
            return Err(EditError::LayoutMismatch);
        }
        let field = checksum_field(layout).ok_or(wrong_protocol)?;
        Ok(Self {
            layout,
            header,
            ip: VNET_HDR_LEN + layout.ip_offset,
            l4: VNET_HDR_LEN + layout.l4_offset,
            payload: VNET_HDR_LEN + layout.payload_offset..VNET_HDR_LEN + layout.end,
            checksum: VNET_HDR_LEN + field,
            coverage: coverage(frame, layout, &header, field)?,
        })
    }

    fn tcp(&self) -> Result<&'a TcpHeader, EditError> {
        let protocol = self.layout.protocol;
        self.layout
            .tcp()
            .ok_or(EditError::WrongProtocol { protocol })
    }

    /// Runs `change`, which takes `cut` bytes of payload and everything after the packet away, and
    /// makes lengths, checksums and the virtio-net header follow.
    fn resize(
        &self,
        frame: &mut Vec<u8>,
        cut: usize,
        change: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> Result<(), EditError> {
        self.check_length_field(frame)?;
        let end = self.payload.end - cut;
        let old = self.covered_sum(frame, self.payload.end);
        change(frame)
            .and_then(|()| self.write_ip_length(frame, end))
            .and_then(|()| {
                let new = self.covered_sum(frame, end);
                self.update_checksum(frame, old, new)
            })
            .ok_or(EditError::LayoutMismatch)?;
        self.settle_header(frame, end)
    }

    /// Checks that the IP header's length is the layout's, and is one that can be rewritten.
    fn check_length_field(&self, frame: &[u8]) -> Result<(), EditError> {
        let (offset, len) = self.ip_length(self.payload.end);
        if be16(frame, offset) != Some(len) {
            return Err(EditError::LayoutMismatch);
        }
        let next_header = frame.get(self.ip + ipv6::NEXT_HEADER_OFFSET);
        let is_jumbogram = len == 0 && next_header == Some(&ipv6::HOP_BY_HOP);
        if self.layout.src.is_ipv6() && is_jumbogram {
            return Err(EditError::Jumbogram);
        }
        Ok(())
    }

    /// Where the IP length lies, and what it says of a packet that ends at `end`: 0 for a
    /// super-packet too long for it.
    fn ip_length(&self, end: usize) -> (usize, u16) {
        let (offset, len) = if self.layout.src.is_ipv4() {
            (ipv4::LENGTH_OFFSET, end - self.ip)
        } else {
            (ipv6::LENGTH_OFFSET, end - self.ip - ipv6::HEADER_LEN)
        };
        const { assert!(IP_LENGTH_MAX == u16::MAX as usize) };
        (self.ip + offset, u16::try_from(len).unwrap_or(0))
    }

    fn write_ip_length(&self, frame: &mut [u8], end: usize) -> Option<()> {
        let (offset, new) = self.ip_length(end);
        let old = be16(frame, offset)?;
        put(frame, offset, new.to_be_bytes())?;
        if self.layout.src.is_ipv6() {
            return Some(());
        }
        let checksum = self.ip + ipv4::CHECKSUM_OFFSET;
        let check = update(be16(frame, checksum)?, old.into(), new.into());
        put(frame, checksum, check.to_be_bytes())
    }

    /// Sum of what the L4 checksum covers in a packet that ends at `end`. The checksum field itself
    /// may be in it: it is the same before and after a change, and cancels out.
    fn covered_sum(&self, frame: &[u8], end: usize) -> u64 {
        let Layout {
            src, dst, protocol, ..
        } = *self.layout;
        let len = u32::try_from(end - self.l4).unwrap_or(u32::MAX);
        let segment = match self.coverage {
            Coverage::Full => frame.get(self.l4..end).unwrap_or_default(),
            Coverage::Partial | Coverage::None => &[],
        };
        pseudo(src, dst, protocol, len) + sum(segment)
    }

    /// Updates the L4 checksum, from the sum of what it covered to the sum of what it covers now.
    fn update_checksum(&self, frame: &mut [u8], old: u64, new: u64) -> Option<()> {
        let check = be16(frame, self.checksum)?;
        let check = match (self.coverage, self.layout.l4) {
            (Coverage::None, _) => check,
            (Coverage::Partial, _) => update_partial(check, old, new),
            // A UDP checksum of 0 would mean that there is none.
            (Coverage::Full, L4::Udp { .. }) => match update(check, old, new) {
                0 => 0xffff,
                check => check,
            },
            (Coverage::Full, _) => update(check, old, new),
        };
        put(frame, self.checksum, check.to_be_bytes())
    }

    /// Makes the virtio-net header fit a frame that has become shorter.
    fn settle_header(&self, frame: &mut [u8], end: usize) -> Result<(), EditError> {
        let mut header = self.header;
        if header.is_gso() && end - self.payload.start <= usize::from(header.gso_size) {
            header.clear_gso();
        }
        let eth_len = u16::try_from(end - VNET_HDR_LEN).unwrap_or(u16::MAX);
        header.hdr_len = header.hdr_len.min(eth_len);
        header.write(frame)?;
        Ok(())
    }

    /// The urgent pointer counts from the sequence number; what it pointed to may be gone.
    fn move_urgent_pointer(&self, frame: &mut [u8], tcp: &TcpHeader, advance: u32) -> Option<()> {
        if !tcp.flags.urg() {
            return Some(());
        }
        let left = u32::from(tcp.urgent)
            .checked_sub(advance)
            .filter(|&left| left > 0);
        if left.is_none() {
            put(
                frame,
                self.l4 + tcp::FLAGS_OFFSET,
                [tcp.flags.without(TcpFlags::URG).0],
            )?;
        }
        let urgent = left.and_then(|left| u16::try_from(left).ok()).unwrap_or(0);
        put(frame, self.l4 + tcp::URGENT_OFFSET, urgent.to_be_bytes())
    }
}

/// Whether a layout is that of this frame, as far as editing depends on it.
fn matches(frame: &[u8], layout: &Layout) -> bool {
    let eth_frame = frame.get(VNET_HDR_LEN..).unwrap_or_default();
    let (version, ip_header_len) = match layout.src {
        std::net::IpAddr::V4(_) => (4, ipv4::MIN_HEADER_LEN),
        std::net::IpAddr::V6(_) => (6, ipv6::HEADER_LEN),
    };
    let in_order = layout.ip_offset.saturating_add(ip_header_len) <= layout.l4_offset
        && layout.l4_offset <= layout.payload_offset
        && layout.payload_offset <= layout.end;
    let is_version = eth_frame
        .get(layout.ip_offset)
        .is_some_and(|byte| byte >> 4 == version);
    let Some(segment) = eth_frame.get(layout.l4_offset..layout.end) else {
        return false;
    };
    let header_len = layout.payload_offset.saturating_sub(layout.l4_offset);
    let is_l4 = match layout.l4 {
        L4::Tcp(tcp) => {
            TcpHeader::parse(segment) == Ok(tcp) && header_len == usize::from(tcp.header_len)
        }
        L4::Udp { src_port, dst_port } => {
            l4::ports(segment, layout.protocol) == Some((src_port, dst_port))
                && header_len == l4::UDP_HEADER_LEN
        }
        _ => false,
    };
    in_order && is_version && is_l4
}

/// What the checksum at `field` (from the Ethernet header) stands for.
fn coverage(
    frame: &[u8],
    layout: &Layout,
    header: &VnetHdr,
    field: usize,
) -> Result<Coverage, EditError> {
    if header.needs_csum() {
        let is_l4 =
            usize::from(header.csum_start) == layout.l4_offset && header.csum_field() == field;
        return if is_l4 {
            Ok(Coverage::Partial)
        } else {
            Err(EditError::ForeignPartial)
        };
    }
    let is_udp = matches!(layout.l4, L4::Udp { .. });
    let is_zero = be16(frame, VNET_HDR_LEN + field) == Some(0);
    Ok(if is_udp && is_zero {
        Coverage::None
    } else {
        Coverage::Full
    })
}
