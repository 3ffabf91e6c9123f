//! Flows from first packet to last: TLS, other protocols, policy changes, limits, ends.

// Test support outside of test functions.
#![allow(clippy::unwrap_used)]

mod sim;

use std::net::SocketAddr;

use sim::{Conn, Gate, POD, SERVER, client_hello, delivered, egress, fragments, link, usual};
use tollgate_engine::event::{EventKind, L7Facts};
use tollgate_engine::limits::Limits;
use tollgate_wire::build;
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const TLS: &str = "192.0.2.1:443";

fn opened(yaml: &str, server: &str) -> (Gate, Conn) {
    let mut gate = Gate::new(yaml);
    let mut conn = Conn::egress(server);
    conn.open(&mut gate);
    (gate, conn)
}

#[test]
fn tls_leaves_the_engine_after_its_hello() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    let hello = client_hello("www.Example.com", 0);
    assert_eq!(conn.send(&mut gate, &hello)[0].payload, hello);
    assert!(conn.answer(&mut gate, b"server hello")[0].by_kernel);
    assert!(!conn.send(&mut gate, FINISHED)[0].by_kernel);
    assert!(conn.send(&mut gate, b"application data")[0].by_kernel);
    let facts = gate.verdicts().last().unwrap().l7.clone();
    let Some(L7Facts::Tls { sni, version, .. }) = facts else {
        panic!("{facts:?}")
    };
    assert_eq!(sni.as_deref(), Some("www.example.com"));
    assert_eq!(version, Some(0x0304));
}

/// `change_cipher_spec` and the start of an encrypted record: no second hello can come.
const FINISHED: &[u8] = &[20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 1, 2];

#[test]
fn the_second_hello_after_a_retry_request_is_judged_too() {
    for (name, allowed) in [("www.example.com", true), ("evil.example.net", false)] {
        let (mut gate, mut conn) = opened(&usual(), TLS);
        conn.send(&mut gate, &client_hello("www.example.com", 0));
        conn.answer(&mut gate, b"hello retry request");
        let second = [&[20, 3, 3, 0, 1, 1][..], &client_hello(name, 0)].concat();
        let out = conn.send(&mut gate, &second);
        let sent: Vec<u8> = out
            .iter()
            .filter(|o| o.to == Outbound)
            .flat_map(|o| o.payload.clone())
            .collect();
        assert_eq!(sent == second, allowed, "{name}");
        assert_eq!(gate.denials().is_empty(), allowed, "{name}");
        if allowed {
            assert!(conn.send(&mut gate, b"anything")[0].by_kernel);
        }
    }
}

#[test]
fn a_client_may_give_up_behind_its_hello() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    conn.send(&mut gate, &client_hello("www.example.com", 0));
    assert_eq!(conn.fin(&mut gate, true).len(), 1);
    assert!(gate.denials().is_empty());
}

#[test]
fn an_old_number_after_the_end_opens_a_new_connection() {
    const GOOD: &[u8] = b"GET /v2/ab HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    const EVIL: &[u8] = b"GET /admin HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let (mut gate, mut conn) = opened(&usual(), SERVER);
    let first = conn.client_seq.wrapping_sub(1);
    conn.send(&mut gate, GOOD);
    conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\n\r\n");
    let flags = TcpFlags::RST | TcpFlags::ACK;
    let frame = conn.frame(true, flags, conn.client_seq, conn.server_seq, b"");
    gate.arrives(conn.direction, &frame);
    conn.client_seq = first;
    conn.open(&mut gate);
    let out = conn.send(&mut gate, EVIL);
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(gate.denials().len(), 1);
}

#[test]
fn a_hello_in_many_segments_is_put_together() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    let hello = client_hello("www.example.com", 4000);
    let mut got = 0;
    for piece in hello.chunks(1400) {
        got += conn.send(&mut gate, piece)[0].payload.len();
    }
    assert_eq!(got, hello.len());
    conn.send(&mut gate, FINISHED);
    assert!(conn.send(&mut gate, b"more")[0].by_kernel);
}

#[test]
fn a_denied_name_gets_an_alert() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    let out = conn.send(&mut gate, &client_hello("www.example.org", 0));
    assert_eq!(out[0].payload, [21, 3, 3, 0, 2, 2, 49]);
    assert!(out[0].header.unwrap().flags.fin() && out[0].to == Inbound);
    assert!(out[1].is_rst() && out[1].to == Outbound);
    assert_eq!(gate.denials()[0].reason, "tls-sni-no-rule-matches");
}

#[test]
fn a_judged_hello_cannot_be_replaced_by_a_retransmission() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    let start = conn.client_seq;
    conn.send(&mut gate, &client_hello("www.example.com", 0));
    let out = conn.send_at(&mut gate, start, &client_hello("www.example.org", 0));
    assert_eq!(out, []);
}

