//! What a client does that knows the gate: it lies about what it has read, lets connections look
//! ended that are not, and waits until it is forgotten.

mod sim;

use sim::{Conn, Gate, SERVER, delivered, usual};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT ws.example.com:80 HTTP/1.1\r\nHost: ws.example.com\r\n\r\n";
const FIRST: &[u8] = b"GET / HTTP/1.1\r\nHost: ws.example.com\r\n\r\n";

fn opened() -> (Gate, Conn) {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    (gate, conn)
}

/// Sends `payload` with an acknowledgement that is `ahead` of the truth.
fn send_acking(gate: &mut Gate, conn: &mut Conn, payload: &[u8], ahead: i32) -> Vec<sim::Out> {
    let flags = TcpFlags::ACK | TcpFlags::PSH;
    let ack = conn.server_seq.wrapping_add_signed(ahead);
    let frame = conn.frame(true, flags, conn.client_seq, ack, payload);
    let out = gate.arrives(Outbound, &frame);
    conn.client_seq = conn.client_seq.wrapping_add(payload.len() as u32);
    out
}

/// The server's answer repeats what the client sent. Where it begins is not for the client to say.
#[test]
fn an_answer_is_read_from_its_start_whatever_the_client_acknowledges() {
    let head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 40\r\n\r\n";
    let (mut gate, mut conn) = opened();
    send_acking(&mut gate, &mut conn, ASK, head.len() as i32);
    let echo = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\r\n\r\n";
    conn.answer(&mut gate, &[&head[..], echo].concat());
    let out = conn.send(&mut gate, BAD);
    assert_eq!(
        delivered(&out, Outbound),
        "",
        "it stayed HTTP, and is judged"
    );
}

/// The end of an earlier answer, or another answer, is no agreement.
#[test]
fn a_tunnel_that_speaks_http_behind_other_answers_is_judged() {
    for ask in [ASK, CONNECT] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, FIRST);
        conn.send(&mut gate, ask);
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        conn.answer(
            &mut gate,
            b"HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n",
        );
        let out = conn.send(&mut gate, BAD);
        assert_eq!(delivered(&out, Outbound), "");

        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, FIRST);
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n");
        conn.send(&mut gate, ask);
        conn.answer(&mut gate, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\r\n");
        conn.answer(
            &mut gate,
            b"HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n",
        );
        let out = conn.send(&mut gate, BAD);
        assert_eq!(delivered(&out, Outbound), "");
    }
}

#[test]
fn a_tunnel_on_a_connection_in_use_goes_on() {
    let hello = sim::client_hello("elsewhere.example.org", 0);
    for (ask, agreement, first) in [
        (
            ASK,
            &b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..],
            &b"\x81\x85mask\0\0\0\0\0"[..],
        ),
        (CONNECT, b"HTTP/1.1 200 Established\r\n\r\n", &hello),
    ] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, FIRST);
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        conn.send(&mut gate, ask);
        conn.answer(&mut gate, agreement);
        for _ in 0..3 {
            assert_eq!(conn.send(&mut gate, first).len(), 1);
        }
        assert!(gate.denials().is_empty());
    }
}

/// What cannot be a request is nobody's: a connection may end behind it.
#[test]
fn a_tunnel_in_text_may_end_before_it_looks_like_a_request() {
    for (text, may_end) in [
        (&b"hello"[..], true),
        (b"GET /v1/items", false),
        (b"GET ", false),
    ] {
        let (mut gate, mut conn) = opened();
        conn.send(&mut gate, FIRST);
        conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        conn.send(&mut gate, ASK);
        conn.answer(&mut gate, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert_eq!(
            delivered(&conn.send(&mut gate, text), Outbound).as_bytes(),
            text
        );
        let out = conn.fin(&mut gate, true);
        let ended = out.iter().any(|out| out.to == Outbound && !out.is_rst());
        assert_eq!(ended, may_end);
        assert_eq!(gate.denials().is_empty(), may_end);
    }
}

/// An RST that the server does not take makes the gate forget the connection, and the next one's FIN
/// would end the old one in the middle of its request line, which servers of HTTP/0.9 take for an end.
#[test]
fn a_connection_that_is_forgotten_in_a_head_is_ended_at_the_server() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, b"GET /v1/items");
    let at = conn.client_seq;
    let rst = conn.frame(true, TcpFlags::RST, at.wrapping_add(100), 0, b"");
    gate.arrives(Outbound, &rst);
    gate.kernel.out.clear();
    gate.wait(3);
    assert_eq!(gate.engine.flow_count(), 0);
    let out = gate.kernel.out.clone();
    assert_eq!(out.len(), 1, "the server is told");
}

#[test]
fn a_fin_before_the_servers_syn_ack_is_not_delivered() {
    let (mut gate, mut conn) = opened();
    conn.client_seq = conn.client_seq.wrapping_add(1000);
    conn.syn(&mut gate);
    conn.client_seq = conn.client_seq.wrapping_add(1);
    assert_eq!(conn.fin(&mut gate, true), []);
}

/// Somebody who helps the client acknowledges in the server's name what was lost on the way to it. What
/// cannot be compared with what was judged is not delivered, whoever is said to have it.
#[test]
fn what_was_judged_and_lost_is_not_replaced_behind_a_forged_acknowledgement() {
    let (mut gate, mut conn) = opened();
    let start = conn.client_seq;
    let good = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    // Enough that the first ones are not remembered once they are acknowledged.
    for _ in 0..200 {
        conn.send(&mut gate, good);
    }
    conn.answer(&mut gate, b"");
    conn.send(&mut gate, good);
    for (seq, fin) in [
        (start, false),
        (conn.client_seq.wrapping_sub(BAD.len() as u32), true),
    ] {
        conn.answer(&mut gate, b"");
        let flags = if fin {
            TcpFlags::FIN | TcpFlags::ACK
        } else {
            TcpFlags::ACK
        };
        let frame = conn.frame(true, flags, seq, conn.server_seq, BAD);
        let out = gate.arrives(Outbound, &frame);
        assert_eq!((out.len(), delivered(&out, Outbound)), (1, String::new()));
        assert_eq!(out[0].header.unwrap().flags.fin(), fin);
    }
}

/// Who can speak in the server's name may not turn a connection that is judged into one that the server
/// opened. The endpoint's kernel answers such a SYN with a challenge (RFC 5961).
#[test]
fn a_syn_in_the_servers_name_does_not_replace_a_connection() {
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, FIRST);
    conn.answer(&mut gate, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let syn = conn.frame(false, TcpFlags::SYN, 77_000, 0, b"");
    let out = gate.arrives(Inbound, &syn);
    assert_eq!(
        out.len(),
        1,
        "whose connection has gone is told so by a challenge"
    );
    let out = conn.send(&mut gate, BAD);
    assert_eq!(delivered(&out, Outbound), "");
    // After its end the same addresses may open another.
    let (mut gate, mut conn) = opened();
    conn.send(&mut gate, FIRST);
    gate.arrives(
        Outbound,
        &conn.frame(true, TcpFlags::RST, conn.client_seq, 0, b""),
    );
    gate.arrives(Inbound, &conn.frame(false, TcpFlags::SYN, 77_000, 0, b""));
    let counters = gate.engine.counters();
    assert_eq!(
        (counters.flows_opened, counters.syn_in_servers_name),
        (2, 0)
    );
}
