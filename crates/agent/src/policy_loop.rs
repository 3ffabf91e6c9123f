//! From a changed directory to a policy in force: compiled aside, then swapped; what cannot be
//! used leaves the running policy as it is and says why.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tollgate_engine::table::PolicyTable;
use tollgate_policy::{PolicySet, Side};

use crate::api::EndpointStatus;
use crate::control::Command;
use crate::endpoints::{Endpoints, Placement, Wanted};
use crate::memory::{self, Fingerprint};
use crate::record::Names;
use crate::sources::{self, LoadError, Loaded};
use crate::state::{PolicyState, State};

/// Faults written to the log for one change; the status has all.
const MAX_LOGGED: usize = 20;

/// What became of a look at the directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The content is what it was.
    Unchanged,
    /// A new policy is in force.
    Applied,
    /// The content cannot be used; the policy in force stays.
    Rejected,
}

/// Keeps the policy in force in step with the directory, and the endpoints with the interfaces.
pub struct PolicyLoop {
    state: Arc<State>,
    endpoints: Endpoints,
    /// Of the content looked at last, good or bad.
    seen: Fingerprint,
    /// Of the policy in force.
    applied: Fingerprint,
    /// The next agent would find that fingerprint, whatever became of this one.
    noted: bool,
    /// The generation that the data path was told to be applied everywhere.
    settled: Option<u64>,
}

impl PolicyLoop {
    /// Loads the first policy. There is no other one to fall back to, so a fault is an error.
    pub fn start(state: Arc<State>, endpoints: Endpoints) -> Result<Self, LoadError> {
        let files = sources::read_dir(&state.config.policy_dir)?;
        let loaded = sources::compile_files(&files, &state.config.node_addresses)?;
        let seen = Fingerprint::of(&files);
        let mut this = Self {
            state,
            endpoints,
            seen,
            applied: seen,
            noted: false,
            settled: None,
        };
        this.apply(loaded);
        Ok(this)
    }

    /// Of the policy in force.
    pub fn fingerprint(&self) -> Fingerprint {
        self.applied
    }

    /// Notes for the next agent under which policy the kernel's flows were decided, so that it lets
    /// them go on also when this one is killed. Only once every worker has judged its flows under
    /// that policy: until then there is no note, and the next agent judges them all again.
    pub fn note(&mut self) {
        if self.noted || !self.state.applied_everywhere() {
            return;
        }
        match memory::save(&self.state.config.run_dir, self.applied, Vec::new()) {
            Ok(()) => self.noted = true,
            Err(error) => tracing::debug!(%error, "cannot note the policy for the next agent"),
        }
    }

    /// Takes over what the kernel knows from an earlier agent and gives identifiers. Nothing new is
    /// attached yet: the workers come first.
    pub fn inherit(&mut self, endpoints: Endpoints) {
        self.endpoints = endpoints;
        self.assign();
    }

    /// Looks at the directory and applies what has changed.
    pub async fn reload(&mut self) -> Outcome {
        let (dir, nodes) = (
            self.state.config.policy_dir.clone(),
            self.state.config.node_addresses.clone(),
        );
        let seen = self.seen;
        // Thousands of policies take a while; the admin socket must not wait for it.
        let work = tokio::task::spawn_blocking(move || {
            let files = sources::read_dir(&dir)?;
            let fingerprint = Fingerprint::of(&files);
            if fingerprint == seen {
                return Ok(None);
            }
            Ok(Some((fingerprint, sources::compile_files(&files, &nodes))))
        });
        match work.await {
            Ok(Ok(None)) => Outcome::Unchanged,
            Ok(Ok(Some((fingerprint, Ok(loaded))))) => {
                (self.seen, self.applied) = (fingerprint, fingerprint);
                self.forget_note();
                self.take_back().await;
                self.apply(loaded);
                Outcome::Applied
            }
            Ok(Ok(Some((fingerprint, Err(error))))) => {
                self.seen = fingerprint;
                self.reject(error.lines())
            }
            Ok(Err(error)) => {
                // What could not be read has not been seen: its return must count as a change.
                self.seen = Fingerprint::default();
                let error: LoadError = error;
                self.reject(error.lines())
            }
            Err(error) => self.reject(vec![format!("the compiler failed: {error}")]),
        }
    }

