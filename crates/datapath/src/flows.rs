//! The flow cache.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use rustix::time::{ClockId, clock_gettime};
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::key::FlowKey;
use tollgate_engine::output::CacheFull;
use tollgate_wire::tag::EndpointId;

use crate::Error;
use crate::abi::{Flow, Key, map};
use crate::endpoints::{errno, is_absent, open};

/// `BPF_NOEXIST` and `BPF_EXIST` of `BPF_MAP_UPDATE_ELEM`.
const ONLY_NEW: u64 = 1;
const ONLY_OLD: u64 = 2;

/// The flow cache. Several may be open on one map, e.g. one in each worker; one flow should be
/// written through one of them only.
pub struct FlowMap {
    map: HashMap<MapData, Key, Flow>,
}

impl FlowMap {
    /// Opens the map pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let raw = open(pin_dir, map::FLOWS)?;
        let map = HashMap::try_from(raw).map_err(Error::map("opening", map::FLOWS))?;
        Ok(Self { map })
    }

    /// Writes an entry, keeping what the kernel noted about an existing one.
    ///
    /// An existing entry is read and replaced: what the kernel notes between the two system calls
    /// (about a microsecond) is forgotten. Sequence numbers come right with the next packet; counts
    /// may be short by the packets in between; and if just then the last FIN passes, the flow's end
    /// is not reported and is left to time out.
    ///
    /// # Errors
    /// `CacheFull` if there is no room, or (logged) if the kernel refuses the entry for any other
    /// reason: the flow stays in the engine's hands.
    pub fn put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        let raw = Key::from(key);
        let fresh = Flow::new(entry, monotonic_ns());
        let error = match self.map.insert(raw, fresh, ONLY_NEW) {
            Ok(()) => return Ok(()),
            Err(e) if errno(&e) == Some(libc::EEXIST) => {
                let mut flow = self.map.get(&raw, 0).unwrap_or(fresh);
                flow.set(entry);
                match self.map.insert(raw, flow, ONLY_OLD) {
                    Ok(()) => return Ok(()),
                    // Somebody else removed it in between.
                    Err(e) if is_absent(&e) => match self.map.insert(raw, fresh, 0) {
                        Ok(()) => return Ok(()),
                        Err(e) => e,
                    },
                    Err(e) => e,
                }
            }
            Err(e) => e,
        };
        if errno(&error) != Some(libc::E2BIG) {
            tracing::warn!(%error, "the kernel refuses a flow cache entry");
        }
        Err(CacheFull)
    }

    /// What the kernel noted; `None`: no entry.
    pub fn progress(&self, key: &FlowKey) -> Option<Progress> {
        self.map
            .get(&Key::from(key), 0)
            .ok()
            .map(|flow| flow.progress())
    }

    /// Entry and progress; `None`: no entry.
    pub fn get(&self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        self.map
            .get(&Key::from(key), 0)
            .ok()
            .map(|flow| (flow.entry(), flow.progress()))
    }

    /// Removes an entry; true if it was there.
    pub fn delete(&mut self, key: &FlowKey) -> bool {
        self.map.remove(&Key::from(key)).is_ok()
    }

    /// Entries in no order. Entries that come and go meanwhile may be missed or seen twice.
    pub fn iter(&self) -> impl Iterator<Item = (FlowKey, CacheEntry, Progress)> + '_ {
        self.map.iter().filter_map(|item| {
            let (key, flow) = item.ok()?;
            Some((key.to_flow_key()?, flow.entry(), flow.progress()))
        })
    }

    /// Removes an endpoint's entries; returns how many.
    pub fn delete_endpoint(&mut self, endpoint: EndpointId) -> usize {
        let keys: Vec<FlowKey> = self
            .iter()
            .map(|(key, ..)| key)
            .filter(|key| key.endpoint == endpoint)
            .collect();
        keys.iter().filter(|key| self.delete(key)).count()
    }
}

/// The clock of `Progress::last_seen_ns`, which the programs read too.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // Since boot, so never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
