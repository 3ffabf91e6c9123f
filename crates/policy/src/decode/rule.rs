//! What a rule is made of: targets, peers, ports and protocols.

use super::common::{
    self, TCP, ip_block, label_key, namespace_name, port_number, port_or_name, selector, transport,
};
use super::cx::{Cx, Fields};
use crate::Side;
use crate::model::{Criterion, Peer, PodSelection, PortMatch, Scope, Selector, Service, Target};
use crate::names::NamePattern;
use crate::yaml::{Node, Value};

/// Where a policy or group lives: a namespace, or the cluster as a whole.
pub(crate) type Owner<'o> = Option<&'o str>;

const NODE_SELECTOR: (&str, &str) = ("nodeSelector", "nodeSelector is not supported");
const EXTERNAL_ENTITIES: (&str, &str) = (
    "externalEntitySelector",
    "externalEntitySelector is not supported",
);

/// One entry of `appliedTo`.
pub(crate) fn target<'a>(cx: &mut Cx<'a>, node: &'a Node, owner: Owner<'_>) -> Option<Target> {
    let fields = cx.fields(
        node,
        &[
            "podSelector",
            "namespaceSelector",
            "group",
            "serviceAccount",
            "service",
            "nodeSelector",
            "externalEntitySelector",
        ],
    )?;
    cx.refuse(
        fields,
        &[
            ("service", "applying a policy to a Service is not supported"),
            NODE_SELECTOR,
            EXTERNAL_ENTITIES,
        ],
    );
    if refuse_cluster_only(cx, fields, owner, &["namespaceSelector", "serviceAccount"]) {
        return None;
    }
    let pods = fields.count(&["podSelector", "namespaceSelector"]);
    let group = fields.count(&["group"]);
    let account = fields.count(&["serviceAccount"]);
    if group == 1 && pods + account > 0 {
        cx.fault(
            node.pos,
            "group cannot be set with other peers in appliedTo",
        );
        return None;
    }
    if account == 1 && pods > 0 {
        cx.fault(
            node.pos,
            "serviceAccount cannot be set with other peers in appliedTo",
        );
        return None;
    }
    if group == 1 {
        return cx.optional(fields, "group", group_name).map(Target::Group);
    }
    if account == 1 {
        return cx
            .optional(fields, "serviceAccount", service_account)
            .map(Target::Pods);
    }
    if pods == 0 {
        complain_if_empty(cx, node, fields);
        return None;
    }
    pod_selection(cx, fields, owner).map(Target::Pods)
}

/// One entry of an Antrea rule's `from` or `to`.
pub(crate) fn peer<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    side: Side,
    owner: Owner<'_>,
) -> Option<Peer> {
    const ALONE: &[&str] = &["ipBlock", "group", "serviceAccount", "fqdn"];
    const PODS: &[&str] = &["podSelector", "namespaceSelector", "namespaces"];
    let fields = cx.fields(
        node,
        &[
            "podSelector",
            "namespaceSelector",
            "namespaces",
            "ipBlock",
            "group",
            "fqdn",
            "serviceAccount",
            "nodeSelector",
            "externalEntitySelector",
            "scope",
        ],
    )?;
    cx.refuse(fields, &[NODE_SELECTOR, EXTERNAL_ENTITIES]);
    cluster_scope(cx, fields);
    if refuse_cluster_only(cx, fields, owner, &["namespaces", "serviceAccount"]) {
        return None;
    }
    if fields.count(&["namespaces", "namespaceSelector"]) == 2 {
        cx.fault(
            node.pos,
            "namespaces and namespaceSelector cannot be set at the same time for a single \
             NetworkPolicyPeer",
        );
        return None;
    }
    let alone = ALONE.iter().find(|key| fields.has(key));
    let Some(alone) = alone else {
        if fields.count(PODS) == 0 {
            complain_if_empty(cx, node, fields);
            return None;
        }
        return pod_selection(cx, fields, owner).map(Peer::Pods);
    };
    if fields.count(ALONE) + fields.count(PODS) > 1 {
        cx.fault(
            node.pos,
            format!("{alone} cannot be set with other peers in rules"),
        );
        return None;
    }
    match *alone {
        "ipBlock" => cx.optional(fields, "ipBlock", ip_block).map(Peer::Block),
        "group" => cx.optional(fields, "group", group_name).map(Peer::Group),
        "fqdn" if side == Side::Ingress => {
            let message = "fqdn can only be used in egress rules: nobody is asked for a name before \
                           a flow comes in";
            cx.fault_in(fields, "fqdn", message);
            None
        }
        "fqdn" => cx.optional(fields, "fqdn", fqdn).map(Peer::Fqdn),
        _ => cx
            .optional(fields, "serviceAccount", service_account)
            .map(Peer::Pods),
    }
}

