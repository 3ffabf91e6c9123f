//! The policy model: read, checked, compiled and evaluated; no I/O and no clock.
//!
//! [`compile`](compile::compile) takes the texts of a directory of YAML files and yields a
//! [`PolicySet`], or every fault found, each with file, line and field. A [`PolicySet`] answers,
//! for an endpoint, first [`EndpointPolicy::decide`] on the first packet of a flow and then, if
//! that says so, [`RuleSet::judge_http`] or [`RuleSet::judge_tls`] on what was read from it.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Opened by the endpoint.
    Egress,
    /// Opened towards the endpoint.
    Ingress,
}
