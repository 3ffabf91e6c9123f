//! The JSON Schema and the decoders agree on which fields there are, and on real policies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use tollgate_policy::{CompileOptions, SourceFile, compile, json_schema};

/// Every word in quotes in the decoders is a field's name somewhere, or might be taken for one.
const DECODERS: &[&str] = &[
    include_str!("../src/decode/antrea.rs"),
    include_str!("../src/decode/common.rs"),
    include_str!("../src/decode/inventory.rs"),
    include_str!("../src/decode/kubernetes.rs"),
    include_str!("../src/decode/l7.rs"),
    include_str!("../src/decode/mod.rs"),
    include_str!("../src/decode/rule.rs"),
];
/// Fields that the decoders know only to refuse them by name.
const REFUSED: &[&str] = &[
    "externalEntitySelector",
    "groupAddress",
    "nodeSelector",
    "service",
    "serviceReference",
    "toServices",
];
/// A field that there is nowhere.
const NOWHERE: &str = "nowhere";
/// Fields tried in one document, fewer than the faults that are reported of it.
const AT_ONCE: usize = 100;

/// A way into a document: fields, and `[]` for the first element of a list.
type Way = Vec<String>;

/// Calls `visit` with every object that takes no other fields than those named.
fn objects(schema: &Value, way: &mut Way, visit: &mut dyn FnMut(&Way, &Map<String, Value>)) {
    if let Some(items) = schema.get("items") {
        way.push("[]".to_owned());
        objects(items, way, visit);
        way.pop();
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    if schema.get("additionalProperties") == Some(&json!(false)) {
        visit(way, properties);
    }
    for (name, property) in properties {
        way.push(name.clone());
        objects(property, way, visit);
        way.pop();
    }
}

fn at(way: &[String], value: Value) -> Value {
    way.iter()
        .rev()
        .fold(value, |inner, segment| match segment.as_str() {
            "[]" => json!([inner]),
            name => json!({ name: inner }),
        })
}

/// The fields among `names` that the decoders do not know at this place; `None` if they do not look
/// into it because of something else.
fn unknown(kind: &Value, way: &Way, names: &[&str]) -> Option<BTreeSet<String>> {
    let tried = names.iter().chain(&[NOWHERE]);
    let fields = tried
        .map(|name| ((*name).to_owned(), Value::Null))
        .collect();
    let mut document = at(way, Value::Object(fields));
    let identity = |key: &str| kind["properties"][key]["const"].clone();
    document["apiVersion"] = identity("apiVersion");
    document["kind"] = identity("kind");
    let text = document.to_string();
    let file = SourceFile {
        name: "f",
        text: &text,
    };
    let faults = compile(&[file], &CompileOptions::default()).unwrap_err();
    let place = way.join(".").replace(".[]", "[0]");
    let prefix = format!("{place}.");
    let unknown: BTreeSet<_> = faults
        .iter()
        .filter(|f| f.message.contains("unknown field") || f.message.contains("is a field of"))
        .filter_map(|fault| fault.field.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    if unknown.contains(NOWHERE) {
        return Some(unknown);
    }
    let only_cluster = |message: &str| message.contains("only be used in a ClusterNetworkPolicy");
    assert!(
        faults.iter().any(|f| only_cluster(&f.message)),
        "{place}: {faults:?}"
    );
    None
}

#[test]
fn the_schema_has_the_fields_that_are_read() {
    let quoted = DECODERS.iter().flat_map(|text| text.split('"'));
    let names: BTreeSet<&str> = quoted
        .filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric()) && !word.is_empty())
        .filter(|word| !REFUSED.contains(word))
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
    let schema = json_schema();
    let mut looked_into = 0;
    for kind in schema["oneOf"].as_array().unwrap() {
        objects(kind, &mut Way::new(), &mut |way, properties| {
            // Identity is needed to be decoded at all, and a list's items are other documents.
            if way.is_empty() {
                return;
            }
            for some in names.chunks(AT_ONCE) {
                let Some(unknown) = unknown(kind, way, some) else {
                    continue;
                };
                looked_into += 1;
                for name in some {
                    let other_way = match way.iter().rev().nth(1).map(String::as_str) {
                        Some("ingress") => *name == "to",
                        Some("egress") => *name == "from",
                        _ => false,
                    };
                    let read = !unknown.contains(*name) && !other_way;
                    let title = &kind["title"];
                    assert_eq!(
                        properties.contains_key(*name),
                        read,
                        "{title} {way:?} {name}"
                    );
                }
            }
        });
    }
    assert!(looked_into > 200, "{looked_into}");
}

