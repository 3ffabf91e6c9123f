//! What the external host serves: pseudo-random bytes that anyone can make again from the seed.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{IoContext, Result};
use crate::interrupt;

/// Size of the large object: 1 GiB.
pub const BIG_BYTES: u64 = 1 << 30;
/// Seed of the large object's bytes.
pub const BIG_SEED: u64 = 0x0074_6f6c_6c67_6174;
/// Bytes made, hashed or copied at a time: large enough that calls do not count.
pub const CHUNK: usize = 1 << 20;

/// Makes an endless, incompressible stream from a seed (xoshiro256++ 1.0 by Blackman and Vigna,
/// seeded by splitmix64; public domain algorithms).
#[derive(Clone, Debug)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Stream {
            state: [next(), next(), next(), next()],
        }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Fills a buffer with the next bytes; a length that is no multiple of 8 wastes the rest of the
    /// last word.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes `size` bytes of the stream of `seed` to `path`; returns their SHA-256 in hexadecimal.
///
/// # Errors
/// The file cannot be written, or an interrupt.
pub fn write_file(path: &Path, seed: u64, size: u64) -> Result<String> {
    let mut file = File::create(path).doing("creating", path)?;
    let mut stream = Stream::new(seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        interrupt::check()?;
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.fill(&mut buffer[..n]);
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n]).doing("writing", path)?;
        left -= n as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of a file in hexadecimal.
///
/// # Errors
/// The file cannot be read, or an interrupt.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).doing("opening", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        interrupt::check()?;
        let n = file.read(&mut buffer).doing("reading", path)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Makes what nginx serves: the large object and small ones under `/v2/`, `/v1/` and `/`.
/// Returns the large object's SHA-256.
///
/// # Errors
/// Files cannot be written, or an interrupt.
pub fn populate(www: &Path, big_bytes: u64) -> Result<String> {
    for dir in ["v1", "v2/data", "upload", "body"] {
        let path = www.join(dir);
        std::fs::create_dir_all(&path).doing("creating", path)?;
    }
    let small: [(&str, &str); 6] = [
        ("v2/status", "{\"status\":\"ok\",\"version\":2}\n"),
        ("v2/items", "{\"items\":[\"toll\",\"gate\"]}\n"),
        ("v2/small", "{}\n"),
        ("v1/status", "{\"status\":\"retired\",\"version\":1}\n"),
        ("admin", "{\"secret\":true}\n"),
        ("index.html", "<!doctype html><title>outside</title>\n"),
    ];
    for (name, text) in small {
        let path = www.join(name);
        let mut file = BufWriter::new(File::create(&path).doing("creating", &path)?);
        file.write_all(text.as_bytes()).doing("writing", &path)?;
        file.flush().doing("writing", &path)?;
    }
    write_file(&www.join("v2/data/big.bin"), BIG_SEED, big_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_same_everywhere() {
        let mut bytes = [0; 16];
        Stream::new(1).fill(&mut bytes);
        let mut again = [0; 16];
        Stream::new(1).fill(&mut again);
        assert_eq!(bytes, again);
        // First outputs of xoshiro256++ seeded by splitmix64(0), as in its published test vectors.
        let mut first = [0; 8];
        Stream::new(0).fill(&mut first);
        assert_eq!(u64::from_le_bytes(first), 0x53175d61490b23df);
    }

    #[test]
    fn what_is_written_has_the_hash_that_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for size in [0, 1, 7, 8, 1 << 20, (1 << 20) + 5] {
            let told = write_file(&path, 7, size).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
            assert_eq!(hash_file(&path).unwrap(), told, "{size}");
        }
    }
}
