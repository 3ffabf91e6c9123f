//! TCP at its edges, under a rule set: what was judged is what is delivered, and nothing else.

mod sim;

use sim::{Conn, Gate, Out, SERVER, delivered, usual};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
const DATA: TcpFlags = TcpFlags(TcpFlags::PSH.0 | TcpFlags::ACK.0);

fn opened() -> (Gate, Conn) {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    (gate, conn)
}

/// The client sends a segment with these flags, `ahead` bytes from its next one.
fn client(gate: &mut Gate, conn: &Conn, flags: TcpFlags, ahead: i32, payload: &[u8]) -> Vec<Out> {
    let seq = conn.client_seq.wrapping_add_signed(ahead);
    let frame = conn.frame(true, flags, seq, conn.server_seq, payload);
    gate.arrives(conn.direction, &frame)
}

fn all_reset(out: &[Out]) -> bool {
    out.len() == 2 && out.iter().all(Out::is_rst)
}

#[test]
fn a_fin_on_the_front_of_a_head_does_not_end_it() {
    let (mut gate, conn) = opened();
    let out = client(&mut gate, &conn, FIN, 0, &BAD[..40]);
    assert!(all_reset(&out), "{out:?}");
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(gate.denials()[0].reason, "head-incomplete");
}

#[test]
fn a_fin_on_a_retransmission_of_an_unfinished_head_does_not_end_it() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, &BAD[..40]);
    let out = client(&mut gate, &conn, FIN, -40, &BAD[..40]);
    assert!(all_reset(&out), "{out:?}");
}

#[test]
fn a_fin_with_a_whole_request_passes_and_so_does_one_sent_again() {
    let (mut gate, conn) = opened();
    for _ in 0..2 {
        let out = client(&mut gate, &conn, FIN, 0, GOOD);
        assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
        assert!(out[0].header.unwrap().flags.fin());
    }
}

#[test]
fn a_fin_inside_what_was_judged_is_dropped() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    conn.send(&mut gate, &GOOD[..30]);
    assert_eq!(client(&mut gate, &conn, FIN, -20, b""), []);
    let inside = &GOOD[..10];
    assert_eq!(client(&mut gate, &conn, FIN, -30, inside), []);
    assert_eq!(gate.engine.counters().fin_misplaced, 2);
    assert_eq!(conn.send(&mut gate, &GOOD[30..]).len(), 1);
}

#[test]
fn a_fin_in_an_unfinished_body_passes() {
    let (mut gate, mut conn) = opened();
    let head = b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100000\r\n\r\n";
    conn.send(&mut gate, head);
    conn.send(&mut gate, &[b'x'; 1000]);
    let out = conn.fin(&mut gate, true);
    assert!(
        out.len() == 1 && out[0].header.unwrap().flags.fin(),
        "{out:?}"
    );
}

#[test]
fn each_half_may_be_closed_first() {
    for client_first in [true, false] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, GOOD);
        assert_eq!(conn.fin(&mut gate, client_first).len(), 1);
        gate.wait(30);
        let out = conn.answer(&mut gate, if client_first { b"late" } else { b"" });
        assert_eq!(out.len(), 1, "the other half goes on");
        if !client_first {
            let out = conn.send(&mut gate, GOOD);
            assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
            let out = conn.send(&mut gate, BAD);
            assert_eq!(delivered(&out, Outbound), "");
            continue;
        }
        assert_eq!(conn.fin(&mut gate, false).len(), 1);
        gate.wait(15);
        assert_eq!(gate.engine.flow_count(), 0);
    }
}

#[test]
fn a_fin_from_further_ahead_waits_for_what_comes_before_it() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    // The server would cut the next request after ten bytes.
    assert_eq!(client(&mut gate, &conn, FIN, 10, b""), []);
    let out = conn.send(&mut gate, GOOD);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
    assert!(out.iter().all(|o| !o.header.unwrap().flags.fin()));
    assert_eq!(gate.engine.counters().fin_misplaced, 1);
    // An honest one, whose request was late.
    assert_eq!(client(&mut gate, &conn, FIN, GOOD.len() as i32, b""), []);
    let out = conn.send(&mut gate, GOOD);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
    assert!(out[1].header.unwrap().flags.fin());
    // And one that would end the late front of a head.
    let (mut gate, mut conn) = opened();
    assert_eq!(client(&mut gate, &conn, FIN, 40, b""), []);
    conn.send(&mut gate, &BAD[..40]);
    assert_eq!(gate.denials()[0].reason, "head-incomplete");
}

