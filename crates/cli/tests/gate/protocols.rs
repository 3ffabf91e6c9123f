//! What is not plain HTTP/1.1 or TLS: HTTP/2 in clear text, gRPC, and policies under audit.

use std::process::Child;

use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;
use tollgate_lab::run::Cmd;

use crate::bed::{API, Bed, FAMILIES, POLICY, same, success, until};
use crate::net::outside;

/// Where HTTP/2 is served.
const PORT: u16 = 8080;
/// curl's exit code, and a line an answer: status, version, connections made for it.
type Answers = (Option<i32>, Vec<String>);

/// A server of HTTP/2 in clear text in front of the lab's nginx: by prior knowledge and by upgrade.
/// Dropping it ends it.
struct Http2Server(Child);

impl Http2Server {
    fn start(bed: &Bed) -> Http2Server {
        let cmd = Cmd::new("nghttpx").args([
            // Nothing of the machine's own configuration; one process, so that none stays behind.
            "--conf=/dev/null",
            "--single-process",
            "--workers=1",
            &format!("--frontend=*,{PORT};no-tls"),
            "--backend=127.0.0.1,80",
            "--no-ocsp",
        ]);
        let log = bed.lab.names.log("nghttpx");
        let mut server = Http2Server(bed.lab.at(Place::Out, cmd).spawn(&log).unwrap());
        let look = format!("curl -s -o /dev/null http://127.0.0.1:{PORT}/v2/status; echo $?");
        until("HTTP/2 is served", || {
            let ended = server.0.try_wait().unwrap();
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "nghttpx ended: {ended:?}: {}", log());
            (bed.sh(Place::Out, &look) == "0").then_some(())
        });
        server
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn protocols() {
    Bed::new("protocols").run(&[
        ("h2c", requests_in_clear_text_http2),
        ("h2c nearby", a_server_that_speaks_first),
        ("h2c streams", streams_of_one_connection),
        ("h2c upgrade", an_upgrade_to_http2),
        ("grpc", a_grpc_call_is_told_in_its_own_words),
        ("audit", a_policy_under_audit_only_reports),
    ]);
}

/// An address at the HTTP/2 server.
fn url(path: &str) -> String {
    format!("http://{API}:{PORT}{path}")
}

/// What curl gets from several paths, in the order of their lines.
fn answers(bed: &Bed, family: Family, options: &[&str], paths: &[&str]) -> Answers {
    let mut args = vec!["-w", "%{http_code} %{http_version} %{num_connects}\n"];
    args.extend(options);
    let urls: Vec<String> = paths.iter().map(|path| url(path)).collect();
    for url in &urls {
        args.extend(["-o", "/dev/null", url]);
    }
    let output = bed.curl(family, &args);
    let mut lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    (output.status.code(), lines)
}

/// What nghttp tells of a connection with a stream for each path; it sends its requests at once with
/// the preface, and unlike some versions of curl it opens more than one stream.
fn nghttp(bed: &Bed, family: Family, options: &[&str], paths: &[&str]) -> String {
    let server = outside(family, PORT);
    let authority = format!(":authority: {API}:{PORT}");
    let urls = paths.iter().map(|path| format!("http://{server}{path}"));
    let cmd = Cmd::new("nghttp").args(["-v", "--no-dep", "-t", "20", "-H", &authority]);
    let cmd = cmd.args(options).args(urls);
    let output = bed.lab.at(Place::Pod, cmd).output().unwrap();
    output.stdout + &output.stderr
}

/// The statuses of the responses that nghttp tells of.
fn statuses(told: &str) -> Vec<&str> {
    let status = |line: &str| line.contains(":status: ");
    let lines = told.lines().filter(|line| status(line));
    lines
        .filter_map(|line| line.split(":status: ").nth(1)?.get(..3))
        .collect()
}

fn lines(expected: &[&str]) -> Answers {
    (Some(0), expected.iter().map(|&line| line.into()).collect())
}

fn requests_in_clear_text_http2(bed: &mut Bed) {
    let _server = Http2Server::start(bed);
    for family in FAMILIES {
        let allowed = answers(bed, family, &["--http2-prior-knowledge"], &["/v2/status"]);
        same("allowed", allowed, lines(&["200 2 1"]));
        let denied = nghttp(bed, family, &[], &["/admin"]);
        same("status", statuses(&denied), vec!["403"]);
        assert!(denied.contains("ClusterNetworkPolicy/web"), "{denied}");
    }
}

/// curl sends its request behind its SETTINGS, and the server's may come in between: the denial goes
/// behind them.
fn a_server_that_speaks_first(bed: &mut Bed) {
    let _server = Http2Server::start(bed);
    for family in FAMILIES {
        for _ in 0..20 {
            let denied = answers(bed, family, &["--http2-prior-knowledge"], &["/admin"]);
            same("denied", denied, lines(&["403 2 1"]));
        }
    }
    let events = bed.tollgate(&["observe", "--to", "8080", "-o", "json"]);
    let denials = success(&events).matches("\"http-no-rule-matches\"").count();
    assert!(denials >= 40, "{denials} denials: {}", events.stdout);
}

/// Requests of one connection are judged each by itself.
fn streams_of_one_connection(bed: &mut Bed) {
    let _server = Http2Server::start(bed);
    for family in FAMILIES {
        let paths = ["/v2/status?1", "/v2/status?2", "/v2/status?3"];
        let allowed = nghttp(bed, family, &[], &paths);
        same("allowed", statuses(&allowed), vec!["200"; 3]);
        let one_denied = nghttp(bed, family, &[], &["/v2/status?1", "/admin"]);
        assert!(statuses(&one_denied).len() <= 1, "{one_denied}");
    }
}

/// The request that asks for the upgrade is judged as any other.
fn an_upgrade_to_http2(bed: &mut Bed) {
    let _server = Http2Server::start(bed);
    for family in FAMILIES {
        let denied = answers(bed, family, &["--http2"], &["/admin"]);
        same("denied", denied, lines(&["403 1.1 1"]));
        let allowed = answers(bed, family, &["--http2"], &["/v2/status"]);
        same("allowed", allowed, lines(&["200 2 1"]));
        let host = format!("host: {API}");
        let upgrade = ["-u", "-H", &host];
        let allowed = nghttp(bed, family, &upgrade, &["/v2/status"]);
        same("allowed, nghttp", statuses(&allowed), vec!["200"]);
        let denied = nghttp(bed, family, &upgrade, &["/admin"]);
        assert!(denied.contains("HTTP Upgrade failed"), "{denied}");
    }
}

fn a_grpc_call_is_told_in_its_own_words(bed: &mut Bed) {
    let _server = Http2Server::start(bed);
    for family in FAMILIES {
        let options = ["-H", "content-type: application/grpc", "-d", "/dev/null"];
        let text = nghttp(bed, family, &options, &["/shop.Orders/Get"]);
        // 7 is PERMISSION_DENIED; the HTTP status of a gRPC answer is always 200.
        same("status", statuses(&text), vec!["200"]);
        assert!(text.contains("grpc-status: 7"), "{text}");
    }
}

fn a_policy_under_audit_only_reports(bed: &mut Bed) {
    let audit = POLICY
        .replace("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1")
        .replace("spec:\n", "spec:\n  enforcement: audit\n");
    bed.change(|bed| bed.replace("policy.yaml", &audit));
    for family in FAMILIES {
        let url = format!("http://{API}/admin");
        same("served", bed.seen(family, &[&url]), (0, "200".into()));
    }
    let audited = |bed: &Bed| {
        let output = bed.tollgate(&["observe", "-o", "json"]);
        let events = success(&output).lines();
        let events = events.map(|line| serde_json::from_str(line).unwrap());
        let of = |e: &serde_json::Value| e["verdict"] == "AUDITED";
        events.filter(of).collect::<Vec<_>>()
    };
    let events = until("both requests are reported", || {
        Some(audited(bed)).filter(|events| events.len() >= 2)
    });
    for event in &events {
        let words = ["policy", "rule", "reason"].map(|word| event[word].as_str());
        let expected = ["ClusterNetworkPolicy/web", "api", "http-no-rule-matches"];
        same("event", words, expected.map(Some));
        same("target", event["l7"]["target"].as_str(), Some("/admin"));
    }
    bed.change(|bed| bed.replace("policy.yaml", POLICY));
    let url = format!("http://{API}/admin");
    same("enforced", bed.seen(Family::V4, &[&url]).1, "403".into());
}
