//! The worker's flows: found by key, bounded in number, bounded for each endpoint.

use hashbrown::HashMap;
use serde::Serialize;
use tollgate_policy::Side;
use tollgate_wire::tag::EndpointId;

use crate::cache::Progress;
use crate::event::L7Facts;
use crate::flow::{Flow, State};
use crate::key::FlowKey;
use crate::limits::Limits;

/// Why a flow could not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFull {
    Flows,
    Endpoint,
}

/// A flow as `tollgate flows` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct FlowSummary {
    /// Identifies the flow among its worker's.
    pub id: u64,
    /// Endpoint id.
    pub endpoint: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The endpoint's address and port.
    pub local: std::net::SocketAddr,
    /// The other side's.
    pub remote: std::net::SocketAddr,
    /// Who opened it.
    pub side: Side,
    /// `open`, `inspected`, `denied` or `closing`.
    pub state: &'static str,
    /// Whether the kernel has an entry for it.
    pub cached: bool,
    /// The deciding policy.
    pub policy: Option<String>,
    /// The deciding rule.
    pub rule: Option<String>,
    /// The latest L7 facts.
    pub l7: Option<L7Facts>,
    /// Packets and bytes, kernel and engine together: out, in.
    pub packets: [u64; 2],
    /// Bytes: out, in.
    pub bytes: [u64; 2],
}

impl FlowSummary {
    pub(crate) fn of(flow: &Flow, progress: &Progress) -> Self {
        let state = match &flow.state {
            State::Denied(_) => "denied",
            _ if flow.closing => "closing",
            State::Inspect(_) | State::Quic(_) | State::Dns(_) | State::Lost => "inspected",
            State::Open => "open",
        };
        Self {
            id: flow.id,
            endpoint: flow.key.endpoint.get(),
            protocol: flow.key.protocol,
            local: flow.key.local_addr(),
            remote: flow.key.remote_addr(),
            side: flow.side,
            state,
            cached: flow.cached.is_some(),
            policy: flow.rule.as_ref().map(|rule| rule.policy().to_string()),
            rule: flow.rule.as_ref().map(|rule| rule.rule().to_string()),
            l7: flow.facts.as_deref().cloned(),
            packets: [progress.outbound.packets, progress.inbound.packets],
            bytes: [progress.outbound.bytes, progress.inbound.bytes],
        }
    }
}

/// Keyed with foldhash, whose seed is random per process; chains cannot grow beyond what the
/// per-endpoint bound lets one pod insert.
type Index = HashMap<FlowKey, usize, foldhash::fast::RandomState>;

#[derive(Default)]
pub(crate) struct FlowTable {
    index: Index,
    /// Slots; `None` is free and listed in `free`.
    slots: Vec<Option<Flow>>,
    free: Vec<usize>,
    per_endpoint: HashMap<EndpointId, usize, foldhash::fast::RandomState>,
}

impl FlowTable {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory of the table: slots and index, each with its spare room.
    pub(crate) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Flow>>()
            + self.free.capacity() * size_of::<usize>()
            + self.index.allocation_size()
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<usize> {
        self.index.get(key).copied()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Flow> {
        self.slots.get_mut(at)?.as_mut()
    }

    pub(crate) fn room_for(&self, endpoint: EndpointId, limits: &Limits) -> Result<(), TableFull> {
        if self.len() >= limits.flows {
            return Err(TableFull::Flows);
        }
        let of_endpoint = self.per_endpoint.get(&endpoint).copied().unwrap_or(0);
        if of_endpoint >= limits.flows_per_endpoint {
            return Err(TableFull::Endpoint);
        }
        Ok(())
    }

    /// Enters a flow whose key is not in the table; the caller has asked [`Self::room_for`].
    pub(crate) fn insert(&mut self, flow: Flow) -> usize {
        *self.per_endpoint.entry(flow.key.endpoint).or_insert(0) += 1;
        let key = flow.key;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = Some(flow);
                at
            }
            None => {
                self.slots.push(Some(flow));
                self.slots.len() - 1
            }
        };
        self.index.insert(key, at);
        at
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<Flow> {
        let flow = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        self.index.remove(&flow.key);
        if let Some(count) = self.per_endpoint.get_mut(&flow.key.endpoint) {
            *count = count.saturating_sub(1);
        }
        Some(flow)
    }

    pub(crate) fn occupied(&self) -> Vec<usize> {
        self.index.values().copied().collect()
    }
}