#[test]
fn an_urgent_pointer_is_cleared_on_every_segment_before_the_last_verdict() {
    const URG: TcpFlags = TcpFlags(TcpFlags::ACK.0 | TcpFlags::URG.0);
    for (server, pod) in [(SERVER, sim::POD), ("[2001:db8::1]:80", "[fd00::2]:40000")] {
        let mut gate = Gate::new(&usual());
        let mut conn = Conn::egress(server);
        conn.client = pod.parse().unwrap();
        conn.open(&mut gate);
        let head =
            b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 50000\r\n\r\n";
        // On a head, on a segment without payload, on a body that the kernel may pass.
        for payload in [&head[..], b"", &[b'x'; 999]] {
            let mut frame = conn.frame(true, URG, conn.client_seq, conn.server_seq, payload);
            sim::set_urgent_pointer(&mut frame, 5);
            // The sim refuses frames with wrong checksums.
            let out = gate.arrives(Outbound, &frame);
            assert_eq!(out[0].payload, payload);
            let header = out[0].header.unwrap();
            assert!(!header.flags.urg() && header.urgent == 0, "{header:?}");
            conn.client_seq = conn.client_seq.wrapping_add(payload.len() as u32);
        }
        assert_eq!(gate.engine.counters().urgent_cleared, 3);
    }
}

#[test]
fn keep_alive_probes_pass_with_and_without_a_byte() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    // Before the server has the byte, another one in its place is no probe.
    assert_eq!(client(&mut gate, &conn, TcpFlags::ACK, -1, b"\0"), []);
    conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for garbage in [&b""[..], b"\0", b"?"] {
        // The server answers a probe for its number; it has the byte.
        let out = client(&mut gate, &conn, TcpFlags::ACK, -1, garbage);
        assert_eq!((out.len(), delivered(&out, Outbound)), (1, String::new()));
        let seq = out[0].header.map(|header| header.seq);
        assert_eq!(seq, Some(conn.client_seq.wrapping_sub(1)));
    }
    assert_eq!(gate.engine.counters().retransmission_differs, 1);
    assert_eq!(
        delivered(&conn.send(&mut gate, GOOD), Outbound).as_bytes(),
        GOOD
    );
    // In the middle of a head too, where everything comes up.
    conn.send(&mut gate, &GOOD[..20]);
    conn.answer(&mut gate, b"");
    assert_eq!(client(&mut gate, &conn, TcpFlags::ACK, -1, b"\0").len(), 1);
    assert_eq!(conn.send(&mut gate, &GOOD[20..]).len(), 1);
}

#[test]
fn a_probe_of_a_closed_window_carries_the_next_byte_and_is_judged() {
    let (mut gate, conn) = opened();
    // The server has no room and throws it away; it comes again with the rest.
    let out = client(&mut gate, &conn, DATA, 0, &GOOD[..1]);
    assert_eq!(out.len(), 1);
    let out = client(&mut gate, &conn, DATA, 0, &GOOD[..1]);
    assert_eq!(out.len(), 1);
    assert_eq!(client(&mut gate, &conn, DATA, 0, b"P"), [], "another byte");
    let out = client(&mut gate, &conn, DATA, 0, GOOD);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_not_believed() {
    let (mut gate, mut conn) = opened();
    let start = conn.client_seq;
    conn.send(&mut gate, GOOD);
    conn.client_seq = start.wrapping_add(1_000_000);
    conn.answer(&mut gate, b"");
    assert_eq!(conn.send_at(&mut gate, start, BAD), []);
    assert_eq!(conn.send_at(&mut gate, start, GOOD).len(), 1);
}

#[test]
fn a_syn_in_the_middle_of_a_head_does_not_hide_its_end() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, &BAD[..40]);
    let old = conn.client_seq;
    conn.client_seq = 12;
    let out = conn.syn(&mut gate);
    let rst = &out[0];
    assert!(rst.is_rst() && rst.to == Outbound, "{out:?}");
    assert_eq!(rst.header.unwrap().seq, old, "what the server expects");
    assert!(out[1].header.unwrap().flags.is_syn());
    // Outside of a head the old connection is none of the new one's business.
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    conn.client_seq = 12;
    assert_eq!(conn.syn(&mut gate).len(), 1);
}

