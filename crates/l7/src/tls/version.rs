//! Protocol versions, and the values that stand for nothing.

use super::ClientHello;

pub(super) const SSL_2: u16 = 0x0002;
pub(super) const SSL_3: u16 = 0x0300;
pub(super) const TLS_1_0: u16 = 0x0301;
pub(super) const TLS_1_1: u16 = 0x0302;
pub(super) const TLS_1_2: u16 = 0x0303;
pub(super) const TLS_1_3: u16 = 0x0304;

/// Major version of SSL 3.0 and all of TLS.
const MAJOR: u16 = 3;

/// Whether a number is reserved to keep servers from choking on unknown ones (RFC 8701): both
/// bytes alike, of the form `?a`.
pub(super) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// "1.0" to "1.3" for a version number of TLS, `None` for every other.
pub fn version_name(version: u16) -> Option<&'static str> {
    match version {
        TLS_1_0 => Some("1.0"),
        TLS_1_1 => Some("1.1"),
        TLS_1_2 => Some("1.2"),
        TLS_1_3 => Some("1.3"),
        _ => None,
    }
}

impl ClientHello {
    /// Highest version of SSL 3.0 or TLS that the client offers. Neither GREASE values nor numbers
    /// of another family (drafts, DTLS) count, so that they cannot hide an old version.
    ///
    /// A client that offers a number above TLS 1.3 has it returned as it is.
    pub fn max_version(&self) -> Option<u16> {
        let family = |version: &u16| version >> 8 == MAJOR;
        self.versions.iter().copied().filter(family).max()
    }
}
