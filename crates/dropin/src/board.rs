//! What is in force: tenants and rule files on one side, what the packet threads judge by on the other.
//!
//! Each VLAN that has rules is an endpoint of the engine. A VLAN that loses its rules and later gets
//! others becomes another endpoint: connections that were opened before stay with the first, whose
//! policy stays until the last of them is gone. So a number that is used again does not judge old
//! connections by rules that were never meant for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use tollgate_engine::table::PolicyTable;
use tollgate_policy::EndpointPolicy;
use tollgate_wire::tag::EndpointId;

use crate::policy::{PolicyError, endpoint_policy};
use crate::tenants::{FileRules, Otherwise, Tenants, VlanRules};

/// How long a command waits until every packet thread judges by what it changed.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// An endpoint of the engine that stands for a VLAN's rules.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The VLAN.
    pub vlan: u16,
    /// The tenant whose rules they are; none for rules of all VLANs' file.
    pub tenant: Option<u32>,
    /// What a denial is reported as.
    pub otherwise: Option<Otherwise>,
}

/// What the packet threads judge by.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Higher is newer.
    pub epoch: u64,
    /// The engine's policies, those of endpoints without a VLAN among them.
    pub table: Arc<PolicyTable>,
    /// The endpoint that a VLAN's new connections belong to.
    pub by_vlan: HashMap<u16, EndpointId>,
    /// All endpoints.
    pub endpoints: HashMap<EndpointId, Endpoint>,
    /// What is in another VLAN is refused.
    pub refuses_others: bool,
}

/// Why something could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A VLAN's rules cannot be judged by.
    #[error("vlan {vlan}: {source}")]
    Policy {
        /// The VLAN.
        vlan: u16,
        /// Why not.
        source: PolicyError,
    },
    /// Every number is taken by connections of rules that are gone.
    #[error("vlan {0}: no number is left; too many rules are gone whose connections go on")]
    NoNumber(u16),
    /// A packet thread does not answer.
    #[error("the packet threads do not take it up")]
    NotTaken,
}

/// A VLAN's rules in force, or such that were.
struct Bound {
    id: EndpointId,
    tenant: Option<u32>,
    rules: Arc<VlanRules>,
    policy: Arc<EndpointPolicy>,
}

#[derive(Default)]
struct State {
    current: BTreeMap<u16, Bound>,
    /// Endpoints whose connections go on without their VLAN.
    retired: Vec<(u16, Bound)>,
    snapshot: Arc<Snapshot>,
}

