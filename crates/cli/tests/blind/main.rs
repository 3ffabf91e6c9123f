//! `tollgate lab run offload-blind` from outside: an engine that knows only bytes breaks transfers in
//! the ways that its documentation tells, and Tollgate in the same place does not.
//!
//! Needs root, and fails without it. Every lab goes away with its test, also when the test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod engine;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tollgate_lab::stats::median;

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// "Less than a hundredth": what is left of a transfer whose super-packets are lost.
const COLLAPSED: f64 = 0.01;
/// What must be left of the speed with Tollgate in the path.
const KEPT: f64 = 0.9;
/// Rounds of one run, and runs at most: more samples of the same, until the medians tell. Single
/// transfers vary by a factor of two on a machine that runs other tests.
const ROUNDS: usize = 3;
const RUNS: usize = 6;

/// Runs the scenario; the stages of its JSON.
fn play(lab: &str, args: &[&str]) -> Vec<Value> {
    let output = Command::new(TOLLGATE)
        .args(["lab", "run", "offload-blind", "-o", "json", "--name", lab])
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // The whole of standard output is one document.
    let report: Value = serde_json::from_slice(&output.stdout).expect(&said);
    let left: Vec<String> = ["pod", "node", "out"]
        .map(|place| format!("/run/netns/tg-{lab}-{place}"))
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    report["stages"].as_array().unwrap().clone()
}

fn stage<'a>(stages: &'a [Value], name: &str) -> &'a Value {
    let found = stages.iter().find(|stage| stage["name"] == name);
    found.unwrap_or_else(|| panic!("no stage {name}"))
}

fn count(stage: &Value, field: &str) -> u64 {
    let value = stage[field].as_u64();
    value.unwrap_or_else(|| panic!("{field} in {stage}"))
}

fn rate(stage: &Value) -> f64 {
    stage["gbit_per_s"].as_f64().unwrap()
}

fn works(stage: &Value) -> bool {
    stage["small_request_ok"].as_bool().unwrap()
}

fn samples(stages: &[Value], name: &str) -> Vec<f64> {
    let samples = stage(stages, name)["samples"].as_array().unwrap();
    samples.iter().filter_map(Value::as_f64).collect()
}

/// A stage's transfer collapses, compared with the one without an engine: by these stages, or by the
/// medians of more plays of the same.
fn collapses(name: &str, stages: &[Value]) {
    let mut free = samples(stages, "no-engine");
    let mut broken = samples(stages, name);
    for _ in 0..RUNS {
        if median(&broken).unwrap() < COLLAPSED * median(&free).unwrap() {
            return;
        }
        let rounds = ROUNDS.to_string();
        let args = ["--stage", "no-engine", "--stage", name, "--rounds", &rounds];
        let stages = play("bl-story", &args);
        free.extend(samples(&stages, "no-engine"));
        broken.extend(samples(&stages, name));
    }
    panic!("{name}: {broken:?} of {free:?}");
}

