//! Peers by name: what teaches a name, and what does not.

// Test support outside of test functions.
#![allow(clippy::unwrap_used)]

mod sim;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sim::{Conn, Gate, Out, egress, fragments, link};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, ResourceRecord, TYPE};
use tollgate_engine::limits::Limits;
use tollgate_engine::names::{NameTable, Resolvers};
use tollgate_wire::build;
use tollgate_wire::tag::Direction::{self, Inbound, Outbound};

const STUB: &str = "10.1.0.2:5353";
const RESOLVER: &str = "10.96.0.10:53";
const WEB: &str = "192.0.2.7";

fn policy() -> String {
    egress(
        "  - name: dns
    action: Allow
    ports: [{protocol: UDP, port: 53}, {port: 53}, {protocol: UDP, port: 5300}]
  - name: web
    action: Allow
    to: [{fqdn: '*.example.com'}, {fqdn: exact.test}]
    ports: [{port: 443}]
  - name: rest
    action: Reject",
    )
}

fn gate_of(yaml: &str, limits: Limits) -> Gate {
    let mut gate = Gate::with_limits(yaml, limits);
    gate.engine.set_names(Arc::new(NameTable::new(Resolvers {
        addresses: vec!["10.96.0.10".parse().unwrap(), "fd00::53".parse().unwrap()],
        min_ttl: Duration::from_secs(60),
    })));
    gate
}

fn gate() -> Gate {
    gate_of(&policy(), Limits::default())
}

fn message(id: u16, name: &str, qtype: TYPE, records: Option<&[(&str, &str, u32)]>) -> Vec<u8> {
    let mut packet = match records {
        Some(_) => Packet::new_reply(id),
        None => Packet::new_query(id),
    };
    let class = QCLASS::CLASS(CLASS::IN);
    let question =
        simple_dns::Question::new(Name::new(name).unwrap(), QTYPE::TYPE(qtype), class, false);
    packet.questions.push(question);
    for (owner, value, ttl) in records.unwrap_or_default() {
        let data = match value.parse() {
            Ok(IpAddr::V4(v4)) => RData::A(A { address: v4.into() }),
            Ok(IpAddr::V6(v6)) => RData::AAAA(AAAA { address: v6.into() }),
            Err(_) => RData::CNAME(CNAME(Name::new(value).unwrap())),
        };
        let owner = Name::new(owner).unwrap();
        packet
            .answers
            .push(ResourceRecord::new(owner, CLASS::IN, *ttl, data));
    }
    packet.build_bytes_vec_compressed().unwrap()
}

fn query(id: u16, name: &str) -> Vec<u8> {
    message(id, name, TYPE::A, None)
}

fn reply(id: u16, name: &str, records: &[(&str, &str, u32)]) -> Vec<u8> {
    message(id, name, TYPE::A, Some(records))
}

fn datagram(gate: &mut Gate, from: &str, to: &str, way: Direction, payload: &[u8]) -> Vec<Out> {
    let frame = datagram_frame(from, to, way, payload);
    gate.arrives(way, &frame)
}

