//! A packet that opens with the keys of two connections. AES-GCM does not bind a ciphertext to one
//! key, and the keys of Initial packets are known to everybody: one block of the ciphertext is
//! chosen so that both keys give the same tag.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test")]

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use tollgate_l7::QuicVersion::V1;
use tollgate_l7::quic::CONNECTIONS_MAX;
use tollgate_l7::refusal::{QUIC_AMBIGUOUS, QUIC_CONNECTION_FORGOTTEN, QUIC_UNDECRYPTABLE};
use tollgate_l7::{QuicEvent, QuicReader};

use crate::quic::judged;
use crate::quic_build::{DCID, Initial, Sealer, crypto, id, varint};

/// Blocks of ciphertext: enough for a datagram of 1200 bytes.
const BLOCKS: usize = 75;
/// The field's one, in GCM's order of bits.
const ONE: u128 = 1 << 127;

/// Product in GCM's field (NIST SP 800-38D section 6.3).
fn mul(x: u128, y: u128) -> u128 {
    let mut product = 0;
    let mut v = x;
    for bit in (0..128).rev() {
        if y >> bit & 1 == 1 {
            product ^= v;
        }
        let carry = v & 1;
        v >>= 1;
        v ^= carry * (0xe1 << 120);
    }
    product
}

fn power(x: u128, exponent: u128) -> u128 {
    (0..128).rev().fold(ONE, |acc, bit| {
        let square = mul(acc, acc);
        if exponent >> bit & 1 == 1 {
            mul(square, x)
        } else {
            square
        }
    })
}

/// One connection's view of the packet.
struct View {
    /// The key's hash point.
    h: u128,
    /// What the hash is masked with under this packet's nonce.
    mask: u128,
    /// The header without protection.
    header: Vec<u8>,
}

impl View {
    /// How the connection with these keys sees a packet with this protected header.
    fn new(keys: &Sealer, protected: &[u8], sample: &[u8]) -> Self {
        let header = apply(keys, protected, sample);
        let mut nonce = keys.iv.clone();
        for (nonce, number) in nonce[8..].iter_mut().zip(&header[header.len() - 4..]) {
            *nonce ^= number;
        }
        let tag = |aad: &[u8]| -> u128 {
            let key = UnboundKey::new(&AES_128_GCM, &keys.key).expect("key");
            let nonce = Nonce::try_assume_unique_for_key(&nonce).expect("nonce");
            let sealed =
                LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(aad), &mut []);
            u128::from_be_bytes(sealed.expect("tag").as_ref().try_into().expect("16 bytes"))
        };
        // Two tags that differ by the square of the hash point; its root is the 2^127th power.
        let square = tag(&ONE.to_be_bytes()) ^ tag(&[0; 16]);
        Self {
            h: power(square, 1 << 127),
            mask: tag(&[]),
            header,
        }
    }

    fn tag(&self, body: &[u8]) -> u128 {
        let aad_bits = (self.header.len() as u128 * 8) << 64;
        let lengths = aad_bits | (body.len() as u128 * 8);
        let blocks = self.header.chunks(16).chain(body.chunks(16)).map(|chunk| {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            u128::from_be_bytes(block)
        });
        let hash = blocks
            .chain([lengths])
            .fold(0, |hash, block| mul(hash ^ block, self.h));
        hash ^ self.mask
    }
}

/// Puts header protection on or takes it off; the packet number has four bytes.
fn apply(keys: &Sealer, header: &[u8], sample: &[u8]) -> Vec<u8> {
    let key = quic::HeaderProtectionKey::new(&quic::AES_128, &keys.hp).expect("key");
    let mask = key.new_mask(sample).expect("sample");
    let mut out = header.to_vec();
    out[0] ^= mask[0] & 0x0f;
    let at = out.len() - 4;
    for (byte, mask) in out[at..].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
    out
}

/// A packet to `dcid` that opens with its own keys and with those of the other connection.
fn forge(dcid: &[u8], other: &[u8]) -> Vec<u8> {
    let keys = [other, dcid].map(|id| Sealer::new(V1, id));
    let body_len = varint((4 + 16 * BLOCKS + 16) as u64);
    let header = [
        &[0xc3, 0, 0, 0, 1],
        &id(dcid)[..],
        &[0, 0],
        &body_len,
        &[0, 0, 0, 1],
    ]
    .concat();
    for first in 0..=255u8 {
        let mut body = vec![0; 16 * BLOCKS];
        body[..16].fill(first);
        let protected = apply(&keys[0], &header, &body[..16]);
        let views = keys
            .each_ref()
            .map(|keys| View::new(keys, &protected, &body[..16]));
        // Both have to see a packet number of four bytes.
        if views[1].header[0] & 3 != 3 {
            continue;
        }
        let [one, two] = &views;
        let exponent = BLOCKS as u128;
        let slope = power(one.h, exponent) ^ power(two.h, exponent);
        let gap = one.tag(&body) ^ two.tag(&body);
        let block = mul(gap, power(slope, u128::MAX - 1));
        body[16..32].copy_from_slice(&block.to_be_bytes());
        assert_eq!(one.tag(&body), two.tag(&body));
        let tag = one.tag(&body).to_be_bytes();
        return [&protected[..], &body, &tag].concat();
    }
    panic!("no such packet")
}

#[test]
fn a_packet_for_two_connections_is_refused() {
    let packet = forge(&[9; 8], &DCID);
    // Its own keys open it, to whatever is in it then.
    let alone = QuicReader::new().push(&packet);
    assert!(matches!(alone, QuicEvent::Refused(why) if why != QUIC_UNDECRYPTABLE));
    assert_eq!(judged().push(&packet), QuicEvent::Refused(QUIC_AMBIGUOUS));
}

/// Nor does it help to give one of the two up first.
#[test]
fn a_packet_for_a_connection_that_was_given_up_is_refused() {
    let mut reader = QuicReader::new();
    let start = |id: &[u8]| Initial::new(&crypto(0, &[1, 0])).of(id).seal();
    assert_eq!(reader.push(&start(&DCID)), QuicEvent::NeedMore);
    for other in 1..=CONNECTIONS_MAX {
        let id = [u8::try_from(other).expect("small"); 8];
        assert_eq!(reader.push(&start(&id)), QuicEvent::NeedMore);
    }
    let packet = forge(&[9; 8], &DCID);
    let gone = QuicEvent::Refused(QUIC_CONNECTION_FORGOTTEN);
    assert_eq!(reader.push(&packet), gone);
}
