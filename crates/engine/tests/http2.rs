//! HTTP/2 in clear text through the engine, seen from outside.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod sim;

use sim::{Conn, Gate, Out, SERVER, delivered, egress, usual};
use tollgate_engine::event::{HttpVersion, L7Facts, VerdictWord};
use tollgate_l7::http2::PREFACE;
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn opened(rules: &str) -> (Gate, Conn) {
    let mut gate = Gate::new(rules);
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    (gate, conn)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    [&len[1..], &[kind, flags], &stream, payload].concat()
}

/// A header block without compression.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
    }
    out
}

fn request(stream: u32, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "api.example.com"),
        (":path", path),
    ];
    fields.extend(more);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

fn begin(first: &[u8]) -> Vec<u8> {
    [&PREFACE[..], &frame(SETTINGS, 0, 0, &[]), first].concat()
}

fn reached(out: &[Out], bytes: &[u8]) -> bool {
    out.iter().any(|o| o.to == Outbound && o.payload == bytes)
}

#[test]
fn every_stream_is_judged() {
    let (mut gate, mut conn) = opened(&usual());
    let first = begin(&request(1, "GET", "/v2/a", &[]));
    assert!(reached(&conn.send(&mut gate, &first), &first));
    let second = request(3, "GET", "/v2/b", &[]);
    assert!(reached(&conn.send(&mut gate, &second), &second));
    let third = request(5, "GET", "/admin", &[]);
    let out = conn.send(&mut gate, &third);
    assert_eq!(delivered(&out, Outbound), "");
    assert_eq!(out.iter().filter(|o| o.is_rst()).count(), 2, "both sides");
    let denial = gate.denials()[0];
    assert_eq!(denial.reason, "http-no-rule-matches");
    let Some(L7Facts::Http {
        version, target, ..
    }) = &denial.l7
    else {
        panic!("{denial:?}")
    };
    assert_eq!((*version, &**target), (HttpVersion::Http2, "/admin"));
}

#[test]
fn a_denied_first_request_gets_a_403_on_its_stream() {
    let (mut gate, mut conn) = opened(&usual());
    let out = conn.send(&mut gate, &begin(&request(1, "GET", "/admin", &[])));
    assert_eq!(delivered(&out, Outbound), "", "nothing reaches the server");
    let answer = &out.iter().find(|o| o.to == Inbound).unwrap().payload;
    assert_eq!(answer[..9], frame(SETTINGS, 0, 0, &[]));
    assert_eq!(answer[9 + 3..9 + 5], [HEADERS, END_HEADERS]);
    assert_eq!(answer[18..23], [8, 3, b'4', b'0', b'3']);
    let text = String::from_utf8_lossy(answer);
    assert!(
        text.contains("Denied by ClusterNetworkPolicy/test"),
        "{text}"
    );
}

/// A connection whose server has sent its SETTINGS, which the client has not acknowledged when it asks
/// for what is denied; where its acknowledgements stood, and where the SETTINGS end.
fn crossing() -> (Gate, Conn, u32, u32) {
    let (mut gate, mut conn) = opened(&usual());
    let first = begin(&[]);
    assert!(reached(&conn.send(&mut gate, &first), &first));
    let before = conn.server_seq;
    conn.answer(&mut gate, &frame(SETTINGS, 0, 0, &[]));
    let behind = conn.server_seq;
    conn.server_seq = before;
    let out = conn.send(&mut gate, &request(1, "GET", "/admin", &[]));
    assert_eq!(out, [], "neither side is told yet");
    assert_eq!(gate.denials().len(), 1, "it is reported");
    (gate, conn, before, behind)
}

/// The client acknowledges up to `ack`.
fn acknowledge(gate: &mut Gate, conn: &Conn, ack: u32) -> Vec<Out> {
    let frame = conn.frame(true, TcpFlags::ACK, conn.client_seq, ack, b"");
    gate.arrives(Outbound, &frame)
}

/// The 403 goes behind the SETTINGS, the server is reset; what the client sent meanwhile is
/// acknowledged.
fn told(out: &[Out], conn: &Conn, behind: u32) {
    let [to_client, to_server] = out else {
        panic!("{out:?}")
    };
    assert_eq!((to_client.to, to_server.to), (Inbound, Outbound));
    let header = to_client.header.unwrap();
    assert_eq!((header.seq, header.ack), (behind, conn.client_seq));
    assert_eq!(to_client.payload[..9], frame(SETTINGS, 0, 0, &[]));
    assert_eq!(to_client.payload[18..23], [8, 3, b'4', b'0', b'3']);
    assert!(to_server.is_rst() && to_server.payload.is_empty());
}

