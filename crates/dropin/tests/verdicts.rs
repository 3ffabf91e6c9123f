//! From rule files to verdicts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use tollgate_dropin::policy::endpoint_policy;
use tollgate_dropin::rules::parse;
use tollgate_dropin::tenants::{FileRules, TenantError, Tenants, VlanRules};
use tollgate_policy::{FlowQuery, FlowVerdict, HttpFacts, L7Verdict, Side, TlsFacts};

const REJECT: &str = r#"reject ip any any -> any any (msg: "Reject by AntreaNetworkPolicy:a/b"; flow: to_server, established; sid: 1;)"#;

fn tenant(rules: &[&str]) -> VlanRules {
    VlanRules::of_tenant(&parse(rules.join("\n").as_bytes()).unwrap()).unwrap()
}

fn pass(number: usize, protocol: &str, options: &str) -> String {
    format!(
        "pass {protocol} any any -> any any (msg: \"Allow\"; {options} sid: {};)",
        number + 2
    )
}

/// `allow`, `deny` or `inspect` of a first packet.
fn first_packet(rules: &VlanRules, protocol: u8) -> &'static str {
    match endpoint_policy(7, rules).unwrap().decide(&query(protocol)) {
        FlowVerdict::Allow(_) => "allow",
        FlowVerdict::Deny(_) => "deny",
        FlowVerdict::Inspect(_) => "inspect",
    }
}

fn query(protocol: u8) -> FlowQuery {
    FlowQuery {
        side: Side::Egress,
        protocol,
        local: "10.0.0.2".parse().unwrap(),
        remote: "192.0.2.1".parse().unwrap(),
        local_port: 40_000,
        remote_port: 8080,
        icmp: None,
    }
}

fn http(rules: &VlanRules, method: &str, host: &str, uri: &str) -> bool {
    let FlowVerdict::Inspect(set) = endpoint_policy(7, rules).unwrap().decide(&query(6)) else {
        panic!("not inspected")
    };
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    let facts = HttpFacts {
        method,
        host,
        path,
        query,
        ..HttpFacts::default()
    };
    matches!(set.judge_http(&facts), L7Verdict::Allow { .. })
}

fn tls(rules: &VlanRules, sni: Option<&str>) -> bool {
    let FlowVerdict::Inspect(set) = endpoint_policy(7, rules).unwrap().decide(&query(6)) else {
        panic!("not inspected")
    };
    let facts = TlsFacts {
        sni,
        ..TlsFacts::default()
    };
    matches!(set.judge_tls(&facts), L7Verdict::Allow { .. })
}

