//! Peers given by name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use std::sync::Arc;

use common::{acnp, annp, describe, endpoint, flow, load};
use tollgate_policy::EndpointPolicy;

fn named(endpoint: &EndpointPolicy, words: &str, names: &[&str]) -> String {
    let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
    let query = flow(endpoint, words);
    let decided = describe(&endpoint.decide_named(&query, &names));
    let naive = describe(&endpoint.decide_named_naive(&query, &names));
    assert_eq!(decided, naive, "{words} {names:?}");
    decided
}

fn policy() -> String {
    acnp(
        "  egress:
    - {name: bad, action: Drop, to: [{fqdn: '*.bad.example.com'}]}
    - name: good
      action: Allow
      to: [{fqdn: '*.Example.com.'}, {fqdn: example.org}, {ipBlock: {cidr: 1.2.3.4/32}}]
      ports: [{port: 443}]
    - {name: rest, action: Reject}",
    )
}

#[test]
fn a_rule_matches_by_the_names_known_for_the_address() {
    let set = load(&policy());
    let web = endpoint(&set, "shop/web");
    let to = "egress 9.9.9.9 tcp 443";
    for (words, names, expected) in [
        (to, &["www.example.com"][..], "allow good"),
        (to, &["other.net", "a.b.example.com"], "allow good"),
        (to, &["example.org"], "allow good"),
        (to, &["www.example.org"], "reject rest"),
        (to, &["example.com"], "reject rest"),
        (to, &["www.example.com", "x.bad.example.com"], "drop bad"),
        (to, &[], "reject rest"),
        ("egress 9.9.9.9 tcp 80", &["www.example.com"], "reject rest"),
        ("egress fd00::9 tcp 443", &["www.example.com"], "allow good"),
        ("egress 1.2.3.4 tcp 443", &[], "allow good"),
    ] {
        assert_eq!(named(&web, words, names), expected, "{words} {names:?}");
        if names.is_empty() {
            assert_eq!(common::verdict(&web, words), expected);
        }
    }
}

#[test]
fn an_endpoint_wants_the_names_of_its_own_rules() {
    let set = load(&policy());
    let web = endpoint(&set, "shop/web");
    assert!(web.wants_names());
    assert!(web.wants_name("www.example.com") && web.wants_name("example.org"));
    assert!(!web.wants_name("example.com") && !web.wants_name("www.example.net"));
    let other = annp(
        "one",
        "  priority: 5\n  appliedTo: [{podSelector: {matchLabels: {app: web}}}]\n  egress: \
         [{action: Allow, to: [{fqdn: a.b}]}]",
    );
    let set = load(&other);
    assert!(endpoint(&set, "shop/web").wants_names());
    let api = endpoint(&set, "shop/api");
    assert!(!api.wants_names() && !api.wants_name("a.b"));
}

#[test]
fn an_explanation_names_the_names() {
    let set = load(&policy());
    let web = endpoint(&set, "shop/web");
    let query = flow(&web, "egress 9.9.9.9 tcp 443");
    let why = |step: usize| web.explain(&query, None).steps[step].why.clone();
    assert_eq!(
        why(1),
        "9.9.9.9 is not known as *.example.com or example.org, nor is it among its other peers"
    );
    let known = web.explain_named(&query, &["www.example.com".into()], None);
    assert_eq!(known.outcome.verdict.to_string(), "ALLOWED");
}
