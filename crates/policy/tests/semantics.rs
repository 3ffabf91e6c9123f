//! What policies mean on L3 and L4: policy, flow, verdict.

mod common;

use common::{acnp, annp, expect, expect_of, k8s, load, named};
use tollgate_policy::{CompileOptions, Side, SourceFile, compile};

#[test]
fn without_policy_everything_is_allowed() {
    expect(
        "",
        &[
            ("egress 1.2.3.4 tcp 80", "allow"),
            ("ingress 1.2.3.4 udp 53", "allow"),
        ],
    );
    let set = load("");
    assert!(!common::endpoint(&set, "shop/web").governs(Side::Egress));
}

#[test]
fn rules_are_asked_in_order_and_directions_are_separate() {
    let policy = acnp(
        "  egress:
    - {name: a, action: Allow, to: [{ipBlock: {cidr: 1.2.3.4/32}}]}
    - {name: b, action: Drop, to: [{ipBlock: {cidr: 1.0.0.0/8}}]}
    - {name: c, action: Reject, to: [{ipBlock: {cidr: 1.2.0.0/16}}]}",
    );
    expect(
        &policy,
        &[
            ("egress 1.2.3.4 tcp 80", "allow a"),
            ("egress 1.2.3.5 tcp 80", "drop b"),
            ("egress 2.2.3.4 tcp 80", "allow"),
            ("ingress 1.2.3.5 tcp 80", "allow"),
        ],
    );
    let set = load(&policy);
    let endpoint = common::endpoint(&set, "shop/web");
    assert!(endpoint.governs(Side::Egress) && !endpoint.governs(Side::Ingress));
}

#[test]
fn tiers_come_before_priorities_and_priorities_before_positions() {
    let to = |name: &str, tier: &str, priority: &str, action: &str| {
        named(
            name,
            &format!(
                "  tier: {tier}\n  priority: {priority}\n  appliedTo: [{{podSelector: {{}}}}]\n  \
                 egress: [{{name: {name}, action: {action}, ports: [{{port: 80}}]}}]"
            ),
        )
    };
    let tier = "---\napiVersion: crd.antrea.io/v1beta1\nkind: Tier\nmetadata: {name: mine}\n\
                spec: {priority: 60, description: ours}\n";
    let cases: &[(&[String], &str)] = &[
        (
            &[
                to("a", "application", "1", "Drop"),
                to("b", "emergency", "9", "Allow"),
            ],
            "allow b",
        ),
        (
            &[
                to("a", "platform", "1", "Drop"),
                to("b", "mine", "9", "Allow"),
                tier.into(),
            ],
            "allow b",
        ),
        (
            &[
                to("a", "emergency", "9", "Drop"),
                to("b", "mine", "1", "Allow"),
                tier.into(),
            ],
            "drop a",
        ),
        (
            &[
                to("a", "application", "5.5", "Drop"),
                to("b", "application", "5.4", "Allow"),
            ],
            "allow b",
        ),
        (
            &[
                to("a", "baseline", "1", "Drop"),
                to("b", "application", "9", "Allow"),
            ],
            "allow b",
        ),
        // Ties: by kind, then by name, whatever the order of documents.
        (
            &[
                to("b", "application", "5", "Drop"),
                to("a", "application", "5", "Allow"),
            ],
            "allow a",
        ),
        (
            &[
                to("a", "application", "5", "Allow"),
                to("b", "application", "5", "Drop"),
            ],
            "allow a",
        ),
    ];
    for (policies, expected) in cases {
        expect(&policies.concat(), &[("egress 1.2.3.4 tcp 80", *expected)]);
    }
    let tie = annp(
        "a",
        "  priority: 5\n  appliedTo: [{podSelector: {}}]\n  egress: [{name: n, action: Drop}]",
    ) + &to("z", "application", "5", "Allow");
    expect(&tie, &[("egress 1.2.3.4 tcp 80", "allow z")]);
}

#[test]
fn kubectl_exports_of_default_tiers_are_accepted() {
    load(
        "apiVersion: crd.antrea.io/v1beta1\nkind: Tier\nmetadata: {name: emergency, \
          creationTimestamp: null}\nspec: {priority: 50}\nstatus: {}\n",
    );
}

