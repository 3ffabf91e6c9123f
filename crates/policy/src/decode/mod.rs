//! From nodes to the model, one document at a time; every fault is reported with its field.

mod antrea;
mod common;
mod cx;
mod inventory;
mod kubernetes;
mod l7;
mod rule;

pub(crate) use antrea::BASELINE_TIER;
pub(crate) use common::{ICMP, ICMPV6, IGMP, TCP, UDP};

use crate::diagnostic::Diagnostic;
use crate::model::{Identity, Inventory};
use crate::yaml::{self, Node, Value, shorten};
use cx::Cx;

pub(crate) const ANTREA: &str = "crd.antrea.io/v1beta1";
pub(crate) const KUBERNETES: &str = "networking.k8s.io/v1";
pub(crate) const CORE: &str = "v1";
pub(crate) const TOLLGATE: &str = "policy.tollgate.dev/v1alpha1";

/// Kinds and the version each is read in.
const KINDS: &[(&str, &str)] = &[
    (ANTREA, "ClusterNetworkPolicy"),
    (ANTREA, "NetworkPolicy"),
    (ANTREA, "Tier"),
    (ANTREA, "ClusterGroup"),
    (ANTREA, "Group"),
    (KUBERNETES, "NetworkPolicy"),
    (CORE, "Namespace"),
    (CORE, "Pod"),
    (CORE, "List"),
    (TOLLGATE, "Endpoint"),
    (TOLLGATE, "ClusterNetworkPolicy"),
    (TOLLGATE, "NetworkPolicy"),
];

/// Depth of `List`s in `List`s; kubectl writes one.
const MAX_LIST_DEPTH: usize = 4;

/// Reads one file into the inventory and returns what is wrong with it. `broken` gets the objects
/// that have faults, so that references to them are not reported as well.
pub(crate) fn file(
    name: &str,
    index: u32,
    text: &str,
    inventory: &mut Inventory,
    broken: &mut Vec<Identity>,
) -> Vec<Diagnostic> {
    let (documents, syntax) = yaml::parse(text);
    let mut cx = Cx::new(name, index);
    // First, so that it is not among those of which there are too many.
    if let Some(fault) = syntax {
        cx.fault(fault.pos, fault.message);
    }
    for document in &documents {
        cx.set_object(None);
        object(&mut cx, document, inventory, broken, 0);
    }
    cx.into_faults()
}

fn object<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    inventory: &mut Inventory,
    broken: &mut Vec<Identity>,
    depth: usize,
) {
    let Value::Map(_) = node.value else {
        cx.fault(
            node.pos,
            format!("a document must be a mapping, not {}", node.describe()),
        );
        return;
    };
    let Some((version, kind)) = version_and_kind(cx, node) else {
        return;
    };
    if kind == "List" {
        return list(cx, node, inventory, broken, depth);
    }
    cx.set_object(object_name(node, version, kind));
    cx.set_extended(version == TOLLGATE);
    let before = cx.fault_count();
    let id = match (version, kind) {
        (ANTREA | TOLLGATE, "ClusterNetworkPolicy" | "NetworkPolicy") => keep(
            antrea::policy(cx, node, kind),
            &mut inventory.policies,
            |p| &p.id,
        ),
        (ANTREA, "Tier") => keep(antrea::tier(cx, node), &mut inventory.tiers, |t| &t.id),
        (ANTREA, _) => keep(antrea::group(cx, node, kind), &mut inventory.groups, |g| {
            &g.id
        }),
        (KUBERNETES, _) => keep(kubernetes::policy(cx, node), &mut inventory.policies, |p| {
            &p.id
        }),
        (CORE, "Namespace") => keep(
            inventory::namespace(cx, node),
            &mut inventory.namespaces,
            |n| &n.id,
        ),
        (CORE, _) => keep(inventory::pod(cx, node), &mut inventory.pods, |p| &p.id),
        _ => keep(inventory::endpoint(cx, node), &mut inventory.pods, |p| {
            &p.id
        }),
    };
    if cx.fault_count() > before {
        broken.extend(id.or_else(|| guess(cx, node, version, kind)));
    }
}

