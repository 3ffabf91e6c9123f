//! Whom policies apply to and whom their peers are: selectors, namespaces, groups, CIDRs.

mod common;

use common::{acnp, annp, expect, expect_of, load, named};

#[test]
fn applied_to_selects_endpoints() {
    let drop = |applied_to: &str| {
        named(
            "p",
            &format!(
                "  priority: 5\n  appliedTo: {applied_to}\n  egress: [{{name: d, action: Drop}}]"
            ),
        )
    };
    // shop/web, shop/api, bank/web, bare/web
    let cases = [
        ("[{podSelector: {}}]", [true, true, true, true]),
        (
            "[{podSelector: {matchLabels: {app: web}}}]",
            [true, false, true, true],
        ),
        (
            "[{podSelector: {matchLabels: {app: web, tier: front}}}]",
            [true, false, false, false],
        ),
        (
            "[{namespaceSelector: {matchLabels: {team: red}}}]",
            [true, true, true, false],
        ),
        (
            "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bare}}}]",
            [false, false, false, true],
        ),
        (
            "[{namespaceSelector: {matchLabels: {env: test}}, podSelector: {matchLabels: {app: web}}}]",
            [false, false, true, false],
        ),
        (
            "[{podSelector: {matchLabels: {app: api}}}, {namespaceSelector: {matchLabels: {env: test}}}]",
            [false, true, true, false],
        ),
        (
            "[{serviceAccount: {name: web, namespace: shop}}]",
            [true, false, false, false],
        ),
        (
            "[{serviceAccount: {name: default, namespace: shop}}]",
            [false, true, false, false],
        ),
        (
            "[{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}]",
            [true, false, false, false],
        ),
        (
            "[{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}]",
            [false, true, true, true],
        ),
        (
            "[{podSelector: {matchExpressions: [{key: app, operator: In, values: [api, x]}]}}]",
            [false, true, false, false],
        ),
        (
            "[{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}}]",
            [false, true, true, true],
        ),
    ];
    for (applied_to, expected) in cases {
        let set = load(&drop(applied_to));
        for (name, selected) in ["shop/web", "shop/api", "bank/web", "bare/web"]
            .iter()
            .zip(expected)
        {
            let verdict = common::verdict(&common::endpoint(&set, name), "egress 1.2.3.4 tcp 80");
            assert_eq!(
                verdict,
                if selected { "drop d" } else { "allow" },
                "{applied_to} {name}"
            );
        }
    }
}

#[test]
fn applied_to_in_rules() {
    let policy = named(
        "p",
        "  priority: 5
  egress:
    - {name: a, action: Drop, appliedTo: [{podSelector: {matchLabels: {app: api}}}]}
    - {name: w, action: Reject, appliedTo: [{podSelector: {matchLabels: {app: web}}}]}",
    );
    expect(&policy, &[("egress 1.2.3.4 tcp 80", "reject w")]);
    expect_of("shop/api", &policy, &[("egress 1.2.3.4 tcp 80", "drop a")]);
    assert_eq!(load(&policy).policies()[0].applied_to, 4);
}

#[test]
fn peers_select_addresses() {
    let flows = [
        "egress 10.0.0.9 tcp 1",
        "egress fd00::9 tcp 1",
        "egress 10.0.1.9 tcp 1",
        "egress 10.0.0.2 tcp 1",
        "egress 10.0.2.1 tcp 1",
        "egress 9.9.9.9 tcp 1",
        "egress 192.168.7.1 tcp 1",
        "egress 10.0.0.77 tcp 1",
    ];
    let cases = [
        ("", "xxxxxxxx"),
        ("to: [], ", "xxxxxxxx"),
        ("to: [{podSelector: {}}], ", "xxxxx..."),
        (
            "to: [{podSelector: {matchLabels: {app: db}}}], ",
            "xxx.....",
        ),
        (
            "to: [{podSelector: {matchLabels: {app: db}}, namespaceSelector: {matchLabels: {env: test}}}], ",
            "..x.....",
        ),
        (
            "to: [{podSelector: {matchLabels: {app: db}}}, {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bare}}}], ",
            "xxx.x...",
        ),
        ("to: [{namespaces: {match: Self}}], ", "xx.x...."),
        (
            "to: [{namespaces: {match: Self}, podSelector: {matchLabels: {app: db}}}], ",
            "xx......",
        ),
        ("to: [{namespaces: {sameLabels: [team]}}], ", "xxxx...."),
        (
            "to: [{namespaces: {sameLabels: [team, env]}}], ",
            "xx.x....",
        ),
        ("to: [{namespaces: {sameLabels: [absent]}}], ", "........"),
        (
            "to: [{serviceAccount: {name: db, namespace: shop}}], ",
            "xx......",
        ),
        ("to: [{ipBlock: {cidr: 0.0.0.0/0}}], ", "x.xxxxxx"),
        ("to: [{ipBlock: {cidr: '::/0'}}], ", ".x......"),
        (
            "to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}], ",
            "..x.x...",
        ),
        ("to: [{ipBlock: {cidr: 10.0.0.5/24}}], ", "x..x...x"),
        (
            "to: [{podSelector: {matchLabels: {app: host}}}], ",
            "........",
        ),
        (
            "to: [{podSelector: {matchLabels: {app: done}}}], ",
            "........",
        ),
        (
            "to: [{podSelector: {matchLabels: {app: nobody}}}], ",
            "........",
        ),
    ];
    for (peers, expected) in cases {
        let policy = acnp(&format!("  egress: [{{name: d, {peers}action: Drop}}]"));
        let pairs: Vec<_> = flows
            .iter()
            .zip(expected.chars())
            .map(|(flow, hit)| (*flow, if hit == 'x' { "drop d" } else { "allow" }))
            .collect();
        expect(&policy, &pairs);
    }
}

