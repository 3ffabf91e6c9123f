//! The virtio-net header that travels before every frame (`struct virtio_net_hdr_v1` of
//! `include/uapi/linux/virtio_net.h`; virtio 1.2, 5.1.6), little endian.
//!
//! It carries what the kernel knew of a packet: that its checksum is still to be filled in, that it
//! is a super-packet and how to cut it.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header in bytes: the variant with `num_buffers` (`TUNSETVNETHDRSZ` 12).
pub const VNET_HDR_LEN: usize = 12;

/// Flag: the checksum at `csum_start + csum_offset` is partial (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was found right (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const DATA_VALID: u8 = 2;

/// Not a super-packet (`VIRTIO_NET_HDR_GSO_NONE`).
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4, to be cut into segments (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const GSO_TCPV4: u8 = 1;
/// A UDP datagram to be cut into IP fragments (`VIRTIO_NET_HDR_GSO_UDP`).
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6, to be cut into segments (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const GSO_TCPV6: u8 = 4;
/// UDP, to be cut into datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;
/// Bit beside a TCP type: the first segment has CWR set (`VIRTIO_NET_HDR_GSO_ECN`).
pub const GSO_ECN: u8 = 0x80;

/// The header, in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// [`NEEDS_CSUM`], [`DATA_VALID`]; unknown bits are kept.
    pub flags: u8,
    /// One of the `GSO_` types, with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of the frame, from the Ethernet header on, that the kernel should keep linear. A hint;
    /// the kernel refuses a frame that is shorter.
    pub hdr_len: u16,
    /// Payload bytes per segment of a super-packet.
    pub gso_size: u16,
    /// Where the checksum's coverage starts, in bytes from the Ethernet header.
    pub csum_start: u16,
    /// Where the checksum field is, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Number of receive buffers; a TAP leaves it 0.
    pub num_buffers: u16,
}

/// The header as it lies in memory.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
    num_buffers: U16,
}

const _: () = assert!(size_of::<Raw>() == VNET_HDR_LEN);

/// A buffer is too short for a virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virtio-net header: {have} bytes where {VNET_HDR_LEN} are needed")]
pub struct VnetTruncated {
    /// Length of the buffer.
    pub have: usize,
}

impl VnetTruncated {
    /// Stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        "vnet-truncated"
    }
}

impl VnetHdr {
    /// Reads the header from the front of a frame.
    ///
    /// # Errors
    /// The frame has fewer than [`VNET_HDR_LEN`] bytes.
    pub fn parse(frame: &[u8]) -> Result<Self, VnetTruncated> {
        let truncated = VnetTruncated { have: frame.len() };
        let (raw, _) = Raw::read_from_prefix(frame).map_err(|_| truncated)?;
        Ok(Self {
            flags: raw.flags,
            gso_type: raw.gso_type,
            hdr_len: raw.hdr_len.get(),
            gso_size: raw.gso_size.get(),
            csum_start: raw.csum_start.get(),
            csum_offset: raw.csum_offset.get(),
            num_buffers: raw.num_buffers.get(),
        })
    }

    /// Writes the header over the front of a frame.
    ///
    /// # Errors
    /// The frame has fewer than [`VNET_HDR_LEN`] bytes; nothing is written then.
    pub fn write(&self, frame: &mut [u8]) -> Result<(), VnetTruncated> {
        let raw = Raw {
            flags: self.flags,
            gso_type: self.gso_type,
            hdr_len: self.hdr_len.into(),
            gso_size: self.gso_size.into(),
            csum_start: self.csum_start.into(),
            csum_offset: self.csum_offset.into(),
            num_buffers: self.num_buffers.into(),
        };
        raw.write_to_prefix(frame)
            .map_err(|_| VnetTruncated { have: frame.len() })
    }

    /// Whether the checksum field is partial: it holds the pseudo header's sum only.
    pub fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Whether the frame is a super-packet.
    pub fn is_gso(&self) -> bool {
        self.gso_kind() != GSO_NONE
    }

    /// The GSO type without its ECN bit.
    pub fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Position of the checksum field that [`NEEDS_CSUM`] speaks of, from the Ethernet header.
    pub fn csum_field(&self) -> usize {
        usize::from(self.csum_start) + usize::from(self.csum_offset)
    }

    /// Marks the frame as not being a super-packet.
    pub fn clear_gso(&mut self) {
        self.gso_type = GSO_NONE;
        self.gso_size = 0;
        self.hdr_len = 0;
    }
}

/// Divides a frame into its header and the Ethernet frame.
///
/// # Errors
/// The frame has fewer than [`VNET_HDR_LEN`] bytes.
pub fn split(frame: &[u8]) -> Result<(VnetHdr, &[u8]), VnetTruncated> {
    let header = VnetHdr::parse(frame)?;
    Ok((header, frame.get(VNET_HDR_LEN..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_kernel_puts_them() {
        let bytes = [
            1, 0x81, 0x42, 0, 0xa8, 0x05, 0x22, 0, 0x10, 0, 0x34, 0x12, 0xff,
        ];
        let header = VnetHdr::parse(&bytes).unwrap();
        let expected = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0x1234,
        };
        assert_eq!(header, expected);
        assert_eq!(header.gso_kind(), GSO_TCPV4);
        assert_eq!(header.csum_field(), 50);
        let mut out = [0xff; 13];
        header.write(&mut out).unwrap();
        assert_eq!(out, bytes);
    }

    #[test]
    fn short_buffers_are_refused() {
        for have in 0..VNET_HDR_LEN {
            let mut buf = vec![0; have];
            assert_eq!(VnetHdr::parse(&buf), Err(VnetTruncated { have }));
            assert_eq!(
                VnetHdr::default().write(&mut buf),
                Err(VnetTruncated { have })
            );
        }
        assert_eq!(split(&[0; VNET_HDR_LEN]).unwrap().1, b"");
    }
}
