//! The same rules, the same packets: Suricata 7 and Tollgate side by side.
//!
//! `table.tsv` has the verdicts of both. Tollgate's are computed on every run. Suricata's were recorded;
//! with `TOLLGATE_SURICATA_ROOT`, a Debian 13 with Suricata, they are compared again, and with
//! `TOLLGATE_RECORD=1` table and page are written anew (`scripts/suricata-cases.sh`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod bytes;
mod capture;
mod cases;
mod http_cases;
mod ours;
mod table;
mod theirs;
mod tls_cases;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use capture::Frame;
use cases::{Case, RuleSet};
use table::{EXPLANATIONS, Row};

/// So many cases at least are compared.
const CASES_MIN: usize = 300;

struct All {
    sets: Vec<RuleSet>,
    cases: Vec<Case>,
    frames: Vec<Vec<Frame>>,
}

impl All {
    fn new() -> Self {
        let sets = cases::sets();
        let cases = cases::cases();
        let frames = (0u16..).zip(&cases).map(|(number, case)| {
            let vlan = u16::try_from(set(&sets, case) + 1).unwrap();
            case.talk.frames(number, vlan)
        });
        Self {
            frames: frames.collect(),
            sets,
            cases,
        }
    }

    fn ours(&self) -> Vec<String> {
        let policies = self.sets.iter().map(|set| ours::policy(&set.rules));
        let policies: Vec<_> = policies.collect();
        let verdict = |(case, frames): (&Case, &Vec<Frame>)| {
            ours::judge(&policies[set(&self.sets, case)], &case.talk, frames)
        };
        self.cases.iter().zip(&self.frames).map(verdict).collect()
    }
}

fn set(sets: &[RuleSet], case: &Case) -> usize {
    let found = sets.iter().position(|set| set.name == case.set);
    found.unwrap_or_else(|| panic!("{}: no such set", case.id))
}

/// The differing entries of two columns.
fn differences(rows: &[Row], column: impl Fn(&Row) -> &String, now: &[String]) -> Vec<String> {
    let pairs = rows.iter().zip(now);
    pairs
        .filter(|(row, now)| column(row) != *now)
        .map(|(row, now)| format!("{}: {} in the table, {now} now", row.id, column(row)))
        .collect()
}

#[test]
fn verdicts_are_those_of_the_table() {
    let all = All::new();
    let ours = all.ours();
    let root = std::env::var_os("TOLLGATE_SURICATA_ROOT").map(PathBuf::from);
    let theirs = root.map(|root| theirs::judge(&root, &all.sets, &all.cases, &all.frames));
    if let (Some(theirs), Ok("1")) = (&theirs, std::env::var("TOLLGATE_RECORD").as_deref()) {
        record(&all, &ours, theirs);
    }
    let rows = table::read();
    let ids: Vec<_> = all.cases.iter().map(|case| &case.id).collect();
    assert_eq!(rows.iter().map(|row| &row.id).collect::<Vec<_>>(), ids);
    let none: Vec<String> = Vec::new();
    assert_eq!(
        differences(&rows, |row| &row.tollgate, &ours),
        none,
        "Tollgate"
    );
    match theirs {
        Some(theirs) => assert_eq!(
            differences(&rows, |row| &row.suricata, &theirs),
            none,
            "Suricata"
        ),
        // Not by `eprintln!`, which the harness keeps to itself when a test passes.
        None => writeln!(
            std::io::stderr(),
            "suricata_cases: Suricata was not asked again: TOLLGATE_SURICATA_ROOT names no Debian with it \
             (scripts/suricata-chroot.sh makes one)"
        )
        .unwrap(),
    }
}

/// Writes table and page. Reasons of known differences are kept; others are to be written by hand.
fn record(all: &All, ours: &[String], theirs: &[String]) {
    let known = table::read();
    let why = |id: &str| {
        known
            .iter()
            .find(|row| row.id == id)
            .map(|row| row.why.clone())
    };
    let rows: Vec<_> = all
        .cases
        .iter()
        .zip(ours)
        .zip(theirs)
        .map(|((case, ours), theirs)| Row {
            id: case.id.clone(),
            suricata: theirs.clone(),
            tollgate: ours.clone(),
            why: match ours == theirs {
                true => String::new(),
                false => why(&case.id).unwrap_or_default(),
            },
        })
        .collect();
    table::write(&rows);
    std::fs::write(table::page_path(), table::page(&rows)).unwrap();
}

#[test]
fn each_difference_has_a_reason() {
    let rows = table::read();
    assert!(rows.len() >= CASES_MIN, "{} cases", rows.len());
    let ids: BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(ids.len(), rows.len(), "a case is there twice");
    let known: BTreeSet<_> = EXPLANATIONS.iter().map(|(key, ..)| *key).collect();
    for row in &rows {
        if row.suricata == row.tollgate {
            assert_eq!(row.why, "", "{}: no difference, but a reason", row.id);
        } else {
            assert!(
                known.contains(row.why.as_str()),
                "{}: no reason for the difference",
                row.id
            );
        }
    }
    let used: BTreeSet<_> = rows
        .iter()
        .map(|row| row.why.as_str())
        .filter(|why| !why.is_empty())
        .collect();
    assert_eq!(used, known, "reasons that nothing needs");
}

#[test]
fn the_page_shows_the_table() {
    let page = std::fs::read_to_string(table::page_path()).unwrap();
    assert_eq!(
        page,
        table::page(&table::read()),
        "scripts/suricata-cases.sh writes the page"
    );
}
