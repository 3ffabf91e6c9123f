//! Protocol versions, and the values that stand for nothing.

use super::ClientHello;

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
        0x0301 => Some("1.0"),
        0x0302 => Some("1.1"),
        0x0303 => Some("1.2"),
        0x0304 => Some("1.3"),
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
