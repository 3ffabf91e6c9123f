//! QUIC under a rule set: what reaches the server, and what stays in the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod sim;

#[path = "../../l7/tests/l7/quic_build.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod quic_build;

use quic_build::{Initial, crypto};
use sim::{Gate, Out, client_hello, egress, link};
use tollgate_engine::event::{Carrier, L7Facts, VerdictWord};
use tollgate_wire::build::{self, Datagram};
use tollgate_wire::tag::Direction::{self, Inbound, Outbound};

/// First byte of a packet of an open connection.
const SHORT: u8 = 0x40;

fn rules() -> String {
    egress(
        "  - name: l7
    action: Allow
    ports: [{protocol: UDP, port: 443}]
    l7Protocols: [{tls: {sni: '*.example.com'}}]
  - {name: rest, action: Reject}",
    )
}

fn datagram(direction: Direction, payload: &[u8]) -> Vec<u8> {
    let (pod, server) = (sim::POD.parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    let (src, dst) = match direction {
        Outbound => (pod, server),
        Inbound => (server, pod),
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

fn send(gate: &mut Gate, payload: &[u8]) -> Vec<Out> {
    gate.arrives(Outbound, &datagram(Outbound, payload))
}

/// The handshake message without its record.
fn hello(name: &str) -> Vec<u8> {
    client_hello(name, 0)[5..].to_vec()
}

fn initial(name: &str) -> Initial {
    Initial::new(&crypto(0, &hello(name)))
}

fn reached(out: &[Out], payload: &[u8]) -> bool {
    out.iter().any(|o| o.to == Outbound && o.payload == payload)
}

#[test]
fn an_allowed_connection_goes_on_in_the_kernel() {
    let mut gate = Gate::new(&rules());
    let first = initial("www.example.com").seal();
    let out = send(&mut gate, &first);
    assert!(reached(&out, &first));
    let answer = gate.arrives(Inbound, &datagram(Inbound, &[0xc0; 1200]));
    assert!(answer[0].by_kernel);
    assert!(send(&mut gate, &[SHORT; 1200])[0].by_kernel);
    let verdict = gate.verdicts().last().unwrap();
    assert_eq!(verdict.word, VerdictWord::Allowed);
    let Some(L7Facts::Tls {
        sni, carrier, ja4, ..
    }) = &verdict.l7
    else {
        panic!("{verdict:?}")
    };
    assert_eq!(sni.as_deref(), Some("www.example.com"));
    assert_eq!(*carrier, Some(Carrier::Quic));
    assert!(ja4.as_deref().unwrap().starts_with('q'));
}

#[test]
fn a_forbidden_name_never_reaches_the_server() {
    let mut gate = Gate::new(&rules());
    let first = initial("evil.example.net").seal();
    for _ in 0..3 {
        let out = send(&mut gate, &first);
        assert!(!out.iter().any(|o| o.to == Outbound));
        assert_eq!(out[0].to, Inbound, "the client is told by ICMP");
    }
    assert_eq!(gate.denials().len(), 1);
    assert_eq!(gate.denials()[0].reason, "tls-sni-no-rule-matches");
}

#[test]
fn another_connection_of_the_same_socket_is_judged_too() {
    let mut gate = Gate::new(&rules());
    send(&mut gate, &initial("www.example.com").seal());
    let second = initial("evil.example.net").of(&[9; 8]).seal();
    assert!(!reached(&send(&mut gate, &second), &second));
    assert_eq!(gate.denials().len(), 1);
    assert!(
        send(&mut gate, &[SHORT; 100])[0].by_kernel,
        "the first goes on"
    );
    let third = initial("api.example.com").of(&[7; 8]).seal();
    assert!(reached(&send(&mut gate, &third), &third));
}

#[test]
fn a_hello_in_two_datagrams_is_judged_before_its_end_goes_on() {
    for (name, allowed) in [("www.example.com", true), ("evil.example.net", false)] {
        let mut gate = Gate::new(&rules());
        let hello = hello(name);
        let (a, b) = hello.split_at(50);
        let late = Initial::new(&crypto(50, b)).number(1).seal();
        let early = Initial::new(&crypto(0, a)).seal();
        assert!(
            reached(&send(&mut gate, &late), &late),
            "a part is no hello"
        );
        assert_eq!(reached(&send(&mut gate, &early), &early), allowed);
        assert_eq!(gate.denials().is_empty(), allowed);
    }
}

/// A socket whose first hellos were cut off can still open connections; what was cut off never arrives.
#[test]
fn half_a_hello_makes_room_and_is_never_completed() {
    let mut gate = Gate::new(&rules());
    let message = hello("evil.example.net");
    let (start, rest) = message.split_at(50);
    let part = |id: u8| Initial::new(&crypto(0, start)).of(&[id; 8]).seal();
    for id in 1..=5 {
        assert!(reached(&send(&mut gate, &part(id)), &part(id)), "{id}");
    }
    let late = Initial::new(&crypto(50, rest)).number(1).of(&[1; 8]);
    // To the server's own ID, as a client does that has heard from it.
    let mut moved = Initial::new(&crypto(50, rest)).number(1).of(&[1; 8]);
    moved.dcid = vec![0x99; 8];
    let good = initial("www.example.com").of(&[7; 8]).seal();
    assert!(reached(&send(&mut gate, &good), &good));
    for packet in [late.seal(), moved.seal()] {
        assert!(!reached(&send(&mut gate, &packet), &packet));
    }
    assert!(
        send(&mut gate, &[SHORT; 100])[0].by_kernel,
        "the good one goes on"
    );
}

#[test]
fn what_is_not_quic_is_refused_once() {
    let mut gate = Gate::new(&rules());
    for payload in [&b"hello"[..], &[SHORT; 40], &[0xff; 1200]] {
        let out = send(&mut gate, payload);
        assert!(!out.iter().any(|o| o.to == Outbound), "{payload:?}");
    }
    assert_eq!(gate.denials().len(), 1);
}

/// Where only QUIC is allowed, a datagram without payload is refused like any other.
#[test]
fn an_empty_datagram_is_no_quic() {
    let mut gate = Gate::new(&rules());
    assert!(!reached(&send(&mut gate, b""), b""));
    assert_eq!(gate.denials()[0].reason, "quic-malformed");
}

#[test]
fn early_data_waits_for_the_hello() {
    let mut gate = Gate::new(&rules());
    // A 0-RTT packet (type 1) of the connection, ahead of its Initial.
    let early = [
        &[0xd0, 0, 0, 0, 1, 8][..],
        &quic_build::DCID,
        &[3, 1, 2, 3, 0x40, 30],
        &[7; 30],
    ]
    .concat();
    assert!(send(&mut gate, &early).is_empty());
    assert!(gate.denials().is_empty());
    let first = initial("www.example.com").seal();
    let out = send(&mut gate, &first);
    assert!(reached(&out, &first) && reached(&out, &early));
}

/// Raw sockets let a pod choose where the kernel fills the checksum in: in the connection ID it would
/// make another packet of the one that was judged.
#[test]
fn a_checksum_in_the_payload_is_refused() {
    use tollgate_wire::vnet::{NEEDS_CSUM, VnetHdr};
    let packet = initial("www.example.com").seal();
    let udp_at = 18 + 20;
    for (csum_offset, arrives) in [(6, true), (8 + 6, false)] {
        let mut gate = Gate::new(&rules());
        let mut frame = datagram(Outbound, &packet);
        let header = VnetHdr {
            flags: NEEDS_CSUM,
            csum_start: udp_at,
            csum_offset,
            ..VnetHdr::default()
        };
        header.write(&mut frame).unwrap();
        // What stands in the field is the kernel's business; the simulated one looks at it.
        let sum = {
            use tollgate_wire::checksum::{fold, pseudo};
            let (pod, server) = ([10, 1, 0, 2].into(), [192, 0, 2, 1].into());
            fold(pseudo(pod, server, 17, packet.len() as u32 + 8))
        };
        let field = 12 + usize::from(udp_at) + 6;
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let out = gate.arrives(Outbound, &frame);
        assert_eq!(reached(&out, &packet), arrives, "{csum_offset}");
    }
}

/// The server waits for the rest of a hello for longer than a denial is remembered. A flow that was
/// denied with a part of one at the server does not begin anew meanwhile.
#[test]
fn half_a_hello_is_not_completed_after_a_denial_either() {
    let message = hello("evil.example.net");
    let (start, rest) = message.split_at(50);
    let begun = Initial::new(&crypto(0, start)).seal();
    let late = Initial::new(&crypto(50, rest)).number(1).seal();
    for changed in [false, true] {
        let mut gate = Gate::new(&rules());
        assert!(reached(&send(&mut gate, &begun), &begun));
        send(&mut gate, &[0xff; 1200]);
        assert_eq!(gate.denials().len(), 1);
        if changed {
            gate.set_policy(&rules());
        }
        gate.wait(60);
        assert!(!reached(&send(&mut gate, &late), &late));
        // A client that goes on trying is not denied for ever.
        for _ in 0..7 {
            send(&mut gate, &[0xff; 1200]);
            gate.wait(9);
        }
        let good = initial("www.example.com").seal();
        assert!(reached(&send(&mut gate, &good), &good));
    }
}
