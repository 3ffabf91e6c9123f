//! Every denial is seen: by `observe`, in the verdict log, in the metrics.

use serde_json::Value;
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{API, Bed, METRICS, POLICY, logged, metric, same, success, until};
use crate::net::{get, open};

#[test]
fn what_happens_is_seen() {
    Bed::new("seen").run(&[
        ("observe", observe_shows_the_denial),
        ("filters", filters_select),
        ("log", the_verdict_log_has_it),
        ("metrics", metrics_count_it),
        ("flows", flows_shows_the_flow),
        ("status", status_is_complete),
        ("logged allowance", a_logged_rule_reports_what_it_allows),
        ("policy list", policies_are_listed),
    ]);
}

/// Makes one denial of each kind and waits until they are known.
fn denials(bed: &Bed) -> Vec<Value> {
    bed.curl(Family::V4, &[&format!("http://{API}/admin?secret=1")]);
    bed.curl(Family::V4, &["https://ext.example.org/"]);
    bed.curl(Family::V6, &[&format!("http://{API}:9999/")]);
    until("three denials", || {
        let all = events(bed, &["--verdict", "denied"]);
        (all.len() >= 3).then_some(all)
    })
}

fn events(bed: &Bed, filter: &[&str]) -> Vec<Value> {
    let mut args = vec!["observe", "-o", "json"];
    args.extend(filter);
    let output = bed.tollgate(&args);
    let lines = success(&output).lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn observe_shows_the_denial(bed: &mut Bed) {
    let all = denials(bed);
    let expected = [
        ("api", "http-no-rule-matches", 80),
        ("api", "tls-sni-no-rule-matches", 443),
        ("rest", "rule", 9999),
    ];
    for (rule, reason, port) in expected {
        let found = all.iter().find(|e| e["destination"]["port"] == port);
        let event = found.unwrap_or_else(|| panic!("no event of port {port}: {all:?}"));
        let words = [
            "verdict",
            "policy",
            "rule",
            "reason",
            "endpoint",
            "direction",
        ];
        let found = words.map(|word| event[word].as_str().unwrap_or_default());
        let want = [
            "DENIED",
            "ClusterNetworkPolicy/web",
            rule,
            reason,
            "shop/web",
            "egress",
        ];
        same(&format!("event of port {port}"), found, want);
    }
    let http = all.iter().find(|e| e["l7"]["protocol"] == "http").unwrap();
    let facts = ["method", "host", "target"].map(|f| http["l7"][f].as_str().unwrap_or_default());
    same("facts", facts, ["GET", API, "/admin?…"]);
    let tls = all.iter().find(|e| e["l7"]["protocol"] == "tls").unwrap();
    same(
        "server name",
        tls["l7"]["sni"].as_str(),
        Some("ext.example.org"),
    );
    let last = bed.tollgate(&["observe", "--last", "1"]);
    let line = success(&last).trim();
    same("lines", line.lines().count(), 1);
    assert!(line.contains("DENIED") && line.contains("web"), "{line}");
}

fn filters_select(bed: &mut Bed) {
    let all = denials(bed).len();
    for (filter, expected) in [
        (&["--to", "ext.example.org"][..], 1),
        (&["--to", "9999"], 1),
        (&["--protocol", "http"], 1),
        (&["--policy", "web"], 3),
        (&["--endpoint", "shop/web"], 3),
        (&["--verdict", "allowed"], 0),
        (&["--endpoint", "shop/other"], 0),
    ] {
        let found = events(bed, filter).len();
        // Each earlier case left as many of each kind.
        same(&filter.join(" "), found, expected * all / 3);
    }
}

fn the_verdict_log_has_it(bed: &mut Bed) {
    denials(bed);
    let path = bed.run_dir().join("verdicts.jsonl");
    let found = until("the denial is in the log", || {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines
            .into_iter()
            .find(|e| e["reason"] == "tls-sni-no-rule-matches")
    });
    same(
        "policy",
        found["policy"].as_str(),
        Some("ClusterNetworkPolicy/web"),
    );
    same("node", found["node"].as_str(), Some("gate"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.lines()
            .all(|l| serde_json::from_str::<Value>(l).is_ok()),
        "{text}"
    );
    assert!(!text.contains("secret"), "query strings are not logged");
}

fn metrics_count_it(bed: &mut Bed) {
    let name = "tollgate_verdicts_total{verdict=\"DENIED\",direction=\"egress\",\
                endpoint=\"shop/web\",policy=\"ClusterNetworkPolicy/web\",\
                reason=\"http-no-rule-matches\"}";
    let before = metric(&bed.metrics(), name).unwrap_or(0);
    denials(bed);
    until("the metric grows", || {
        (metric(&bed.metrics(), name) == Some(before + 1)).then_some(())
    });
    let text = bed.metrics();
    assert!(metric(&text, "tollgate_frames_in_total").unwrap() > 0);
    assert!(
        text.contains("tollgate_kernel_packets_total{action=\"passed\""),
        "{text}"
    );
    // The counters name endpoints and policies; the pod is not to read them.
    let url = format!(
        "http://10.10.0.1:{}/metrics",
        METRICS.rsplit(':').next().unwrap()
    );
    let pod = bed.lab.at(
        Place::Pod,
        tollgate_lab::run::Cmd::new("curl").args(["-sS", "--max-time", "2", &url]),
    );
    assert!(!pod.output().unwrap().status.success());
}

fn flows_shows_the_flow(bed: &mut Bed) {
    let mut tcp = open(bed, Family::V6, 80);
    get(&mut tcp, "/v2/status").unwrap();
    let local = tcp.local_addr().unwrap().port();
    let flows = bed.json(&["flows", "--from", &local.to_string()]);
    let flow = &flows[0];
    same("flows", flows.as_array().unwrap().len(), 1);
    same(
        "destination",
        flow["destination"]["address"].as_str(),
        Some("2001:db8:2::10"),
    );
    same("state", flow["state"].as_str(), Some("inspected"));
    same("cached", flow["cached"].as_bool(), Some(true));
    same("rule", flow["rule"].as_str(), Some("api"));
    same("last", flow["l7"]["target"].as_str(), Some("/v2/status"));
    for field in ["bytesOut", "bytesIn", "packetsOut", "packetsIn"] {
        assert!(
            flow["traffic"][field].as_u64().unwrap() > 0,
            "{field}: {flow}"
        );
    }
    let table = bed.tollgate(&["flows", "--from", &local.to_string()]);
    assert!(
        success(&table).contains("[2001:db8:2::10]:80"),
        "{}",
        table.stdout
    );
}

fn status_is_complete(bed: &mut Bed) {
    let status = bed.status();
    same("health", status["health"].as_str(), Some("ok"));
    same("workers", status["datapath"]["workers"].as_u64(), Some(2));
    same(
        "adopted",
        status["datapath"]["adopted"].as_bool(),
        Some(false),
    );
    let endpoint = &status["endpoints"][0];
    same("endpoint", endpoint["name"].as_str(), Some("shop/web"));
    same("state", endpoint["state"].as_str(), Some("attached"));
    same("egress", endpoint["egress"].as_bool(), Some(true));
    same("ingress", endpoint["ingress"].as_bool(), Some(false));
    let text = bed.tollgate(&["status"]);
    assert!(success(&text).contains("OK"), "{}", text.stdout);
}

fn a_logged_rule_reports_what_it_allows(bed: &mut Bed) {
    bed.change(|bed| bed.replace("policy.yaml", &logged(POLICY)));
    bed.curl(Family::V4, &[&format!("http://{API}/v2/items")]);
    let found = until("the allowance is seen", || {
        let allowed = events(bed, &["--verdict", "allowed"]);
        allowed
            .into_iter()
            .find(|e| e["l7"]["target"] == "/v2/items")
    });
    same("rule", found["rule"].as_str(), Some("api"));
}

fn policies_are_listed(bed: &mut Bed) {
    let output = bed.tollgate(&["policy", "list"]);
    assert!(success(&output).contains("web"), "{}", output.stdout);
    assert!(bed.json(&["policy", "list"])["policies"].is_array());
}
