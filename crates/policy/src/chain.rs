//! The rules of one endpoint in one direction, in the order in which they are asked.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Side;
use crate::decode::{TCP, UDP};
use crate::index::FlowIndex;
use crate::model::IpBlock;
use crate::names::{Asked, NamePattern};
use crate::query::{Action, Audited, Decision, Denial, DenyHow, FlowQuery, FlowVerdict, RuleRef};
use crate::ruleset::RuleSet;

/// A rule says Drop or Reject.
pub(crate) const BY_RULE: &str = "rule";
/// Isolated by a Kubernetes NetworkPolicy, and no rule allows the flow.
pub(crate) const NO_RULE: &str = "no-rule-matches";
/// A rule with `l7Protocols` matched what cannot be inspected for them.
pub(crate) const NEEDS_TCP: &str = "l7-needs-tcp";

/// Where a port's name stands for which number, sorted: it differs from one pod to the next.
pub(crate) type NamedPlaces = Arc<[(IpAddr, u16)]>;

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) info: RuleRef,
    /// Antrea only.
    pub(crate) tier: Option<Arc<str>>,
    pub(crate) priority: Option<f64>,
    pub(crate) peers: Peers,
    /// Empty: any.
    pub(crate) services: Arc<[ServiceMatch]>,
    pub(crate) l7: Option<Arc<RuleSet>>,
}

/// Remote addresses that a rule is about.
#[derive(Clone, Debug)]
pub(crate) enum Peers {
    Any,
    Set(Arc<AddressSet>),
}

#[derive(Debug)]
pub(crate) struct AddressSet {
    /// Sorted.
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) blocks: Box<[IpBlock]>,
    /// The addresses that these names stand for are known only while traffic flows.
    pub(crate) names: Box<[NamePattern]>,
}

/// What a rule is about beyond the remote address.
#[derive(Debug)]
pub(crate) enum ServiceMatch {
    Ports {
        protocol: u8,
        destination: Ports,
        /// Inclusive.
        source: Option<(u16, u16)>,
    },
    /// ICMP and IGMP messages.
    Message {
        protocols: [u8; 2],
        kind: Option<u8>,
        code: Option<u8>,
    },
}

#[derive(Debug)]
pub(crate) enum Ports {
    /// Inclusive.
    Range(u16, u16),
    Named(NamedPlaces),
}

impl Rule {
    pub(crate) fn matches(&self, asked: Asked<'_>) -> bool {
        self.matches_peer(asked) && self.matches_service(asked.query)
    }

    pub(crate) fn matches_peer(&self, asked: Asked<'_>) -> bool {
        match &self.peers {
            Peers::Any => true,
            Peers::Set(set) => {
                set.contains(&asked.query.remote)
                    || asked.names.iter().any(|name| set.wants_name(name))
            }
        }
    }

    pub(crate) fn matches_service(&self, query: &FlowQuery) -> bool {
        self.services.is_empty() || self.services.iter().any(|service| service.matches(query))
    }

    /// What the rule would do if its policy was not under audit; `None`: let the flow pass.
    pub(crate) fn audited(&self, query: &FlowQuery) -> Option<Audited> {
        if self.info.action() == Action::Pass {
            return None;
        }
        match self.verdict(query) {
            FlowVerdict::Allow(_) => None,
            FlowVerdict::Deny(denial) => Some(Audited::Deny(denial)),
            FlowVerdict::Inspect(set) => Some(Audited::Inspect(set)),
        }
    }

    fn verdict(&self, query: &FlowQuery) -> FlowVerdict {
        let how = match self.info.action() {
            Action::Drop => DenyHow::Drop,
            Action::Allow | Action::Reject | Action::Pass => DenyHow::Reject,
        };
        let denial = |reason, detail| {
            FlowVerdict::Deny(Denial {
                rule: Some(self.info.clone()),
                policy: Some(self.info.policy().clone()),
                how,
                reason,
                detail,
            })
        };
        match (self.info.action(), &self.l7) {
            (Action::Allow, None) => FlowVerdict::Allow(Some(self.info.clone())),
            (Action::Allow, Some(set)) if can_inspect(query.protocol, set) => {
                FlowVerdict::Inspect(set.clone())
            }
            (Action::Allow, Some(_)) => denial(
                NEEDS_TCP,
                "the rule has l7Protocols, which can only be checked on TCP, or on UDP for tls items",
            ),
            // Pass is dealt with before.
            (Action::Drop | Action::Reject | Action::Pass, _) => denial(BY_RULE, ""),
        }
    }
}

/// TCP carries anything, UDP carries TLS in QUIC.
fn can_inspect(protocol: u8, set: &RuleSet) -> bool {
    protocol == TCP || protocol == UDP && set.wants_tls()
}

