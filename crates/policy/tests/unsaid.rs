//! Explanations of requests and ClientHellos of which not everything was said.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::{acnp, endpoint, flow, load, more_than_antrea};
use proptest::prelude::*;
use tollgate_policy::{
    EndpointPolicy, HttpFacts, HttpUnsaid, L7Query, TlsFacts, TlsUnsaid, Verdict,
};

fn rule(items: &str) -> std::sync::Arc<EndpointPolicy> {
    let rule = format!("  egress: [{{name: r, action: Allow, l7Protocols: [{items}]}}]");
    endpoint(&load(&more_than_antrea(&acnp(&rule))), "shop/web")
}

/// The item that allows it, the reason for which it is refused, or what is missing after a `?`.
fn outcome(endpoint: &EndpointPolicy, l7: Option<L7Query<'_>>) -> String {
    let query = flow(endpoint, "egress 9.9.9.9 tcp 80");
    let outcome = endpoint.explain(&query, l7.as_ref()).outcome;
    let missing: Vec<_> = outcome.missing.iter().map(ToString::to_string).collect();
    match outcome.verdict {
        Verdict::Allowed => outcome.item.unwrap().to_string(),
        Verdict::Denied => outcome.reason.to_owned(),
        Verdict::Undecided => format!("?{}", missing.join(",")),
    }
}

/// A GET of `/` with these header fields, and without those.
fn get(endpoint: &EndpointPolicy, host: &str, has: &[(&str, &str)], absent: &[&str]) -> String {
    let headers: Vec<_> = has
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let absent: Vec<_> = absent.iter().map(|name| (*name).to_owned()).collect();
    let facts = HttpFacts {
        method: "GET",
        host,
        path: "/",
        headers: &headers,
        ..HttpFacts::default()
    };
    let unsaid = HttpUnsaid {
        host: host.is_empty(),
        headers_but: Some(&absent),
    };
    outcome(endpoint, Some(L7Query::Http(facts, unsaid)))
}

#[test]
fn a_header_field_matters_if_the_verdict_depends_on_it() {
    let red = rule("{http: {host: a, headers: [{name: X-Team, value: red}]}}, {http: {host: b}}");
    assert_eq!(get(&red, "a", &[], &[]), "?header x-team");
    assert_eq!(get(&red, "a", &[("x-team", "red")], &[]), "0");
    assert_eq!(
        get(&red, "a", &[("X-TEAM", "blue")], &[]),
        "http-no-rule-matches"
    );
    assert_eq!(get(&red, "a", &[], &["X-team"]), "http-no-rule-matches");
    assert_eq!(get(&red, "b", &[], &[]), "1", "another item allows it");
    assert_eq!(get(&red, "c", &[], &[]), "http-no-rule-matches");
    assert_eq!(get(&red, "", &[], &[]), "?host,header x-team");
    assert_eq!(get(&red, "", &[], &["x-team"]), "?host");

    let deny = rule("{http: {host: a}}, {action: Deny, http: {headers: [{name: x-debug}]}}");
    assert_eq!(get(&deny, "a", &[], &[]), "?header x-debug");
    assert_eq!(get(&deny, "a", &[], &["x-debug"]), "0");
    assert_eq!(
        get(&deny, "a", &[("x-debug", "")], &[]),
        "http-denied-by-item"
    );
    assert_eq!(
        get(&deny, "b", &[], &[]),
        "http-no-rule-matches",
        "either way"
    );
    assert_eq!(
        get(&deny, "", &[("x-debug", "")], &[]),
        "http-denied-by-item"
    );
}

#[test]
fn nothing_said_names_what_the_rule_reads() {
    assert_eq!(outcome(&rule("{http: {}}"), None), "?request");
    assert_eq!(
        outcome(&rule("{tls: {}}, {http: {}}"), None),
        "?request,hello"
    );
    assert_eq!(outcome(&rule("{tls: {}}"), None), "?hello");
}

const EVERYTHING: TlsUnsaid = TlsUnsaid {
    sni: true,
    alpn: true,
    version: true,
};