#[test]
fn except_means_no_match_and_later_rules_are_asked() {
    let policy = acnp(
        "  egress:
    - {name: a, action: Allow, to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]}
    - {name: b, action: Drop, to: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}]}
    - {name: c, action: Reject, to: [{ipBlock: {cidr: 10.0.0.0/8}}]}",
    );
    expect(
        &policy,
        &[
            ("egress 10.3.0.1 tcp 1", "allow a"),
            ("egress 10.1.0.1 tcp 1", "drop b"),
            ("egress 10.1.1.1 tcp 1", "reject c"),
            ("egress 10.2.0.1 tcp 1", "reject c"),
        ],
    );
}

#[test]
fn relative_namespaces_depend_on_the_endpoint() {
    let policy = acnp(
        "  ingress:
    - {name: self, action: Allow, from: [{namespaces: {match: Self}}]}
    - {name: team, action: Reject, from: [{namespaces: {sameLabels: [team]}}]}
    - {name: rest, action: Drop}",
    );
    let from_shop = "ingress 10.0.0.9 tcp 80";
    let from_bank = "ingress 10.0.1.9 tcp 80";
    expect(
        &policy,
        &[(from_shop, "allow self"), (from_bank, "reject team")],
    );
    expect_of(
        "bank/web",
        &policy,
        &[(from_shop, "reject team"), (from_bank, "allow self")],
    );
    expect_of(
        "bare/web",
        &policy,
        &[(from_shop, "drop rest"), (from_bank, "drop rest")],
    );
}

#[test]
fn groups() {
    let cluster = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: crd.antrea.io/v1beta1\nkind: ClusterGroup\nmetadata: {{name: {name}}}\n\
             spec: {spec}\n"
        )
    };
    let groups = cluster("dbs", "{podSelector: {matchLabels: {app: db}}}")
        + &cluster(
            "out",
            "{ipBlocks: [{cidr: 9.0.0.0/8}, {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}]}",
        )
        + &cluster("one", "{ipBlock: {cidr: 7.0.0.0/8}}")
        + &cluster("reds", "{namespaceSelector: {matchLabels: {team: red}}}")
        + &cluster("both", "{childGroups: [dbs, out]}");
    let with = |group: &str| {
        groups.clone()
            + &acnp(&format!(
                "  egress: [{{name: d, action: Drop, to: [{{group: {group}}}]}}]"
            ))
    };
    let flows = [
        "egress 10.0.0.9 tcp 1",
        "egress 10.0.0.2 tcp 1",
        "egress 9.9.9.9 tcp 1",
        "egress 8.8.8.8 tcp 1",
        "egress 7.7.7.7 tcp 1",
    ];
    let cases = [
        ("dbs", "x...."),
        ("out", "..x.."),
        ("one", "....x"),
        ("reds", "xx..."),
        ("both", "x.x.."),
    ];
    for (group, expected) in cases {
        let verdict = |hit| if hit == 'x' { "drop d" } else { "allow" };
        let pairs: Vec<_> = flows
            .iter()
            .copied()
            .zip(expected.chars().map(verdict))
            .collect();
        expect(&with(group), &pairs);
    }
    let applied = groups.clone()
        + &named(
            "p",
            "  priority: 5\n  appliedTo: [{group: reds}]\n  egress: [{name: d, action: Drop}]",
        );
    expect(&applied, &[("egress 1.1.1.1 tcp 1", "drop d")]);
    expect_of("bare/web", &applied, &[("egress 1.1.1.1 tcp 1", "allow")]);
}

#[test]
fn namespaced_policies_and_groups_stay_in_their_namespace() {
    let group = "---\napiVersion: crd.antrea.io/v1beta1\nkind: Group\n\
                 metadata: {name: dbs, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}}\n";
    let policy = |peer: &str| {
        let spec = format!(
            "  priority: 5\n  appliedTo: [{{podSelector: {{}}}}]\n  \
             egress: [{{name: d, action: Drop, to: [{peer}]}}]"
        );
        group.to_owned() + &annp("p", &spec)
    };
    let own = ("egress 10.0.0.9 tcp 1", "drop d");
    let foreign = ("egress 10.0.1.9 tcp 1", "allow");
    expect(
        &policy("{podSelector: {matchLabels: {app: db}}}"),
        &[own, foreign],
    );
    expect(&policy("{group: dbs}"), &[own, foreign]);
    let everywhere = policy("{podSelector: {}, namespaceSelector: {}}");
    expect(&everywhere, &[own, ("egress 10.0.1.9 tcp 1", "drop d")]);
    expect_of(
        "bank/web",
        &everywhere,
        &[("egress 10.0.0.9 tcp 1", "allow")],
    );
}
