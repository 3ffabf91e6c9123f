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

/// What was read from the traffic, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum L7Facts {
    /// One HTTP/1.x request.
    Http {
        /// Method as sent.
        method: String,
        /// Host, lower case, without port and trailing dot.
        host: String,
        /// Request target as sent.
        target: String,
    },
    /// One TLS ClientHello.
    Tls {
        /// Server name, lower case, without trailing dot; `None` if the hello has none.
        sni: Option<String>,
        /// Application protocols offered.
        alpn: Vec<String>,
    },
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
