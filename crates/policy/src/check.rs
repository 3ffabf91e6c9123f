//! Checks that need more than one document: nothing twice, nothing referred to that is not there.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::decode::BASELINE_TIER;
use crate::diagnostic::{Diagnostic, Place};
use crate::model::{
    Group, GroupBody, Identity, Inventory, Located, Order, Peer, Policy, Rule, Scope, Target,
};

/// Antrea's own tiers and their priorities.
pub(crate) const DEFAULT_TIERS: &[(&str, i64)] = &[
    ("emergency", 50),
    ("securityops", 100),
    ("networkops", 150),
    ("platform", 200),
    ("application", 250),
    (BASELINE_TIER, 253),
];
/// Antrea's webhook allows as many, its own included.
const MAX_TIERS: usize = 20;
/// Kept by Antrea for itself.
const RESERVED_PRIORITIES: &[i64] = &[251, 252, 254, 255];
/// Tiers of one's own come before the default tier.
const FIRST_NOT_CUSTOM: i64 = 250;

/// Who an object is: kind, namespace, name. Pods and endpoints share their names.
type Name<'a> = (&'a str, Option<&'a str>, &'a str);

/// Everything wrong between the documents.
pub(crate) fn check(
    inventory: &Inventory,
    broken: &[Identity],
    file_names: &[&str],
) -> Vec<Diagnostic> {
    let mut checker = Checker {
        inventory,
        broken,
        file_names,
        faults: Vec::new(),
    };
    checker.duplicates();
    checker.interfaces_and_addresses();
    checker.tiers();
    for group in &inventory.groups {
        checker.children(group);
    }
    for policy in &inventory.policies {
        checker.policy(policy);
    }
    checker.faults
}

