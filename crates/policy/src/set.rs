//! The outcome of a compilation.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::endpoint::EndpointPolicy;

/// Everything compiled from one set of files.
#[derive(Debug)]
pub struct PolicySet {
    endpoints: Vec<Arc<EndpointPolicy>>,
    by_name: HashMap<String, usize>,
    policies: Vec<PolicyInfo>,
    summary: Summary,
}

/// One policy, for listings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyInfo {
    /// `ClusterNetworkPolicy/web`, `NetworkPolicy/shop/api`, `K8sNetworkPolicy/shop/api`.
    pub name: Arc<str>,
    /// Antrea only: the tier.
    pub tier: Option<String>,
    /// Antrea only: the tier's priority, lower is earlier.
    pub tier_priority: Option<i64>,
    /// Antrea only: the policy's priority in its tier, lower is earlier.
    pub priority: Option<f64>,
    /// Rules for flows opened by endpoints.
    pub egress_rules: usize,
    /// Rules for flows opened towards endpoints.
    pub ingress_rules: usize,
    /// Endpoints that the policy, or one of its rules, applies to.
    pub applied_to: usize,
    /// Whether the policy decides, or is only reported.
    pub enforcement: Enforcement,
}

/// What becomes of a policy's verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// They decide.
    #[default]
    Enforce,
    /// They are reported; flows are judged as if the policy was not there.
    Audit,
}

/// How many there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `Endpoint`.
    pub endpoints: usize,
    /// `Pod`.
    pub pods: usize,
    /// `Namespace`.
    pub namespaces: usize,
    /// `Tier`, without Antrea's own unless they are in the files.
    pub tiers: usize,
    /// `ClusterGroup`.
    pub cluster_groups: usize,
    /// `Group`.
    pub groups: usize,
    /// Antrea's `ClusterNetworkPolicy`.
    pub cluster_network_policies: usize,
    /// Antrea's `NetworkPolicy`.
    pub network_policies: usize,
    /// Kubernetes' `NetworkPolicy`.
    pub k8s_network_policies: usize,
    /// Rules in all policies.
    pub rules: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies =
            self.cluster_network_policies + self.network_policies + self.k8s_network_policies;
        let counts = [
            (self.endpoints, "endpoint", "endpoints"),
            (self.pods, "pod", "pods"),
            (self.namespaces, "namespace", "namespaces"),
            (policies, "policy", "policies"),
            (self.rules, "rule", "rules"),
        ];
        for (position, (count, one, many)) in counts.into_iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(
                f,
                "{separator}{count} {}",
                if count == 1 { one } else { many }
            )?;
        }
        Ok(())
    }
}

impl PolicySet {
    pub(crate) fn new(
        endpoints: Vec<Arc<EndpointPolicy>>,
        policies: Vec<PolicyInfo>,
        summary: Summary,
    ) -> Self {
        let names = endpoints.iter().enumerate();
        let by_name = names
            .map(|(number, e)| (e.name().to_owned(), number))
            .collect();
        Self {
            endpoints,
            by_name,
            policies,
            summary,
        }
    }

    /// All endpoints, by namespace and name.
    pub fn endpoints(&self) -> &[Arc<EndpointPolicy>] {
        &self.endpoints
    }

    /// An endpoint by `namespace/name`.
    pub fn endpoint(&self, name: &str) -> Option<&Arc<EndpointPolicy>> {
        self.endpoints.get(*self.by_name.get(name)?)
    }

    /// How many objects of each kind were read.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// All policies in the order of evaluation (Kubernetes' first, which are unordered).
    pub fn policies(&self) -> &[PolicyInfo] {
        &self.policies
    }
}
