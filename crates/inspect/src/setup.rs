//! Who is governed, and by what.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use tollgate_engine::table::PolicyTable;
use tollgate_policy::{CompileOptions, Diagnostic, EndpointPolicy, PolicySet, SourceFile, compile};
use tollgate_wire::tag::EndpointId;

use crate::sides::Sides;

/// The policy of a replay without one: every flow is read that can be, TCP for all protocols, UDP for
/// QUIC, and everything is allowed that can be read. DNS has no rules that could judge it.
const READ_EVERYTHING: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: capture}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: any, namespace: capture, labels: {read: everything}}
spec: {interface: capture, addresses: [0.0.0.1]}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: read}
spec:
  priority: 1
  appliedTo:
    - podSelector: {matchLabels: {read: everything}}
  egress:
    - name: egress
      action: Allow
      ports: [{protocol: TCP}]
      l7Protocols: [{http: {}}, {tls: {}}]
    - name: egress-dns
      action: Allow
      ports: [{protocol: UDP, port: 53}]
    - name: egress-quic
      action: Allow
      ports: [{protocol: UDP}]
      l7Protocols: [{tls: {}}]
  ingress:
    - name: ingress
      action: Allow
      ports: [{protocol: TCP}]
      l7Protocols: [{http: {}}, {tls: {}}]
    - name: ingress-dns
      action: Allow
      ports: [{protocol: UDP, port: 53}]
    - name: ingress-quic
      action: Allow
      ports: [{protocol: UDP}]
      l7Protocols: [{tls: {}}]
";

/// Why a replay cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// More endpoints than a tag can name.
    #[error("{0} endpoints; a replay can tell {max} apart", max = EndpointId::MAX)]
    TooManyEndpoints(usize),
    /// An address that is to be governed belongs to no endpoint of the policy.
    #[error("no Endpoint of the policy has the address {0}")]
    NoSuchEndpoint(IpAddr),
    /// No endpoint has an address.
    #[error("the policy has no Endpoint with an address: nothing would be governed")]
    NoEndpoints,
    /// The built-in policy is faulty; says more about this program than about its input.
    #[error("the built-in policy is faulty: {0}")]
    BuiltIn(String),
}

impl SetupError {
    /// Stable word for scripts.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooManyEndpoints(_) => "inspect-too-many-endpoints",
            Self::NoSuchEndpoint(_) => "inspect-no-such-endpoint",
            Self::NoEndpoints => "inspect-no-endpoints",
            Self::BuiltIn(_) => "inspect-built-in-policy",
        }
    }
}

/// Who is governed, and by what: what a [`Replay`](crate::Replay) begins with.
pub struct Setup {
    pub(crate) table: Arc<PolicyTable>,
    pub(crate) sides: Sides,
    /// Nothing is judged: DNS answers are read beside the engine, which only reads them for rules.
    pub(crate) reads_names: bool,
    names: Vec<(EndpointId, Arc<EndpointPolicy>)>,
}

impl Setup {
    /// Reads everything and judges nothing. An endpoint is who has one of the addresses; without
    /// addresses, and between two of them, who opened the flow.
    ///
    /// # Errors
    /// [`SetupError::BuiltIn`].
    pub fn reading(endpoints: &[IpAddr]) -> Result<Self, SetupError> {
        let file = SourceFile {
            name: "built-in",
            text: READ_EVERYTHING,
        };
        let faulty = |faults: Vec<Diagnostic>| {
            let lines: Vec<_> = faults.iter().map(Diagnostic::to_string).collect();
            SetupError::BuiltIn(lines.join("; "))
        };
        let set = compile(&[file], &CompileOptions::default()).map_err(faulty)?;
        // One endpoint stands for all: a flow's key has its addresses too.
        let only = set.endpoints().first().cloned();
        let id = EndpointId::new(EndpointId::MIN);
        let (Some(only), Some(id)) = (only, id) else {
            return Err(SetupError::BuiltIn("no endpoint".to_owned()));
        };
        Ok(Self {
            table: table(&[(id, only)]),
            sides: Sides::openers(id, endpoints.iter().copied().collect()),
            reads_names: true,
            names: Vec::new(),
        })
    }

    /// Judges by a policy. Its endpoints are governed, or only those that have one of the
    /// addresses in `only`, if there are any. They are numbered in the order of the policy.
    ///
    /// # Errors
    /// No endpoint is left, an address is nobody's, or the endpoints are too many.
    pub fn by_policy(set: &PolicySet, only: &[IpAddr]) -> Result<Self, SetupError> {
        let wanted: HashSet<IpAddr> = only.iter().copied().collect();
        let is_governed = |endpoint: &&Arc<EndpointPolicy>| match wanted.is_empty() {
            true => !endpoint.addresses().is_empty(),
            false => endpoint.addresses().iter().any(|a| wanted.contains(a)),
        };
        let governed: Vec<_> = set.endpoints().iter().filter(is_governed).collect();
        if governed.len() > usize::from(EndpointId::MAX) {
            return Err(SetupError::TooManyEndpoints(governed.len()));
        }
        let ids = (EndpointId::MIN..=EndpointId::MAX).filter_map(EndpointId::new);
        let names: Vec<_> = ids.zip(governed.into_iter().cloned()).collect();
        let addresses = by_address(&names);
        if let Some(nobody) = only.iter().find(|address| !addresses.contains_key(address)) {
            return Err(SetupError::NoSuchEndpoint(*nobody));
        }
        if addresses.is_empty() {
            return Err(SetupError::NoEndpoints);
        }
        Ok(Self {
            table: table(&names),
            sides: Sides::Addresses(addresses),
            reads_names: false,
            names,
        })
    }

    /// The endpoints of the policy by their number in events; none without a policy.
    pub fn endpoints(&self) -> &[(EndpointId, Arc<EndpointPolicy>)] {
        &self.names
    }
}

fn by_address(endpoints: &[(EndpointId, Arc<EndpointPolicy>)]) -> HashMap<IpAddr, EndpointId> {
    let of_one = |(id, policy): &(EndpointId, Arc<EndpointPolicy>)| {
        let id = *id;
        let addresses = policy.addresses().to_vec();
        addresses.into_iter().map(move |address| (address, id))
    };
    endpoints.iter().flat_map(of_one).collect()
}

fn table(endpoints: &[(EndpointId, Arc<EndpointPolicy>)]) -> Arc<PolicyTable> {
    let mut by_id = vec![None; usize::from(EndpointId::MAX) + 1];
    for (id, policy) in endpoints {
        if let Some(slot) = by_id.get_mut(usize::from(id.get())) {
            *slot = Some(Arc::clone(policy));
        }
    }
    Arc::new(PolicyTable {
        generation: 1,
        by_id,
    })
}
