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

/// Bound of the table of attacks, which takes some 15 seconds on two cores.
const ATTACKS_LIMIT: Duration = Duration::from_secs(100);
/// Bound of the table of honest clients, which takes some 12 seconds.
const HONEST_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn attacks_are_held_and_honest_clients_are_served() {
    let mut range = Range::up("adversary");
    let begin = Instant::now();
    let (honest, denials) = range.honest(HONEST_LIMIT);
    let mut bad: Vec<String> = honest
        .iter()
        .map(Row::to_string)
        .inspect(|row| println!("{row}"))
        .zip(&honest)
        .filter_map(|(text, row)| (!row.is_served()).then_some(text))
        .collect();
    bad.extend(denials);
    let (rows, records) = range.attack(ATTACKS_LIMIT);
    bad.extend(records::strays(&rows, &records));
    for row in &rows {
        let verdict = records::judge(row, &records);
        println!("{row}: {verdict}");
        if !matches!(verdict, Verdict::Held) {
            bad.push(format!("{row}: {verdict}"));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (attacks, clients) = (rows.len(), honest.len());
    println!("{attacks} attacks and {clients} honest clients in {seconds:.1} s");
    assert!(
        bad.is_empty(),
        "{} rows of {}:\n{}",
        bad.len(),
        attacks + clients,
        bad.join("\n")
    );
}

/// A file of this test.
fn source(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adversary");
    dir.join(name).display().to_string()
}
