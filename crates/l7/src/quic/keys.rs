//! Keys of a client's Initial packets (RFC 9001 section 5, RFC 9369 section 3.3). They follow from
//! a connection ID that anyone can read: they hide nothing, and opening a packet only shows which
//! connection it belongs to.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey, quic};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::QuicVersion;
use super::header::Initial;

/// Salt of version 1 (RFC 9001 section 5.2).
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
/// Salt of version 2 (RFC 9369 section 3.3.1).
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];
/// The sample starts as if the packet number had this length (RFC 9001 section 5.4.2).
const NUMBER_MAX: usize = 4;
/// Bits of a long header's first byte that are protected (RFC 9001 section 5.4.1).
const PROTECTED_BITS: u8 = 0x0f;
/// Reserved bits of a long header, zero before protection (RFC 9000 section 17.2).
const RESERVED_BITS: u8 = 0x0c;
/// Bits with the length of the packet number, minus one (RFC 9000 section 17.2).
const NUMBER_LEN_BITS: u8 = 0x03;

/// What opens the Initial packets of one client in one version.
pub(super) struct Keys {
    packet: LessSafeKey,
    iv: [u8; NONCE_LEN],
    header: quic::HeaderProtectionKey,
}

/// An Initial packet without its protection.
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
    /// The number was sent whole or, to any server that has seen no more than this reader, looks
    /// as if it were.
    pub(super) number_whole: bool,
    /// The reserved bits are zero, as they must be.
    pub(super) reserved_clear: bool,
}

/// Length of an initialisation vector, as `ring` wants to be told.
struct IvLen;

impl KeyType for IvLen {
    fn len(&self) -> usize {
        NONCE_LEN
    }
}

impl Keys {
    /// The client's keys of the connection that started with this destination connection ID.
    /// `None` does not happen: all lengths are fixed.
    pub(super) fn new(version: QuicVersion, dcid: &[u8]) -> Option<Self> {
        let (salt, key, iv, hp) = match version {
            QuicVersion::V1 => (SALT_V1, "quic key", "quic iv", "quic hp"),
            QuicVersion::V2 => (SALT_V2, "quicv2 key", "quicv2 iv", "quicv2 hp"),
        };
        let initial = Salt::new(HKDF_SHA256, &salt).extract(dcid);
        let secret: Prk = expand(&initial, "client in", HKDF_SHA256)?;
        let packet: UnboundKey = expand(&secret, key, &AES_128_GCM)?;
        let header: quic::HeaderProtectionKey = expand(&secret, hp, &quic::AES_128)?;
        let iv: Iv = expand(&secret, iv, IvLen)?;
        Some(Self {
            packet: LessSafeKey::new(packet),
            iv: iv.0?,
            header,
        })
    }

    /// Opens a packet; `None` if it is not of this connection. `expected` is the packet number
    /// after the largest one seen.
    pub(super) fn open(&self, packet: &Initial<'_>, expected: u64) -> Option<Opened> {
        let (header, body) = packet.bytes.split_at_checked(packet.number_at)?;
        let sample = body
            .get(NUMBER_MAX..)?
            .get(..self.header.algorithm().sample_len())?;
        let mask = self.header.new_mask(sample).ok()?;
        let first = header.first()? ^ mask[0] & PROTECTED_BITS;
        let number_len = usize::from(first & NUMBER_LEN_BITS) + 1;
        let (number, sealed) = body.split_at_checked(number_len)?;

        let mut aad = header.to_vec();
        *aad.first_mut()? = first;
        aad.extend(
            number
                .iter()
                .zip(&mask[1..])
                .map(|(byte, mask)| byte ^ mask),
        );
        let truncated = aad
            .get(header.len()..)?
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        let number = whole_number(truncated, number_len, expected);

        let mut payload = sealed.to_vec();
        let opened = self
            .packet
            .open_in_place(self.nonce(number), Aad::from(&aad), &mut payload)
            .ok()?
            .len();
        payload.truncate(opened);
        Some(Opened {
            number,
            payload,
            number_whole: number == truncated,
            reserved_clear: first & RESERVED_BITS == 0,
        })
    }

    /// RFC 9001 section 5.3.
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        let low = nonce.iter_mut().rev();
        for (byte, number) in low.zip(number.to_be_bytes().iter().rev()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The packet number with these low bytes that is closest to `expected` (RFC 9000 appendix A.3).
fn whole_number(truncated: u64, len: usize, expected: u64) -> u64 {
    /// Packet numbers end here (RFC 9000 section 12.3).
    const END: u64 = 1 << 62;
    let window = 1u64 << (8 * len);
    let half = window / 2;
    let candidate = expected & !(window - 1) | truncated;
    if candidate + half <= expected && candidate < END - window {
        candidate + window
    } else if candidate > expected + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

struct Iv(Option<[u8; NONCE_LEN]>);

impl From<ring::hkdf::Okm<'_, IvLen>> for Iv {
    fn from(okm: ring::hkdf::Okm<'_, IvLen>) -> Self {
        let mut iv = [0; NONCE_LEN];
        Self(okm.fill(&mut iv).ok().map(|()| iv))
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand<L, K>(secret: &Prk, label: &str, len: L) -> Option<K>
where
    L: KeyType,
    K: for<'a> From<ring::hkdf::Okm<'a, L>>,
{
    const PREFIX: &[u8] = b"tls13 ";
    let out_len = u16::try_from(len.len()).ok()?.to_be_bytes();
    let label_len = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let info = [&out_len, &label_len[..], PREFIX, label.as_bytes(), &[0]];
    secret.expand(&info, len).ok().map(K::from)
}
