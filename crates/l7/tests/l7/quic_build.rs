//! Builds and seals a client's Initial packets, right and wrong ones.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use tollgate_l7::QuicVersion;
use tollgate_l7::QuicVersion::{V1, V2};

/// The connection ID of the RFCs' examples.
pub const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or_default())
        .collect()
}

/// A variable-length integer in its shortest form.
pub fn varint(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let (len, mark) = match value {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let mut out = bytes[8 - len..].to_vec();
    out[0] |= mark;
    out
}

pub fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let offset = varint(offset as u64);
    [&[6], &offset[..], &varint(data.len() as u64), data].concat()
}

/// What seals the packets of one client.
pub struct Sealer {
    pub key: Vec<u8>,
    pub iv: Vec<u8>,
    pub hp: Vec<u8>,
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(secret: &[u8], label: &str, len: usize) -> Vec<u8> {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let label_len = [u8::try_from(label.len()).unwrap_or_default()];
    let out_len = [0, u8::try_from(len).unwrap_or_default()];
    let info = [&out_len[..], &label_len, &label, &[0]];
    let mut out = vec![0; len];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    let done = secret
        .expand(&info, Len(len))
        .and_then(|okm| okm.fill(&mut out));
    assert!(done.is_ok());
    out
}

impl Sealer {
    pub fn new(version: QuicVersion, dcid: &[u8]) -> Self {
        let (salt, prefix) = match version {
            V1 => ("38762cf7f55934b34d179ae6a4c80cadccbb7f0a", "quic"),
            V2 => ("0dede3def700a6db819381be6e269dcbf9bd2ed9", "quicv2"),
        };
        let mut secret = vec![0; 32];
        let label = [&[0, 32, 15][..], b"tls13 client in", &[0]];
        let done = Salt::new(HKDF_SHA256, &unhex(salt))
            .extract(dcid)
            .expand(&label, Len(32))
            .and_then(|okm| okm.fill(&mut secret));
        assert!(done.is_ok());
        let of = |what, len| expand(&secret, &format!("{prefix} {what}"), len);
        Self {
            key: of("key", 16),
            iv: of("iv", 12),
            hp: of("hp", 16),
        }
    }

    /// Seals a packet whose plain header ends with its packet number of `number_len` bytes.
    pub fn seal(&self, header: &[u8], number_len: usize, number: u64, payload: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        for (nonce, iv) in nonce.iter_mut().zip(&self.iv) {
            *nonce ^= iv;
        }
        let Ok(key) = UnboundKey::new(&AES_128_GCM, &self.key) else {
            panic!("key")
        };
        let mut body = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed =
            LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(header), &mut body);
        assert!(sealed.is_ok());
        let sample_at = 4 - number_len;
        let sample = &body[sample_at..sample_at + 16];
        let mask = quic::HeaderProtectionKey::new(&quic::AES_128, &self.hp)
            .and_then(|key| key.new_mask(sample))
            .unwrap_or_default();
        let mut packet = [header, &body].concat();
        packet[0] ^= mask[0] & 0x0f;
        let number_at = header.len() - number_len;
        for (byte, mask) in packet[number_at..header.len()].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        packet
    }
}

/// An Initial packet to be sealed.
#[derive(Clone)]
pub struct Initial {
    pub version: QuicVersion,
    /// Goes into the header.
    pub dcid: Vec<u8>,
    /// The keys follow from it.
    pub key_id: Vec<u8>,
    pub scid: Vec<u8>,
    pub token: Vec<u8>,
    pub number: u64,
    pub number_len: usize,
    /// Set in the first byte before protection, in addition to what belongs there.
    pub extra_bits: u8,
    pub frames: Vec<u8>,
    /// The payload is filled up with PADDING to this length.
    pub payload_len: usize,
}

impl Initial {
    /// A packet that makes a datagram of more than 1200 bytes.
    pub fn new(frames: &[u8]) -> Self {
        Self {
            version: V1,
            dcid: DCID.to_vec(),
            key_id: DCID.to_vec(),
            scid: vec![1, 2, 3],
            token: Vec::new(),
            number: 0,
            number_len: 2,
            extra_bits: 0,
            frames: frames.to_vec(),
            payload_len: 1180,
        }
    }

    /// The same packet of another connection.
    pub fn of(mut self, id: &[u8]) -> Self {
        self.dcid = id.to_vec();
        self.key_id = id.to_vec();
        self
    }

    pub fn version(mut self, version: QuicVersion) -> Self {
        self.version = version;
        self
    }

    pub fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    pub fn payload_len(mut self, len: usize) -> Self {
        self.payload_len = len;
        self
    }

    /// The packet alone makes too small a datagram: zeros behind it fill that up.
    pub fn seal_padded(&self) -> Vec<u8> {
        let mut datagram = self.seal();
        datagram.resize(1200, 0);
        datagram
    }

    pub fn seal(&self) -> Vec<u8> {
        let mut payload = self.frames.clone();
        payload.resize(self.payload_len.max(self.frames.len()), 0);
        let number = &self.number.to_be_bytes()[8 - self.number_len..];
        let first = 0xc0 | u8::try_from(self.number_len - 1).unwrap_or_default();
        let kind = long_type(self.version, 0);
        let body_len = varint((self.number_len + payload.len() + 16) as u64);
        let header = [
            &[first ^ kind | self.extra_bits],
            &version_bytes(self.version)[..],
            &id(&self.dcid),
            &id(&self.scid),
            &varint(self.token.len() as u64),
            &self.token,
            &body_len,
            number,
        ]
        .concat();
        Sealer::new(self.version, &self.key_id).seal(
            &header,
            self.number_len,
            self.number,
            &payload,
        )
    }
}

/// The type bits of a long header, from the type's number in version 1.
fn long_type(version: QuicVersion, kind: u8) -> u8 {
    let number = match version {
        V1 => kind,
        V2 => (kind + 1) % 4,
    };
    number << 4
}

pub fn version_bytes(version: QuicVersion) -> [u8; 4] {
    match version {
        V1 => [0, 0, 0, 1],
        V2 => [0x6b, 0x33, 0x43, 0xcf],
    }
}

/// A connection ID with its length.
pub fn id(id: &[u8]) -> Vec<u8> {
    [&[u8::try_from(id.len()).unwrap_or(u8::MAX)], id].concat()
}

/// Types of long headers by their numbers in version 1.
pub const ZERO_RTT: u8 = 1;
pub const HANDSHAKE: u8 = 2;
pub const RETRY: u8 = 3;

/// A packet with a long header whose protected part nobody can open.
pub fn long(version: QuicVersion, kind: u8, dcid: &[u8]) -> Vec<u8> {
    let body = [0xa5; 60];
    [
        &[0xc0 | long_type(version, kind)],
        &version_bytes(version)[..],
        &id(dcid),
        &id(&[1, 2, 3]),
        &varint(body.len() as u64),
        &body,
    ]
    .concat()
}

/// A 1-RTT packet.
pub fn short() -> Vec<u8> {
    [&[0x41][..], &[0x5a; 40]].concat()
}
