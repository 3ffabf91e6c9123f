//! PostgreSQL's first message: a request for TLS or something else.

use crate::detect::{Detected, Match};
use crate::refusal::{POSTGRESQL_WITHOUT_TLS, Refusal, STARTTLS_INJECTION};

/// Length 8, then the code 1234.5679 ("Message Formats" in PostgreSQL's documentation).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Length 8, then the code 1234.5680: encryption with GSSAPI.
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// Behind any length the code 1234.5678: another session's query is to be cancelled.
const CANCEL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];
/// Behind any length the major version of the protocol.
const VERSION_3: [u8; 2] = [0, 3];
/// Length and code, the least that a first message has.
const FIRST_MIN: u32 = 8;
/// Longest first message that servers accept.
const FIRST_MAX: u32 = 10_000;
/// The server's agreement.
const AGREED: u8 = b'S';

pub(crate) fn recognise(prefix: &[u8]) -> Match {
    if prefix.starts_with(&SSL_REQUEST) {
        return Match::Yes(Detected::PostgreSqlTls);
    }
    if prefix.starts_with(&GSSENC_REQUEST) {
        return Match::Yes(Detected::PostgreSqlPlain);
    }
    let Some((length, code)) = prefix.split_first_chunk::<4>() else {
        return maybe([0, 0].starts_with(prefix) || prefix.starts_with(&[0, 0]));
    };
    if !(FIRST_MIN..=FIRST_MAX).contains(&u32::from_be_bytes(*length)) {
        return Match::No;
    }
    if code.starts_with(&VERSION_3) || code.starts_with(&CANCEL_REQUEST) {
        return Match::Yes(Detected::PostgreSqlPlain);
    }
    maybe(
        VERSION_3.starts_with(code)
            || CANCEL_REQUEST.starts_with(code)
            || SSL_REQUEST.starts_with(prefix)
            || GSSENC_REQUEST.starts_with(prefix),
    )
}

fn maybe(possible: bool) -> Match {
    if possible { Match::Maybe } else { Match::No }
}

/// Reads the request for TLS, which must be the first message.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// How many of its bytes were there.
    read: usize,
    /// The server did not agree to it.
    declined: bool,
}

impl Request {
    /// Behind a request that the server did not agree to. It may not be repeated.
    pub(super) fn declined() -> Self {
        Self {
            read: 0,
            declined: true,
        }
    }

    /// `true` with the last byte of the request.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        for byte in bytes {
            let want = SSL_REQUEST.get(self.read).ok_or(STARTTLS_INJECTION)?;
            if self.declined || byte != want {
                return Err(POSTGRESQL_WITHOUT_TLS);
            }
            self.read += 1;
        }
        Ok(self.read == SSL_REQUEST.len())
    }
}

pub(super) fn agrees(answer: &[u8]) -> Option<bool> {
    (!answer.is_empty()).then_some(answer == [AGREED])
}
