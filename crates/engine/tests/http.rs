//! HTTP/1 through the engine, seen from outside: what reaches the server, what the client sees.

mod sim;

use sim::{Conn, Gate, SERVER, delivered, usual};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";

fn opened() -> (Gate, Conn) {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    (gate, conn)
}

#[test]
fn an_allowed_request_reaches_the_server_and_the_response_stays_in_the_kernel() {
    let (mut gate, mut conn) = opened();
    let out = conn.send(&mut gate, GOOD);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
    let out = conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(out[0].by_kernel);
}

#[test]
fn a_denied_first_request_gets_a_403_that_names_the_policy() {
    let (mut gate, mut conn) = opened();
    let client_seq = conn.client_seq;
    let out = conn.send(&mut gate, BAD);
    let answer = &out[0];
    assert_eq!(answer.to, Inbound);
    assert!(
        answer.text().starts_with("HTTP/1.1 403 Forbidden\r\n"),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("ClusterNetworkPolicy/test"),
        "{}",
        answer.text()
    );
    let header = answer.header.unwrap();
    assert_eq!((header.seq, header.ack), (conn.server_seq, conn.client_seq));
    assert!(header.flags.fin());
    let rst = &out[1];
    assert_eq!((rst.to, rst.is_rst()), (Outbound, true));
    assert_eq!(
        rst.header.unwrap().seq,
        client_seq,
        "exactly what the server expects"
    );
    assert_eq!(
        delivered(&out, Outbound),
        "",
        "nothing of it reaches the server"
    );
    assert_eq!(gate.denials().len(), 1);
    assert_eq!(gate.denials()[0].reason, "http-no-rule-matches");
}

#[test]
fn a_client_with_a_403_may_finish_and_close_in_order() {
    let (mut gate, mut conn) = opened();
    let out = conn.send(&mut gate, BAD);
    conn.server_seq = conn
        .server_seq
        .wrapping_add(out[0].payload.len() as u32 + 1);
    let out = conn.send(&mut gate, b"a body that had begun already");
    assert_eq!(out[0].header.unwrap().ack, conn.client_seq);
    let out = conn.fin(&mut gate, true);
    assert_eq!(out[0].header.unwrap().ack, conn.client_seq);
    assert!(!out[0].is_rst());
    assert_eq!(delivered(&out, Outbound), "");
}

#[test]
fn every_request_of_a_connection_is_judged() {
    let (mut gate, mut conn) = opened();
    for _ in 0..3 {
        assert_eq!(
            delivered(&conn.send(&mut gate, GOOD), Outbound).as_bytes(),
            GOOD
        );
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    let out = conn.send(&mut gate, BAD);
    assert!(
        delivered(&out, Inbound).starts_with("HTTP/1.1 403"),
        "{out:?}"
    );
    assert_eq!(delivered(&out, Outbound), "");
}

#[test]
fn a_403_is_never_put_into_the_middle_of_a_response() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, GOOD);
    // No answer yet: the client pipelines.
    let out = conn.send(&mut gate, BAD);
    assert!(
        out.iter().all(|o| o.is_rst() && o.payload.is_empty()),
        "{out:?}"
    );
    assert_eq!(out.len(), 2);
}

/// Which of several answers are there cannot be told: none is made up.
#[test]
fn a_403_is_not_put_before_an_outstanding_response() {
    let two = GOOD.repeat(2);
    for together in [true, false] {
        let (mut gate, mut conn) = opened();
        if together {
            conn.send(&mut gate, &two);
        } else {
            conn.send(&mut gate, GOOD);
            conn.send(&mut gate, GOOD);
        }
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let out = conn.send(&mut gate, BAD);
        assert!(
            out.iter().all(sim::Out::is_rst) && out.len() == 2,
            "{out:?}"
        );
    }
}

#[test]
fn pipelined_requests_in_one_segment_are_all_judged() {
    let (mut gate, mut conn) = opened();
    let out = conn.send(&mut gate, &[GOOD, GOOD, BAD].concat());
    assert_eq!(delivered(&out, Outbound), "");
    assert!(out.iter().all(sim::Out::is_rst), "{out:?}");
    let (mut gate, mut conn) = opened();
    let out = conn.send(&mut gate, &[GOOD, GOOD, GOOD].concat());
    assert_eq!(delivered(&out, Outbound).len(), 3 * GOOD.len());
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let (mut gate, mut conn) = opened();
    let mut got = String::new();
    for byte in GOOD.chunks(1) {
        let out = conn.send(&mut gate, byte);
        got += &delivered(&out, Outbound);
    }
    assert_eq!(got.as_bytes(), GOOD);
    let (mut gate, mut conn) = opened();
    let mut got = String::new();
    let mut refused = false;
    for byte in BAD.chunks(7) {
        let out = conn.send(&mut gate, byte);
        refused |= out.iter().any(|o| o.text().starts_with("HTTP/1.1 403"));
        got += &delivered(&out, Outbound);
    }
    assert!(refused);
    assert!(
        !got.contains("\r\n\r\n"),
        "the head was never completed: {got}"
    );
}