/// See the module's documentation. Shared by the command socket and the packet threads.
pub struct Board {
    state: Mutex<State>,
    epoch: AtomicU64,
    flows: Vec<AtomicU32>,
    wakers: Vec<OwnedFd>,
    /// What each packet thread judges by; none: it does not run.
    taken: Mutex<Vec<Option<u64>>>,
    all_taken: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a thread that ended with the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// A board for so many packet threads.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wakers: Result<_, _> = (0..threads).map(|_| eventfd(0, flags)).collect();
        Ok(Self {
            state: Mutex::default(),
            epoch: AtomicU64::new(0),
            flows: (0..=EndpointId::MAX).map(|_| AtomicU32::new(0)).collect(),
            wakers: wakers?,
            taken: Mutex::new(vec![None; threads]),
            all_taken: Condvar::new(),
        })
    }

    /// What a packet thread waits on besides packets.
    pub fn waker(&self, thread: usize) -> Option<&OwnedFd> {
        self.wakers.get(thread)
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.state).snapshot)
    }

    /// A packet thread judges by this epoch now.
    pub fn take(&self, thread: usize, epoch: u64) {
        self.set_taken(thread, Some(epoch));
    }

    fn set_taken(&self, thread: usize, epoch: Option<u64>) {
        if let Some(place) = lock(&self.taken).get_mut(thread) {
            *place = epoch;
        }
        self.all_taken.notify_all();
    }

    /// A packet thread will judge no more.
    pub fn leave(&self, thread: usize) {
        self.set_taken(thread, None);
    }

    /// A connection of an endpoint was opened.
    pub fn flow_opened(&self, id: EndpointId) {
        if let Some(count) = self.flows.get(usize::from(id.get())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One ended.
    pub fn flow_ended(&self, id: EndpointId) {
        if let Some(count) = self.flows.get(usize::from(id.get())) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_used(&self, id: EndpointId) -> bool {
        let count = self.flows.get(usize::from(id.get()));
        count.is_some_and(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Puts rules in force: those of tenants, and for VLANs that have none those of all VLANs' file.
    /// Returns when every packet thread judges by them. Nothing changes on an error of policy.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub fn put(&self, tenants: &Tenants, file: &FileRules) -> Result<(), BoardError> {
        let mut wanted: BTreeMap<u16, (Option<u32>, Arc<VlanRules>)> = file
            .vlans
            .iter()
            .map(|(&vlan, rules)| (vlan, (None, Arc::clone(rules))))
            .collect();
        for (vlan, (tenant, rules)) in tenants.vlans() {
            wanted.insert(vlan, (Some(tenant), rules));
        }
        let mut state = lock(&self.state);
        let changed = changed(&state, &wanted)?;
        let others = state.snapshot.refuses_others == file.refuses_others;
        if changed.is_empty() && others && state.current.len() == wanted.len() {
            // A change before this one may not have been taken up in time.
            let epoch = state.snapshot.epoch;
            drop(state);
            return self.wait_for(epoch);
        }
        self.forget_unused(&mut state);
        let is_gone = |(vlan, bound): &(&u16, &Bound)| {
            let stays = wanted.get(vlan).is_some_and(|(tenant, rules)| {
                bound.tenant == *tenant && owner(&bound.rules) == owner(rules)
            });
            !stays
        };
        let gone: Vec<u16> = state
            .current
            .iter()
            .filter(is_gone)
            .map(|(vlan, _)| *vlan)
            .collect();
        for vlan in gone {
            if let Some(bound) = state.current.remove(&vlan) {
                state.retired.push((vlan, bound));
            }
        }
        for (vlan, policy) in changed {
            let Some((tenant, rules)) = wanted.remove(&vlan) else {
                continue;
            };
            self.bind(&mut state, vlan, tenant, rules, policy)?;
        }
        let epoch = self.publish(&mut state, file.refuses_others);
        drop(state);
        self.wake();
        self.wait_for(epoch)
    }

    /// Endpoints without VLAN and connections.
    fn forget_unused(&self, state: &mut State) {
        state.retired.retain(|(_, bound)| self.is_used(bound.id));
    }

    fn bind(
        &self,
        state: &mut State,
        vlan: u16,
        tenant: Option<u32>,
        rules: Arc<VlanRules>,
        policy: Arc<EndpointPolicy>,
    ) -> Result<(), BoardError> {
        let id = match state.current.get(&vlan) {
            Some(bound) => bound.id,
            None => self.number(state, vlan, &rules)?,
        };
        let bound = Bound {
            id,
            tenant,
            rules,
            policy,
        };
        state.current.insert(vlan, bound);
        Ok(())
    }

    /// A VLAN's number: the one it had, if it comes again with rules that mean the same, or a free
    /// one.
    fn number(
        &self,
        state: &mut State,
        vlan: u16,
        rules: &VlanRules,
    ) -> Result<EndpointId, BoardError> {
        let same = |(old, bound): &(u16, Bound)| *old == vlan && bound.rules.means_the_same(rules);
        if let Some(at) = state.retired.iter().rposition(same) {
            return Ok(state.retired.remove(at).1.id);
        }
        if let Some(id) = self.free(state) {
            return Ok(id);
        }
        // Those without flows stay until the next change, since a packet thread may be about to open one.
        self.forget_unused(state);
        self.free(state).ok_or(BoardError::NoNumber(vlan))
    }

    fn free(&self, state: &State) -> Option<EndpointId> {
        let mut taken = vec![false; usize::from(EndpointId::MAX) + 1];
        let retired = state.retired.iter().map(|(_, bound)| bound.id);
        for id in retired.chain(state.current.values().map(|bound| bound.id)) {
            if let Some(place) = taken.get_mut(usize::from(id.get())) {
                *place = true;
            }
        }
        let is_taken = |id: EndpointId| taken.get(usize::from(id.get())) != Some(&false);
        (EndpointId::MIN..=EndpointId::MAX)
            .filter_map(EndpointId::new)
            .find(|id| !is_taken(*id) && !self.is_used(*id))
    }

    fn publish(&self, state: &mut State, refuses_others: bool) -> u64 {
        let epoch = state.snapshot.epoch + 1;
        let mut by_id = vec![None; usize::from(EndpointId::MAX) + 1];
        let mut endpoints = HashMap::new();
        let retired = state.retired.iter().map(|(vlan, bound)| (*vlan, bound));
        let current = state.current.iter().map(|(vlan, bound)| (*vlan, bound));
        for (vlan, bound) in retired.chain(current) {
            if let Some(place) = by_id.get_mut(usize::from(bound.id.get())) {
                *place = Some(Arc::clone(&bound.policy));
            }
            let endpoint = Endpoint {
                vlan,
                tenant: bound.tenant,
                otherwise: bound.rules.otherwise.clone(),
            };
            endpoints.insert(bound.id, endpoint);
        }
        let by_vlan = state.current.iter();
        state.snapshot = Arc::new(Snapshot {
            epoch,
            table: Arc::new(PolicyTable {
                generation: epoch,
                by_id,
            }),
            by_vlan: by_vlan.map(|(vlan, bound)| (*vlan, bound.id)).collect(),
            endpoints,
            refuses_others,
        });
        self.epoch.store(epoch, Ordering::Release);
        epoch
    }

    /// Makes every packet thread look around.
    pub fn wake(&self) {
        for waker in &self.wakers {
            // Full means that it is awake.
            let _ = rustix::io::write(waker, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until every packet thread runs. Until then nobody waits for them: they judge their first
    /// packet by what is in force then.
    ///
    /// # Errors
    /// One does not.
    pub fn wait_for_threads(&self) -> Result<(), BoardError> {
        self.wait_while(|taken| taken.is_none())
    }

    fn wait_for(&self, epoch: u64) -> Result<(), BoardError> {
        self.wait_while(|taken| taken.is_some_and(|seen| seen < epoch))
    }

    fn wait_while(&self, is_behind: impl Fn(Option<u64>) -> bool) -> Result<(), BoardError> {
        let taken = lock(&self.taken);
        let any = |taken: &mut Vec<Option<u64>>| taken.iter().any(|seen| is_behind(*seen));
        let waited = self.all_taken.wait_timeout_while(taken, TAKEN_WITHIN, any);
        let (taken, result) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(taken);
        if result.timed_out() {
            return Err(BoardError::NotTaken);
        }
        Ok(())
    }
}

/// Whose rules they are: the message names the policy. A VLAN whose rules become another policy's
/// from one reading of a file to the next has gone and come again.
fn owner(rules: &VlanRules) -> Option<&str> {
    rules.otherwise.as_ref().map(|rule| rule.msg.as_str())
}

/// The VLANs that are new or judged by something else than before, with what they are judged by.
fn changed(
    state: &State,
    wanted: &BTreeMap<u16, (Option<u32>, Arc<VlanRules>)>,
) -> Result<BTreeMap<u16, Arc<EndpointPolicy>>, BoardError> {
    let mut changed = BTreeMap::new();
    for (&vlan, (tenant, rules)) in wanted {
        let known = state.current.get(&vlan);
        if known.is_some_and(|known| known.tenant == *tenant && known.rules.means_the_same(rules)) {
            continue;
        }
        let policy = endpoint_policy(vlan, rules);
        let policy = policy.map_err(|source| BoardError::Policy { vlan, source })?;
        changed.insert(vlan, policy);
    }
    Ok(changed)
}
