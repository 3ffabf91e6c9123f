//! What the programs do with single frames.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use common::bench::{Bench, Fate, Talk, inbound, key, outbound, tagged};
use tollgate_datapath::bpf::Mechanism;
use tollgate_datapath::closed::Closed;
use tollgate_datapath::endpoints::{EndpointEntry, Endpoints};
use tollgate_datapath::steer::{queue_of, queue_of_fragments};
use tollgate_engine::cache::{CacheEntry, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::Direction;
use tollgate_wire::vnet::{self, VnetHdr};

const FIN: u8 = 0x01;
const URG: u8 = 0x20;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const MORE_FRAGMENTS_V4: u16 = 0x2000;
const MORE_FRAGMENTS_V6: u16 = 1;

fn tcp4() -> FlowKey {
    key(6, ("10.0.0.2", 40_000), ("192.0.2.1", 443))
}

fn tcp6() -> FlowKey {
    key(6, ("fd00::2", 40_000), ("2001:db8::1", 443))
}

fn pass() -> CacheEntry {
    CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    }
}

fn send(bench: &Bench, talk: Talk, frame: &[u8]) -> Fate {
    bench.send(talk.direction, frame)
}

#[test]
fn an_undecided_packet_goes_up_tagged_and_comes_back_unchanged() {
    for mechanism in Mechanism::ALL.into_iter().filter(|it| it.is_known_here()) {
        let name = format!("updown-{mechanism:?}").to_lowercase();
        let bench = Bench::with(&name, 1, Some(mechanism));
        for talk in [
            outbound(tcp4()),
            inbound(tcp4()),
            outbound(tcp6()),
            inbound(tcp6()),
        ] {
            let frame = talk.tcp(ACK, 1, 1, b"hello");
            let fate = send(&bench, talk, &frame);
            let Fate::Diverted { tag, frame: up, .. } = &fate else {
                panic!("{talk:?}: {fate:?}")
            };
            assert_eq!(
                (tag.endpoint, tag.direction),
                (common::endpoint(), talk.direction)
            );
            assert_eq!(*up, frame);
            assert_eq!(bench.give_back(&fate), Fate::Passed(frame));
            assert_eq!(bench.fate(), Fate::Dropped, "it came twice");
        }
    }
}

