//! From a VLAN's rules to what the engine judges by.
//!
//! A VLAN becomes an endpoint with one policy: the client's side of each of its flows is the
//! endpoint's. A content becomes a pattern; what patterns cannot say is refused, not approximated.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_policy::{CompileOptions, EndpointPolicy, SourceFile, compile};

use crate::rules::{Buffer, Content, Protocol};
use crate::tenants::{Pass, VlanRules};

/// Namespace of the endpoints that stand for VLANs.
const NAMESPACE: &str = "vlans";

/// An endpoint needs an address; many clients share a VLAN. No packet comes from this one: the block
/// is for packets that are to be discarded (RFC 6666).
const NO_ADDRESS: &str = "100::1";

/// Why rules cannot be judged by.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A content that is no pattern.
    #[error("{buffer} {content:?}: {what}")]
    Content {
        /// Where it is looked for.
        buffer: Buffer,
        /// It, as far as it is text.
        content: String,
        /// Why not.
        what: &'static str,
    },
    /// Two contents for one buffer.
    #[error("{0}: more than one content is not known here")]
    Twice(Buffer),
    /// The policy compiler refused it.
    #[error("the rules make no policy: {0}")]
    Refused(String),
}

/// What the flows of a VLAN are judged by.
///
/// # Errors
/// A rule says what a policy cannot.
pub fn endpoint_policy(vlan: u16, rules: &VlanRules) -> Result<Arc<EndpointPolicy>, PolicyError> {
    let text = documents(vlan, rules)?
        .iter()
        // JSON is YAML.
        .map(|document| format!("---\n{document}\n"))
        .collect::<String>();
    let name = format!("vlan {vlan}");
    let file = SourceFile {
        name: &name,
        text: &text,
    };
    let refused = |what: String| PolicyError::Refused(what);
    let set = compile(&[file], &CompileOptions::default()).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        refused(faults.join("; "))
    })?;
    let endpoint = set.endpoints().first().map(Arc::clone);
    endpoint.ok_or_else(|| refused("it has no endpoint".to_owned()))
}

/// A VLAN's rules without the pass rules that no policy can say, and what is wrong with each of
/// those.
///
/// # Errors
/// The other rules make no policy either.
pub fn usable(rules: VlanRules) -> Result<(VlanRules, Vec<PolicyError>), PolicyError> {
    // The number is only a name here.
    let check = |rules: &VlanRules| endpoint_policy(0, rules).map(drop);
    if check(&rules).is_ok() {
        return Ok((rules, Vec::new()));
    }
    let (mut usable, mut wrong) = (rules, Vec::new());
    let otherwise = usable.otherwise.clone();
    usable.pass.retain(|pass| {
        let alone = VlanRules {
            pass: vec![pass.clone()],
            otherwise: otherwise.clone(),
        };
        check(&alone).map_err(|error| wrong.push(error)).is_ok()
    });
    check(&usable)?;
    Ok((usable, wrong))
}

fn documents(vlan: u16, rules: &VlanRules) -> Result<[Value; 3], PolicyError> {
    let name = format!("vlan-{vlan}");
    let labels = json!({ "vlan": vlan.to_string() });
    Ok([
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": NAMESPACE },
        }),
        json!({
            "apiVersion": "policy.tollgate.dev/v1alpha1", "kind": "Endpoint",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": labels },
            "spec": { "interface": name, "addresses": [NO_ADDRESS] },
        }),
        json!({
            "apiVersion": "policy.tollgate.dev/v1alpha1", "kind": "ClusterNetworkPolicy",
            "metadata": { "name": name },
            "spec": {
                "priority": 1,
                "appliedTo": [{ "podSelector": { "matchLabels": labels } }],
                "egress": egress(rules)?,
            },
        }),
    ])
}

/// The policy's rules for what a client opens.
fn egress(rules: &VlanRules) -> Result<Vec<Value>, PolicyError> {
    let Some(otherwise) = &rules.otherwise else {
        return Ok(vec![json!({ "name": "pass", "action": "Allow" })]);
    };
    let mut egress = Vec::new();
    if rules.pass.iter().any(|pass| pass.protocol == Protocol::Ip) {
        egress.push(json!({ "name": "pass", "action": "Allow" }));
    }
    for (protocol, word) in [(Protocol::Tcp, "TCP"), (Protocol::Udp, "UDP")] {
        if rules.pass.iter().any(|pass| pass.protocol == protocol) {
            let ports = json!([{ "protocol": word }]);
            egress.push(json!({ "name": word.to_lowercase(), "action": "Allow", "ports": ports }));
        }
    }
    let items: Vec<_> = rules
        .pass
        .iter()
        .filter_map(item)
        .collect::<Result<_, _>>()?;
    if !items.is_empty() {
        egress.push(json!({ "name": "layer-7", "action": "Allow", "l7Protocols": items }));
    }
    let action = if otherwise.reject { "Reject" } else { "Drop" };
    egress.push(json!({ "name": "otherwise", "action": action }));
    Ok(egress)
}

/// An item of `l7Protocols`; `None`: the rule is not about layer 7.
fn item(pass: &Pass) -> Option<Result<Value, PolicyError>> {
    match pass.protocol {
        Protocol::Http => Some(fields(pass).map(|fields| json!({ "http": fields }))),
        Protocol::Tls => Some(fields(pass).map(|fields| json!({ "tls": fields }))),
        Protocol::Ip | Protocol::Tcp | Protocol::Udp => None,
    }
}

fn fields(pass: &Pass) -> Result<Value, PolicyError> {
    let mut fields = serde_json::Map::new();
    for content in &pass.contents {
        let (field, value) = field(content)?;
        if fields.insert(field.to_owned(), value).is_some() {
            return Err(PolicyError::Twice(content.buffer));
        }
    }
    Ok(Value::Object(fields))
}

fn field(content: &Content) -> Result<(&'static str, Value), PolicyError> {
    let wrong = |what| PolicyError::Content {
        buffer: content.buffer,
        content: String::from_utf8_lossy(&content.bytes).into_owned(),
        what,
    };
    let text = std::str::from_utf8(&content.bytes).map_err(|_| wrong("is no text"))?;
    let has_case = matches!(content.buffer, Buffer::HttpUri | Buffer::HttpMethod);
    if content.nocase && has_case {
        return Err(wrong("nocase is not known here"));
    }
    match content.buffer {
        // Suricata would find it in a longer method too; no method of HTTP contains another.
        Buffer::HttpMethod => Ok(("methods", json!([text]))),
        Buffer::HttpUri => Ok(("path", json!(pattern(content, text).map_err(wrong)?))),
        Buffer::HttpHost => Ok(("host", json!(pattern(content, text).map_err(wrong)?))),
        Buffer::TlsSni => Ok(("sni", json!(pattern(content, text).map_err(wrong)?))),
    }
}

/// A star at either end of a pattern stands for anything, so a content cannot have one there.
fn pattern(content: &Content, text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Ok("*".to_owned());
    }
    if content.startswith && text.starts_with('*') {
        return Err("begins with a star");
    }
    if content.endswith && text.ends_with('*') {
        return Err("ends with a star");
    }
    let star = |fixed: bool| if fixed { "" } else { "*" };
    Ok(format!(
        "{}{text}{}",
        star(content.startswith),
        star(content.endswith)
    ))
}
