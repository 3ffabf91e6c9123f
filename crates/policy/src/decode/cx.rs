//! Walking a document: where we are, and what was found wrong so far.

use std::fmt::Write as _;

use super::TOLLGATE;
use crate::diagnostic::{Diagnostic, Place, Pos};
use crate::model::Located;
use crate::yaml::{Node, Value, shorten};

/// Faults reported of one file; the rest is counted. A file of another kind altogether would
/// otherwise produce a report as long as itself.
const MAX_FAULTS_PER_FILE: usize = 200;

/// The state of decoding one file. Decoders return `None` if they have reported a fault.
pub(crate) struct Cx<'a> {
    file: &'a str,
    file_index: u32,
    object: Option<String>,
    path: Vec<Segment<'a>>,
    faults: Vec<Diagnostic>,
    suppressed: usize,
    extended: bool,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
}

/// A mapping whose keys were all checked.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    node: &'a Node,
}

impl<'a> Fields<'a> {
    /// A mapping that was checked elsewhere.
    pub(crate) fn of(node: &'a Node) -> Self {
        Self { node }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        self.node.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    /// Nothing at all, not even something unknown, which was reported already.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.is_empty())
    }

    /// How many of these keys are there.
    pub(crate) fn count(&self, keys: &[&str]) -> usize {
        keys.iter().filter(|key| self.has(key)).count()
    }
}

impl<'a> Cx<'a> {
    pub(crate) fn new(file: &'a str, file_index: u32) -> Self {
        Self {
            file,
            file_index,
            object: None,
            path: Vec::new(),
            faults: Vec::new(),
            suppressed: 0,
            extended: false,
        }
    }

    /// Everything reported.
    pub(crate) fn into_faults(mut self) -> Vec<Diagnostic> {
        if self.suppressed > 0 {
            let message = format!("{} more faults are not shown", self.suppressed);
            self.faults.push(Diagnostic {
                file: self.file.to_owned(),
                line: None,
                column: None,
                object: None,
                field: String::new(),
                message,
            });
        }
        self.faults
    }

    pub(crate) fn set_object(&mut self, object: Option<String>) {
        self.object = object;
    }

    /// Says whether the current document may have fields that Antrea's kinds do not have.
    pub(crate) fn set_extended(&mut self, extended: bool) {
        self.extended = extended;
    }

    /// Whether the current document may have fields that Antrea's kinds do not have.
    pub(crate) fn extended(&self) -> bool {
        self.extended
    }

    pub(crate) fn place(&self, pos: Pos) -> Place {
        Place {
            file: self.file_index,
            pos,
        }
    }

    /// A value with the current field's path.
    pub(crate) fn located<T>(&self, node: &Node, value: T) -> Located<T> {
        Located {
            value,
            place: self.place(node.pos),
            field: self.field_path(),
        }
    }

    /// Reports a fault of the current field.
    pub(crate) fn fault(&mut self, pos: Pos, message: impl Into<String>) {
        if self.faults.len() >= MAX_FAULTS_PER_FILE {
            self.suppressed += 1;
            return;
        }
        self.faults.push(Diagnostic {
            file: self.file.to_owned(),
            line: pos.line(),
            column: pos.column(),
            object: self.object.clone(),
            field: self.field_path(),
            message: message.into(),
        });
    }

    /// Reports a fault of a field of the current mapping.
    pub(crate) fn fault_in(
        &mut self,
        fields: Fields<'a>,
        key: &'a str,
        message: impl Into<String>,
    ) {
        let pos = fields.get(key).map_or(fields.node.pos, |node| node.pos);
        self.path.push(Segment::Field(key));
        self.fault(pos, message);
        self.path.pop();
    }

    /// Reports a fault of another field.
    pub(crate) fn fault_at(&mut self, pos: Pos, field: String, message: &str) {
        let path = std::mem::take(&mut self.path);
        let before = self.faults.len();
        self.fault(pos, message);
        self.path = path;
        if let Some(fault) = self.faults.get_mut(before) {
            fault.field = field;
        }
    }