#[test]
fn the_end_of_a_connection_in_a_head_is_no_end_of_the_head() {
    let (mut gate, mut conn) = opened();
    conn.send(
        &mut gate,
        b"GET /v1/x HTTP/1.1\r\nHost: api.example.com\r\n",
    );
    let out = conn.fin(&mut gate, true);
    assert!(out.iter().all(sim::Out::is_rst), "{out:?}");
    assert_eq!(gate.denials()[0].reason, "head-incomplete");
}

#[test]
fn out_of_order_segments_wait_for_the_gap() {
    let (mut gate, mut conn) = opened();
    let (first, second) = GOOD.split_at(20);
    let start = conn.client_seq;
    assert!(
        conn.send_at(&mut gate, start.wrapping_add(20), second)
            .is_empty()
    );
    let out = conn.send_at(&mut gate, start, first);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
}

#[test]
fn other_bytes_for_the_same_place_are_never_delivered() {
    let (mut gate, mut conn) = opened();
    let start = conn.client_seq;
    conn.send(&mut gate, GOOD);
    let out = conn.send_at(&mut gate, start, BAD);
    assert_eq!(out, []);
    assert_eq!(gate.engine.counters().retransmission_differs, 1);
    let out = conn.send_at(&mut gate, start, GOOD);
    assert_eq!(
        delivered(&out, Outbound).as_bytes(),
        GOOD,
        "an honest retransmission passes"
    );
    // Overlap: an altered front with new bytes behind it.
    let mut overlap = BAD.to_vec();
    overlap.extend_from_slice(GOOD);
    let out = conn.send_at(&mut gate, start, &overlap);
    assert_eq!(
        delivered(&out, Outbound).as_bytes(),
        GOOD,
        "only the new bytes"
    );
}

#[test]
fn held_bytes_cannot_be_replaced_in_delivery() {
    let (mut gate, mut conn) = opened();
    let start = conn.client_seq;
    // Two versions of the tail; whichever is judged is delivered.
    conn.send_at(&mut gate, start.wrapping_add(4), &GOOD[4..]);
    conn.send_at(&mut gate, start.wrapping_add(4), &BAD[4..]);
    let out = conn.send_at(&mut gate, start, &GOOD[..4]);
    assert_eq!(delivered(&out, Outbound).as_bytes(), GOOD);
    assert_eq!(gate.engine.counters().retransmission_differs, 1);
}

#[test]
fn a_body_of_known_length_stays_in_the_kernel_and_the_next_request_does_not() {
    let (mut gate, mut conn) = opened();
    let body = 100_000u32;
    let head = format!(
        "PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {body}\r\n\r\n"
    );
    conn.send(&mut gate, head.as_bytes());
    for _ in 0..body / 1000 {
        let out = conn.send(&mut gate, &[b'x'; 1000]);
        assert!(out[0].by_kernel, "{out:?}");
    }
    conn.answer(&mut gate, b"HTTP/1.1 201 Created\r\n\r\n");
    let out = conn.send(&mut gate, BAD);
    assert!(
        delivered(&out, Inbound).starts_with("HTTP/1.1 403"),
        "{out:?}"
    );
}

#[test]
fn a_segment_over_the_end_of_a_body_is_judged_from_there() {
    for (next, allowed) in [(GOOD, true), (BAD, false)] {
        let (mut gate, mut conn) = opened();
        let head =
            b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 20000\r\n\r\n";
        conn.send(&mut gate, head);
        conn.send(&mut gate, &[b'x'; 19_000]);
        let tail = [&[b'x'; 1000][..], next].concat();
        let out = conn.send(&mut gate, &tail);
        assert_eq!(
            delivered(&out, Outbound).len(),
            if allowed { tail.len() } else { 0 }
        );
    }
}

