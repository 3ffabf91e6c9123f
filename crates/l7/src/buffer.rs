//! Growing a buffer without growing past a bound.

/// Smallest allocation: a typical head or hello needs no second one.
const FIRST: usize = 512;

/// Appends `piece`; the caller has checked that the sum stays within `max`. Capacity doubles, so
/// that work is linear, and ends at `max` exactly.
pub(crate) fn append(buf: &mut Vec<u8>, piece: &[u8], max: usize) {
    let need = buf.len().saturating_add(piece.len());
    if need > buf.capacity() {
        let target = need
            .max(buf.capacity().saturating_mul(2))
            .max(FIRST)
            .min(max.max(need));
        buf.reserve_exact(target - buf.len());
    }
    buf.extend_from_slice(piece);
}
