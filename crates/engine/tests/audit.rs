//! Under policies in audit mode only, nothing that a flow does is held up for good, changed or refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod sim;

use proptest::prelude::*;
use sim::{Conn, Gate, Out, SERVER, client_hello, delivered, set_urgent_pointer, usual};
use tollgate_engine::event::VerdictWord;
use tollgate_engine::limits::Limits;
use tollgate_wire::build::{self, Datagram};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn audited() -> String {
    let quic = "\n  - name: l7-quic
    action: Allow
    ports: [{protocol: UDP, port: 443}]
    l7Protocols: [{tls: {sni: '*.example.com'}}]
  - name: dns";
    usual()
        .replacen("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1", 1)
        .replacen(
            "\nspec:\n  priority",
            "\nspec:\n  enforcement: audit\n  priority",
            1,
        )
        .replacen("\n  - name: dns", quic, 1)
}

fn opened() -> (Gate, Conn) {
    with_limits(Limits::default())
}

fn with_limits(limits: Limits) -> (Gate, Conn) {
    let mut gate = Gate::with_limits(&audited(), limits);
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    (gate, conn)
}

fn last(gate: &Gate) -> (VerdictWord, &'static str) {
    let verdict = gate.verdicts().last().unwrap();
    (verdict.word, verdict.reason)
}

#[test]
fn a_connection_may_end_in_the_middle_of_a_head() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, b"GET /v1/x HTTP/1.1\r\nHost");
    let out = conn.fin(&mut gate, true);
    assert_eq!(out.len(), 1);
    assert!(out[0].header.unwrap().flags.fin());
    assert_eq!(last(&gate), (VerdictWord::Audited, "head-incomplete"));
    assert!(conn.answer(&mut gate, b"HTTP/1.1 400 Bad\r\n\r\n")[0].by_kernel);
    assert_eq!(conn.fin(&mut gate, false).len(), 1);
    gate.wait(5);
    assert_eq!(gate.engine.flow_count(), 0);
}

#[test]
fn what_is_forgotten_in_a_head_is_left_alone() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, b"GET /v1/x HTTP/1.1\r\nHost");
    gate.kernel.out.clear();
    gate.wait(4000);
    assert_eq!((gate.engine.flow_count(), gate.kernel.out.len()), (0, 0));
}

#[test]
fn urgent_data_goes_on_as_it_is() {
    let (mut gate, conn) = opened();
    let flags = TcpFlags::ACK | TcpFlags::URG;
    let mut frame = conn.frame(true, flags, conn.client_seq, conn.server_seq, BAD);
    set_urgent_pointer(&mut frame, 5);
    gate.engine.handle(gate.now, &frame, &mut gate.kernel);
    assert_eq!(gate.kernel.out, [frame]);
}

/// What cannot be compared any more, or is not the same, passes: nothing depends on it.
#[test]
fn other_bytes_for_the_same_place_pass() {
    let (mut gate, mut conn) = opened();
    let start = conn.client_seq;
    conn.send(&mut gate, GOOD);
    let out = conn.send_at(&mut gate, start, BAD);
    assert_eq!(delivered(&out, Outbound).as_bytes(), BAD);
    assert_eq!(gate.engine.counters().audit_unread, 1);
    assert!(
        conn.send(&mut gate, BAD)[0].by_kernel,
        "unread from here on"
    );
}

#[test]
fn where_there_is_no_room_to_read_everything_passes() {
    for limits in [
        Limits {
            judged_bytes: 0,
            ..Limits::default()
        },
        Limits {
            kept_bytes_per_flow: 0,
            ..Limits::default()
        },
        Limits {
            held_bytes: 0,
            ..Limits::default()
        },
    ] {
        let (mut gate, mut conn) = with_limits(limits);
        let start = conn.client_seq;
        let early = conn.send_at(&mut gate, start.wrapping_add(9), &GOOD[9..]);
        let mut all = early;
        for _ in 0..3 {
            all.extend(conn.send(&mut gate, GOOD));
        }
        assert_eq!(conn.client_seq, start.wrapping_add(3 * GOOD.len() as u32));
        let bytes: usize = all.iter().map(|out| out.payload.len()).sum();
        assert!(bytes >= 4 * GOOD.len() - 9, "{all:?}");
        assert!(gate.engine.counters().audit_unread > 0);
    }
}

#[test]
fn segments_that_came_too_early_are_not_lost_with_the_room_for_them() {
    let held = 2 * (GOOD.len() + 12 + 18 + 40);
    let (mut gate, mut conn) = with_limits(Limits {
        held_bytes_per_flow: held,
        ..Limits::default()
    });
    let at = |n: usize| conn.client_seq.wrapping_add((n * GOOD.len()) as u32);
    let early = [at(1), at(2), at(3)];
    let out: Vec<Out> = early
        .iter()
        .flat_map(|seq| conn.send_at(&mut gate, *seq, GOOD))
        .collect();
    let seqs: Vec<u32> = out.iter().map(|out| out.header.unwrap().seq).collect();
    assert_eq!(seqs, early);
    assert_eq!(gate.engine.held_bytes(), 0);
}

