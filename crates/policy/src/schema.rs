//! The shape of every kind as JSON Schema, for editors and for checks outside of the cluster.
//!
//! Documents are decoded by hand, for the sake of exact messages; the types here only mirror what
//! the decoders take, and tests hold the two together. A schema says which fields there are and of
//! what type; what a schema cannot say well (bounds between fields, references) `compile` says.
#![allow(
    dead_code,
    reason = "the types are only there for their derived schema"
)]

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::decode::{ANTREA, CORE, KUBERNETES, TOLLGATE};

/// Marks the fields that Antrea's kinds do not have; not in the outcome.
const EXTENSION: &str = "x-tollgate";

/// One JSON Schema (2020-12) for a document of any kind that is read.
pub fn json_schema() -> Value {
    let mut kinds = Vec::new();
    for version in [ANTREA, TOLLGATE] {
        kinds.push(kind::<PolicySpec>(version, "ClusterNetworkPolicy"));
        kinds.push(kind::<PolicySpec>(version, "NetworkPolicy"));
    }
    kinds.push(kind::<TierSpec>(ANTREA, "Tier"));
    kinds.push(kind::<GroupSpec>(ANTREA, "ClusterGroup"));
    kinds.push(kind::<GroupSpec>(ANTREA, "Group"));
    kinds.push(kind::<KubernetesSpec>(KUBERNETES, "NetworkPolicy"));
    kinds.push(kind::<EndpointSpec>(TOLLGATE, "Endpoint"));
    kinds.push(kind::<PodSpec>(CORE, "Pod"));
    kinds.push(kind::<NamespaceSpec>(CORE, "Namespace"));
    kinds.push(json!({
        "type": "object",
        "properties": {
            "apiVersion": {"const": CORE},
            "kind": {"const": "List"},
            "metadata": {},
            "items": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["apiVersion", "kind", "items"],
        "additionalProperties": false,
    }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document that Tollgate reads",
        "oneOf": kinds,
    })
}

/// The schema of one kind.
fn kind<Spec: JsonSchema>(version: &str, kind: &str) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let status = match kind {
        "Pod" => of::<PodStatus>(&mut generator, version),
        _ => json!({}),
    };
    let required: &[&str] = match kind {
        "Namespace" => &["apiVersion", "kind", "metadata"],
        _ => &["apiVersion", "kind", "metadata", "spec"],
    };
    json!({
        "title": format!("{version} {kind}"),
        "type": "object",
        "properties": {
            "apiVersion": {"const": version},
            "kind": {"const": kind},
            "metadata": of::<Metadata>(&mut generator, version),
            "spec": of::<Spec>(&mut generator, version),
            "status": status,
        },
        "required": required,
        "additionalProperties": false,
    })
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator, version: &str) -> Value {
    let mut schema = generator.subschema_for::<T>().to_value();
    tidy(&mut schema, version == TOLLGATE);
    schema
}

/// Takes out what is not for this group, and null, which no field takes.
fn tidy(schema: &mut Value, extended: bool) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, extended)),
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                properties.retain(|_, property| extended || property.get(EXTENSION).is_none());
            }
            fields.remove(EXTENSION);
            without_null(fields);
            fields.values_mut().for_each(|field| tidy(field, extended));
        }
        _ => {}
    }
}

