//! Flows that go on somewhere else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::time::Duration;

use tollgate_engine::cache::{CacheEntry, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_steer::{Fate, FlowCache, Packet};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::packet::{self, TcpFlags};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

#[test]
fn a_flow_that_ended_elsewhere_is_not_told_again() {
    let tag = Tag {
        endpoint: EndpointId::new(5).unwrap(),
        direction: Direction::Outbound,
    };
    let l2 = L2 {
        src: [2; 6],
        dst: [4; 6],
        vlan: Some(tag.vlan_id()),
    };
    let segment = Segment {
        src: "10.0.0.1:40000".parse().unwrap(),
        dst: "10.0.0.2:80".parse().unwrap(),
        seq: 1,
        ack: 1,
        flags: TcpFlags::ACK,
        window: 100,
        payload: b"",
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    build::tcp(&mut frame, &l2, &segment).unwrap();
    let ethernet = &frame[VNET_HDR_LEN..];
    let Ok(packet::Packet::Ip(layout)) = packet::parse(ethernet) else {
        panic!("no packet")
    };
    let key = FlowKey::of(tag, &layout);
    let mut cache = FlowCache::new(1);
    assert!(!cache.end(&key));
    let entry = CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    };
    cache.put(&key, &entry).unwrap();
    assert!(cache.end(&key));
    let (_, progress) = cache.get(&key).unwrap();
    assert!(progress.outbound.rst, "as if it had been reset");
    // What still comes passes, and whoever ended it knows that it has ended.
    let packet = Packet {
        tag,
        layout: &layout,
        ethernet,
        gso_size: 0,
    };
    let fate = cache.fate(Duration::from_secs(1), &packet);
    assert_eq!(fate, Fate::Pass { decided: true });
    assert!(cache.take_closed().is_empty());
}
