//! The Internet checksum (RFC 1071): sums, pseudo headers, and updates in place (RFC 1624).
//!
//! A *sum* is an unfolded ones' complement sum of big-endian 16-bit words, held in 64 bits. Sums of
//! adjoining pieces add up with `+`, as long as every piece but the last has an even length; 2^48
//! such additions fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes per turn of the inner loop: four independent 64-bit lanes keep the adders busy and let the
/// compiler vectorise.
const BLOCK: usize = 32;

/// The sum of `data`; an odd last byte counts as the high half of a word.
///
/// The result is at most 0xffff, so it can be added freely to other sums.
pub fn sum(data: &[u8]) -> u64 {
    let (blocks, rest) = data.as_chunks::<BLOCK>();
    let mut lanes = [0u64; BLOCK / 8];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            let word = u64::from_ne_bytes(*word);
            // Two 32-bit halves in 64 bits: no carry to mind below 2^31 blocks.
            *lane += (word & u64::from(u32::MAX)) + (word >> 32);
        }
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    let tail: u64 = pairs
        .iter()
        .map(|pair| u64::from(u16::from_ne_bytes(*pair)))
        .sum();
    let odd: u64 = odd
        .iter()
        .map(|&byte| u64::from(u16::from_ne_bytes([byte, 0])))
        .sum();
    let lanes: u64 = lanes.iter().map(|&lane| u64::from(fold(lane))).sum();
    // The sum does not mind the byte order until here (RFC 1071, 2B).
    u64::from(u16::from_be(fold(lanes + tail + odd)))
}

/// Folds a sum to 16 bits with end-around carry.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // At most 0xffff after the loop.
    sum as u16
}

/// The checksum of a sum: what goes into an IPv4, TCP or ICMP header.
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// As [`finish`], for UDP, where a checksum of 0 would mean "none" (RFC 768).
pub fn finish_udp(sum: u64) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        check => check,
    }
}

/// The checksum of whole bytes, such as an IPv4 header with a zeroed checksum field.
pub fn checksum(data: &[u8]) -> u16 {
    finish(sum(data))
}

/// Sum of the IPv4 pseudo header (RFC 9293, 3.1); `len` is the length of L4 header and payload.
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> u64 {
    sum(&src.octets()) + sum(&dst.octets()) + u64::from(protocol) + u64::from(len)
}

/// Sum of the IPv6 pseudo header (RFC 8200, 8.1); `len` is the length of L4 header and payload.
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> u64 {
    sum(&src.octets()) + sum(&dst.octets()) + u64::from(protocol) + u64::from(len)
}

/// Sum of the pseudo header of either family. Both addresses are of the same family in any packet
/// that was parsed; addresses of two families give a sum that no packet has.
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u64 {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    address(src) + address(dst) + u64::from(protocol) + u64::from(len)
}

/// The checksum after covered bytes with the sum `old` became bytes with the sum `new`
/// (RFC 1624, equation 3).
///
/// A checksum that was wrong stays wrong by the same difference.
pub fn update(check: u16, old: u64, new: u64) -> u16 {
    finish(u64::from(!check) + u64::from(!fold(old)) + u64::from(fold(new)))
}

/// As [`update`], for a partial checksum: the field holds a sum, not its complement.
pub fn update_partial(field: u16, old: u64, new: u64) -> u16 {
    fold(u64::from(field) + u64::from(!fold(old)) + u64::from(fold(new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, word by word.
    fn plain(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn known_sums() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
        assert_eq!(finish_udp(0xffff), 0xffff);
        assert_eq!(finish(0xffff), 0);
        // RFC 1624, section 4: 0xdd2f with 0x5555 -> 0x3285 must give 0x0000, not 0xffff.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn every_length_up_to_several_blocks() {
        let data: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        for len in 0..data.len() {
            assert_eq!(
                sum(&data[..len]),
                u64::from(plain(&data[..len])),
                "length {len}"
            );
        }
        assert_eq!(sum(&vec![0xff; 1 << 20]), 0xffff);
    }

    proptest! {
        #[test]
        fn pieces_add_up(data in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..300) {
            let cut = (cut * 2).min(data.len() & !1);
            let pieces = sum(&data[..cut]) + sum(&data[cut..]);
            prop_assert_eq!(fold(pieces), plain(&data));
        }

        #[test]
        fn updates_equal_recomputation(
            mut data in prop::collection::vec(any::<u8>(), 2..100),
            new in any::<[u8; 2]>(),
            at in 0usize..50,
        ) {
            // Zero data has no checksum that an update could be compared with (-0 and +0).
            data[0] |= 1;
            let at = 2 * at.min(data.len() / 2 - 1);
            prop_assume!(at > 0 || new != [0, 0]);
            let check = checksum(&data);
            let old = sum(&data[at..at + 2]);
            data[at..at + 2].copy_from_slice(&new);
            prop_assert_eq!(update(check, old, sum(&new)), checksum(&data));
        }
    }
}
