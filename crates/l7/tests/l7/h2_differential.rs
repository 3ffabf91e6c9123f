//! Field lists in every encoding that HPACK allows, read by this decoder and by another.

use proptest::prelude::*;
use tollgate_l7::Http2Event;
use tollgate_l7::http2::HPACK_TABLE_MAX;

use crate::drive::{cut, http2};
use crate::h2_build::*;

type Pair = (Vec<u8>, Vec<u8>);

/// How to encode one field; what is not possible falls back to a literal.
#[derive(Debug, Clone)]
struct Choice {
    /// 0: an index if there is one; 1: with, 2: without indexing; 3: never indexed.
    form: u8,
    name_index: bool,
    huffman: [bool; 2],
}

/// An encoder that does as it is told, with a table of its own.
struct Encoder {
    /// The newest first.
    table: Vec<Pair>,
    max: usize,
}

/// The static entries that requests here may name.
const STATIC: [(usize, &str, &str); 7] = [
    (1, ":authority", ""),
    (2, ":method", "GET"),
    (4, ":path", "/"),
    (6, ":scheme", "http"),
    (16, "accept-encoding", "gzip, deflate"),
    (32, "cookie", ""),
    (58, "user-agent", ""),
];
const STATIC_LEN: usize = 61;

impl Encoder {
    fn resize(&mut self, max: usize) -> Vec<u8> {
        self.max = max;
        self.evict();
        integer(0x20, 5, max)
    }

    fn evict(&mut self) {
        let size = |(name, value): &Pair| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.max {
            self.table.pop();
        }
    }

    /// The index of an entry that has the name, or both.
    fn find(&self, (name, value): &Pair, both: bool) -> Option<usize> {
        let fixed = STATIC
            .iter()
            .find(|(_, n, v)| n.as_bytes() == name && (!both || v.as_bytes() == value))
            .map(|(index, _, _)| *index);
        let own = |(n, v): &Pair| n == name && (!both || v == value);
        let own = self.table.iter().position(own);
        // The table of one's own comes first, so that its indices are tested.
        own.map(|at| at + STATIC_LEN + 1).or(fixed)
    }

    fn field(&mut self, field: &Pair, choice: &Choice) -> Vec<u8> {
        if choice.form == 0
            && let Some(index) = self.find(field, true)
        {
            return integer(0x80, 7, index);
        }
        let (bits, prefix) = match choice.form {
            0 | 1 => (0x40, 6),
            2 => (0, 4),
            _ => (0x10, 4),
        };
        let index = self.find(field, false).filter(|_| choice.name_index);
        let mut out = integer(bits, prefix, index.unwrap_or(0));
        if index.is_none() {
            out.extend(string(&field.0, choice.huffman[0]));
        }
        out.extend(string(&field.1, choice.huffman[1]));
        if bits == 0x40 {
            self.table.insert(0, field.clone());
            self.evict();
        }
        out
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    (0u8..4, any::<bool>(), any::<[bool; 2]>()).prop_map(|(form, name_index, huffman)| Choice {
        form,
        name_index,
        huffman,
    })
}

/// Few names, so that they come again; values of any allowed byte.
fn field() -> impl Strategy<Value = (Pair, Choice)> {
    let name = prop_oneof![
        3 => prop::sample::select(vec!["cookie", "user-agent", "accept-encoding", "x-a", "x-b"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,20}".prop_map(|name| format!("x{name}").into_bytes()),
    ];
    let any_value = prop::collection::vec(prop_oneof![0x21u8..=0x7e, 0x80u8..=0xff], 0..60);
    let few = prop::sample::select(vec!["", "a", "gzip, deflate", "some longer value"]);
    let value = prop_oneof![any_value, few.prop_map(|value| value.as_bytes().to_vec())];
    ((name, value), choice())
}

type Section = (Vec<usize>, Vec<(Pair, Choice)>, [Choice; 4]);

fn section() -> impl Strategy<Value = Section> {
    let size = prop_oneof![0usize..300, Just(HPACK_TABLE_MAX)];
    (
        prop::collection::vec(size, 0..3),
        prop::collection::vec(field(), 0..12),
        [choice(), choice(), choice(), choice()],
    )
}

proptest! {
    #[test]
    fn both_decoders_read_the_same(
        sections in prop::collection::vec(section(), 1..8),
        sizes in prop::collection::vec(1usize..60, 0..8),
    ) {
        let mut encoder = Encoder { table: Vec::new(), max: 4096 };
        let mut other = loona_hpack::Decoder::new();
        other.set_max_allowed_table_size(HPACK_TABLE_MAX);
        let mut bytes = start();
        let mut lists = Vec::new();
        for (i, (updates, fields, choices)) in sections.iter().enumerate() {
            let mut block: Vec<u8> = updates.iter().flat_map(|max| encoder.resize(*max)).collect();
            let pseudo = GET.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()));
            let pseudo = pseudo.into_iter().zip(choices.iter().cloned());
            let mut list = Vec::new();
            for (field, choice) in pseudo.chain(fields.iter().cloned()) {
                block.extend(encoder.field(&field, &choice));
                list.push(field);
            }
            prop_assert_eq!(other.decode(&block).expect("valid"), list.clone());
            bytes.extend(headers(2 * u32::try_from(i).expect("few") + 1, END_STREAM, &block));
            lists.push(list);
        }
        let events = http2(&cut(&bytes, &sizes));
        prop_assert_eq!(events.len(), lists.len());
        for ((_, event), list) in events.into_iter().zip(lists) {
            let Http2Event::Request(request) = event else {
                panic!("{event:?}");
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let expected: Vec<_> = list[4..].iter().map(|(n, v)| (text(n), text(v))).collect();
            prop_assert_eq!(request.headers, expected);
            prop_assert_eq!(request.host, "a.example");
        }
    }

    /// What this decoder takes, the other reads in the same way.
    #[test]
    fn what_is_accepted_is_read_the_same(
        mut block in prop::collection::vec(section(), 1..2).prop_map(|sections| {
            let mut encoder = Encoder { table: Vec::new(), max: 4096 };
            let fields = sections.into_iter().flat_map(|(_, fields, _)| fields);
            fields.flat_map(|(field, choice)| encoder.field(&field, &choice)).collect::<Vec<u8>>()
        }),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..3),
    ) {
        for (at, byte) in changes {
            let len = block.len().max(1);
            if let Some(slot) = block.get_mut(at % len) {
                *slot = byte;
            }
        }
        let block = [get(&[]), block].concat();
        let events = http2(&[&stream(&[headers(1, END_STREAM, &block)])]);
        if let Some((_, Http2Event::Request(request))) = events.into_iter().next() {
            let mut other = loona_hpack::Decoder::new();
            other.set_max_allowed_table_size(HPACK_TABLE_MAX);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let list = other.decode(&block).expect("valid");
            let list: Vec<_> = list[4..].iter().map(|(n, v)| (text(n), text(v))).collect();
            prop_assert_eq!(request.headers, list);
        }
    }
}
