//! From checked documents to what is asked per flow.

mod rule;
mod world;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::Side;
use crate::chain::{Chain, Isolation, Stages};
use crate::check::{self, DEFAULT_TIERS};
use crate::decode::{self, BASELINE_TIER};
use crate::diagnostic::Diagnostic;
use crate::endpoint::EndpointPolicy;
use crate::model::{Identity, Inventory, Order, Policy};
use crate::set::{Enforcement, PolicyInfo, PolicySet, Summary};
use rule::RuleCompiler;
use world::World;

/// One policy file.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile<'a> {
    /// Name used in diagnostics.
    pub name: &'a str,
    /// Content: YAML documents.
    pub text: &'a str,
}

/// What is known of the node that the policies are compiled for.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// The node's own addresses. Under Kubernetes NetworkPolicy a pod's traffic with its own node is
    /// always allowed; an Antrea rule can forbid it nevertheless.
    pub node_addresses: Vec<IpAddr>,
}

/// Reads, checks and compiles a set of files, which are one whole: a policy in one may refer to a
/// group in another.
///
/// # Errors
/// Every fault of every file, sorted by file and line. Nothing is compiled from a set with a fault.
pub fn compile(
    files: &[SourceFile<'_>],
    options: &CompileOptions,
) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut inventory = Inventory::default();
    let mut broken = Vec::new();
    let mut faults = Vec::new();
    for (index, file) in (0u32..).zip(files) {
        faults.extend(decode::file(
            file.name,
            index,
            file.text,
            &mut inventory,
            &mut broken,
        ));
    }
    let names: Vec<_> = files.iter().map(|file| file.name).collect();
    faults.extend(check::check(&inventory, &broken, &names));
    if !faults.is_empty() {
        faults.sort();
        faults.dedup();
        return Err(faults);
    }
    Ok(build(inventory, options))
}

fn build(inventory: Inventory, options: &CompileOptions) -> PolicySet {
    let summary = summarise(&inventory);
    let world = World::new(&inventory);
    let tiers = tier_priorities(&inventory);
    let mut policies: Vec<_> = inventory.policies.iter().collect();
    policies.sort_by(|a, b| rank(a, &tiers).cmp(&rank(b, &tiers)));
    let mut compiler = RuleCompiler::new(&world);
    let mut drafts: Vec<Draft> = world.endpoints().iter().map(|_| Draft::default()).collect();
    let mut infos = Vec::with_capacity(policies.len());
    for policy in policies {
        infos.push(apply(policy, &tiers, &world, &mut compiler, &mut drafts));
    }
    let endpoints = finish(
        &world,
        drafts,
        options,
        &infos.iter().map(|i| i.name.clone()).collect(),
    );
    PolicySet::new(endpoints, infos, summary)
}

/// A policy's place in the order of evaluation. The parts behind the two priorities break ties, so
/// that the outcome does not depend on the order of files.
type Rank<'a> = (i64, u64, &'static str, Option<&'a str>, &'a str);

fn rank<'a>(policy: &'a Policy, tiers: &HashMap<&str, i64>) -> Rank<'a> {
    let (tier, priority) = match &policy.order {
        Order::Antrea { tier, priority } => (tier_priority(&tier.value, tiers), *priority),
        // Stages are told apart by kind; among themselves these are equal.
        Order::Kubernetes => (0, 0.0),
    };
    let id: &Identity = &policy.id;
    // Positive floats are ordered as their bits are.
    (
        tier,
        priority.to_bits(),
        id.kind,
        id.namespace.as_deref(),
        &id.name,
    )
}

fn tier_priorities(inventory: &Inventory) -> HashMap<&str, i64> {
    let own = inventory
        .tiers
        .iter()
        .map(|tier| (tier.id.name.as_str(), tier.priority.value));
    DEFAULT_TIERS.iter().copied().chain(own).collect()
}

fn tier_priority(name: &str, tiers: &HashMap<&str, i64>) -> i64 {
    tiers.get(name).copied().unwrap_or(i64::MAX)
}

/// One endpoint's rules while they are collected.
#[derive(Default)]
struct Draft {
    egress: Stages,
    ingress: Stages,
}

impl Draft {
    fn stages(&mut self, side: Side) -> &mut Stages {
        match side {
            Side::Egress => &mut self.egress,
            Side::Ingress => &mut self.ingress,
        }
    }
}

