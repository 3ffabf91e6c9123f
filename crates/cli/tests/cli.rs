//! The binary as scripts and people meet it: what it prints and how it exits.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::path::Path;
use std::process::{Command, Output};

const INVENTORY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {interface: veth-a, addresses: [10.0.0.2, 'fd00::2']}
";

const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  tier: application
  appliedTo:
    - podSelector: {matchLabels: {app: web}}
  egress:
    - name: read
      action: Allow
      to: [{ipBlock: {cidr: 203.0.113.0/24}}]
      l7Protocols:
        - http: {host: api.example.com, method: GET, path: /v1*}
        - tls: {sni: '*.example.com'}
    - name: rest
      action: Reject
";

fn tollgate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(args)
        .env_remove("TOLLGATE_RUN_DIR")
        .env_remove("TOLLGATE_CONFIG");
    command.output().expect("the binary starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn policy_dir(policy: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("inventory.yaml"), INVENTORY).expect("written");
    std::fs::write(dir.path().join("web.yaml"), policy).expect("written");
    dir
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("UTF-8")
}

#[test]
fn lint_is_silent_about_good_files_and_names_every_fault() {
    let good = policy_dir(POLICY);
    let output = tollgate(&["policy", "lint", path(good.path())]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "OK: 2 file(s), 1 policies, 1 endpoints\n");

    let broken = policy_dir(
        &POLICY
            .replace("action: Allow", "action: Permit")
            .replace("tls:", "ssl:"),
    );
    let output = tollgate(&["policy", "lint", path(broken.path())]);
    assert_eq!(code(&output), 1);
    let text = stdout(&output);
    let file = broken.path().join("web.yaml");
    let faults = text.lines().filter(|l| l.starts_with(path(&file))).count();
    assert!(faults >= 2, "one for each mistake: {text}");
    assert!(
        text.ends_with(&format!("FAULTY: {faults} fault(s) in 2 file(s)\n")),
        "{text}"
    );

    let output = tollgate(&["policy", "lint", "-o", "json", path(broken.path())]);
    assert_eq!(code(&output), 1);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["ok"], false);
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(faults));
    assert!(report["faults"][0]["line"].is_u64(), "{report}");
}

#[test]
fn lint_of_nothing_is_a_mistake() {
    let empty = tempfile::tempdir().expect("a directory");
    for args in [
        vec!["policy", "lint"],
        vec!["policy", "lint", "/nonexistent.yaml"],
        vec!["policy", "lint", path(empty.path())],
    ] {
        let output = tollgate(&args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{args:?}");
    }
}

#[test]
fn explain_tells_verdict_rule_and_chain() {
    let dir = policy_dir(POLICY);
    let base = [
        "policy",
        "explain",
        "--policy-dir",
        path(dir.path()),
        "--endpoint",
        "shop/web-0",
    ];
    let cases: [(&[&str], i32, &str); 11] = [
        (
            &[
                "--to",
                "203.0.113.7:80",
                "--http",
                "GET api.example.com/v1/items",
            ],
            0,
            "ALLOWED by ClusterNetworkPolicy/web rule read",
        ),
        (
            &[
                "--to",
                "203.0.113.7:80",
                "--http",
                "POST api.example.com/v1/items",
            ],
            1,
            "DENIED by ClusterNetworkPolicy/web rule read: http-no-rule-matches",
        ),
        (
            &["--to", "203.0.113.7:443", "--sni", "www.example.com"],
            0,
            "ALLOWED by ClusterNetworkPolicy/web rule read",
        ),
        (
            &["--to", "203.0.113.7:443", "--sni", "example.org"],
            1,
            "DENIED by",
        ),
        (&["--to", "203.0.113.7:443", "--sni", ""], 1, "tls-no-sni"),
        (
            &["--to", "203.0.113.7:443"],
            5,
            "UNDECIDED by ClusterNetworkPolicy/web rule read",
        ),
        (
            &["--to", "198.51.100.1:443"],
            1,
            "DENIED by ClusterNetworkPolicy/web rule rest: rule",
        ),
        (
            &["--to", "[2001:db8::1]:443"],
            1,
            "shop/web-0 (fd00::2) -> [2001:db8::1]:443 tcp, egress",
        ),
        (
            &["--to", "198.51.100.1", "--protocol", "icmp"],
            1,
            "198.51.100.1 icmp, egress",
        ),
        (
            &["--from", "10.9.9.9", "--to", "8080"],
            0,
            "ALLOWED: no-policy",
        ),
        (
            &["--to", "203.0.113.7:80", "--http", "GET a_\u{1}b/"],
            1,
            "DENIED by ClusterNetworkPolicy/web rule read: http-",
        ),
    ];
    for (args, expected, text) in cases {
        let output = tollgate(&[&base[..], args].concat());
        assert_eq!(
            code(&output),
            expected,
            "{args:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        assert!(
            stdout(&output).contains(text),
            "{args:?}: {}",
            stdout(&output)
        );
    }
    let output = tollgate(&[&base[..], &["--to", "203.0.113.7:443", "-o", "json"]].concat());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["outcome"]["verdict"], "UNDECIDED");
    assert_eq!(answer["steps"][0]["matched"], true);
}

