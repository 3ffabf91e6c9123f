//! What several kinds share: metadata, names, selectors, addresses, ports.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cx::{Cx, Fields, unknown_field};
use crate::model::{Identity, IpBlock, Labels, Operator, PortMatch, Requirement, Selector};
use crate::yaml::{Node, Value, shorten};

/// IP protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// Kubernetes' bounds for names: RFC 1123 subdomain and label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The fields of Kubernetes' `ObjectMeta`.
const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The top-level fields of an object whose substance is in `spec`.
pub(crate) const OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// Whether a kind lives in a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Namespace,
    Cluster,
}

/// `metadata`.
pub(crate) fn identity<'a>(
    cx: &mut Cx<'a>,
    object: Fields<'a>,
    kind: &'static str,
    home: Home,
) -> Option<Identity> {
    cx.required(object, "metadata", |cx, node| {
        let fields = metadata_fields(cx, node)?;
        let labels = cx.optional(fields, "labels", labels).unwrap_or_default();
        let place = cx.place(fields.get("name").map_or(node.pos, |name| name.pos));
        let name = cx.required(fields, "name", name);
        let namespace = match home {
            Home::Namespace => Some(cx.required(fields, "namespace", namespace_name)?),
            Home::Cluster => {
                if fields.has("namespace") {
                    cx.fault_in(fields, "namespace", format!("a {kind} has no namespace"));
                }
                None
            }
        };
        Some(Identity {
            kind,
            namespace,
            name: name?,
            labels,
            place,
        })
    })
}

/// Unlike elsewhere, null is fine here: kubectl writes `creationTimestamp: null`.
fn metadata_fields<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Fields<'a>> {
    const DECISIVE: &[&str] = &["name", "namespace", "labels"];
    for (key, value) in cx.entries(node)? {
        if !METADATA.contains(&&*key.text) {
            let message = unknown_field(&key.text, METADATA);
            cx.entry(&key.text, |cx| cx.fault(key.pos, message));
        } else if matches!(value.value, Value::Null) && DECISIVE.contains(&&*key.text) {
            cx.entry(&key.text, |cx| {
                cx.fault(key.pos, "has no value; leave the field out")
            });
        }
    }
    Some(Fields::of(node))
}

/// An object's name: an RFC 1123 subdomain.
pub(crate) fn name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.text(node)?;
    let good = text.len() <= MAX_NAME && text.split('.').all(|part| dns_label(part, MAX_NAME));
    if !good {
        let message = format!(
            "{:?} is not a name: lower-case letters, digits, `-` and `.`, at most {MAX_NAME}, \
             with a letter or digit at both ends",
            shorten(text)
        );
        cx.fault(node.pos, message);
        return None;
    }
    Some(text.to_owned())
}

/// A namespace's name: an RFC 1123 label.
pub(crate) fn namespace_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.text(node)?;
    if !dns_label(text, MAX_LABEL) {
        let message = format!(
            "{:?} is not a namespace: lower-case letters, digits and `-`, at most {MAX_LABEL}, \
             with a letter or digit at both ends",
            shorten(text)
        );
        cx.fault(node.pos, message);
        return None;
    }
    Some(text.to_owned())
}

fn dns_label(text: &str, longest: usize) -> bool {
    let edge =
        |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= longest
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Labels: a mapping of keys to strings.
pub(crate) fn labels<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Labels> {
    let mut labels = Labels::new();
    for (key, value) in cx.entries(node)? {
        cx.entry(&key.text, |cx| {
            if let Some(why) = bad_label_key(&key.text) {
                cx.fault(
                    key.pos,
                    format!("Invalid label key: {}: {why}", shorten(&key.text)),
                );
            } else if let Some(value) = label_value(cx, value) {
                labels.insert(key.text.to_string(), value);
            }
        });
    }
    Some(labels)
}

fn label_value<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.string(node)?;
    if let Some(why) = bad_label_value(text) {
        cx.fault(
            node.pos,
            format!("Invalid label value: {}: {why}", shorten(text)),
        );
        return None;
    }
    Some(text.to_owned())
}

/// A label's key: an optional DNS prefix and a name.
pub(crate) fn label_key<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    let text = cx.string(node)?;
    if let Some(why) = bad_label_key(text) {
        cx.fault(
            node.pos,
            format!("Invalid label key: {}: {why}", shorten(text)),
        );
        return None;
    }
    Some(text.to_owned())
}

/// Why a label key is not one.
pub(crate) fn bad_label_key(key: &str) -> Option<&'static str> {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(p, n)| (Some(p), n));
    if prefix.is_some_and(|p| p.len() > MAX_NAME || !p.split('.').all(|s| dns_label(s, MAX_NAME))) {
        return Some("the part before `/` must be a DNS name in lower case");
    }
    if name.is_empty() {
        return Some("the name must not be empty");
    }
    bad_label_value(name)
}

/// Why a label value is not one.
pub(crate) fn bad_label_value(value: &str) -> Option<&'static str> {
    if value.len() > MAX_LABEL {
        return Some("must be no more than 63 characters");
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    let good =
        value.bytes().all(inner) && edge(value.bytes().next()) && edge(value.bytes().next_back());
    (!good).then_some(
        "must consist of letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
    )
}

