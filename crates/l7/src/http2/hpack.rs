//! Decoding header blocks (RFC 7541 sections 5 and 6).

use std::borrow::Cow;

use super::table::{Entry, Table};
use super::{HPACK_TABLE_MAX, huffman};
use crate::refusal::{
    HTTP2_HPACK_INTEGER, HTTP2_HPACK_TABLE_SIZE, HTTP2_HPACK_TABLE_UPDATE, HTTP2_HPACK_TRUNCATED,
    Refusal,
};

/// Most bytes of an integer behind its prefix: 35 bits, more than any that is allowed here.
const INTEGER_BYTES: usize = 5;
/// Most table size updates at the start of a block: the smallest size in between and the last
/// (RFC 7541 section 4.2).
const UPDATES_MAX: usize = 2;

/// What takes the fields of a block.
pub(super) trait Sink {
    /// Takes one field, or refuses the block.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal>;
}

/// The decoder of one connection's header blocks.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    table: Table,
}

impl Decoder {
    /// Decodes one complete block and hands every field to `sink`, which bounds their size. After
    /// an error the table is not in step with the client's any more.
    pub(super) fn decode(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        let mut input = Input(block);
        self.updates(&mut input)?;
        while let Some(first) = input.peek() {
            if first & 0x80 != 0 {
                let (name, value) = self.table.get(input.integer(7)?)?;
                sink.field(name, value)?;
            } else if first & 0x40 != 0 {
                let entry = self.literal(&mut input, 6, sink)?;
                self.table.insert(entry);
            } else if first & 0x20 != 0 {
                return Err(HTTP2_HPACK_TABLE_UPDATE);
            } else {
                // Without indexing, or never indexed: the difference is for proxies.
                self.literal(&mut input, 4, sink)?;
            }
        }
        Ok(())
    }

    fn updates(&mut self, input: &mut Input<'_>) -> Result<(), Refusal> {
        let mut count = 0;
        while input.peek().is_some_and(|first| first & 0xe0 == 0x20) {
            count += 1;
            if count > UPDATES_MAX {
                return Err(HTTP2_HPACK_TABLE_UPDATE);
            }
            let size = input.integer(5)?;
            if size > HPACK_TABLE_MAX {
                return Err(HTTP2_HPACK_TABLE_SIZE);
            }
            self.table.resize(size);
        }
        Ok(())
    }

    /// A literal field; its name is an index with a prefix of so many bits, or a string.
    fn literal(
        &self,
        input: &mut Input<'_>,
        prefix: u32,
        sink: &mut impl Sink,
    ) -> Result<Entry, Refusal> {
        let name = match input.integer(prefix)? {
            0 => input.string()?,
            index => Cow::Borrowed(self.table.get(index)?.0),
        };
        let value = input.string()?;
        sink.field(&name, &value)?;
        Ok(Entry::new(&name, &value))
    }

    /// Bytes of memory held.
    pub(super) fn buffered(&self) -> usize {
        self.table.buffered()
    }
}

/// The rest of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        let (first, rest) = self.0.split_first().ok_or(HTTP2_HPACK_TRUNCATED)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer with a prefix of so many bits, at most seven (RFC 7541 section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, Refusal> {
        let mask = (1u8 << prefix) - 1;
        let first = self.byte()? & mask;
        let mut value = u64::from(first);
        if first < mask {
            return Ok(usize::from(first));
        }
        for i in 0..INTEGER_BYTES {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| HTTP2_HPACK_INTEGER);
            }
        }
        Err(HTTP2_HPACK_INTEGER)
    }

    /// A string (RFC 7541 section 5.2).
    fn string(&mut self) -> Result<Cow<'a, [u8]>, Refusal> {
        let coded = self.peek().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(HTTP2_HPACK_TRUNCATED)?;
        self.0 = rest;
        if coded {
            huffman::decode(bytes).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(bytes))
        }
    }
}
