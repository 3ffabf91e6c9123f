//! TCP sequence numbers: arithmetic modulo 2^32 (RFC 9293, section 3.4).

/// How far `a` lies after `b`; negative if before. Right while they are less than 2^31 apart.
pub(crate) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// `a` comes before `b`.
pub(crate) fn before(a: u32, b: u32) -> bool {
    distance(a, b) < 0
}

/// `len` as a sequence distance. Frames are at most 64 KiB and grants at most 2^30, so nothing is
/// ever cut off; saturating keeps it total.
pub(crate) fn span(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(before(0xffff_fff0, 5));
        assert!(!before(5, 0xffff_fff0));
        assert_eq!(distance(5, 0xffff_fffb), 10);
    }
}
