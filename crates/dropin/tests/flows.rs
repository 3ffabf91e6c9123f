//! Who is the client, whatever is sent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tollgate_dropin::flows::{Class, Ends, Flow, Flows, Seen, Why};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::packet::{self, Layout, TcpFlags};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

const VLAN: u16 = 9;

fn endpoint(id: u16) -> EndpointId {
    EndpointId::new(id).unwrap()
}

struct Frame {
    ethernet: Vec<u8>,
    layout: Layout,
}

fn frame(from: SocketAddr, to: SocketAddr, flags: TcpFlags) -> Frame {
    let l2 = L2 {
        src: [2; 6],
        dst: [4; 6],
        vlan: Some(VLAN),
    };
    let segment = Segment {
        src: from,
        dst: to,
        seq: 1,
        ack: 1,
        flags,
        window: 100,
        payload: b"x",
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    build::tcp(&mut frame, &l2, &segment).unwrap();
    let ethernet = frame.split_off(VNET_HDR_LEN);
    let Ok(packet::Packet::Ip(layout)) = packet::parse(&ethernet) else {
        panic!("no packet")
    };
    Frame { ethernet, layout }
}

/// One packet thread's flows, and what belongs to them.
struct Bed {
    flows: Flows,
    endpoint: Option<EndpointId>,
    midstream_passes: bool,
    replaced: Option<Flow>,
}

impl Bed {
    fn new() -> Self {
        Self {
            flows: Flows::new(1),
            endpoint: Some(endpoint(1)),
            midstream_passes: false,
            replaced: None,
        }
    }

    fn classify(&mut self, frame: &Frame) -> Class {
        let seen = Seen {
            now: Duration::from_secs(1),
            vlan: VLAN,
            layout: &frame.layout,
            ethernet: &frame.ethernet,
            quoted: None,
            endpoint: self.endpoint,
            midstream_passes: self.midstream_passes,
        };
        self.flows.classify(&seen, &mut self.replaced)
    }
}

fn judged(endpoint: EndpointId, direction: Direction, new: bool) -> Class {
    let tag = Tag {
        endpoint,
        direction,
    };
    Class::Judged { tag, new }
}

fn ends() -> (SocketAddr, SocketAddr) {
    (
        "10.0.0.1:40000".parse().unwrap(),
        "10.0.0.2:80".parse().unwrap(),
    )
}

#[test]
fn in_the_middle_the_port_tells_and_an_early_answer_waits() {
    let (client, server) = ends();
    let mut bed = Bed::new();
    let data = TcpFlags::ACK | TcpFlags::PSH;
    let answer = bed.classify(&frame(server, client, TcpFlags::SYN | TcpFlags::ACK));
    assert_eq!(answer, Class::Dropped(Why::EarlyAnswer));
    assert!(bed.flows.is_empty());
    let reply = bed.classify(&frame(server, client, data));
    assert_eq!(reply, judged(endpoint(1), Direction::Inbound, true));
    let request = bed.classify(&frame(client, server, data));
    assert_eq!(request, judged(endpoint(1), Direction::Outbound, false));
    // Without rules it is nobody's; with the setting it passes until its next SYN.
    let mut bed = Bed::new();
    bed.endpoint = None;
    assert_eq!(bed.classify(&frame(client, server, data)), Class::Unknown);
    bed.endpoint = Some(endpoint(1));
    bed.midstream_passes = true;
    assert_eq!(bed.classify(&frame(client, server, data)), Class::Unjudged);
    assert_eq!(bed.classify(&frame(server, client, data)), Class::Unjudged);
    let syn = bed.classify(&frame(client, server, TcpFlags::SYN));
    assert_eq!(syn, judged(endpoint(1), Direction::Outbound, true));
    assert!(bed.replaced.is_some());
}

#[test]
fn a_new_connection_belongs_to_the_rules_of_its_time() {
    let (client, server) = ends();
    let mut bed = Bed::new();
    bed.classify(&frame(client, server, TcpFlags::SYN));
    bed.endpoint = Some(endpoint(2));
    let data = bed.classify(&frame(client, server, TcpFlags::ACK));
    assert_eq!(data, judged(endpoint(1), Direction::Outbound, false));
    let syn = bed.classify(&frame(client, server, TcpFlags::SYN));
    assert_eq!(syn, judged(endpoint(2), Direction::Outbound, true));
    // What is told of the old one's end is not about this one.
    let key = Ends::new(VLAN, 6, server, client);
    assert!(bed.flows.remove(&key, endpoint(1)).is_none());
    assert!(bed.flows.remove(&key, endpoint(2)).is_some());
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let sets = [
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
    ];
    prop::sample::select(sets.to_vec())
}

proptest! {
    /// Whatever either side sends, and whatever becomes of the rules: as long as the engine knows the
    /// flow, the client stays the client.
    #[test]
    fn the_client_stays_the_client(
        packets in prop::collection::vec((any::<bool>(), flags(), 0..3_u16), 1..60)
    ) {
        let (client, server) = ends();
        let mut bed = Bed::new();
        bed.classify(&frame(client, server, TcpFlags::SYN));
        for (from_client, flags, id) in packets {
            bed.endpoint = (id > 0).then(|| endpoint(id.max(1)));
            let (from, to, expected) = if from_client {
                (client, server, Direction::Outbound)
            } else {
                (server, client, Direction::Inbound)
            };
            match bed.classify(&frame(from, to, flags)) {
                Class::Judged { tag, .. } => prop_assert_eq!(tag.direction, expected),
                // A client's SYN into a VLAN without rules any more.
                Class::Unknown => {
                    prop_assert!(bed.endpoint.is_none() && from_client && flags.is_syn());
                    bed.endpoint = Some(endpoint(1));
                    bed.classify(&frame(client, server, TcpFlags::SYN));
                }
                Class::Dropped(why) => {
                    prop_assert_eq!(why, Why::ReversedSyn);
                    prop_assert!(!from_client && flags.is_syn());
                }
                Class::Unjudged => prop_assert!(false, "nothing passes unjudged"),
            }
            prop_assert_eq!(bed.flows.len(), 1);
        }
    }
}
