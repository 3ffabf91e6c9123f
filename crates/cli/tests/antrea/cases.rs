//! Antrea's own end-to-end cases for layer-7 policies, by the commands and the expectations of its
//! test suite.

use serde_json::Value;

use crate::agent::{Agent, Http, L7, LOG_DIR};
use crate::bed::{Bed, CLIENT, MTU, OUTSIDE, Place, SERVER, in_url, pod, until};
use crate::pipeline::{CLUSTER_IP, FAMILIES, Family, Match, Way};

const HOST_POLICY: &str = "AntreaNetworkPolicy:test/test-l7-http-allow-path-hostname";
const ANY_POLICY: &str = "AntreaNetworkPolicy:test/test-l7-http-allow-any-path";

/// Rules by the number of their policy's priority: lower is first.
fn priority(number: u16) -> u16 {
    14_900 - number
}

fn wget(agent: &Agent, address: &str, path: &str) -> Option<String> {
    let url = format!("http://{}:8080{path}", in_url(address));
    let output = agent.output(Place::Client, &format!("wget -q -O - {url} -T 1 -t 1"));
    output.status.success().then_some(output.stdout)
}

/// What gets through to these addresses: `/hostname`, `/clientip`, and a question of DNS, which is
/// always reset.
fn probe(agent: &Agent, addresses: [&str; 2], hostname: bool, clientip: bool) {
    for family in FAMILIES {
        let address = addresses[family.index()];
        let expected = hostname.then(|| "server".to_owned());
        assert_eq!(
            wget(agent, address, "/hostname"),
            expected,
            "{address}/hostname"
        );
        assert_eq!(
            wget(agent, address, "/clientip").is_some(),
            clientip,
            "{address}/clientip"
        );
        let line = format!("dig @{address} google.com a +tcp -p 8080");
        let said = agent.output(Place::Client, &line).stdout;
        let reset = format!("communications error to {address}#8080: connection reset");
        assert!(said.contains(&reset), "{said}");
    }
}

fn web(way: Way, number: u16) -> Match {
    let (pod_at, peer) = match way {
        Way::Ingress => (SERVER, CLIENT),
        Way::Egress => (CLIENT, SERVER),
    };
    Match {
        way,
        pod: pod_at,
        peer: Some([pod(peer, Family::V4), pod(peer, Family::V6)]),
        port: Some(8080),
        priority: priority(number),
    }
}

fn get(path: &'static str) -> L7 {
    L7::Http(Http {
        method: "GET",
        path,
        ..Http::default()
    })
}

fn pods() -> [&'static str; 2] {
    [pod(SERVER, Family::V4), pod(SERVER, Family::V6)]
}

/// Cases 3 to 5, or 6 to 8.
fn http(name: &'static str, way: Way) {
    let mut agent = Agent::started(Bed::new(name));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&web(way, 1), 1, HOST_POLICY, &[get("/host*")]);
    agent.add_l7(&web(way, 2), 2, ANY_POLICY, &[get("")]);
    probe(&agent, pods(), true, false);
    probe(&agent, CLUSTER_IP, true, false);
    agent.delete_l7(&web(way, 1), 1);
    probe(&agent, pods(), true, true);
    probe(&agent, CLUSTER_IP, true, true);
}

#[test]
fn http_ingress() {
    http("hin", Way::Ingress);
}

#[test]
fn http_egress() {
    http("hout", Way::Egress);
}

/// Cases 1 and 2: an answer that is longer than the MTU, from another node.
#[test]
fn http_large_response() {
    let mut agent = Agent::started(Bed::new("large"));
    agent.serve(Place::Out, "node", "8081");
    let rule = Match {
        way: Way::Egress,
        pod: CLIENT,
        peer: None,
        port: Some(8081),
        priority: priority(1),
    };
    let shell = Http {
        path: "/shell*",
        ..Http::default()
    };
    agent.add_l7(
        &rule,
        1,
        "AntreaNetworkPolicy:test/test-l7-http-large",
        &[L7::Http(shell)],
    );
    for family in FAMILIES {
        let address = in_url(OUTSIDE[family.index()]);
        let denied = format!("wget -q -O - http://{address}:8081/hostname -T 1 -t 1");
        assert!(!agent.output(Place::Client, &denied).status.success());
        let size = 2 * MTU;
        let large = format!(
            "curl -s -g -m 10 --data-urlencode 'cmd=head -c {size} </dev/zero | tr \"\\0\" A' \
             'http://{address}:8081/shell?cmd'"
        );
        let body = agent.run(Place::Client, &large);
        assert_eq!(body.len(), size);
        assert!(body.bytes().all(|byte| byte == b'A'));
    }
}