#[test]
fn ports_and_protocols() {
    let flows = [
        "egress 9.9.9.9 tcp 80",
        "egress 9.9.9.9 tcp 81",
        "egress 9.9.9.9 udp 80",
        "egress 9.9.9.9 sctp 80",
        "egress 9.9.9.9 icmp 8/0",
        "egress fd00::9 icmp 128/0",
        "egress 9.9.9.9 icmp 3/1",
        "egress 9.9.9.9 igmp 22/0",
        "egress 9.9.9.9 proto 47",
        "egress 9.9.9.9 tcp 80 from 1000",
    ];
    let cases = [
        ("", "xxxxxxxxxx"),
        ("ports: []", "xxxxxxxxxx"),
        ("ports: [{port: 80}]", "x........x"),
        ("ports: [{protocol: TCP}]", "xx.......x"),
        ("ports: [{}]", "xx.......x"),
        ("ports: [{protocol: UDP, port: 80}]", "..x......."),
        ("ports: [{protocol: SCTP}]", "...x......"),
        ("ports: [{port: 80, endPort: 81}]", "xx.......x"),
        ("ports: [{port: 79, endPort: 80}]", "x........x"),
        ("ports: [{port: 1, endPort: 65535}]", "xx.......x"),
        (
            "ports: [{port: 81}, {protocol: UDP, port: 80}]",
            ".xx.......",
        ),
        ("ports: [{port: 80, sourcePort: 1000}]", ".........x"),
        (
            "ports: [{sourcePort: 999, sourceEndPort: 1001}]",
            ".........x",
        ),
        ("protocols: [{icmp: {}}]", "....xxx..."),
        ("protocols: [{icmp: {icmpType: 8}}]", "....x....."),
        (
            "protocols: [{icmp: {icmpType: 3, icmpCode: 1}}]",
            "......x...",
        ),
        (
            "protocols: [{icmp: {icmpType: 3, icmpCode: 2}}]",
            "..........",
        ),
        ("protocols: [{igmp: {}}]", ".......x.."),
        ("protocols: [{igmp: {igmpType: 0x16}}]", ".......x.."),
        ("protocols: [{igmp: {igmpType: 0x12}}]", ".........."),
        (
            "ports: [{port: 80}], protocols: [{icmp: {icmpType: 128}}]",
            "x....x...x",
        ),
    ];
    for (what, expected) in cases {
        let comma = if what.is_empty() { "" } else { ", " };
        let policy = acnp(&format!(
            "  egress: [{{name: d, action: Drop{comma}{what}}}]"
        ));
        let verdict = |hit| if hit == 'x' { "drop d" } else { "allow" };
        let pairs: Vec<_> = flows
            .iter()
            .copied()
            .zip(expected.chars().map(verdict))
            .collect();
        expect(&policy, &pairs);
    }
}

#[test]
fn port_names_are_resolved_at_the_destination() {
    let egress = acnp("  egress: [{name: d, action: Drop, ports: [{port: sql}]}]");
    expect(
        &egress,
        &[
            ("egress 10.0.0.9 tcp 5432", "drop d"),
            ("egress fd00::9 tcp 5432", "drop d"),
            ("egress 10.0.1.9 tcp 15432", "drop d"),
            ("egress 10.0.1.9 tcp 5432", "allow"),
            ("egress 10.0.0.9 udp 5432", "allow"),
            ("egress 9.9.9.9 tcp 5432", "allow"),
        ],
    );
    let ingress = acnp(
        "  ingress:
    - {name: d, action: Drop, ports: [{port: http}, {protocol: UDP, port: dns}]}",
    );
    expect(
        &ingress,
        &[
            ("ingress 9.9.9.9 tcp 8080", "drop d"),
            ("ingress 9.9.9.9 tcp 9090", "allow"),
            ("ingress 9.9.9.9 udp 5353", "drop d"),
            ("ingress 9.9.9.9 tcp 5353", "allow"),
        ],
    );
    expect_of(
        "shop/api",
        &ingress,
        &[("ingress 9.9.9.9 tcp 9090", "drop d")],
    );
    expect_of(
        "bank/web",
        &ingress,
        &[("ingress 9.9.9.9 tcp 8080", "allow")],
    );
}