#[test]
fn other_protocols_are_reset_on_both_sides() {
    let (mut gate, mut conn) = opened(&usual(), SERVER);
    let out = conn.send(&mut gate, b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(
        out.iter().map(|o| (o.to, o.is_rst())).collect::<Vec<_>>(),
        [(Inbound, true), (Outbound, true)]
    );
}

#[test]
fn reject_answers_a_syn_and_drop_does_not() {
    let mut gate = Gate::new(&usual());
    let out = Conn::egress("192.0.2.1:22").syn(&mut gate);
    let header = out[0].header.unwrap();
    assert!(out[0].is_rst() && out[0].to == Inbound && out.len() == 1);
    assert_eq!(header.ack, 0xffff_ff01);
    assert_eq!(Conn::egress("192.0.2.1:9").syn(&mut gate), []);
    assert_eq!(gate.denials().len(), 2);
}

fn datagram(from: &str, to: &str, direction: tollgate_wire::tag::Direction) -> Vec<u8> {
    let (src, dst): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut frame = Vec::new();
    let datagram = build::Datagram {
        src,
        dst,
        payload: b"datagram",
        hop_limit: 64,
    };
    build::udp(&mut frame, &link(direction), &datagram).unwrap();
    frame
}

#[test]
fn udp_is_decided_once_answered_by_icmp_or_dropped() {
    let mut gate = Gate::new(&usual());
    let ask = datagram(POD, "192.0.2.1:53", Outbound);
    assert_eq!(gate.arrives(Outbound, &ask).len(), 1);
    let reply = datagram("192.0.2.1:53", POD, Inbound);
    assert!(gate.arrives(Inbound, &reply)[0].by_kernel);
    let refused = gate.arrives(Outbound, &datagram(POD, "192.0.2.1:123", Outbound));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].to, Inbound);
    assert_eq!(
        gate.arrives(Outbound, &datagram(POD, "192.0.2.1:9", Outbound)),
        []
    );
    gate.wait(200);
    assert_eq!(gate.engine.flow_count(), 0, "silent flows are forgotten");
    assert!(gate.kernel.flows.is_empty());
}

#[test]
fn ipv6_is_judged_like_ipv4() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress("[2001:db8::1]:80");
    conn.client = "[fd00::2]:40000".parse().unwrap();
    conn.open(&mut gate);
    let out = conn.send(
        &mut gate,
        b"GET /v1 HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    );
    assert!(delivered(&out, Inbound).starts_with("HTTP/1.1 403"));
    assert!(out[1].is_rst());
}

#[test]
fn a_connection_from_before_is_reset_unless_no_l7_fact_is_needed() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    let out = conn.send(&mut gate, b"GET /v2/x HTTP/1.1\r\n");
    assert_eq!(out.len(), 2);
    assert!(out.iter().all(sim::Out::is_rst));
    assert_eq!(gate.denials()[0].reason, "state-gone");

    let l4 = egress("  - {name: all, action: Allow, ports: [{port: 80}]}");
    let mut gate = Gate::new(&l4);
    let out = conn.send(&mut gate, b"anything");
    assert_eq!(out.len(), 1);
    assert_eq!(delivered(&out, Outbound), "anything");
}

#[test]
fn a_new_policy_cuts_what_it_forbids_by_the_recorded_facts() {
    let narrow = egress(
        "  - name: l7
    action: Allow
    ports: [{port: 443}]
    l7Protocols: [{tls: {sni: api.example.com}}]
  - {name: rest, action: Reject}",
    );
    for (name, survives) in [("api.example.com", true), ("www.example.com", false)] {
        let (mut gate, mut conn) = opened(&usual(), TLS);
        conn.send(&mut gate, &client_hello(name, 0));
        conn.answer(&mut gate, b"data");
        conn.send(&mut gate, FINISHED);
        let out = gate.set_policy(&narrow);
        assert_eq!(
            out.iter().filter(|o| o.is_rst()).count(),
            if survives { 0 } else { 2 }
        );
        if !survives {
            let to = |to| out.iter().find(|o| o.to == to).unwrap().header.unwrap().seq;
            assert_eq!(to(Inbound), conn.server_seq, "exactly what the pod expects");
        }
        let out = conn.send(&mut gate, b"more");
        assert_eq!(
            delivered(&out, Outbound),
            if survives { "more" } else { "" }
        );
    }
}

#[test]
fn flows_end_and_are_forgotten() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    conn.send(&mut gate, &client_hello("www.example.com", 0));
    conn.fin(&mut gate, false);
    conn.fin(&mut gate, true);
    let ack = conn.frame(false, TcpFlags::ACK, conn.server_seq, conn.client_seq, b"");
    assert_eq!(
        gate.arrives(Inbound, &ack).len(),
        1,
        "the last ACK still finds its flow"
    );
    gate.wait(3);
    assert_eq!(gate.engine.flow_count(), 0);
    assert!(gate.kernel.flows.is_empty());
    let closed = gate
        .kernel
        .events
        .iter()
        .filter(|e| matches!(e.kind, EventKind::Closed { .. }));
    assert_eq!(closed.count(), 1);
}