#[test]
fn kinds_of_traffic_have_their_treatment() {
    let bench = Bench::new("kinds");
    let udp4 = key(17, ("10.0.0.2", 40_000), ("192.0.2.1", 53));
    let udp6 = key(17, ("fd00::2", 40_000), ("2001:db8::1", 53));
    let to_net = key(58, ("fe80::2", 0), ("ff02::1", 0));
    for direction in [Direction::Outbound, Direction::Inbound] {
        let t4 = Talk {
            key: udp4,
            direction,
        };
        let t6 = Talk {
            key: udp6,
            direction,
        };
        let link = Talk {
            key: to_net,
            direction,
        };
        let v6 = |next: u8, hops: u8, payload: &[u8]| {
            let mut packet = link.ip_packet(next, 0, payload);
            packet[7] = hops;
            link.frame(&packet)
        };
        let nd = |kind: u8, hops: u8| v6(58, hops, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        let mld = v6(0, 1, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0]);
        let routing = [17u8, 0, 4, 0, 0, 0, 0, 0];
        let hop_by_hop = [&[17u8, 0, 1, 4, 0, 0, 0, 0][..], &t6.ports(), &[0, 8, 0, 0]].concat();
        let mut long = t4.ip_packet(17, 0, &[0; 8]);
        long[3] = 200;
        let mut short_header = t4.ip_packet(17, 0, &[0; 8]);
        short_header[0] = 0x44;
        let mut no_tcp = t4.ip_packet(6, 0, &t4.tcp_segment(ACK, 1, 1, b""));
        no_tcp[20 + 12] = 0x40;
        let mut mapped = t6.ip_packet(17, 0, &[0; 8]);
        mapped[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
        let arp = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1,
        ];

        let cases: Vec<(&str, Vec<u8>, &str, &[&str])> = vec![
            ("udp", t4.udp(b"x"), "divert", &["diverted"]),
            ("udp6", t6.udp(b"x"), "divert", &["diverted"]),
            (
                "sctp",
                t4.ip(132, &[t4.ports(), vec![0; 8]].concat()),
                "divert",
                &["diverted"],
            ),
            ("gre", t4.ip(47, &[0; 8]), "divert", &["diverted"]),
            ("echo", t4.icmp(8, 9, b"x"), "divert", &["diverted"]),
            ("arp", t4.ether(0x0806, &arp), "pass", &["passed"]),
            ("neighbour", nd(135, 255), "pass", &["passed"]),
            ("neighbour from afar", nd(135, 254), "divert", &["diverted"]),
            ("listener", mld, "pass", &["passed"]),
            ("listener to afar", nd(143, 64), "divert", &["diverted"]),
            ("lldp", t4.ether(0x88cc, &[0; 46]), "drop", &["drop-non-ip"]),
            ("802.3", t4.ether(46, &[0xaa; 46]), "drop", &["drop-non-ip"]),
            ("vlan", tagged(5, &t4.udp(b"x")), "drop", &["drop-vlan"]),
            (
                "fragment",
                t4.frame(&t4.ip_packet(17, MORE_FRAGMENTS_V4, &[0; 16])),
                "divert",
                &["diverted", "fragments-diverted"],
            ),
            (
                "last fragment",
                t4.frame(&t4.ip_packet(17, 2, &[0; 16])),
                "divert",
                &["diverted", "fragments-diverted"],
            ),
            (
                "fragment6",
                t6.frame(&t6.ip_packet(17, MORE_FRAGMENTS_V6, &[0; 16])),
                "divert",
                &["diverted", "fragments-diverted"],
            ),
            ("hop-by-hop", t6.ip(0, &hop_by_hop), "divert", &["diverted"]),
            (
                "routing header",
                t6.ip(43, &routing),
                "divert",
                &["diverted"],
            ),
            (
                "longer than it is",
                t4.frame(&long),
                "drop",
                &["drop-malformed"],
            ),
            (
                "short header",
                t4.frame(&short_header),
                "drop",
                &["drop-malformed"],
            ),
            (
                "short tcp header",
                t4.frame(&no_tcp),
                "drop",
                &["drop-malformed"],
            ),
            (
                "mapped address",
                t6.frame(&mapped),
                "drop",
                &["drop-malformed"],
            ),
            (
                "cut",
                t4.ether(0x0800, &[0x45; 12]),
                "drop",
                &["drop-malformed"],
            ),
        ];
        for (what, frame, expected, counters) in cases {
            let mut fate = None;
            let counted = bench.counted(direction, || fate = Some(bench.send(direction, &frame)));
            assert_eq!(fate.unwrap().word(), expected, "{what} {direction:?}");
            assert_eq!(counted, counters, "{what} {direction:?}");
        }
    }
}

#[test]
fn a_decided_flow_passes_in_the_kernel_except_what_may_be_another() {
    let mut bench = Bench::new("decided");
    for key in [tcp4(), tcp6()] {
        bench.put(&key, pass());
        for talk in [outbound(key), inbound(key)] {
            for flags in [ACK, SYN | ACK, ACK | FIN, RST] {
                let frame = talk.tcp(flags, 1, 1, b"");
                assert_eq!(send(&bench, talk, &frame), Fate::Passed(frame.clone()));
            }
            assert_eq!(
                send(&bench, talk, &talk.tcp(SYN, 1, 0, b"")).word(),
                "divert"
            );
        }
        let other = FlowKey {
            local_port: 40_001,
            ..key
        };
        let frame = outbound(other).tcp(ACK, 1, 1, b"");
        assert_eq!(send(&bench, outbound(other), &frame).word(), "divert");
        bench.put(
            &key,
            CacheEntry {
                outbound: Steer::Pass,
                inbound: Steer::Drop,
            },
        );
        let frame = inbound(key).tcp(ACK, 1, 1, b"");
        let counted = bench.counted(Direction::Inbound, || {
            assert_eq!(send(&bench, inbound(key), &frame), Fate::Dropped)
        });
        assert_eq!(counted, ["drop-flow"]);
        assert!(bench.flows.delete(&key));
        assert!(!bench.flows.delete(&key));
        assert_eq!(send(&bench, inbound(key), &frame).word(), "divert");
    }
}

