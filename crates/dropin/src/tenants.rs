//! Whose rules are whose: what each VLAN's flows are judged by.
//!
//! Rules come in one of two forms. With tenants, a file of rules is registered under a number, and
//! handlers say which VLAN is judged by which tenant; either may come first. Without, one file has all
//! rules, and each says by `vlan.id` or by a flow bit that such a rule sets which VLAN it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rules::{Action, Content, FlowBit, Protocol, Rule};

/// What the flows of one VLAN are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanRules {
    /// What may pass.
    pub pass: Vec<Pass>,
    /// What happens to everything else; `None`: it passes.
    pub otherwise: Option<Otherwise>,
}

/// One thing that may pass: all contents must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// HTTP, TLS, or anything.
    pub protocol: Protocol,
    /// What must be found.
    pub contents: Vec<Content>,
}

/// What happens to what no pass rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otherwise {
    /// Reset rather than dropped.
    pub reject: bool,
    /// The rule's message.
    pub msg: String,
    /// Its numbers.
    pub gid: u32,
    /// See [`Rule::sid`].
    pub sid: u32,
    /// See [`Rule::rev`].
    pub rev: u32,
}

/// Why rules cannot be put into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Unusable {
    /// The rule's line.
    pub line: usize,
    /// What cannot be done.
    pub what: &'static str,
}

/// Why a tenant's command failed, with Suricata's words, which callers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// There is no such tenant.
    #[error("tenant detect engine not found")]
    NoTenant,
    /// The VLAN is another tenant's.
    #[error("handler setup failure")]
    HandlerTaken,
    /// There is no such handler.
    #[error("handler unregister failure")]
    NoHandler,
    /// There are as many as can be.
    #[error("adding tenant failed")]
    Full,
}

/// Most tenants: VLAN numbers have twelve bits, and the engine's names of endpoints eleven.
pub const TENANTS_MAX: usize = 2046;

/// Tenants and handlers.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    rules: BTreeMap<u32, Arc<VlanRules>>,
    handlers: BTreeMap<u16, u32>,
}

impl Tenants {
    /// Registers a tenant, or gives it other rules. Returns whether anything changed: rules that say
    /// the same in another order are the same.
    ///
    /// # Errors
    /// There are too many.
    pub fn put(&mut self, id: u32, rules: VlanRules) -> Result<bool, TenantError> {
        if let Some(known) = self.rules.get(&id)
            && known.means_the_same(&rules)
        {
            return Ok(false);
        }
        if self.rules.len() >= TENANTS_MAX && !self.rules.contains_key(&id) {
            return Err(TenantError::Full);
        }
        self.rules.insert(id, Arc::new(rules));
        Ok(true)
    }

    /// Forgets a tenant. Its handlers stay, and their VLANs have no rules until it comes again.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&mut self, id: u32) -> Result<(), TenantError> {
        let known = self.rules.remove(&id);
        known.map(|_| ()).ok_or(TenantError::NoTenant)
    }

    /// Judges a VLAN by a tenant, which need not be registered yet.
    ///
    /// # Errors
    /// The VLAN is another tenant's.
    pub fn handle(&mut self, vlan: u16, id: u32) -> Result<(), TenantError> {
        match self.handlers.insert(vlan, id) {
            Some(other) if other != id => {
                self.handlers.insert(vlan, other);
                Err(TenantError::HandlerTaken)
            }
            _ => Ok(()),
        }
    }

    /// Takes a VLAN from a tenant.
    ///
    /// # Errors
    /// It is not this tenant's.
    pub fn unhandle(&mut self, vlan: u16, id: u32) -> Result<(), TenantError> {
        if self.handlers.get(&vlan) != Some(&id) {
            return Err(TenantError::NoHandler);
        }
        self.handlers.remove(&vlan);
        Ok(())
    }

    /// Is there such a tenant?
    pub fn contains(&self, id: u32) -> bool {
        self.rules.contains_key(&id)
    }

    /// What each VLAN is judged by, of those that have both a handler and its tenant.
    pub fn vlans(&self) -> BTreeMap<u16, (u32, Arc<VlanRules>)> {
        let rules = |(&vlan, &id): (&u16, &u32)| {
            let rules = self.rules.get(&id)?;
            Some((vlan, (id, Arc::clone(rules))))
        };
        self.handlers.iter().filter_map(rules).collect()
    }
}