struct Checker<'a> {
    inventory: &'a Inventory,
    broken: &'a [Identity],
    file_names: &'a [&'a str],
    faults: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, object: &Identity, place: Place, field: &str, message: String) {
        self.faults.push(Diagnostic {
            file: self.file(place).to_owned(),
            line: place.pos.line(),
            column: place.pos.column(),
            object: Some(object.display()),
            field: field.to_owned(),
            message,
        });
    }

    fn file(&self, place: Place) -> &'a str {
        self.file_names
            .get(place.file as usize)
            .copied()
            .unwrap_or_default()
    }

    fn whereabouts(&self, place: Place) -> String {
        format!("{}:{}", self.file(place), place.pos.line)
    }

    fn duplicates(&mut self) {
        let inventory = self.inventory;
        let mut all: Vec<&Identity> = Vec::new();
        all.extend(inventory.namespaces.iter().map(|o| &o.id));
        all.extend(inventory.pods.iter().map(|o| &o.id));
        all.extend(inventory.tiers.iter().map(|o| &o.id));
        all.extend(inventory.groups.iter().map(|o| &o.id));
        all.extend(inventory.policies.iter().map(|o| &o.id));
        all.sort_by_key(|id| id.place);
        let mut seen: HashMap<Name<'_>, &Identity> = HashMap::new();
        for id in all {
            let Some(first) = seen.get(&name(id)) else {
                seen.insert(name(id), id);
                continue;
            };
            let message = format!(
                "is defined twice, first as {} in {}",
                first.display(),
                self.whereabouts(first.place)
            );
            self.fault(id, id.place, "metadata.name", message);
        }
    }

    fn interfaces_and_addresses(&mut self) {
        let mut interfaces: HashMap<&str, &Identity> = HashMap::new();
        let mut addresses: HashMap<IpAddr, &Identity> = HashMap::new();
        for pod in self.inventory.pods.iter().filter(|pod| !pod.unselectable) {
            if let Some(interface) = &pod.interface {
                match interfaces.get(interface.value.as_str()) {
                    Some(other) => {
                        let message =
                            format!("{} is {}'s as well", interface.value, other.display());
                        self.fault(&pod.id, interface.place, &interface.field, message);
                    }
                    None => drop(interfaces.insert(&interface.value, &pod.id)),
                }
            }
            for address in &pod.addresses {
                match addresses.get(&address.value) {
                    Some(other) => {
                        let message = format!("{} is {}'s as well", address.value, other.display());
                        let message = match std::ptr::eq(*other, &pod.id) {
                            true => format!("{} is listed twice", address.value),
                            false => message,
                        };
                        self.fault(&pod.id, address.place, &address.field, message);
                    }
                    None => drop(addresses.insert(address.value, &pod.id)),
                }
            }
        }
    }

    fn tiers(&mut self) {
        let mut taken: HashMap<i64, String> = HashMap::new();
        let mut count = DEFAULT_TIERS.len();
        for (name, priority) in DEFAULT_TIERS {
            taken.insert(*priority, format!("tier {name}"));
        }
        for tier in &self.inventory.tiers {
            let priority = tier.priority.value;
            let default = DEFAULT_TIERS.iter().find(|(name, _)| *name == tier.id.name);
            let fault = if let Some((_, fixed)) = default {
                (priority != *fixed).then(|| {
                    format!("the priority of Antrea's own tier is {fixed} and cannot be changed")
                })
            } else if RESERVED_PRIORITIES.contains(&priority) {
                Some(format!("priority {priority} is reserved"))
            } else if let Some(other) = taken.get(&priority) {
                Some(format!("priority {priority} is already used by {other}"))
            } else if priority >= FIRST_NOT_CUSTOM {
                Some(format!(
                    "must be less than {FIRST_NOT_CUSTOM}, the priority of tier application"
                ))
            } else {
                None
            };
            if let Some(message) = fault {
                self.fault(&tier.id, tier.priority.place, &tier.priority.field, message);
            }
            if default.is_none() {
                taken
                    .entry(priority)
                    .or_insert_with(|| format!("tier {}", tier.id.name));
                count += 1;
                if count == MAX_TIERS + 1 {
                    let message = format!("maximum number of Tiers supported: {MAX_TIERS}");
                    self.fault(&tier.id, tier.id.place, "metadata.name", message);
                }
            }
        }
    }

    fn policy(&mut self, policy: &Policy) {
        if let Order::Antrea { tier, .. } = &policy.order
            && !self.knows_tier(&tier.value)
        {
            let message = format!("tier {} does not exist", tier.value);
            self.fault(&policy.id, tier.place, &tier.field, message);
        }
        self.targets(policy, policy.applied_to.as_deref().unwrap_or_default());
        for rule in &policy.rules {
            self.targets(policy, rule.applied_to.as_deref().unwrap_or_default());
            self.peers(policy, rule);
        }
    }

    fn knows_tier(&self, name: &str) -> bool {
        DEFAULT_TIERS.iter().any(|(tier, _)| *tier == name)
            || self.inventory.tiers.iter().any(|tier| tier.id.name == name)
            || self.is_broken("Tier", None, name)
    }

    fn is_broken(&self, kind: &str, namespace: Option<&str>, name: &str) -> bool {
        self.broken
            .iter()
            .any(|id| id.kind == kind && id.namespace.as_deref() == namespace && id.name == name)
    }

    fn peers(&mut self, policy: &Policy, rule: &Rule) {
        for peer in &rule.peers {
            if let Peer::Group(name) = peer {
                self.group(&policy.id, name);
            }
        }
    }

    fn targets(&mut self, policy: &Policy, targets: &[Target]) {
        for target in targets {
            let Target::Group(name) = target else {
                continue;
            };
            let Some(group) = self.group(&policy.id, name) else {
                continue;
            };
            self.group_as_target(policy, name, group);
        }
    }

    /// A group that a policy can be applied to has pods, and only such that the policy may govern.
    fn group_as_target(&mut self, policy: &Policy, name: &Located<String>, group: &'a Group) {
        let members = self.leaves(group);
        if members
            .iter()
            .all(|leaf| matches!(leaf.body, GroupBody::Blocks(_)))
        {
            let message = format!(
                "group {} has only ipBlocks, which a policy cannot be applied to",
                name.value
            );
            self.fault(&policy.id, name.place, &name.field, message);
        }
        let foreign = |leaf: &&Group| matches!(&leaf.body, GroupBody::Pods(pods) if matches!(pods.scope, Scope::Labels(_)));
        if policy.id.namespace.is_some() && members.iter().any(foreign) {
            let message = format!(
                "group {} has a namespaceSelector; a NetworkPolicy only applies to its own namespace",
                name.value
            );
            self.fault(&policy.id, name.place, &name.field, message);
        }
    }

    fn leaves(&self, group: &'a Group) -> Vec<&'a Group> {
        let GroupBody::Children(children) = &group.body else {
            return vec![group];
        };
        let namespace = group.id.namespace.as_deref();
        children
            .iter()
            .filter_map(|child| self.find_group(namespace, &child.value))
            .collect()
    }

    fn find_group(&self, namespace: Option<&str>, name: &str) -> Option<&'a Group> {
        let mut groups = self.inventory.groups.iter();
        groups.find(|g| g.id.name == name && g.id.namespace.as_deref() == namespace)
    }

    /// A group that is referred to; a missing one is reported.
    fn group(&mut self, referrer: &Identity, name: &Located<String>) -> Option<&'a Group> {
        let namespace = referrer.namespace.as_deref();
        let group = self.find_group(namespace, &name.value);
        let kind = if namespace.is_some() {
            "Group"
        } else {
            "ClusterGroup"
        };
        if group.is_none() && !self.is_broken(kind, namespace, &name.value) {
            let message = match namespace {
                Some(namespace) => format!("Group {namespace}/{} does not exist", name.value),
                None => format!("ClusterGroup {} does not exist", name.value),
            };
            self.fault(referrer, name.place, &name.field, message);
        }
        group
    }

    fn children(&mut self, group: &'a Group) {
        let GroupBody::Children(children) = &group.body else {
            return;
        };
        for child in children {
            let Some(found) = self.group(&group.id, child) else {
                continue;
            };
            let message = if std::ptr::eq(found, group) {
                "a group cannot be its own child".to_owned()
            } else if matches!(found.body, GroupBody::Children(_)) {
                format!(
                    "group {} has childGroups itself; only one level is allowed",
                    child.value
                )
            } else {
                continue;
            };
            self.fault(&group.id, child.place, &child.field, message);
        }
    }
}

fn name(id: &Identity) -> Name<'_> {
    let kind = if id.kind == "Endpoint" {
        "Pod"
    } else {
        id.kind
    };
    (kind, id.namespace.as_deref(), &id.name)
}
