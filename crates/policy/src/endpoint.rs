//! One endpoint and what governs it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Side;
use crate::chain::Chain;
use crate::explain::{self, Explanation};
use crate::model::Pod;
use crate::query::{Decision, FlowQuery, FlowVerdict, L7Query};

/// The compiled policy of one endpoint.
#[derive(Debug)]
pub struct EndpointPolicy {
    name: String,
    interface: String,
    addresses: Vec<IpAddr>,
    egress: Arc<Chain>,
    ingress: Arc<Chain>,
    /// Names of all policies there are.
    policies: Arc<[Arc<str>]>,
}

impl EndpointPolicy {
    pub(crate) fn new(
        pod: &Pod,
        egress: Arc<Chain>,
        ingress: Arc<Chain>,
        policies: Arc<[Arc<str>]>,
    ) -> Self {
        let namespace = pod.id.namespace.as_deref().unwrap_or_default();
        Self {
            name: format!("{namespace}/{}", pod.id.name),
            interface: pod
                .interface
                .as_ref()
                .map(|i| i.value.clone())
                .unwrap_or_default(),
            addresses: pod.addresses.iter().map(|address| address.value).collect(),
            egress,
            ingress,
            policies,
        }
    }

    /// `namespace/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's network interface that the endpoint is behind.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The endpoint's addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether any policy, also one under audit, selects the endpoint in this direction. If not,
    /// every flow is allowed and there is nothing to report.
    pub fn governs(&self, side: Side) -> bool {
        self.chain(side).governs()
    }

    /// Judges a flow on its first packet. Policies under audit have no part in it.
    pub fn decide(&self, query: &FlowQuery) -> FlowVerdict {
        self.chain(query.side).decide(query)
    }

    /// [`EndpointPolicy::decide`], and what policies under audit would have said.
    pub fn decide_audited(&self, query: &FlowQuery) -> Decision {
        self.chain(query.side).decide_audited(query)
    }

    /// [`EndpointPolicy::decide_audited`] by trying one rule after the other; for tests of the
    /// former.
    #[doc(hidden)]
    pub fn decide_audited_naive(&self, query: &FlowQuery) -> Decision {
        self.chain(query.side).decide_audited_naive(query)
    }

    /// [`EndpointPolicy::decide`] by trying one rule after the other; for tests of the former.
    #[doc(hidden)]
    pub fn decide_naive(&self, query: &FlowQuery) -> FlowVerdict {
        self.chain(query.side).decide_naive(query)
    }

    /// Says how a decision comes about: every rule asked, in order, and what each said. Meant for
    /// people; takes time in proportion to the number of rules.
    pub fn explain(&self, query: &FlowQuery, l7: Option<&L7Query<'_>>) -> Explanation {
        explain::explain(
            &self.name,
            self.chain(query.side),
            &self.policies,
            query,
            l7,
        )
    }

    fn chain(&self, side: Side) -> &Chain {
        match side {
            Side::Egress => &self.egress,
            Side::Ingress => &self.ingress,
        }
    }
}