#[test]
fn a_hello_matters_in_its_parts() {
    let item = "{tls: {sni: a, alpn: [h2], minVersion: '1.3', ech: Deny}}";
    let tls = |facts: TlsFacts<'_>, unsaid| outcome(&rule(item), Some(L7Query::Tls(facts, unsaid)));
    let facts = TlsFacts::default();
    assert_eq!(tls(facts, EVERYTHING), "?sni,alpn,tls-version");
    let ech = TlsFacts { ech: true, ..facts };
    assert_eq!(tls(ech, EVERYTHING), "tls-ech-denied", "whatever the rest");
    let old = TlsFacts {
        version: Some(0x0303),
        ..facts
    };
    let but_version = TlsUnsaid {
        version: false,
        ..EVERYTHING
    };
    assert_eq!(tls(old, but_version), "tls-version-too-low");
    let other = TlsFacts {
        sni: Some("b"),
        ..facts
    };
    let but_name = TlsUnsaid {
        sni: false,
        ..EVERYTHING
    };
    assert_eq!(tls(other, but_name), "tls-sni-no-rule-matches");

    let deny = rule("{tls: {}}, {action: Deny, tls: {sni: a, alpn: [h2]}}");
    let ask = |facts, unsaid| outcome(&deny, Some(L7Query::Tls(facts, unsaid)));
    assert_eq!(ask(facts, EVERYTHING), "?sni,alpn");
    assert_eq!(ask(other, but_name), "0");
}

const NAMES: [&str; 2] = ["x-a", "x-b"];
const VALUES: [&str; 2] = ["1", "2"];

fn items() -> impl Strategy<Value = String> {
    let header = (0usize..2, prop::option::of(0usize..2)).prop_map(|(name, value)| {
        let value = value.map_or(String::new(), |v| format!(", value: '{}'", VALUES[v]));
        format!("{{name: {}{value}}}", NAMES[name])
    });
    let headers = prop::collection::vec(header, 0..3);
    let item = (any::<bool>(), prop::option::of(0usize..2), headers).prop_map(|(deny, host, h)| {
        let deny = if deny { "action: Deny, " } else { "" };
        let host = host.map_or(String::new(), |h| format!("host: {}, ", ["a", "b"][h]));
        format!("{{{deny}http: {{{host}headers: [{}]}}}}", h.join(", "))
    });
    // A rule needs an item that allows.
    prop::collection::vec(item, 0..4).prop_map(|mut items| {
        items.push("{http: {host: a, headers: [{name: x-a, value: '1'}]}}".to_owned());
        items
            .join(", ")
            .replace(", headers: []", "")
            .replace("headers: []", "")
    })
}

/// Absent, or with a value that the items know, or with another.
fn field() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec!["1", "2", "other"]))
}

proptest! {
    /// What is told on half of the facts holds for every way to complete them.
    #[test]
    fn a_verdict_holds_however_the_rest_turns_out(
        items in items(),
        fields in [field(), field()],
        said in any::<[bool; 2]>(),
        host in prop::sample::select(vec!["a", "b", "c"]),
        host_said in any::<bool>(),
    ) {
        let endpoint = rule(&items);
        let pairs = || NAMES.iter().zip(fields).zip(said);
        let present = |all: bool| -> Vec<_> {
            let chosen = pairs().filter(|(_, said)| all || *said);
            chosen.filter_map(|((name, value), _)| Some((*name, value?))).collect()
        };
        let absent = |all: bool| -> Vec<_> {
            let chosen = pairs().filter(|(_, said)| all || *said);
            chosen.filter(|((_, value), _)| value.is_none()).map(|((name, _), _)| *name).collect()
        };
        let shown = if host_said { host } else { "" };
        let half = get(&endpoint, shown, &present(false), &absent(false));
        let whole = get(&endpoint, host, &present(true), &absent(true));
        prop_assert!(!whole.starts_with('?'), "{items}: {whole}");
        let allowed = |told: &str| told.parse::<usize>().is_ok();
        if !half.starts_with('?') {
            prop_assert_eq!(allowed(&half), allowed(&whole), "{}: {} {}", items, half, whole);
        } else {
            prop_assert!(!host_said || said != [true, true], "{}: {}", items, half);
        }
    }
}
