//! `tollgate bench --compare` from outside: whoever is installed has a turn in the same lab, and the
//! results are one document.
//!
//! Needs root, and fails without it. HAProxy and nginx take part where `BENCH_PACKAGES` of
//! `scripts/packages.sh` are installed, Suricata where `TOLLGATE_SURICATA_ROOT` names a directory of
//! `scripts/suricata-chroot.sh`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The case that every enforcer takes.
const CASE: &str = "https-download-1";
const LAB: &str = "peers-test";

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("bench")
        .args(args)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Those that can have a turn here, in the order of reports, and Suricata's directory.
fn installed() -> (Vec<&'static str>, Option<String>) {
    let runs = |program: &str| Command::new(program).arg("-v").output().is_ok();
    let root = std::env::var("TOLLGATE_SURICATA_ROOT").ok();
    let mut peers = vec!["workaround"];
    if root.is_some() {
        peers.push("suricata");
    }
    peers.push("dropin");
    if runs("haproxy") {
        peers.push("haproxy");
    }
    if runs("nginx") && Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() {
        peers.push("nginx");
    }
    (peers, root)
}

#[test]
fn everyone_who_is_installed_has_a_turn() {
    let (peers, root) = installed();
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("ratios.svg");
    let joined = peers.join(",");
    let mut args = vec!["--compare", &joined, "--quick", "--case", CASE];
    args.extend(["-o", "json", "--name", LAB, "--plot"]);
    args.push(plot.to_str().unwrap());
    if let Some(root) = &root {
        args.extend(["--suricata-root", root]);
    }
    let output = bench(&args);
    let said = said(&output);
    assert!(output.status.success(), "{said}");

    // The whole of standard output is one document.
    let report: Value = serde_json::from_slice(&output.stdout).expect(&said);
    let results = report["cases"].as_array().unwrap();
    let names: Vec<&str> = results.iter().filter_map(|r| r["peer"].as_str()).collect();
    assert_eq!(names, [&["tollgate"][..], &peers].concat());
    for result in results {
        assert_eq!(result["name"], CASE);
        assert_eq!(result["unit"], "Gbit/s");
        assert_eq!(result["runs"], 1, "{result}");
        assert!(result["failure"].is_null(), "{result}");
        let number = |field: &str| result[field].as_f64().unwrap();
        assert!(number("without") > 0.0 && number("with") > 0.0, "{result}");
        let ratio = number("with") / number("without");
        assert!((number("ratio") - ratio).abs() < 1e-9, "{result}");
        assert_eq!(result["samples"]["with"][0], result["with"]);
    }
    assert_eq!(report["outside"], "wire");
    assert!(report["cpus"].as_u64().unwrap() > 0 && report["kernel"].is_string());
    for peer in ["suricata", "haproxy", "nginx"] {
        let versioned = report["versions"][peer].is_string();
        assert_eq!(versioned, peers.contains(&peer), "{peer}");
    }

    // A bar each.
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert_eq!(svg.matches("<rect x=").count(), results.len(), "{svg}");

    for place in ["pod", "node", "out"] {
        let left = format!("/run/netns/tg-{LAB}-{place}");
        assert!(!Path::new(&left).exists(), "{left}");
    }
    if let Some(root) = root {
        let left = Path::new(&root).join("run/tollgate-lab").join(LAB);
        assert!(!left.exists(), "{}", left.display());
    }
}

#[test]
fn wrong_use_is_said_before_anything_is_made() {
    let refused = |args: &[&str], words: &str| {
        let output = bench(args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    };
    refused(&["--compare", "envoy"], "haproxy");
    refused(&["--compare", "suricata"], "--suricata-root");
    let nowhere = ["--compare", "suricata", "--suricata-root", "/nonexistent"];
    refused(&nowhere, "scripts/suricata-chroot.sh");
    refused(
        &["--compare", "dropin", "--case", "http"],
        "http-download-1",
    );
    refused(&["--compare", "dropin", "--runs", "0"], "at least one run");
    refused(&["--plot", "x.svg"], "--compare");
}
