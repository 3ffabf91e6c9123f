//! What 10,000 rules cost on this machine, printed: `cargo run --release -p tollgate-policy --example speed`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{acnp, endpoint, flow, load};
use tollgate_policy::{FlowVerdict, HttpFacts, TlsFacts};

const RULES: usize = 10_000;

/// Shapes of 10,000 rules, and a flow that only the last rule matches.
fn shapes() -> Vec<(&'static str, String, &'static str)> {
    let rules = |rule: &dyn Fn(usize) -> String| {
        let mut text = String::from("  egress:\n");
        for number in 0..RULES {
            let _ = writeln!(text, "    - {{action: Allow, {}}}", rule(number));
        }
        acnp(&text)
    };
    let host = |n: usize| format!("{}.{}", n / 250 % 250, n % 250 + 1);
    vec![
        (
            "addresses",
            rules(&|n| format!("to: [{{ipBlock: {{cidr: 9.1.{}/32}}}}]", host(n))),
            "egress 9.1.39.250 tcp 80",
        ),
        (
            "ports",
            rules(&|n| format!("ports: [{{port: {}}}]", n + 1)),
            "egress 9.1.1.1 tcp 10000",
        ),
        (
            "nested port ranges",
            rules(&|n| format!("ports: [{{port: {}, endPort: {}}}]", 20_000 - n, 30_000 + n)),
            "egress 9.1.1.1 tcp 10001",
        ),
        (
            "networks and ports",
            rules(&|n| {
                format!(
                    "to: [{{ipBlock: {{cidr: 9.0.0.0/{}}}}}], ports: [{{port: {}}}]",
                    n % 24 + 8,
                    n + 1
                )
            }),
            "egress 9.0.0.0 tcp 10000",
        ),
        (
            "exceptions",
            rules(&|n| {
                format!(
                    "to: [{{ipBlock: {{cidr: 9.0.0.0/8, except: [9.1.{}/32]}}}}], ports: [{{port: {}}}]",
                    host(n),
                    n + 1
                )
            }),
            "egress 9.0.0.1 tcp 10000",
        ),
        (
            "l7",
            rules(&|n| {
                format!(
                    "to: [{{ipBlock: {{cidr: 9.1.{}/32}}}}], ports: [{{port: 80}}], l7Protocols: [{{http: {{host: h{n}.example.com, method: GET, path: '/api/*'}}}}]",
                    host(n)
                )
            }),
            "egress 9.1.39.250 tcp 80",
        ),
    ]
}

fn per_call(mut work: impl FnMut()) -> Duration {
    const CALLS: u32 = 200_000;
    let start = Instant::now();
    for _ in 0..CALLS {
        work();
    }
    start.elapsed() / CALLS
}

fn ten_thousand_rules() {
    for (name, policy, words) in shapes() {
        let start = Instant::now();
        let set = load(&policy);
        let compiled = start.elapsed();
        let endpoint = endpoint(&set, "shop/web");
        let query = flow(&endpoint, words);
        let naive = endpoint.decide_naive(&query);
        assert_eq!(
            common::describe(&endpoint.decide(&query)),
            common::describe(&naive)
        );
        let took = per_call(|| drop(black_box(endpoint.decide(black_box(&query)))));
        println!(
            "{name}: compiled in {compiled:?} ({} bytes), decided in {took:?}",
            policy.len()
        );
    }
}

fn ten_thousand_items() {
    type Item = fn(usize) -> String;
    let shapes: &[(&str, Item)] = &[
        ("hosts", |n| format!("{{http: {{host: h{n}.example.com}}}}")),
        ("suffixes", |n| {
            format!("{{http: {{host: '*.h{n}.example.com'}}}}")
        }),
        ("contained", |n| format!("{{http: {{host: '*.h{n}.*'}}}}")),
        ("paths", |n| format!("{{http: {{path: /api/{n}}}}}")),
        ("path prefixes", |n| {
            format!("{{http: {{path: '/api/{n}/*'}}}}")
        }),
        ("server names", |n| {
            format!("{{tls: {{sni: '*.h{n}.example.com'}}}}")
        }),
    ];
    for (name, item) in shapes {
        let items: Vec<_> = (0..RULES).map(item).collect();
        let spec = format!(
            "  egress: [{{action: Allow, l7Protocols: [{}]}}]",
            items.join(", ")
        );
        let start = Instant::now();
        let set = load(&acnp(&spec));
        let compiled = start.elapsed();
        let endpoint = endpoint(&set, "shop/web");
        let FlowVerdict::Inspect(set) = endpoint.decide(&flow(&endpoint, "egress 9.9.9.9 tcp 80"))
        else {
            panic!("{name}")
        };
        let hello = TlsFacts {
            sni: Some("a.h9999.example.com"),
            ..Default::default()
        };
        let request = |host: &'static str| HttpFacts {
            method: "GET",
            host,
            path: "/api/9999/some/where",
            query: Some("a=b"),
            path_ambiguous: false,
            ..Default::default()
        };
        let took = per_call(|| {
            black_box(set.judge_tls(black_box(&hello)));
            black_box(set.judge_http(black_box(&request("a.h9999.example.com"))));
            black_box(set.judge_http(black_box(&request("h9999.example.com:80"))));
        });
        println!("{name}: compiled in {compiled:?}, three judgements in {took:?}");
    }
}

fn main() {
    ten_thousand_rules();
    ten_thousand_items();
}
