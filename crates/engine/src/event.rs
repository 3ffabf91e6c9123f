//! What the engine reports: verdicts and ends of flows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate_policy::Side;

use crate::key::FlowKey;

/// The word shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerdictWord {
    /// Forwarded because a rule, or the absence of policy, says so.
    Allowed,
    /// Refused.
    Denied,
    /// Would be refused; forwarded because the policy is in audit mode.
    Audited,
    /// Engine unavailable and the policy says fail open.
    Bypassed,
}

/// Version of HTTP that a request came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.0
    #[serde(rename = "1.0")]
    Http10,
    /// HTTP/1.1
    #[default]
    #[serde(rename = "1.1")]
    Http11,
    /// HTTP/2
    #[serde(rename = "2")]
    Http2,
}

/// What carried a ClientHello, if not TCP alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// QUIC's Initial packets.
    Quic,
    /// SMTP, after STARTTLS.
    Smtp,
    /// PostgreSQL, after its SSLRequest.
    Postgresql,
}

/// A gRPC call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcMethod {
    /// Full name of the service, e.g. `helloworld.Greeter`.
    pub service: String,
    /// Method, e.g. `SayHello`.
    pub method: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What was read from the traffic, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum L7Facts {
    /// One HTTP request.
    Http {
        /// Method as sent.
        method: String,
        /// Host, lower case, without port and trailing dot.
        host: String,
        /// Request target as sent.
        target: String,
        /// Version of HTTP.
        #[serde(default)]
        version: HttpVersion,
        /// Header fields that the rules look at, names in lower case; all others are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// Names that were looked for among the headers, found or not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        looked_for: Vec<Box<str>>,
        /// The gRPC call that the request is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grpc: Option<GrpcMethod>,
        /// The request asks for another protocol (Upgrade, CONNECT).
        #[serde(default, skip_serializing_if = "is_false")]
        upgrade: bool,
    },
    /// One TLS ClientHello.
    Tls {
        /// Server name, lower case, without trailing dot; `None` if the hello has none.
        sni: Option<String>,
        /// Application protocols offered.
        alpn: Vec<String>,
        /// Highest version offered, as on the wire (0x0304 is TLS 1.3).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u16>,
        /// Encrypted Client Hello, or a pretence of it, was there: the name is the outer one.
        #[serde(default, skip_serializing_if = "is_false")]
        ech: bool,
        /// JA4 fingerprint of the hello.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ja4: Option<String>,
        /// What carried the hello, if not TCP alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carrier: Option<Carrier>,
    },
}

impl L7Facts {
    /// Bytes of memory beside the facts' own size.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Http {
                method,
                host,
                target,
                headers,
                looked_for,
                grpc,
                ..
            } => {
                let headers: usize = headers.iter().map(|(name, value)| pair(name, value)).sum();
                let names: usize = looked_for.iter().map(|name| pair(name, "")).sum();
                let grpc = grpc
                    .as_ref()
                    .map_or(0, |call| call.service.len() + call.method.len());
                method.len() + host.len() + target.len() + headers + names + grpc
            }
            Self::Tls { sni, alpn, ja4, .. } => {
                let alpn: usize = alpn.iter().map(|name| pair(name, "")).sum();
                sni.as_ref().map_or(0, String::len) + alpn + ja4.as_ref().map_or(0, String::len)
            }
        }
    }
}

/// Two texts in a list.
fn pair(name: &str, value: &str) -> usize {
    2 * size_of::<String>() + name.len() + value.len()
}

/// One verdict: for a flow at L3/L4, or for one request or hello in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was decided.
    pub word: VerdictWord,
    /// The L7 facts it was decided on, if any.
    pub l7: Option<L7Facts>,
    /// Policy that decided, e.g. `ClusterNetworkPolicy/web` or `NetworkPolicy/shop/api`; `None` if
    /// no policy selects the flow.
    pub policy: Option<Arc<str>>,
    /// Rule name in that policy.
    pub rule: Option<Arc<str>>,
    /// Why, as a stable word for logs and metrics: `rule`, `no-policy`, `no-rule-matches`,
    /// `http-bare-lf`, ...
    pub reason: &'static str,
    /// The same for people, one short sentence; may be empty.
    pub detail: String,
    /// The rule asks for logging.
    pub logged: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "most events are verdicts; a box would be an allocation for each"
)]
pub enum EventKind {
    /// Something was decided.
    Verdict(Verdict),
    /// The flow is gone from the table.
    Closed {
        /// Bytes that left the endpoint (frames).
        bytes_out: u64,
        /// Bytes that went to the endpoint (frames).
        bytes_in: u64,
        /// Packets that left the endpoint.
        packets_out: u64,
        /// Packets that went to the endpoint.
        packets_in: u64,
    },
}

/// One event of one flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Identifies the flow among this worker's flows since its start.
    pub flow_id: u64,
    /// The flow.
    pub key: FlowKey,
    /// Who opened it.
    pub side: Side,
    /// What happened.
    pub kind: EventKind,
}
