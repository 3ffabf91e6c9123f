//! The adversary: a table of attacks and a table of odd but honest clients, run against the real
//! agent between a pod and real servers, in network namespaces `tg-gt-adversary-*`.
//!
//! An attack passes, and the test fails, if any server acted on a request that the policy forbids.
//! The servers write down what they act on; the attacks' own view of their success does not count.
//!
//! Needs root, and fails without it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[allow(dead_code, reason = "shared with the gate")]
#[path = "../gate/bed.rs"]
mod bed;

mod range;
mod records;

use std::path::Path;
use std::time::{Duration, Instant};

use range::Range;
use records::{Row, Verdict};

/// The whole table of attacks takes some 40 seconds on two cores.
const ATTACKS_LIMIT: Duration = Duration::from_secs(150);

#[test]
fn no_attack_passes() {
    let range = Range::up("adversary");
    let begin = Instant::now();
    let rows = range.attack(ATTACKS_LIMIT);
    let records = range.records();
    let mut bad = records::strays(&rows, &records);
    let verdicts: Vec<(Row, Verdict)> = rows
        .into_iter()
        .map(|row| {
            let verdict = records::judge(&row, &records);
            (row, verdict)
        })
        .collect();
    for (row, verdict) in &verdicts {
        println!("{row}: {verdict}");
        if !matches!(verdict, Verdict::Held) {
            bad.push(format!("{row}: {verdict}"));
        }
    }
    println!(
        "{} attacks in {:.1} s",
        verdicts.len(),
        begin.elapsed().as_secs_f64()
    );
    assert!(
        bad.is_empty(),
        "{} of {} rows:\n{}",
        bad.len(),
        verdicts.len(),
        bad.join("\n")
    );
}

/// A file of this test.
fn source(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adversary");
    dir.join(name).display().to_string()
}