#[test]
fn kubernetes_policies_isolate() {
    let flows = ["ingress 9.9.9.9 tcp 80", "egress 9.9.9.9 tcp 80"];
    let denied = "reject K8sNetworkPolicy/shop/k no-rule-matches";
    let cases = [
        ("{podSelector: {}}", [denied, "allow"]),
        (
            "{podSelector: {}, policyTypes: [Egress]}",
            ["allow", denied],
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress, Egress]}",
            [denied, denied],
        ),
        (
            "{podSelector: {}, egress: [{}]}",
            [denied, "allow egress[0]"],
        ),
        (
            "{podSelector: {}, ingress: [{}]}",
            ["allow ingress[0]", "allow"],
        ),
        (
            "{podSelector: {}, ingress: [{from: []}]}",
            ["allow ingress[0]", "allow"],
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{port: 81}]}, {ports: [{port: 80}]}]}",
            ["allow ingress[1]", "allow"],
        ),
        (
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}",
            [denied, "allow"],
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 9.0.0.0/8}}]}]}",
            ["allow ingress[0]", "allow"],
        ),
        (
            "{podSelector: {matchLabels: {app: api}}}",
            ["allow", "allow"],
        ),
    ];
    for (spec, expected) in cases {
        let policy = k8s("k", "").replace("spec:\n", &format!("spec: {spec}"));
        let pairs: Vec<_> = flows.iter().copied().zip(expected).collect();
        expect(&policy, &pairs);
    }
    let union = k8s("a", "  podSelector: {}\n  ingress: [{ports: [{port: 1}]}]")
        + &k8s("b", "  podSelector: {}\n  ingress: [{ports: [{port: 2}]}]");
    expect(
        &union,
        &[
            ("ingress 9.9.9.9 tcp 1", "allow ingress[0]"),
            ("ingress 9.9.9.9 tcp 2", "allow ingress[0]"),
            (
                "ingress 9.9.9.9 tcp 3",
                "reject K8sNetworkPolicy/shop/a no-rule-matches",
            ),
        ],
    );
    expect_of("bank/web", &union, &[("ingress 9.9.9.9 tcp 3", "allow")]);
}

#[test]
fn kubernetes_isolation_leaves_the_own_node_alone_and_antrea_does_not() {
    let isolated = k8s("k", "  podSelector: {}\n  policyTypes: [Ingress, Egress]");
    expect(
        &isolated,
        &[
            ("ingress 192.168.7.1 tcp 80", "allow"),
            ("egress 192.168.7.1 tcp 80", "allow"),
        ],
    );
    let dropped = isolated + &acnp("  ingress: [{name: d, action: Drop}]");
    expect(&dropped, &[("ingress 192.168.7.1 tcp 80", "drop d")]);
}

#[test]
fn pass_leads_to_kubernetes_and_baseline() {
    let antrea = acnp(
        "  egress:
    - {name: pass, action: Pass, ports: [{port: 80, endPort: 81}]}
    - {name: drop, action: Drop, ports: [{port: 80}]}
    - {name: allow, action: Allow, ports: [{port: 82}]}",
    );
    let baseline = named(
        "base",
        "  tier: baseline
  priority: 1
  appliedTo: [{podSelector: {}}]
  egress: [{name: base, action: Drop}]",
    );
    let kubernetes = k8s("k", "  podSelector: {}\n  egress: [{ports: [{port: 81}]}]");
    let denied = "reject K8sNetworkPolicy/shop/k no-rule-matches";
    expect(
        &antrea,
        &[
            ("egress 9.9.9.9 tcp 80", "allow"),
            ("egress 9.9.9.9 tcp 82", "allow allow"),
        ],
    );
    expect(
        &(antrea.clone() + &baseline),
        &[
            ("egress 9.9.9.9 tcp 80", "drop base"),
            ("egress 9.9.9.9 tcp 82", "allow allow"),
            ("egress 9.9.9.9 tcp 83", "drop base"),
        ],
    );
    expect(
        &(antrea + &baseline + &kubernetes),
        &[
            ("egress 9.9.9.9 tcp 80", denied),
            // Allowed by Kubernetes: the baseline tier is not asked.
            ("egress 9.9.9.9 tcp 81", "allow egress[0]"),
            // Allowed by Antrea: Kubernetes is not asked.
            ("egress 9.9.9.9 tcp 82", "allow allow"),
            ("egress 9.9.9.9 tcp 83", denied),
        ],
    );
}

