//! `crd.antrea.io/v1beta1`: policies, tiers and groups; and the policies of
//! `policy.tollgate.dev/v1alpha1`, which may say more.

use std::collections::HashSet;

use super::common::{Home, OBJECT, TCP, identity, ip_block, name};
use super::cx::{Cx, Fields};
use super::{l7, rule};
use crate::Side;
use crate::item::L7Item;
use crate::model::{
    Group, GroupBody, Identity, Located, Order, Policy, Rule, Service, Target, Tier,
};
use crate::query::Action;
use crate::yaml::{Node, Value, shorten};

/// The tier of a policy that names none.
const DEFAULT_TIER: &str = "application";
/// The tier behind Kubernetes NetworkPolicies.
pub(crate) const BASELINE_TIER: &str = "baseline";
/// Bounds of `spec.priority`.
const PRIORITIES: std::ops::RangeInclusive<f64> = 1.0..=10_000.0;

const ACTIONS: &[(&str, Action)] = &[
    ("Allow", Action::Allow),
    ("Drop", Action::Drop),
    ("Reject", Action::Reject),
    ("Pass", Action::Pass),
];

/// The words of `spec.enforcement`, and whether the policy is under audit.
const ENFORCEMENTS: &[(&str, bool)] = &[("enforce", false), ("audit", true)];

/// `ClusterNetworkPolicy` and `NetworkPolicy`.
pub(crate) fn policy<'a>(cx: &mut Cx<'a>, node: &'a Node, kind: &'static str) -> Option<Policy> {
    let object = cx.fields(node, OBJECT)?;
    let home = if kind == "NetworkPolicy" {
        Home::Namespace
    } else {
        Home::Cluster
    };
    let id = identity(cx, object, kind, home);
    cx.required(object, "spec", |cx, spec| policy_spec(cx, spec, id))
}

fn policy_spec<'a>(cx: &mut Cx<'a>, node: &'a Node, id: Option<Identity>) -> Option<Policy> {
    let fields = cx.fields_with(
        node,
        &["tier", "priority", "appliedTo", "ingress", "egress"],
        &["enforcement"],
    )?;
    // A placeholder lets the rules be checked although the metadata is bad.
    let owner = id.as_ref().and_then(|id| id.namespace.clone());
    let tier = tier_name(cx, fields);
    let priority = cx.required(fields, "priority", priority);
    let audit = match fields.has("enforcement") {
        true => cx.optional(fields, "enforcement", |cx, node| {
            cx.word(node, ENFORCEMENTS)
        }),
        false => Some(false),
    };
    let applied_to = targets(cx, fields, owner.as_deref());
    let mut rules = Vec::new();
    for (key, side) in [("ingress", Side::Ingress), ("egress", Side::Egress)] {
        rules.extend(cx.list(fields, key, |cx, node| {
            rule(cx, node, side, owner.as_deref())
        }));
    }
    check_names(cx, &mut rules);
    check_applied_to(cx, node, fields);
    if tier.value == BASELINE_TIER {
        refuse_pass(cx, fields);
    }
    let rules = rules.into_iter().map(|(_, _, rule)| rule).collect();
    let order = Order::Antrea {
        tier,
        priority: priority?,
    };
    Some(Policy {
        id: id?,
        order,
        applied_to,
        isolates: Vec::new(),
        rules,
        audit: audit?,
    })
}

fn tier_name<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Located<String> {
    // Antrea's webhook also takes the empty string for the default.
    let named = cx.optional(fields, "tier", |cx, node| {
        let text = cx.string(node)?;
        (!text.is_empty()).then(|| cx.located(node, text.to_owned()))
    });
    named.unwrap_or_else(|| cx.located(fields.node(), DEFAULT_TIER.to_owned()))
}

fn priority<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<f64> {
    let number = match node.value {
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        _ => {
            cx.fault(
                node.pos,
                format!("must be a number, not {}", node.describe()),
            );
            return None;
        }
    };
    if !PRIORITIES.contains(&number) {
        cx.fault(
            node.pos,
            format!("must be from 1.0 to 10000.0, not {number}"),
        );
        return None;
    }
    Some(number)
}

/// `appliedTo`; an empty list counts as absent.
fn targets<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, owner: Option<&str>) -> Option<Vec<Target>> {
    if !is_listed(fields, "appliedTo") {
        // Still complains if it is not a list.
        cx.list(fields, "appliedTo", Cx::ignore);
        return None;
    }
    Some(cx.list(fields, "appliedTo", |cx, node| {
        rule::target(cx, node, owner)
    }))
}

fn is_listed(fields: Fields<'_>, key: &str) -> bool {
    matches!(fields.get(key).map(|n| &n.value), Some(Value::Seq(items)) if !items.is_empty())
}

