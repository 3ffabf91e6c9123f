//! A small world to judge flows in, and short ways to ask.
#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

use std::net::IpAddr;
use std::sync::Arc;

use tollgate_policy::{
    Audited, CompileOptions, Decision, DenyHow, EndpointPolicy, FlowQuery, FlowVerdict, PolicySet,
    Side, SourceFile, compile,
};

/// `shop/web` 10.0.0.1 (the usual endpoint), `shop/api` 10.0.0.2, `bank/web` 10.0.1.1 are on this
/// node; `shop/db` 10.0.0.9, `bank/db` 10.0.1.9 and others elsewhere.
pub const WORLD: &str = include_str!("world.yaml");
pub const NODE: &str = "192.168.7.1";

pub fn load(policies: &str) -> PolicySet {
    let files = [
        SourceFile {
            name: "world.yaml",
            text: WORLD,
        },
        SourceFile {
            name: "policies.yaml",
            text: policies,
        },
    ];
    let options = CompileOptions {
        node_addresses: vec![address(NODE)],
    };
    compile(&files, &options).unwrap_or_else(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        panic!("{}\n{policies}", lines.join("\n"))
    })
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn endpoint(set: &PolicySet, name: &str) -> Arc<EndpointPolicy> {
    set.endpoint(name).unwrap().clone()
}

/// A flow in words: `egress 10.0.0.9 tcp 80`, `ingress 10.0.0.9 udp 53 from 4000`,
/// `egress 1.2.3.4 icmp 8/0`, `egress 1.2.3.4 proto 47`.
pub fn flow(endpoint: &EndpointPolicy, words: &str) -> FlowQuery {
    let words: Vec<_> = words.split_whitespace().collect();
    let side = if words[0] == "egress" {
        Side::Egress
    } else {
        Side::Ingress
    };
    let remote = address(words[1]);
    let same_family = |a: &&IpAddr| a.is_ipv4() == remote.is_ipv4();
    let local = *endpoint.addresses().iter().find(same_family).unwrap();
    let number = |index: usize| words.get(index).map_or(0, |word| word.parse().unwrap());
    let icmp = || {
        let (kind, code) = words.get(3)?.split_once('/')?;
        Some((kind.parse().unwrap(), code.parse().unwrap()))
    };
    let protocol = match words[2] {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        "icmp" if remote.is_ipv4() => 1,
        "icmp" => 58,
        "igmp" => 2,
        "proto" => number(3) as u8,
        other => panic!("{other}"),
    };
    let ported = matches!(protocol, 6 | 17 | 132);
    let destination = if ported { number(3) } else { 0 };
    let source = match words.get(4) {
        Some(&"from") => number(5),
        _ if ported => 40_000,
        _ => 0,
    };
    let (local_port, remote_port) = match side {
        Side::Egress => (source, destination),
        Side::Ingress => (destination, source),
    };
    let icmp = if matches!(protocol, 1 | 2 | 58) {
        icmp()
    } else {
        None
    };
    FlowQuery {
        side,
        remote,
        local,
        protocol,
        local_port,
        remote_port,
        icmp,
    }
}

/// The verdict in words: `allow`, `allow RULE`, `drop RULE`, `reject RULE`, `reject POLICY REASON`,
/// `inspect RULE`; checked to be the same by the index, by the naive evaluation and in the
/// explanation.
pub fn verdict(endpoint: &EndpointPolicy, words: &str) -> String {
    let query = flow(endpoint, words);
    let decided = describe(&endpoint.decide(&query));
    assert_eq!(decided, describe(&endpoint.decide_naive(&query)), "{words}");
    let explained = endpoint.explain(&query, None).outcome;
    let word = explained.verdict.to_string();
    let expected = match decided.split(' ').next() {
        Some("allow") => "ALLOWED",
        Some("inspect") => "UNDECIDED",
        _ => "DENIED",
    };
    assert_eq!(word, expected, "{words}");
    decided
}

pub fn describe(verdict: &FlowVerdict) -> String {
    match verdict {
        FlowVerdict::Allow(None) => "allow".to_owned(),
        FlowVerdict::Allow(Some(rule)) => format!("allow {}", rule.rule()),
        FlowVerdict::Inspect(set) => format!("inspect {}", set.rule().rule()),
        FlowVerdict::Deny(denial) => {
            let how = match denial.how {
                DenyHow::Drop => "drop",
                DenyHow::Reject => "reject",
            };
            match (&denial.rule, denial.reason) {
                (Some(rule), "rule") => format!("{how} {}", rule.rule()),
                (Some(rule), reason) => format!("{how} {} {reason}", rule.rule()),
                (None, reason) => {
                    format!("{how} {} {reason}", denial.policy.as_deref().unwrap_or("-"))
                }
            }
        }
    }
}

/// The verdict, and what policies under audit would have said.
pub fn describe_decision(decision: &Decision) -> (String, Option<String>) {
    let audit = decision.audit.as_ref().map(|audit| {
        describe(&match audit {
            Audited::Deny(denial) => FlowVerdict::Deny(denial.clone()),
            Audited::Inspect(set) => FlowVerdict::Inspect(set.clone()),
        })
    });
    (describe(&decision.verdict), audit)
}

/// Judges flows of `shop/web` under policies: pairs of flow and verdict.
pub fn expect(policies: &str, flows: &[(&str, &str)]) {
    expect_of("shop/web", policies, flows);
}

pub fn expect_of(name: &str, policies: &str, flows: &[(&str, &str)]) {
    let set = load(policies);
    let endpoint = endpoint(&set, name);
    let wrong: Vec<_> = flows
        .iter()
        .map(|(words, expected)| (words, verdict(&endpoint, words), expected))
        .filter(|(_, actual, expected)| actual != *expected)
        .map(|(words, actual, expected)| format!("{words}: {actual}, not {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{name}\n{}\n{policies}", wrong.join("\n"));
}

/// A ClusterNetworkPolicy `p` of priority 5 on all pods with these lines as `spec`.
pub fn acnp(spec: &str) -> String {
    named(
        "p",
        &format!("  priority: 5\n  appliedTo: [{{podSelector: {{}}}}]\n{spec}"),
    )
}

/// [`acnp`] as the kind that may say more than Antrea's.
pub fn extended(spec: &str) -> String {
    more_than_antrea(&acnp(spec))
}

/// The same policies as kinds of `policy.tollgate.dev`.
pub fn more_than_antrea(policies: &str) -> String {
    policies.replace("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1")
}

/// A ClusterNetworkPolicy with these lines as `spec`.
pub fn named(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

/// Antrea's NetworkPolicy in namespace `shop`.
pub fn annp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: crd.antrea.io/v1beta1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}\n"
    )
}

/// Kubernetes' NetworkPolicy in namespace `shop`.
pub fn k8s(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}\n"
    )
}
