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

/// A name or value: in a table or the block as it is, or decoded.
type Text<'a> = Cow<'a, [u8]>;

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
                let (name, value) = self.literal(&mut input, 6, sink)?;
                let entry = Entry::new(&name, &value);
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
    fn literal<'t, 'a>(
        &'t self,
        input: &mut Input<'a>,
        prefix: u32,
        sink: &mut impl Sink,
    ) -> Result<(Text<'t>, Text<'a>), Refusal>
    where
        'a: 't,
    {
        let name = match input.integer(prefix)? {
            0 => input.string()?,
            index => Cow::Borrowed(self.table.get(index)?.0),
        };
        let value = input.string()?;
        sink.field(&name, &value)?;
        Ok((name, value))
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
    fn string(&mut self) -> Result<Text<'a>, Refusal> {
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

#[cfg(test)]
mod tests {
    //! The examples of RFC 7541 appendix C; some are responses, which no reader here takes.

    use super::*;

    #[derive(Default)]
    struct Lines(Vec<String>);

    impl Sink for Lines {
        fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
            let text = |bytes| String::from_utf8_lossy(bytes);
            self.0.push(format!("{}: {}", text(name), text(value)));
            Ok(())
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn decode(decoder: &mut Decoder, block: &str) -> Vec<String> {
        let mut lines = Lines::default();
        assert_eq!(decoder.decode(&hex(block), &mut lines), Ok(()));
        lines.0
    }

    #[test]
    fn integers() {
        for (bytes, prefix, value) in [
            (&[0b1110_1010][..], 5, 10),
            (&[0b1111_1111, 0b1001_1010, 0b0000_1010], 5, 1337),
            (&[0b0010_1010], 7, 42),
        ] {
            assert_eq!(Input(bytes).integer(prefix), Ok(value));
        }
    }

    #[test]
    fn single_fields() {
        for (block, field) in [
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header",
            ),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path"),
            (
                "1008 7061 7373 776f 7264 0673 6563 7265 74",
                "password: secret",
            ),
            ("82", ":method: GET"),
        ] {
            assert_eq!(decode(&mut Decoder::default(), block), [field]);
        }
    }

    #[test]
    fn requests() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let authority = ":authority: www.example.com";
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            let common = [":method: GET", ":scheme: http", ":path: /", authority];
            assert_eq!(decode(&mut decoder, blocks[0]), common);
            let second = [&common[..], &["cache-control: no-cache"]].concat();
            assert_eq!(decode(&mut decoder, blocks[1]), second);
            assert_eq!(
                decode(&mut decoder, blocks[2]),
                [
                    ":method: GET",
                    ":scheme: https",
                    ":path: /index.html",
                    authority,
                    "custom-key: custom-value",
                ]
            );
        }
    }

    #[test]
    fn responses_with_evictions() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
             3d31",
        ];
        let coded = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let cache = "cache-control: private";
        let dates = [
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
        ];
        let location = "location: https://www.example.com";
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            decoder.table.resize(256);
            let first = decode(&mut decoder, blocks[0]);
            assert_eq!(first, [":status: 302", cache, dates[0], location]);
            let second = decode(&mut decoder, blocks[1]);
            assert_eq!(second, [":status: 307", cache, dates[0], location]);
            assert_eq!(
                decode(&mut decoder, blocks[2]),
                [
                    ":status: 200",
                    cache,
                    dates[1],
                    location,
                    "content-encoding: gzip",
                    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                ]
            );
        }
    }
}