impl AddressSet {
    pub(crate) fn contains(&self, address: &IpAddr) -> bool {
        self.addresses.binary_search(address).is_ok()
            || self.blocks.iter().any(|block| block.contains(address))
    }

    /// Whether it is about this name, lower case and without trailing dot.
    pub(crate) fn wants_name(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| pattern.matches(name))
    }
}

impl ServiceMatch {
    pub(crate) fn matches(&self, query: &FlowQuery) -> bool {
        match self {
            Self::Ports {
                protocol,
                destination,
                source,
            } => {
                *protocol == query.protocol
                    && destination.contains(query)
                    && source.is_none_or(|(low, high)| (low..=high).contains(&query.source_port()))
            }
            Self::Message {
                protocols,
                kind,
                code,
            } => {
                protocols.contains(&query.protocol)
                    && kind.is_none_or(|kind| query.icmp.is_some_and(|known| known.0 == kind))
                    && code.is_none_or(|code| query.icmp.is_some_and(|known| known.1 == code))
            }
        }
    }
}

impl Ports {
    fn contains(&self, query: &FlowQuery) -> bool {
        match self {
            Self::Range(low, high) => (low..=high).contains(&&query.destination_port()),
            Self::Named(places) => places
                .binary_search(&(query.destination(), query.destination_port()))
                .is_ok(),
        }
    }
}

/// The rules of an endpoint, in order, by stage.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// All Antrea tiers but baseline.
    pub(crate) antrea: Vec<Arc<Rule>>,
    pub(crate) kubernetes: Vec<Arc<Rule>>,
    /// The Kubernetes policies that isolate the endpoint, by name.
    pub(crate) isolated_by: Vec<Arc<str>>,
    pub(crate) baseline: Vec<Arc<Rule>>,
}

impl Stages {
    /// The peer sets that have names, each once.
    fn named(&self) -> Box<[Arc<AddressSet>]> {
        let stages = [&self.antrea, &self.kubernetes, &self.baseline];
        let sets = stages
            .into_iter()
            .flatten()
            .filter_map(|rule| match &rule.peers {
                Peers::Set(set) if !set.names.is_empty() => Some(set.clone()),
                Peers::Set(_) | Peers::Any => None,
            });
        let mut named: Vec<_> = sets.collect();
        named.sort_unstable_by_key(Arc::as_ptr);
        named.dedup_by(|a, b| Arc::ptr_eq(a, b));
        named.into()
    }

    /// Equal for stages of the same rules.
    pub(crate) fn key(&self, side: Side) -> Vec<usize> {
        let address = |rule: &Arc<Rule>| Arc::as_ptr(rule) as usize;
        let mut key = vec![side as usize, self.antrea.len(), self.kubernetes.len()];
        key.extend(self.antrea.iter().map(address));
        key.extend(self.kubernetes.iter().map(address));
        key.extend(self.baseline.iter().map(address));
        key.extend(self.isolated_by.iter().map(|name| name.as_ptr() as usize));
        key
    }
}

/// Traffic that Kubernetes isolation does not touch.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// Sorted.
    node_addresses: Box<[IpAddr]>,
}

impl Isolation {
    pub(crate) fn new(node_addresses: &[IpAddr]) -> Self {
        let mut node_addresses: Box<[_]> = node_addresses.into();
        node_addresses.sort_unstable();
        Self { node_addresses }
    }

    pub(crate) fn exempts(&self, query: &FlowQuery) -> bool {
        self.node_addresses.binary_search(&query.remote).is_ok()
    }
}

/// The stages of an endpoint in one direction, with an index over each.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) antrea: Stage,
    pub(crate) kubernetes: Stage,
    pub(crate) isolated_by: Box<[Arc<str>]>,
    pub(crate) baseline: Stage,
    pub(crate) isolation: Arc<Isolation>,
    /// Peer sets of all stages that have names.
    named: Box<[Arc<AddressSet>]>,
}

/// Rules of which the first that matches decides.
#[derive(Debug)]
pub(crate) struct Stage {
    enforced: Rules,
    /// The same rules with those under audit in their places, if there are any: if the first that
    /// matches here is under audit, it is asked before the one that decides.
    all: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    rules: Box<[Arc<Rule>]>,
    index: FlowIndex,
}

impl Stage {
    fn new(rules: Vec<Arc<Rule>>) -> Self {
        let under_audit = |rule: &Arc<Rule>| rule.info.audit();
        if !rules.iter().any(under_audit) {
            return Self {
                enforced: Rules::new(rules),
                all: None,
            };
        }
        let enforced = rules.iter().filter(|rule| !under_audit(rule)).cloned();
        Self {
            enforced: Rules::new(enforced.collect()),
            all: Some(Rules::new(rules)),
        }
    }