/// Adds an object to its kind's list; returns who it is.
fn keep<T>(object: Option<T>, list: &mut Vec<T>, id: impl Fn(&T) -> &Identity) -> Option<Identity> {
    let object = object?;
    let identity = id(&object).clone();
    list.push(object);
    Some(identity)
}

/// Who a document that could not be decoded would have been.
fn guess(cx: &Cx<'_>, node: &Node, version: &str, kind: &str) -> Option<Identity> {
    let metadata = node.get("metadata")?;
    Some(Identity {
        kind: display_kind(version, kind),
        namespace: metadata
            .get("namespace")
            .and_then(Node::as_str)
            .map(str::to_owned),
        name: metadata.get("name").and_then(Node::as_str)?.to_owned(),
        labels: Default::default(),
        place: cx.place(node.pos),
    })
}

fn list<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    inventory: &mut Inventory,
    broken: &mut Vec<Identity>,
    depth: usize,
) {
    if depth >= MAX_LIST_DEPTH {
        cx.fault(node.pos, "lists are nested too deeply");
        return;
    }
    let Some(fields) = cx.fields(node, &["apiVersion", "kind", "metadata", "items"]) else {
        return;
    };
    let Some(items) = fields.get("items") else {
        return cx.fault_in(fields, "items", "is required");
    };
    let Value::Seq(items) = &items.value else {
        return cx.fault_in(
            fields,
            "items",
            format!("must be a list, not {}", items.describe()),
        );
    };
    for (number, item) in items.iter().enumerate() {
        cx.entry("items", |cx| {
            cx.element(number, |cx| object(cx, item, inventory, broken, depth + 1));
        });
        cx.set_object(None);
    }
}

/// A known pair of `apiVersion` and `kind`.
fn version_and_kind<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<(&'static str, &'static str)> {
    let version = word(cx, node, "apiVersion");
    let kind = word(cx, node, "kind");
    let (version, kind) = (version?, kind?);
    if let Some(known) = KINDS.iter().find(|known| **known == (version, kind)) {
        return Some(*known);
    }
    let versions: Vec<_> = KINDS
        .iter()
        .filter(|known| known.1 == kind)
        .map(|known| known.0)
        .collect();
    if versions.is_empty() {
        let kinds: Vec<_> = KINDS
            .iter()
            .filter(|k| k.0 == version)
            .map(|k| k.1)
            .collect();
        let hint = match kinds.is_empty() {
            true => String::new(),
            false => format!("; of {version}, Tollgate reads {}", kinds.join(", ")),
        };
        let message = format!("kind {:?} is not supported{hint}", shorten(kind));
        cx.entry("kind", |cx| cx.fault(pos_of(node, "kind"), message));
    } else {
        let message = format!(
            "{:?} is not supported for kind {kind}; it is read as {}",
            shorten(version),
            versions.join(" or ")
        );
        cx.entry("apiVersion", |cx| {
            cx.fault(pos_of(node, "apiVersion"), message)
        });
    }
    None
}

fn word<'a>(cx: &mut Cx<'a>, node: &'a Node, key: &'a str) -> Option<&'a str> {
    match node.get(key) {
        Some(value) => cx.entry(key, |cx| cx.text(value)),
        None => {
            cx.entry(key, |cx| cx.fault(node.pos, "is required"));
            None
        }
    }
}

fn pos_of(node: &Node, key: &str) -> crate::diagnostic::Pos {
    node.get(key).map_or(node.pos, |value| value.pos)
}

/// The kind as it is displayed; the two `NetworkPolicy`s must be told apart.
fn display_kind(version: &str, kind: &str) -> &'static str {
    match (version, kind) {
        (KUBERNETES, _) => kubernetes::KIND,
        _ => KINDS
            .iter()
            .find(|known| **known == (version, kind))
            .map_or("", |known| known.1),
    }
}

/// `Kind/namespace/name` of a document, as far as it can be read before it is decoded.
fn object_name(node: &Node, version: &str, kind: &str) -> Option<String> {
    let kind = display_kind(version, kind);
    let metadata = node.get("metadata");
    let text = |key| {
        metadata
            .and_then(|m| m.get(key))
            .and_then(Node::as_str)
            .map(shorten)
    };
    let Some(name) = text("name") else {
        return Some(kind.to_owned());
    };
    Some(match text("namespace") {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    })
}
