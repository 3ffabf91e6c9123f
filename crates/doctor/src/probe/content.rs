//! What is sent: bytes that the receiver can make again and compare, at any offset.

/// Bytes that depend on where they stand and on a seed; two places of one stream do not look alike, so
/// that segments that are swapped, doubled or glued together show.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    seed: u64,
}

/// Bytes of one word.
const WORD: usize = 8;

impl Content {
    /// The content of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// splitmix64 by Sebastiano Vigna (public domain) of a word's number.
    fn word(self, number: u64) -> [u8; WORD] {
        let mut z = self
            .seed
            .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Writes the bytes from `offset` on into a buffer.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut number = offset / WORD as u64;
        // What the first word has behind the offset, then whole words, the last one cut.
        let skip = usize::try_from(offset % WORD as u64).unwrap_or(0);
        let split = ((WORD - skip) % WORD).min(buffer.len());
        let (first, rest) = buffer.split_at_mut(split);
        if skip > 0 {
            for (to, from) in first.iter_mut().zip(self.word(number).iter().skip(skip)) {
                *to = *from;
            }
            number += 1;
        }
        for chunk in rest.chunks_mut(WORD) {
            let word = self.word(number);
            chunk.copy_from_slice(word.get(..chunk.len()).unwrap_or_default());
            number += 1;
        }
    }

    /// How many bytes are right from the start, if these should stand at `offset`.
    pub fn right(self, offset: u64, bytes: &[u8], scratch: &mut Vec<u8>) -> usize {
        scratch.resize(bytes.len(), 0);
        self.fill(offset, scratch);
        match bytes == scratch.as_slice() {
            true => bytes.len(),
            false => bytes
                .iter()
                .zip(scratch.iter())
                .take_while(|(a, b)| a == b)
                .count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let content = Content::new(7);
        let mut whole = vec![0; 100];
        content.fill(0, &mut whole);
        for offset in [0, 1, 7, 8, 9, 50] {
            let mut piece = vec![0; 37];
            content.fill(offset as u64, &mut piece);
            assert_eq!(piece, whole[offset..offset + 37], "{offset}");
        }
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let (content, mut scratch) = (Content::new(1), Vec::new());
        let mut bytes = vec![0; 64];
        content.fill(16, &mut bytes);
        assert_eq!(content.right(16, &bytes, &mut scratch), 64);
        bytes[40] ^= 1;
        assert_eq!(content.right(16, &bytes, &mut scratch), 40);
    }
}