/// An empty entry would match either nothing or everything, depending on whom one asks.
fn complain_if_empty<'a>(cx: &mut Cx<'a>, node: &'a Node, fields: Fields<'a>) {
    if fields.is_empty() {
        cx.fault(
            node.pos,
            "must say what it selects; `podSelector: {}` selects all pods",
        );
    }
}

fn cluster_scope<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) {
    let words = [("Cluster", false), ("ClusterSet", true)];
    let set = cx.optional(fields, "scope", |cx, node| cx.word(node, &words));
    if set == Some(true) {
        cx.fault_in(fields, "scope", "scope ClusterSet is not supported");
    }
}

fn refuse_cluster_only<'a>(
    cx: &mut Cx<'a>,
    fields: Fields<'a>,
    owner: Owner<'_>,
    keys: &[&'a str],
) -> bool {
    let found: Vec<_> = match owner {
        Some(_) => keys.iter().copied().filter(|key| fields.has(key)).collect(),
        None => Vec::new(),
    };
    for key in &found {
        cx.fault_in(fields, key, "can only be used in a ClusterNetworkPolicy");
    }
    !found.is_empty()
}

/// `podSelector`, `namespaceSelector` and `namespaces` together: pods that meet all of them.
pub(crate) fn pod_selection<'a>(
    cx: &mut Cx<'a>,
    fields: Fields<'a>,
    owner: Owner<'_>,
) -> Option<PodSelection> {
    let pods = match fields.has("podSelector") {
        true => cx.optional(fields, "podSelector", selector)?,
        false => Selector::default(),
    };
    let scope = if fields.has("namespaceSelector") {
        Scope::Labels(cx.optional(fields, "namespaceSelector", selector)?)
    } else if fields.has("namespaces") {
        cx.optional(fields, "namespaces", peer_namespaces)?
    } else {
        owner.map_or(Scope::All, |namespace| Scope::Named(namespace.to_owned()))
    };
    Some(PodSelection {
        scope,
        pods: Criterion::Labels(pods),
    })
}

fn peer_namespaces<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Scope> {
    let fields = cx.fields(node, &["match", "sameLabels"])?;
    if fields.count(&["match", "sameLabels"]) == 2 {
        cx.fault(
            node.pos,
            "only one matching criteria can be specified in a single peer namespaces field",
        );
        return None;
    }
    if fields.has("match") {
        cx.optional(fields, "match", |cx, node| cx.word(node, &[("Self", ())]))?;
        return Some(Scope::SameAsEndpoint);
    }
    let keys = cx.required(fields, "sameLabels", |cx, node| {
        let keys = cx.items(node, same_label);
        if matches!(&node.value, Value::Seq(items) if items.is_empty()) {
            cx.fault(node.pos, "must name at least one label");
        }
        (!keys.is_empty()).then_some(keys)
    })?;
    Some(Scope::SameLabels(keys))
}

fn same_label<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.string(node)?;
    if common::bad_label_key(text).is_some() {
        cx.fault(
            node.pos,
            format!("Invalid label key in sameLabels rule: {text}"),
        );
        return None;
    }
    label_key(cx, node)
}

fn service_account<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<PodSelection> {
    let fields = cx.fields(node, &["name", "namespace"])?;
    let name = cx.required(fields, "name", common::name);
    let namespace = cx.required(fields, "namespace", namespace_name);
    Some(PodSelection {
        scope: Scope::Named(namespace?),
        pods: Criterion::ServiceAccount(name?),
    })
}

/// A DNS name in which `*` stands for anything.
fn fqdn<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<NamePattern> {
    let pattern = NamePattern::new(cx.string(node)?);
    if pattern.is_none() {
        let message = "must be a DNS name: letters, digits, `-`, `_` and dots, and `*` for any \
                       characters (dots, too)";
        cx.fault(node.pos, message);
    }
    pattern
}

fn group_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<crate::model::Located<String>> {
    let name = common::name(cx, node)?;
    Some(cx.located(node, name))
}

/// One entry of `ports`. Kubernetes' has no source port.
pub(crate) fn port<'a>(cx: &mut Cx<'a>, node: &'a Node, known: &[&str]) -> Option<Service> {
    let fields = cx.fields(node, known)?;
    let protocol = match fields.has("protocol") {
        true => cx.optional(fields, "protocol", transport)?,
        false => TCP,
    };
    let destination = destination_ports(cx, node, fields);
    let source = source_ports(cx, node, fields);
    Some(Service::Ports {
        protocol,
        destination: destination?,
        source: source?,
    })
}