/// What of a value a schema forbids, in words; as much of JSON Schema as ours uses.
fn faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, says) in schema.as_object().into_iter().flatten() {
        let good = match keyword.as_str() {
            "type" => is_of_type(value, says),
            "const" => value == says,
            "enum" => says.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= says.as_f64(),
            "maximum" => value.as_f64() <= says.as_f64(),
            "minItems" => value.as_array().unwrap().len() >= says.as_u64().unwrap() as usize,
            "maxItems" => value.as_array().unwrap().len() <= says.as_u64().unwrap() as usize,
            "required" => says
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "anyOf" | "oneOf" => {
                let fitting = says.as_array().unwrap().iter();
                fitting
                    .filter(|s| faults(s, value, place).is_empty())
                    .count()
                    > 0
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(says, item, &format!("{place}[{number}]")));
                }
                true
            }
            "properties" => {
                for (name, property) in says.as_object().unwrap() {
                    let given = value.get(name).into_iter();
                    found.extend(
                        given.flat_map(|v| faults(property, v, &format!("{place}.{name}"))),
                    );
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others = value.as_object().into_iter().flatten();
                let mut others =
                    others.filter(|(name, _)| !known.is_some_and(|k| k.contains_key(*name)));
                match says {
                    Value::Bool(allowed) => *allowed || others.next().is_none(),
                    says => others.all(|(_, value)| faults(says, value, place).is_empty()),
                }
            }
            "title" | "description" | "format" | "$schema" => true,
            other => panic!("{other} is not checked"),
        };
        if !good {
            found.push(format!("{place}: {keyword} {says}"));
        }
    }
    found
}

fn is_of_type(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other}"),
    }
}

/// Faults of each document of a text by the schema of its kind.
fn check(text: &str) -> Vec<String> {
    let schema = json_schema();
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    assert!(!documents.is_empty());
    let kinds = schema["oneOf"].as_array().unwrap();
    let of_kind = |document: &Value| {
        let same = |kind: &&Value, key: &str| kind["properties"][key]["const"] == document[key];
        let found = kinds
            .iter()
            .find(|kind| same(kind, "apiVersion") && same(kind, "kind"));
        faults(found.unwrap(), document, "")
    };
    documents.iter().flat_map(of_kind).collect()
}

#[test]
fn good_policies_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policy");
    let mut texts = vec![common::WORLD.to_owned()];
    for entry in std::fs::read_dir(examples).unwrap() {
        texts.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    texts.push(common::k8s(
        "k",
        "  podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}
  policyTypes: [Ingress]
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}], ports: [{port: 1, endPort: 2}, {port: http}]}]",
    ));
    texts.push(common::extended(EXTENDED));
    for text in &texts {
        assert_eq!(check(text), Vec::<String>::new(), "{text}");
    }
    // The same text compiles.
    common::load(&common::extended(EXTENDED));
}

const EXTENDED: &str = "  enforcement: audit
  egress:
    - name: all
      action: Allow
      to: [{namespaces: {match: Self}}, {ipBlock: {cidr: 9.0.0.0/8}}]
      ports: [{port: 80, endPort: 90, sourcePort: 7}]
      l7Protocols:
        - http: {host: a, methods: [GET], pathRegex: '/a', headers: [{name: a}], query: [{name: b, value: c}], upgrade: Deny}
        - grpc: {host: a, service: 's.*', method: m}
        - tls: {sni: a, alpn: [h2], minVersion: '1.2', quic: Deny, ech: Allow}
        - {action: Deny, http: {method: GET, path: /x}}";

#[test]
fn what_antrea_cannot_say_is_valid_in_one_group_only() {
    let antrea = common::acnp(EXTENDED);
    let faults = check(&antrea);
    assert!(
        faults
            .iter()
            .any(|f| f.starts_with(".spec: additionalProperties"))
    );
    assert!(
        faults
            .iter()
            .any(|f| f.contains("l7Protocols[0].http: additionalProperties"))
    );
    let typo = common::extended(&EXTENDED.replace("quic: Deny", "quick: Deny"));
    assert_eq!(check(&typo).len(), 1);
    let word = common::extended(&EXTENDED.replace("quic: Deny", "quic: Maybe"));
    assert_eq!(check(&word).len(), 1);
    let null = common::extended(&EXTENDED.replace("upgrade: Deny", "upgrade:"));
    assert!(!check(&null).is_empty());
}
