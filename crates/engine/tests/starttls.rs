//! TLS that starts inside another protocol.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod sim;

use sim::{Conn, Gate, client_hello, delivered, egress};
use tollgate_engine::event::{Carrier, L7Facts};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::Outbound;

fn opened(port: u16) -> (Gate, Conn) {
    let rules = egress(
        "  - name: l7
    action: Allow
    ports: [{port: 25}, {port: 5432}]
    l7Protocols: [{tls: {sni: '*.example.com'}}]
  - {name: rest, action: Reject}",
    );
    let mut gate = Gate::new(&rules);
    let mut conn = Conn::egress(&format!("192.0.2.1:{port}"));
    conn.open(&mut gate);
    (gate, conn)
}

/// Sends what should pass.
fn say(gate: &mut Gate, conn: &mut Conn, bytes: &[u8]) {
    let out = conn.send(gate, bytes);
    assert!(
        out.iter().any(|o| o.to == Outbound && o.payload == bytes),
        "{bytes:?}"
    );
}

/// The client reads everything and says so.
fn hear(gate: &mut Gate, conn: &mut Conn, bytes: &[u8]) {
    assert_eq!(conn.answer(gate, bytes).len(), 1);
}

fn smtp_up_to_its_request(gate: &mut Gate, conn: &mut Conn) {
    hear(gate, conn, b"220 mail.example.com ESMTP\r\n");
    say(gate, conn, b"EHLO pod\r\n");
    hear(gate, conn, b"250-mail\r\n250 STARTTLS\r\n");
    say(gate, conn, b"STARTTLS\r\n");
}

#[test]
fn smtp_may_go_on_with_tls_to_an_allowed_name() {
    for (name, allowed) in [("mx.example.com", true), ("mx.example.net", false)] {
        let (mut gate, mut conn) = opened(25);
        smtp_up_to_its_request(&mut gate, &mut conn);
        hear(&mut gate, &mut conn, b"220 go ahead\r\n");
        let hello = client_hello(name, 0);
        let out = conn.send(&mut gate, &hello);
        let reached = out.iter().any(|o| o.to == Outbound && o.payload == hello);
        assert_eq!(reached, allowed, "{name}");
        let Some(L7Facts::Tls { carrier, .. }) = &gate.verdicts().last().unwrap().l7 else {
            panic!("a verdict on a hello")
        };
        assert_eq!(*carrier, Some(Carrier::Smtp));
    }
}

#[test]
fn smtp_in_plain_text_is_refused() {
    let (mut gate, mut conn) = opened(25);
    hear(&mut gate, &mut conn, b"220 mail.example.com ESMTP\r\n");
    say(&mut gate, &mut conn, b"EHLO pod\r\n");
    hear(&mut gate, &mut conn, b"250 mail\r\n");
    let out = conn.send(&mut gate, b"MAIL FROM:<a@example.com>\r\n");
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(gate.denials()[0].reason, "smtp-without-tls");
}

#[test]
fn a_server_that_declines_leaves_the_client_where_it_was() {
    let (mut gate, mut conn) = opened(25);
    smtp_up_to_its_request(&mut gate, &mut conn);
    hear(&mut gate, &mut conn, b"454 not now\r\n");
    say(&mut gate, &mut conn, b"QUIT\r\n");
    let out = conn.send(&mut gate, &client_hello("mx.example.com", 0));
    assert_eq!(delivered(&out, Outbound), "");
}

#[test]
fn a_greeting_is_not_taken_for_an_agreement() {
    let (mut gate, mut conn) = opened(25);
    say(&mut gate, &mut conn, b"EHLO pod\r\n");
    let out = conn.send(&mut gate, b"STARTTLS\r\n");
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(gate.denials()[0].reason, "smtp-too-early");
}

#[test]
fn postgresql_is_judged_by_the_name_behind_its_request() {
    const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
    for (answer, name, allowed) in [
        (b"S", "db.example.com", true),
        (b"S", "db.example.net", false),
        (b"N", "db.example.com", false),
    ] {
        let (mut gate, mut conn) = opened(5432);
        say(&mut gate, &mut conn, SSL_REQUEST);
        hear(&mut gate, &mut conn, answer);
        let hello = client_hello(name, 0);
        let out = conn.send(&mut gate, &hello);
        let reached = out.iter().any(|o| o.to == Outbound && o.payload == hello);
        assert_eq!(reached, allowed, "{name}");
    }
}

/// Whoever acknowledges less than there is has not read more since.
#[test]
fn a_client_that_lies_about_what_it_has_read_asks_too_early() {
    let (mut gate, mut conn) = opened(25);
    let flags = TcpFlags::ACK | TcpFlags::PSH;
    let before = conn.server_seq.wrapping_sub(1);
    let frame = conn.frame(true, flags, conn.client_seq, before, b"EHLO pod\r\n");
    assert_eq!(gate.arrives(Outbound, &frame).len(), 1);
    conn.client_seq = conn.client_seq.wrapping_add(10);
    let out = conn.send(&mut gate, b"STARTTLS\r\n");
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(gate.denials()[0].reason, "smtp-too-early");
}