/// A label selector.
pub(crate) fn selector<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Selector> {
    let fields = cx.fields(node, &["matchLabels", "matchExpressions"])?;
    let equal = cx
        .optional(fields, "matchLabels", labels)
        .unwrap_or_default();
    let mut requirements: Vec<_> = equal
        .into_iter()
        .map(|(key, value)| Requirement {
            key,
            operator: Operator::In(vec![value]),
        })
        .collect();
    requirements.extend(cx.list(fields, "matchExpressions", requirement));
    Some(Selector { requirements })
}

fn requirement<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Requirement> {
    let fields = cx.fields(node, &["key", "operator", "values"])?;
    let key = cx.required(fields, "key", label_key);
    let words = [("In", 0), ("NotIn", 1), ("Exists", 2), ("DoesNotExist", 3)];
    let operator = cx.required(fields, "operator", |cx, node| cx.word(node, &words))?;
    let values = cx.list(fields, "values", label_value);
    if operator <= 1 && !fields.has("values") {
        cx.fault_in(fields, "values", "is required with operator In or NotIn");
        return None;
    }
    if operator <= 1 && values.is_empty() {
        cx.fault_in(
            fields,
            "values",
            "must not be empty with operator In or NotIn",
        );
        return None;
    }
    if operator > 1 && !values.is_empty() {
        cx.fault_in(
            fields,
            "values",
            "must be empty with operator Exists or DoesNotExist",
        );
        return None;
    }
    let operator = match operator {
        0 => Operator::In(values),
        1 => Operator::NotIn(values),
        2 => Operator::Exists,
        _ => Operator::DoesNotExist,
    };
    Some(Requirement {
        key: key?,
        operator,
    })
}

/// `ipBlock`: a CIDR and its exceptions.
pub(crate) fn ip_block<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<IpBlock> {
    let fields = cx.fields(node, &["cidr", "except"])?;
    if !fields.has("cidr") {
        cx.fault_in(fields, "cidr", "field 'cidr' is required in an ipBlock");
        return None;
    }
    let cidr = cx.optional(fields, "cidr", |cx, node| {
        cidr(cx, node, "invalid CIDR value")
    })?;
    let except = cx.list(fields, "except", |cx, node| {
        let net = self::cidr(cx, node, "invalid except CIDR value")?;
        // `contains` is never true across families.
        if !cidr.contains(&net) || net == cidr {
            cx.fault(
                node.pos,
                format!("except CIDR {net} is not a strict subset of CIDR {cidr}"),
            );
            return None;
        }
        Some(net)
    });
    Some(IpBlock { cidr, except })
}

/// A CIDR; bits behind the prefix are cleared, as Kubernetes does.
fn cidr<'a>(cx: &mut Cx<'a>, node: &'a Node, complaint: &str) -> Option<IpNet> {
    let text = cx.string(node)?;
    match text.parse::<IpNet>() {
        Ok(net) => Some(net.trunc()),
        Err(_) => {
            let hint = match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "; did you mean to append /32?",
                Ok(IpAddr::V6(_)) => "; did you mean to append /128?",
                Err(_) => "",
            };
            cx.fault(node.pos, format!("{complaint}: {}{hint}", shorten(text)));
            None
        }
    }
}

/// An address that a pod can have.
pub(crate) fn pod_address<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<IpAddr> {
    let text = cx.string(node)?;
    let Ok(address) = text.parse::<IpAddr>() else {
        cx.fault(
            node.pos,
            format!("{:?} is not an IP address", shorten(text)),
        );
        return None;
    };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        cx.fault(
            node.pos,
            format!("{address} cannot be the address of a pod"),
        );
        return None;
    }
    Some(address)
}

/// A port number.
pub(crate) fn port_number<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<u16> {
    let number = cx.integer(node, 1, i64::from(u16::MAX))?;
    u16::try_from(number).ok()
}

/// `TCP`, `UDP` or `SCTP`.
pub(crate) fn transport<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<u8> {
    cx.word(node, &[("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)])
}

/// A port by number or name.
pub(crate) fn port_or_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<PortMatch> {
    match &node.value {
        Value::Str(_) => port_name(cx, node).map(PortMatch::Name),
        _ => port_number(cx, node).map(|port| PortMatch::Range(port, port)),
    }
}

/// A port's name: an IANA service name (RFC 6335, 5.1).
pub(crate) fn port_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<String> {
    const LONGEST: usize = 15;
    let text = cx.text(node)?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        cx.fault(
            node.pos,
            format!("{text:?} is not a port name; write a number without quotes"),
        );
        return None;
    }
    let good = dns_label(text, LONGEST)
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase());
    if !good {
        let message = format!(
            "{:?} is not a port name: at most {LONGEST} lower-case letters, digits and single `-`, \
             at least one letter",
            shorten(text)
        );
        cx.fault(node.pos, message);
        return None;
    }
    Some(text.to_owned())
}