#[test]
fn an_echo_is_a_flow_and_an_error_never_is() {
    let mut bench = Bench::new("icmp");
    for (v6, local, remote) in [
        (false, "10.0.0.2", "192.0.2.1"),
        (true, "fd00::2", "2001:db8::1"),
    ] {
        let (protocol, request, reply) = if v6 { (58, 128, 129) } else { (1, 8, 0) };
        let echo = key(protocol, (local, 77), (remote, 0));
        bench.put(&echo, pass());
        bench.put(
            &FlowKey {
                local_port: 0,
                ..echo
            },
            pass(),
        );
        assert_eq!(
            bench
                .send(Direction::Outbound, &outbound(echo).icmp(request, 77, b"x"))
                .word(),
            "pass"
        );
        assert_eq!(
            bench
                .send(Direction::Inbound, &inbound(echo).icmp(reply, 77, b"x"))
                .word(),
            "pass"
        );
        assert_eq!(
            bench
                .send(Direction::Inbound, &inbound(echo).icmp(reply, 78, b"x"))
                .word(),
            "divert"
        );
        let errors: &[u8] = if v6 {
            &[1, 2, 3, 4]
        } else {
            &[3, 4, 5, 11, 12]
        };
        for &error in errors {
            let fate = bench.send(Direction::Inbound, &inbound(echo).icmp(error, 0, &[0; 28]));
            assert_eq!(fate.word(), "divert", "type {error}");
        }
    }
}

