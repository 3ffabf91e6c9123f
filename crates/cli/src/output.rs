//! How results look.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use tollgate_agent::filter::verdict_word;
use tollgate_engine::event::VerdictWord;

use crate::exit::Failure;

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Shape of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Shape of a stream of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StreamFormat {
    /// A line for people each.
    #[default]
    Compact,
    /// A JSON document a line each.
    Json,
}

/// Colours, if they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// By the wish and by where standard output goes.
    pub fn of(colour: Colour) -> Self {
        let colours = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        Self { colours }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { colours: false }
    }

    /// Are there colours? Then there is a person to look at them.
    pub fn is_coloured(self) -> bool {
        self.colours
    }

    /// A verdict word.
    pub fn verdict(self, word: VerdictWord) -> String {
        let text = verdict_word(word);
        match word {
            VerdictWord::Allowed => self.good(text),
            VerdictWord::Denied => self.bad(text),
            VerdictWord::Audited | VerdictWord::Bypassed => self.odd(text),
        }
    }

    /// Something as it should be.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something refused or broken.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Something to look at.
    pub fn odd(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Something less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// A table without lines; a cell is never wrapped, so that `grep` and `awk` can work on it.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let header = header.map(str::to_owned).into();
    table_of(header, rows.into_iter().map(Vec::from))
}

/// The same for a number of columns that is not known before.
pub fn table_of(header: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// One JSON document, indented.
pub fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}

/// Text from the wire without anything a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_invisible(c) {
            true => clean.extend(c.escape_unicode()),
            false => clean.push(c),
        }
    }
    clean
}

/// Marks that change the direction of text, with which one name can look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Yes or no, for tables.
pub fn yes(value: bool) -> String {
    if value {
        "yes".to_owned()
    } else {
        "no".to_owned()
    }
}

/// Something that may be missing, for tables.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Bytes with a unit of 1000.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        // What would be printed as 1000.0 belongs to the next unit.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_made_for_grep() {
        let rows = [
            ["a".to_owned(), "b b".to_owned()],
            ["long one".to_owned(), "c".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "X"], rows),
            "NAME      X\na         b b\nlong one  c"
        );
        assert_eq!(table(["NAME", "X"], []), "NAME  X");
    }

    #[test]
    fn the_wire_cannot_write_to_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\u{a}c");
        assert_eq!(printable("moc.\u{202e}x"), "moc.\\u{202e}x");
        assert_eq!(printable("Bücher/…"), "Bücher/…");
    }

    #[test]
    fn byte_counts_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn colours_only_on_request() {
        assert_eq!(Style::of(Colour::Never).bad("x"), "x");
        assert_eq!(Style::of(Colour::Always).bad("x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::plain().verdict(VerdictWord::Denied), "DENIED");
    }
}
