//! One look at every interface that is meant: what differs is set, and what differs again is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use tollgate_datapath::features::{self, Feature};
use tollgate_datapath::peer::{self, Finder};
use tollgate_datapath::{Error, links};
use tollgate_doctor::declared::{antrea_conf, matches};

use super::OffloadChange;
use super::config::{Interfaces, Offloads, Place};
use crate::api::{EndpointStatus, OffloadStatus};

/// The word for an MTU among features' names.
const MTU: &str = "mtu";

/// What is kept: of the interface with an index in a namespace, the feature of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    netns: u64,
    ifindex: u32,
    feature: String,
}

/// What became of it last time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// It was as declared.
    Held,
    /// It could not be had, and why.
    Refused(String),
}

/// One value that an interface shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    On(bool),
    Bytes(u32),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::On(true) => f.write_str("on"),
            Self::On(false) => f.write_str("off"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// What came of one value of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Came {
    feature: String,
    found: String,
    declared: String,
    /// `None`: it was as declared. Else whether setting it worked.
    set: Option<Result<(), String>>,
}

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    offloads: Offloads,
    finder: Finder,
    kept: HashMap<Key, Kept>,
    /// What Antrea's file said last.
    antrea: bool,
    problems: Vec<String>,
    interfaces: usize,
}

impl Keeper {
    /// One that keeps what is declared.
    pub fn new(offloads: Offloads) -> Self {
        Self {
            offloads,
            finder: Finder::default(),
            kept: HashMap::new(),
            antrea: false,
            problems: Vec::new(),
            interfaces: 0,
        }
    }

    /// What to show.
    pub fn status(&self) -> OffloadStatus {
        let held = self.kept.values().filter(|kept| **kept == Kept::Held);
        OffloadStatus {
            interfaces: self.interfaces,
            held: held.count(),
            problems: self.problems.clone(),
        }
    }

    /// Looks at everything once; returns what others had changed, and what newly cannot be had.
    pub fn pass(&mut self, endpoints: &[EndpointStatus]) -> Vec<OffloadChange> {
        self.problems.clear();
        self.interfaces = 0;
        let wanted = self.wanted();
        let (mut seen, mut changes) = (HashSet::new(), Vec::new());
        match peer::own() {
            Ok(own) => {
                self.node(&wanted, &own, &mut seen, &mut changes);
                for endpoint in endpoints {
                    self.endpoint(&wanted, endpoint, &own, &mut seen, &mut changes);
                }
            }
            Err(error) => self.problems.push(error.to_string()),
        }
        self.kept.retain(|key, _| seen.contains(key));
        self.problems.sort();
        self.problems.dedup();
        changes
    }