fn datagram_frame(from: &str, to: &str, way: Direction, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let datagram = build::Datagram {
        src,
        dst,
        payload,
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    build::udp(&mut frame, &link(way), &datagram).unwrap();
    frame
}

fn ask(gate: &mut Gate, payload: &[u8]) {
    let out = datagram(gate, STUB, RESOLVER, Outbound, payload);
    assert_eq!(out[0].payload, payload, "questions go through");
}

/// The resolver's answer reaches the endpoint whatever it teaches.
fn told(gate: &mut Gate, payload: &[u8]) {
    let out = datagram(gate, RESOLVER, STUB, Inbound, payload);
    assert_eq!(out[0].payload, payload, "answers go through");
    assert_eq!(out.len(), 1);
}

fn look_up(gate: &mut Gate, name: &str, records: &[(&str, &str, u32)]) {
    ask(gate, &query(1, name));
    told(gate, &reply(1, name, records));
}

fn may_connect(gate: &mut Gate, address: &str) -> bool {
    static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(41_000);
    let to = SocketAddr::new(address.parse().unwrap(), 443).to_string();
    let mut conn = Conn::egress(&to);
    let port = PORT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let from = if conn.server.is_ipv4() {
        "10.1.0.2"
    } else {
        "fd00::2"
    };
    conn.client = SocketAddr::new(from.parse().unwrap(), port);
    let out = conn.syn(gate);
    assert_eq!(out.len(), 1);
    out[0].to == Outbound
}

#[test]
fn the_first_connection_after_the_answer_passes() {
    let mut gate = gate();
    assert!(!may_connect(&mut gate, WEB));
    look_up(
        &mut gate,
        "www.Example.com",
        &[("www.example.com", WEB, 300)],
    );
    assert!(may_connect(&mut gate, WEB));
    assert!(!may_connect(&mut gate, "192.0.2.8"));
    assert_eq!(gate.engine.counters().dns_learnt, 1);
    // The stub resolver goes on with the same port.
    look_up(
        &mut gate,
        "a.b.example.com",
        &[("a.b.example.com", "192.0.2.8", 300)],
    );
    assert!(may_connect(&mut gate, "192.0.2.8"));
    assert_eq!(gate.engine.flow_count(), 5);
}

#[test]
fn only_names_of_the_policy_teach() {
    let mut gate = gate();
    for (name, expected) in [
        ("exact.test", true),
        ("www.exact.test", false),
        ("example.com", false),
        ("www.example.com.evil.net", false),
    ] {
        let mut gate = gate_of(&policy(), Limits::default());
        look_up(&mut gate, name, &[(name, WEB, 300)]);
        assert_eq!(may_connect(&mut gate, WEB), expected, "{name}");
    }
    // An answer about one name says nothing of another.
    let stray = [("www.example.com", WEB, 300), ("x.test", "192.0.2.1", 300)];
    look_up(&mut gate, "x.test", &stray);
    assert!(!may_connect(&mut gate, WEB));
}

#[test]
fn aliases_and_ipv6_are_followed() {
    let mut gate = gate();
    let name = "www.example.com";
    look_up(
        &mut gate,
        name,
        &[(name, "edge.cdn.net", 300), ("edge.cdn.net", WEB, 300)],
    );
    assert!(may_connect(&mut gate, WEB));
    ask(&mut gate, &message(2, name, TYPE::AAAA, None));
    let records = [(name, "2001:db8::7", 300)];
    told(&mut gate, &message(2, name, TYPE::AAAA, Some(&records)));
    assert!(may_connect(&mut gate, "2001:db8::7"));
}

#[test]
fn what_was_not_asked_teaches_nothing() {
    let name = "www.example.com";
    let records = [(name, WEB, 300)];
    let good = reply(7, name, &records);
    let mut gate = gate();
    // Before any question: the resolver opens the flow.
    assert_eq!(
        datagram(&mut gate, RESOLVER, "10.1.0.2:999", Inbound, &good).len(),
        1
    );
    ask(&mut gate, &query(7, name));
    told(&mut gate, &reply(8, name, &records));
    told(
        &mut gate,
        &reply(7, "w2.example.com", &[("w2.example.com", WEB, 9)]),
    );
    told(
        &mut gate,
        &message(7, name, TYPE::AAAA, Some(&[(name, "2001:db8::7", 9)])),
    );
    assert_eq!(gate.engine.counters().dns_unasked, 4);
    // From another port or another host, or to another port.
    datagram(&mut gate, "10.96.0.10:5300", STUB, Inbound, &good);
    datagram(&mut gate, "10.96.0.11:53", STUB, Inbound, &good);
    datagram(&mut gate, RESOLVER, "10.1.0.2:5354", Inbound, &good);
    assert!(!may_connect(&mut gate, WEB) && !may_connect(&mut gate, "2001:db8::7"));
    told(&mut gate, &good);
    assert!(may_connect(&mut gate, WEB), "the right one does");
    told(&mut gate, &reply(7, name, &[(name, "192.0.2.8", 300)]));
    assert!(
        !may_connect(&mut gate, "192.0.2.8"),
        "a question is answered once"
    );
}

#[test]
fn an_answer_before_the_question_does_not_blind_the_engine() {
    let mut gate = gate();
    let name = "www.example.com";
    told(&mut gate, &reply(7, name, &[(name, "192.0.2.8", 300)]));
    look_up(&mut gate, name, &[(name, WEB, 300)]);
    assert!(may_connect(&mut gate, WEB) && !may_connect(&mut gate, "192.0.2.8"));
}

#[test]
fn fragments_of_answers_go_through_and_teach_nothing() {
    let mut gate = gate();
    let name = "www.example.com";
    ask(&mut gate, &query(7, name));
    let answer = reply(7, name, &[(name, WEB, 300)]);
    for fragment in fragments(&datagram_frame(RESOLVER, STUB, Inbound, &answer)) {
        gate.engine.handle(gate.now, &fragment, &mut gate.kernel);
    }
    assert_eq!(gate.kernel.out.len(), 2);
    gate.kernel.out.clear();
    assert!(!may_connect(&mut gate, WEB));
}

#[test]
fn other_resolvers_teach_nothing_and_stay_in_the_kernel() {
    let name = "www.example.com";
    let good = reply(7, name, &[(name, WEB, 300)]);
    for other in ["8.8.8.8:53", "10.96.0.10:5300"] {
        let mut gate = gate();
        datagram(&mut gate, STUB, other, Outbound, &query(7, name));
        let out = datagram(&mut gate, other, STUB, Inbound, &good);
        assert!(out[0].by_kernel);
        assert!(!may_connect(&mut gate, WEB), "{other}");
    }
}

#[test]
fn an_answer_that_comes_too_late_teaches_nothing() {
    let mut gate = gate();
    let name = "www.example.com";
    ask(&mut gate, &query(7, name));
    gate.wait(31);
    told(&mut gate, &reply(7, name, &[(name, WEB, 300)]));
    assert!(!may_connect(&mut gate, WEB));
}

#[test]
fn a_question_that_is_sent_again_is_one_question() {
    let mut gate = gate();
    let name = "www.example.com";
    ask(&mut gate, &query(7, name));
    ask(&mut gate, &query(7, name));
    told(&mut gate, &reply(7, name, &[(name, WEB, 300)]));
    told(&mut gate, &reply(7, name, &[(name, "192.0.2.8", 300)]));
    assert!(may_connect(&mut gate, WEB) && !may_connect(&mut gate, "192.0.2.8"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_goes_through_and_rubbish_teaches_nothing(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..80), 1..8),
        at in 0usize..60, value: u8,
    ) {
        let mut gate = gate();
        let name = "www.example.com";
        let good = reply(7, name, &[(name, WEB, 300)]);
        let mut damaged = good.clone();
        if let Some(byte) = damaged.get_mut(at) {
            *byte = value;
        }
        for payload in payloads {
            ask(&mut gate, &payload);
            told(&mut gate, &payload);
        }
        ask(&mut gate, &query(7, name));
        told(&mut gate, &damaged);
        told(&mut gate, &good);
        prop_assert!(may_connect(&mut gate, WEB) || damaged[..12] == good[..12]);
        let mut conn = dns_over_tcp(&mut gate);
        prop_assert_eq!(conn.send(&mut gate, &damaged).len(), 1);
        prop_assert_eq!(conn.answer(&mut gate, &damaged).len(), 1);
        gate.wait(200);
        prop_assert!(gate.engine.held_bytes() < 200);
    }
}

#[test]
fn questions_are_bounded() {
    let mut gate = gate();
    for id in 0..65 {
        ask(&mut gate, &query(id, "www.example.com"));
    }
    told(
        &mut gate,
        &reply(0, "www.example.com", &[("www.example.com", WEB, 300)]),
    );
    assert!(!may_connect(&mut gate, WEB), "the oldest was given up");
    told(
        &mut gate,
        &reply(1, "www.example.com", &[("www.example.com", WEB, 300)]),
    );
    assert!(may_connect(&mut gate, WEB));
    gate.wait(200);
    assert_eq!(gate.engine.held_bytes(), 0);
}

#[test]
fn a_short_ttl_has_a_floor_and_open_flows_outlive_it() {
    let mut gate = gate();
    look_up(&mut gate, "www.example.com", &[("www.example.com", WEB, 1)]);
    gate.wait(59);
    let mut conn = Conn::egress("192.0.2.7:443");
    conn.open(&mut gate);
    assert!(conn.send(&mut gate, b"hello")[0].by_kernel);
    gate.wait(1);
    assert!(!may_connect(&mut gate, WEB), "expired");
    assert_eq!(gate.set_policy(&policy()), [], "nothing is cut");
    assert!(conn.send(&mut gate, b"more")[0].by_kernel);
    let without = policy().replace("*.example.com", "*.example.org");
    assert!(
        !gate.set_policy(&without).is_empty(),
        "but what is forbidden is"
    );
}

#[test]
fn a_flow_that_begins_under_another_policy_is_watched_from_the_change_on() {
    let open = egress("  - {name: all, action: Allow}");
    let mut gate = gate_of(&open, Limits::default());
    ask(&mut gate, &query(1, "www.example.com"));
    let out = datagram(&mut gate, RESOLVER, STUB, Inbound, &reply(1, "x.test", &[]));
    assert!(out[0].by_kernel);
    gate.set_policy(&policy());
    look_up(
        &mut gate,
        "www.example.com",
        &[("www.example.com", WEB, 300)],
    );
    assert!(may_connect(&mut gate, WEB));
    gate.set_policy(&open);
    ask(&mut gate, &query(1, "www.example.com"));
    let out = datagram(&mut gate, RESOLVER, STUB, Inbound, &reply(1, "x.test", &[]));
    assert!(out[0].by_kernel, "nothing to learn any more");
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn dns_over_tcp(gate: &mut Gate) -> Conn {
    let mut conn = Conn::egress(RESOLVER);
    conn.open(gate);
    conn
}

#[test]
fn tcp_is_read_as_well_however_it_is_cut() {
    let name = "www.example.com";
    for size in [1, 2, 3, 20, 500] {
        let mut gate = gate();
        let mut conn = dns_over_tcp(&mut gate);
        for piece in framed(&query(7, name)).chunks(size) {
            assert_eq!(conn.send(&mut gate, piece)[0].payload, piece);
        }
        let answers = [
            framed(&reply(8, name, &[(name, "192.0.2.8", 300)])),
            framed(&reply(7, name, &[(name, WEB, 300)])),
        ];
        for piece in answers.concat().chunks(size) {
            assert_eq!(conn.answer(&mut gate, piece)[0].payload, piece);
        }
        assert!(may_connect(&mut gate, WEB), "pieces of {size}");
        assert!(!may_connect(&mut gate, "192.0.2.8"));
    }
}

#[test]
fn a_tcp_segment_that_comes_too_early_comes_again() {
    let mut gate = gate();
    let name = "www.example.com";
    let mut conn = dns_over_tcp(&mut gate);
    conn.send(&mut gate, &framed(&query(7, name)));
    let answer = framed(&reply(7, name, &[(name, WEB, 300)]));
    let (first, second) = answer.split_at(10);
    let start = conn.server_seq;
    conn.server_seq += 10;
    assert_eq!(conn.answer(&mut gate, second), []);
    assert_eq!(gate.engine.counters().dns_out_of_order, 1);
    conn.server_seq = start;
    assert_eq!(conn.answer(&mut gate, first).len(), 1);
    conn.server_seq = start;
    assert_eq!(
        conn.answer(&mut gate, &answer).len(),
        1,
        "with the old part"
    );
    assert!(may_connect(&mut gate, WEB));
}

#[test]
fn what_is_no_dns_is_left_to_the_kernel() {
    let mut gate = gate();
    let mut conn = dns_over_tcp(&mut gate);
    assert_eq!(conn.send(&mut gate, b"\0\x03abc").len(), 1);
    assert!(conn.send(&mut gate, b"anything")[0].by_kernel);
    assert!(conn.answer(&mut gate, b"anything")[0].by_kernel);
    assert_eq!(gate.engine.held_bytes(), 0);
}

#[test]
fn held_bytes_are_bounded() {
    // One endpoint gets half.
    let limits = Limits {
        held_bytes: 2000,
        ..Limits::default()
    };
    let mut gate = gate_of(&policy(), limits);
    let mut conn = dns_over_tcp(&mut gate);
    let long = [&[0xff, 0xff][..], &[0; 900]].concat();
    assert_eq!(conn.send(&mut gate, &long).len(), 1);
    assert_eq!(gate.engine.held_bytes(), 902);
    assert_eq!(conn.send(&mut gate, &[0; 100]).len(), 1);
    assert_eq!(gate.engine.counters().dns_held_full, 1);
    assert_eq!(gate.engine.held_bytes(), 0);
    assert!(conn.send(&mut gate, b"more")[0].by_kernel);
}

#[test]
fn a_retransmitted_syn_and_the_end_go_through() {
    let mut gate = gate();
    let mut conn = Conn::egress(RESOLVER);
    assert_eq!(conn.syn(&mut gate).len(), 1);
    conn.open(&mut gate);
    assert_eq!(conn.fin(&mut gate, true).len(), 1);
    assert_eq!(conn.fin(&mut gate, false).len(), 1);
    gate.wait(3);
    assert_eq!(gate.engine.flow_count(), 0);
}