    /// All rules in order, those under audit in their places.
    pub(crate) fn rules(&self) -> &[Arc<Rule>] {
        &self.all.as_ref().unwrap_or(&self.enforced).rules
    }
}

impl Rules {
    fn new(rules: Vec<Arc<Rule>>) -> Self {
        let index = FlowIndex::new(&rules);
        Self {
            rules: rules.into(),
            index,
        }
    }

    /// The first rule that matches, by the index.
    fn first(&self, asked: Asked<'_>) -> Option<&Rule> {
        self.index.first(&self.rules, asked)
    }

    /// The same by trying one after the other: what the index must agree with.
    fn first_naive(&self, asked: Asked<'_>) -> Option<&Rule> {
        self.rules
            .iter()
            .map(|rule| &**rule)
            .find(|rule| rule.matches(asked))
    }
}

impl Chain {
    pub(crate) fn new(stages: Stages, isolation: Arc<Isolation>) -> Self {
        let named = stages.named();
        Self {
            named,
            antrea: Stage::new(stages.antrea),
            kubernetes: Stage::new(stages.kubernetes),
            isolated_by: stages.isolated_by.into(),
            baseline: Stage::new(stages.baseline),
            isolation,
        }
    }

    /// Whether any policy has a say.
    pub(crate) fn governs(&self) -> bool {
        !(self.antrea.rules().is_empty()
            && self.isolated_by.is_empty()
            && self.baseline.rules().is_empty())
    }

    pub(crate) fn decide(&self, asked: Asked<'_>) -> FlowVerdict {
        self.decide_by(asked, Rules::first)
    }

    pub(crate) fn decide_naive(&self, asked: Asked<'_>) -> FlowVerdict {
        self.decide_by(asked, Rules::first_naive)
    }

    pub(crate) fn decide_audited(&self, asked: Asked<'_>) -> Decision {
        Decision {
            verdict: self.decide(asked),
            audit: self.audited_by(asked, Rules::first),
        }
    }

    pub(crate) fn decide_audited_naive(&self, asked: Asked<'_>) -> Decision {
        Decision {
            verdict: self.decide_naive(asked),
            audit: self.audited_by(asked, Rules::first_naive),
        }
    }

    /// Whether any rule has a peer that is given by name.
    pub(crate) fn wants_names(&self) -> bool {
        !self.named.is_empty()
    }

    /// Whether a rule's peer is given by a name that stands for this one.
    pub(crate) fn wants_name(&self, name: &str) -> bool {
        self.named.iter().any(|set| set.wants_name(name))
    }

    fn decide_by<'c>(
        &'c self,
        asked: Asked<'_>,
        first: impl Fn(&'c Rules, Asked<'_>) -> Option<&'c Rule>,
    ) -> FlowVerdict {
        let query = asked.query;
        if let Some(rule) = first(&self.antrea.enforced, asked)
            && rule.info.action() != Action::Pass
        {
            return rule.verdict(query);
        }
        if let Some(isolating) = self.isolated_by.first() {
            return match first(&self.kubernetes.enforced, asked) {
                Some(rule) => rule.verdict(query),
                None if self.isolation.exempts(query) => FlowVerdict::Allow(None),
                None => FlowVerdict::Deny(isolated(isolating.clone())),
            };
        }
        match first(&self.baseline.enforced, asked) {
            Some(rule) => rule.verdict(query),
            None => FlowVerdict::Allow(None),
        }
    }

    /// What the first matching rule under audit would have done, if one is asked at all: nothing is
    /// asked behind the rule that decides, nor the baseline tier of an isolated endpoint.
    fn audited_by<'c>(
        &'c self,
        asked: Asked<'_>,
        first: impl Fn(&'c Rules, Asked<'_>) -> Option<&'c Rule>,
    ) -> Option<Audited> {
        let query = asked.query;
        if self.antrea.all.is_none() && self.baseline.all.is_none() {
            return None;
        }
        match first(
            self.antrea.all.as_ref().unwrap_or(&self.antrea.enforced),
            asked,
        ) {
            Some(rule) if rule.info.audit() => return rule.audited(query),
            Some(rule) if rule.info.action() != Action::Pass => return None,
            Some(_) | None if !self.isolated_by.is_empty() => return None,
            Some(_) | None => {}
        }
        let rule = first(self.baseline.all.as_ref()?, asked)?;
        rule.info.audit().then(|| rule.audited(query)).flatten()
    }
}

/// Kubernetes leaves open how a refusal shows; an answer is of more use than a timeout.
fn isolated(policy: Arc<str>) -> Denial {
    Denial {
        rule: None,
        policy: Some(policy),
        how: DenyHow::Reject,
        reason: NO_RULE,
        detail: "isolated by a Kubernetes NetworkPolicy, and no rule of any allows the flow",
    }
}
