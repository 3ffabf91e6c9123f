//! What `l7Protocols` mean: items, facts, verdict.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::{acnp, endpoint, flow, load, more_than_antrea};
use proptest::prelude::*;
use std::sync::Arc;
use tollgate_policy::{FlowVerdict, HttpFacts, L7Verdict, RuleSet, TlsFacts};

fn rule_set(items: &str) -> Arc<RuleSet> {
    rule_set_of(&policy(items))
}

/// Items of the kinds that may say more than Antrea's.
fn extended(items: &str) -> Arc<RuleSet> {
    rule_set_of(&more_than_antrea(&policy(items)))
}

fn policy(items: &str) -> String {
    acnp(&format!(
        "  egress: [{{name: r, action: Allow, l7Protocols: [{items}]}}]"
    ))
}

fn rule_set_of(policy: &str) -> Arc<RuleSet> {
    let set = load(policy);
    let endpoint = endpoint(&set, "shop/web");
    match endpoint.decide(&flow(&endpoint, "egress 9.9.9.9 tcp 80")) {
        FlowVerdict::Inspect(set) => set,
        other => panic!("{other:?}"),
    }
}

/// `METHOD host target`; a `~` in front marks an ambiguous path, `-` stands for an empty host.
/// Behind ` | ` follow header fields (`name=value`), `upgrade` and `grpc:service/method`.
fn http(set: &RuleSet, request: &str) -> String {
    let mut parts = request.split(" | ");
    let request = parts.next().unwrap();
    let (mut headers, mut grpc, mut upgrade) = (Vec::new(), None, false);
    for part in parts {
        if let Some(call) = part.strip_prefix("grpc:") {
            grpc = call.split_once('/');
        } else if part == "upgrade" {
            upgrade = true;
        } else {
            let (name, value) = part.split_once('=').unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
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
        headers: &headers,
        grpc,
        upgrade,
    };
    let verdict = set.judge_http(&facts);
    assert_eq!(verdict, set.judge_http_naive(&facts), "{request}");
    describe(verdict)
}

fn tls(set: &RuleSet, sni: Option<&str>) -> String {
    hello(set, sni.unwrap_or("-"))
}

/// `name alpn,alpn version [ech] [quic]`, as far as given; `-` stands for none.
fn hello(set: &RuleSet, words: &str) -> String {
    let mut given = words.split(' ');
    let mut word = || given.next().filter(|word| *word != "-");
    let sni = word();
    let alpn: Vec<String> = word()
        .map(|list| list.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let version = word().map(|version| match version {
        "1.2" => 0x0303,
        "1.3" => 0x0304,
        other => panic!("{other}"),
    });
    let flags: Vec<_> = given.collect();
    let facts = TlsFacts {
        sni,
        alpn: &alpn,
        version,
        ech: flags.contains(&"ech"),
        quic: flags.contains(&"quic"),
    };
    let verdict = set.judge_tls(&facts);
    assert_eq!(verdict, set.judge_tls_naive(&facts), "{words:?}");
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

const AMBIGUOUS: &str = "http-ambiguous-path";
const DENIED: &str = "http-denied-by-item";
const UPGRADE: &str = "http-upgrade-denied";

type Cases = &'static [(&'static str, &'static [(&'static str, &'static str)])];

fn expect_http(cases: Cases) {
    for (items, requests) in cases {
        let set = extended(items);
        for (request, expected) in *requests {
            assert_eq!(http(&set, request), *expected, "{items}: {request}");
        }
    }
}

#[test]
fn methods_and_path_expressions() {
    expect_http(&[
        (
            "{http: {methods: [GET, PURGE]}}",
            &[
                ("GET a /", "0"),
                ("PURGE a /", "0"),
                ("POST a /", NO),
                ("get a /", NO),
            ],
        ),
        (
            "{http: {host: a, pathRegex: '/v[0-9]+/items|/healthz'}}",
            &[
                ("GET a /v12/items", "0"),
                ("GET a /v12/items?x=/y", "0"),
                ("GET a /healthz", "0"),
                ("GET a /healthz/x", NO),
                ("GET a /x/v1/items", NO),
                ("GET a /v1/items/healthz", NO),
                ("GET b /healthz", NO),
                ("~GET a /healthz", AMBIGUOUS),
                ("~GET b /healthz", NO),
            ],
        ),
        (
            "{http: {pathRegex: '(?i)/ADMIN/.*'}}",
            &[("GET a /admin/x", "0"), ("GET a /admin", NO)],
        ),
    ]);
}

#[test]
fn header_fields_and_parameters() {
    expect_http(&[
        (
            "{http: {headers: [{name: X-Team, value: red}, {name: authorization}]}}",
            &[
                ("GET a / | x-team=red | Authorization=Bearer", "0"),
                ("GET a / | X-TEAM=red | AUTHORIZATION=", "0"),
                ("GET a / | x-team=red", NO),
                ("GET a / | x-team=Red | authorization=x", NO),
                ("GET a / | x-team=red | x-team=blue | authorization=x", NO),
                ("GET a / | x-team=red | x-team=red | authorization=x", "0"),
                ("GET a /", NO),
            ],
        ),
        (
            "{http: {headers: [{name: accept, value: '*json*'}]}}",
            &[
                ("GET a / | accept=text/json;q=1", "0"),
                ("GET a / | accept=text", NO),
            ],
        ),
        (
            "{http: {query: [{name: 'a b', value: 'x&y'}, {name: flag}]}}",
            &[
                ("GET h /?a+b=x%26y&flag", "0"),
                ("GET h /?flag=&a%20b=%78%26y", "0"),
                ("GET h /?a+b=x%26y", NO),
                ("GET h /?a+b=x&y&flag", NO),
                ("GET h /?A+b=x%26y&flag", NO),
                ("GET h /?a+b=x%26y&a%20b=z&flag", NO),
                ("GET h /?a+b=x%26y&a%20b=x%26y&flag", "0"),
                ("GET h /?a+b=x%26y&flag=%zz", NO),
                ("GET h /?a+b=x%26y&flag&%f=1", NO),
                ("GET h /", NO),
            ],
        ),
        (
            "{http: {query: [{name: id, value: '4*'}]}}",
            &[
                ("GET h /?id=42", "0"),
                ("GET h /?id=%ff", NO),
                ("GET h /?id=5", NO),
            ],
        ),
    ]);
}

#[test]
fn upgrades_and_grpc() {
    expect_http(&[
        (
            "{http: {host: a, upgrade: Deny}}, {http: {host: b, upgrade: Allow}}",
            &[
                ("GET a /", "0"),
                ("GET a / | upgrade", UPGRADE),
                ("GET b / | upgrade", "1"),
                ("GET c / | upgrade", NO),
            ],
        ),
        (
            "{grpc: {host: a, service: 'shop.*', method: Get*}}, {grpc: {service: open}}",
            &[
                ("POST a /shop.Cart/GetAll | grpc:shop.Cart/GetAll", "0"),
                ("POST a /shop.Cart/Put | grpc:shop.Cart/Put", NO),
                ("POST b /shop.Cart/GetAll | grpc:shop.Cart/GetAll", NO),
                ("POST b /open/X | grpc:open/X", "1"),
                ("POST b /open/X", NO),
                ("~POST b /open/X | grpc:open/X", AMBIGUOUS),
            ],
        ),
        (
            "{grpc: {}}",
            &[("POST a /s/m | grpc:s/m", "0"), ("POST a /s/m", NO)],
        ),
    ]);
}

#[test]
fn deny_items_come_first_and_doubt_denies() {
    expect_http(&[
        (
            "{http: {host: a}}, {action: Deny, http: {path: '/admin*'}}, {action: Allow, http: {host: b}}",
            &[
                ("GET a /", "0"),
                ("GET a /admin", DENIED),
                ("GET b /admin/x", DENIED),
                ("GET b /", "2"),
                ("~GET a /", AMBIGUOUS),
            ],
        ),
        (
            "{http: {}}, {action: Deny, http: {methods: [PUT], pathRegex: '/x|/y'}}",
            &[
                ("PUT a /x", DENIED),
                ("GET a /x", "0"),
                ("~PUT a /", AMBIGUOUS),
                ("~GET a /x", "0"),
            ],
        ),
        (
            "{http: {}}, {action: Deny, http: {headers: [{name: x-debug, value: '1'}]}}",
            &[
                ("GET a / | x-debug=1", DENIED),
                ("GET a / | x-debug=0 | x-debug=1", DENIED),
                ("GET a / | x-debug=0", "0"),
            ],
        ),
        (
            "{http: {}}, {action: Deny, http: {query: [{name: debug, value: '1'}]}}",
            &[
                ("GET a /?debug=1", DENIED),
                ("GET a /?debug=0&debug=1", DENIED),
                ("GET a /?deb%75g=%31", DENIED),
                ("GET a /?%=1", DENIED),
                ("GET a /?debug=0", "0"),
                ("GET a /?x", "0"),
            ],
        ),
        (
            "{http: {}}, {action: Deny, grpc: {service: admin}}",
            &[
                ("POST a /admin/x | grpc:admin/x", DENIED),
                ("POST a /other/x | grpc:other/x", "0"),
                ("POST a /admin/x", "0"),
            ],
        ),
    ]);
}

#[test]
fn tls_limits() {
    const NAME: &str = "tls-sni-no-rule-matches";
    const ALPN: &str = "tls-alpn-not-allowed";
    const VERSION: &str = "tls-version-too-low";
    let cases: Cases = &[
        (
            "{tls: {sni: a, alpn: [h2, h3]}}",
            &[
                ("a h2", "0"),
                ("a h3,h2", "0"),
                ("a h2,http/1.1", ALPN),
                ("a -", ALPN),
                ("b h2", NAME),
            ],
        ),
        (
            "{tls: {minVersion: '1.3', sni: a}}, {tls: {sni: 'a*'}}",
            &[("a - 1.3", "0"), ("a - 1.2", "1"), ("ab", "1")],
        ),
        (
            "{tls: {minVersion: '1.3'}}",
            &[("- - 1.3", "0"), ("a - 1.2", VERSION), ("a", VERSION)],
        ),
        (
            "{tls: {sni: a, quic: Deny}}, {tls: {sni: b, ech: Deny}}, {tls: {sni: c, quic: Allow}}",
            &[
                ("a - 1.3", "0"),
                ("a - 1.3 quic", "quic-denied"),
                ("a - 1.3 ech", "0"),
                ("b - 1.3 ech", "tls-ech-denied"),
                ("b - 1.3 quic", "1"),
                ("c - 1.3 quic ech", "2"),
            ],
        ),
        (
            "{tls: {}}, {action: Deny, tls: {sni: '*.bad', alpn: [h2]}}, {action: Deny, tls: {sni: x}}",
            &[
                ("a.bad h2", "tls-denied-by-item"),
                ("a.bad http/1.1,h2", "tls-denied-by-item"),
                ("a.bad http/1.1", "0"),
                ("X.", "tls-denied-by-item"),
                ("-", "0"),
            ],
        ),
    ];
    for (items, hellos) in cases {
        let set = extended(items);
        for (words, expected) in *hellos {
            assert_eq!(hello(&set, words), *expected, "{items}: {words}");
        }
    }
}

#[test]
fn wanted_headers_are_named_once() {
    let items = "{http: {headers: [{name: X-B}, {name: x-a}]}},
        {action: Deny, http: {headers: [{name: x-b, value: '1'}]}}";
    let set = extended(items);
    let names: Vec<&str> = set.wanted_headers().iter().map(|name| &**name).collect();
    assert_eq!(names, ["x-a", "x-b"]);
    assert!(rule_set("{http: {}}").wanted_headers().is_empty());
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
    let wants = |items| {
        let set = extended(items);
        (set.wants_http(), set.wants_tls())
    };
    assert_eq!(
        wants("{tls: {alpn: [h2]}}, {action: Deny, http: {}}"),
        (false, true)
    );
    assert_eq!(wants("{grpc: {}}, {action: Deny, tls: {}}"), (true, false));
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

/// An item of any kind, with fields that only some kinds have.
fn extended_item() -> impl Strategy<Value = String> {
    let fields = |fields: &'static str| {
        proptest::sample::subsequence(
            fields.split("; ").map(str::to_owned).collect::<Vec<_>>(),
            0..3,
        )
    };
    let http = fields(
        "host: 'a*'; methods: [GET, POST]; pathRegex: '/[ab]*'; headers: [{name: x}]; \
         headers: [{name: x, value: 'a*'}]; query: [{name: a}]; query: [{name: a, value: b}]; \
         upgrade: Deny; upgrade: Allow",
    );
    let tls =
        fields("sni: 'a*'; alpn: [h2]; alpn: [h2, h3]; minVersion: '1.3'; quic: Deny; ech: Deny");
    let grpc = fields("host: 'a*'; service: a; service: '*b'; method: 'a*'; method: b");
    let deny = proptest::bool::weighted(0.2);
    let write = |protocol: &'static str| {
        move |(fields, deny): (Vec<String>, bool)| {
            let mut seen = std::collections::HashSet::new();
            let name = |field: &String| field.split(':').next().map(str::to_owned);
            let of_allow = |field: &String| {
                ["upgrade", "minVersion", "quic", "ech"]
                    .iter()
                    .any(|name| field.starts_with(name))
            };
            let fields: Vec<_> = fields
                .into_iter()
                .filter(|field| seen.insert(name(field)) && !(deny && of_allow(field)))
                .collect();
            let action = if deny { "action: Deny, " } else { "" };
            format!("{{{action}{protocol}: {{{}}}}}", fields.join(", "))
        }
    };
    prop_oneof![
        4 => item(),
        4 => (http, deny).prop_map(write("http")),
        2 => (tls, deny).prop_map(write("tls")),
        1 => (grpc, deny).prop_map(write("grpc")),
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

    /// The same for items of which some are not in the index.
    #[test]
    fn index_agrees_with_naive_beside_other_items(
        items in proptest::collection::vec(extended_item(), 1..12),
        requests in proptest::collection::vec(
            "~?(GET|POST|PUT) ([abA.]{1,3}|-) /[ab/]{0,3}(\\?(a|b|%61|%)?(=[ab+])?(&a=b)?)?\
             ( \\| (x=[ab]|X=a|upgrade|grpc:[ab]/[ab])){0,3}", 30),
        hellos in proptest::collection::vec(
            "(-|[abA.]{1,3}) (-|h2|h2,h3|h1) (-|1\\.2|1\\.3)( ech)?( quic)?", 15),
    ) {
        let items = format!("{}, {{http: {{host: only}}}}", items.join(", "));
        let set = extended(&items);
        for request in &requests {
            http(&set, request);
        }
        for words in &hellos {
            hello(&set, words);
        }
    }
}