    pub(crate) fn fault_count(&self) -> usize {
        self.faults.len() + self.suppressed
    }

    pub(crate) fn field_path(&self) -> String {
        let mut text = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) if plain(name) => {
                    let dot = if text.is_empty() { "" } else { "." };
                    let _ = write!(text, "{dot}{name}");
                }
                Segment::Field(name) => {
                    let _ = write!(text, "[{:?}]", shorten(name));
                }
                Segment::Index(index) => {
                    let _ = write!(text, "[{index}]");
                }
            }
        }
        text
    }

    fn within<T>(&mut self, segment: Segment<'a>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = work(self);
        self.path.pop();
        result
    }

    /// The node as a mapping with only these keys, each at most once and none without a value.
    /// Reports every other key, and goes on without it.
    pub(crate) fn fields(&mut self, node: &'a Node, known: &[&str]) -> Option<Fields<'a>> {
        for (key, value) in self.entries(node)? {
            if !known.contains(&&*key.text) {
                let message = unknown_field(&key.text, known);
                self.within(Segment::Field(&key.text), |cx| cx.fault(key.pos, message));
            } else if matches!(value.value, Value::Null) {
                self.within(Segment::Field(&key.text), |cx| {
                    cx.fault(
                        key.pos,
                        "has no value; leave the field out, or write `{}` or `[]`",
                    );
                });
            }
        }
        Some(Fields { node })
    }

    /// [`Cx::fields`] with further keys that only the extended kinds have; elsewhere they are
    /// refused with a hint.
    pub(crate) fn fields_with(
        &mut self,
        node: &'a Node,
        known: &[&'static str],
        more: &[&'static str],
    ) -> Option<Fields<'a>> {
        let mut all = known.to_vec();
        // Not among the suggestions for a typo where they would be refused as well.
        let extended = self.extended;
        all.extend(
            more.iter()
                .filter(|key| extended || node.get(key).is_some()),
        );
        let fields = self.fields(node, &all)?;
        if !extended {
            for key in more.iter().filter(|key| fields.has(key)) {
                let message = format!("is a field of {TOLLGATE}; write that as the apiVersion");
                self.fault_in(fields, key, message);
            }
        }
        Some(fields)
    }

    /// The entries of a mapping, in order; reports repeated keys.
    pub(crate) fn entries(&mut self, node: &'a Node) -> Option<&'a [(crate::yaml::Key, Node)]> {
        let Value::Map(entries) = &node.value else {
            self.fault(
                node.pos,
                format!("must be a mapping, not {}", node.describe()),
            );
            return None;
        };
        let mut seen = std::collections::HashMap::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(first) = seen.insert(&*key.text, key.pos) {
                let message = format!("is set twice, first in line {}", first.line);
                self.within(Segment::Field(&key.text), |cx| cx.fault(key.pos, message));
            }
        }
        Some(entries)
    }

    /// Decodes a field if it is there. Null was already reported by [`Cx::fields`].
    pub(crate) fn optional<T>(
        &mut self,
        fields: Fields<'a>,
        key: &'a str,
        decode: impl FnOnce(&mut Self, &'a Node) -> Option<T>,
    ) -> Option<T> {
        let node = fields.get(key)?;
        if matches!(node.value, Value::Null) {
            return None;
        }
        self.within(Segment::Field(key), |cx| decode(cx, node))
    }

    /// Decodes a field that must be there.
    pub(crate) fn required<T>(
        &mut self,
        fields: Fields<'a>,
        key: &'a str,
        decode: impl FnOnce(&mut Self, &'a Node) -> Option<T>,
    ) -> Option<T> {
        if !fields.has(key) {
            self.fault_in(fields, key, "is required");
            return None;
        }
        self.optional(fields, key, decode)
    }

    /// Decodes a list field; absent is empty. Elements with faults are left out.
    pub(crate) fn list<T>(
        &mut self,
        fields: Fields<'a>,
        key: &'a str,
        mut decode: impl FnMut(&mut Self, &'a Node) -> Option<T>,
    ) -> Vec<T> {
        let all = self.optional(fields, key, |cx, node| Some(cx.items(node, &mut decode)));
        all.unwrap_or_default()
    }

    /// Decodes the elements of a list.
    pub(crate) fn items<T>(
        &mut self,
        node: &'a Node,
        mut decode: impl FnMut(&mut Self, &'a Node) -> Option<T>,
    ) -> Vec<T> {
        let Value::Seq(items) = &node.value else {
            self.fault(node.pos, format!("must be a list, not {}", node.describe()));
            return Vec::new();
        };
        let numbered = items.iter().enumerate();
        numbered
            .filter_map(|(index, item)| self.within(Segment::Index(index), |cx| decode(cx, item)))
            .collect()
    }

    /// Refuses fields that the format has and Tollgate does not support.
    pub(crate) fn refuse(&mut self, fields: Fields<'a>, refused: &[(&'a str, &str)]) {
        for (key, message) in refused {
            if fields.has(key) {
                self.fault_in(fields, key, *message);
            }
        }
    }

    /// Decodes the value of one entry of a free mapping, such as labels.
    pub(crate) fn entry<T>(&mut self, key: &'a str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Field(key), work)
    }

    /// Decodes an element by its index.
    pub(crate) fn element<T>(&mut self, index: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Index(index), work)
    }

    pub(crate) fn string(&mut self, node: &'a Node) -> Option<&'a str> {
        match &node.value {
            Value::Str(text) => Some(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let message = format!(
                    "must be a string, not {}; put it in quotes",
                    node.describe()
                );
                self.fault(node.pos, message);
                None
            }
            _ => {
                self.fault(
                    node.pos,
                    format!("must be a string, not {}", node.describe()),
                );
                None
            }
        }
    }

    /// A string that is not empty.
    pub(crate) fn text(&mut self, node: &'a Node) -> Option<&'a str> {
        let text = self.string(node)?;
        if text.is_empty() {
            self.fault(node.pos, "must not be empty");
            return None;
        }
        Some(text)
    }

    pub(crate) fn boolean(&mut self, node: &'a Node) -> Option<bool> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.fault(
                    node.pos,
                    format!("must be true or false, not {}", node.describe()),
                );
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: &'a Node, low: i64, high: i64) -> Option<i64> {
        match node.value {
            Value::Int(value) if (low..=high).contains(&value) => Some(value),
            Value::Int(_) | Value::Float(_) => {
                let message = format!(
                    "must be a whole number from {low} to {high}, not {}",
                    node.describe()
                );
                self.fault(node.pos, message);
                None
            }
            _ => {
                self.fault(
                    node.pos,
                    format!("must be a whole number, not {}", node.describe()),
                );
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&mut self, node: &'a Node, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message = format!(
            "must be one of {}, not {:?}",
            known.join(", "),
            shorten(text)
        );
        self.fault(node.pos, message);
        None
    }

    /// Accepts anything: a field that Kubernetes or kubectl writes and that decides nothing here.
    pub(crate) fn ignore(&mut self, _node: &'a Node) -> Option<()> {
        Some(())
    }
}

/// Whether a key can stand in a path as it is.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The complaint about a key that a mapping does not take.
pub(crate) fn unknown_field(name: &str, known: &[&str]) -> String {
    let closest = known.iter().map(|word| (distance(name, word), word)).min();
    match closest {
        // With more than a third changed it is another word.
        Some((distance, word)) if distance <= 1.max(word.len() / 3) => {
            format!("unknown field; did you mean `{word}`?")
        }
        _ => "unknown field".to_owned(),
    }
}

/// Edit distance, case ignored; names longer than any field are far from all.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 40;
    if left.len() > LONGEST {
        return usize::MAX;
    }
    let left = left.to_ascii_lowercase();
    let right = right.to_ascii_lowercase();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, b) in right.bytes().enumerate() {
            let (before, above) = (row[j], row[j + 1]);
            row[j + 1] = (diagonal + usize::from(a != b))
                .min(before + 1)
                .min(above + 1);
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
