//! Who is there, and who is selected.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Criterion, Group, GroupBody, Inventory, IpBlock, Labels, Operator, Pod, PodSelection, Scope,
    Selector, Target,
};

/// The label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Numbers of pods, ascending.
type Selected = Arc<[u32]>;

/// Pods that can be selected, their namespaces, and groups.
pub(crate) struct World<'a> {
    namespaces: HashMap<&'a str, Labels>,
    /// Endpoints first, so that an endpoint's number is the same in both lists.
    pods: Vec<&'a Pod>,
    endpoints: Vec<&'a Pod>,
    by_label: HashMap<(&'a str, &'a str), Vec<u32>>,
    groups: HashMap<(Option<&'a str>, &'a str), &'a Group>,
    /// By selection and, if it matters, the namespace of the endpoint that the rule applies to.
    cache: RefCell<HashMap<(PodSelection, Option<String>), Selected>>,
}

/// Addresses and blocks that a group or peer stands for.
#[derive(Default)]
pub(crate) struct Members {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) blocks: Vec<IpBlock>,
}

impl<'a> World<'a> {
    pub(crate) fn new(inventory: &'a Inventory) -> Self {
        let selectable = || inventory.pods.iter().filter(|pod| !pod.unselectable);
        let mut endpoints: Vec<_> = selectable().filter(|pod| pod.interface.is_some()).collect();
        endpoints.sort_by_key(|pod| (&pod.id.namespace, &pod.id.name));
        let mut pods = endpoints.clone();
        pods.extend(selectable().filter(|pod| pod.interface.is_none()));
        let mut by_label: HashMap<_, Vec<u32>> = HashMap::new();
        for (number, pod) in (0u32..).zip(&pods) {
            for (key, value) in &pod.id.labels {
                by_label
                    .entry((key.as_str(), value.as_str()))
                    .or_default()
                    .push(number);
            }
        }
        let groups = inventory.groups.iter();
        let groups = groups
            .map(|g| ((g.id.namespace.as_deref(), g.id.name.as_str()), g))
            .collect();
        let namespaces = namespaces(inventory);
        Self {
            namespaces,
            pods,
            endpoints,
            by_label,
            groups,
            cache: RefCell::default(),
        }
    }

    pub(crate) fn endpoints(&self) -> &[&'a Pod] {
        &self.endpoints
    }