#[test]
fn a_reset_that_nobody_can_expect_ends_nothing() {
    const RST: TcpFlags = TcpFlags::RST;
    for (ahead, ends) in [(0, true), (-1, false), (100 << 20, false)] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, &GOOD[..20]);
        conn.answer(&mut gate, b"");
        assert_eq!(client(&mut gate, &conn, RST, ahead, b"").len(), 1);
        gate.wait(5);
        assert_eq!(gate.engine.flow_count(), usize::from(!ends), "{ahead}");
        let out = conn.send(&mut gate, &GOOD[20..]);
        assert_eq!(delivered(&out, Outbound).is_empty(), ends);
    }
}

/// Where the IPv4 header begins in a frame of this file, after virtio-net and tagged Ethernet header.
const IP: usize = 12 + 18;

#[test]
fn what_the_server_would_drop_is_dropped_and_moves_nothing() {
    type Spoil = fn(&mut Vec<u8>);
    let spoil: [(&str, Spoil); 5] = [
        ("tcp checksum", |frame| frame[IP + 20 + 16] ^= 1),
        ("ip checksum", |frame| frame[IP + 10] ^= 1),
        ("ip checksum, vouched for", |frame| {
            frame[0] = tollgate_wire::vnet::DATA_VALID;
            frame[IP + 10] ^= 1;
        }),
        ("no hop left", |frame| {
            // The sum of the header stays the same.
            frame[IP + 8] = 0;
            frame[IP + 10] = frame[IP + 10].wrapping_add(64);
        }),
        ("payload", |frame| *frame.last_mut().unwrap() ^= 1),
    ];
    for (what, spoil) in spoil {
        let (mut gate, conn) = opened();
        for flags in [DATA, FIN, TcpFlags::RST] {
            let payload = if flags == DATA { GOOD } else { b"" };
            let mut frame = conn.frame(true, flags, conn.client_seq, conn.server_seq, payload);
            if what == "payload" && payload.is_empty() {
                continue;
            }
            spoil(&mut frame);
            gate.engine.handle(gate.now, &frame, &mut gate.kernel);
            assert!(gate.kernel.out.is_empty(), "{what}");
        }
        assert!(gate.engine.counters().decoy > 0, "{what}");
        gate.wait(5);
        assert_eq!(gate.engine.flow_count(), 1, "{what}");
        assert!(gate.verdicts().next().is_none(), "{what}");
        // Its place is still free, for bytes that are judged.
        let out = client(&mut gate, &conn, DATA, 0, BAD);
        assert!(
            delivered(&out, Inbound).starts_with("HTTP/1.1 403"),
            "{what}"
        );
    }
}

#[test]
fn a_checksum_that_the_kernel_vouches_for_is_not_computed() {
    let (mut gate, conn) = opened();
    let mut frame = conn.frame(true, DATA, conn.client_seq, conn.server_seq, GOOD);
    frame[0] = tollgate_wire::vnet::DATA_VALID;
    let out = gate.arrives(Outbound, &frame);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
}

#[test]
fn headers_that_contradict_themselves_are_dropped() {
    let (mut gate, conn) = opened();
    for words in [0u8, 4, 15] {
        let mut frame = conn.frame(true, DATA, conn.client_seq, conn.server_seq, b"GET");
        sim::patch_tcp(&mut frame, 12, u16::from(words) << 12 | u16::from(DATA.0));
        gate.engine.handle(gate.now, &frame, &mut gate.kernel);
    }
    assert!(gate.kernel.out.is_empty());
    assert_eq!(gate.engine.counters().malformed, 3);
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    let (mut gate, conn) = opened();
    let mut frame = conn.frame(true, DATA, conn.client_seq, conn.server_seq, &GOOD[..3]);
    frame.extend_from_slice(b"XXXX");
    let out = gate.arrives(Outbound, &frame);
    assert_eq!(out[0].payload, &GOOD[..3]);
    let out = client(&mut gate, &conn, DATA, 3, &GOOD[3..]);
    assert_eq!(delivered(&out, Outbound).as_bytes(), &GOOD[3..]);
}

