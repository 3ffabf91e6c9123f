//! What the engine says.

use std::sync::Arc;
use std::time::Duration;

use tollgate_dropin::policy::{endpoint_policy, usable};
use tollgate_dropin::rules::parse_known;
use tollgate_dropin::tenants::VlanRules;
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::event::Event;
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::output::CacheFull;
use tollgate_engine::table::PolicyTable;
use tollgate_engine::{Engine, Output};
use tollgate_policy::EndpointPolicy;
use tollgate_wire::packet::{self, L4, Packet};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

use crate::capture::{Frame, Talk};
use crate::cases::verdicts;

/// Between Ethernet's addresses and the tag's number.
const TCI_OFFSET: usize = VNET_HDR_LEN + 14;
const STEP: Duration = Duration::from_millis(1);
/// Initial sequence number of the client, and the SYN.
const FIRST_BYTE: u32 = 1_001;

/// The policy of a tenant's rules, as the daemon makes it: without the pass rules that it cannot read.
pub fn policy(rules: &[String]) -> Arc<EndpointPolicy> {
    let parsed = parse_known(rules.join("\n").as_bytes()).unwrap();
    let rules = VlanRules::of_tenant(&parsed.rules).unwrap();
    let (rules, _) = usable(rules).unwrap();
    endpoint_policy(1, &rules).unwrap()
}

/// The verdicts on the requests of a conversation.
pub fn judge(policy: &Arc<EndpointPolicy>, talk: &Talk, frames: &[Frame]) -> String {
    let table = PolicyTable {
        generation: 1,
        by_id: vec![None, Some(Arc::clone(policy))],
    };
    let mut engine = Engine::new(Arc::new(table), Limits::default());
    let mut outlet = Outlet::default();
    let mut now = STEP;
    for frame in frames {
        now += STEP;
        engine.handle(now, &tagged(frame), &mut outlet);
    }
    let total = talk.ranges().last().map_or(0, |range| range.end);
    let mut delivered = vec![false; total];
    let mut has_fin = false;
    for out in &outlet.frames {
        let out = &out[VNET_HDR_LEN..];
        let Ok(Packet::Ip(layout)) = packet::parse(out) else {
            continue;
        };
        let payload = &out[layout.payload_offset..layout.end];
        match layout.l4 {
            L4::Tcp(tcp) if tcp.dst_port == talk.port => {
                has_fin |= tcp.flags.fin();
                let at = tcp.seq.wrapping_sub(FIRST_BYTE) as usize;
                (at..at + payload.len()).for_each(|byte| delivered[byte] = true);
            }
            L4::Udp { dst_port, .. } if dst_port == talk.port => {
                let sent = frames
                    .iter()
                    .find(|f| f.from_client && f.data.ends_with(payload));
                sent.unwrap()
                    .bytes
                    .clone()
                    .for_each(|byte| delivered[byte] = true);
            }
            _ => {}
        }
    }
    verdicts(talk, has_fin, |byte| delivered[byte])
}

fn tagged(frame: &Frame) -> Vec<u8> {
    let mut data = frame.data.clone();
    let direction = if frame.from_client {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let tag = Tag {
        endpoint: EndpointId::new(1).unwrap(),
        direction,
    };
    data[TCI_OFFSET..TCI_OFFSET + 2].copy_from_slice(&tag.vlan_id().to_be_bytes());
    data
}

#[derive(Default)]
struct Outlet {
    frames: Vec<Vec<u8>>,
}

impl Output for Outlet {
    fn emit(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }

    /// Between two ports of a switch, every packet comes to the engine.
    fn cache_put(&mut self, _: &FlowKey, _: &CacheEntry) -> Result<(), CacheFull> {
        Err(CacheFull)
    }

    fn cache_get(&mut self, _: &FlowKey) -> Option<(CacheEntry, Progress)> {
        None
    }

    fn cache_delete(&mut self, _: &FlowKey) {}

    fn event(&mut self, _: Event) {}

    fn wants_all(&self) -> bool {
        false
    }
}
