//! The frames inside a client's Initial packet (RFC 9000 sections 12.4 and 19).

use super::header::Cursor;
use crate::refusal::{QUIC_FRAME_FORBIDDEN, QUIC_MALFORMED, Refusal};

/// Frame types that Initial packets may carry (RFC 9000 section 12.4, table 3). All of them fit
/// one byte, and the shortest encoding is the only valid one.
mod kind {
    pub(super) const PADDING: u8 = 0x00;
    pub(super) const PING: u8 = 0x01;
    pub(super) const ACK: u8 = 0x02;
    pub(super) const ACK_ECN: u8 = 0x03;
    pub(super) const CRYPTO: u8 = 0x06;
    /// Of the transport; the application's own (0x1d) is not allowed this early.
    pub(super) const CONNECTION_CLOSE: u8 = 0x1c;
}

/// A piece of the CRYPTO stream.
pub(super) struct Crypto<'a> {
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

/// Shows every CRYPTO frame of the payload to `each` and checks the others.
pub(super) fn walk<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(Crypto<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if payload.is_empty() {
        // RFC 9000 section 12.4: a packet has at least one frame.
        return Err(QUIC_MALFORMED);
    }
    let mut cursor = Cursor::new(payload);
    while !cursor.is_empty() {
        match cursor.u8()? {
            kind::PADDING | kind::PING => {}
            kind::ACK => ack(&mut cursor)?,
            kind::ACK_ECN => {
                ack(&mut cursor)?;
                // ECT(0), ECT(1) and CE counts.
                skip(&mut cursor, 3)?;
            }
            kind::CRYPTO => each(Crypto {
                offset: cursor.varint()?,
                data: cursor.vec()?,
            })?,
            kind::CONNECTION_CLOSE => {
                // Error code and frame type; then the reason.
                skip(&mut cursor, 2)?;
                cursor.vec()?;
            }
            _ => return Err(QUIC_FRAME_FORBIDDEN),
        }
    }
    Ok(())
}

/// RFC 9000 section 19.3.
fn ack(cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
    // Largest acknowledged and delay.
    skip(cursor, 2)?;
    let ranges = cursor.varint()?;
    // First range.
    skip(cursor, 1)?;
    // Each range takes at least two bytes: a false count ends with the payload.
    for _ in 0..ranges {
        skip(cursor, 2)?;
    }
    Ok(())
}

fn skip(cursor: &mut Cursor<'_>, integers: usize) -> Result<(), Refusal> {
    for _ in 0..integers {
        cursor.varint()?;
    }
    Ok(())
}
