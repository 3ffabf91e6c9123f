//! The index decides as the naive evaluation does, and no text makes the compiler panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use std::sync::Arc;

use common::{WORLD, endpoint, k8s, named};
use proptest::prelude::*;
use tollgate_policy::{CompileOptions, FlowQuery, Side, SourceFile, compile};

/// Few addresses and ports, so that rules and flows meet.
fn cidr() -> impl Strategy<Value = String> {
    let v4 = "(10\\.0\\.[01]\\.[0-9]|9\\.9\\.9\\.[0-3])/(0|8|16|24|30|31|32)";
    prop_oneof![6 => v4.boxed(), 1 => "fd00::[0-9]/(0|8|64|126|127|128)".boxed()]
}

fn block() -> impl Strategy<Value = String> {
    (cidr(), any::<bool>()).prop_map(|(cidr, except)| {
        // Only some CIDRs have the exception inside.
        let wide = cidr.ends_with("/0") || cidr.starts_with("10.0.0.") && cidr.ends_with("/24");
        match except && wide && !cidr.contains(':') {
            true => format!("{{ipBlock: {{cidr: {cidr}, except: [10.0.0.8/31]}}}}"),
            false => format!("{{ipBlock: {{cidr: '{cidr}'}}}}"),
        }
    })
}

fn antrea_peer() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => block(),
        1 => "\\{podSelector: \\{matchLabels: \\{app: (db|web|api|none)\\}\\}\\}",
        1 => Just("{namespaces: {match: Self}}".to_owned()),
        1 => Just("{namespaces: {sameLabels: [team]}}".to_owned()),
    ]
}

/// Names stand for addresses in egress rules only.
fn peer_of(side: Side) -> BoxedStrategy<String> {
    match side {
        Side::Ingress => antrea_peer().boxed(),
        Side::Egress => {
            let name = "\\{fqdn: '(a\\.b|c\\.b|\\*\\.b|\\*)'\\}";
            prop_oneof![4 => antrea_peer(), 1 => name].boxed()
        }
    }
}

fn port() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1u16..12).prop_map(|port| format!("{{port: {port}}}")),
        2 => (1u16..12, 0u16..9).prop_map(|(low, more)| {
            format!("{{port: {low}, endPort: {}}}", low + more)
        }),
        1 => (1u16..12).prop_map(|port| format!("{{protocol: UDP, port: {port}}}")),
        1 => Just("{port: sql}".to_owned()),
        1 => Just("{port: http}".to_owned()),
        1 => Just("{}".to_owned()),
    ]
}

fn antrea_port() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => port(),
        1 => (1u16..12, 1u16..3).prop_map(|(port, source)| {
            format!("{{port: {port}, sourcePort: {source}}}")
        }),
    ]
}

fn list(
    name: &'static str,
    entries: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    proptest::collection::vec(entries, 0..3).prop_map(move |entries| match entries.is_empty() {
        true => String::new(),
        false => format!(", {name}: [{}]", entries.join(", ")),
    })
}

fn antrea_rule(side: Side) -> impl Strategy<Value = String> {
    let peers = if side == Side::Egress { "to" } else { "from" };
    let icmp = proptest::option::weighted(0.2, 0u8..3);
    let action = "Allow|Drop|Reject|Pass";
    (
        action,
        list(peers, peer_of(side)),
        list("ports", antrea_port()),
        icmp,
        any::<bool>(),
    )
        .prop_map(|(action, peers, ports, icmp, l7)| {
            let icmp = icmp.map(|kind| format!(", protocols: [{{icmp: {{icmpType: {kind}}}}}]"));
            let l7 = if l7 && action == "Allow" {
                ", l7Protocols: [{tls: {}}]"
            } else {
                ""
            };
            format!(
                "{{action: {action}{peers}{ports}{}{l7}}}",
                icmp.unwrap_or_default()
            )
        })
}

fn kubernetes_rule(side: Side) -> impl Strategy<Value = String> {
    let peers = if side == Side::Egress { "to" } else { "from" };
    let peer = prop_oneof![3 => block(), 1 => Just("{podSelector: {}}".to_owned())];
    (list(peers, peer), list("ports", port())).prop_map(|(peers, ports)| {
        format!("{{{}}}", format!("{peers}{ports}").trim_start_matches(", "))
    })
}

fn rules(side: Side) -> impl Strategy<Value = (String, Vec<String>, Vec<String>, Vec<String>)> {
    use proptest::collection::vec;
    let key = if side == Side::Egress {
        "egress"
    } else {
        "ingress"
    };
    (
        Just(key.to_owned()),
        vec(antrea_rule(side), 0..12),
        vec(kubernetes_rule(side), 0..4),
        vec(antrea_rule(side), 0..4),
    )
}

fn policies() -> impl Strategy<Value = String> {
    let side = prop_oneof![Just(Side::Egress), Just(Side::Ingress)];
    (side.prop_flat_map(rules), 0u8..16).prop_map(|((key, antrea, kubernetes, baseline), kinds)| {
        let (first, second) = antrea.split_at(antrea.len() / 2);
        let audited = |mode: bool| if mode { "  enforcement: audit\n" } else { "" };
        let applied = "  priority: 7\n  appliedTo: [{podSelector: {}}]";
        let mut text = common::extended(&format!(
            "{}  {key}: [{}]",
            audited(kinds & 4 == 4),
            first.join(", ")
        ));
        text += &named("q", &format!("{applied}\n  {key}: [{}]", second.join(", ")));
        if kinds & 1 == 1 {
            let kind = if key == "egress" { "Egress" } else { "Ingress" };
            let spec = format!(
                "  podSelector: {{}}\n  policyTypes: [{kind}]\n  {key}: [{}]",
                kubernetes.join(", ")
            );
            text += &k8s("k", &spec);
        }
        if kinds & 2 == 2 {
            let baseline = baseline.join(", ").replace("action: Pass", "action: Drop");
            let base = named(
                "base",
                &format!(
                    "{}  tier: baseline\n{applied}\n  {key}: [{baseline}]",
                    audited(kinds & 8 == 8)
                ),
            );
            text += &common::more_than_antrea(&base);
        }
        text
    })
}

