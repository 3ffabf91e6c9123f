//! Patterns with a leading or trailing `*`, and an index over many of them.

use aho_corasick::AhoCorasick;
use hashbrown::HashTable;

/// A pattern: `*` alone matches anything, a leading `*` any start, a trailing `*` any end; a `*`
/// anywhere else stands for itself. Nothing else is special and nothing needs escaping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// Anything, also nothing at all.
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        let (open_start, rest) = text
            .strip_prefix('*')
            .map_or((false, text), |rest| (true, rest));
        let (open_end, rest) = rest
            .strip_suffix('*')
            .map_or((false, rest), |rest| (true, rest));
        match (open_start, open_end) {
            (true, _) if rest.is_empty() => Self::Any,
            (true, true) => Self::Contains(rest.into()),
            (true, false) => Self::Suffix(rest.into()),
            (false, true) => Self::Prefix(rest.into()),
            (false, false) => Self::Exact(rest.into()),
        }
    }

    /// Whether the pattern matches a text; `None` (absent) only matches [`Pattern::Any`].
    pub(crate) fn matches(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Exact(literal), Some(text)) => **literal == *text,
            (Self::Prefix(literal), Some(text)) => text.starts_with(&**literal),
            (Self::Suffix(literal), Some(text)) => text.ends_with(&**literal),
            (Self::Contains(literal), Some(text)) => text.contains(&**literal),
        }
    }

    /// Whether the pattern's own text has a character.
    pub(crate) fn mentions(&self, character: char) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) | Self::Contains(text) => {
                text.contains(character)
            }
        }
    }
}

/// Many patterns, numbered by [`PatternIndex::new`]; finds all that match a text in time that
/// grows with the text, hardly with their number.
#[derive(Debug)]
pub(crate) struct PatternIndex {
    any: Option<u32>,
    exact: Literals,
    prefix: Literals,
    suffix: Literals,
    contains: Needles,
}

impl PatternIndex {
    /// Builds the index. The number of a pattern is its position; patterns should differ, of equal
    /// ones the last is found.
    pub(crate) fn new(patterns: &[Pattern]) -> Self {
        let mut index = Self {
            any: None,
            exact: Literals::default(),
            prefix: Literals::default(),
            suffix: Literals::default(),
            contains: Needles::None,
        };
        let mut needles = Vec::new();
        for (number, pattern) in (0u32..).zip(patterns) {
            match pattern {
                Pattern::Any => index.any = Some(number),
                Pattern::Exact(text) => index.exact.insert(forward_hash(text), text, number),
                Pattern::Prefix(text) => index.prefix.insert(forward_hash(text), text, number),
                Pattern::Suffix(text) => index.suffix.insert(backward_hash(text), text, number),
                Pattern::Contains(text) => needles.push((text.clone(), number)),
            }
        }
        index.contains = Needles::new(needles);
        index
    }

    /// Calls `found` with the number of each pattern that matches, possibly more than once.
    pub(crate) fn find(&self, text: Option<&str>, mut found: impl FnMut(u32)) {
        self.any.iter().for_each(|number| found(*number));
        let Some(text) = text else { return };
        self.find_forward(text, &mut found);
        self.find_backward(text, &mut found);
        self.contains.find(text, &mut found);
    }

    fn find_forward(&self, text: &str, found: &mut impl FnMut(u32)) {
        if self.exact.is_empty() && self.prefix.is_empty() {
            return;
        }
        let mut hash = Hash::START;
        for (at, byte) in text.bytes().enumerate() {
            hash.add(byte);
            if self.prefix.has_length(at + 1) {
                self.prefix
                    .get(hash, text.as_bytes().get(..=at))
                    .iter()
                    .for_each(|n| found(*n));
            }
        }
        self.exact
            .get(hash, Some(text.as_bytes()))
            .iter()
            .for_each(|n| found(*n));
    }

    fn find_backward(&self, text: &str, found: &mut impl FnMut(u32)) {
        let mut hash = Hash::START;
        for (length, byte) in (1..=self.suffix.longest()).zip(text.bytes().rev()) {
            hash.add(byte);
            if self.suffix.has_length(length) {
                let tail = text.as_bytes().get(text.len() - length..);
                self.suffix.get(hash, tail).iter().for_each(|n| found(*n));
            }
        }
    }
}

/// Literals to be found anywhere in a text.
#[derive(Debug)]
enum Needles {
    None,
    Automaton(AhoCorasick, Vec<u32>),
    /// Tried one by one: more than an automaton holds.
    List(Vec<(Box<str>, u32)>),
}

impl Needles {
    fn new(needles: Vec<(Box<str>, u32)>) -> Self {
        if needles.is_empty() {
            return Self::None;
        }
        match AhoCorasick::new(needles.iter().map(|(text, _)| text.as_bytes())) {
            Ok(automaton) => Self::Automaton(
                automaton,
                needles.into_iter().map(|(_, number)| number).collect(),
            ),
            Err(_) => Self::List(needles),
        }
    }

    fn find(&self, text: &str, found: &mut impl FnMut(u32)) {
        match self {
            Self::None => {}
            Self::Automaton(automaton, numbers) => automaton
                .find_overlapping_iter(text)
                .filter_map(|hit| numbers.get(hit.pattern().as_usize()))
                .for_each(|number| found(*number)),
            Self::List(needles) => needles
                .iter()
                .filter(|(needle, _)| text.contains(&**needle))
                .for_each(|(_, number)| found(*number)),
        }
    }
}

/// A hash that can be taken of every prefix of a text in one pass. The tables are filled from the
/// policy and only read with texts from the wire, and every hit is compared in full, so that a
/// hash which an adversary can predict does no harm.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    /// FNV-1a's parameters.
    const START: Self = Self(0xcbf2_9ce4_8422_2325);
    const PRIME: u64 = 0x0100_0000_01b3;

    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(Self::PRIME);
    }

    /// FNV's high bits are weak and hash tables use them.
    fn finish(self) -> u64 {
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        folded ^ (folded >> 29)
    }
}

fn forward_hash(text: &str) -> Hash {
    let mut hash = Hash::START;
    text.bytes().for_each(|byte| hash.add(byte));
    hash
}

fn backward_hash(text: &str) -> Hash {
    let mut hash = Hash::START;
    text.bytes().rev().for_each(|byte| hash.add(byte));
    hash
}

#[derive(Debug, Default)]
struct Literals {
    table: HashTable<(u64, Box<str>, u32)>,
    /// Indexed by length.
    lengths: Vec<bool>,
}

impl Literals {
    fn insert(&mut self, hash: Hash, text: &str, number: u32) {
        if self.lengths.len() <= text.len() {
            self.lengths.resize(text.len() + 1, false);
        }
        if let Some(slot) = self.lengths.get_mut(text.len()) {
            *slot = true;
        }
        let hash = hash.finish();
        match self.table.find_mut(hash, |entry| *entry.1 == *text) {
            Some(entry) => entry.2 = number,
            None => {
                self.table
                    .insert_unique(hash, (hash, text.into(), number), |entry| entry.0);
            }
        }
    }

    fn get(&self, hash: Hash, text: Option<&[u8]>) -> Option<u32> {
        let text = text?;
        let entry = self
            .table
            .find(hash.finish(), |entry| entry.1.as_bytes() == text)?;
        Some(entry.2)
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn has_length(&self, length: usize) -> bool {
        self.lengths.get(length).copied().unwrap_or(false)
    }

    fn longest(&self) -> usize {
        self.lengths.len().saturating_sub(1)
    }
}