#[test]
fn a_client_with_own_addresses_only_cannot_speak_for_others() {
    let strict = usual().replace("addresses: [", "onlyOwnAddresses: true, addresses: [");
    assert_ne!(strict, usual());
    let foreign = Conn {
        client: "10.1.0.3:40000".parse().unwrap(),
        ..Conn::egress(SERVER)
    };
    let mut gate = Gate::new(&usual());
    let syn = foreign.frame(true, TcpFlags::SYN, foreign.client_seq, 0, b"");
    assert_eq!(
        gate.arrives(Outbound, &syn).len(),
        1,
        "it may, if nobody says otherwise"
    );

    let mut gate = Gate::new(&strict);
    assert_eq!(gate.arrives(Outbound, &syn), []);
    assert_eq!(gate.engine.counters().foreign_source, 1);
    let mut own = Conn::egress(SERVER);
    own.open(&mut gate);
    assert_eq!(
        delivered(&own.send(&mut gate, GOOD), Outbound).as_bytes(),
        GOOD
    );
    assert_eq!(gate.engine.counters().foreign_source, 1);
}

/// A flow that was open before is cut.
#[test]
fn open_flows_from_other_addresses_end_when_the_policy_says_so() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn {
        client: "10.1.0.3:40000".parse().unwrap(),
        ..Conn::egress(SERVER)
    };
    conn.open(&mut gate);
    conn.send(&mut gate, GOOD);
    let strict = usual().replace("addresses: [", "onlyOwnAddresses: true, addresses: [");
    gate.set_policy(&strict);
    assert_eq!(gate.denials().last().unwrap().reason, "foreign-source");
    assert_eq!(delivered(&conn.send(&mut gate, GOOD), Outbound), "");
}

#[test]
fn a_client_cannot_speak_for_the_server() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    // From the pod's side, with the server's address as its source.
    let forged = Conn {
        client: conn.server,
        server: conn.client,
        direction: Outbound,
        ..Conn::egress(SERVER)
    };
    let frame = forged.frame(true, TcpFlags::ACK, conn.server_seq, conn.client_seq, b"");
    assert_eq!(gate.arrives(Outbound, &frame), [], "it would come back in");
    assert_eq!(gate.engine.counters().spoofed, 1);
    let start = conn.client_seq.wrapping_sub(GOOD.len() as u32);
    assert_eq!(
        conn.send_at(&mut gate, start, BAD),
        [],
        "acknowledged by nobody"
    );
}

#[test]
fn an_opening_from_both_sides_is_not_taken_part_in() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.syn(&mut gate);
    let frame = conn.frame(false, TcpFlags::SYN, conn.server_seq, 0, b"");
    assert_eq!(gate.arrives(Inbound, &frame), []);
    assert_eq!(gate.engine.counters().simultaneous_open, 1);
    conn.client_seq = conn.client_seq.wrapping_add(1);
    assert_eq!(conn.send(&mut gate, GOOD), []);
}

