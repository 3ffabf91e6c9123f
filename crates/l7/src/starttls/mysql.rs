//! The first packet of a MySQL client.

use crate::detect::{Detected, Match};

/// The third byte of the length: the packet is below 64 KiB.
const LENGTH_HIGH: u8 = 0;
/// The server's greeting was packet 0.
const SEQUENCE: u8 = 1;
/// Flag `CLIENT_PROTOCOL_41` in the second byte of the capabilities; every client since 2005.
const PROTOCOL_41: u8 = 2;
/// Length of an `SSLRequest`, with which a `HandshakeResponse41` starts as well.
const PACKET_MIN: u16 = 32;

pub(crate) fn recognise(prefix: &[u8]) -> Match {
    let Some((length, rest)) = prefix.split_first_chunk::<2>() else {
        return Match::Maybe;
    };
    if u16::from_le_bytes(*length) < PACKET_MIN {
        return Match::No;
    }
    match rest {
        [] | [LENGTH_HIGH] | [LENGTH_HIGH, SEQUENCE] | [LENGTH_HIGH, SEQUENCE, _] => Match::Maybe,
        [LENGTH_HIGH, SEQUENCE, _, flags, ..] if flags & PROTOCOL_41 != 0 => {
            Match::Yes(Detected::MySql)
        }
        _ => Match::No,
    }
}
