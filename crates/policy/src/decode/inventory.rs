//! Who is there: namespaces, pods and endpoints.

use super::common::{
    Home, OBJECT, TCP, identity, name, pod_address, port_name, port_number, transport,
};
use super::cx::{Cx, Fields, unknown_field};
use crate::model::{Located, NamedPort, Namespace, Pod};
use crate::yaml::{Node, Value, shorten};

/// Linux' IFNAMSIZ, less the terminating zero.
const MAX_INTERFACE: usize = 15;
/// A pod without `serviceAccountName` runs under this one.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The fields of Kubernetes' `PodSpec`, so that a typo is told from a field that is of no use here.
const POD_SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
    "workloadRef",
];

/// The fields of Kubernetes' `Container`.
const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

pub(crate) fn namespace<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Namespace> {
    let object = cx.fields(node, OBJECT)?;
    cx.optional(object, "spec", |cx, node| cx.fields(node, &["finalizers"]));
    let id = identity(cx, object, "Namespace", Home::Cluster)?;
    Some(Namespace { id })
}

pub(crate) fn pod<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pod> {
    let object = cx.fields(node, OBJECT)?;
    let id = identity(cx, object, "Pod", Home::Namespace);
    let (addresses, ended) = cx
        .optional(object, "status", pod_status)
        .unwrap_or_default();
    cx.required(object, "spec", |cx, node| {
        let spec = sparse_fields(cx, node, POD_SPEC)?;
        let host_network = flag(cx, spec, "hostNetwork");
        let ports = cx
            .list(spec, "containers", container)
            .into_iter()
            .flatten()
            .collect();
        Some(Pod {
            id: id?,
            addresses,
            ports,
            service_account: service_account(cx, spec, "serviceAccountName"),
            unselectable: host_network || ended,
            interface: None,
            only_own_addresses: false,
        })
    })
}

/// A mapping that kubectl wrote: values may be null.
fn sparse_fields<'a>(cx: &mut Cx<'a>, node: &'a Node, known: &[&str]) -> Option<Fields<'a>> {
    for (key, _) in cx.entries(node)? {
        if !known.contains(&&*key.text) {
            let message = unknown_field(&key.text, known);
            cx.entry(&key.text, |cx| cx.fault(key.pos, message));
        }
    }
    Some(Fields::of(node))
}

fn flag<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, key: &'a str) -> bool {
    cx.optional(fields, key, Cx::boolean).unwrap_or(false)
}

fn service_account<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, key: &'a str) -> String {
    let named = cx.optional(fields, key, name);
    named.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned())
}

fn container<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Vec<NamedPort>> {
    let fields = sparse_fields(cx, node, CONTAINER)?;
    Some(
        cx.list(fields, "ports", container_port)
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// A container's port; `Some(None)` if it has no name and is of no use to policies.
fn container_port<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Option<NamedPort>> {
    let known = &["name", "containerPort", "protocol", "hostPort", "hostIP"];
    let fields = cx.fields(node, known)?;
    let port = cx.required(fields, "containerPort", port_number);
    let name = cx.optional(fields, "name", port_name);
    let protocol = cx.optional(fields, "protocol", transport).unwrap_or(TCP);
    let port = port?;
    Some(name.map(|name| NamedPort {
        name,
        protocol,
        port,
    }))
}

/// The addresses of a pod, and whether it has ended: then its addresses may be another's by now.
fn pod_status<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
) -> Option<(Vec<Located<std::net::IpAddr>>, bool)> {
    let Value::Map(_) = node.value else {
        cx.fault(
            node.pos,
            format!("must be a mapping, not {}", node.describe()),
        );
        return None;
    };
    let status = Fields::of(node);
    let phase = status.get("phase").and_then(Node::as_str);
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let mut addresses = cx.list(status, "podIPs", |cx, node| {
        let fields = cx.fields(node, &["ip"])?;
        cx.required(fields, "ip", located_address)
    });
    let first = cx.optional(status, "podIP", |cx, node| match node.as_str() {
        Some("") => None,
        _ => located_address(cx, node),
    });
    if let Some(first) = first {
        // podIP repeats the first of podIPs.
        if !addresses.iter().any(|known| known.value == first.value) {
            addresses.push(first);
        }
    }
    Some((addresses, ended))
}

fn located_address<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Located<std::net::IpAddr>> {
    let address = pod_address(cx, node)?;
    Some(cx.located(node, address))
}

pub(crate) fn endpoint<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pod> {
    let object = cx.fields(node, OBJECT)?;
    let id = identity(cx, object, "Endpoint", Home::Namespace);
    cx.required(object, "spec", |cx, node| {
        let known = [
            "interface",
            "addresses",
            "onlyOwnAddresses",
            "ports",
            "serviceAccount",
        ];
        let spec = cx.fields(node, &known)?;
        let interface = cx.required(spec, "interface", interface);
        let addresses = cx.required(spec, "addresses", |cx, node| {
            let addresses = cx.items(node, located_address);
            if matches!(&node.value, Value::Seq(items) if items.is_empty()) {
                cx.fault(node.pos, "must have at least one address");
            }
            Some(addresses)
        });
        let ports = cx.list(spec, "ports", endpoint_port);
        let service_account = service_account(cx, spec, "serviceAccount");
        Some(Pod {
            id: id?,
            addresses: addresses?,
            ports,
            service_account,
            unselectable: false,
            interface: Some(interface?),
            only_own_addresses: flag(cx, spec, "onlyOwnAddresses"),
        })
    })
}

fn endpoint_port<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<NamedPort> {
    let fields = cx.fields(node, &["name", "port", "protocol"])?;
    let name = cx.required(fields, "name", port_name);
    let port = cx.required(fields, "port", port_number);
    let protocol = match fields.has("protocol") {
        true => cx.optional(fields, "protocol", transport)?,
        false => TCP,
    };
    Some(NamedPort {
        name: name?,
        protocol,
        port: port?,
    })
}

/// A network interface's name, by the kernel's rules (`dev_valid_name`).
fn interface<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Located<String>> {
    let text = cx.text(node)?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.len() > MAX_INTERFACE || text == "." || text == ".." || text.contains(bad) {
        let message = format!(
            "{:?} is not an interface name: at most {MAX_INTERFACE} bytes without `/`, `:` and blanks",
            shorten(text)
        );
        cx.fault(node.pos, message);
        return None;
    }
    Some(cx.located(node, text.to_owned()))
}