#[test]
fn an_answer_that_cannot_be_read_is_the_servers_affair() {
    for answer in [&b"ICY 200 OK\r\n\r\n"[..], b"HTTP/1.1 200 OK\nX: y\n\n"] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, ASK);
        let out = conn.answer(&mut gate, answer);
        assert_eq!(delivered(&out, Inbound).as_bytes(), answer);
        assert_eq!(last(&gate).0, VerdictWord::Audited);
        assert!(conn.send(&mut gate, BAD)[0].by_kernel);
    }
    // Out of order.
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, ASK);
    conn.server_seq = conn.server_seq.wrapping_add(10);
    assert_eq!(conn.answer(&mut gate, b"later").len(), 1);
}

#[test]
fn what_went_by_unread_is_cut_once_the_policy_is_enforced() {
    for full in [false, true] {
        let (mut gate, mut conn) = opened();
        gate.kernel.full = full;
        conn.send(&mut gate, GOOD);
        conn.send(&mut gate, b"\0\r\n\r\n");
        assert_eq!(conn.send(&mut gate, BAD).len(), 1);
        let out = gate.set_policy(&usual());
        assert!(out.iter().all(Out::is_rst) && out.len() == 2, "{out:?}");
        assert_eq!(gate.denials()[0].reason, "l7-facts-unknown");
    }
}

#[test]
fn datagrams_pass_whatever_they_are() {
    let (pod, server) = (sim::POD.parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    let mut gate = Gate::with_limits(&audited(), Limits::default());
    let mut frames = Vec::new();
    for payload in [
        &[0x40; 30][..],
        &[0xff; 1200],
        b"",
        &[0xd0; 1200],
        &[1; 2000],
    ] {
        let datagram = Datagram {
            src: pod,
            dst: server,
            payload,
            hop_limit: 64,
        };
        let mut frame = Vec::new();
        build::udp(&mut frame, &sim::link(Outbound), &datagram).unwrap();
        frames.push(frame);
    }
    frames.extend(sim::fragments(&frames[4]));
    for (at, frame) in frames.iter().enumerate() {
        assert_eq!(gate.arrives(Outbound, frame).len(), 1, "{at}");
    }
    assert!(gate.denials().is_empty());
}

proptest! {
    /// Whatever comes in any order: every byte goes out, none is changed, nobody is reset.
    #[test]
    fn every_byte_goes_out(
        steps in prop::collection::vec((any::<bool>(), 0usize..300, 0usize..120, 0u8..6), 1..40),
        hello in any::<bool>(),
    ) {
        let stream = match hello {
            true => client_hello("evil.example.net", 500),
            false => [GOOD, BAD, ASK, b"\x81\x05hello", BAD].concat(),
        };
        let (mut gate, conn) = opened();
        let mut came = std::collections::BTreeSet::new();
        let mut went = std::collections::BTreeSet::new();
        let mut out = Vec::new();
        // The gap in front is filled last, so that nothing need be held in the end.
        for (from_client, start, len, kind) in steps.into_iter().chain([(true, 0, 600, 0)]) {
            let end = (start + len).min(stream.len());
            let payload = stream.get(start..end).unwrap_or_default();
            let flags = match kind {
                0..=3 => TcpFlags::ACK,
                4 => TcpFlags::ACK | TcpFlags::FIN,
                _ => TcpFlags::ACK | TcpFlags::URG,
            };
            let offset = start as u32;
            let frame = match from_client {
                true => conn.frame(true, flags, conn.client_seq.wrapping_add(offset), conn.server_seq, payload),
                false => conn.frame(false, flags, conn.server_seq.wrapping_add(offset), conn.client_seq, payload),
            };
            if from_client {
                came.extend(start..start + payload.len());
            }
            let direction = if from_client { Outbound } else { Inbound };
            out.extend(gate.arrives(direction, &frame));
        }
        for segment in out {
            let header = segment.header.unwrap();
            prop_assert!(!header.flags.rst());
            if segment.to == Outbound {
                let start = header.seq.wrapping_sub(conn.client_seq) as usize;
                prop_assert_eq!(&segment.payload[..], stream.get(start..start + segment.payload.len()).unwrap_or_default());
                went.extend(start..start + segment.payload.len());
            }
        }
        prop_assert!(gate.denials().is_empty());
        prop_assert_eq!(came, went);
    }
}
