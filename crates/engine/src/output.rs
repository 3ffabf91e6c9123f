//! What the engine asks of the data path.

use crate::cache::{CacheEntry, Progress};
use crate::event::Event;
use crate::key::FlowKey;

/// The flow cache is full; the flow stays in the engine's hands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the flow cache is full")]
pub struct CacheFull;

/// The engine's way out. Implemented by the live worker, by tests and by simulators.
pub trait Output {
    /// Puts a frame (virtio-net header, Ethernet with the 802.1Q tag that names endpoint and
    /// direction) on its way. The direction in the tag says where it comes out.
    fn emit(&mut self, frame: &[u8]);

    /// Writes a flow-cache entry; what the kernel noted so far is kept.
    ///
    /// # Errors
    /// [`CacheFull`] when the map has no room: the flow's packets go on coming up.
    fn cache_put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull>;

    /// Reads an entry and what the kernel noted. `None`: no entry.
    fn cache_get(&mut self, key: &FlowKey) -> Option<(CacheEntry, Progress)>;

    /// Removes an entry; no entry is no error.
    fn cache_delete(&mut self, key: &FlowKey);

    /// Whether packets of a decided direction may go where nothing of them is noted, as through a
    /// switch that the worker is only a port of: [`Progress`] is a lower bound then.
    fn passes_unseen(&self) -> bool {
        false
    }

    /// Tells the world of a verdict or of the end of a flow.
    fn event(&mut self, event: Event);

    /// Whether anyone wants to hear of verdicts that allowed something and that no rule asked to
    /// log, and of ends of flows. Denials and logged verdicts are always reported.
    fn wants_all(&self) -> bool;
}