/// Method, host, URI, and whether it may pass.
type Request = (&'static str, &'static str, &'static str, bool);

#[test]
fn http_rules_let_through_what_they_name() {
    let cases: [(&str, &[Request]); 6] = [
        ("", &[("GET", "a", "/", true), ("BREW", "", "/pot", true)]),
        (
            r#"http.uri; content:"/index.html"; startswith; endswith; http.method; content:"GET"; http.host; content:"www.google.com"; startswith; endswith;"#,
            &[
                ("GET", "www.google.com", "/index.html", true),
                ("GET", "WWW.google.com:8080", "/index.html", true),
                ("POST", "www.google.com", "/index.html", false),
                ("GET", "xwww.google.com", "/index.html", false),
                ("GET", "www.google.com", "/index.htmlx", false),
            ],
        ),
        (
            r#"http.uri; content:"/api/v2/"; startswith; http.host; content:".foo.com"; endswith;"#,
            &[
                ("PUT", "a.b.foo.com", "/api/v2/x", true),
                ("PUT", "foo.com", "/api/v2/x", false),
                ("PUT", "a.foo.com", "/x/api/v2/", false),
            ],
        ),
        (
            r#"http.host; content:".foo.";"#,
            &[("GET", "a.foo.b", "/", true), ("GET", "foo.b", "/", false)],
        ),
        (
            r#"http.uri; content:""; endswith;"#,
            &[("GET", "a", "/x", true)],
        ),
        (
            r#"http.method; content:"REPORT"; http.uri; content:"/a;b?c"; startswith;"#,
            &[
                ("REPORT", "a", "/a;b?cd", true),
                ("REPORT", "a", "/a;b", false),
            ],
        ),
    ];
    for (options, requests) in cases {
        let rules = tenant(&[REJECT, &pass(0, "http", options)]);
        for (method, host, uri, expected) in requests {
            let allowed = http(&rules, method, host, uri);
            assert_eq!(allowed, *expected, "{options}: {method} {host} {uri}");
        }
        assert!(!tls(&rules, Some("a")), "{options}");
    }
}

#[test]
fn tls_rules_and_alternatives() {
    let rules = tenant(&[
        &pass(0, "tls", r#"tls.sni; content:".alfa.test"; endswith;"#),
        &pass(
            1,
            "tls",
            r#"tls.sni; content:"b.test"; startswith; endswith;"#,
        ),
        &pass(2, "http", r#"http.uri; content:"/a"; startswith;"#),
        REJECT,
    ]);
    assert!(tls(&rules, Some("www.alfa.test")));
    assert!(tls(&rules, Some("B.test")));
    assert!(!tls(&rules, Some("c.test")));
    assert!(!tls(&rules, None));
    assert!(http(&rules, "GET", "x", "/ab"));
    assert!(!http(&rules, "GET", "x", "/b"));
}

#[test]
fn what_is_not_about_layer_7() {
    assert_eq!(first_packet(&tenant(&[]), 6), "allow");
    assert_eq!(first_packet(&tenant(&[REJECT]), 6), "deny");
    let http = pass(0, "http", "");
    assert_eq!(first_packet(&tenant(&[REJECT, &http]), 6), "inspect");
    assert_eq!(first_packet(&tenant(&[REJECT, &http]), 17), "deny");
    assert_eq!(first_packet(&tenant(&[&http]), 6), "allow");
    let udp = pass(0, "udp", "");
    assert_eq!(first_packet(&tenant(&[REJECT, &udp]), 17), "allow");
    assert_eq!(first_packet(&tenant(&[REJECT, &udp]), 6), "deny");
    assert_eq!(
        first_packet(&tenant(&[REJECT, &pass(0, "ip", "")]), 1),
        "allow"
    );
}

#[test]
fn what_cannot_be_judged_by_is_refused() {
    let unusable = [
        (r#"alert http any any -> any any (sid: 2;)"#, "alert rules"),
        (
            r#"reject http any any -> any any (sid: 2;)"#,
            "everything that no pass rule",
        ),
        (
            r#"drop ip any any -> any any (flow: to_client; sid: 2;)"#,
            "what a server sends",
        ),
        (
            r#"pass http any any -> any any (vlan.id: 3; sid: 2;)"#,
            "a tenant's rules",
        ),
    ];
    for (rule, expected) in unusable {
        let error = VlanRules::of_tenant(&parse(rule.as_bytes()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(expected), "{rule}: {error}");
    }
    let inexpressible = [
        (r#"http.uri; content:"/*"; endswith;"#, "ends with a star"),
        (
            r#"http.uri; content:"*/"; startswith;"#,
            "begins with a star",
        ),
        (r#"http.uri; content:"/a"; nocase;"#, "nocase"),
        (r#"http.uri; content:"|ff|";"#, "no text"),
        (r#"http.uri; content:"/a"; content:"b";"#, "more than one"),
    ];
    for (options, expected) in inexpressible {
        let rules = tenant(&[REJECT, &pass(0, "http", options)]);
        let error = endpoint_policy(7, &rules).unwrap_err().to_string();
        assert!(error.contains(expected), "{options}: {error}");
    }
}

#[test]
fn one_file_for_all_vlans() {
    let file = "
alert ip any any -> any any (vlan.id:1; flowbits:set,one; noalert; sid:1;)
alert ip any any -> any any (vlan.id:2; flowbits:set,two; noalert; sid:2;)
pass http any any -> any any (flowbits:isset,one; http.uri; content:\"/one\"; startswith; sid:3;)
pass tls any any -> any any (flowbits:isset,two; sid:4;)
reject ip any any -> any any (flowbits:isset,one; msg:\"first\"; sid:5;)
drop ip any any -> any any (vlan.id:2; msg:\"second\"; sid:6;)
";
    let vlans = FileRules::new(&parse(file.as_bytes()).unwrap())
        .unwrap()
        .vlans;
    assert_eq!(vlans.keys().collect::<Vec<_>>(), [&1, &2]);
    assert!(http(&vlans[&1], "GET", "a", "/one/x"));
    assert!(!http(&vlans[&1], "GET", "a", "/two"));
    assert!(!tls(&vlans[&1], Some("a")));
    assert!(tls(&vlans[&2], Some("a")));
    assert_eq!(vlans[&1].otherwise.as_ref().unwrap().msg, "first");
    assert!(!vlans[&2].otherwise.as_ref().unwrap().reject);
    let dangling = "pass tls any any -> any any (flowbits:isset,three; sid:4;)";
    let error = FileRules::new(&parse(dangling.as_bytes()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("no rule sets"), "{error}");
}

#[test]
fn tenants_come_and_go_in_any_order() {
    let a = pass(0, "http", r#"http.uri; content:"/a";"#);
    let b = pass(1, "tls", "");
    let mut tenants = Tenants::default();
    tenants.handle(5, 5).unwrap();
    assert!(tenants.vlans().is_empty());
    assert_eq!(tenants.put(5, tenant(&[REJECT, &a, &b])), Ok(true));
    assert_eq!(tenants.vlans().keys().collect::<Vec<_>>(), [&5]);
    // The same in another order, with other numbers.
    let (a2, b2) = (a.replace("sid: 2", "sid: 9"), b.replace("sid: 3", "sid: 8"));
    assert_eq!(tenants.put(5, tenant(&[&b2, &a2, REJECT])), Ok(false));
    assert_eq!(tenants.put(5, tenant(&[&b2, REJECT])), Ok(true));
    assert_eq!(tenants.handle(5, 5), Ok(()));
    assert_eq!(tenants.handle(5, 6), Err(TenantError::HandlerTaken));
    assert_eq!(tenants.vlans()[&5].0, 5);
    assert_eq!(tenants.unhandle(6, 5), Err(TenantError::NoHandler));
    assert_eq!(tenants.unhandle(5, 5), Ok(()));
    assert_eq!(tenants.remove(5), Ok(()));
    assert_eq!(tenants.remove(5), Err(TenantError::NoTenant));
}

/// A file for all VLANs that refuses in parts: what is no allowed protocol, and of those what no pass
/// rule matches.
const IN_PARTS: &str = r#"reject ip any any -> any any (msg: "Reject: belongs to no rule"; flow: to_server, established; flowbits: isnotset,antrea_l7; sid: 1;)
alert ip any any -> any any (vlan.id: 1; flowbits: set,antrea_l7_1; flowbits: set,antrea_l7; flowbits: noalert; sid: 2;)
reject ip any any -> any any (msg: "Reject by A"; flowbits: isset,antrea_l7_1; flow: to_server, established; app-layer-protocol: !http; sid: 3;)
reject ip any any -> any any (msg: "Reject by A"; flowbits: isset,antrea_l7_1; flow: to_server, established; app-layer-protocol: failed; sid: 4;)
reject ip any any -> any any (msg: "Reject by A"; flowbits: isset,antrea_l7_1; flowbits: isnotset,antrea_l7_allowed; flow: to_server, established; flow.bytes_toserver: >65536; sid: 5;)
reject ip any any -> any any (msg: "Reject by A"; flowbits: isset,antrea_l7_1; flowbits: isnotset,antrea_l7_allowed; flow: to_server, established; flow.age: >5; sid: 6;)
reject http1:request_headers any any -> any any (msg: "Reject by A"; flowbits: isset,antrea_l7_1; sid: 7;)
pass http any any -> any any (msg: "Allow http by A"; flowbits: isset,antrea_l7_1; flowbits: set,antrea_l7_allowed; http.uri; content:"/index.html"; startswith; endswith; sid: 8;)
alert ip any any -> any any (vlan.id: 2; flowbits: set,antrea_l7_2; flowbits: set,antrea_l7; flowbits: noalert; sid: 9;)
reject ip any any -> any any (msg: "Reject by B"; flowbits: isset,antrea_l7_2; flow: to_server, established; app-layer-protocol: !http; app-layer-protocol: !tls; sid: 10;)
reject ip any any -> any any (msg: "Reject by B"; flowbits: isset,antrea_l7_2; flow: to_server, established; app-layer-protocol: failed; sid: 11;)
reject tls:client_hello_done any any -> any any (msg: "Reject by B"; flowbits: isset,antrea_l7_2; sid: 14;)
pass http any any -> any any (msg: "Allow http by B"; flowbits: isset,antrea_l7_2; flowbits: set,antrea_l7_allowed; sid: 15;)
pass tls any any -> any any (msg: "Allow tls by B"; flowbits: isset,antrea_l7_2; flowbits: set,antrea_l7_allowed; tls.sni; content:"foo.bar.com"; startswith; endswith; sid: 16;)
"#;

#[test]
fn what_is_refused_in_parts_is_refused_whole() {
    let file = FileRules::new(&parse(IN_PARTS.as_bytes()).unwrap()).unwrap();
    assert!(file.refuses_others);
    let (one, two) = (&file.vlans[&1], &file.vlans[&2]);
    assert_eq!(file.vlans.len(), 2);
    assert!(http(one, "GET", "a", "/index.html"));
    assert!(!http(one, "GET", "a", "/index.htm"));
    assert!(!tls(one, Some("foo.bar.com")));
    assert!(http(two, "GET", "a", "/anything"));
    assert!(tls(two, Some("foo.bar.com")));
    assert!(!tls(two, Some("bar.com")));
    assert_eq!(one.otherwise.as_ref().unwrap().msg, "Reject by A");
    assert_eq!(two.otherwise.as_ref().unwrap().msg, "Reject by B");
    // The first line alone, as long as there is no rule.
    let first = IN_PARTS.lines().next().unwrap();
    let file = FileRules::new(&parse(first.as_bytes()).unwrap()).unwrap();
    assert!(file.refuses_others && file.vlans.is_empty());
}

#[test]
fn a_gap_between_the_parts_is_found() {
    let without = |sid: u32| {
        let needle = format!("sid: {sid};)");
        let lines = IN_PARTS.lines().filter(|line| !line.ends_with(&needle));
        let text: Vec<_> = lines.collect();
        FileRules::new(&parse(text.join("\n").as_bytes()).unwrap())
    };
    for sid in [3, 7, 10, 14] {
        let error = without(sid).unwrap_err().to_string();
        assert!(error.contains("refuse"), "{sid}: {error}");
    }
    // These say what the engine's own limits do.
    for sid in [4, 5, 6, 11] {
        assert!(without(sid).is_ok(), "{sid}");
    }
    assert!(!without(1).unwrap().refuses_others);
    let twice = IN_PARTS.replace(
        "Reject by A\"; flowbits: isset,antrea_l7_1; sid: 7",
        "Other\"; flowbits: isset,antrea_l7_1; sid: 7",
    );
    let error = FileRules::new(&parse(twice.as_bytes()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}
