//! What `l7Protocols` mean: items, facts, verdict.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::{acnp, endpoint, flow, load};
use proptest::prelude::*;
use std::sync::Arc;
use tollgate_policy::{FlowVerdict, HttpFacts, L7Verdict, RuleSet, TlsFacts};

fn rule_set(items: &str) -> Arc<RuleSet> {
    let set = load(&acnp(&format!(
        "  egress: [{{name: r, action: Allow, l7Protocols: [{items}]}}]"
    )));
    let endpoint = endpoint(&set, "shop/web");
    match endpoint.decide(&flow(&endpoint, "egress 9.9.9.9 tcp 80")) {
        FlowVerdict::Inspect(set) => set,
        other => panic!("{other:?}"),
    }
}

/// `METHOD host target`; a `~` in front marks an ambiguous path, `-` stands for an empty host.
fn http(set: &RuleSet, request: &str) -> String {
    let (ambiguous, request) = request
        .strip_prefix('~')
        .map_or((false, request), |r| (true, r));
    let mut words = request.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (method, host, target) = (word(), word(), word());
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(p, q)| (p, Some(q)));
    let host = if host == "-" { "" } else { host };
    let facts = HttpFacts {
        method,
        host,
        path,
        query,
        path_ambiguous: ambiguous,
        ..Default::default()
    };
    let verdict = set.judge_http(&facts);
    assert_eq!(verdict, set.judge_http_naive(&facts), "{request}");
    describe(verdict)
}

fn tls(set: &RuleSet, sni: Option<&str>) -> String {
    let facts = TlsFacts {
        sni,
        ..Default::default()
    };
    let verdict = set.judge_tls(&facts);
    assert_eq!(verdict, set.judge_tls_naive(&facts), "{sni:?}");
    describe(verdict)
}

fn describe(verdict: L7Verdict) -> String {
    match verdict {
        L7Verdict::Allow { item } => item.to_string(),
        L7Verdict::Deny { reason } => reason.to_owned(),
    }
}

const NO: &str = "http-no-rule-matches";

#[test]
fn http_items() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        (
            "{http: {}}",
            &[
                ("GET a.example /", "0"),
                ("X - *", "0"),
                ("~GET a /%2e", "0"),
            ],
        ),
        (
            "{http: {host: Shop.Example.com}}",
            &[
                ("GET shop.example.com /", "0"),
                ("GET SHOP.EXAMPLE.COM. /", "0"),
                ("GET shop.example.com:8080 /", "0"),
                ("GET shop.example.com.:80 /", "0"),
                ("GET shop.example.com.. /", NO),
                ("GET shop.example.com.evil /", NO),
                ("GET ashop.example.com /", NO),
                ("GET shop.example.com@evil /", NO),
                ("GET shop.example.com:evil /", NO),
                ("GET - /", NO),
            ],
        ),
        (
            "{http: {host: '*.example.com'}}",
            &[
                ("GET a.example.com /", "0"),
                ("GET a.b.c.EXAMPLE.com:443 /", "0"),
                ("GET example.com /", NO),
                ("GET badexample.com /", NO),
                ("GET a.example.com.evil /", NO),
            ],
        ),
        (
            "{http: {host: '*foobar.com'}}",
            &[("GET foobar.com /", "0"), ("GET xfoobar.com /", "0")],
        ),
        (
            "{http: {host: 'api.*'}}",
            &[("GET api.x /", "0"), ("GET xapi.x /", NO)],
        ),
        (
            "{http: {host: '*.foo.*'}}",
            &[("GET a.foo.b /", "0"), ("GET foo.b /", NO)],
        ),
        (
            "{http: {host: 'a*b'}}",
            &[("GET a*b /", "0"), ("GET axb /", NO)],
        ),
        (
            "{http: {host: '[fd00::1]'}}",
            &[("GET [FD00::1]:80 /", "0"), ("GET fd00::1 /", NO)],
        ),
        (
            "{http: {host: '*'}}, {http: {host: a}}",
            &[("GET - /", "0"), ("GET a /", "0"), ("GET b /", "0")],
        ),
        (
            "{http: {method: GET}}",
            &[
                ("GET a /", "0"),
                ("get a /", NO),
                ("GETX a /", NO),
                ("G a /", NO),
            ],
        ),
        (
            "{http: {path: /api}}",
            &[
                ("GET a /api", "0"),
                ("GET a /api?x=1", "0"),
                ("GET a /api/", NO),
                ("GET a /API", NO),
                ("GET a /ap", NO),
                ("~GET a /api", "http-ambiguous-path"),
                ("~GET a /other", "http-ambiguous-path"),
            ],
        ),
        (
            "{http: {path: '/api/*'}}",
            &[
                ("GET a /api/", "0"),
                ("GET a /api/v2?x", "0"),
                ("GET a /api", NO),
                ("GET a /x?/api/", NO),
            ],
        ),
        (
            "{http: {path: '*.png'}}",
            &[
                ("GET a /x.png", "0"),
                ("GET a /x.png?v=1", "0"),
                ("GET a /x?y=.png", NO),
            ],
        ),
        (
            "{http: {path: '*/admin/*'}}",
            &[("GET a /x/admin/y", "0"), ("GET a /x?/admin/", NO)],
        ),
        (
            "{http: {path: '/a*b'}}",
            &[("GET a /a*b", "0"), ("GET a /axb", NO)],
        ),
        (
            "{http: {path: '/s?q=1'}}",
            &[
                ("GET a /s?q=1", "0"),
                ("GET a /s", NO),
                ("GET a /s?q=1&r", NO),
            ],
        ),
        (
            "{http: {path: '/s?*'}}",
            &[("GET a /s?", "0"), ("GET a /s?x", "0"), ("GET a /s", NO)],
        ),
        (r#"{http: {path: '/a";|\b'}}"#, &[(r#"GET a /a";|\b"#, "0")]),
        (
            "{http: {host: a, method: GET, path: '/x*'}}, {http: {host: b}}, {http: {path: /x}}",
            &[
                ("GET a /xy", "0"),
                ("POST a /xy", NO),
                ("GET b /y", "1"),
                ("GET b /x", "1"),
                ("GET c /x", "2"),
                ("GET a /x", "0"),
                ("POST a /x", "2"),
                ("~GET b /x", "1"),
                ("~GET c /x", "http-ambiguous-path"),
            ],
        ),
        ("{tls: {}}", &[("GET a /", NO)]),
    ];
    for (items, requests) in cases {
        let set = rule_set(items);
        for (request, expected) in *requests {
            assert_eq!(http(&set, request), *expected, "{items}: {request}");
        }
    }
}