#[test]
fn a_403_waits_for_its_place_behind_the_servers_first_frames() {
    let (mut gate, conn, before, behind) = crossing();
    assert_eq!(acknowledge(&mut gate, &conn, before), [], "not yet");
    told(&acknowledge(&mut gate, &conn, behind), &conn, behind);
    let out = acknowledge(&mut gate, &conn, behind.wrapping_add(1));
    assert_eq!(out, [], "told once");
}

#[test]
fn what_the_client_sends_meanwhile_is_acknowledged_and_goes_nowhere() {
    let (mut gate, mut conn, _, behind) = crossing();
    let more = request(3, "GET", "/v2/a", &[]);
    assert_eq!(conn.send(&mut gate, &more), []);
    conn.server_seq = behind;
    let out = conn.send(&mut gate, &frame(SETTINGS, 1, 0, &[]));
    told(&out, &conn, behind);
}

/// The SETTINGS were lost behind the gate: the server sends them again.
#[test]
fn what_is_lost_ahead_of_a_403_comes_again() {
    let (mut gate, mut conn, before, behind) = crossing();
    let settings = frame(SETTINGS, 0, 0, &[]);
    let again = conn.answer(&mut gate, &settings);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].to, &again[0].payload), (Inbound, &settings));
    assert_eq!(acknowledge(&mut gate, &conn, before), []);
    told(&acknowledge(&mut gate, &conn, behind), &conn, behind);
}

#[test]
fn a_403_goes_behind_all_that_the_server_says_meanwhile() {
    let (mut gate, mut conn, _, behind) = crossing();
    conn.server_seq = behind;
    let more = conn.answer(&mut gate, &frame(SETTINGS, 1, 0, &[]));
    assert_eq!(more.len(), 1, "it passes");
    assert_eq!(acknowledge(&mut gate, &conn, behind), [], "not all");
    let all = conn.server_seq;
    told(&acknowledge(&mut gate, &conn, all), &conn, all);
}

/// The kernel let bytes through that the engine has not seen: the client's word counts.
#[test]
fn a_client_that_has_more_than_the_engine_saw_is_believed() {
    let (mut gate, conn, _, behind) = crossing();
    let ahead = behind.wrapping_add(9);
    told(&acknowledge(&mut gate, &conn, ahead), &conn, ahead);
}

/// The preface has gone to the server, which has not answered yet: its SETTINGS are about to come.
#[test]
fn a_403_waits_for_a_server_that_was_spoken_to() {
    let (mut gate, mut conn) = opened(&usual());
    conn.send(&mut gate, &begin(&[]));
    assert_eq!(conn.send(&mut gate, &request(1, "GET", "/admin", &[])), []);
    let before = conn.server_seq;
    assert_eq!(acknowledge(&mut gate, &conn, before), [], "not yet");
    conn.answer(&mut gate, &frame(SETTINGS, 0, 0, &[]));
    let behind = conn.server_seq;
    assert_eq!(acknowledge(&mut gate, &conn, before), [], "not yet");
    told(&acknowledge(&mut gate, &conn, behind), &conn, behind);
}

#[test]
fn a_silent_server_is_not_waited_for_long() {
    let (mut gate, mut conn) = opened(&usual());
    conn.send(&mut gate, &begin(&[]));
    let denied = request(1, "GET", "/admin", &[]);
    let at = conn.client_seq;
    assert_eq!(conn.send(&mut gate, &denied), []);
    assert_eq!(conn.send_at(&mut gate, at, &denied), [], "sent again once");
    let out = conn.send_at(&mut gate, at, &denied);
    told(&out, &conn, conn.server_seq);
}

#[test]
fn a_client_that_never_has_all_is_reset() {
    let (mut gate, mut conn, ..) = crossing();
    let at = conn.client_seq;
    let last = (0..100).find_map(|_| {
        let out = conn.send_at(&mut gate, at, b"again");
        (!out.is_empty()).then_some(out)
    });
    let out = last.unwrap();
    assert_eq!(out.iter().filter(|o| o.is_rst()).count(), 2, "{out:?}");

    let (mut gate, mut conn, ..) = crossing();
    let last = (0..100).find_map(|_| {
        let out = conn.send(&mut gate, b"more");
        (!out.is_empty()).then_some(out)
    });
    let out = last.unwrap();
    assert_eq!(out.iter().filter(|o| o.is_rst()).count(), 2, "{out:?}");
}

