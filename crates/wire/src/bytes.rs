//! Reading and writing numbers in network byte order, without panics.

/// `N` bytes at `offset`, if the buffer has them.
#[inline]
pub(crate) fn array<const N: usize>(buf: &[u8], offset: usize) -> Option<[u8; N]> {
    buf.get(offset..)?.first_chunk().copied()
}

#[inline]
pub(crate) fn be16(buf: &[u8], offset: usize) -> Option<u16> {
    array(buf, offset).map(u16::from_be_bytes)
}

#[inline]
pub(crate) fn be32(buf: &[u8], offset: usize) -> Option<u32> {
    array(buf, offset).map(u32::from_be_bytes)
}

/// Overwrites bytes at `offset`; `None` if they do not fit, and then nothing is written.
#[inline]
pub(crate) fn put<const N: usize>(buf: &mut [u8], offset: usize, bytes: [u8; N]) -> Option<()> {
    *buf.get_mut(offset..)?.first_chunk_mut()? = bytes;
    Some(())
}
