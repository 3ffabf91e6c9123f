//! One connection of a flow, as far as its client's Initial packets show it.

use ring::digest::{SHA256, digest};

use super::QuicVersion;
use super::crypto_stream::CryptoStream;
use super::frames;
use super::header::{CONNECTION_ID_MAX, Initial};
use super::keys::{Keys, Opened};
use crate::refusal::{QUIC_CONNECTION_DENIED, Refusal};

/// Numbers that are expected up to here leave a number of one byte as it stands (RFC 9000 appendix A.3).
const AMBIGUOUS_FROM: u64 = 1 << 7;

/// A connection, known by the destination connection ID of its first packet.
pub(super) struct Connection {
    /// The version it started with.
    pub(super) version: QuicVersion,
    pub(super) stream: CryptoStream,
    /// Its hello must not reach the server.
    pub(super) denied: bool,
    dcid: [u8; CONNECTION_ID_MAX],
    dcid_len: usize,
    /// Keys of both versions: a server may answer in the other one, and the client then goes over
    /// to it with keys from the same ID (RFC 9369 section 4.1).
    v1: Option<Keys>,
    v2: Option<Keys>,
    /// The packet number after the largest one seen.
    expected: u64,
}

impl Connection {
    /// A connection of which nothing was seen yet.
    pub(super) fn new(version: QuicVersion, id: &[u8]) -> Self {
        let mut dcid = [0; CONNECTION_ID_MAX];
        let mut dcid_len = 0;
        for (slot, &byte) in dcid.iter_mut().zip(id) {
            *slot = byte;
            dcid_len += 1;
        }
        Self {
            version,
            stream: CryptoStream::default(),
            denied: false,
            dcid,
            dcid_len,
            v1: None,
            v2: None,
            expected: 0,
        }
    }

    fn id(&self) -> &[u8] {
        self.dcid.get(..self.dcid_len).unwrap_or_default()
    }

    /// This ID is the one its first packet was sent to.
    pub(super) fn is(&self, dcid: &[u8]) -> bool {
        self.id() == dcid
    }

    /// Every byte that was seen of its stream was handed out in a hello.
    pub(super) fn settled(&self) -> bool {
        self.stream.judged() && !self.stream.pending()
    }

    /// What is remembered of its ID.
    pub(super) fn fingerprint(&self) -> u64 {
        fingerprint(self.id())
    }

    /// Opens the packet if it is of this connection.
    pub(super) fn open(&mut self, initial: &Initial<'_>) -> Option<Opened> {
        let id = self.dcid.get(..self.dcid_len)?;
        let keys = match initial.version {
            QuicVersion::V1 => &mut self.v1,
            QuicVersion::V2 => &mut self.v2,
        };
        if keys.is_none() {
            *keys = Keys::new(initial.version, id);
        }
        let keys = keys.as_ref()?;
        let opened = keys.open(initial, self.expected);
        if opened.is_some() || self.expected <= AMBIGUOUS_FROM {
            return opened;
        }
        // A server that did not get what was seen here reads the number as it stands.
        keys.open(initial, 0)
    }

    /// Takes the frames of one of its packets.
    pub(super) fn take(&mut self, opened: &Opened) -> Result<(), Refusal> {
        if self.denied {
            return Err(QUIC_CONNECTION_DENIED);
        }
        self.expected = self.expected.max(opened.number.saturating_add(1));
        frames::walk(&opened.payload, |frame| self.stream.add(&frame))
    }
}

/// Short form of a connection ID. Two IDs with the same one only make the second unusable.
pub(super) fn fingerprint(dcid: &[u8]) -> u64 {
    let digest = digest(&SHA256, dcid);
    let first = digest.as_ref().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