#[test]
fn a_window_lets_exactly_itself_through() {
    let mut bench = Bench::new("window");
    let window = |start: u32, len: u32| Steer::Window {
        start,
        end: start.wrapping_add(len),
    };
    // Start, length, then where a segment begins relative to the start, its length, and its fate.
    let cases: [(u32, u32, i32, usize, &str); 13] = [
        (1000, 100, 0, 100, "pass"),
        (1000, 100, 0, 101, "divert"),
        (1000, 100, 99, 1, "pass"),
        (1000, 100, 100, 1, "divert"),
        (1000, 100, -1, 1, "divert"),
        (1000, 100, -1, 2, "divert"),
        (1000, 100, -50, 0, "pass"),
        (1000, 100, 500, 0, "pass"),
        (1000, 0, 0, 1, "divert"),
        (1000, 0, 0, 0, "pass"),
        (u32::MAX - 49, 100, 0, 100, "pass"),
        (u32::MAX - 49, 100, 60, 40, "pass"),
        (u32::MAX - 49, 100, 60, 41, "divert"),
    ];
    for key in [tcp4(), tcp6()] {
        for talk in [outbound(key), inbound(key)] {
            for (start, len, at, payload, expected) in cases {
                let mut entry = CacheEntry::default();
                match talk.direction {
                    Direction::Outbound => entry.outbound = window(start, len),
                    Direction::Inbound => entry.inbound = window(start, len),
                }
                bench.put(&key, entry);
                let seq = start.wrapping_add_signed(at);
                // Neither a FIN nor an urgent pointer may go by unseen.
                for (flags, expected) in [
                    (ACK, expected),
                    (ACK | FIN, "divert"),
                    (ACK | URG, "divert"),
                ] {
                    let frame = talk.tcp(flags, seq, 1, &vec![b'x'; payload]);
                    let fate = send(&bench, talk, &frame);
                    assert_eq!(
                        fate.word(),
                        expected,
                        "{start}+{len}, {at}, {payload}, {flags:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn only_datagrams_of_open_quic_connections_stay_in_the_kernel() {
    const LONG: u8 = 0xc0;
    const SHORT: u8 = 0x40;
    let mut bench = Bench::new("quic");
    for key in [
        key(17, ("10.0.0.2", 40_000), ("192.0.2.1", 443)),
        key(17, ("fd00::2", 40_000), ("2001:db8::1", 443)),
    ] {
        let talk = outbound(key);
        let entry = CacheEntry {
            outbound: Steer::Quic,
            inbound: Steer::Pass,
        };
        bench.put(&key, entry);
        for (first, expected) in [(SHORT, "pass"), (LONG, "divert"), (0x80, "divert")] {
            let fate = send(&bench, talk, &talk.udp(&[first; 40]));
            assert_eq!(fate.word(), expected, "{first:#x}");
        }
        assert_eq!(send(&bench, talk, &talk.udp(b"")).word(), "pass");
        let back = inbound(key);
        assert_eq!(send(&bench, back, &back.udp(&[LONG; 40])).word(), "pass");
        // Super-packets of three datagrams: each of them is looked at. A TAP takes them since Linux 6.2.
        let super_packets = if bench.gate.offloads.udp { 0..4 } else { 0..0 };
        for at in super_packets {
            let mut payload = vec![SHORT; 250];
            if let Some(first) = payload.get_mut(at * 100).filter(|_| at < 3) {
                *first = LONG;
            }
            let frame = talk.udp(&payload);
            let header = udp_super_packet(&frame, payload.len(), 100);
            let fate = bench.send_with(&header, talk.direction, &frame);
            let expected = if at < 3 { "divert" } else { "pass" };
            assert_eq!(fate.word(), expected, "long header in datagram {at}");
        }
    }
    let mut tcp = bench;
    let entry = CacheEntry {
        outbound: Steer::Quic,
        ..pass()
    };
    tcp.put(&tcp4(), entry);
    let talk = outbound(tcp4());
    let fate = send(&tcp, talk, &talk.tcp(ACK, 1, 1, b"x"));
    assert_eq!(fate.word(), "divert", "it is for UDP");
}

/// A virtio-net header: UDP, to be cut into datagrams of `size` bytes, checksum to be filled in.
fn udp_super_packet(frame: &[u8], payload: usize, size: u16) -> Vec<u8> {
    let csum_start = (frame.len() - payload - 8) as u16;
    let header = VnetHdr {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_UDP_L4,
        hdr_len: csum_start + 8,
        gso_size: size,
        csum_start,
        csum_offset: 6,
        num_buffers: 0,
    };
    let mut bytes = vec![0; vnet::VNET_HDR_LEN];
    header.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    let mut bench = Bench::new("padding");
    let entry = CacheEntry {
        outbound: Steer::Window { start: 5, end: 5 },
        ..pass()
    };
    bench.put(&tcp4(), entry);
    let talk = outbound(tcp4());
    let mut frame = talk.tcp(ACK, 5, 1, b"");
    frame.extend([0; 6]);
    assert_eq!(send(&bench, talk, &frame).word(), "pass");
}

#[test]
fn progress_is_noted_and_survives_a_change_of_the_entry() {
    let mut bench = Bench::new("progress");
    let key = tcp4();
    let mut closed = Closed::open(&bench.pins).unwrap();
    bench.put(&key, pass());
    let fresh = bench.progress(&key);
    assert_eq!((fresh.outbound, fresh.inbound), Default::default());

    let out = outbound(key);
    let first = out.tcp(ACK, u32::MAX, 500, b"abc");
    send(&bench, out, &first);
    // An older segment and acknowledgement move nothing back.
    send(&bench, out, &out.tcp(ACK, u32::MAX - 9, 400, b"abc"));
    let noted = bench.progress(&key).outbound;
    assert_eq!((noted.packets, noted.bytes), (2, 2 * first.len() as u64));
    assert_eq!((noted.max_seq, noted.max_ack), (Some(2), Some(500)));
    assert!(!noted.fin && !noted.rst);

    bench.put(
        &key,
        CacheEntry {
            outbound: Steer::Window { start: 2, end: 9 },
            ..pass()
        },
    );
    assert_eq!(bench.progress(&key).outbound, noted);
    bench.put(&key, pass());
    send(&bench, out, &out.tcp(ACK | FIN, 2, 600, b""));
    let noted = bench.progress(&key);
    assert_eq!(
        (noted.outbound.max_seq, noted.outbound.fin),
        (Some(3), true)
    );
    assert_eq!(noted.inbound, Default::default());
    assert!(noted.last_seen_ns >= fresh.last_seen_ns);

    assert_eq!(closed.drain(), []);
    let back = inbound(key);
    send(&bench, back, &back.tcp(ACK | FIN, 600, 3, b""));
    assert_eq!(closed.drain(), [key]);
    send(&bench, back, &back.tcp(ACK | FIN, 600, 3, b""));
    send(&bench, back, &back.tcp(RST, 601, 3, b""));
    assert_eq!(closed.drain(), [], "told twice");

    let reset = tcp6();
    bench.put(&reset, pass());
    send(
        &bench,
        outbound(reset),
        &outbound(reset).tcp(RST, 1, 0, b""),
    );
    assert_eq!(closed.drain(), [reset]);
    assert!(bench.progress(&reset).outbound.rst);
    let mut listed: Vec<_> = bench.flows.iter().map(|(key, ..)| key).collect();
    listed.sort_by_key(|key| key.local.is_ipv6());
    assert_eq!(listed, [key, reset]);
    assert_eq!(bench.flows.delete_endpoint(common::endpoint()), 2);
    assert_eq!(bench.flows.iter().count(), 0);
}

#[test]
fn the_engine_cannot_write_to_nowhere() {
    let bench = Bench::new("badtag");
    let frame = outbound(tcp4()).tcp(ACK, 1, 1, b"");
    let unknown = 9 << 1;
    for tci in [0, 1, unknown, 4095] {
        assert_eq!(bench.write_tagged(tci, &frame), Fate::Dropped, "{tci}");
    }
    let counted: u64 = bench
        .counters()
        .iter()
        .filter(|c| c.name == "drop-bad-tag")
        .map(|c| c.value)
        .sum();
    // What the kernel itself may have sent by the TAP at its start would be counted elsewhere.
    assert_eq!(counted, 4);
}

#[test]
fn a_guessed_reset_does_not_end_a_flow() {
    let mut bench = Bench::new("guessed");
    let key = tcp4();
    let mut closed = Closed::open(&bench.pins).unwrap();
    bench.put(&key, pass());
    let (out, back) = (outbound(key), inbound(key));
    send(&bench, out, &out.tcp(ACK, 100, 5000, b"abc"));
    // Neither far ahead of what the endpoint has acknowledged nor before it.
    for seq in [5000 + (17 << 20), 4999, 0x9000_0000] {
        send(&bench, back, &back.tcp(RST, seq, 0, b""));
        assert_eq!(closed.drain(), [], "sequence number {seq}");
    }
    send(&bench, back, &back.tcp(RST, 5000, 0, b""));
    assert_eq!(closed.drain(), [key]);
}

#[test]
fn an_endpoint_is_governed_when_it_says_so_and_closed_when_it_is_unknown() {
    let bench = Bench::new("governed");
    let mut endpoints = Endpoints::open(&bench.pins).unwrap();
    let entry = EndpointEntry {
        id: common::endpoint(),
        ifindex: bench.vm.ifindex,
        governed: false,
    };
    let talk = outbound(tcp4());
    let frame = talk.tcp(ACK, 1, 1, b"");
    endpoints.set(entry).unwrap();
    assert_eq!(endpoints.list().unwrap(), [entry]);
    // Another interface takes the place of the first.
    endpoints
        .set(EndpointEntry {
            ifindex: bench.wire.ifindex,
            ..entry
        })
        .unwrap();
    assert_eq!(endpoints.list().unwrap().len(), 1);
    endpoints.set(entry).unwrap();
    assert_eq!(endpoints.list().unwrap(), [entry]);
    assert_eq!(send(&bench, talk, &frame).word(), "pass");
    assert!(endpoints.remove(entry.id).unwrap());
    assert!(!endpoints.remove(entry.id).unwrap());
    let counted = bench.counted(talk.direction, || {
        assert_eq!(send(&bench, talk, &frame), Fate::Dropped)
    });
    assert_eq!(counted, ["drop-unknown-interface"]);
}

/// A small generator: tuples need to be many and the same every time.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn both_directions_of_a_flow_and_its_errors_come_to_one_queue() {
    const QUEUES: usize = 4;
    let bench = Bench::with("queues", QUEUES, None);
    let mut state = 0x2545_f491_4f6c_dd1d;
    let mut hits = [0; QUEUES];
    for i in 0..200 {
        let r = xorshift(&mut state);
        let (local, remote) = match i % 2 {
            0 => (
                format!("10.0.{}.2", r & 0xff),
                format!("192.0.2.{}", r >> 8 & 0xff),
            ),
            _ => (
                format!("fd00::{:x}", r & 0xffff),
                format!("2001:db8::{:x}", r >> 16 & 0xffff),
            ),
        };
        let (local_port, remote_port) = ((r >> 32) as u16, (r >> 48) as u16);
        let protocol = [6, 17, 132][i / 2 % 3];
        let key = key(protocol, (&local, local_port), (&remote, remote_port));
        let expected = queue_of(&key, QUEUES);
        hits[expected] += 1;
        let (out, back) = (outbound(key), inbound(key));
        let payload = |talk: Talk| match protocol {
            6 => talk.tcp_segment(SYN, 1, 0, b""),
            _ => [talk.ports(), vec![0; 8]].concat(),
        };
        let icmp = if key.local.is_ipv4() { 3 } else { 1 };
        // The quoted packet is cut after eight bytes of its transport header.
        let mut quoted = out.ip_packet(protocol, 0, &payload(out));
        quoted.truncate(quoted.len() - payload(out).len() + 8);
        for (talk, frame) in [
            (out, out.ip(protocol, &payload(out))),
            (back, back.ip(protocol, &payload(back))),
            (back, back.icmp(icmp, 0, &quoted)),
        ] {
            let fate = send(&bench, talk, &frame);
            let Fate::Diverted { queue, .. } = fate else {
                panic!("{talk:?}: {fate:?}")
            };
            assert_eq!(queue, expected, "{talk:?}");
        }
        let more = if key.local.is_ipv4() {
            MORE_FRAGMENTS_V4
        } else {
            MORE_FRAGMENTS_V6
        };
        let fragment = out.frame(&out.ip_packet(protocol, more, &payload(out)));
        let fate = send(&bench, out, &fragment);
        let Fate::Diverted { queue, .. } = fate else {
            panic!("{key}: {fate:?}")
        };
        assert_eq!(queue, queue_of_fragments(key.local, key.remote, QUEUES));
    }
    assert!(hits.iter().all(|&n| n > 20), "uneven: {hits:?}");
}

#[test]
fn an_echo_and_its_answer_come_to_one_queue() {
    const QUEUES: usize = 4;
    let bench = Bench::with("echoqueue", QUEUES, None);
    for id in 0..40 {
        let echo = key(1, ("10.0.0.2", id), ("192.0.2.1", 0));
        for (talk, kind) in [(outbound(echo), 8), (inbound(echo), 0)] {
            let fate = send(&bench, talk, &talk.icmp(kind, id, b"x"));
            let Fate::Diverted { queue, .. } = fate else {
                panic!("{echo}: {fate:?}")
            };
            assert_eq!(queue, queue_of(&echo, QUEUES));
        }
    }
}
