//! A doctor that is killed while it repairs leaves a record from which everything is restored.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::bed::{Bed, Between, TOLLGATE, state};

/// Kills in each round: after so many entries of the record.
const ENTRIES: usize = 5;
/// Rounds; which step a kill meets differs from one to the next.
const ROUNDS: usize = 3;

/// A repair that takes longer stands still.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn killed_at_any_moment_it_can_be_taken_back() {
    let bed = Bed::new("killed", Between::Routed);
    // Several repairs of several kinds.
    for place in ["pod", "out"] {
        bed.sh(place, "ethtool -K eth0 tx off");
    }
    bed.sh("node", "ip link set tgp0 mtu 1400; ethtool -K up0 tx off");
    bed.sh("node", super::faults::NO_ICMP);
    let before = state(&bed);

    // Undisturbed: it changes all of that.
    let fixed = bed.examine(&["--fix", "--yes"]);
    assert!(fixed.codes().is_empty(), "{:#}", fixed.json);
    let done = fixed.json["applied"].as_array().unwrap();
    assert_eq!(done.len(), ENTRIES, "{done:#?}");
    let repaired = state(&bed);
    assert_ne!(repaired, before);
    assert!(bed.doctor(&["--undo"]).status.success());
    assert_eq!(state(&bed), before);

    let mut midway = 0;
    for kill in 0..ROUNDS * ENTRIES {
        killed_at(&bed, kill % ENTRIES + 1);
        let now = state(&bed);
        midway += usize::from(now != before && now != repaired);
        let undone = bed.doctor(&["--undo"]);
        assert!(undone.status.success(), "{undone:?}");
        assert_eq!(state(&bed), before, "kill {kill}: {undone:?}");
        assert!(!bed.path("state/undo.json").exists());
    }
    assert!(midway > 0, "no kill came between two repairs");
}

/// Kills a repair as soon as its record has so many entries.
fn killed_at(bed: &Bed, entries: usize) {
    let mut child = Command::new(TOLLGATE)
        .args(["doctor", &bed.netns("pod"), "--to", bed.to()])
        .args(["--fix", "--yes", "--config", "/nonexistent", "--state-dir"])
        .arg(bed.path("state"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let record = bed.path("state/undo.json");
    let begin = Instant::now();
    // No pause: the next change is a fraction of a millisecond away.
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&record).unwrap_or_default();
        if text.matches("\"before\"").count() >= entries {
            break;
        }
        assert!(begin.elapsed() < LONGEST, "it does not repair");
    }
    // SIGKILL; it may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}