    /// Tells the data path once every worker applies the policy.
    pub fn settle(&mut self) {
        let generation = self.state.policy.load().generation;
        if self.settled == Some(generation) || !self.state.applied_everywhere() {
            return;
        }
        // Only the first can be the one that an agent before this one decided under.
        let is_first = self.settled.is_none();
        let unchanged = is_first && self.state.policy_unchanged.load(Ordering::Relaxed);
        let told = self
            .state
            .with_kernel(|kernel| kernel.policy_applied(generation, unchanged));
        match told {
            Some(Ok(())) => self.settled = Some(generation),
            Some(Err(error)) => tracing::warn!(%error, "the data path has not settled yet"),
            None => {}
        }
    }

    /// Has everything come by the workers, where the data path passes it on its own.
    async fn take_back(&self) {
        let told = self.state.with_kernel(|kernel| kernel.policy_changing());
        match told {
            Some(Ok(Some(time))) => tokio::time::sleep(time).await,
            Some(Err(error)) => tracing::warn!(%error, "the data path does not let go of flows"),
            Some(Ok(None)) | None => {}
        }
    }

    /// Before flows are decided under another policy than the noted one.
    fn forget_note(&mut self) {
        if self.noted {
            memory::forget(&self.state.config.run_dir);
            self.noted = false;
        }
    }

    fn apply(&mut self, loaded: Loaded) {
        let generation = self.state.policy.load().generation + 1;
        let set = Arc::new(loaded.set);
        tracing::info!(
            generation,
            files = loaded.files,
            policies = set.policies().len(),
            endpoints = set.endpoints().len(),
            "policy in force"
        );
        self.state.policy.store(Arc::new(PolicyState {
            set: Some(set),
            generation,
            loaded: Some(Timestamp::now()),
            files: loaded.files,
            stale: None,
        }));
        self.place();
    }

    fn reject(&self, reasons: Vec<String>) -> Outcome {
        self.state.rejected.fetch_add(1, Ordering::Relaxed);
        for reason in reasons.iter().take(MAX_LOGGED) {
            tracing::error!("policy not applied: {reason}");
        }
        if reasons.len() > MAX_LOGGED {
            tracing::error!(
                "policy not applied: {} more faults",
                reasons.len() - MAX_LOGGED
            );
        }
        let mut policy = PolicyState::clone(&self.state.policy.load());
        let since = policy.stale.map_or_else(Timestamp::now, |(since, _)| since);
        policy.stale = Some((since, reasons));
        self.state.policy.store(Arc::new(policy));
        Outcome::Rejected
    }

    /// Gives identifiers, tells the workers, then lets the kernel divert to them.
    fn place(&mut self) {
        self.assign();
        let table = self.table();
        for worker in self.state.workers() {
            worker
                .inbox
                .push(Command::PolicyChanged(Arc::clone(&table)));
        }
        self.attach();
    }

    fn assign(&mut self) {
        let Some(set) = self.state.policy.load().set.clone() else {
            return;
        };
        let wanted = wanted(&set);
        let before = self.endpoints.placements();
        self.state
            .with_kernel(|kernel| self.endpoints.assign(&wanted, kernel));
        self.forget_names(before);
        self.state
            .hub
            .set_names(names(&set, &self.endpoints.placements()));
    }

    /// What an endpoint was told that has given up its identifier is nobody else's.
    fn forget_names(&self, before: Vec<Placement>) {
        let now: HashMap<_, _> = self
            .endpoints
            .placements()
            .into_iter()
            .map(|placement| (placement.id, placement.name))
            .collect();
        for old in before {
            if let Some(id) = old.id
                && now.get(&Some(id)) != Some(&old.name)
            {
                self.state.names.forget(id);
            }
        }
    }

    /// Attaches to what is there now; to be called when interfaces come and go.
    pub fn attach(&mut self) {
        self.state
            .with_kernel(|kernel| self.endpoints.attach(kernel));
        let Some(set) = self.state.policy.load().set.clone() else {
            return;
        };
        let status = self
            .endpoints
            .placements()
            .into_iter()
            .map(|p| status(&set, p))
            .collect();
        self.state.endpoints.store(Arc::new(status));
    }

    /// The table that workers are started with.
    pub fn table(&self) -> Arc<PolicyTable> {
        let policy = self.state.policy.load();
        let Some(set) = &policy.set else {
            return Arc::default();
        };
        Arc::new(table(policy.generation, set, &self.endpoints.placements()))
    }
}

fn wanted(set: &PolicySet) -> Vec<Wanted> {
    let endpoints = set.endpoints().iter();
    let wanted = endpoints.map(|endpoint| Wanted {
        name: endpoint.name().to_string(),
        interface: endpoint.interface().to_string(),
        governed: endpoint.governs(Side::Egress) || endpoint.governs(Side::Ingress),
        addresses: endpoint.addresses().to_vec(),
    });
    wanted.collect()
}

