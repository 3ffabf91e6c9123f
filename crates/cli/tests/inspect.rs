//! `tollgate inspect` on captures of real servers and clients (`scripts/captures.sh`), compared with
//! what it printed when somebody looked at it. After a new run of that script, or a wanted change:
//! `TOLLGATE_GOLDEN=write cargo test -p tollgate --test inspect`, and look at the difference.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// Runs in the directory of the captures, so that no path of this machine is printed.
fn inspect(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("inspect").args(args).current_dir(CAPTURES);
    command.output().expect("the binary starts")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn golden(name: &str, args: &[&str]) {
    let output = inspect(args);
    assert_eq!(code(&output), Some(0), "{name}: {}", stderr(&output));
    let text = stdout(&output) + &stderr(&output);
    let path = Path::new(GOLDEN).join(format!("{name}.txt"));
    if std::env::var_os("TOLLGATE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &text).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).expect("there is an expected output");
    assert_eq!(text, expected, "{name}");
    assert_eq!(stdout(&inspect(args)), stdout(&output), "{name}: twice");
}

#[test]
fn captures_are_read_without_a_policy() {
    for name in [
        "http-keep-alive",
        "http-denied",
        "https",
        "ipv6",
        "dns",
        "refused",
        "unread",
        "cooked",
        "nanoseconds",
        "cut",
        "h2c",
        "grpc",
        "starttls",
        "ntp",
        "quic",
        "quic-v2",
    ] {
        let file = format!("{name}.pcap");
        golden(&format!("{name}-read"), &[&file]);
    }
    golden(
        "http-keep-alive-json",
        &["http-keep-alive.pcap", "-o", "json"],
    );
    golden(
        "http-queries-json",
        &["http-keep-alive.pcap", "-o", "json", "--query-strings"],
    );
    golden("unread-json", &["unread.pcap", "-o", "json"]);
    golden("dns-json", &["dns.pcap", "-o", "json"]);
    for name in ["grpc", "starttls", "quic-v2"] {
        let file = format!("{name}.pcap");
        golden(&format!("{name}-json"), &[&file, "-o", "json"]);
    }
}

#[test]
fn captures_are_judged_by_a_policy() {
    for name in [
        "http-keep-alive",
        "http-denied",
        "https",
        "ipv6",
        "dns",
        "unread",
    ] {
        let file = format!("{name}.pcap");
        golden(&format!("{name}-policy"), &[&file, "--policy", "."]);
    }
    let json = ["http-denied.pcap", "--policy", ".", "-o", "json"];
    golden("http-denied-json", &json);
}

#[test]
fn the_given_address_is_the_endpoint() {
    // The server: towards it the flow is ingress.
    golden(
        "endpoint-server-json",
        &[
            "http-keep-alive.pcap",
            "--endpoint",
            "10.77.0.1",
            "-o",
            "json",
        ],
    );
    // Of two endpoints of the policy only one.
    golden(
        "endpoint-of-policy",
        &["ipv6.pcap", "--policy", ".", "--endpoint", "fd77::2"],
    );
    let nobody = inspect(&["ipv6.pcap", "--policy", ".", "--endpoint", "10.9.9.9"]);
    assert_eq!(code(&nobody), Some(2));
    assert!(stderr(&nobody).contains("10.9.9.9"), "{}", stderr(&nobody));
}

fn written(policy_on: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("out.pcapng");
    let out = path.to_str().expect("UTF-8");
    let output = inspect(&[policy_on, "--policy", ".", "--write", out]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    (dir, path)
}

#[test]
fn what_is_written_is_what_arrives() {
    // Nothing is refused: the same packets come out, and say the same.
    let (_dir, path) = written("https.pcap");
    let again = inspect(&[path.to_str().expect("UTF-8")]);
    assert_eq!(stdout(&again), stdout(&inspect(&["https.pcap"])));

    // The refused request does not arrive; an answer is there in its place.
    let (_dir, path) = written("http-denied.pcap");
    let bytes = std::fs::read(&path).expect("written");
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    assert!(holds(b"GET /v1 "));
    assert!(!holds(b"GET /admin "));
    assert!(holds(b"HTTP/1.1 403 "));
}

#[test]
fn writing_needs_a_policy() {
    let output = inspect(&["https.pcap", "--write", "/nowhere/x"]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("--policy"));
}

#[test]
fn a_capture_is_not_written_over_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.pcap");
    std::fs::copy(Path::new(CAPTURES).join("https.pcap"), &path).expect("copied");
    let before = std::fs::read(&path).expect("there");
    let name = path.to_str().expect("UTF-8");
    let output = inspect(&[name, "--policy", ".", "--write", name]);
    assert_eq!(code(&output), Some(2));
    assert_eq!(std::fs::read(&path).expect("there"), before);
}

#[test]
fn damaged_files_show_what_came_before_and_say_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = std::fs::read(Path::new(CAPTURES).join("http-keep-alive.pcap")).expect("there");
    let path = dir.path().join("part.pcap");
    let name = path.to_str().expect("UTF-8");
    std::fs::write(&path, whole.get(..whole.len() - 1).expect("not empty")).expect("writable");
    let output = inspect(&[name]);
    assert_eq!(code(&output), Some(2));
    assert!(stdout(&output).contains("GET http://api.example.com/v1"));
    let message = stderr(&output);
    assert!(
        message.contains("part.pcap: after packet 11: the file ends in the middle of a packet"),
        "{message}"
    );

    std::fs::write(&path, b"neither").expect("writable");
    let output = inspect(&[name]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("neither a pcap nor a pcapng"));

    let output = inspect(&["no-such-file"]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("no-such-file"));
}
