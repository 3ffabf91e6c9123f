//! One endpoint and what governs it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Side;
use crate::chain::Chain;
use crate::explain::{self, Explanation};
use crate::model::Pod;
use crate::names::Asked;
use crate::query::{Decision, FlowQuery, FlowVerdict, L7Query};

/// The compiled policy of one endpoint.
#[derive(Debug)]
pub struct EndpointPolicy {
    name: String,
    interface: String,
    addresses: Vec<IpAddr>,
    only_own_addresses: bool,
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
            only_own_addresses: pod.only_own_addresses,
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

    /// Whether the endpoint may send from this address.
    pub fn may_send_from(&self, address: &IpAddr) -> bool {
        !self.only_own_addresses || self.addresses.contains(address)
    }

    /// Whether any policy, also one under audit, selects the endpoint in this direction, or what it
    /// sends has to be looked at for its addresses. If not, every flow is allowed and there is nothing
    /// to report.
    pub fn governs(&self, side: Side) -> bool {
        self.chain(side).governs() || (side == Side::Egress && self.only_own_addresses)
    }

    /// Judges a flow on its first packet, with no name known for the remote address. Policies under
    /// audit have no part in it.
    pub fn decide(&self, query: &FlowQuery) -> FlowVerdict {
        self.decide_named(query, &[])
    }

    /// Judges a flow on its first packet. `names` (lower case, no trailing dot) are those for which
    /// the endpoint was told the remote address; `fqdn` peers match them and nothing else.
    pub fn decide_named(&self, query: &FlowQuery, names: &[Arc<str>]) -> FlowVerdict {
        self.chain(query.side).decide(Asked { query, names })
    }

    /// Whether any rule of the endpoint has an `fqdn` peer.
    pub fn wants_names(&self) -> bool {
        self.egress.wants_names()
    }

    /// Whether an `fqdn` peer of the endpoint is about this name (lower case, no trailing dot).
    pub fn wants_name(&self, name: &str) -> bool {
        self.egress.wants_name(name)
    }

    /// [`EndpointPolicy::decide`], and what policies under audit would have said.
    pub fn decide_audited(&self, query: &FlowQuery) -> Decision {
        self.decide_audited_named(query, &[])
    }

    /// [`EndpointPolicy::decide_named`], and what policies under audit would have said.
    pub fn decide_audited_named(&self, query: &FlowQuery, names: &[Arc<str>]) -> Decision {
        self.chain(query.side)
            .decide_audited(Asked { query, names })
    }

    /// [`EndpointPolicy::decide_audited`] by trying one rule after the other; for tests of the
    /// former.
    #[doc(hidden)]
    pub fn decide_audited_naive(&self, query: &FlowQuery) -> Decision {
        let names = &[];
        self.chain(query.side)
            .decide_audited_naive(Asked { query, names })
    }

    /// [`EndpointPolicy::decide`] by trying one rule after the other; for tests of the former.
    #[doc(hidden)]
    pub fn decide_naive(&self, query: &FlowQuery) -> FlowVerdict {
        self.decide_named_naive(query, &[])
    }

    /// [`EndpointPolicy::decide_named`] by trying one rule after the other; for tests of the former.
    #[doc(hidden)]
    pub fn decide_named_naive(&self, query: &FlowQuery, names: &[Arc<str>]) -> FlowVerdict {
        self.chain(query.side).decide_naive(Asked { query, names })
    }

    /// Says how a decision comes about: every rule asked, in order, and what each said. Meant for
    /// people; takes time in proportion to the number of rules.
    pub fn explain(&self, query: &FlowQuery, l7: Option<&L7Query<'_>>) -> Explanation {
        self.explain_named(query, &[], l7)
    }

    /// [`EndpointPolicy::explain`] with names known for the remote address.
    pub fn explain_named(
        &self,
        query: &FlowQuery,
        names: &[Arc<str>],
        l7: Option<&L7Query<'_>>,
    ) -> Explanation {
        explain::explain(
            &self.name,
            self.chain(query.side),
            &self.policies,
            Asked { query, names },
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
