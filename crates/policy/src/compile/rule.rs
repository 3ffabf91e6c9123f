//! One rule, with its peers and names resolved.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::world::{Members, World};
use crate::chain::{AddressSet, NamedPlaces, Peers, Ports, Rule as Compiled, ServiceMatch};
use crate::decode::{ICMP, ICMPV6, IGMP};
use crate::model::{IpBlock, Order, Peer, Policy, PortMatch, Rule, Service};
use crate::names::NamePattern;
use crate::query::{RuleInfo, RuleRef};
use crate::ruleset::RuleSet;

/// What a peer set consists of.
type SetKey = (Vec<IpAddr>, Vec<IpBlock>, Vec<NamePattern>);

/// Compiles rules and shares what they have in common.
pub(crate) struct RuleCompiler<'w, 'a> {
    world: &'w World<'a>,
    sets: HashMap<SetKey, Arc<AddressSet>>,
    names: HashMap<(String, u8), NamedPlaces>,
    any: Arc<[ServiceMatch]>,
}

/// What a rule has in common on all its endpoints.
pub(crate) struct Prepared {
    info: RuleRef,
    services: Arc<[ServiceMatch]>,
    l7: Option<Arc<RuleSet>>,
    /// By the endpoint's namespace; one entry if the peers do not depend on it.
    done: std::cell::RefCell<HashMap<String, Arc<Compiled>>>,
    relative: bool,
}

impl<'w, 'a> RuleCompiler<'w, 'a> {
    pub(crate) fn new(world: &'w World<'a>) -> Self {
        Self {
            world,
            sets: HashMap::new(),
            names: HashMap::new(),
            any: Arc::new([]),
        }
    }

    pub(crate) fn prepare(&mut self, name: &Arc<str>, audit: bool, rule: &Rule) -> Prepared {
        let info = RuleRef(Arc::new(RuleInfo {
            policy: name.clone(),
            rule: rule.name.as_str().into(),
            action: rule.action.value,
            logged: rule.logged,
            log_label: rule.log_label.as_deref().map(Into::into),
            audit,
        }));
        let l7 =
            (!rule.l7.is_empty()).then(|| Arc::new(RuleSet::new(info.clone(), rule.l7.clone())));
        let relative = rule
            .peers
            .iter()
            .any(|peer| matches!(peer, Peer::Pods(selection) if selection.scope.is_relative()));
        Prepared {
            info,
            services: self.services(rule),
            l7,
            done: Default::default(),
            relative,
        }
    }

    /// The rule as it is for one endpoint.
    pub(crate) fn compile(
        &mut self,
        prepared: &Prepared,
        rule: &Rule,
        policy: &Policy,
        endpoint: u32,
    ) -> Arc<Compiled> {
        let home = self.world.namespace_of(endpoint);
        let key = if prepared.relative { home } else { "" };
        if let Some(done) = prepared.done.borrow().get(key) {
            return done.clone();
        }
        let (tier, priority) = match &policy.order {
            Order::Antrea { tier, priority } => (Some(tier.value.as_str().into()), Some(*priority)),
            Order::Kubernetes => (None, None),
        };
        let compiled = Arc::new(Compiled {
            info: prepared.info.clone(),
            tier,
            priority,
            peers: self.peers(rule, policy.id.namespace.as_deref(), home),
            services: prepared.services.clone(),
            l7: prepared.l7.clone(),
        });
        prepared
            .done
            .borrow_mut()
            .insert(key.to_owned(), compiled.clone());
        compiled
    }

    fn peers(&mut self, rule: &Rule, owner: Option<&str>, home: &str) -> Peers {
        if rule.peers.is_empty() {
            return Peers::Any;
        }
        let mut members = Members::default();
        let mut names = Vec::new();
        for peer in &rule.peers {
            match peer {
                Peer::Pods(selection) => self.world.addresses(selection, Some(home), &mut members),
                Peer::Group(name) => self.world.group(owner, &name.value, &mut members),
                Peer::Block(block) => members.blocks.push(block.clone()),
                Peer::Fqdn(pattern) => names.push(pattern.clone()),
            }
        }
        members.addresses.sort_unstable();
        members.addresses.dedup();
        let key = (members.addresses, members.blocks, names);
        if let Some(known) = self.sets.get(&key) {
            return Peers::Set(known.clone());
        }
        let set = AddressSet {
            addresses: key.0.clone().into(),
            blocks: key.1.clone().into(),
            names: key.2.clone().into(),
        };
        Peers::Set(
            self.sets
                .entry(key)
                .or_insert_with(|| Arc::new(set))
                .clone(),
        )
    }

    fn services(&mut self, rule: &Rule) -> Arc<[ServiceMatch]> {
        if rule.services.is_empty() {
            return self.any.clone();
        }
        rule.services
            .iter()
            .map(|service| self.service(service))
            .collect()
    }

    fn service(&mut self, service: &Service) -> ServiceMatch {
        match service {
            Service::Ports {
                protocol,
                destination,
                source,
            } => ServiceMatch::Ports {
                protocol: *protocol,
                destination: match destination {
                    PortMatch::Any => Ports::Range(0, u16::MAX),
                    PortMatch::Range(low, high) => Ports::Range(*low, *high),
                    PortMatch::Name(name) => Ports::Named(self.named(name, *protocol)),
                },
                source: *source,
            },
            Service::Icmp { kind, code } => ServiceMatch::Message {
                protocols: [ICMP, ICMPV6],
                kind: *kind,
                code: *code,
            },
            Service::Igmp { kind } => ServiceMatch::Message {
                protocols: [IGMP, IGMP],
                kind: *kind,
                code: None,
            },
        }
    }

    fn named(&mut self, name: &str, protocol: u8) -> NamedPlaces {
        let world = self.world;
        let known = self.names.entry((name.to_owned(), protocol));
        known
            .or_insert_with(|| world.named_ports(name, protocol).into())
            .clone()
    }
}
