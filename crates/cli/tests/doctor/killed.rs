//! A doctor that is killed while it repairs leaves a record from which everything is restored.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::bed::{Bed, Between, TOLLGATE, state};

/// Kills, spread over the time that a repair takes.
const KILLS: u32 = 16;

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

    // Undisturbed, to see how long it takes and that it changes all of that.
    let begin = Instant::now();
    let fixed = bed.examine(&["--fix", "--yes"]);
    let took = begin.elapsed();
    assert!(fixed.codes().is_empty(), "{:#}", fixed.json);
    let repaired = state(&bed);
    assert_ne!(repaired, before);
    assert!(bed.doctor(&["--undo"]).status.success());
    assert_eq!(state(&bed), before);

    let mut stopped_midway = 0;
    for kill in 0..KILLS {
        killed_after(&bed, took * kill / KILLS);
        let now = state(&bed);
        stopped_midway += u32::from(now != before && now != repaired);
        let undone = bed.doctor(&["--undo"]);
        assert!(undone.status.success(), "{undone:?}");
        assert_eq!(state(&bed), before, "killed {kill} of {KILLS}: {undone:?}");
        assert!(!bed.path("state/undo.json").exists());
    }
    eprintln!("{stopped_midway} of {KILLS} were stopped between two repairs ({took:?} each)");
}

fn killed_after(bed: &Bed, time: Duration) {
    let mut child = Command::new(TOLLGATE)
        .args(["doctor", &bed.netns("pod"), "--to", bed.to()])
        .args(["--fix", "--yes", "--config", "/nonexistent", "--state-dir"])
        .arg(bed.path("state"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(time);
    // SIGKILL; it may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}