#[test]
fn the_same_ports_may_be_used_again_at_once() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    conn.send(&mut gate, &client_hello("www.example.com", 0));
    conn.fin(&mut gate, false);
    conn.fin(&mut gate, true);
    let mut again = Conn::egress(TLS);
    again.client_seq = 12;
    again.open(&mut gate);
    let out = again.send(&mut gate, &client_hello("www.example.org", 0));
    assert_eq!(
        out[0].payload[0], 21,
        "the new connection is judged for itself"
    );
}

#[test]
fn ingress_flows_are_judged_on_what_the_remote_client_sends() {
    let yaml = format!(
        "{}
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {{name: in}}
spec:
  priority: 1
  appliedTo: [{{podSelector: {{}}}}]
  ingress:
  - name: l7
    action: Allow
    l7Protocols: [{{http: {{path: /public/*}}}}]
",
        sim::ENDPOINT
    );
    let mut gate = Gate::new(&yaml);
    let mut conn = Conn::ingress("192.0.2.7:5555", 8080);
    conn.open(&mut gate);
    let good = b"GET /public/x HTTP/1.1\r\nHost: web\r\n\r\n";
    assert_eq!(
        delivered(&conn.send(&mut gate, good), Inbound).as_bytes(),
        good
    );
    conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let out = conn.send(&mut gate, b"GET /private HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(delivered(&out, Outbound).starts_with("HTTP/1.1 403"));
    assert_eq!(delivered(&out, Inbound), "");
}

#[test]
fn a_full_flow_table_drops_new_flows_and_keeps_old_ones() {
    let limits = Limits {
        flows: 10,
        flows_per_endpoint: 5,
        ..Limits::default()
    };
    let mut gate = Gate::with_limits(&usual(), limits);
    let mut conns = Vec::new();
    for port in 0..8u16 {
        let mut conn = Conn::egress(SERVER);
        conn.client.set_port(40_000 + port);
        if port < 5 {
            conn.open(&mut gate);
            conns.push(conn);
        } else {
            assert_eq!(conn.syn(&mut gate), []);
        }
    }
    assert_eq!(gate.engine.counters().endpoint_flows_full, 3);
    let request = b"GET /v2/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let out = conns[0].send(&mut gate, request);
    assert_eq!(delivered(&out, Outbound).as_bytes(), request);
}

#[test]
fn held_segments_are_bounded() {
    let limits = Limits {
        held_bytes_per_flow: 10_000,
        ..Limits::default()
    };
    let mut gate = Gate::with_limits(&usual(), limits);
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    for i in 1..100u32 {
        conn.send_at(
            &mut gate,
            conn.client_seq.wrapping_add(i * 1000),
            &[b'a'; 1000],
        );
    }
    assert!(gate.engine.held_bytes() <= 10_000);
    assert!(gate.engine.counters().held_full > 80);
}

#[test]
fn fragments_share_the_fate_of_the_first() {
    let mut gate = Gate::new(&usual());
    let [first, second] = fragments(&datagram(POD, "192.0.2.1:53", Outbound));
    gate.engine.handle(gate.now, &second, &mut gate.kernel);
    assert_eq!(
        gate.kernel.out.len(),
        0,
        "before the first nothing is known"
    );
    gate.engine.handle(gate.now, &first, &mut gate.kernel);
    gate.engine.handle(gate.now, &second, &mut gate.kernel);
    assert_eq!(gate.kernel.out.len(), 2);
    gate.kernel.out.clear();
    let [first, second] = fragments(&datagram(POD, "192.0.2.1:9", Outbound));
    gate.engine.handle(gate.now, &first, &mut gate.kernel);
    gate.engine.handle(gate.now, &second, &mut gate.kernel);
    assert_eq!(gate.kernel.out.len(), 0, "denied, both");
}

#[test]
fn a_policy_that_needs_no_l7_any_more_lets_a_handshake_go_on() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.syn(&mut gate);
    conn.client_seq = conn.client_seq.wrapping_add(1);
    gate.set_policy(&egress("  - {name: all, action: Allow}"));
    let flags = TcpFlags::SYN | TcpFlags::ACK;
    let frame = conn.frame(false, flags, conn.server_seq, conn.client_seq, b"");
    assert_eq!(gate.arrives(Inbound, &frame).len(), 1);
    conn.server_seq += 1;
    assert_eq!(
        delivered(&conn.send(&mut gate, b"anything"), Outbound),
        "anything"
    );
}

#[test]
fn denied_flows_are_soon_forgotten() {
    let (mut gate, mut conn) = opened(&usual(), TLS);
    conn.send(&mut gate, &client_hello("www.example.org", 0));
    gate.wait(12);
    assert_eq!(gate.engine.flow_count(), 0);
}
