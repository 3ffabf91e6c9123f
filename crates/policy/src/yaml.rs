//! YAML text to a tree of nodes that know where they stand.
//!
//! The tree is decoded by hand (see [`crate::decode`]) rather than by derived `Deserialize`, because
//! a derived decoder stops at the first fault of a document and does not know the path of a field.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options, Spanned};

use crate::diagnostic::Pos;

/// Largest policy file. A policy of 10,000 rules is about 3 MB.
pub(crate) const MAX_FILE_BYTES: usize = 64 << 20;
/// Documents in one file. An export of a large cluster's pods has some ten thousand.
const MAX_DOCUMENTS: usize = 20_000;
/// Nodes in one file. One rule has about 30; a kubectl-exported pod about 300.
const MAX_NODES: usize = 8_000_000;
/// Parser events in one file: up to two for a container, one for a scalar.
const MAX_EVENTS: usize = 2 * MAX_NODES;
/// Nodes that aliases may add; hand-written files repeat a handful of small blocks. This is what
/// stops "billion laughs".
const MAX_ALIAS_EVENTS: usize = 10_000;

/// Depth of mappings and lists. Exported pods, with their managedFields, reach about 16. The
/// parser recurses and takes up to 32 KiB of stack a level in a debug build.
const MAX_DEPTH: usize = 24;

/// One node of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    pub(crate) value: Value,
}

/// What a node holds, by YAML's own inference (`80` is a number, `"80"` a string).
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<str>),
    Seq(Vec<Node>),
    /// In file order, repeated keys included: the decoder reports them.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) pos: Pos,
    pub(crate) text: Box<str>,
}

/// A text that is not YAML, or too much of it.
#[derive(Debug)]
pub(crate) struct SyntaxFault {
    pub(crate) pos: Pos,
    pub(crate) message: String,
}

/// All documents of a text (empty ones left out), and the fault that ended the reading, if any.
pub(crate) fn parse(text: &str) -> (Vec<Node>, Option<SyntaxFault>) {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("file is larger than {MAX_FILE_BYTES} bytes");
        return (
            Vec::new(),
            Some(SyntaxFault {
                pos: Pos::default(),
                message,
            }),
        );
    }
    match serde_saphyr::from_str_multiple_with_options::<Node, Vec<Node>>(text, options()) {
        Ok(documents) => (documents, None),
        Err(error) => (readable_documents(text), Some(fault(&error))),
    }
}

/// The documents in front of the first syntax fault, so that their faults are reported as well.
fn readable_documents(text: &str) -> Vec<Node> {
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Node>(&mut bytes, options())
        .map_while(Result::ok)
        .take(MAX_DOCUMENTS)
        .collect()
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            max_depth: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_EVENTS,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        emit_comments: false,
        // YAML 1.2: a label `no` is a word.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn fault(error: &Error) -> SyntaxFault {
    let error = error.without_snippet();
    let pos = error.location().map(pos_of).unwrap_or_default();
    let message = match error {
        Error::Budget { breach, .. } => limit(breach),
        // Comes wrapped if it happened inside of an alias, and then only as text.
        _ if error.to_string().contains("alias replay limit") => {
            format!("aliases expand to more than {MAX_ALIAS_EVENTS} nodes")
        }
        _ => without_place(error.to_string()),
    };
    SyntaxFault {
        pos,
        message: format!("cannot be read as YAML: {message}"),
    }
}

fn limit(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("nested more than {MAX_DEPTH} levels deep"),
        BudgetBreach::Documents { .. } => {
            format!("more than {MAX_DOCUMENTS} documents in one file")
        }
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            format!("more than {MAX_NODES} nodes in one file")
        }
        _ => format!("a limit of the reader is exceeded: {breach:?}"),
    }
}

/// The place has its own fields in the diagnostic.
fn without_place(mut message: String) -> String {
    if let Some(end) = message.find(" at line ") {
        message.truncate(end);
    }
    message
}

fn pos_of(location: serde_saphyr::Location) -> Pos {
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Pos {
        line: narrow(location.line()),
        column: narrow(location.column()),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            pos: pos_of(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        // No field takes a number this large; as a float it fails its range check in place.
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(value.into_boxed_str()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _value: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary values are not used in policies"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let key = Key {
                pos: pos_of(key.referenced),
                text: key.value.into_boxed_str(),
            };
            entries.push((key, access.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

impl Node {
    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Str(value) => format!("the string {:?}", shorten(value)),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// A hash of the content, wherever it stands and however it is laid out; the same on every
    /// machine (FNV-1a, 64 bits).
    pub(crate) fn fingerprint(&self) -> u64 {
        const START: u64 = 0xcbf2_9ce4_8422_2325;
        self.add_to(START)
    }

    fn add_to(&self, hash: u64) -> u64 {
        match &self.value {
            Value::Null => add(hash, b"n"),
            Value::Bool(value) => add(hash, if *value { b"t" } else { b"f" }),
            Value::Int(value) => add(add(hash, b"i"), &value.to_be_bytes()),
            Value::Float(value) => add(add(hash, b"d"), &value.to_bits().to_be_bytes()),
            Value::Str(text) => add(add(add(hash, b"s"), text.as_bytes()), &[0xff]),
            Value::Seq(items) => {
                let hash = items
                    .iter()
                    .fold(add(hash, b"["), |hash, item| item.add_to(hash));
                add(hash, b"]")
            }
            Value::Map(entries) => {
                let hash = entries.iter().fold(add(hash, b"{"), |hash, (key, value)| {
                    value.add_to(add(add(hash, key.text.as_bytes()), &[0xff]))
                });
                add(hash, b"}")
            }
        }
    }

    /// The value under a key, if the node is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(k, _)| &*k.text == key)
                .map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text, if the node is a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }
}

fn add(hash: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

/// A value as it can stand in a message: not too long, and nothing that moves a terminal's cursor.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 80;
    let harmless = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let cut = if text.chars().nth(LIMIT).is_some() {
        "..."
    } else {
        ""
    };
    text.chars()
        .take(LIMIT)
        .map(harmless)
        .chain(cut.chars())
        .collect()
}