/// A part of the IP payload of an IPv4 frame, as a router would cut it out.
fn fragment4(frame: &[u8], from: usize, to: usize, id: u16) -> Vec<u8> {
    let whole = &frame[IP + 20..];
    let to = to.min(whole.len());
    let more = if to < whole.len() { 0x2000 } else { 0 };
    let mut piece = [&frame[..IP + 20], &whole[from..to]].concat();
    let mut put = |at: usize, value: u16| {
        piece[IP + at..IP + at + 2].copy_from_slice(&value.to_be_bytes());
    };
    put(2, (20 + to - from) as u16);
    put(4, id);
    put(6, more | (from / 8) as u16);
    put(10, 0);
    let sum = tollgate_wire::checksum::checksum(&piece[IP..IP + 20]);
    piece[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    piece
}

/// The same of an IPv6 frame, whose fragment header (RFC 8200, section 4.5) is put in.
fn fragment6(frame: &[u8], from: usize, to: usize, id: u8) -> Vec<u8> {
    const HEADER: usize = 40;
    let whole = &frame[IP + HEADER..];
    let to = to.min(whole.len());
    let place = (from as u16) | u16::from(to < whole.len());
    let [high, low] = place.to_be_bytes();
    let header = [frame[IP + 6], 0, high, low, 0, 0, 0, id];
    let mut piece = [&frame[..IP + HEADER], &header, &whole[from..to]].concat();
    piece[IP + 4..IP + 6].copy_from_slice(&((8 + to - from) as u16).to_be_bytes());
    piece[IP + 6] = 44;
    piece
}

#[test]
fn fragments_of_tcp_are_never_delivered_under_a_rule_set() {
    for (server, pod) in [(SERVER, sim::POD), ("[2001:db8::1]:80", "[fd00::2]:40000")] {
        let mut gate = Gate::new(&usual());
        let mut conn = Conn::egress(server);
        conn.client = pod.parse().unwrap();
        conn.open(&mut gate);
        let frame = conn.frame(true, DATA, conn.client_seq, conn.server_seq, GOOD);
        let cut = |from: usize, to: usize, id: u8| match conn.client.is_ipv4() {
            true => fragment4(&frame, from, to, id.into()),
            false => fragment6(&frame, from, to, id),
        };
        // In order, out of order, overlapping, and with less than a TCP header in the first one.
        let schedules: [&[(usize, usize)]; 4] = [
            &[(0, 32), (32, 999)],
            &[(32, 999), (0, 32)],
            &[(0, 40), (24, 48), (40, 999)],
            &[(0, 8), (8, 16), (16, 999)],
        ];
        for (id, pieces) in (1u8..).zip(schedules) {
            for (from, to) in pieces {
                let piece = cut(*from, *to, id);
                gate.engine.handle(gate.now, &piece, &mut gate.kernel);
                assert!(gate.kernel.out.is_empty(), "{server} {from}..{to}");
            }
        }
        let counters = gate.engine.counters();
        let dropped = counters.fragment_refused + counters.fragment_unknown + counters.malformed;
        assert_eq!(dropped, 10, "{counters:?}");
        // Whole, it passes.
        assert_eq!(gate.arrives(Outbound, &frame).len(), 1);
    }
}

#[test]
fn a_second_first_fragment_with_other_ports_takes_the_permission_back() {
    let mut gate = Gate::new(&usual());
    let datagram = |port: u16| {
        let datagram = tollgate_wire::build::Datagram {
            src: sim::POD.parse().unwrap(),
            dst: std::net::SocketAddr::new([192, 0, 2, 1].into(), port),
            payload: &[b'x'; 64],
            hop_limit: 64,
        };
        let mut frame = Vec::new();
        tollgate_wire::build::udp(&mut frame, &sim::link(Outbound), &datagram).unwrap();
        frame
    };
    let mut pass = |frame: Vec<u8>| {
        gate.engine.handle(gate.now, &frame, &mut gate.kernel);
        !std::mem::take(&mut gate.kernel.out).is_empty()
    };
    assert!(pass(fragment4(&datagram(53), 0, 32, 7)));
    assert!(pass(fragment4(&datagram(53), 32, 48, 7)));
    // The same packet, and now to the port that is dropped without a word.
    assert!(!pass(fragment4(&datagram(9), 0, 32, 7)));
    assert!(!pass(fragment4(&datagram(53), 48, 999, 7)));
}

#[test]
fn a_fin_that_did_not_go_out_does_not_end_the_flow() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    conn.send(&mut gate, &GOOD[..30]);
    // Dropped, and held back.
    assert_eq!(client(&mut gate, &conn, FIN, -20, b""), []);
    assert_eq!(client(&mut gate, &conn, FIN, 500, b""), []);
    conn.fin(&mut gate, false);
    gate.wait(60);
    assert_eq!(gate.engine.flow_count(), 1);
    let out = conn.send(&mut gate, &GOOD[30..]);
    assert_eq!(delivered(&out, Outbound).as_bytes(), &GOOD[30..]);
}
