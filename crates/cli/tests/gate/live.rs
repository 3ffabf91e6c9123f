//! The policy changes while traffic flows.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tollgate_lab::names::Family;

use crate::bed::{API, Bed, POLICY, same, until};
use crate::download::Download;
use crate::net::{get, open};

/// A client whose connection is cut has at most its receive buffer left to read.
const CUT: Duration = Duration::from_secs(15);

#[test]
fn policy_changes_are_live() {
    Bed::new("live").run(&[
        ("replaced", |bed| new_requests_follow(bed, Bed::replace)),
        ("written in place", |bed| {
            new_requests_follow(bed, |bed, name, text| {
                std::fs::write(bed.policy_dir().join(name), text).unwrap();
            });
        }),
        ("keep-alive", an_open_connection_follows),
        (
            "downloads",
            a_forbidden_download_is_cut_an_allowed_one_goes_on,
        ),
        ("plain flow", a_plain_flow_is_cut),
        ("broken file", a_broken_file_leaves_the_policy_in_force),
        ("removed file", a_removed_policy_governs_no_more),
    ]);
}

/// Verdicts of new connections, and back again.
fn new_requests_follow(bed: &mut Bed, write: fn(&Bed, &str, &str)) {
    let (old, new) = (
        format!("http://{API}/v2/status"),
        format!("http://{API}/v1/status"),
    );
    let seen = |bed: &Bed, url: &String| bed.seen(Family::V4, &[url]).1;
    same(
        "before",
        (seen(bed, &old), seen(bed, &new)),
        ("200".into(), "403".into()),
    );
    bed.change(|bed| write(bed, "policy.yaml", &POLICY.replace("/v2/*", "/v1/*")));
    same(
        "after",
        (seen(bed, &old), seen(bed, &new)),
        ("403".into(), "200".into()),
    );
    bed.change(|bed| write(bed, "policy.yaml", POLICY));
    same(
        "back",
        (seen(bed, &old), seen(bed, &new)),
        ("200".into(), "403".into()),
    );
}

/// What was judged on an open HTTP connection stays allowed; its next request is judged anew.
fn an_open_connection_follows(bed: &mut Bed) {
    let mut tcp = open(bed, Family::V4, 80);
    same("before", get(&mut tcp, "/v2/status").unwrap(), 200);
    bed.change(|bed| {
        let more = "- http: {host: api.example.com, method: GET, path: /admin}\n        - tls:";
        bed.replace("policy.yaml", &POLICY.replace("- tls:", more));
    });
    same("allowed now", get(&mut tcp, "/admin").unwrap(), 200);
    bed.change(|bed| bed.replace("policy.yaml", POLICY));
    let denied = get(&mut tcp, "/admin");
    assert!(matches!(denied, Ok(403) | Err(_)), "{denied:?}");
}

fn a_forbidden_download_is_cut_an_allowed_one_goes_on(bed: &mut Bed) {
    const RESET: i32 = 56;
    let mut cut = Download::start(bed, "www.example.com", "4M");
    let mut kept = Download::start(bed, API, "12M");
    let begin = Instant::now();
    bed.change(|bed| bed.replace("policy.yaml", &POLICY.replace("'*.example.com'", API)));
    same("curl's exit", cut.end(CUT), Some(RESET));
    eprintln!("cut after {:.1?}", begin.elapsed());
    kept.finishes(bed);
    bed.change(|bed| bed.replace("policy.yaml", POLICY));
    let events = bed.tollgate(&["observe", "--to", "www.example.com", "-o", "json"]);
    assert!(
        events.stdout.contains("the policy changed"),
        "{}",
        events.stdout
    );
}

fn a_plain_flow_is_cut(bed: &mut Bed) {
    let _server = crate::servers::Recorder::start(bed, 9000);
    let mut tcp: TcpStream = open(bed, Family::V6, 9000);
    same("before", get(&mut tcp, "/").unwrap(), 200);
    bed.change(|bed| bed.replace("policy.yaml", &POLICY.replace("port: 9000", "port: 9001")));
    let end = tcp.read(&mut [0; 16]).unwrap_err();
    same("end", end.kind(), std::io::ErrorKind::ConnectionReset);
    bed.change(|bed| bed.replace("policy.yaml", POLICY));
}

fn a_broken_file_leaves_the_policy_in_force(bed: &mut Bed) {
    let generation = bed.generation();
    bed.replace(
        "policy.yaml",
        &POLICY.replace("action: Allow", "action: Permit"),
    );
    let status = until("the fault is seen", || {
        let status = bed.status();
        status["policy"]["stale"].is_object().then_some(status)
    });
    same("health", status["health"].as_str(), Some("degraded"));
    same("generation", bed.generation(), generation);
    let reasons = status["policy"]["stale"]["reasons"].to_string();
    // Line 10 of the file is the first `action`.
    assert!(
        reasons.contains("policy.yaml:10:") && reasons.contains("Permit"),
        "{reasons}"
    );
    let shown = bed.tollgate(&["status"]);
    same("exit", shown.status.code(), Some(1));
    assert!(shown.stdout.contains("policy.yaml:10:"), "{}", shown.stdout);
    for (path, code) in [("/v2/status", "200"), ("/admin", "403")] {
        let url = format!("http://{API}{path}");
        same(path, bed.seen(Family::V4, &[&url]), (0, code.to_owned()));
    }
    bed.replace("policy.yaml", POLICY);
    until("all is well again", || {
        (bed.status()["health"] == "ok").then_some(())
    });
    assert!(bed.tollgate(&["status"]).status.success());
}

fn a_removed_policy_governs_no_more(bed: &mut Bed) {
    let file = bed.policy_dir().join("policy.yaml");
    let url = format!("http://{API}/admin");
    bed.change(|_| std::fs::remove_file(file).unwrap());
    same(
        "without policy",
        bed.seen(Family::V4, &[&url]),
        (0, "200".into()),
    );
    bed.change(|bed| bed.replace("policy.yaml", POLICY));
    same(
        "with policy",
        bed.seen(Family::V4, &[&url]),
        (0, "403".into()),
    );
}