impl VlanRules {
    /// One tenant's file: every rule is about its VLAN.
    ///
    /// # Errors
    /// A rule that cannot be put into force.
    pub fn of_tenant(rules: &[Rule]) -> Result<Self, Unusable> {
        let mut vlan_rules = Self::default();
        for rule in rules {
            if rule.vlan.is_some() || rule.flowbits.iter().any(is_condition) {
                let what = "a tenant's rules are about its VLAN; vlan.id and flowbits say another";
                return Err(unusable(rule, what));
            }
            vlan_rules.add(rule)?;
        }
        Ok(vlan_rules)
    }

    /// A file for all VLANs.
    ///
    /// # Errors
    /// A rule that cannot be put into force.
    pub fn of_all(rules: &[Rule]) -> Result<BTreeMap<u16, Self>, Unusable> {
        let bits = bits(rules)?;
        let all: BTreeSet<u16> = rules.iter().filter_map(|rule| rule.vlan).collect();
        let mut vlans: BTreeMap<u16, Self> =
            all.iter().map(|&vlan| (vlan, Self::default())).collect();
        for rule in rules.iter().filter(|rule| !sets_a_bit(rule)) {
            for vlan in vlans_of(rule, &bits, &all)? {
                vlans.entry(vlan).or_default().add(rule)?;
            }
        }
        Ok(vlans)
    }

    /// Do they let the same pass and do the same with the rest? Order and numbers of pass rules say
    /// nothing.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.pass.iter().all(|pass| b.pass.contains(pass));
        self.otherwise == other.otherwise && within(self, other) && within(other, self)
    }

    fn add(&mut self, rule: &Rule) -> Result<(), Unusable> {
        match rule.action {
            Action::Pass => self.pass.push(Pass {
                protocol: rule.protocol,
                contents: rule.contents.clone(),
            }),
            Action::Reject | Action::Drop => self.set_otherwise(rule)?,
            // A rule that only sets a bit reports nothing of its own.
            Action::Alert if rule.noalert => {}
            Action::Alert => return Err(unusable(rule, "alert rules are not known here")),
        }
        Ok(())
    }

    fn set_otherwise(&mut self, rule: &Rule) -> Result<(), Unusable> {
        if !rule.contents.is_empty() || !matches!(rule.protocol, Protocol::Ip | Protocol::Tcp) {
            let what = "reject and drop are known only of everything that no pass rule matches";
            return Err(unusable(rule, what));
        }
        if rule.flow.to_client {
            return Err(unusable(rule, "what a server sends is not judged"));
        }
        if self.otherwise.is_some() {
            return Err(unusable(rule, "there is a reject or drop rule already"));
        }
        self.otherwise = Some(Otherwise {
            reject: rule.action == Action::Reject,
            msg: rule.msg.clone(),
            gid: rule.gid,
            sid: rule.sid,
            rev: rule.rev,
        });
        Ok(())
    }
}

fn unusable(rule: &Rule, what: &'static str) -> Unusable {
    Unusable {
        line: rule.line,
        what,
    }
}

fn is_condition(bit: &FlowBit) -> bool {
    !matches!(bit, FlowBit::Set(_))
}

fn sets_a_bit(rule: &Rule) -> bool {
    rule.flowbits.iter().any(|bit| !is_condition(bit))
}

/// The VLANs whose flows have each bit.
fn bits(rules: &[Rule]) -> Result<BTreeMap<&str, BTreeSet<u16>>, Unusable> {
    let mut bits: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    for rule in rules {
        for bit in &rule.flowbits {
            let FlowBit::Set(name) = bit else { continue };
            let vlan = rule.vlan.filter(|_| rule.contents.is_empty());
            let vlan = vlan.ok_or(unusable(rule, "flow bits are set by vlan.id alone here"))?;
            bits.entry(name).or_default().insert(vlan);
        }
    }
    Ok(bits)
}

/// The VLANs that a rule is for.
fn vlans_of(
    rule: &Rule,
    bits: &BTreeMap<&str, BTreeSet<u16>>,
    all: &BTreeSet<u16>,
) -> Result<BTreeSet<u16>, Unusable> {
    let mut vlans = match rule.vlan {
        Some(vlan) => BTreeSet::from([vlan]),
        None => all.clone(),
    };
    for bit in &rule.flowbits {
        let (name, wanted) = match bit {
            FlowBit::IsSet(name) => (name, true),
            FlowBit::IsNotSet(name) => (name, false),
            FlowBit::Set(_) => continue,
        };
        let having = bits.get(name.as_str());
        let having = having.ok_or(unusable(rule, "no rule sets the flow bit that it asks for"))?;
        vlans.retain(|vlan| having.contains(vlan) == wanted);
    }
    Ok(vlans)
}