fn check_applied_to<'a>(cx: &mut Cx<'a>, node: &'a Node, fields: Fields<'a>) {
    let in_spec = is_listed(fields, "appliedTo");
    let rules: Vec<_> = ["ingress", "egress"]
        .iter()
        .filter_map(|key| match fields.get(key).map(|n| &n.value) {
            Some(Value::Seq(items)) => Some(items),
            _ => None,
        })
        .flatten()
        .collect();
    let in_rules = rules
        .iter()
        .filter(|rule| is_listed(Fields::of(rule), "appliedTo"))
        .count();
    let message = match (in_spec, in_rules) {
        (true, 0) => return,
        (true, _) => "appliedTo should not be set in both spec and rules",
        (false, 0) => "appliedTo needs to be set in either spec or rules",
        (false, some) if some == rules.len() => return,
        (false, _) => "appliedTo field should either be set in all rules or in none of them",
    };
    cx.fault(node.pos, message);
}

fn refuse_pass<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) {
    for key in ["ingress", "egress"] {
        cx.list(fields, key, |cx, node| {
            if node.get("action").and_then(Node::as_str) == Some("Pass") {
                let message = "`Pass` action should not be set for Baseline Tier policy rules";
                cx.fault_in(Fields::of(node), "action", message);
            }
            None::<()>
        });
    }
}

/// A rule with its node and path, for the check of names, which spans all rules.
type Numbered<'a> = (&'a Node, String, Rule);

fn rule<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    side: Side,
    owner: Option<&str>,
) -> Option<Numbered<'a>> {
    let fields = cx.fields(
        node,
        &[
            "name",
            "action",
            "from",
            "to",
            "toServices",
            "ports",
            "protocols",
            "l7Protocols",
            "appliedTo",
            "enableLogging",
            "logLabel",
        ],
    )?;
    cx.refuse(fields, &[("toServices", "toServices is not supported")]);
    let (peers, other, advice) = match side {
        Side::Ingress => ("from", "to", "an ingress rule has `from`, not `to`"),
        Side::Egress => ("to", "from", "an egress rule has `to`, not `from`"),
    };
    cx.refuse(fields, &[(other, advice)]);
    let action = cx.required(fields, "action", |cx, node| {
        let action = cx.word(node, ACTIONS)?;
        Some(cx.located(node, action))
    });
    let rule = Rule {
        side,
        name: cx.optional(fields, "name", rule_name).unwrap_or_default(),
        // A rule without a readable action is checked like any other and never used.
        action: action.unwrap_or_else(|| cx.located(node, Action::Drop)),
        applied_to: targets(cx, fields, owner),
        peers: cx.list(fields, peers, |cx, node| rule::peer(cx, node, side, owner)),
        services: services(cx, fields, side),
        l7: l7_items(cx, fields),
        logged: cx
            .optional(fields, "enableLogging", Cx::boolean)
            .unwrap_or(false),
        log_label: cx.optional(fields, "logLabel", log_label),
    };
    check_l7(cx, fields, &rule);
    Some(name_if_needed(cx, node, rule))
}

fn name_if_needed<'a>(cx: &Cx<'a>, node: &'a Node, mut rule: Rule) -> Numbered<'a> {
    let path = cx.field_path();
    if rule.name.is_empty() {
        let side = if rule.side == Side::Ingress {
            "ingress"
        } else {
            "egress"
        };
        let action = rule.action.value.as_str().to_ascii_lowercase();
        rule.name = format!("{side}-{action}-{:07x}", node.fingerprint() >> (64 - 28));
    }
    (node, path, rule)
}

fn services<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, side: Side) -> Vec<Service> {
    const PORT: &[&str] = &["protocol", "port", "endPort", "sourcePort", "sourceEndPort"];
    let mut services = cx.list(fields, "ports", |cx, node| rule::port(cx, node, PORT));
    services.extend(cx.list(fields, "protocols", |cx, node| {
        rule::protocol(cx, node, side)
    }));
    services
}

fn l7_items<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Vec<L7Item> {
    if matches!(fields.get("l7Protocols").map(|n| &n.value), Some(Value::Seq(items)) if items.is_empty())
    {
        let message = "must not be empty; leave the field out to allow without L7 inspection";
        cx.fault_in(fields, "l7Protocols", message);
    }
    let items = cx.list(fields, "l7Protocols", l7::item);
    let written = fields.get("l7Protocols").map(|node| &node.value);
    let complete = matches!(written, Some(Value::Seq(written)) if written.len() == items.len());
    if complete && !items.is_empty() && items.iter().all(|item| item.deny) {
        let message = "needs an item with action Allow: what no item allows is refused anyway";
        cx.fault_in(fields, "l7Protocols", message);
    }
    items
}

/// What Antrea's webhook checks, in its order and words.
fn check_l7<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, rule: &Rule) {
    if !fields.has("l7Protocols") {
        return;
    }
    if rule.action.value != Action::Allow && fields.has("action") {
        cx.fault_in(
            fields,
            "l7Protocols",
            "layer 7 protocols only support Allow",
        );
    }
    if fields.has("toServices") {
        let message = "layer 7 protocols can not be used with toServices";
        cx.fault_in(fields, "l7Protocols", message);
    }
    if !rule.l7.iter().any(|item| item.http().is_some()) {
        return;
    }
    let other_transport =
        |service: &Service| matches!(service, Service::Ports { protocol, .. } if *protocol != TCP);
    if rule.services.iter().any(other_transport) {
        let message = "HTTP protocol can only be used when layer 4 protocol is TCP or unset";
        cx.fault_in(fields, "l7Protocols", message);
    }
    if rule
        .services
        .iter()
        .any(|s| matches!(s, Service::Icmp { .. } | Service::Igmp { .. }))
    {
        let message = "HTTP protocol can not be used with protocol IGMP or ICMP";
        cx.fault_in(fields, "l7Protocols", message);
    }
}

