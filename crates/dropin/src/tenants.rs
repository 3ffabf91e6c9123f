//! Whose rules are whose: what each VLAN's flows are judged by.
//!
//! Rules come in one of two forms. With tenants, a file of rules is registered under a number, and
//! handlers say which VLAN is judged by which tenant; either may come first. Without, one file has all
//! rules, and each says by `vlan.id` or by a flow bit that such a rule sets which VLAN it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rules::{Action, Condition, Content, FlowBit, Protocol, Rule};

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

/// A file for all VLANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    /// What each VLAN that it names is judged by.
    pub vlans: BTreeMap<u16, Arc<VlanRules>>,
    /// It refuses what is in no VLAN that it names.
    pub refuses_others: bool,
}

impl FileRules {
    /// What a file's rules say.
    ///
    /// # Errors
    /// A rule that cannot be put into force.
    pub fn new(rules: &[Rule]) -> Result<Self, Unusable> {
        let bits = Bits::new(rules)?;
        let all: BTreeSet<u16> = rules.iter().filter_map(|rule| rule.vlan).collect();
        let mut vlans: BTreeMap<u16, Draft> =
            all.iter().map(|&vlan| (vlan, Draft::default())).collect();
        let mut refuses_others = false;
        for rule in rules.iter().filter(|rule| rule.action != Action::Alert) {
            for vlan in bits.vlans_of(rule, &all)? {
                vlans.entry(vlan).or_default().add(rule)?;
            }
            refuses_others |= is_about_others(rule);
        }
        if let Some(rule) = rules.iter().find(|rule| is_reporting(rule)) {
            return Err(unusable(rule, "alert rules are not known here"));
        }
        let vlans = vlans.into_iter().map(|(vlan, draft)| {
            let rules = draft.finish()?;
            Ok((vlan, Arc::new(rules)))
        });
        Ok(Self {
            vlans: vlans.collect::<Result<_, _>>()?,
            refuses_others,
        })
    }
}

/// An alert rule that is more than a way to set a bit.
fn is_reporting(rule: &Rule) -> bool {
    rule.action == Action::Alert && !rule.noalert && rule.flowbits.iter().all(is_condition)
}

/// A rule that refuses everything in VLANs that no rule sets a bit for.
fn is_about_others(rule: &Rule) -> bool {
    let is_unbound = |bit: &FlowBit| matches!(bit, FlowBit::IsNotSet(_));
    matches!(rule.action, Action::Reject | Action::Drop)
        && rule.vlan.is_none()
        && rule.conditions.is_empty()
        && rule.flowbits.iter().all(is_unbound)
}

/// A VLAN's rules while they are collected.
#[derive(Default)]
struct Draft {
    rules: VlanRules,
    /// The rules that refuse parts of what no pass rule matches, if no rule refuses all of it.
    parts: Parts,
}

/// Rules that together must refuse everything that no pass rule matches.
#[derive(Default)]
struct Parts {
    /// Line of the first.
    line: Option<usize>,
    /// Protocols other than these are refused.
    all_but: Option<Vec<Protocol>>,
    /// Heads of these are refused unless a pass rule matches.
    heads: Vec<Protocol>,
}

impl Draft {
    fn add(&mut self, rule: &Rule) -> Result<(), Unusable> {
        match rule.action {
            Action::Pass if !rule.conditions.is_empty() => {
                return Err(unusable(
                    rule,
                    "conditions of pass rules are not known here",
                ));
            }
            Action::Pass => self.rules.pass.push(Pass {
                protocol: rule.protocol,
                contents: rule.contents.clone(),
            }),
            Action::Reject | Action::Drop => self.refuse(rule)?,
            // A rule that only sets a bit reports nothing of its own.
            Action::Alert if rule.noalert => {}
            Action::Alert => return Err(unusable(rule, "alert rules are not known here")),
        }
        Ok(())
    }

    fn refuse(&mut self, rule: &Rule) -> Result<(), Unusable> {
        let is_head = rule.conditions == [Condition::HeadComplete];
        let is_general = matches!(rule.protocol, Protocol::Ip | Protocol::Tcp);
        if !rule.contents.is_empty() || !(is_head || is_general) {
            let what = "reject and drop are known only of everything that no pass rule matches";
            return Err(unusable(rule, what));
        }
        if rule.flow.to_client {
            return Err(unusable(rule, "what a server sends is not judged"));
        }
        let otherwise = Otherwise {
            reject: rule.action == Action::Reject,
            msg: rule.msg.clone(),
            gid: rule.gid,
            sid: rule.sid,
            rev: rule.rev,
        };
        let is_part = !rule.conditions.is_empty();
        match &self.rules.otherwise {
            None => self.rules.otherwise = Some(otherwise),
            Some(known) => {
                let same = known.msg == otherwise.msg && known.reject == otherwise.reject;
                if !is_part || self.parts.line.is_none() || !same {
                    return Err(unusable(rule, "there is a reject or drop rule already"));
                }
            }
        }
        if is_part {
            self.parts.add(rule, is_head)?;
        }
        Ok(())
    }

