//! How much memory is taken by what is judged or held back, and by whose.

use hashbrown::HashMap;
use tollgate_wire::tag::EndpointId;

use crate::counters::Counters;
use crate::limits::Limits;

/// Memory of judged bytes and of what readers hold; or that of what is held back.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    all: usize,
    /// Endpoints that have any.
    by_endpoint: HashMap<EndpointId, usize>,
}

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Free {
    /// For all flows.
    all: usize,
    /// Of the endpoint's share.
    share: usize,
}

impl Free {
    /// What a flow of the endpoint may still take.
    pub(crate) fn bytes(self) -> usize {
        self.all.min(self.share)
    }

    /// Whether something finds room that needs what `fits` says. If it would but for the endpoint's
    /// share, that is counted as such.
    pub(crate) fn has_room(self, counters: &mut Counters, fits: impl Fn(usize) -> bool) -> bool {
        if fits(self.bytes()) {
            return true;
        }
        match fits(self.all) {
            true => counters.endpoint_kept_full += 1,
            false => counters.kept_full += 1,
        }
        false
    }
}

impl Taken {
    /// Of all flows.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Of the endpoint's flows.
    pub(crate) fn of(&self, endpoint: EndpointId) -> usize {
        self.by_endpoint.get(&endpoint).copied().unwrap_or_default()
    }

    /// What is left to a flow of the endpoint.
    pub(crate) fn free(&self, endpoint: EndpointId, limits: &Limits) -> Free {
        let own = self.of(endpoint);
        Free {
            all: limits.judged_bytes.saturating_sub(self.all),
            share: limits.judged_bytes_per_endpoint.saturating_sub(own),
        }
    }

    /// A flow of the endpoint holds `now`, where it held `before`.
    pub(crate) fn change(&mut self, endpoint: EndpointId, before: usize, now: usize) {
        if before == now {
            return;
        }
        self.all = self.all.saturating_sub(before) + now;
        let own = self.by_endpoint.entry(endpoint).or_default();
        *own = own.saturating_sub(before) + now;
        if *own == 0 {
            self.by_endpoint.remove(&endpoint);
        }
    }
}
