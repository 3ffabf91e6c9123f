//! Broken files and the exact faults reported of each: `lint/NAME.yaml` and `lint/NAME.expected`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p tollgate-policy --test lint` writes the expected files anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate_policy::{CompileOptions, SourceFile, compile};

/// The project promises as many.
const AT_LEAST: usize = 45;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap();
    let files: BTreeSet<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect()
}

fn report(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    match compile(
        &[SourceFile { name, text: &text }],
        &CompileOptions::default(),
    ) {
        Ok(set) => format!("no fault: {}\n", set.summary()),
        Err(faults) => faults.iter().map(|fault| format!("{fault}\n")).collect(),
    }
}

#[test]
fn every_broken_file_gets_its_messages() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let cases = cases();
    assert!(cases.len() >= AT_LEAST, "only {} broken files", cases.len());
    let mut differences = String::new();
    for path in &cases {
        let expected_path = path.with_extension("expected");
        let actual = report(path);
        if update {
            fs::write(&expected_path, &actual).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if actual != expected {
            let _ = writeln!(
                differences,
                "{}:\n{}",
                path.display(),
                diff(&expected, &actual)
            );
        }
        assert!(
            !actual.starts_with("no fault"),
            "{} is not broken",
            path.display()
        );
    }
    assert!(differences.is_empty(), "\n{differences}");
}

fn diff(expected: &str, actual: &str) -> String {
    let missing = expected
        .lines()
        .filter(|line| !actual.lines().any(|other| other == *line));
    let surplus = actual
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line));
    missing
        .map(|line| format!("- {line}\n"))
        .chain(surplus.map(|line| format!("+ {line}\n")))
        .collect()
}