#[test]
fn a_chunked_body_is_followed_to_its_end() {
    let (mut gate, mut conn) = opened();
    let head =
        b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    conn.send(&mut gate, head);
    let out = conn.send(&mut gate, b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(out.len(), 1);
    conn.answer(&mut gate, b"HTTP/1.1 201 Created\r\n\r\n");
    let out = conn.send(&mut gate, BAD);
    assert!(
        delivered(&out, Inbound).starts_with("HTTP/1.1 403"),
        "{out:?}"
    );
}

#[test]
fn the_framing_of_chunks_is_remembered_and_their_data_is_not() {
    let (mut gate, mut conn) = opened();
    conn.send(
        &mut gate,
        b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let chunk = [&b"8000\r\n"[..], &[b'x'; 0x8000], b"\r\n"].concat();
    // Many times what may be remembered, and the server acknowledges nothing of it.
    for _ in 0..100 {
        let out = conn.send(&mut gate, &chunk);
        assert_eq!(delivered(&out, Outbound).len(), chunk.len());
    }
    assert_eq!(gate.engine.counters().kept_full, 0);
    let start = conn.client_seq.wrapping_sub(chunk.len() as u32);
    let out = conn.send_at(&mut gate, start, b"0\r\n\r\nGET /admin HTTP/1.1\r\n");
    assert_eq!(
        out,
        [],
        "the body would end, and a request begin, elsewhere"
    );
    assert_eq!(gate.engine.counters().retransmission_differs, 1);
    let out = conn.send_at(&mut gate, start, &chunk);
    assert_eq!(delivered(&out, Outbound).len(), chunk.len());
}

#[test]
fn bodies_longer_than_the_sequence_space_are_granted_piece_by_piece() {
    let (mut gate, mut conn) = opened();
    let length = 10u64 << 30;
    let head = format!(
        "PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {length}\r\n\r\n"
    );
    conn.send(&mut gate, head.as_bytes());
    let piece = vec![b'x'; 60_000];
    let mut left = length;
    let mut came_up = 0;
    // Each step sends one super-packet and leaps over the rest of 16 MiB, which the kernel would
    // have passed just the same.
    while left > 0 {
        let step = left.min(16 << 20);
        let send = step.min(60_000) as usize;
        let out = conn.send_at(
            &mut gate,
            conn.client_seq.wrapping_add((step - send as u64) as u32),
            &piece[..send],
        );
        assert_eq!(out.len(), 1, "{left} bytes left");
        came_up += u32::from(!out[0].by_kernel);
        conn.client_seq = conn.client_seq.wrapping_add(step as u32);
        left -= step;
    }
    assert!(came_up <= 64, "{came_up} of 640 segments came up");
    conn.answer(&mut gate, b"HTTP/1.1 201 Created\r\n\r\n");
    let out = conn.send(&mut gate, BAD);
    assert_eq!(delivered(&out, Outbound), "");
}

#[test]
fn data_before_the_servers_syn_ack_is_not_delivered() {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.syn(&mut gate);
    conn.client_seq = conn.client_seq.wrapping_add(1);
    assert_eq!(conn.send(&mut gate, GOOD), []);
    // A challenge ACK is no SYN-ACK.
    conn.client_seq = conn.client_seq.wrapping_sub(GOOD.len() as u32);
    conn.answer(&mut gate, b"");
    assert_eq!(conn.send(&mut gate, GOOD), []);
}

#[test]
fn data_on_a_syn_is_cut_off() {
    let mut gate = Gate::new(&usual());
    let conn = Conn::egress(SERVER);
    let frame = conn.frame(true, TcpFlags::SYN, 1, 0, GOOD);
    let out = gate.arrives(Outbound, &frame);
    assert_eq!(out.len(), 1);
    assert!(out[0].payload.is_empty() && out[0].header.unwrap().flags.is_syn());
}

#[test]
fn an_upgrade_goes_on_only_if_the_server_agrees() {
    let ask = b"GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut gate, mut conn) = opened();
    assert_eq!(conn.send(&mut gate, ask).len(), 1);
    let out = conn.answer(
        &mut gate,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(out.len(), 1);
    let out = conn.send(&mut gate, b"\x81\x05hello");
    assert_eq!(out.len(), 1, "anything goes now");

    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, ask);
    conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let out = conn.send(&mut gate, BAD);
    assert_eq!(
        delivered(&out, Outbound),
        "",
        "it stayed HTTP, and is judged"
    );
}

#[test]
fn without_room_in_the_flow_cache_everything_still_works() {
    let mut gate = Gate::new(&usual());
    gate.kernel.full = true;
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    for _ in 0..3 {
        assert_eq!(
            delivered(&conn.send(&mut gate, GOOD), Outbound).as_bytes(),
            GOOD
        );
        assert_eq!(
            conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .len(),
            1
        );
    }
    let out = conn.send(&mut gate, BAD);
    assert!(
        delivered(&out, Inbound).starts_with("HTTP/1.1 403"),
        "{out:?}"
    );
    assert!(gate.engine.counters().flow_cache_full > 0);
}

/// Java's client asks for HTTP/2 with every first request, also one that has a body.
#[test]
fn the_body_of_a_request_to_upgrade_comes_before_the_answer() {
    let head =
        "POST /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n";
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        for cut in [0, 4, 7] {
            let (mut gate, mut conn) = opened();
            let ask = format!("{head}{body}");
            let (first, second) = ask.split_at(ask.len() - cut);
            assert_eq!(conn.send(&mut gate, first.as_bytes()).len(), 1);
            conn.send(&mut gate, second.as_bytes());
            assert!(gate.denials().is_empty(), "{:?}", gate.denials());
            conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(
                delivered(&conn.send(&mut gate, GOOD), Outbound).as_bytes(),
                GOOD
            );
            let out = conn.send(&mut gate, BAD);
            assert_eq!(delivered(&out, Outbound), "");
        }
        let (mut gate, mut conn) = opened();
        let out = conn.send(&mut gate, format!("{head}{body}G").as_bytes());
        assert_eq!(delivered(&out, Outbound), "");
        assert_eq!(gate.denials()[0].reason, "http-data-before-switch");
    }
}