fn table(generation: u64, set: &PolicySet, placements: &[Placement]) -> PolicyTable {
    let mut by_id = Vec::new();
    for placement in placements {
        let (Some(id), Some(endpoint)) = (placement.id, set.endpoint(&placement.name)) else {
            continue;
        };
        let index = usize::from(id.get());
        if by_id.len() <= index {
            by_id.resize(index + 1, None);
        }
        by_id[index] = Some(Arc::clone(endpoint));
    }
    PolicyTable { generation, by_id }
}

fn names(set: &PolicySet, placements: &[Placement]) -> Names {
    let mut names = Names::default();
    for placement in placements {
        if let (Some(id), Some(endpoint)) = (placement.id, set.endpoint(&placement.name)) {
            names.insert(id, &placement.name, endpoint.addresses());
        }
    }
    names
}

fn status(set: &PolicySet, placement: Placement) -> EndpointStatus {
    let endpoint = set.endpoint(&placement.name);
    let governs = |side| endpoint.is_some_and(|endpoint| endpoint.governs(side));
    EndpointStatus {
        id: placement.id.map(|id| id.get()),
        state: placement.state,
        detail: placement.detail,
        egress: governs(Side::Egress),
        ingress: governs(Side::Ingress),
        name: placement.name,
        interface: placement.interface,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};
    use crate::control::{Inbox, WorkerHandle};
    use crate::counters::WorkerCounters;
    use crate::events::Events;
    use crate::hub::Hub;
    use crate::kernel::fake::FakeKernel;

    const INVENTORY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {interface: veth-a, addresses: [10.0.0.2]}
";

    fn policy(host: &str) -> String {
        format!(
            "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {{name: web}}
spec:
  priority: 5
  tier: application
  appliedTo:
    - podSelector: {{matchLabels: {{app: web}}}}
  egress:
    - name: read
      action: Allow
      l7Protocols:
        - http: {{host: {host}}}
"
        )
    }

    /// An agent's control plane without privileges: a fake kernel and one worker that only listens.
    fn agent(dir: &Path) -> (Arc<State>, Arc<Inbox>) {
        let overrides = Overrides {
            policy_dir: Some(dir.to_owned()),
            run_dir: Some(dir.to_owned()),
            ..Overrides::default()
        };
        let config = Config::parse(Path::new("t"), "", overrides).unwrap();
        let state = State::new(config, Hub::for_tests(8), Events::new(8));
        let interfaces = [("veth-a".to_owned(), 5)].into();
        let kernel = FakeKernel {
            interfaces,
            ..FakeKernel::default()
        };
        *state.kernel.lock().unwrap() = Some(Box::new(kernel));
        let inbox = Inbox::new().unwrap();
        let counters = Arc::new(WorkerCounters::default());
        let worker = WorkerHandle {
            inbox: Arc::clone(&inbox),
            counters,
        };
        assert!(state.workers.set(vec![worker]).is_ok());
        (state, inbox)
    }

    fn generations(inbox: &Inbox) -> Vec<u64> {
        let generation = |command| match command {
            Command::PolicyChanged(table) => table.generation,
            _ => panic!("only policies are expected"),
        };
        inbox.take().into_iter().map(generation).collect()
    }

    #[tokio::test]
    async fn good_changes_are_applied_and_bad_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("inventory.yaml"), INVENTORY).unwrap();
        let file = dir.path().join("web.yaml");
        fs::write(&file, policy("a.example")).unwrap();
        let (state, inbox) = agent(dir.path());
        let mut policies = PolicyLoop::start(Arc::clone(&state), Endpoints::default()).unwrap();
        assert_eq!(generations(&inbox), [1]);
        let endpoints = state.endpoints.load();
        assert_eq!(endpoints.len(), 1);
        assert!(endpoints[0].egress && !endpoints[0].ingress);
        assert_eq!(endpoints[0].state, crate::api::EndpointState::Attached);

        assert_eq!(policies.reload().await, Outcome::Unchanged);
        fs::write(&file, policy("b.example")).unwrap();
        assert_eq!(policies.reload().await, Outcome::Applied);
        assert_eq!(generations(&inbox), [2]);
        let applied = policies.fingerprint();

        fs::write(
            &file,
            policy("c.example").replace("action: Allow", "action: Maybe"),
        )
        .unwrap();
        assert_eq!(policies.reload().await, Outcome::Rejected);
        assert_eq!(
            policies.reload().await,
            Outcome::Unchanged,
            "one fault is told once"
        );
        assert!(generations(&inbox).is_empty());
        assert_eq!(policies.fingerprint(), applied);
        let status = state.policy_status();
        assert_eq!(status.generation, 2);
        let reasons = status.stale.unwrap().reasons;
        assert!(reasons[0].starts_with("web.yaml:"), "{reasons:?}");

        // An atomic rename brings it back in order.
        let new = dir.path().join(".web.yaml.new");
        fs::write(&new, policy("d.example")).unwrap();
        fs::rename(&new, &file).unwrap();
        assert_eq!(policies.reload().await, Outcome::Applied);
        assert_eq!(state.policy_status().stale, None);
        assert_eq!(generations(&inbox), [3]);
    }

    #[tokio::test]
    async fn an_agent_that_is_killed_has_noted_what_its_workers_had_applied() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("inventory.yaml"), INVENTORY).unwrap();
        let file = dir.path().join("web.yaml");
        fs::write(&file, policy("a.example")).unwrap();
        let (state, _inbox) = agent(dir.path());
        let mut policies = PolicyLoop::start(Arc::clone(&state), Endpoints::default()).unwrap();
        let note = dir.path().join(memory::FILE);
        let applies = |generation| {
            state.workers()[0]
                .counters
                .policy_generation
                .set(generation)
        };

        policies.note();
        assert!(!note.exists(), "the worker has judged nothing yet");
        applies(1);
        policies.note();
        assert!(note.exists());

        fs::write(&file, policy("b.example")).unwrap();
        assert_eq!(policies.reload().await, Outcome::Applied);
        policies.note();
        assert!(!note.exists(), "flows may be decided under either policy");
        applies(2);
        policies.note();
        let memory = memory::Memory::take(dir.path(), policies.fingerprint());
        assert!(memory.unchanged && memory.is_empty());
    }

    #[tokio::test]
    async fn names_without_resolvers_are_warned_of_and_leave_with_their_endpoint() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = dir.path().join("inventory.yaml");
        fs::write(&inventory, INVENTORY).unwrap();
        let named = policy("a.example").replace(
            "l7Protocols:\n        - http: {host: a.example}",
            "to: [{fqdn: a.example}]",
        );
        fs::write(dir.path().join("web.yaml"), named).unwrap();
        let (state, _inbox) = agent(dir.path());
        let mut policies = PolicyLoop::start(Arc::clone(&state), Endpoints::default()).unwrap();
        let warnings = state.status().warnings;
        let warned =
            |w: &String| w.starts_with("endpoint shop/web-0: its fqdn peers match nothing");
        assert!(warnings.iter().any(warned), "{warnings:?}");

        let id = policies.endpoints.placements()[0].id.unwrap();
        let (address, now) = ("192.0.2.1".parse().unwrap(), std::time::Duration::ZERO);
        let known = || state.names.names_for(id, &address, now).len();
        state.names.learn(id, "a.example", &[(address, 9)], now);
        policies.place();
        assert_eq!(known(), 1);
        fs::write(&inventory, INVENTORY.replace("web-0", "web-1")).unwrap();
        assert_eq!(policies.reload().await, Outcome::Applied);
        assert_eq!(known(), 0);
    }

    #[tokio::test]
    async fn a_directory_that_goes_away_changes_nothing() {
        let top = tempfile::tempdir().unwrap();
        let (dir, away) = (top.path().join("policy"), top.path().join("away"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("inventory.yaml"), INVENTORY).unwrap();
        let (state, _inbox) = agent(&dir);
        let mut policies = PolicyLoop::start(Arc::clone(&state), Endpoints::default()).unwrap();
        fs::rename(&dir, &away).unwrap();
        assert_eq!(policies.reload().await, Outcome::Rejected);
        assert_eq!(state.endpoints.load().len(), 1);
        fs::rename(&away, &dir).unwrap();
        assert_eq!(policies.reload().await, Outcome::Applied);
        assert_eq!(state.policy_status().stale, None);
    }

    #[test]
    fn the_first_policy_must_be_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "kind: Nonsense\n").unwrap();
        let (state, _inbox) = agent(dir.path());
        let error = PolicyLoop::start(state, Endpoints::default())
            .err()
            .unwrap();
        assert!(
            error.lines()[0].starts_with("a.yaml:"),
            "{:?}",
            error.lines()
        );
    }
}