/// Cases 9 to 11.
#[test]
fn tls() {
    let mut agent = Agent::started(Bed::new("tls"));
    agent.serve(Place::Server, "server", "443/tls");
    let rule = |number| Match {
        way: Way::Egress,
        pod: CLIENT,
        peer: None,
        port: Some(443),
        priority: priority(number),
    };
    let policy = "AntreaNetworkPolicy:test/test-l7-tls";
    agent.add_l7(&rule(1), 1, policy, &[L7::Tls("*.alfa.test.l7.tls")]);
    agent.add_l7(&rule(2), 2, policy, &[L7::Tls("*.bravo.test.l7.tls")]);
    let reaches = |name: &str| {
        FAMILIES.map(|family| {
            let address = in_url(pod(SERVER, family));
            let line = format!(
                "curl -s -g -k -m 5 --resolve '{name}:443:{address}' https://{name} --connect-timeout 1"
            );
            agent.output(Place::Client, &line).status.success()
        })
    };
    assert_eq!(reaches("www.alfa.test.l7.tls"), [true, true]);
    assert_eq!(reaches("mail.bravo.test.l7.tls"), [false, false]);
    agent.delete_l7(&rule(1), 1);
    assert_eq!(reaches("www.alfa.test.l7.tls"), [false, false]);
    assert_eq!(reaches("mail.bravo.test.l7.tls"), [true, true]);
}

/// Case 12: events of denied and allowed requests, in the order in which they happen.
#[test]
fn logging() {
    let mut agent = Agent::started(Bed::new("log"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&web(Way::Ingress, 1), 1, HOST_POLICY, &[get("/host*")]);
    let find = format!("find {LOG_DIR} -regex '.*/eve-.*.json'");
    let found = agent.contained(&find).stdout;
    assert_eq!(found.lines().count(), 1, "{found}");
    agent.contained(&format!("truncate -s 0 {LOG_DIR}/eve-*.json"));
    // Denied first, as there.
    for address in pods() {
        assert_eq!(wget(&agent, address, "/clientip"), None);
        assert!(wget(&agent, address, "/hostname").is_some());
        let of_it = |event: &&Value| event["dest_ip"] == address;
        let events = until("both events are written", || {
            let events = agent.events();
            let has = |kind| events.iter().filter(of_it).any(|e| e["event_type"] == kind);
            (has("alert") && has("http")).then_some(events)
        });
        let mut events = events.iter().filter(of_it);
        let alert = events.find(|e| e["event_type"] == "alert").unwrap();
        let http = events.find(|e| e["event_type"] == "http");
        is_alert(alert);
        is_http(http.expect("it comes behind the alert"), address);
    }
}

fn is_alert(alert: &Value) {
    assert_eq!(alert["dest_port"], 8080, "{alert}");
    assert_eq!(alert["proto"], "TCP", "{alert}");
    assert_eq!(alert["app_proto"], "http", "{alert}");
    assert_eq!(alert["alert"]["action"], "blocked", "{alert}");
    let signature = format!("Reject by {HOST_POLICY}");
    assert_eq!(alert["alert"]["signature"], signature.as_str(), "{alert}");
    assert!(alert.get("http").is_none(), "{alert}");
    let packet = alert["packet"].as_str().unwrap();
    assert!(
        !packet.is_empty() && packet.len().is_multiple_of(4),
        "{alert}"
    );
    assert_eq!(alert["vlan"], serde_json::json!([1]), "{alert}");
    assert_eq!(alert["tenant_id"], 1, "{alert}");
    assert_eq!(alert["in_iface"], "antrea-l7-tap0", "{alert}");
}

fn is_http(http: &Value, address: &str) {
    assert_eq!(http["dest_port"], 8080, "{http}");
    assert_eq!(http["proto"], "TCP", "{http}");
    // Without the brackets of a URL.
    assert_eq!(http["http"]["hostname"], address, "{http}");
    assert_eq!(http["http"]["http_port"], 8080, "{http}");
    assert_eq!(http["http"]["url"], "/hostname", "{http}");
    for absent in ["app_proto", "packet", "alert"] {
        assert!(http.get(absent).is_none(), "{http}");
    }
}