fn destination_ports<'a>(cx: &mut Cx<'a>, node: &'a Node, fields: Fields<'a>) -> Option<PortMatch> {
    let port = cx.optional(fields, "port", port_or_name);
    let end = cx.optional(fields, "endPort", port_number);
    if fields.has("endPort") && !fields.has("port") {
        cx.fault(
            node.pos,
            "if `endPort` is specified `port` must be specified",
        );
        return None;
    }
    if (fields.has("port") && port.is_none()) || (fields.has("endPort") && end.is_none()) {
        return None;
    }
    match (port, end) {
        (None, _) => Some(PortMatch::Any),
        (Some(PortMatch::Name(_)), Some(_)) => {
            cx.fault_in(
                fields,
                "endPort",
                "if `port` is a string `endPort` cannot be specified",
            );
            None
        }
        (Some(PortMatch::Range(low, _)), Some(high)) if high < low => {
            cx.fault_in(
                fields,
                "endPort",
                "`endPort` should be greater than or equal to `port`",
            );
            None
        }
        (Some(PortMatch::Range(low, _)), Some(high)) => Some(PortMatch::Range(low, high)),
        (Some(port), _) => Some(port),
    }
}

/// The source port range; `Some(None)` if there is none.
fn source_ports<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    fields: Fields<'a>,
) -> Option<Option<(u16, u16)>> {
    let port = cx.optional(fields, "sourcePort", port_number);
    let end = cx.optional(fields, "sourceEndPort", port_number);
    if fields.has("sourceEndPort") && !fields.has("sourcePort") {
        cx.fault(
            node.pos,
            "if `sourceEndPort` is specified `sourcePort` must be specified",
        );
        return None;
    }
    if fields.count(&["sourcePort"]) != usize::from(port.is_some())
        || fields.count(&["sourceEndPort"]) != usize::from(end.is_some())
    {
        return None;
    }
    let Some(low) = port else { return Some(None) };
    let high = end.unwrap_or(low);
    if high < low {
        let message = "`sourceEndPort` should be greater than or equal to `sourcePort`";
        cx.fault_in(fields, "sourceEndPort", message);
        return None;
    }
    Some(Some((low, high)))
}

/// One entry of `protocols`.
pub(crate) fn protocol<'a>(cx: &mut Cx<'a>, node: &'a Node, side: Side) -> Option<Service> {
    let fields = cx.fields(node, &["icmp", "igmp"])?;
    if fields.count(&["icmp", "igmp"]) != 1 {
        if fields.is_empty() || fields.has("icmp") {
            cx.fault(node.pos, "must have exactly one of icmp and igmp");
        }
        return None;
    }
    if fields.has("icmp") {
        return cx.optional(fields, "icmp", icmp);
    }
    cx.optional(fields, "igmp", |cx, node| igmp(cx, node, side))
}

fn icmp<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Service> {
    let fields = cx.fields(node, &["icmpType", "icmpCode"])?;
    let kind = cx.optional(fields, "icmpType", octet);
    let code = cx.optional(fields, "icmpCode", octet);
    if fields.has("icmpCode") && !fields.has("icmpType") {
        cx.fault(
            node.pos,
            "if `icmpCode` is specified `icmpType` must be specified",
        );
        return None;
    }
    let whole = fields.count(&["icmpType"]) == usize::from(kind.is_some())
        && fields.count(&["icmpCode"]) == usize::from(code.is_some());
    whole.then_some(Service::Icmp { kind, code })
}

fn igmp<'a>(cx: &mut Cx<'a>, node: &'a Node, side: Side) -> Option<Service> {
    /// Membership query, and reports of version 1, 2 and 3 (RFC 9776, 4).
    const QUERY: &[u8] = &[0x11];
    const REPORTS: &[u8] = &[0x12, 0x16, 0x22];
    let fields = cx.fields(node, &["igmpType", "groupAddress"])?;
    cx.refuse(fields, &[("groupAddress", "groupAddress is not supported")]);
    if !fields.has("igmpType") {
        return Some(Service::Igmp { kind: None });
    }
    let kind = cx.optional(fields, "igmpType", octet)?;
    let (good, which) = match side {
        Side::Ingress => (
            QUERY.contains(&kind),
            "an ingress rule can only match queries (0x11)",
        ),
        Side::Egress => (
            REPORTS.contains(&kind),
            "an egress rule can only match reports (0x12, 0x16, 0x22)",
        ),
    };
    if !good {
        cx.fault_in(fields, "igmpType", format!("{kind:#x}: {which}"));
        return None;
    }
    Some(Service::Igmp { kind: Some(kind) })
}

fn octet<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<u8> {
    u8::try_from(cx.integer(node, 0, 255)?).ok()
}
