//! TLS: the ClientHello, across segments and records.

mod after;
mod cursor;
pub(crate) mod hello;
mod ja4;
mod record;
mod version;

pub use after::{AfterHello, AfterHelloReader};
pub use record::ClientHelloReader;
pub use version::version_name;

use crate::Refusal;

/// Largest ClientHello accepted, in bytes of the handshake message without its four-byte header.
/// Post-quantum key shares make hellos of 2 to 4 KiB, certificates-in-hello drafts and long ALPN
/// lists some 20 KiB; 64 KiB is what common servers accept as well.
pub const HELLO_MAX: usize = 64 * 1024;
/// Most extensions in one hello. Some 60 are registered and clients send about 20; the bound
/// keeps the search for duplicates cheap.
pub const EXTENSIONS_MAX: usize = 128;
/// Most application protocols in one hello; bounds what the list costs in memory.
pub const ALPN_MAX: usize = 1024;

/// So many bytes of records with application data are looked past for a second hello if the first
/// one announced early data, their headers counted. Servers take, and behind a HelloRetryRequest
/// skip, 14 to 16 KiB of early data unless told otherwise; more than this is a client whose early
/// data was accepted.
pub const EARLY_DATA_MAX: usize = 64 * 1024;

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsProgress {
    /// The hello is not complete.
    NeedMore,
    /// The hello is complete and well-formed.
    Done(ClientHello),
    /// The bytes cannot become a valid hello. The reader says the same from now on.
    Refused(Refusal),
}

/// What a ClientHello (RFC 8446 section 4.1.2) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name (RFC 6066 section 3), lower case, without trailing dot. An IP address, which the
    /// RFC forbids but clients send, is kept as text. With `ech` it is the outer, public name.
    pub sni: Option<String>,
    /// Application protocols offered (RFC 7301), in order; bytes that are not UTF-8 are replaced.
    pub alpn: Vec<String>,
    /// `supported_versions`, as sent (GREASE values included); the legacy version if there is no
    /// such extension.
    pub versions: Vec<u16>,
    /// An `encrypted_client_hello` extension is there. A client that only pretends (GREASE) cannot
    /// be told from one that means it.
    pub ech: bool,
    /// An `early_data` extension is there: application data may follow before the server answers.
    pub early_data: bool,
    /// A `pre_shared_key` extension is there: the client resumes an earlier TLS 1.3 session (or has
    /// a key from elsewhere). It is the last extension, or the hello was refused.
    pub psk: bool,
    /// Cipher suites in the order sent, GREASE values included; at least one.
    pub cipher_suites: Vec<u16>,
    /// Numbers of all extensions in the order sent, GREASE values included; at most
    /// [`EXTENSIONS_MAX`], none twice.
    pub extensions: Vec<u16>,
    /// `signature_algorithms` (RFC 8446 section 4.2.3) in the order sent; empty without the
    /// extension.
    pub signature_algorithms: Vec<u16>,
    /// First and last byte of the first application protocol, as sent: `alpn` does not tell bytes
    /// that are not text apart.
    pub alpn_ends: Option<(u8, u8)>,
    /// `legacy_version`, 0x0303 for TLS 1.2 and 1.3.
    pub legacy_version: u16,
    /// Length of the session ID, 0 to 32.
    pub session_id_len: usize,
    /// Length of the handshake message, with its four-byte header, without record headers.
    pub len: usize,
}
