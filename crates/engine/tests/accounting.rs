//! What is counted as held is what is held, whatever happens to the flows, and nothing remains counted
//! when they are gone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod sim;

#[path = "../../l7/tests/l7/quic_build.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod quic_build;

use proptest::prelude::*;
use quic_build::{Initial, crypto};
use sim::{Conn, Gate, client_hello, link, usual};
use tollgate_engine::limits::Limits;
use tollgate_wire::build::{self, Datagram};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};
use tollgate_wire::tag::EndpointId;

const GET: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// The usual rules and QUIC; under audit or not.
fn rules(audit: bool) -> String {
    let quic = "\n  - name: l7-quic
    action: Allow
    ports: [{protocol: UDP, port: 443}]
    l7Protocols: [{tls: {sni: '*.example.com'}}]
  - name: dns";
    let rules = usual().replacen("\n  - name: dns", quic, 1);
    if !audit {
        return rules;
    }
    rules
        .replacen("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1", 1)
        .replacen(
            "\nspec:\n  priority",
            "\nspec:\n  enforcement: audit\n  priority",
            1,
        )
}

/// HTTP/2 up to a request that is denied, whose last word waits.
fn http2() -> Vec<u8> {
    let block = b"\x82\x86\x84\x41\x0fapi.example.com";
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    all.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    all.extend(block);
    all
}

fn datagram(port: u16, payload: &[u8], outbound: bool) -> Vec<u8> {
    let pod = std::net::SocketAddr::new("10.1.0.2".parse().unwrap(), port);
    let server = "192.0.2.1:443".parse().unwrap();
    let (src, dst, direction) = match outbound {
        true => (pod, server, Outbound),
        false => (server, pod, Inbound),
    };
    let datagram = Datagram {
        src,
        dst,
        payload,
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    build::udp(&mut frame, &link(direction), &datagram).unwrap();
    frame
}

#[derive(Clone, Debug)]
enum Step {
    /// Port, offset, what, flags, from the client.
    Tcp(u16, i32, usize, u8, bool),
    /// Port, connection, what.
    Udp(u16, u8, usize),
    Wait(u64),
    Policy(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![0x10u8, 0x10, 0x10, 0x11, 0x02, 0x12, 0x14, 0x30]);
    let step = prop_oneof![
        8 => (0u16..4, prop_oneof![4 => Just(0), 1 => -100i32..200], 0usize..9, flags, prop::bool::weighted(0.7))
            .prop_map(|(port, shift, what, flags, client)| Step::Tcp(port, shift, what, flags, client)),
        3 => (0u16..2, 0u8..8, 0usize..6).prop_map(|(port, id, what)| Step::Udp(port, id, what)),
        1 => (0u64..30).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Policy),
    ];
    prop::collection::vec(step, 1..60)
}

fn stream_piece(what: usize) -> Vec<u8> {
    match what {
        0 => Vec::new(),
        1 => GET.to_vec(),
        2 => BAD.to_vec(),
        3 => GET[..20].to_vec(),
        4 => ASK.to_vec(),
        5 => client_hello("www.example.com", 3000),
        6 => SWITCHED.to_vec(),
        7 => http2(),
        _ => b"EHLO pod\r\n".to_vec(),
    }
}

fn udp_piece(id: u8, what: usize) -> Vec<u8> {
    let name = if what == 1 {
        "evil.example.net"
    } else {
        "www.example.com"
    };
    let hello = client_hello(name, 0)[5..].to_vec();
    match what {
        0 | 1 => Initial::new(&crypto(0, &hello)).of(&[id; 8]).seal(),
        2 => Initial::new(&crypto(0, &hello[..50])).of(&[id; 8]).seal(),
        3 => Initial::new(&crypto(50, &hello[50..]))
            .number(1)
            .of(&[id; 8])
            .seal(),
        4 => vec![0x40; 60],
        _ => vec![0xff; 1200],
    }
}

fn check(gate: &mut Gate) {
    let counted = gate.engine.counted_anew();
    let kept = (gate.engine.judged_bytes(), gate.engine.held_bytes());
    assert_eq!(kept, counted, "what is counted and what there is");
    let endpoint = EndpointId::new(1).unwrap();
    assert_eq!(gate.engine.judged_bytes_of(endpoint), counted.0);
}

/// What one endpoint sends out of order leaves room for the others.
#[test]
fn one_endpoint_has_half_of_what_is_held_back() {
    let limits = Limits {
        held_bytes: 20_000,
        ..Limits::default()
    };
    let mut gate = Gate::with_limits(&rules(false), limits);
    for port in 40_000..40_010 {
        let mut conn = Conn::egress(sim::SERVER);
        conn.client.set_port(port);
        conn.open(&mut gate);
        for at in 1..10 {
            conn.send_at(
                &mut gate,
                conn.client_seq.wrapping_add(at * 1000),
                &[b'x'; 1000],
            );
        }
    }
    assert!((8_000..=10_000).contains(&gate.engine.held_bytes()));
    assert!(gate.engine.counters().held_full > 0);
    check(&mut gate);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_byte_that_is_held_is_counted_once(steps in steps(), tight in any::<bool>()) {
        let limits = match tight {
            true => Limits {
                flows: 4, flows_per_endpoint: 4, held_bytes_per_flow: 2000, held_bytes: 3000,
                kept_bytes_per_flow: 3000, judged_bytes_per_endpoint: 200_000, ..Limits::default()
            },
            false => Limits::default(),
        };
        let policies = [false, true].map(rules);
        let mut gate = Gate::with_limits(&policies[0], limits);
        let mut conns: Vec<Conn> = (0..4)
            .map(|port| {
                let mut conn = Conn::egress(if port == 3 { "192.0.2.1:443" } else { sim::SERVER });
                conn.client.set_port(40_000 + port);
                conn.open(&mut gate);
                conn
            })
            .collect();
        for step in steps {
            match step {
                Step::Tcp(port, shift, what, flags, from_client) => {
                    let conn = &mut conns[usize::from(port)];
                    let payload = stream_piece(what);
                    let (seq, ack) = match from_client {
                        true => (conn.client_seq, conn.server_seq),
                        false => (conn.server_seq, conn.client_seq),
                    };
                    let seq = seq.wrapping_add_signed(shift);
                    let frame = conn.frame(from_client, TcpFlags(flags), seq, ack, &payload);
                    if shift == 0 {
                        let next = seq.wrapping_add(payload.len() as u32);
                        match from_client {
                            true => conn.client_seq = next,
                            false => conn.server_seq = next,
                        }
                    }
                    gate.arrives(if from_client { Outbound } else { Inbound }, &frame);
                }
                Step::Udp(port, id, what) => {
                    let frame = datagram(50_000 + port, &udp_piece(id + 1, what), true);
                    gate.arrives(Outbound, &frame);
                }
                Step::Wait(seconds) => gate.wait(seconds),
                Step::Policy(audit) => {
                    gate.set_policy(&policies[usize::from(audit)]);
                }
            }
            check(&mut gate);
        }
        gate.wait(4000);
        check(&mut gate);
        prop_assert_eq!((gate.engine.judged_bytes(), gate.engine.held_bytes()), (0, 0));
        prop_assert_eq!(gate.engine.flow_count(), 0);
        prop_assert!(gate.kernel.flows.is_empty());
    }
}
