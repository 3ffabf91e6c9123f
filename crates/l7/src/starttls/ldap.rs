//! The first request of an LDAP client.

use crate::detect::{Detected, Match};

/// BER tag SEQUENCE: the LDAPMessage (RFC 4511 section 4.1.1).
const SEQUENCE: u8 = 0x30;
/// BER tag INTEGER: its message ID.
const INTEGER: u8 = 0x02;
/// Longest message ID; it is below 2^31.
const ID_MAX: u8 = 4;
/// Set in a length of several bytes; how many is in the other bits.
const LONG_LENGTH: u8 = 0x80;
/// So many bytes of length follow at most.
const LENGTH_BYTES_MAX: u8 = 4;
/// What a client may start with: `[APPLICATION 0]` bind, 3 search, 23 extended, which is StartTLS
/// (1.3.6.1.4.1.1466.20037) or another request by OID.
const REQUESTS: [u8; 3] = [0x60, 0x63, 0x77];

pub(crate) fn recognise(prefix: &[u8]) -> Match {
    match request(prefix) {
        None => Match::Maybe,
        Some(true) => Match::Yes(Detected::Ldap),
        Some(false) => Match::No,
    }
}

/// Whether it is one; `None`: too few bytes.
fn request(prefix: &[u8]) -> Option<bool> {
    let (&tag, rest) = prefix.split_first()?;
    if tag != SEQUENCE {
        return Some(false);
    }
    let (&length, rest) = rest.split_first()?;
    let length_bytes = match length & LONG_LENGTH {
        0 => 0,
        _ => length & !LONG_LENGTH,
    };
    if length_bytes > LENGTH_BYTES_MAX || length == LONG_LENGTH {
        return Some(false);
    }
    let rest = rest.get(usize::from(length_bytes)..)?;
    let (&tag, rest) = rest.split_first()?;
    if tag != INTEGER {
        return Some(false);
    }
    let (&id_bytes, rest) = rest.split_first()?;
    if !(1..=ID_MAX).contains(&id_bytes) {
        return Some(false);
    }
    let request = rest.get(usize::from(id_bytes))?;
    Some(REQUESTS.contains(request))
}
