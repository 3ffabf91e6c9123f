//! The headers before L4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{BuildError, L2};
use crate::checksum::{checksum, pseudo_v4, pseudo_v6};
use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, ipv4};
use crate::vnet::VNET_HDR_LEN;

/// Source and destination, of one family.
#[derive(Clone, Copy)]
pub(super) enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    pub(super) fn new(src: IpAddr, dst: IpAddr) -> Result<Self, BuildError> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Ok(Self::V4(src, dst)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ok(Self::V6(src, dst)),
            _ => Err(BuildError::FamilyMismatch),
        }
    }
}

/// What goes into an IP header.
#[derive(Clone, Copy)]
pub(super) struct IpHeader {
    pub addresses: Addresses,
    pub protocol: u8,
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
}

impl IpHeader {
    /// Writes everything before the L4 header and returns where that begins. `len` is the length of
    /// what follows, `payload_len` that of the payload in it, for the error.
    pub(super) fn begin(
        &self,
        out: &mut Vec<u8>,
        l2: &L2,
        len: usize,
        payload_len: usize,
    ) -> Result<usize, BuildError> {
        let too_long = BuildError::PayloadTooLong { len: payload_len };
        let (ethertype, counted) = match self.addresses {
            Addresses::V4(..) => (ETHERTYPE_IPV4, ipv4::MIN_HEADER_LEN + len),
            Addresses::V6(..) => (ETHERTYPE_IPV6, len),
        };
        let counted = u16::try_from(counted).map_err(|_| too_long)?;
        out.clear();
        out.extend([0; VNET_HDR_LEN]);
        ethernet(out, l2, ethertype);
        match self.addresses {
            Addresses::V4(src, dst) => self.ipv4(out, src, dst, counted),
            Addresses::V6(src, dst) => self.ipv6(out, src, dst, counted),
        }
        Ok(out.len())
    }

    /// Sum of the pseudo header of an L4 packet of `len` bytes.
    pub(super) fn pseudo(&self, len: usize) -> u64 {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        match self.addresses {
            Addresses::V4(src, dst) => pseudo_v4(src, dst, self.protocol, len),
            Addresses::V6(src, dst) => pseudo_v6(src, dst, self.protocol, len),
        }
    }

    /// Identification 0 is right for a packet that says "don't fragment" (RFC 6864, 4.1).
    fn ipv4(&self, out: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr, total_len: u16) {
        const VERSION_AND_WORDS: u8 = 0x45;
        const DONT_FRAGMENT: u8 = 0x40;
        let mut header = [0; ipv4::MIN_HEADER_LEN];
        header[0] = VERSION_AND_WORDS;
        header[1] = self.traffic_class;
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[6] = DONT_FRAGMENT;
        header[8] = self.hop_limit;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&src.octets());
        header[16..20].copy_from_slice(&dst.octets());
        let check = checksum(&header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        out.extend(header);
    }

    fn ipv6(&self, out: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr, payload_len: u16) {
        let word = 6 << 28 | u32::from(self.traffic_class) << 20;
        out.extend(word.to_be_bytes());
        out.extend(payload_len.to_be_bytes());
        out.extend([self.protocol, self.hop_limit]);
        out.extend(src.octets());
        out.extend(dst.octets());
    }
}

fn ethernet(out: &mut Vec<u8>, l2: &L2, ethertype: u16) {
    out.extend(l2.dst);
    out.extend(l2.src);
    if let Some(tci) = l2.vlan {
        out.extend(ETHERTYPE_VLAN.to_be_bytes());
        out.extend(tci.to_be_bytes());
    }
    out.extend(ethertype.to_be_bytes());
}
