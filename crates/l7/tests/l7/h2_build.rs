//! Building what an HTTP/2 client sends.

use tollgate_l7::http2::PREFACE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const PRIORITY_UPDATE: u8 = 0x10;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const HAS_PRIORITY: u8 = 0x20;

/// The pseudo fields of a plain request.
pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a.example"),
    (":path", "/"),
];

/// Bits of the Huffman code of each byte.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
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
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

pub fn frame_header(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let length = u32::try_from(length).expect("fits").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = frame_header(payload.len(), kind, flags, stream);
    out.extend(payload);
    out
}

/// The preface and the first frame.
pub fn start() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// The start and what follows.
pub fn stream(parts: &[Vec<u8>]) -> Vec<u8> {
    [start(), parts.concat()].concat()
}

/// An integer behind the bits of `first` that are not its prefix.
pub fn integer(first: u8, prefix: u32, value: usize) -> Vec<u8> {
    let mask = (1usize << prefix) - 1;
    let Some(mut rest) = value.checked_sub(mask) else {
        return vec![first | u8::try_from(value).expect("fits")];
    };
    let mut out = vec![first | u8::try_from(mask).expect("fits")];
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).expect("fits") | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).expect("fits"));
    out
}

pub fn string(bytes: &[u8], huffman: bool) -> Vec<u8> {
    let coded = if huffman { code(bytes) } else { bytes.to_vec() };
    [
        integer(if huffman { 128 } else { 0 }, 7, coded.len()),
        coded,
    ]
    .concat()
}

/// The Huffman code, from the lengths of its symbols.
fn code(bytes: &[u8]) -> Vec<u8> {
    let mut symbols: Vec<usize> = (0..256).collect();
    symbols.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
    let (mut codes, mut next, mut length) = ([0u64; 256], 0, 0);
    for symbol in symbols {
        next <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        codes[symbol] = next;
        next += 1;
    }
    let mut bits = Vec::new();
    for &byte in bytes {
        let length = LENGTHS[usize::from(byte)];
        let code = codes[usize::from(byte)];
        bits.extend((0..length).rev().map(|i| code >> i & 1 == 1));
    }
    while bits.len() % 8 != 0 {
        bits.push(true);
    }
    bits.chunks(8)
        .map(|byte| byte.iter().fold(0, |sum, &bit| sum << 1 | u8::from(bit)))
        .collect()
}

/// A literal field that is not indexed.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let name = string(name.as_ref(), false);
    [vec![0], name, string(value.as_ref(), false)].concat()
}

pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(n, v)| literal(n, v)).collect()
}

/// The pseudo fields of a plain request and more.
pub fn get(fields: &[(&str, &str)]) -> Vec<u8> {
    [block(&GET), block(fields)].concat()
}

/// A complete field section in one frame.
pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, block)
}