    /// The namespace of an endpoint.
    pub(crate) fn namespace_of(&self, endpoint: u32) -> &'a str {
        let pod = self.endpoints.get(endpoint as usize);
        pod.and_then(|pod| pod.id.namespace.as_deref())
            .unwrap_or_default()
    }

    /// Numbers of the endpoints that targets select, ascending. `owner` is the namespace of the
    /// policy, whose groups are meant.
    pub(crate) fn targets(&self, targets: &[Target], owner: Option<&str>) -> Vec<u32> {
        let mut selected = Vec::new();
        for target in targets {
            match target {
                Target::Pods(selection) => selected.extend(self.select(selection, None).iter()),
                Target::Group(name) => {
                    for leaf in self.leaves(owner, &name.value) {
                        if let GroupBody::Pods(selection) = &leaf.body {
                            selected.extend(self.select(selection, None).iter());
                        }
                    }
                }
            }
        }
        selected.retain(|number| (*number as usize) < self.endpoints.len());
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    /// What a group stands for.
    pub(crate) fn group(&self, owner: Option<&str>, name: &str, members: &mut Members) {
        for leaf in self.leaves(owner, name) {
            match &leaf.body {
                GroupBody::Pods(selection) => self.addresses(selection, None, members),
                GroupBody::Blocks(blocks) => members.blocks.extend(blocks.iter().cloned()),
                GroupBody::Children(_) => {}
            }
        }
    }

    fn leaves(&self, owner: Option<&str>, name: &str) -> Vec<&'a Group> {
        let Some(group) = self.groups.get(&(owner, name)) else {
            return Vec::new();
        };
        match &group.body {
            GroupBody::Children(children) => children
                .iter()
                .filter_map(|child| self.groups.get(&(owner, child.value.as_str())).copied())
                .collect(),
            GroupBody::Pods(_) | GroupBody::Blocks(_) => vec![group],
        }
    }

    /// Adds the addresses of selected pods. `home` is the namespace of the endpoint that the rule
    /// applies to.
    pub(crate) fn addresses(
        &self,
        selection: &PodSelection,
        home: Option<&str>,
        members: &mut Members,
    ) {
        let selected = self.select(selection, home);
        let pods = selected
            .iter()
            .filter_map(|number| self.pods.get(*number as usize));
        members
            .addresses
            .extend(pods.flat_map(|pod| pod.addresses.iter().map(|a| a.value)));
    }

    /// Where pods have a port of this name: address and number, sorted.
    pub(crate) fn named_ports(&self, name: &str, protocol: u8) -> Vec<(IpAddr, u16)> {
        let mut found = Vec::new();
        for pod in &self.pods {
            let ports = pod
                .ports
                .iter()
                .filter(|p| p.name == name && p.protocol == protocol);
            for port in ports {
                found.extend(
                    pod.addresses
                        .iter()
                        .map(|address| (address.value, port.port)),
                );
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn select(&self, selection: &PodSelection, home: Option<&str>) -> Selected {
        let home = home.filter(|_| selection.scope.is_relative());
        let key = (selection.clone(), home.map(str::to_owned));
        if let Some(known) = self.cache.borrow().get(&key) {
            return known.clone();
        }
        let found: Selected = self.search(selection, home).into();
        self.cache.borrow_mut().insert(key, found.clone());
        found
    }

    fn search(&self, selection: &PodSelection, home: Option<&str>) -> Vec<u32> {
        let everyone: Vec<u32>;
        let candidates = match self.narrowed(&selection.pods) {
            Some(candidates) => candidates,
            None => {
                everyone = (0u32..).take(self.pods.len()).collect();
                &everyone
            }
        };
        let chosen = |number: &&u32| {
            let Some(pod) = self.pods.get(**number as usize) else {
                return false;
            };
            let namespace = pod.id.namespace.as_deref().unwrap_or_default();
            self.in_scope(&selection.scope, namespace, home) && meets(pod, &selection.pods)
        };
        candidates.iter().filter(chosen).copied().collect()
    }

    /// The pods that have the value of one of the selector's labels.
    fn narrowed<'s>(&'s self, criterion: &'s Criterion) -> Option<&'s [u32]> {
        let Criterion::Labels(Selector { requirements }) = criterion else {
            return None;
        };
        requirements
            .iter()
            .find_map(|requirement| match &requirement.operator {
                Operator::In(values) => match values.as_slice() {
                    [value] => Some(
                        self.by_label
                            .get(&(requirement.key.as_str(), value.as_str()))
                            .map_or(&[][..], Vec::as_slice),
                    ),
                    _ => None,
                },
                _ => None,
            })
    }

    fn in_scope(&self, scope: &Scope, namespace: &str, home: Option<&str>) -> bool {
        match scope {
            Scope::All => true,
            Scope::Named(name) => name == namespace,
            Scope::Labels(selector) => self
                .namespaces
                .get(namespace)
                .is_some_and(|labels| selector.matches(labels)),
            Scope::SameAsEndpoint => home == Some(namespace),
            Scope::SameLabels(keys) => home.is_some_and(|home| self.alike(keys, home, namespace)),
        }
    }

    /// Both namespaces have all the labels, with the same values.
    fn alike(&self, keys: &[String], home: &str, other: &str) -> bool {
        let (Some(home), Some(other)) = (self.namespaces.get(home), self.namespaces.get(other))
        else {
            return false;
        };
        keys.iter().all(|key| {
            home.get(key)
                .is_some_and(|value| other.get(key) == Some(value))
        })
    }
}

fn meets(pod: &Pod, criterion: &Criterion) -> bool {
    match criterion {
        Criterion::Labels(selector) => selector.matches(&pod.id.labels),
        Criterion::ServiceAccount(name) => pod.service_account == *name,
    }
}

/// Labels by namespace. A namespace that is only mentioned by its pods has its name for a label.
fn namespaces(inventory: &Inventory) -> HashMap<&str, Labels> {
    let mut all: HashMap<&str, Labels> = HashMap::new();
    for pod in &inventory.pods {
        all.entry(pod.id.namespace.as_deref().unwrap_or_default())
            .or_default();
    }
    for namespace in &inventory.namespaces {
        all.insert(&namespace.id.name, namespace.id.labels.clone());
    }
    for (name, labels) in &mut all {
        let labels: &mut BTreeMap<_, _> = labels;
        labels.insert(NAMESPACE_NAME.to_owned(), (*name).to_owned());
    }
    all
}
