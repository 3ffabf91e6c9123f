//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: among codes of one length they count up with the symbol, and so the
//! lengths alone give the code.

use crate::refusal::{HTTP2_HPACK_HUFFMAN, Refusal};

/// The bytes and EOS, which is the last and may not occur in a string.
const SYMBOLS: usize = 257;
/// Longest code.
const LENGTH_MAX: usize = 30;
/// Shortest code.
const LENGTH_MIN: usize = 5;
/// Most bits of padding: what is missing to a full byte.
const PADDING_MAX: usize = 7;

/// Bits of the code of each symbol.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The codes of one length: they count up from `first`.
#[derive(Clone, Copy)]
struct Codes {
    first: u32,
    count: u32,
    /// Where their symbols are in [`SORTED`].
    start: usize,
}

/// Symbols ordered by code.
static SORTED: [u16; SYMBOLS] = sorted();
/// For each length.
static CODES: [Codes; LENGTH_MAX + 1] = codes();

const fn sorted() -> [u16; SYMBOLS] {
    let mut out = [0; SYMBOLS];
    let (mut length, mut at) = (0, 0);
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                out[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    out
}

const fn codes() -> [Codes; LENGTH_MAX + 1] {
    let none = Codes {
        first: 0,
        count: 0,
        start: 0,
    };
    let mut out = [none; LENGTH_MAX + 1];
    let (mut length, mut code, mut start) = (0, 0, 0);
    while length <= LENGTH_MAX {
        let mut count = 0;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        out[length] = Codes {
            first: code,
            count,
            start,
        };
        code = (code + count) << 1;
        start += count as usize;
        length += 1;
    }
    out
}

/// Decodes a whole string.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    // The shortest codes make eight bytes of five; text is mostly near four of three.
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 3);
    let (mut bits, mut count) = (0u64, 0);
    for &byte in bytes {
        bits = bits << 8 | u64::from(byte);
        count += 8;
        while let Some((symbol, length)) = first_symbol(bits, count) {
            // EOS is no byte.
            out.push(u8::try_from(symbol).map_err(|_| HTTP2_HPACK_HUFFMAN)?);
            count -= length;
            bits &= (1 << count) - 1;
        }
    }
    // The rest must be the beginning of EOS, which is all ones.
    if count > PADDING_MAX || bits != (1 << count) - 1 {
        return Err(HTTP2_HPACK_HUFFMAN);
    }
    Ok(out)
}

/// The symbol whose code the low `count` bits start with, and its length; `None` if they are too
/// few for one. A call looks at every length at most once; each byte of input causes one call that
/// finds nothing, and each symbol one that finds it.
fn first_symbol(bits: u64, count: usize) -> Option<(u16, usize)> {
    for length in LENGTH_MIN..=LENGTH_MAX.min(count) {
        let codes = CODES.get(length)?;
        let code = u32::try_from(bits >> (count - length)).ok()?;
        if let Some(offset) = code.checked_sub(codes.first).filter(|n| *n < codes.count) {
            let symbol = SORTED.get(codes.start + offset as usize)?;
            return Some((*symbol, length));
        }
    }
    None
}