#[test]
fn each_setting_breaks_what_it_is_said_to_break() {
    let stages = play("bl-story", &["--seconds", "4"]);
    let names: Vec<&str> = stages.iter().filter_map(|s| s["name"].as_str()).collect();
    let expected = [
        "no-engine",
        "blind-defaults",
        "blind-pod-tx-off",
        "blind-gateway-tso-off",
        "blind-workaround",
        "tollgate",
    ];
    assert_eq!(names, expected);

    let free = stage(&stages, "no-engine");
    assert!(works(free) && rate(free) > 0.0, "{free}");
    assert_eq!(count(free, "emsgsize") + count(free, "checksum_errors"), 0);

    // Nothing connects: the first segment's checksum is never filled in.
    let defaults = stage(&stages, "blind-defaults");
    assert!(
        !works(defaults) && defaults["connected"] == false,
        "{defaults}"
    );
    assert_eq!(rate(defaults), 0.0, "{defaults}");
    assert!(count(defaults, "checksum_errors") > 0, "{defaults}");

    // What fits one frame passes; what the uplink merged is lost for its length.
    let pod_off = stage(&stages, "blind-pod-tx-off");
    assert!(works(pod_off), "{pod_off}");
    assert!(count(pod_off, "emsgsize") > 0, "{pod_off}");
    assert_eq!(count(pod_off, "checksum_errors"), 0, "{pod_off}");
    assert!(count(pod_off, "retransmits_outside") > 0, "{pod_off}");
    collapses("blind-pod-tx-off", &stages);

    // Of the right length now, and lost for its checksum.
    let tso_off = stage(&stages, "blind-gateway-tso-off");
    assert!(works(tso_off), "{tso_off}");
    assert_eq!(count(tso_off, "emsgsize"), 0, "{tso_off}");
    assert!(count(tso_off, "checksum_errors_pod") > 0, "{tso_off}");
    collapses("blind-gateway-tso-off", &stages);

    let workaround = stage(&stages, "blind-workaround");
    assert!(works(workaround), "{workaround}");
    let losses = count(workaround, "emsgsize") + count(workaround, "checksum_errors");
    assert_eq!(losses, 0, "{workaround}");
    assert!(rate(workaround) > 3.0 * rate(pod_off), "{workaround}");

    let tollgate = stage(&stages, "tollgate");
    assert!(works(tollgate), "{tollgate}");
    let losses = count(tollgate, "emsgsize") + count(tollgate, "checksum_errors");
    assert_eq!(losses, 0, "{tollgate}");
    assert!(rate(tollgate) > rate(workaround), "{tollgate} {workaround}");
}

/// The median of the better half: what else the machine does only ever takes speed away, from some
/// plays half of it.
fn undisturbed(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    median(&sorted[..sorted.len().div_ceil(2)]).unwrap()
}

#[test]
fn tollgate_in_the_same_place_keeps_the_speed() {
    let (mut free, mut governed) = (Vec::new(), Vec::new());
    let rounds = ROUNDS.to_string();
    let args = ["--stage", "no-engine", "--stage", "tollgate"];
    let args = [&args[..], &["--rounds", &rounds]].concat();
    for run in 0..RUNS {
        // The two alternate, so that what else the machine does hits both alike.
        let stages = play("bl-ratio", &args);
        free.extend(samples(&stages, "no-engine"));
        governed.extend(samples(&stages, "tollgate"));
        if run > 0 && undisturbed(&governed) >= KEPT * undisturbed(&free) {
            return;
        }
    }
    panic!("{governed:?} of {free:?}");
}

#[test]
fn traces_show_what_the_engine_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("traces");
    let stage_name = "blind-pod-tx-off";
    let args = ["--stage", stage_name, "--seconds", "1", "--trace"];
    let args = [&args[..], &[path.to_str().unwrap()]].concat();
    let stages = play("bl-trace", &args);
    let stage = stage(&stages, stage_name);
    assert!(count(stage, "emsgsize") > 0 && works(stage), "{stage}");
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().flatten().collect();
    assert_eq!(files.len(), 1);
    let file = path.join(format!("{stage_name}.pcapng"));
    assert!(std::fs::metadata(&file).unwrap().len() < 17 << 20);
    // Another implementation reads it, and finds tagged frames longer than the MTU.
    let read = |filter: &str| {
        let tcpdump = Command::new("tcpdump")
            .args(["-nr", file.to_str().unwrap(), filter])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&tcpdump.stderr);
        assert!(tcpdump.status.success(), "{said}");
        String::from_utf8(tcpdump.stdout).unwrap().lines().count()
    };
    assert!(read("vlan 100 and greater 1519") > 0);
    assert!(read("tcp port 80") > 0, "the pod's own interface");
    let inspect = Command::new(TOLLGATE)
        .arg("inspect")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inspect.stderr);
    assert!(inspect.status.success(), "{said}");
}

#[test]
fn wrong_use_is_said_before_anything_is_made() {
    let run = |args: &[&str]| {
        let output = Command::new(TOLLGATE)
            .args(["lab", "run", "offload-blind", "--name", "bl-usage"])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        said
    };
    assert!(run(&["--stage", "blind"]).contains("blind-workaround"));
    assert!(run(&["--engine", "suricata"]).contains("--suricata-root"));
    let nowhere = ["--engine", "suricata", "--suricata-root", "/nonexistent"];
    assert!(run(&nowhere).contains("scripts/suricata-chroot.sh"));
}