    /// Everything that is declared now.
    fn wanted(&mut self) -> Vec<Interfaces> {
        if let Some(path) = &self.offloads.antrea_agent_conf {
            match antrea_conf::read(path) {
                Ok(switch) if switch.disabled != self.antrea => {
                    self.antrea = switch.disabled;
                    let field = antrea_conf::FIELD;
                    tracing::info!(path = %path.display(), "{field} is {}", self.antrea);
                }
                Ok(_) => {}
                // What it said last stays in force.
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        let switch =
            (self.offloads.disable_tx_checksum || self.antrea).then(Interfaces::no_tx_checksum);
        switch
            .into_iter()
            .chain(self.offloads.interfaces.iter().cloned())
            .collect()
    }

    fn node(
        &mut self,
        wanted: &[Interfaces],
        own: &File,
        seen: &mut HashSet<Key>,
        changes: &mut Vec<OffloadChange>,
    ) {
        if !wanted.iter().any(|entry| entry.place == Place::Node) {
            return;
        }
        let names = match links::names() {
            Ok(names) => names,
            Err(error) => return self.problems.push(error.to_string()),
        };
        for name in names {
            let values = values(wanted, Place::Node, &name);
            if !values.is_empty() {
                let done = apply(&name, &values);
                self.note(&name, None, own, done, seen, changes);
            }
        }
    }

    fn endpoint(
        &mut self,
        wanted: &[Interfaces],
        endpoint: &EndpointStatus,
        own: &File,
        seen: &mut HashSet<Key>,
        changes: &mut Vec<OffloadChange>,
    ) {
        if !wanted.iter().any(|entry| entry.place == Place::Endpoints) {
            return;
        }
        let name: Arc<str> = endpoint.name.as_str().into();
        let problem = |error: &dyn std::fmt::Display| format!("endpoint {name}: {error}");
        let peer = match peer::peer(&endpoint.interface) {
            Ok(Some(peer)) => peer,
            // Not a pair: a VM's TAP has no inside here.
            Ok(None) => return,
            Err(error) if error.is_gone() => return,
            Err(error) => return self.problems.push(problem(&error)),
        };
        let work = || {
            let Some(inside) = links::name(peer.ifindex) else {
                // It went meanwhile; its going is told, and everything looked at again.
                return Ok(None);
            };
            let values = values(wanted, Place::Endpoints, &inside);
            let done = (!values.is_empty()).then(|| apply(&inside, &values));
            Ok(done.map(|done| (inside, done)))
        };
        let (netns, found) = match peer.nsid {
            None => (own.try_clone().ok(), work()),
            Some(nsid) => match self.finder.open(nsid) {
                Some((_, file)) => {
                    let found = peer::within(&file, work);
                    (Some(file), found)
                }
                None => {
                    let message = "its network namespace has no name in /run/netns and no process \
                                   that can be looked up";
                    return self.problems.push(problem(&message));
                }
            },
        };
        match (netns, found) {
            (Some(netns), Ok(Some((inside, done)))) => {
                self.note(&inside, Some(name), &netns, done, seen, changes);
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => self.problems.push(problem(&error)),
        }
    }

    /// Compares what came of an interface with what was known of it.
    fn note(
        &mut self,
        interface: &str,
        endpoint: Option<Arc<str>>,
        netns: &File,
        done: Result<(u32, Vec<Came>), Error>,
        seen: &mut HashSet<Key>,
        changes: &mut Vec<OffloadChange>,
    ) {
        let place = endpoint
            .as_ref()
            .map_or_else(String::new, |name| format!(" in endpoint {name}"));
        let (ifindex, results) = match done {
            Ok(done) => done,
            Err(error) if error.is_gone() => return,
            Err(error) => return self.problems.push(format!("{interface}{place}: {error}")),
        };
        self.interfaces += 1;
        let netns = peer::identity(netns).unwrap_or(0);
        for result in results {
            let key = Key {
                netns,
                ifindex,
                feature: result.feature.clone(),
            };
            let before = self.kept.get(&key).cloned();
            let mut change = OffloadChange {
                interface: interface.to_owned(),
                endpoint: endpoint.clone(),
                feature: result.feature,
                found: result.found,
                declared: result.declared,
                restored: true,
                detail: String::new(),
            };
            let now = match result.set {
                None => Kept::Held,
                Some(Ok(())) => {
                    let (feature, declared) = (&change.feature, &change.declared);
                    if before == Some(Kept::Held) {
                        tracing::warn!(interface, place, feature, declared, "put back");
                        changes.push(change);
                    } else {
                        tracing::info!(interface, place, feature, declared, "set");
                    }
                    Kept::Held
                }
                Some(Err(why)) => {
                    self.problems
                        .push(format!("{interface}{place}: {}: {why}", change.feature));
                    if before != Some(Kept::Refused(why.clone())) {
                        tracing::warn!(
                            interface,
                            place,
                            feature = change.feature,
                            why,
                            "cannot be had"
                        );
                        change.restored = false;
                        change.detail.clone_from(&why);
                        changes.push(change);
                    }
                    Kept::Refused(why)
                }
            };
            seen.insert(key.clone());
            self.kept.insert(key, now);
        }
    }
}

/// What an interface shall have: of each feature what the last entry says.
fn values(wanted: &[Interfaces], place: Place, name: &str) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let meant = |entry: &&Interfaces| entry.place == place && matches(&entry.r#match, name);
    for entry in wanted.iter().filter(meant) {
        let features = entry.features.iter();
        values.extend(features.map(|(name, &on)| (name.clone(), Value::On(on))));
        values.extend(entry.mtu.map(|mtu| (MTU.to_owned(), Value::Bytes(mtu))));
    }
    values
}

/// Sets what differs on an interface of the calling thread's namespace. Returns its index and what
/// came of each value.
fn apply(ifname: &str, values: &BTreeMap<String, Value>) -> Result<(u32, Vec<Came>), Error> {
    let link = links::by_name(ifname)?;
    let before = features::read(ifname)?;
    let differs: Vec<(&str, bool)> = values
        .iter()
        .filter_map(|(name, value)| match value {
            Value::On(on) if state(&before, name) == Some((!on, true)) => {
                Some((name.as_str(), *on))
            }
            _ => None,
        })
        .collect();
    let mut error = None;
    if !differs.is_empty() {
        error = features::set(ifname, &differs).err();
    }
    let after = if differs.is_empty() {
        before.clone()
    } else {
        features::read(ifname)?
    };
    let results = values.iter().map(|(name, value)| {
        let (found, set) = match value {
            Value::Bytes(mtu) if link.mtu == *mtu => (link.mtu.to_string(), None),
            Value::Bytes(mtu) => {
                let set = links::set_mtu(ifname, *mtu).map_err(|error| error.to_string());
                (link.mtu.to_string(), Some(set))
            }
            Value::On(on) => feature_result(&before, &after, name, *on, error.as_ref()),
        };
        Came {
            feature: name.clone(),
            found,
            declared: value.to_string(),
            set,
        }
    });
    Ok((link.ifindex, results.collect()))
}

/// Whether a feature is on, and whether it can be switched; `None` if the kernel does not know it.
fn state(features: &[Feature], name: &str) -> Option<(bool, bool)> {
    let feature = features.iter().find(|feature| feature.name == name)?;
    Some((feature.active, feature.changeable))
}

fn feature_result(
    before: &[Feature],
    after: &[Feature],
    name: &str,
    on: bool,
    error: Option<&Error>,
) -> (String, Option<Result<(), String>>) {
    let word = |on: bool| Value::On(on).to_string();
    match state(before, name) {
        None => {
            let why = "this kernel knows no feature of that name (`ethtool -k` lists them)";
            ("missing".to_owned(), Some(Err(why.to_owned())))
        }
        Some((now, _)) if now == on => (word(now), None),
        Some((now, false)) => {
            let why = format!(
                "it is {}, and the device does not let it be switched",
                word(now)
            );
            (word(now), Some(Err(why)))
        }
        Some((now, true)) if state(after, name).is_some_and(|(after, _)| after == on) => {
            (word(now), Some(Ok(())))
        }
        Some((now, true)) => {
            let why = error.map_or_else(
                || "it was asked for, but another feature that it needs is off".to_owned(),
                ToString::to_string,
            );
            (word(now), Some(Err(why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, place: Place, features: &[(&str, bool)], mtu: Option<u32>) -> Interfaces {
        Interfaces {
            r#match: name.to_owned(),
            place,
            features: features
                .iter()
                .map(|(n, on)| ((*n).to_owned(), *on))
                .collect(),
            mtu,
        }
    }

    #[test]
    fn the_last_entry_counts_and_places_are_apart() {
        let wanted = [
            entry("*", Place::Node, &[("a", false), ("b", true)], Some(1500)),
            entry("gw*", Place::Node, &[("a", true)], None),
            entry("gw0", Place::Endpoints, &[("c", true)], None),
        ];
        let found = values(&wanted, Place::Node, "gw0");
        let expected = [
            ("a", Value::On(true)),
            ("b", Value::On(true)),
            ("mtu", Value::Bytes(1500)),
        ];
        assert_eq!(
            found,
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
        assert_eq!(values(&wanted, Place::Endpoints, "gw0").len(), 1);
        assert!(values(&wanted, Place::Endpoints, "eth0").is_empty());
    }

    #[test]
    fn what_cannot_be_had_says_why() {
        let feature = |name: &str, active, changeable| Feature {
            name: name.to_owned(),
            active,
            wanted: active,
            changeable,
        };
        let before = [feature("a", true, true), feature("f", true, false)];
        let after = [feature("a", false, true), feature("f", true, false)];
        let result = |name, on, after: &[Feature]| feature_result(&before, after, name, on, None).1;
        assert_eq!(result("a", true, &before), None);
        assert_eq!(result("a", false, &after), Some(Ok(())));
        for (name, words) in [
            ("f", "does not let it be switched"),
            ("none", "knows no feature"),
            ("a", "another feature"),
        ] {
            let Some(Err(why)) = result(name, false, &before) else {
                panic!("{name} cannot be had")
            };
            assert!(why.contains(words), "{why}");
        }
    }
}
