//! What the agent knows of itself; the admin socket and the metrics read it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tollgate_engine::names::NameTable;
use tollgate_policy::PolicySet;
use tollgate_wire::tag::Direction;

use crate::api::{
    DatapathStatus, EndpointState, EndpointStatus, EventStatus, Health, NamedCount, PolicyStatus,
    Stale, Status,
};
use crate::config::Config;
use crate::control::WorkerHandle;
use crate::counters::{self, Kind, Reading};
use crate::events::Events;
use crate::hub::Hub;
use crate::kernel::{Kernel, KernelCounter};
use crate::ovs::config::DatapathKind;
use crate::record::rfc3339;

/// The policy in force and how it came to be.
#[derive(Clone, Default)]
pub struct PolicyState {
    /// The policy; `None` before the first is loaded.
    pub set: Option<Arc<PolicySet>>,
    /// Counts changes.
    pub generation: u64,
    /// When it was loaded.
    pub loaded: Option<Timestamp>,
    /// Files it was read from.
    pub files: usize,
    /// Since when the directory holds something that cannot be used, and why.
    pub stale: Option<(Timestamp, Vec<String>)>,
}

/// The agent's state.
pub struct State {
    /// The configuration in force.
    pub config: Config,
    /// Where events meet those who ask for them.
    pub hub: Arc<Hub>,
    /// The queue of events.
    pub events: Arc<Events>,
    /// The policy in force.
    pub policy: ArcSwap<PolicyState>,
    /// The endpoints.
    pub endpoints: ArcSwap<Vec<EndpointStatus>>,
    /// Programs, links and maps, once they are loaded.
    pub kernel: Mutex<Option<Box<dyn Kernel>>>,
    /// What endpoints were told by their resolvers; the workers share it.
    pub names: Arc<NameTable>,
    /// The workers, once they run.
    pub workers: OnceLock<Vec<WorkerHandle>>,
    /// What the keeper of offloads shows.
    pub offloads: crate::offloads::Shown,
    /// Whether an earlier agent's maps were taken over.
    pub adopted: AtomicBool,
    /// The first policy is the one that the flows of an earlier agent were decided under.
    pub policy_unchanged: AtomicBool,
    /// Set-up is complete.
    pub ready: AtomicBool,
    /// Changes of the directory that could not be used.
    pub rejected: AtomicU64,
    /// Workers that ended without being told to.
    pub lost_workers: AtomicU64,
    started: Timestamp,
}