#[test]
fn a_client_that_has_gone_leaves_no_socket_at_the_server() {
    let (mut gate, ..) = crossing();
    let before = gate.kernel.out.len();
    gate.wait(20);
    let out = gate.kernel.out.split_off(before);
    assert_eq!(out.len(), 2, "RST to both sides");
}

#[test]
fn a_reset_ends_the_wait_for_both_sides() {
    for from_client in [true, false] {
        let (mut gate, conn, before, behind) = crossing();
        let (seq, ack, way) = match from_client {
            true => (conn.client_seq, before, Outbound),
            false => (behind, conn.client_seq, Inbound),
        };
        let reset = conn.frame(from_client, TcpFlags::RST | TcpFlags::ACK, seq, ack, b"");
        let out = gate.arrives(way, &reset);
        assert!(out.iter().any(|o| o.to == way && o.is_rst()), "{out:?}");
        assert_eq!(acknowledge(&mut gate, &conn, behind).len(), 1, "reset too");
    }
}

#[test]
fn a_denied_grpc_call_gets_its_status() {
    let (mut gate, mut conn) = opened(&usual());
    let call = request(
        1,
        "POST",
        "/pkg.Greeter/Say",
        &[("content-type", "application/grpc")],
    );
    let out = conn.send(&mut gate, &begin(&call));
    let answer = &out.iter().find(|o| o.to == Inbound).unwrap().payload;
    let text = String::from_utf8_lossy(answer);
    assert!(text.contains("grpc-status\u{1}7"), "{text}");
    let Some(L7Facts::Http { grpc, .. }) = &gate.denials()[0].l7 else {
        panic!("facts")
    };
    let grpc = grpc.as_ref().unwrap();
    assert_eq!((&*grpc.service, &*grpc.method), ("pkg.Greeter", "Say"));
}

#[test]
fn an_upgrade_to_http2_is_followed() {
    const ASK: &[u8] = b"GET /v2/a HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade, \
        HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    for (agrees, path, passes) in [
        (true, "/v2/b", true),
        (true, "/admin", false),
        (false, "/v2/b", true),
        (false, "/admin", false),
    ] {
        let (mut gate, mut conn) = opened(&usual());
        assert!(
            reached(&conn.send(&mut gate, ASK), ASK),
            "no longer refused"
        );
        let (answer, next) = if agrees {
            let answer = &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"[..];
            (answer, begin(&request(3, "GET", path, &[])))
        } else {
            let answer = &b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..];
            let next = format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
            (answer, next.into_bytes())
        };
        conn.answer(&mut gate, answer);
        let out = conn.send(&mut gate, &next);
        assert_eq!(reached(&out, &next), passes, "{agrees} {path}");
        assert_eq!(gate.denials().is_empty(), passes, "{agrees} {path}");
    }
}

#[test]
fn a_policy_in_audit_mode_forwards_and_says_audited() {
    let rules = egress(
        "  - name: l7
    action: Allow
    ports: [{port: 80}]
    l7Protocols: [{http: {host: api.example.com, path: /v2/*}}]",
    )
    .replace("crd.antrea.io/v1beta1", "policy.tollgate.dev/v1alpha1")
    .replace(
        "\nspec:\n  priority",
        "\nspec:\n  enforcement: audit\n  priority",
    );
    let (mut gate, mut conn) = opened(&rules);
    let first = begin(&request(1, "GET", "/v2/a", &[]));
    assert!(reached(&conn.send(&mut gate, &first), &first));
    let second = request(3, "GET", "/admin", &[]);
    assert!(reached(&conn.send(&mut gate, &second), &second));
    // What cannot be read goes on too, and nothing behind it is judged.
    let garbage = [0xff; 64];
    assert!(reached(&conn.send(&mut gate, &garbage), &garbage));
    let words: Vec<_> = gate.verdicts().map(|v| (v.word, v.reason)).collect();
    let audited = VerdictWord::Audited;
    assert_eq!(words[0].0, VerdictWord::Allowed);
    assert_eq!(words[1], (audited, "http-no-rule-matches"));
    assert_eq!(words[2].0, audited);
    assert!(gate.denials().is_empty());
}
