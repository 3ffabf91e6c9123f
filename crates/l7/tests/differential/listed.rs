//! The table in `docs/http-differences.md`.

use std::collections::BTreeMap;

const TEXT: &str = include_str!("../../../../docs/http-differences.md");

/// What a reader does with what we refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cell {
    /// It acts on nothing of it.
    #[default]
    Refuses,
    /// It acts on some of it.
    Acts,
    /// An older release acts on some of it.
    OlderActs,
}

/// For each reason word: what hyper, Python and Node do.
pub fn table() -> BTreeMap<String, [Cell; 3]> {
    let rows = TEXT.lines().filter(|line| line.starts_with("| `http"));
    let rows: Vec<_> = rows.map(row).collect();
    let count = rows.len();
    let table: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(table.len(), count, "a reason stands in two rows");
    table
}

/// `| reason | hyper | Python | Node | explanation |`
fn row(line: &str) -> (String, [Cell; 3]) {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [reason, hyper, python, node, explanation] = cells[..] else {
        panic!("a row of the table has not five cells: {line}");
    };
    assert!(!explanation.is_empty(), "{line}");
    let does = [hyper, python, node].map(|cell| match cell {
        "acts" => Cell::Acts,
        "refuses" => Cell::Refuses,
        "older acts" => Cell::OlderActs,
        _ => panic!("not a word of this table: {line}"),
    });
    (reason.trim_matches('`').to_owned(), does)
}