#[test]
fn explain_says_what_is_wrong_with_the_question() {
    let dir = policy_dir(POLICY);
    let base = ["policy", "explain", "--policy-dir", path(dir.path())];
    let cases: [(&[&str], &str); 6] = [
        (
            &["--endpoint", "shop/web-1", "--to", "1.2.3.4:80"],
            "there are: shop/web-0",
        ),
        (
            &["--endpoint", "shop/web-0", "--to", "example.com:80"],
            "names are not resolved",
        ),
        (
            &["--endpoint", "shop/web-0", "--to", "1.2.3.4"],
            "the port is missing",
        ),
        (
            &[
                "--endpoint",
                "shop/web-0",
                "--to",
                "1.2.3.4:80",
                "--http",
                "api",
            ],
            "METHOD host/path",
        ),
        (
            &[
                "--endpoint",
                "shop/web-0",
                "--to",
                "1.2.3.4:80",
                "--protocol",
                "x",
            ],
            "unknown",
        ),
        (&["--endpoint", "shop/web-0"], "--to"),
    ];
    for (args, text) in cases {
        let output = tollgate(&[&base[..], args].concat());
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(text),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn without_an_agent_the_commands_say_how_to_start_one() {
    let dir = tempfile::tempdir().expect("a directory");
    for command in [
        vec!["status"],
        vec!["status", "--wait", "0"],
        vec!["observe"],
        vec!["flows", "-o", "json"],
        vec!["policy", "list"],
    ] {
        let output = tollgate(&[&command[..], &["--run-dir", path(dir.path())]].concat());
        assert_eq!(code(&output), 3, "{command:?}");
        assert_eq!(stdout(&output), "", "{command:?}");
        assert!(
            stderr(&output).contains("tollgate agent"),
            "{command:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn usage_errors_exit_with_two() {
    for args in [
        vec![],
        vec!["nonsense"],
        vec!["status", "--nonsense"],
        vec!["observe", "--verdict", "MAYBE"],
        vec!["observe", "--since", "yesterday"],
        vec!["agent", "--config", "/nonexistent"],
        vec!["agent", "--tap", "a/b"],
        vec!["lab", "up", "--pod-mtu", "100"],
        vec!["lab", "exec", "nowhere"],
        vec!["lab", "demo", "--rounds", "0"],
        vec!["lab", "traffic", "nonsense"],
        vec!["bench", "--case", "nonsense"],
        vec!["bench", "--outside", "nowhere"],
    ] {
        let output = tollgate(&args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn the_agent_refuses_a_bad_policy_before_it_touches_anything() {
    let broken = policy_dir(&POLICY.replace("action: Allow", "action: Permit"));
    let run = tempfile::tempdir().expect("a directory");
    let output = tollgate(&[
        "agent",
        "--policy-dir",
        path(broken.path()),
        "--run-dir",
        path(run.path()),
        "--metrics",
        "off",
    ]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("web.yaml:"), "{text}");
    assert!(text.contains("tollgate policy lint"), "{text}");
    assert!(!run.path().join("agent.sock").exists());
}

#[test]
fn the_configuration_in_force_can_be_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, "tap: tg7\nworkers: 3\n").expect("written");
    let output = tollgate(&[
        "agent",
        "--config",
        path(&file),
        "--workers",
        "2",
        "--check-config",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&config["tap"], &config["workers"]),
        (&"tg7".into(), &2.into())
    );

    std::fs::write(&file, "tapp: tg7\n").expect("written");
    let output = tollgate(&["agent", "--config", path(&file), "--check-config"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("agent.yaml:1:1"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_examples_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let file = examples.join("agent.yaml");
    let output = tollgate(&["agent", "--config", path(&file), "--check-config"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let output = tollgate(&["policy", "lint", path(&examples.join("policy"))]);
    assert_eq!(code(&output), 0, "{}", stdout(&output));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = policy_dir(POLICY);
    let script = format!(
        "'{}' policy lint -o json '{}' | head -c 1 >/dev/null; exit \"${{PIPESTATUS[0]}}\"",
        env!("CARGO_BIN_EXE_tollgate"),
        path(dir.path())
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("bash starts");
    assert_eq!(stderr(&output), "");
}

#[test]
fn version_and_help_are_there() {
    let output = tollgate(&["version"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).starts_with(concat!("tollgate ", env!("CARGO_PKG_VERSION"))));
    let output = tollgate(&["--help"]);
    assert_eq!(code(&output), 0);
    for command in [
        "agent", "status", "observe", "flows", "policy", "cleanup", "lab",
    ] {
        assert!(stdout(&output).contains(command), "{command}");
    }
}

#[test]
fn the_schema_of_policies_is_json() {
    let output = tollgate(&["policy", "schema"]);
    assert_eq!(code(&output), 0);
    let schema: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let kinds = schema["oneOf"].as_array().expect("kinds");
    assert!(
        kinds
            .iter()
            .any(|kind| kind["properties"]["kind"]["const"] == "ClusterNetworkPolicy")
    );
}

#[test]
fn explain_tells_what_is_under_audit() {
    let audit = POLICY
        .replace("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1")
        .replace("  priority: 5", "  priority: 5\n  enforcement: audit");
    let dir = policy_dir(&audit);
    let output = tollgate(&[
        "policy",
        "explain",
        "--policy-dir",
        path(dir.path()),
        "--endpoint",
        "shop/web-0",
        "--to",
        "198.51.100.1:80",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("~> antrea"), "{text}");
    assert!(text.contains("ALLOWED: no-policy"), "{text}");
    assert!(
        text.contains("under audit, not enforced: DENIED by ClusterNetworkPolicy/web rule rest"),
        "{text}"
    );
}

/// A rule that says all that only the extended kinds can say.
const EXTENDED: &str = "\
apiVersion: policy.tollgate.dev/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  appliedTo:
    - podSelector: {matchLabels: {app: web}}
  egress:
    - name: read
      action: Allow
      l7Protocols:
        - http: {host: a.example, headers: [{name: x-team, value: 'red*'}], upgrade: Deny}
        - http: {host: a.example, query: [{name: page, value: '1'}]}
        - grpc: {host: g.example, service: shop.*, method: Get*}
        - tls: {sni: t.example, alpn: [h2, h3], minVersion: '1.2', quic: Deny, ech: Deny}
";

#[test]
fn explain_can_be_asked_about_all_that_a_rule_can_say() {
    let dir = policy_dir(EXTENDED);
    let base = "policy explain --endpoint shop/web-0 --to 203.0.113.7:80 --policy-dir";
    let base: Vec<_> = base.split(' ').chain([path(dir.path())]).collect();
    let get = ["--http", "GET a.example/"];
    let tls = ["--sni", "t.example", "--alpn", "h2", "--tls-version", "1.3"];
    let cases: [(&[&str], &[&str], i32, &str); 24] = [
        (&get, &[], 5, "give --header 'x-team: value'"),
        (&get, &["--header", "X-Team: red1"], 0, "item 0"),
        (&get, &["-H", "X-Team: blue"], 1, "http-no-rule-matches"),
        (&get, &["-H", "X-Team:"], 1, "http-no-rule-matches"),
        (
            &get,
            &["-H", "X-Team: red", "-H", "x-team: blue"],
            1,
            "DENIED",
        ),
        (
            &get,
            &["-H", "X-Team: red", "--upgrade", "websocket"],
            1,
            "http-upgrade-denied",
        ),
        (&[], &["--http", "GET a.example/?page=1"], 0, "item 1"),
        (
            &[],
            &["--http", "GET a.example/?page=2"],
            5,
            "give --header 'x-team",
        ),
        (&[], &["--http", "GET b.example/"], 1, "DENIED"),
        (&[], &["--grpc", "g.example/shop.Cat/GetItem"], 0, "item 2"),
        (&[], &["--grpc", "g.example/shop.Cat/Put"], 1, "DENIED"),
        (
            &[],
            &["--grpc", "shop.Cat/GetItem"],
            5,
            "give the host: --grpc HOST/SERVICE/METHOD",
        ),
        (
            &[],
            &["--grpc", "shop.Cat/GetItem", "-H", "Host: g.example"],
            0,
            "item 2",
        ),
        (
            &[],
            &["--http", "POST g.example/shop.Cat/GetItem"],
            1,
            "http-no-rule-matches",
        ),
        (&tls, &[], 0, "item 3"),
        (&tls, &["--alpn", "http/1.1"], 1, "tls-alpn-not-allowed"),
        (&tls, &["--ech"], 1, "tls-ech-denied"),
        (&tls, &["--quic"], 1, "quic-denied"),
        (&tls, &["--protocol", "udp"], 1, "quic-denied"),
        (
            &[],
            &["--sni", "t.example"],
            5,
            "give --alpn PROTOCOL (for each; '' if there is none) and --tls-version VERSION",
        ),
        (
            &["--sni", "t.example", "--alpn", "h2"],
            &["--tls-version", "1.1"],
            1,
            "tls-version-too-low",
        ),
        (
            &["--alpn", "", "--tls-version", "1.3"],
            &[],
            1,
            "tls-alpn-not-allowed",
        ),
        (&["--sni", "x.example"], &[], 1, "tls-sni-no-rule-matches"),
        (
            &[],
            &[],
            5,
            "give --http 'METHOD host/path' or --grpc SERVICE/METHOD, or --sni NAME",
        ),
    ];
    for (first, rest, expected, text) in cases {
        let output = tollgate(&[&base[..], first, rest].concat());
        let shown = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(code(&output), expected, "{first:?} {rest:?}: {shown}");
        assert!(shown.contains(text), "{first:?} {rest:?}: {shown}");
    }
    let missing = |args: &[&str]| {
        let output = tollgate(&[&base[..], args, &["-o", "json"]].concat());
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["outcome"]["missing"].clone()
    };
    assert_eq!(missing(&get), serde_json::json!(["header x-team"]));
    assert_eq!(missing(&["--ech"]), serde_json::Value::Null, "decided");
    assert_eq!(missing(&[]), serde_json::json!(["request", "hello"]));
}

#[test]
fn explain_refuses_questions_that_no_flow_could_ask() {
    let dir = policy_dir(EXTENDED);
    let base = "policy explain --endpoint shop/web-0 --to 203.0.113.7:80 --policy-dir";
    let base: Vec<_> = base.split(' ').chain([path(dir.path())]).collect();
    let cases: [(&[&str], &str); 8] = [
        (
            &["--http", "GET a/", "--protocol", "udp"],
            "read on TCP alone",
        ),
        (&["--quic", "--protocol", "tcp"], "--quic is UDP"),
        (&["--header", "X-A: 1"], "--header needs a request"),
        (&["--http", "GET a/", "--header", "X-A"], "'Name: value'"),
        (&["--http", "GET a/", "--sni", "a"], "cannot be used with"),
        (&["--grpc", "GetItem"], "SERVICE/METHOD"),
        (&["--sni", "a", "--tls-version", "4"], "unknown"),
        (&["--upgrade", "websocket"], "--http"),
    ];
    for (args, text) in cases {
        let output = tollgate(&[&base[..], args].concat());
        assert_eq!(code(&output), 2, "{args:?}: {}", stdout(&output));
        assert!(
            stderr(&output).contains(text),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}