/// An optional field may be left out, but not be null.
fn without_null(fields: &mut Map<String, Value>) {
    let not_null = |kind: &Value| *kind != json!("null") && *kind != json!({"type": "null"});
    for key in ["type", "anyOf"] {
        let Some(Value::Array(kinds)) = fields.get_mut(key) else {
            continue;
        };
        kinds.retain(not_null);
        if kinds.len() != 1 {
            continue;
        }
        match kinds.pop() {
            Some(Value::Object(only)) if key == "anyOf" => {
                fields.remove(key);
                for (name, value) in only {
                    // The field's own description says more than its type's.
                    fields.entry(name).or_insert(value);
                }
            }
            Some(only) => drop(fields.insert(key.to_owned(), only)),
            None => {}
        }
    }
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

/// Kubernetes' metadata; only name, namespace and labels count.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Value>,
    creation_timestamp: Option<Value>,
    deletion_grace_period_seconds: Option<Value>,
    deletion_timestamp: Option<Value>,
    finalizers: Option<Value>,
    generate_name: Option<Value>,
    generation: Option<Value>,
    managed_fields: Option<Value>,
    owner_references: Option<Value>,
    resource_version: Option<Value>,
    self_link: Option<Value>,
    uid: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct PolicySpec {
    /// A tier's name; `application` if absent.
    tier: Option<String>,
    /// 1 to 10000; lower is earlier.
    #[schemars(range(min = 1, max = 10_000))]
    priority: f64,
    /// Endpoints; here or in every rule.
    applied_to: Option<Vec<AppliedTo>>,
    ingress: Option<Vec<IngressRule>>,
    egress: Option<Vec<EgressRule>>,
    /// `audit`: report, and let others decide.
    #[schemars(extend("x-tollgate" = true))]
    enforcement: Option<Enforcement>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Enforcement {
    Enforce,
    Audit,
}

/// The fields that rules of both directions have, and those of one.
macro_rules! rule {
    ($name:ident, $peers:ident) => {
        #[derive(JsonSchema)]
        #[schemars(rename_all = "camelCase", deny_unknown_fields)]
        struct $name {
            /// Unique in the policy.
            name: Option<String>,
            action: RuleAction,
            /// Alternatives; none: anyone.
            $peers: Option<Vec<Peer>>,
            /// Alternatives, together with protocols; none: any.
            ports: Option<Vec<Port>>,
            protocols: Option<Vec<Protocol>>,
            /// Judge what the flow carries: one of these must match.
            #[schemars(length(min = 1))]
            l7_protocols: Option<Vec<L7Item>>,
            applied_to: Option<Vec<AppliedTo>>,
            enable_logging: Option<bool>,
            log_label: Option<String>,
        }
    };
}

rule!(IngressRule, from);
rule!(EgressRule, to);

#[derive(JsonSchema)]
enum RuleAction {
    Allow,
    Drop,
    Reject,
    Pass,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct AppliedTo {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    group: Option<String>,
    service_account: Option<ServiceAccount>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    namespaces: Option<PeerNamespaces>,
    ip_block: Option<IpBlock>,
    group: Option<String>,
    /// A domain name, or a pattern of them.
    fqdn: Option<String>,
    service_account: Option<ServiceAccount>,
    scope: Option<Scope>,
}

#[derive(JsonSchema)]
enum Scope {
    Cluster,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct PeerNamespaces {
    r#match: Option<NamespaceMatch>,
    same_labels: Option<Vec<String>>,
}

#[derive(JsonSchema)]
enum NamespaceMatch {
    #[schemars(rename = "Self")]
    Own,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ServiceAccount {
    name: String,
    namespace: String,
}

/// All requirements must hold; `{}` selects everything.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Option<Vec<String>>,
}

#[derive(JsonSchema)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct IpBlock {
    cidr: String,
    except: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    /// `TCP` if absent.
    protocol: Option<Transport>,
    port: Option<PortOrName>,
    end_port: Option<u16>,
    source_port: Option<u16>,
    source_end_port: Option<u16>,
}

#[derive(JsonSchema)]
enum Transport {
    #[schemars(rename = "TCP")]
    Tcp,
    #[schemars(rename = "UDP")]
    Udp,
    #[schemars(rename = "SCTP")]
    Sctp,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum PortOrName {
    Number(u16),
    Name(String),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Protocol {
    icmp: Option<Icmp>,
    igmp: Option<Igmp>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Icmp {
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Igmp {
    igmp_type: Option<u8>,
}

/// One of `http`, `grpc` and `tls`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct L7Item {
    http: Option<Http>,
    #[schemars(extend("x-tollgate" = true))]
    grpc: Option<Grpc>,
    tls: Option<Tls>,
    /// `Deny` items are asked before all others.
    #[schemars(extend("x-tollgate" = true))]
    action: Option<AllowDeny>,
}

#[derive(JsonSchema)]
enum AllowDeny {
    Allow,
    Deny,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Http {
    /// A pattern: `*` at the start, the end or both stands for anything.
    host: Option<String>,
    method: Option<Method>,
    /// A pattern.
    path: Option<String>,
    /// Instead of `method`: any of these.
    #[schemars(extend("x-tollgate" = true), length(min = 1, max = 32))]
    methods: Option<Vec<String>>,
    /// Instead of `path`: matches whole paths.
    #[schemars(extend("x-tollgate" = true))]
    path_regex: Option<String>,
    /// All must be there.
    #[schemars(extend("x-tollgate" = true), length(min = 1, max = 32))]
    headers: Option<Vec<NameValue>>,
    /// All must be there.
    #[schemars(extend("x-tollgate" = true), length(min = 1, max = 32))]
    query: Option<Vec<NameValue>>,
    /// Whether the request may leave HTTP.
    #[schemars(extend("x-tollgate" = true))]
    upgrade: Option<AllowDeny>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
    Put,
    Head,
    Delete,
    Trace,
    Options,
    Connect,
    Patch,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NameValue {
    name: String,
    /// A pattern; any value if absent.
    value: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Grpc {
    host: Option<String>,
    service: Option<String>,
    method: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    /// A pattern.
    sni: Option<String>,
    /// Every protocol that the client offers must be one of these.
    #[schemars(extend("x-tollgate" = true), length(min = 1, max = 32))]
    alpn: Option<Vec<String>>,
    /// The client's highest version is no lower.
    #[schemars(extend("x-tollgate" = true))]
    min_version: Option<TlsVersion>,
    #[schemars(extend("x-tollgate" = true))]
    quic: Option<AllowDeny>,
    #[schemars(extend("x-tollgate" = true))]
    ech: Option<AllowDeny>,
}

#[derive(JsonSchema)]
enum TlsVersion {
    #[schemars(rename = "1.0")]
    Tls10,
    #[schemars(rename = "1.1")]
    Tls11,
    #[schemars(rename = "1.2")]
    Tls12,
    #[schemars(rename = "1.3")]
    Tls13,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TierSpec {
    priority: u8,
    description: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct GroupSpec {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    ip_block: Option<IpBlock>,
    ip_blocks: Option<Vec<IpBlock>>,
    child_groups: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesSpec {
    pod_selector: Selector,
    policy_types: Option<Vec<PolicyType>>,
    ingress: Option<Vec<KubernetesIngress>>,
    egress: Option<Vec<KubernetesEgress>>,
}

#[derive(JsonSchema)]
enum PolicyType {
    Ingress,
    Egress,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct KubernetesIngress {
    from: Option<Vec<KubernetesPeer>>,
    ports: Option<Vec<KubernetesPort>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct KubernetesEgress {
    to: Option<Vec<KubernetesPeer>>,
    ports: Option<Vec<KubernetesPort>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesPeer {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    ip_block: Option<IpBlock>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesPort {
    protocol: Option<Transport>,
    port: Option<PortOrName>,
    end_port: Option<u16>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSpec {
    /// The host's network interface that the endpoint is behind.
    interface: String,
    #[schemars(length(min = 1))]
    addresses: Vec<String>,
    /// Drop what the endpoint sends from any other address.
    only_own_addresses: Option<bool>,
    ports: Option<Vec<EndpointPort>>,
    /// `default` if absent.
    service_account: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EndpointPort {
    name: String,
    port: u16,
    protocol: Option<Transport>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NamespaceSpec {
    finalizers: Option<Value>,
}

/// Only the fields that count; Kubernetes' others are taken as well.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct PodSpec {
    containers: Option<Vec<Container>>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
}

/// Only the fields that count; Kubernetes' others are taken as well.
#[derive(JsonSchema)]
struct Container {
    ports: Option<Vec<ContainerPort>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
    protocol: Option<Transport>,
    host_port: Option<Value>,
    #[schemars(rename = "hostIP")]
    host_ip: Option<Value>,
}

/// Only the fields that count; Kubernetes' others are taken as well.
#[derive(JsonSchema)]
struct PodStatus {
    phase: Option<String>,
    #[schemars(rename = "podIP")]
    pod_ip: Option<String>,
    #[schemars(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PodIp {
    ip: String,
}
