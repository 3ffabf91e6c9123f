//! The compiled policy as the workers see it.

use std::sync::Arc;

use tollgate_policy::EndpointPolicy;
use tollgate_wire::tag::EndpointId;

/// Endpoint policies by endpoint id; swapped as a whole when the policy changes.
#[derive(Clone, Default)]
pub struct PolicyTable {
    /// Counts policy changes; higher is newer.
    pub generation: u64,
    /// Indexed by [`EndpointId::get`]; `None` where no endpoint has the id.
    pub by_id: Vec<Option<Arc<EndpointPolicy>>>,
}

impl PolicyTable {
    /// The policy of an endpoint.
    pub fn get(&self, id: EndpointId) -> Option<&Arc<EndpointPolicy>> {
        self.by_id.get(usize::from(id.get()))?.as_ref()
    }
}