#[test]
fn l7_rules_inspect_tcp_and_stop_the_search() {
    let policy = acnp(
        "  egress:
    - {name: web, action: Allow, to: [{ipBlock: {cidr: 9.0.0.0/8}}], l7Protocols: [{tls: {}}]}
    - {name: rest, action: Allow}",
    );
    expect(
        &policy,
        &[
            ("egress 9.9.9.9 tcp 443", "inspect web"),
            ("egress 9.9.9.9 udp 443", "inspect web"),
            ("egress 9.9.9.9 icmp 8/0", "reject web l7-needs-tcp"),
            ("egress 8.9.9.9 udp 443", "allow rest"),
        ],
    );
}

#[test]
fn rules_say_who_they_are() {
    let policy = annp(
        "api",
        "  priority: 5
  appliedTo: [{podSelector: {}}]
  egress:
    - {action: Drop, enableLogging: true, logLabel: look-here, ports: [{port: 1}]}
    - {action: Drop, ports: [{port: 2}]}
    - {action: Drop, ports: [{port: 2}]}",
    );
    let set = load(&policy);
    let endpoint = common::endpoint(&set, "shop/web");
    let query = common::flow(&endpoint, "egress 9.9.9.9 tcp 1");
    let tollgate_policy::FlowVerdict::Deny(denial) = endpoint.decide(&query) else {
        panic!()
    };
    let rule = denial.rule.unwrap();
    assert_eq!(&**rule.policy(), "NetworkPolicy/shop/api");
    assert!(
        rule.rule().starts_with("egress-drop-") && rule.rule().len() == 19,
        "{}",
        rule.rule()
    );
    assert!(rule.logged());
    assert_eq!(rule.log_label().map(|label| &**label), Some("look-here"));
    let explained = endpoint.explain(&common::flow(&endpoint, "egress 9.9.9.9 tcp 3"), None);
    let names: std::collections::BTreeSet<_> =
        explained.steps.iter().map(|step| &step.rule).collect();
    assert_eq!(names.len(), 3, "made-up names differ: {names:?}");
}

#[test]
fn explanations_show_the_way() {
    let policies = named(
        "other",
        "  priority: 1\n  appliedTo: [{podSelector: {matchLabels: {app: api}}}]\n  egress: [{action: Drop}]",
    ) + &acnp(
        "  egress:
    - {name: peer, action: Drop, to: [{ipBlock: {cidr: 1.0.0.0/8}}]}
    - {name: port, action: Drop, ports: [{port: 1}]}
    - {name: pass, action: Pass}",
    ) + &k8s(
        "k",
        "  podSelector: {}\n  policyTypes: [Egress]\n  egress: [{ports: [{port: 2}]}]",
    );
    let set = load(&policies);
    let endpoint = common::endpoint(&set, "shop/web");
    let explained = endpoint.explain(&common::flow(&endpoint, "egress 9.9.9.9 tcp 80"), None);
    let steps: Vec<_> = explained
        .steps
        .iter()
        .map(|s| {
            format!(
                "{} {} {}: {}",
                s.stage,
                s.rule.as_deref().unwrap_or("-"),
                s.matched,
                s.why
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            "antrea peer false: 9.9.9.9 is not among its peers",
            "antrea port false: port 80 of protocol 6 is not among its ports",
            "antrea pass true: matches; leaves the decision to Kubernetes policies and the baseline tier",
            "kubernetes egress[0] false: port 80 of protocol 6 is not among its ports",
            "kubernetes - true: isolates the endpoint, and no rule of any policy allows the flow",
        ]
    );
    assert_eq!(explained.not_selecting.len(), 1);
    assert_eq!(
        explained.outcome.policy.as_deref(),
        Some("K8sNetworkPolicy/shop/k")
    );
}

#[test]
fn limits_hold() {
    let many = "---\napiVersion: v1\n".repeat(20_001);
    let faults = compile(
        &[SourceFile {
            name: "many.yaml",
            text: &many,
        }],
        &CompileOptions::default(),
    )
    .unwrap_err();
    assert!(faults.len() <= 201, "{}", faults.len());
    let said = |what: &str| faults.iter().any(|fault| fault.message.contains(what));
    assert!(
        said("more than 20000 documents in one file"),
        "{:?}",
        faults.first()
    );
    assert!(said("more faults are not shown"));
}

#[test]
fn a_policy_set_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<tollgate_policy::PolicySet>();
    shared::<tollgate_policy::FlowVerdict>();
}
