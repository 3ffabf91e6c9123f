//! The decoded documents: checked one by one, not yet against each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Side;
use crate::diagnostic::Place;
use crate::item::L7Item;
use crate::names::NamePattern;
use crate::query::Action;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Everything that was read, by kind.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) groups: Vec<Group>,
    pub(crate) policies: Vec<Policy>,
}

/// A value and where it was written, for checks that need other documents.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    /// Path of the field in its document.
    pub(crate) field: String,
}

/// Who an object is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) kind: &'static str,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) place: Place,
}

impl Identity {
    /// `Kind/name` or `Kind/namespace/name`.
    pub(crate) fn display(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}/{}", self.kind, self.name),
            None => format!("{}/{}", self.kind, self.name),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) id: Identity,
}

/// A pod, on this node (then it is an endpoint) or elsewhere.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: Identity,
    pub(crate) addresses: Vec<Located<IpAddr>>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) service_account: String,
    /// Shares its node's addresses, or has ended and given its own back: selected by nothing.
    pub(crate) unselectable: bool,
    /// The governed interface, if the pod is an endpoint.
    pub(crate) interface: Option<Located<String>>,
    /// An endpoint that may send from its own addresses only.
    pub(crate) only_own_addresses: bool,
}

/// A container's port that policies can name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) id: Identity,
    pub(crate) priority: Located<i64>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Identity,
    pub(crate) body: GroupBody,
}

#[derive(Debug)]
pub(crate) enum GroupBody {
    Pods(PodSelection),
    Blocks(Vec<IpBlock>),
    Children(Vec<Located<String>>),
}

/// Pods by label, within namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodSelection {
    pub(crate) scope: Scope,
    pub(crate) pods: Criterion,
}

/// What picks pods inside the namespaces of a [`Scope`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Criterion {
    Labels(Selector),
    ServiceAccount(String),
}

/// The namespaces of a [`PodSelection`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    /// This one.
    Named(String),
    Labels(Selector),
    /// `namespaces: {match: Self}`: the namespace of the endpoint that the rule applies to.
    SameAsEndpoint,
    /// `namespaces: {sameLabels: [...]}`: those that share these labels' values with it.
    SameLabels(Vec<String>),
}

impl Scope {
    /// Whether the selection depends on the endpoint that a rule applies to.
    pub(crate) fn is_relative(&self) -> bool {
        matches!(self, Self::SameAsEndpoint | Self::SameLabels(_))
    }
}

/// A label selector: all requirements must hold, none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selector {
    pub(crate) requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            // As in Kubernetes: an object without the label is "not in" as well.
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IpBlock {
    pub(crate) cidr: IpNet,
    pub(crate) except: Vec<IpNet>,
}

impl IpBlock {
    pub(crate) fn contains(&self, address: &IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|net| net.contains(address))
    }
}

#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: Identity,
    pub(crate) order: Order,
    /// `None`: every rule has its own.
    pub(crate) applied_to: Option<Vec<Target>>,
    /// Kubernetes only: the directions in which the selected pods are isolated.
    pub(crate) isolates: Vec<Side>,
    pub(crate) rules: Vec<Rule>,
    /// `enforcement: audit`: reported, never enforced.
    pub(crate) audit: bool,
}

/// Where a policy stands among the others.
#[derive(Debug)]
pub(crate) enum Order {
    Antrea {
        tier: Located<String>,
        priority: f64,
    },
    Kubernetes,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) side: Side,
    pub(crate) name: String,
    pub(crate) action: Located<Action>,
    /// `None`: the policy's.
    pub(crate) applied_to: Option<Vec<Target>>,
    /// Empty: any.
    pub(crate) peers: Vec<Peer>,
    /// Empty: any.
    pub(crate) services: Vec<Service>,
    pub(crate) l7: Vec<L7Item>,
    pub(crate) logged: bool,
    pub(crate) log_label: Option<String>,
}

/// What a policy or rule applies to.
#[derive(Debug)]
pub(crate) enum Target {
    Pods(PodSelection),
    Group(Located<String>),
}

/// The other side in a rule.
#[derive(Debug)]
pub(crate) enum Peer {
    Pods(PodSelection),
    Group(Located<String>),
    Block(IpBlock),
    /// Addresses that the endpoint was told for such names; egress only.
    Fqdn(NamePattern),
}

/// One entry of `ports` or `protocols`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    /// A transport protocol with ports.
    Ports {
        protocol: u8,
        destination: PortMatch,
        /// Inclusive.
        source: Option<(u16, u16)>,
    },
    /// ICMP (ICMPv6 for IPv6 flows).
    Icmp {
        kind: Option<u8>,
        code: Option<u8>,
    },
    Igmp {
        kind: Option<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PortMatch {
    Any,
    /// Inclusive.
    Range(u16, u16),
    /// A container port's name at the destination pod.
    Name(String),
}
