//! Policies with `enforcement: audit` are reported and change nothing.
#![allow(clippy::unwrap_used, reason = "part of tests")]

mod common;

use common::{acnp, describe_decision, endpoint, flow, k8s, load, more_than_antrea, named};
use tollgate_policy::{Enforcement, HttpFacts, HttpUnsaid, L7Query, PolicySet, Side, Verdict};

/// Pairs of a flow and what is decided, with what the audit says behind ` | `.
fn expect(set: &PolicySet, flows: &[(&str, &str)]) {
    let endpoint = endpoint(set, "shop/web");
    for (words, expected) in flows {
        let query = flow(&endpoint, words);
        // Also compares the explanation.
        let verdict = common::verdict(&endpoint, words);
        let (decided, audit) = describe_decision(&endpoint.decide_audited(&query));
        assert_eq!(decided, verdict, "{words}");
        let audit = audit.map_or(String::new(), |audit| format!(" | {audit}"));
        assert_eq!(format!("{decided}{audit}"), *expected, "{words}");
    }
}

fn audited(spec: &str) -> String {
    more_than_antrea(&acnp(&format!("  enforcement: audit\n{spec}")))
}

#[test]
fn the_first_rule_under_audit_is_noted_and_later_ones_decide() {
    let first = audited(
        "  egress:
    - {name: ok, action: Allow, ports: [{port: 1}]}
    - {name: web, action: Allow, ports: [{port: 2}], l7Protocols: [{http: {}}]}
    - {name: udp, action: Allow, ports: [{protocol: UDP, port: 2}], l7Protocols: [{tls: {}}]}
    - {name: past, action: Pass, ports: [{port: 3}]}
    - {name: stop, action: Reject, ports: [{port: 4}]}
    - {name: all, action: Drop}",
    );
    let later = named(
        "later",
        "  priority: 6
  appliedTo: [{podSelector: {}}]
  egress:
    - {name: four, action: Drop, ports: [{port: 4}]}",
    );
    let set = load(&(first + &later));
    expect(
        &set,
        &[
            ("egress 9.9.9.9 tcp 1", "allow"),
            ("egress 9.9.9.9 tcp 2", "allow | inspect web"),
            ("egress 9.9.9.9 udp 2", "allow | inspect udp"),
            ("egress 9.9.9.9 tcp 3", "allow"),
            ("egress 9.9.9.9 tcp 4", "drop four | reject stop"),
            ("egress 9.9.9.9 tcp 5", "allow | drop all"),
        ],
    );
    let web = endpoint(&set, "shop/web");
    assert!(web.governs(Side::Egress));
    assert!(!web.governs(Side::Ingress));
}

#[test]
fn rules_behind_the_one_that_decides_are_not_noted() {
    let first = named(
        "first",
        "  priority: 1
  appliedTo: [{podSelector: {}}]
  egress:
    - {name: one, action: Allow, ports: [{port: 1}]}
    - {name: on, action: Pass, ports: [{port: 2}]}",
    );
    let base = more_than_antrea(&named(
        "base",
        "  enforcement: audit
  tier: baseline
  priority: 1
  appliedTo: [{podSelector: {}}]
  egress: [{name: base, action: Drop}]",
    ));
    let policies = first + &audited("  egress: [{name: all, action: Reject}]") + &base;
    expect(
        &load(&policies),
        &[
            ("egress 9.9.9.9 tcp 1", "allow one"),
            ("egress 9.9.9.9 tcp 2", "allow | drop base"),
            ("egress 9.9.9.9 tcp 3", "allow | reject all"),
        ],
    );
    // The baseline tier of an isolated endpoint is not asked.
    let isolated = k8s(
        "k",
        "  podSelector: {}\n  policyTypes: [Egress]\n  egress: [{}]",
    );
    expect(
        &load(&(policies + &isolated)),
        &[("egress 9.9.9.9 tcp 2", "allow egress[0]")],
    );
}

#[test]
fn explanations_and_lists_say_so() {
    let set = load(&audited(
        "  egress: [{name: all, action: Allow, l7Protocols: [{http: {path: /a}}]}]",
    ));
    let modes: Vec<_> = set
        .policies()
        .iter()
        .map(|policy| policy.enforcement)
        .collect();
    assert_eq!(modes, [Enforcement::Audit]);
    let endpoint = endpoint(&set, "shop/web");
    let query = flow(&endpoint, "egress 9.9.9.9 tcp 80");
    let explain = |path| {
        let facts = HttpFacts {
            method: "GET",
            host: "h",
            path,
            ..HttpFacts::default()
        };
        endpoint.explain(&query, Some(&L7Query::Http(facts, HttpUnsaid::default())))
    };
    let refused = explain("/b");
    assert_eq!(refused.outcome.verdict, Verdict::Allowed);
    assert_eq!(refused.outcome.rule, None);
    let audit = refused.audit.unwrap();
    assert_eq!(audit.verdict, Verdict::Denied);
    assert_eq!(audit.reason, "http-no-rule-matches");
    let step = &refused.steps[0];
    assert!(step.audit && step.matched, "{step:?}");
    assert!(step.why.contains("under audit"), "{}", step.why);
    assert_eq!(explain("/a").audit, None);
}
