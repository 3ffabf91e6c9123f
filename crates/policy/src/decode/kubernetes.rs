//! `networking.k8s.io/v1` NetworkPolicy.

use super::common::{Home, OBJECT, identity, ip_block, selector};
use super::cx::{Cx, Fields};
use super::rule;
use crate::Side;
use crate::model::{
    Criterion, Identity, Order, Peer, PodSelection, Policy, Rule, Scope, Service, Target,
};
use crate::query::Action;
use crate::yaml::{Node, Value};

/// The kind as it is displayed, to tell it from Antrea's NetworkPolicy.
pub(crate) const KIND: &str = "K8sNetworkPolicy";

pub(crate) fn policy<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Policy> {
    let object = cx.fields(node, OBJECT)?;
    let id = identity(cx, object, KIND, Home::Namespace);
    cx.required(object, "spec", |cx, spec| policy_spec(cx, spec, id))
}

fn policy_spec<'a>(cx: &mut Cx<'a>, node: &'a Node, id: Option<Identity>) -> Option<Policy> {
    let fields = cx.fields(node, &["podSelector", "policyTypes", "ingress", "egress"])?;
    // A placeholder lets the rules be checked although the metadata is bad.
    let owner = id
        .as_ref()
        .and_then(|id| id.namespace.clone())
        .unwrap_or_default();
    let pods = cx.required(fields, "podSelector", selector);
    let isolates = policy_types(cx, fields);
    let mut rules = Vec::new();
    for (key, side) in [("ingress", Side::Ingress), ("egress", Side::Egress)] {
        let mut number = 0;
        rules.extend(cx.list(fields, key, |cx, node| {
            number += 1;
            rule(cx, node, side, number - 1, &owner)
        }));
    }
    rules.retain(|rule| isolates.contains(&rule.side));
    let pods = PodSelection {
        scope: Scope::Named(owner),
        pods: Criterion::Labels(pods?),
    };
    Some(Policy {
        id: id?,
        order: Order::Kubernetes,
        applied_to: Some(vec![Target::Pods(pods)]),
        isolates,
        rules,
        audit: false,
    })
}

/// `policyTypes`; absent means Ingress, and Egress if there are egress rules.
fn policy_types<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Vec<Side> {
    let words = [("Ingress", Side::Ingress), ("Egress", Side::Egress)];
    let types = cx.list(fields, "policyTypes", |cx, node| cx.word(node, &words));
    let all_known = matches!(
        fields.get("policyTypes").map(|n| &n.value),
        Some(Value::Seq(listed)) if listed.len() == types.len()
    );
    if !types.is_empty() {
        for (key, side) in [("ingress", Side::Ingress), ("egress", Side::Egress)] {
            if all_known && fields.has(key) && !types.contains(&side) {
                cx.fault_in(
                    fields,
                    key,
                    "has no effect: its type is missing in policyTypes",
                );
            }
        }
        return types;
    }
    match matches!(fields.get("egress").map(|n| &n.value), Some(Value::Seq(rules)) if !rules.is_empty())
    {
        true => vec![Side::Ingress, Side::Egress],
        false => vec![Side::Ingress],
    }
}

fn rule<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    side: Side,
    number: usize,
    owner: &str,
) -> Option<Rule> {
    let (peers, name) = match side {
        Side::Ingress => ("from", "ingress"),
        Side::Egress => ("to", "egress"),
    };
    let fields = cx.fields(node, &[peers, "ports"])?;
    Some(Rule {
        side,
        name: format!("{name}[{number}]"),
        action: cx.located(node, Action::Allow),
        applied_to: None,
        peers: cx.list(fields, peers, |cx, node| peer(cx, node, owner)),
        services: services(cx, fields),
        l7: Vec::new(),
        logged: false,
        log_label: None,
    })
}

fn services<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Vec<Service> {
    const PORT: &[&str] = &["protocol", "port", "endPort"];
    cx.list(fields, "ports", |cx, node| rule::port(cx, node, PORT))
}

fn peer<'a>(cx: &mut Cx<'a>, node: &'a Node, owner: &str) -> Option<Peer> {
    const PODS: &[&str] = &["podSelector", "namespaceSelector"];
    let fields = cx.fields(node, &["podSelector", "namespaceSelector", "ipBlock"])?;
    let pods = fields.count(PODS);
    if fields.has("ipBlock") && pods > 0 {
        cx.fault(
            node.pos,
            "ipBlock cannot be set with podSelector or namespaceSelector",
        );
        return None;
    }
    if fields.has("ipBlock") {
        return cx.optional(fields, "ipBlock", ip_block).map(Peer::Block);
    }
    if pods == 0 {
        if fields.is_empty() {
            cx.fault(
                node.pos,
                "must have podSelector, namespaceSelector or ipBlock",
            );
        }
        return None;
    }
    rule::pod_selection(cx, fields, Some(owner)).map(Peer::Pods)
}
