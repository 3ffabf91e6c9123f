//! `tollgate conformance` from outside: in its own lab, and between given namespaces, healthy ones and
//! such that are broken on purpose. Namespaces `tg-conf-*` and `tg-cfg-*`; needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::time::Duration;

use quick_junit::{Report, TestCaseStatus};
use serde_json::Value;
use tollgate_lab::lab::{self, Lab, Place, UpOptions};
use tollgate_lab::run::{Cmd, Output};

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Far more than any of these runs takes.
const LIMIT: Duration = Duration::from_secs(120);

fn conformance(args: &[&str]) -> Output {
    let cmd = Cmd::new(TOLLGATE).arg("conformance").args(args);
    cmd.timeout(LIMIT).output().unwrap()
}

fn json(output: &Output) -> Value {
    let parsed = serde_json::from_str(&output.stdout);
    parsed.unwrap_or_else(|e| panic!("{e}: {}{}", output.stdout, output.stderr))
}

/// Cases of the JSON report: engine, suite, case, verdict.
fn verdicts(report: &Value) -> Vec<[String; 4]> {
    let cases = report["cases"].as_array().unwrap().iter();
    let fields = ["engine", "suite", "case", "verdict"];
    cases
        .map(|case| fields.map(|field| case[field].as_str().unwrap().to_owned()))
        .collect()
}

/// A lab without an engine.
fn up(name: &str) -> Lab {
    let options = UpOptions {
        name: name.to_owned(),
        big_bytes: 1 << 20,
        ..UpOptions::default()
    };
    lab::up(&options).expect("a lab: these tests need root")
}

#[test]
fn in_its_own_lab_without_an_engine_and_with_tollgate_all_passes() {
    let args = [
        "--quick", "--engine", "none", "--engine", "tollgate", "--suite", "large", "--suite",
        "mtu", "--suite", "quic", "--suite", "checksum", "-o", "json",
    ];
    let output = conformance(&args);
    let report = json(&output);
    let verdicts = verdicts(&report);
    for [engine, suite, case, verdict] in &verdicts {
        assert_eq!(verdict, "passed", "{engine} {suite} {case}: {report:#}");
    }
    assert!(output.status.success(), "{}", output.stderr);
    for engine in ["none", "tollgate"] {
        for suite in ["large", "mtu", "quic", "checksum"] {
            let count = verdicts.iter().filter(|v| v[0] == engine && v[1] == suite);
            assert_eq!(count.count(), 4, "{engine} {suite}");
        }
    }
    a_blind_engine_fails_as_expected();
}

/// In the same test: its lab has the same name.
fn a_blind_engine_fails_as_expected() {
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("junit.xml").display().to_string();
    let args = [
        "--engine", "blind", "--suite", "checksum", "--junit", &junit, "-o", "json",
    ];
    let output = conformance(&args);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let report = json(&output);
    for [engine, suite, case, verdict] in verdicts(&report) {
        assert_eq!(
            verdict, "fails-as-expected",
            "{engine} {suite} {case}: {report:#}"
        );
    }
    for case in report["cases"].as_array().unwrap() {
        let counters = case["counters_to"].as_object().unwrap();
        let wrong = counters.keys().any(|name| name.ends_with(":InCsumErrors"));
        assert!(wrong, "{case:#}");
    }
    let read = Report::deserialize_from_str(&std::fs::read_to_string(&junit).unwrap()).unwrap();
    assert_eq!((read.tests, read.failures, read.errors), (4, 0, 0));
    for case in &read.test_suites[0].test_cases {
        match &case.status {
            TestCaseStatus::Skipped {
                message: Some(message),
                ..
            } => {
                assert!(
                    message.as_str().starts_with("fails as expected: "),
                    "{message:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn between_given_namespaces_what_is_broken_fails_and_junit_says_so() {
    let lab = up("cfg");
    let (from, to) = (lab.netns(Place::Pod), lab.netns(Place::Out));
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("junit.xml").display().to_string();
    let base = ["--from", from, "--to", to, "--quick", "--junit", &junit];
    let read = || Report::deserialize_from_str(&std::fs::read_to_string(&junit).unwrap()).unwrap();

    let whole = conformance(&[&base[..], &["--suite", "checksum", "--suite", "bursts"]].concat());
    assert!(whole.status.success(), "{}{}", whole.stdout, whole.stderr);
    assert!(whole.stdout.contains("6 passed"), "{}", whole.stdout);
    let report = read();
    assert_eq!((report.tests, report.failures), (6, 0));

    let drop = "nft add table inet t; \
                nft add chain inet t c '{ type filter hook forward priority 0; }'; \
                nft add rule inet t c meta nfproto ipv6 meta length gt 1000 drop";
    let broken = lab.at(Place::Node, Cmd::new("sh").args(["-ec", drop]));
    broken.run().unwrap();
    let args = ["--suite", "mtu", "--suite", "checksum", "-o", "json"];
    let output = conformance(&[&base[..], &args].concat());
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    for [_, suite, case, verdict] in verdicts(&json(&output)) {
        let expected = match (suite.as_str(), case.starts_with("ipv6")) {
            ("mtu", true) => "failed",
            _ => "passed",
        };
        assert_eq!(verdict, expected, "{suite} {case}");
    }
    let report = read();
    assert_eq!((report.tests, report.failures, report.errors), (8, 2, 0));
    lab.down().unwrap();
}

#[test]
fn what_cannot_be_used_is_named() {
    let output = conformance(&["--from", "tg-no-such", "--to", "tg-no-such"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        output.stderr.contains("/run/netns/tg-no-such"),
        "{}",
        output.stderr
    );
    let output = conformance(&["--suite", "no-such"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("checksum"), "{}", output.stderr);
    let output = conformance(&["--from", "x"]);
    assert_eq!(output.status.code(), Some(2));
    let list = conformance(&["--list", "-o", "json"]);
    assert_eq!(json(&list)["suites"].as_array().unwrap().len(), 6);
}