impl State {
    /// The state of an agent that has just been started.
    pub fn new(config: Config, hub: Arc<Hub>, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self {
            names: Arc::new(NameTable::new(config.dns.engine())),
            config,
            hub,
            events,
            policy: ArcSwap::default(),
            endpoints: ArcSwap::default(),
            kernel: Mutex::default(),
            workers: OnceLock::new(),
            offloads: crate::offloads::Shown::default(),
            adopted: AtomicBool::new(false),
            policy_unchanged: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            rejected: AtomicU64::new(0),
            lost_workers: AtomicU64::new(0),
            started: Timestamp::now(),
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let config = Config::parse(
            std::path::Path::new("t"),
            "nodeName: n1",
            Default::default(),
        )
        .unwrap();
        Self::new(config, Hub::for_tests(16), Events::new(16))
    }

    /// The workers; none before they run.
    pub fn workers(&self) -> &[WorkerHandle] {
        self.workers.get().map_or(&[], Vec::as_slice)
    }

    /// Whether every worker has judged all of its flows under the policy in force.
    pub fn applied_everywhere(&self) -> bool {
        let generation = self.policy.load().generation;
        let judges = |worker: &WorkerHandle| worker.counters.policy_generation.get() == generation;
        !self.workers().is_empty() && self.workers().iter().all(judges)
    }

    /// Does something with the data path; `None` before it is loaded.
    pub fn with_kernel<T>(&self, act: impl FnOnce(&mut dyn Kernel) -> T) -> Option<T> {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        kernel.as_mut().map(|kernel| act(kernel.as_mut()))
    }

    /// What the kernel programs counted; nothing if they cannot be asked.
    pub fn kernel_counters(&self) -> Vec<KernelCounter> {
        let read = self.with_kernel(|kernel| kernel.counters());
        read.and_then(|result| {
            result
                .map_err(|error| tracing::warn!(%error, "cannot read the kernel's counters"))
                .ok()
        })
        .unwrap_or_default()
    }

    /// The workers' numbers, summed.
    pub fn worker_readings(&self) -> Vec<Reading> {
        let none = [counters::WorkerCounters::default()];
        match self.workers() {
            [] => counters::sum(&none),
            workers => counters::sum(workers.iter().map(|worker| &*worker.counters)),
        }
    }

    /// Every number that is not kept in the metrics registry itself.
    pub fn readings(&self) -> Vec<Reading> {
        let mut readings = self.worker_readings();
        let reading = |name, help, kind, value| Reading {
            name,
            help,
            kind,
            value,
        };
        use Kind::{Counter, Gauge};
        let policy = self.policy.load();
        let since = |time: Option<Timestamp>| {
            time.and_then(|time| u64::try_from(time.as_second()).ok())
                .unwrap_or(0)
        };
        let attached = self.count_endpoints(EndpointState::Attached);
        let forgotten = self
            .workers()
            .iter()
            .map(|worker| worker.inbox.forgotten())
            .sum();
        readings.extend([
            reading(
                "policy_generation",
                "Policy changes since the start.",
                Gauge,
                policy.generation,
            ),
            reading(
                "policy_loaded_timestamp_seconds",
                "When the policy in force was loaded.",
                Gauge,
                since(policy.loaded),
            ),
            reading(
                "policy_stale",
                "1 if the policy directory holds something that cannot be used.",
                Gauge,
                u64::from(policy.stale.is_some()),
            ),
            reading(
                "policy_rejected_changes",
                "Changes of the policy directory that could not be used.",
                Counter,
                self.rejected.load(Ordering::Relaxed),
            ),
            reading(
                "endpoints_attached",
                "Endpoints that are governed.",
                Gauge,
                attached,
            ),
            reading(
                "endpoints_not_attached",
                "Endpoints whose interface is missing or refused the programs.",
                Gauge,
                self.endpoints.load().len() as u64 - attached,
            ),
            reading(
                "events_dropped",
                "Events lost because the writer did not keep up.",
                Counter,
                self.events.dropped(),
            ),
            reading(
                "flow_ends_forgotten",
                "Ends of flows seen by the kernel that the workers were too busy to hear of.",
                Counter,
                forgotten,
            ),
            reading(
                "offload_drift",
                "Declared offload state that somebody else changed and that was put back.",
                Counter,
                self.offloads.drift.load(Ordering::Relaxed),
            ),
            reading(
                "workers_lost",
                "Worker threads that ended without being told to.",
                Counter,
                self.lost_workers.load(Ordering::Relaxed),
            ),
        ]);
        readings
    }

    fn count_endpoints(&self, state: EndpointState) -> u64 {
        self.endpoints
            .load()
            .iter()
            .filter(|e| e.state == state)
            .count() as u64
    }

    /// The policy's part of the status.
    pub fn policy_status(&self) -> PolicyStatus {
        let policy = self.policy.load();
        PolicyStatus {
            directory: self.config.policy_dir.display().to_string(),
            generation: policy.generation,
            loaded: policy.loaded.map(rfc3339),
            files: policy.files,
            policies: policy.set.as_ref().map_or(0, |set| set.policies().len()),
            stale: policy.stale.clone().map(|(since, reasons)| Stale {
                since: rfc3339(since),
                reasons,
            }),
        }
    }

    /// The agent at a glance.
    pub fn status(&self) -> Status {
        let warnings = self.warnings();
        let health = match (self.ready.load(Ordering::Acquire), warnings.is_empty()) {
            (false, _) => Health::Starting,
            (true, true) => Health::Ok,
            (true, false) => Health::Degraded,
        };
        Status {
            health,
            warnings,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.config.node_name.clone(),
            started: rfc3339(self.started),
            policy: self.policy_status(),
            datapath: self.datapath_status(),
            endpoints: self.endpoints.load().to_vec(),
            events: EventStatus {
                log: self
                    .config
                    .verdict_log
                    .as_ref()
                    .map(|path| path.display().to_string()),
                log_writable: self.hub.log_writable(),
                dropped: self.events.dropped(),
            },
            offloads: self.offloads.status.load().as_ref().clone(),
        }
    }

    fn datapath_status(&self) -> DatapathStatus {
        let readings = self.worker_readings();
        let flows = readings
            .iter()
            .find(|r| r.name == "flows")
            .map_or(0, |r| r.value);
        let counters = |r: &Reading| r.kind == Kind::Counter && r.value > 0;
        let named = |r: &Reading| NamedCount {
            name: r.name.to_owned(),
            value: r.value,
        };
        DatapathStatus {
            tap: self.config.tap.clone(),
            pin_dir: self.config.pin_dir.display().to_string(),
            bridge: (self.config.datapath == DatapathKind::Ovs)
                .then(|| self.config.ovs.bridge.clone()),
            workers: self.workers().len(),
            adopted: self.adopted.load(Ordering::Relaxed),
            flows,
            kernel: self.kernel_counters().iter().map(kernel_count).collect(),
            engine: readings.iter().filter(|r| counters(r)).map(named).collect(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(trouble) = self.with_kernel(|kernel| kernel.trouble()).flatten() {
            warnings.push(format!("data path: {trouble}"));
        }
        if let Some((since, reasons)) = &self.policy.load().stale {
            let first = reasons.first().map_or("", String::as_str);
            let since = rfc3339(*since);
            warnings.push(format!("policy: stale since {since}: {first}"));
        }
        for endpoint in self.endpoints.load().iter() {
            match endpoint.state {
                // An interface may come later; the table of endpoints shows which have not.
                EndpointState::Attached | EndpointState::Waiting => {}
                EndpointState::Failed => {
                    warnings.push(format!("endpoint {}: {}", endpoint.name, endpoint.detail));
                }
            }
        }
        if self.config.dns.resolvers.is_empty() {
            let policy = self.policy.load();
            let mut endpoints = policy.set.iter().flat_map(|set| set.endpoints());
            if let Some(endpoint) = endpoints.find(|endpoint| endpoint.wants_names()) {
                warnings.push(format!(
                    "endpoint {}: its fqdn peers match nothing, because dns.resolvers is empty",
                    endpoint.name()
                ));
            }
        }
        if let Some(offloads) = self.offloads.status.load().as_ref() {
            let problems = offloads.problems.iter();
            warnings.extend(problems.map(|problem| format!("offloads: {problem}")));
        }
        if !self.hub.log_writable() {
            warnings.push("verdict log: the last write failed".to_owned());
        }
        let lost = self.lost_workers.load(Ordering::Relaxed);
        if lost > 0 {
            warnings.push(format!(
                "{lost} worker(s) ended; their flows are dropped: restart"
            ));
        }
        warnings
    }
}

fn kernel_count(counter: &KernelCounter) -> NamedCount {
    NamedCount {
        name: format!("{} {}", counter.name, direction_word(counter.direction)),
        value: counter.value,
    }
}

/// A word for which way a packet goes.
pub fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeKernel;

    #[test]
    fn health_tells_what_needs_attention() {
        let state = State::for_tests();
        assert_eq!(state.status().health, Health::Starting);
        state.ready.store(true, Ordering::Release);
        assert_eq!(state.status().health, Health::Ok);
        let since = "2026-11-23T10:00:00Z".parse().unwrap();
        let stale = Some((since, vec!["a.yaml:1: no".to_owned(), "second".to_owned()]));
        state.policy.store(Arc::new(PolicyState {
            stale,
            ..PolicyState::default()
        }));
        let status = state.status();
        assert_eq!(status.health, Health::Degraded);
        assert_eq!(
            status.warnings,
            ["policy: stale since 2026-11-23T10:00:00.000000Z: a.yaml:1: no"]
        );
        assert_eq!(status.policy.stale.unwrap().reasons.len(), 2);
    }

    #[test]
    fn the_kernel_is_asked_when_it_is_there() {
        let state = State::for_tests();
        assert!(state.kernel_counters().is_empty());
        *state.kernel.lock().unwrap() = Some(Box::new(FakeKernel::default()));
        let kernel = state.status().datapath.kernel;
        assert_eq!(
            kernel,
            [NamedCount {
                name: "passed inbound".into(),
                value: 3
            }]
        );
    }
}
