//! Where a worker keeps what was decided: the kernel's map, or a cache of its own.

use tollgate_datapath::flows::FlowMap;
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::key::FlowKey;
use tollgate_engine::output::CacheFull;
use tollgate_steer::FlowCache;

/// The flow cache.
pub enum FlowStore {
    /// The kernel programs look it up; what they pass never comes here.
    Kernel(FlowMap),
    /// The worker looks it up itself, for every frame.
    Own(Box<FlowCache>),
}

impl FlowStore {
    /// As [`tollgate_engine::Output::cache_put`].
    ///
    /// # Errors
    /// There is no room.
    pub fn put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        match self {
            Self::Kernel(map) => map.put(key, entry),
            Self::Own(cache) => cache.put(key, entry),
        }
    }

    /// As [`tollgate_engine::Output::cache_get`].
    pub fn get(&self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        match self {
            Self::Kernel(map) => map.get(key),
            Self::Own(cache) => cache.get(key),
        }
    }

    /// As [`tollgate_engine::Output::cache_delete`].
    pub fn delete(&mut self, key: &FlowKey) {
        match self {
            Self::Kernel(map) => drop(map.delete(key)),
            Self::Own(cache) => cache.delete(key),
        }
    }

    /// What goes with the worker: the kernel's map stays where it is.
    pub fn to_leave(&self) -> Vec<(FlowKey, CacheEntry, Progress)> {
        match self {
            Self::Kernel(_) => Vec::new(),
            Self::Own(cache) => cache.iter().collect(),
        }
    }
}
