//! The policy model: read, checked, compiled and evaluated; no I/O and no clock.
//!
//! [`compile`] takes the texts of a directory of YAML files and yields a [`PolicySet`], or every
//! fault found, each with file, line and field. A [`PolicySet`] answers, for an endpoint, first
//! [`EndpointPolicy::decide`] on the first packet of a flow and then, if that says so,
//! [`RuleSet::judge_http`] or [`RuleSet::judge_tls`] on what was read from it.
//!
//! ```text
//!  text --yaml--> nodes --decode--> model --check--> compile --> PolicySet
//!                                                                  EndpointPolicy
//!                                                                    Chain (egress, ingress)
//!                                                                      Stage: rules + FlowIndex
//! ```
//!
//! Rules are asked in the order of Antrea: tier, policy priority, position; then Kubernetes
//! policies, then the baseline tier. Policies of the same tier and priority are asked
//! ClusterNetworkPolicies first, then by namespace and name. Policies under audit keep their place
//! but decide nothing: [`EndpointPolicy::decide_audited`] also tells what they would have said.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

mod chain;
mod check;
mod compile;
mod decode;
mod diagnostic;
mod endpoint;
mod explain;
mod index;
mod item;
mod model;
mod names;
mod pattern;
mod query;
mod ruleset;
mod schema;
mod set;
mod unsaid;
mod yaml;

pub use compile::{CompileOptions, SourceFile, compile};
pub use diagnostic::Diagnostic;
pub use endpoint::EndpointPolicy;
pub use explain::{Explanation, Outcome, Step, Verdict};
pub use query::{
    Action, Audited, Decision, Denial, DenyHow, FlowQuery, FlowVerdict, HttpFacts, HttpUnsaid,
    L7Query, L7Verdict, RuleRef, TlsFacts, TlsUnsaid,
};
pub use ruleset::RuleSet;
pub use schema::json_schema;
pub use set::{Enforcement, PolicyInfo, PolicySet, Summary};
pub use unsaid::Missing;

/// Who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Opened by the endpoint.
    Egress,
    /// Opened towards the endpoint.
    Ingress,
}