    /// Refusing in parts must leave no gap: what is not said to be refused would pass.
    fn finish(self) -> Result<VlanRules, Unusable> {
        let Some(line) = self.parts.line else {
            return Ok(self.rules);
        };
        let gap = |what| Err(Unusable { line, what });
        let Some(read) = &self.parts.all_but else {
            return gap("no rule refuses the protocols that no pass rule is about");
        };
        for protocol in read {
            let mut passes = self.rules.pass.iter();
            let passes_all =
                passes.any(|pass| pass.protocol == *protocol && pass.contents.is_empty());
            if !passes_all && !self.parts.heads.contains(protocol) {
                return gap("of a protocol, what no pass rule matches is not refused");
            }
        }
        Ok(self.rules)
    }
}

impl Parts {
    fn add(&mut self, rule: &Rule, is_head: bool) -> Result<(), Unusable> {
        self.line.get_or_insert(rule.line);
        if is_head {
            self.heads.push(rule.protocol);
            return Ok(());
        }
        let not = |condition: &Condition| match condition {
            Condition::NotProtocol(protocol) => Some(*protocol),
            _ => None,
        };
        let protocols: Vec<_> = rule.conditions.iter().filter_map(not).collect();
        if protocols.len() == rule.conditions.len() {
            self.all_but = Some(protocols);
        } else if !protocols.is_empty() || rule.conditions.len() > 1 {
            return Err(unusable(
                rule,
                "such conditions together are not known here",
            ));
        }
        // What is left is no protocol at all, or too much or too long without any: the engine refuses
        // both by its own limits.
        Ok(())
    }
}

impl VlanRules {
    /// One tenant's file: every rule is about its VLAN.
    ///
    /// # Errors
    /// A rule that cannot be put into force.
    pub fn of_tenant(rules: &[Rule]) -> Result<Self, Unusable> {
        let mut draft = Draft::default();
        for rule in rules {
            if rule.vlan.is_some() || rule.flowbits.iter().any(is_condition) {
                let what = "a tenant's rules are about its VLAN; vlan.id and flowbits say another";
                return Err(unusable(rule, what));
            }
            draft.add(rule)?;
        }
        draft.finish()
    }

    /// Do they let the same pass and do the same with the rest? Order and numbers of rules say
    /// nothing.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.pass.iter().all(|pass| b.pass.contains(pass));
        let rest = |rules: &Self| {
            let otherwise = rules.otherwise.as_ref();
            otherwise.map(|rule| (rule.reject, rule.msg.clone()))
        };
        rest(self) == rest(other) && within(self, other) && within(other, self)
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

/// What flow bits stand for.
struct Bits<'a> {
    /// The VLANs whose flows have each bit.
    of_vlans: BTreeMap<&'a str, BTreeSet<u16>>,
    /// Bits that pass rules set when they match.
    of_passes: BTreeSet<&'a str>,
}

impl<'a> Bits<'a> {
    fn new(rules: &'a [Rule]) -> Result<Self, Unusable> {
        let mut bits = Self {
            of_vlans: BTreeMap::new(),
            of_passes: BTreeSet::new(),
        };
        for rule in rules {
            for bit in &rule.flowbits {
                let FlowBit::Set(name) = bit else { continue };
                if rule.action == Action::Pass {
                    bits.of_passes.insert(name);
                    continue;
                }
                let vlan = rule.vlan.filter(|_| rule.contents.is_empty());
                let what = "flow bits are set by vlan.id alone, or by pass rules, here";
                let vlan = vlan.ok_or(unusable(rule, what))?;
                bits.of_vlans.entry(name).or_default().insert(vlan);
            }
        }
        Ok(bits)
    }

    /// The VLANs that a rule is for.
    fn vlans_of(&self, rule: &Rule, all: &BTreeSet<u16>) -> Result<BTreeSet<u16>, Unusable> {
        let mut vlans = match rule.vlan {
            Some(vlan) => BTreeSet::from([vlan]),
            None => all.clone(),
        };
        let none = BTreeSet::new();
        for bit in &rule.flowbits {
            let (name, wanted) = match bit {
                FlowBit::IsSet(name) => (name.as_str(), true),
                FlowBit::IsNotSet(name) => (name.as_str(), false),
                FlowBit::Set(_) => continue,
            };
            if self.of_passes.contains(name) {
                // "Nothing has passed yet", of a rule that refuses: what no pass rule matches is
                // refused anyway.
                if wanted || rule.action == Action::Pass {
                    let what = "bits that pass rules set are known only as isnotset, to refuse";
                    return Err(unusable(rule, what));
                }
                continue;
            }
            let having = match self.of_vlans.get(name) {
                Some(having) => having,
                None if wanted => {
                    return Err(unusable(rule, "no rule sets the flow bit that it asks for"));
                }
                None => &none,
            };
            vlans.retain(|vlan| having.contains(vlan) == wanted);
        }
        Ok(vlans)
    }
}
