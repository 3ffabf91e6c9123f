//! HTTP/1 framing, read by us and by three other implementations: hyper, Python's `http.server` and
//! Node's `http`. What we accept they must read the same; what we refuse they may act on only in the
//! ways that `docs/http-differences.md` lists.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail the test"
)]

mod classics;
mod generate;
mod hyper_peer;
mod large;
mod listed;
mod ours;
mod process_peer;
mod seen;

use std::collections::{BTreeMap, BTreeSet};

use listed::Cell;
use seen::{End, Seen, disagreement};

/// So many generated streams; the named ones come on top.
const GENERATED: u64 = 10_000;
/// Fewer accepted streams than this would mean that the generator only makes rubbish.
const ACCEPTED_MIN: usize = 2_000;
/// Names of the other implementations, in the order of the table's columns.
const PEERS: [&str; 3] = ["hyper", "Python", "Node"];

/// What every peer makes of every stream, in the order of [`PEERS`].
fn peers(streams: &[&[u8]]) -> [Vec<Seen>; 3] {
    [
        streams
            .iter()
            .map(|bytes| hyper_peer::read(bytes))
            .collect(),
        process_peer::python(streams),
        process_peer::node(streams),
    ]
}

/// Named streams and generated ones.
fn streams() -> Vec<(String, Vec<u8>)> {
    let classics = classics::CLASSICS
        .iter()
        .map(|&(name, bytes)| (name.to_owned(), bytes.to_vec()));
    let generated = (0..GENERATED).map(|seed| (format!("seed {seed}"), generate::stream(seed)));
    classics.chain(large::streams()).chain(generated).collect()
}

#[test]
fn the_named_streams_are_many_and_distinct() {
    let names: BTreeSet<_> = classics::CLASSICS.iter().map(|c| c.0).collect();
    let bytes: BTreeSet<_> = classics::CLASSICS.iter().map(|c| c.1).collect();
    assert!(names.len() >= 60, "{}", names.len());
    assert_eq!(names.len(), classics::CLASSICS.len());
    assert_eq!(bytes.len(), classics::CLASSICS.len());
}

/// Also of what we refuse: the bytes before the refusal may be on their way to the server.
#[test]
fn what_is_delivered_is_read_the_same_by_all() {
    let streams = streams();
    let ours: Vec<_> = streams.iter().map(|(_, bytes)| ours::read(bytes)).collect();
    let accepted = ours.iter().filter(|o| o.refusal.is_none()).count();
    assert!(accepted >= ACCEPTED_MIN, "{accepted} accepted");
    let delivered: Vec<_> = streams
        .iter()
        .zip(&ours)
        .map(|((_, bytes), ours)| &bytes[..ours.delivered])
        .collect();

    let mut wrong = Vec::new();
    for (peer, seen) in PEERS.iter().zip(peers(&delivered)) {
        let mut whole = 0;
        for (i, theirs) in seen.iter().enumerate() {
            whole += usize::from(ours[i].refusal.is_none() && theirs.end == End::Open);
            if let Some(why) = disagreement(peer, &ours[i].seen, theirs) {
                wrong.push(format!(
                    "{peer}, {}: {why}\n  {}\n  ours   {:?}\n  theirs {theirs:?}",
                    streams[i].0,
                    delivered[i].escape_ascii(),
                    ours[i]
                ));
            }
        }
        // Against a peer that refuses everything nothing would be shown.
        assert!(whole >= ACCEPTED_MIN / 4, "{peer} read {whole} to the end");
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The table in the documentation is what happens: each reason for which a peer acts on what we
/// refused stands there with that peer, and no other does.
#[test]
fn every_difference_is_listed() {
    let streams: Vec<_> = streams()
        .into_iter()
        .map(|(name, bytes)| (ours::read(&bytes), name, bytes))
        .filter(|(ours, ..)| ours.refusal.is_some())
        .collect();
    let whole: Vec<_> = streams.iter().map(|(_, _, bytes)| &bytes[..]).collect();
    let mut acts: BTreeMap<&str, [Option<String>; 3]> = BTreeMap::new();
    for (p, seen) in peers(&whole).iter().enumerate() {
        for ((ours, name, bytes), theirs) in streams.iter().zip(seen) {
            let Some(reason) = ours.refusal else { continue };
            if theirs.goes_beyond(&ours.seen) {
                acts.entry(reason).or_default()[p]
                    .get_or_insert_with(|| format!("{name}: {}", bytes.escape_ascii()));
            }
        }
    }
    let listed = listed::table();
    let mut missing = Vec::new();
    for (reason, examples) in &acts {
        let row = listed.get(*reason).copied().unwrap_or_default();
        for ((peer, example), listed) in PEERS.iter().zip(examples).zip(row) {
            if let (Some(example), Cell::Refuses) = (example, listed) {
                missing.push(format!("{peer} acts, {reason}: {example}"));
            }
        }
    }
    assert!(missing.is_empty(), "not listed:\n{}", missing.join("\n"));
    // One peer is enough: releases of the other implementations differ in how strict they are.
    for (reason, row) in &listed {
        let expected = row.contains(&Cell::Acts);
        assert!(
            !expected || acts.contains_key(reason.as_str()),
            "{reason} is listed for nothing"
        );
    }
}