#[test]
fn tls_items() {
    const NO: &str = "tls-sni-no-rule-matches";
    const NONE: &str = "tls-no-sni";
    type Hello = (Option<&'static str>, &'static str);
    let cases: &[(&str, &[Hello])] = &[
        ("{tls: {}}", &[(None, "0"), (Some("a"), "0")]),
        ("{tls: {sni: '*'}}", &[(None, "0"), (Some("a"), "0")]),
        (
            "{tls: {sni: '*.Example.com.'}}",
            &[
                (Some("a.example.COM"), "0"),
                (Some("a.example.com."), "0"),
                (Some("example.com"), NO),
                (Some("badexample.com"), NO),
                (None, NONE),
            ],
        ),
        (
            "{tls: {sni: a.b}}, {http: {}}, {tls: {sni: 'a.*'}}",
            &[
                (Some("a.b"), "0"),
                (Some("a.c"), "2"),
                (Some("c"), NO),
                (None, NONE),
            ],
        ),
        ("{http: {}}", &[(Some("a"), NO), (None, NONE)]),
    ];
    for (items, hellos) in cases {
        let set = rule_set(items);
        for (sni, expected) in *hellos {
            assert_eq!(tls(&set, *sni), *expected, "{items}: {sni:?}");
        }
    }
}

#[test]
fn wants_what_it_has_items_for() {
    let wants = |items| {
        let set = rule_set(items);
        (set.wants_http(), set.wants_tls())
    };
    assert_eq!(wants("{http: {}}"), (true, false));
    assert_eq!(wants("{tls: {}}"), (false, true));
    assert_eq!(wants("{tls: {}}, {http: {}}"), (true, true));
}

/// Few letters, so that patterns and texts meet.
fn pattern() -> impl Strategy<Value = String> {
    "\\*?[ab.]{1,4}\\*?"
}

fn item() -> impl Strategy<Value = String> {
    let host = proptest::option::of(pattern());
    let method = proptest::option::of("GET|POST|PUT");
    let path = proptest::option::of("/[ab?]{0,3}\\*?|\\*[ab/?]{0,3}\\*?");
    prop_oneof![
        4 => (host, method, path).prop_map(|(host, method, path)| {
            let field = |name: &str, value: Option<String>| {
                value.map(|value| format!("{name}: '{value}'"))
            };
            let fields = [field("host", host), field("method", method), field("path", path)];
            format!("{{http: {{{}}}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }),
        1 => pattern().prop_map(|sni| format!("{{tls: {{sni: '{sni}'}}}}")),
    ]
}

proptest! {
    // Each case reads some 5 kB of YAML, which takes milliseconds in a debug build.
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The comparison itself is in `http` and `tls`.
    #[test]
    fn index_agrees_with_naive(
        items in proptest::collection::vec(item(), 1..30),
        requests in proptest::collection::vec(
            "~?(GET|POST|PATCH) ([abAB.]{1,5}|-) /[ab/]{0,4}(\\?[ab]{0,2})?", 30),
        names in proptest::collection::vec(proptest::option::of("[abAB.]{0,5}"), 10),
    ) {
        let set = rule_set(&items.join(", "));
        for request in &requests {
            http(&set, request);
        }
        for name in &names {
            tls(&set, name.as_deref());
        }
    }
}