fn apply(
    policy: &Policy,
    tiers: &HashMap<&str, i64>,
    world: &World<'_>,
    compiler: &mut RuleCompiler<'_, '_>,
    drafts: &mut [Draft],
) -> PolicyInfo {
    let name: Arc<str> = policy.id.display().into();
    let namespace = policy.id.namespace.as_deref();
    let common = policy
        .applied_to
        .as_ref()
        .map(|targets| world.targets(targets, namespace));
    let mut selected: Vec<u32> = common.clone().unwrap_or_default();
    for endpoint in &selected {
        for side in &policy.isolates {
            if let Some(draft) = drafts.get_mut(*endpoint as usize) {
                draft.stages(*side).isolated_by.push(name.clone());
            }
        }
    }
    for rule in &policy.rules {
        let own = rule
            .applied_to
            .as_ref()
            .map(|targets| world.targets(targets, namespace));
        let targets = own.as_ref().or(common.as_ref());
        let prepared = compiler.prepare(&name, policy.audit, rule);
        for endpoint in targets.into_iter().flatten() {
            let compiled = compiler.compile(&prepared, rule, policy, *endpoint);
            if let Some(draft) = drafts.get_mut(*endpoint as usize) {
                let stages = draft.stages(rule.side);
                match &policy.order {
                    Order::Kubernetes => stages.kubernetes.push(compiled),
                    Order::Antrea { tier, .. } if tier.value == BASELINE_TIER => {
                        stages.baseline.push(compiled);
                    }
                    Order::Antrea { .. } => stages.antrea.push(compiled),
                }
            }
        }
        selected.extend(own.into_iter().flatten());
    }
    selected.sort_unstable();
    selected.dedup();
    info(policy, name, tiers, selected.len())
}

fn info(
    policy: &Policy,
    name: Arc<str>,
    tiers: &HashMap<&str, i64>,
    endpoints: usize,
) -> PolicyInfo {
    let (tier, of_tier, priority) = match &policy.order {
        Order::Antrea { tier, priority } => (
            Some(tier.value.clone()),
            Some(tier_priority(&tier.value, tiers)),
            Some(*priority),
        ),
        Order::Kubernetes => (None, None, None),
    };
    let count = |side| policy.rules.iter().filter(|rule| rule.side == side).count();
    PolicyInfo {
        name,
        tier,
        tier_priority: of_tier,
        priority,
        egress_rules: count(Side::Egress),
        ingress_rules: count(Side::Ingress),
        applied_to: endpoints,
        enforcement: if policy.audit {
            Enforcement::Audit
        } else {
            Enforcement::Enforce
        },
    }
}

/// Endpoints with the same rules share one chain and its index.
fn finish(
    world: &World<'_>,
    drafts: Vec<Draft>,
    options: &CompileOptions,
    all: &Arc<[Arc<str>]>,
) -> Vec<Arc<EndpointPolicy>> {
    let isolation = Arc::new(Isolation::new(&options.node_addresses));
    let mut shared: HashMap<Vec<usize>, Arc<Chain>> = HashMap::new();
    let mut share = |side: Side, stages: Stages| {
        let key = stages.key(side);
        let chain = shared
            .entry(key)
            .or_insert_with(|| Arc::new(Chain::new(stages, isolation.clone())));
        chain.clone()
    };
    let pairs = world.endpoints().iter().zip(drafts);
    pairs
        .map(|(pod, draft)| {
            let egress = share(Side::Egress, draft.egress);
            let ingress = share(Side::Ingress, draft.ingress);
            Arc::new(EndpointPolicy::new(pod, egress, ingress, all.clone()))
        })
        .collect()
}

fn summarise(inventory: &Inventory) -> Summary {
    let count = |kind: &str| {
        inventory
            .policies
            .iter()
            .filter(|p| p.id.kind == kind)
            .count()
    };
    let groups = |kind: &str| {
        inventory
            .groups
            .iter()
            .filter(|g| g.id.kind == kind)
            .count()
    };
    let endpoints = inventory
        .pods
        .iter()
        .filter(|pod| pod.interface.is_some())
        .count();
    Summary {
        endpoints,
        pods: inventory.pods.len() - endpoints,
        namespaces: inventory.namespaces.len(),
        tiers: inventory.tiers.len(),
        cluster_groups: groups("ClusterGroup"),
        groups: groups("Group"),
        cluster_network_policies: count("ClusterNetworkPolicy"),
        network_policies: count("NetworkPolicy"),
        k8s_network_policies: count("K8sNetworkPolicy"),
        rules: inventory
            .policies
            .iter()
            .map(|policy| policy.rules.len())
            .sum(),
    }
}