/// A rule's name; it appears in logs and answers, so it is one line of printable text.
fn rule_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    const LONGEST: usize = 253;
    let text = cx.string(node)?;
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        let message = format!("must be printable and no longer than {LONGEST} bytes");
        cx.fault(node.pos, message);
        return None;
    }
    Some(text.to_owned())
}

fn log_label<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.string(node)?;
    if let Some(why) = super::common::bad_label_value(text) {
        cx.fault(
            node.pos,
            format!("Invalid logLabel: {}: {why}", shorten(text)),
        );
        return None;
    }
    (!text.is_empty()).then(|| text.to_owned())
}

/// Names given must differ; names made up are made to.
fn check_names<'a>(cx: &mut Cx<'a>, rules: &mut [Numbered<'a>]) {
    let mut seen = HashSet::new();
    for (node, path, rule) in rules {
        let mut copies = 1;
        let made_up = rule.name.clone();
        while !seen.insert(rule.name.clone()) {
            if let Some(name) = node.get("name").filter(|name| name.as_str() != Some("")) {
                let message = "rules names must be unique within the policy";
                cx.fault_at(name.pos, format!("{path}.name"), message);
                break;
            }
            copies += 1;
            rule.name = format!("{made_up}-{copies}");
        }
    }
}

/// `Tier`.
pub(crate) fn tier<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Tier> {
    let object = cx.fields(node, OBJECT)?;
    let id = identity(cx, object, "Tier", Home::Cluster);
    let priority = cx.required(object, "spec", |cx, node| {
        let fields = cx.fields(node, &["priority", "description"])?;
        cx.optional(fields, "description", Cx::string);
        cx.required(fields, "priority", |cx, node| {
            let priority = cx.integer(node, 0, 255)?;
            Some(cx.located(node, priority))
        })
    });
    Some(Tier {
        id: id?,
        priority: priority?,
    })
}

/// `ClusterGroup` and `Group`.
pub(crate) fn group<'a>(cx: &mut Cx<'a>, node: &'a Node, kind: &'static str) -> Option<Group> {
    let object = cx.fields(node, OBJECT)?;
    let home = if kind == "Group" {
        Home::Namespace
    } else {
        Home::Cluster
    };
    let id = identity(cx, object, kind, home);
    let owner = id.as_ref().and_then(|id| id.namespace.clone());
    let body = cx.required(object, "spec", |cx, node| {
        group_body(cx, node, owner.as_deref())
    });
    Some(Group {
        id: id?,
        body: body?,
    })
}

fn group_body<'a>(cx: &mut Cx<'a>, node: &'a Node, owner: Option<&str>) -> Option<GroupBody> {
    const KNOWN: &[&str] = &[
        "podSelector",
        "namespaceSelector",
        "ipBlock",
        "ipBlocks",
        "childGroups",
        "nodeSelector",
        "externalEntitySelector",
        "serviceReference",
    ];
    let fields = cx.fields(node, KNOWN)?;
    cx.refuse(
        fields,
        &[
            ("nodeSelector", "nodeSelector is not supported"),
            (
                "externalEntitySelector",
                "externalEntitySelector is not supported",
            ),
            ("serviceReference", "serviceReference is not supported"),
        ],
    );
    let pods = usize::from(fields.count(&["podSelector", "namespaceSelector"]) > 0);
    match pods + fields.count(&["ipBlock", "ipBlocks", "childGroups"]) {
        0 if fields.count(KNOWN) == 0 => {
            cx.fault(
                node.pos,
                "must say what is in the group: podSelector, ipBlocks or childGroups",
            );
            None
        }
        0 => None,
        1 if pods == 1 => rule::pod_selection(cx, fields, owner).map(GroupBody::Pods),
        1 if fields.has("childGroups") => Some(GroupBody::Children(children(cx, fields))),
        1 if fields.has("ipBlock") => Some(GroupBody::Blocks(vec![
            cx.optional(fields, "ipBlock", ip_block)?,
        ])),
        1 => Some(GroupBody::Blocks(cx.list(fields, "ipBlocks", ip_block))),
        _ => {
            let message = "only one of podSelector/namespaceSelector, ipBlock, ipBlocks and \
                           childGroups can be set in a group";
            cx.fault(node.pos, message);
            None
        }
    }
}

fn children<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Vec<Located<String>> {
    cx.list(fields, "childGroups", |cx, node| {
        let name = name(cx, node)?;
        Some(cx.located(node, name))
    })
}
