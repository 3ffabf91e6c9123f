//! The catalogue's pages: each there, each whole, and the index current.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate_doctor::catalogue::{CATALOGUE, Entry};
use tollgate_doctor::finding::Severity;

const SECTIONS: [&str; 6] = [
    "## Symptom",
    "## Why",
    "## See it by hand",
    "## Fix",
    "## Cost",
    "## How this is tested",
];
const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->\n";
/// With this in the environment the index is written anew.
const UPDATE: &str = "TOLLGATE_UPDATE_DOCS";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn severity(entry: &Entry) -> &'static str {
    match entry.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// One line, whatever the page's line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn numbers_are_unique_and_ascend() {
    assert!(CATALOGUE.len() >= 22);
    assert!(
        CATALOGUE
            .windows(2)
            .all(|pair| pair[0].number < pair[1].number)
    );
}

#[test]
fn every_entry_has_its_page() {
    for entry in CATALOGUE {
        assert_eq!(entry.page, format!("docs/doctor/{}.md", entry.number));
        let page = fs::read_to_string(root().join(entry.page))
            .unwrap_or_else(|e| panic!("{}: {e}", entry.page));
        let heading = format!(
            "# {}: {}\n\nSeverity: {}",
            entry.number,
            entry.title,
            severity(entry)
        );
        assert!(
            page.starts_with(&heading),
            "{} does not begin with {heading:?}",
            entry.page
        );
        let mut rest = page.as_str();
        for section in SECTIONS {
            let (_, after) = rest
                .split_once(&format!("{section}\n"))
                .unwrap_or_else(|| panic!("{}: no {section}", entry.page));
            rest = after;
        }
        assert!(
            flat(&page).contains(&flat(entry.cost)),
            "{}: cost",
            entry.page
        );
    }
}

#[test]
fn no_page_is_left_over() {
    for file in fs::read_dir(root().join("docs/doctor")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let known = CATALOGUE.iter().any(|entry| entry.page.ends_with(&name));
        assert!(known || name == "README.md", "{name} has no entry");
    }
}

#[test]
fn index_is_current() {
    let path = root().join("docs/doctor/README.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table = String::from(
        "\n| number | severity | what is wrong | what the fix costs |\n|---|---|---|---|\n",
    );
    for entry in CATALOGUE {
        let number = entry.number;
        writeln!(
            table,
            "| [{number}]({number}.md) | {} | {} | {} |",
            severity(entry),
            entry.title,
            entry.cost
        )
        .unwrap();
    }
    let current = format!("{before}{BEGIN}{table}\n{END}{after}");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &current).unwrap();
    } else {
        assert!(
            page == current,
            "set {UPDATE}=1 and run this test to write docs/doctor/README.md anew"
        );
    }
}