fn query() -> impl Strategy<Value = FlowQuery> {
    let remote = prop_oneof![
        6 => "10\\.0\\.[01]\\.[0-9]|9\\.9\\.9\\.[0-3]",
        1 => "fd00::[0-9]",
        1 => Just("192.168.7.1".to_owned()),
    ];
    let side = prop_oneof![Just(Side::Egress), Just(Side::Ingress)];
    let protocol =
        prop_oneof![5 => Just(6u8), 2 => Just(17), 2 => Just(1), 1 => Just(58), 1 => any::<u8>()];
    let port = || prop_oneof![8 => 0u16..24, 1 => Just(5432), 1 => Just(8080)];
    (
        side,
        remote,
        protocol,
        port(),
        port(),
        proptest::option::of((0u8..4, 0u8..2)),
    )
        .prop_map(
            |(side, remote, protocol, local_port, remote_port, icmp)| FlowQuery {
                side,
                remote: remote.parse().unwrap(),
                local: "10.0.0.1".parse().unwrap(),
                protocol,
                local_port,
                remote_port,
                icmp,
            },
        )
}

proptest! {
    // Each case reads some 5 kB of YAML, which takes milliseconds in a debug build.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn index_agrees_with_naive(
        policies in policies(),
        queries in proptest::collection::vec(query(), 60),
        names in proptest::collection::vec(prop_oneof!["a\\.b", "d\\.b", "e"], 0..3),
    ) {
        let names: Vec<Arc<str>> = names.into_iter().map(Into::into).collect();
        let set = common::load(&policies);
        for name in ["shop/web", "bank/web"] {
            let endpoint = endpoint(&set, name);
            for query in &queries {
                let quick = common::describe(&endpoint.decide(query));
                let naive = common::describe(&endpoint.decide_naive(query));
                prop_assert_eq!(&quick, &naive, "{:?}\n{}", query, policies);
                let quick_named = common::describe(&endpoint.decide_named(query, &names));
                let naive_named = common::describe(&endpoint.decide_named_naive(query, &names));
                prop_assert_eq!(quick_named, naive_named, "{:?} {:?}\n{}", query, names, policies);
                let audited = common::describe_decision(&endpoint.decide_audited(query));
                let by_trying = common::describe_decision(&endpoint.decide_audited_naive(query));
                prop_assert_eq!(&audited, &by_trying, "{:?}\n{}", query, policies);
                prop_assert_eq!(&audited.0, &quick, "{:?}\n{}", query, policies);
            }
        }
    }

    /// A policy under audit changes nothing, and what it is reported to say is what it says when it
    /// is enforced.
    #[test]
    fn audit_says_what_enforcement_does(
        rules in proptest::collection::vec(antrea_rule(Side::Egress), 1..6),
        later in proptest::collection::vec(antrea_rule(Side::Egress), 1..6),
        queries in proptest::collection::vec(query(), 60),
    ) {
        let later = named("q", &format!(
            "  priority: 7\n  appliedTo: [{{podSelector: {{}}}}]\n  egress: [{}]",
            later.join(", ")
        ));
        let first = |mode: &str| common::extended(&format!(
            "  enforcement: {mode}\n  egress: [{}]", rules.join(", ")
        ));
        let load = |text: String| endpoint(&common::load(&text), "shop/web");
        let without = load(later.clone());
        let audited = load(first("audit") + &later);
        let enforced = load(first("enforce") + &later);
        for query in &queries {
            let (verdict, audit) = common::describe_decision(&audited.decide_audited(query));
            prop_assert_eq!(verdict, common::describe(&without.decide(query)));
            if let Some(audit) = audit {
                prop_assert_eq!(audit, common::describe(&enforced.decide(query)));
            }
        }
    }

    #[test]
    fn mutated_texts_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..4, edit()), 1..8),
        policies in policies(),
    ) {
        let mut text: Vec<char> = format!("{WORLD}\n{policies}").chars().collect();
        for (at, cut, insert) in edits {
            let start = at.index(text.len());
            let end = (start + cut).min(text.len());
            text.splice(start..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let file = SourceFile { name: "mutated.yaml", text: &text };
        if let Err(faults) = compile(&[file], &CompileOptions::default()) {
            prop_assert!(!faults.is_empty());
            prop_assert!(faults.is_sorted());
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}|[-a-z0-9:{}\\[\\]&*!|>'\"#%@, \n\t]{0,200}") {
        let _ = compile(&[SourceFile { name: "any.yaml", text: &text }], &CompileOptions::default());
    }
}

/// What breaks YAML, or a field, most readily.
fn edit() -> impl Strategy<Value = String> {
    let pieces = [
        "",
        " ",
        "\n",
        "\n---\n",
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "'",
        "\"",
        "|",
        "#",
        "\t",
        "0",
        "99999999999999999999",
        "-1",
        "1e999",
        ".nan",
        "null",
        "~",
        "é",
        "name: x\n",
        "true",
    ];
    prop::sample::select(pieces.to_vec()).prop_map(str::to_owned)
}
