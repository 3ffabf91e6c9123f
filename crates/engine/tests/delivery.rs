//! What was judged is what is delivered, to a server that keeps the first of two versions of a byte and
//! to one that keeps the last: every way to cut, reorder, repeat and replace the client's bytes.

mod sim;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use sim::receiver::{Receiver, Wins};
use sim::{Conn, Gate, Out, SERVER, set_timestamp, table, usual};
use tollgate_engine::limits::Limits;
use tollgate_engine::table::PolicyTable;
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const PUT: &[u8] = b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 50\r\n\r\n";

/// A connection through the gate with both kinds of server at its end, which acknowledge the same.
struct Both {
    gate: Gate,
    conn: Conn,
    first: u32,
    servers: [Receiver; 2],
}

impl Both {
    fn new() -> Self {
        static POLICY: LazyLock<Arc<PolicyTable>> = LazyLock::new(|| table(&usual(), 1));
        let mut gate = Gate::with_table(POLICY.clone(), Limits::default());
        let mut conn = Conn::egress(SERVER);
        conn.open(&mut gate);
        let first = conn.client_seq;
        let servers = [Wins::First, Wins::Last].map(|wins| Receiver::new(wins, first));
        Self {
            gate,
            conn,
            first,
            servers,
        }
    }

    /// The client sends bytes at an offset of its stream; `lost`: they do not get from the gate to
    /// the server.
    fn send(&mut self, flags: TcpFlags, at: usize, bytes: &[u8], lost: bool) -> Vec<Out> {
        let seq = self.first.wrapping_add(at as u32);
        let frame = self
            .conn
            .frame(true, flags, seq, self.conn.server_seq, bytes);
        let out = self.gate.arrives(Outbound, &frame);
        if !lost {
            for server in &mut self.servers {
                server.take(&out, Outbound);
                server.check();
            }
        }
        out
    }

    /// The client sends a segment with a TCP timestamp.
    fn stamped(&mut self, at: usize, bytes: &[u8], timestamp: Option<u32>) -> Vec<Out> {
        let seq = self.first.wrapping_add(at as u32);
        let ack = self.conn.server_seq;
        let mut frame = self.conn.frame(true, TcpFlags::ACK, seq, ack, bytes);
        if let Some(value) = timestamp {
            set_timestamp(&mut frame, value);
        }
        let out = self.gate.arrives(Outbound, &frame);
        for server in &mut self.servers {
            server.take(&out, Outbound);
            server.check();
        }
        out
    }

    /// Somebody acknowledges in the server's name.
    fn acknowledge_as_if(&mut self, at: u32) {
        let ack = self.first.wrapping_add(at);
        let seq = self.conn.server_seq;
        let frame = self.conn.frame(false, TcpFlags::ACK, seq, ack, b"");
        self.gate.arrives(Inbound, &frame);
    }

    fn data(&mut self, at: usize, bytes: &[u8]) -> Vec<Out> {
        self.send(TcpFlags::ACK, at, bytes, false)
    }

    fn acknowledge(&mut self) {
        self.servers[0].acknowledge(&mut self.gate, &self.conn);
    }

    fn read(&self) -> &[u8] {
        assert_eq!(self.servers[0].read, self.servers[1].read);
        &self.servers[0].read
    }
}

/// Every order in which `pieces` can be sent.
fn orders(pieces: usize) -> Vec<Vec<usize>> {
    match pieces {
        2 => vec![vec![0, 1], vec![1, 0]],
        _ => vec![
            vec![0, 1, 2],
            vec![0, 2, 1],
            vec![1, 0, 2],
            vec![1, 2, 0],
            vec![2, 0, 1],
            vec![2, 1, 0],
        ],
    }
}

/// Sends a stream in the pieces between `cuts`, in every order.
fn in_pieces(stream: &[u8], cuts: &[usize], check: impl Fn(&Both)) {
    let ends: Vec<usize> = cuts.iter().copied().chain([stream.len()]).collect();
    for order in orders(ends.len()) {
        let mut both = Both::new();
        for piece in order {
            let start = if piece == 0 { 0 } else { ends[piece - 1] };
            both.data(start, &stream[start..ends[piece]]);
        }
        check(&both);
    }
}

fn never_complete(both: &Both) {
    let count = both.gate.denials().len();
    assert_eq!(count, 1, "denied once");
    assert!(both.read().len() < BAD.len(), "the head is not complete");
}

#[test]
fn a_forbidden_head_cut_anywhere_in_two_never_arrives() {
    for cut in 1..BAD.len() {
        in_pieces(BAD, &[cut], never_complete);
    }
}

#[test]
fn a_forbidden_head_cut_anywhere_in_three_never_arrives() {
    for first in 1..BAD.len() - 1 {
        for second in first + 1..BAD.len() {
            in_pieces(BAD, &[first, second], never_complete);
        }
    }
}

#[test]
fn an_allowed_head_cut_anywhere_arrives_unchanged() {
    for first in 1..GOOD.len() - 1 {
        in_pieces(GOOD, &[first], |both| assert_eq!(both.read(), GOOD));
        for second in (first + 1..GOOD.len()).step_by(5) {
            in_pieces(GOOD, &[first, second], |both| assert_eq!(both.read(), GOOD));
        }
    }
}

#[test]
fn a_super_packet_with_several_requests_passes_whole_or_not_at_all() {
    let stream = [GOOD, PUT, &[b'x'; 50], GOOD].concat();
    let mut both = Both::new();
    both.data(0, &stream);
    assert_eq!(both.read(), stream);
    let mut both = Both::new();
    both.data(0, &[&stream[..], BAD, GOOD].concat());
    assert_eq!(both.read(), b"");
}

#[test]
fn a_request_hidden_under_a_decoy_that_the_server_drops_does_not_come_out() {
    // The first version is judged and lost on the way (a stale timestamp, a hop limit too low, a full
    // receive window); the second one is what the server would read.
    for cut in 1..GOOD.len() {
        let mut both = Both::new();
        both.send(TcpFlags::ACK, 0, GOOD, true);
        both.data(0, BAD);
        both.data(cut, &BAD[cut..]);
        both.data(0, &BAD[..cut]);
        both.acknowledge();
        assert!(both.read().len() <= 6, "the common front at most");
        both.data(0, GOOD);
        assert_eq!(both.read(), GOOD);
    }
}

#[test]
fn bytes_replaced_while_they_wait_for_a_gap_are_those_that_were_judged() {
    for cut in 1..GOOD.len() {
        for [early, late] in [[GOOD, BAD], [BAD, GOOD]] {
            let mut both = Both::new();
            both.data(cut, &early[cut..]);
            both.data(cut, &late[cut..]);
            both.data(0, &GOOD[..cut]);
            both.data(cut, &late[cut..]);
            both.data(0, &early[..cut]);
        }
    }
}

#[test]
fn a_fin_anywhere_never_leaves_a_judged_head_unfinished() {
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    let stream = [GOOD, GOOD].concat();
    for at in 0..=stream.len() {
        for before in [true, false] {
            let mut both = Both::new();
            if before {
                both.send(FIN, at, b"", false);
            }
            both.data(0, GOOD);
            both.data(GOOD.len(), &stream[GOOD.len()..]);
            if !before {
                both.send(FIN, at, b"", false);
            }
            for server in &both.servers {
                let inside = server.read.len() % GOOD.len() != 0;
                assert!(!(server.has_ended() && inside), "{at} {before}");
            }
        }
    }
}

/// Where a segment begins, how long it is, whose version of the stream it is taken from, whether it is
/// lost behind the gate, whether the server acknowledges afterwards.
type Piece = (usize, usize, bool, bool, bool);

fn schedule(conflicts: f64) -> impl Strategy<Value = Vec<Piece>> {
    let piece = (
        0usize..420,
        1usize..120,
        prop::bool::weighted(conflicts),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    prop::collection::vec(piece, 1..80)
}

fn piece(stream: &[u8], start: usize, len: usize) -> &[u8] {
    let start = start.min(stream.len());
    &stream[start..(start + len).min(stream.len())]
}

/// An upload whose body is long enough for a window in the kernel, and looks like forbidden requests.
const LONG_PUT: &[u8] =
    b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 20000\r\n\r\n";
const LONG_BODY: usize = 20_000;
/// Payload of a full segment.
const SEGMENT: usize = 1400;

fn long_body() -> Vec<u8> {
    BAD.iter().copied().cycle().take(LONG_BODY).collect()
}

/// Where a segment begins: the middle of the long body is left out, its ends are what matters.
fn stretch(start: usize) -> usize {
    const FRONT: usize = GOOD.len() + LONG_PUT.len() + 60;
    if start < FRONT {
        start
    } else {
        start + LONG_BODY - 120
    }
}

/// The bytes that the gate let go by, each once.
#[derive(Default)]
struct LetBy(BTreeMap<u32, u8>);

impl LetBy {
    fn take(&mut self, out: &[Out], first: u32) {
        for frame in out.iter().filter(|frame| frame.to == Outbound) {
            let Some(header) = frame.header else { continue };
            let start = header.seq.wrapping_sub(first);
            for (at, byte) in (start..).zip(&frame.payload) {
                let earlier = *self.0.entry(at).or_insert(*byte);
                assert_eq!(earlier, *byte, "another byte at {at}");
            }
        }
    }

    fn end(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(at, _)| at + 1)
    }
}

#[test]
fn a_segment_that_is_too_old_for_the_server_is_judged_and_not_replaced() {
    let mut both = Both::new();
    both.stamped(0, GOOD, Some(10));
    // Judged, and thrown away by the server.
    assert_eq!(both.stamped(GOOD.len(), GOOD, Some(5)).len(), 1);
    assert_eq!(both.read(), GOOD);
    // Another one in its place would be read.
    assert_eq!(both.stamped(GOOD.len(), BAD, Some(11)), []);
    both.acknowledge();
    both.stamped(2 * GOOD.len(), GOOD, Some(11));
    assert_eq!(both.stamped(GOOD.len(), BAD, None), []);
    assert_eq!(both.read(), GOOD);
    both.stamped(GOOD.len(), GOOD, Some(11));
    assert_eq!(both.read(), GOOD.repeat(3));
}

/// Where a segment begins, how long it is, whose version it is taken from, its timestamp, who
/// acknowledges afterwards: nobody, the server, or somebody in its name who lies.
type Stamped = (usize, usize, bool, Option<u32>, u8);

fn stamped() -> impl Strategy<Value = Vec<Stamped>> {
    let piece = (
        0usize..6 * GOOD.len(),
        1usize..120,
        prop::bool::weighted(0.4),
        prop::option::weighted(0.8, 0u32..6),
        0u8..5,
    );
    prop::collection::vec(piece, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What a server reads that throws away what comes with an old timestamp is what was judged, also if
    /// somebody acknowledges in its name what it never got.
    #[test]
    fn what_was_judged_and_thrown_away_is_not_replaced(schedule in stamped()) {
        let good = GOOD.repeat(6);
        let evil = [GOOD, BAD, GOOD, BAD, BAD, GOOD].concat();
        let mut both = Both::new();
        let mut let_by = LetBy::default();
        for (start, len, is_evil, timestamp, acknowledges) in schedule {
            let bytes = piece(if is_evil { &evil } else { &good }, start, len).to_vec();
            let_by.take(&both.stamped(start, &bytes, timestamp), both.first);
            match acknowledges {
                0 | 1 => both.acknowledge(),
                2 => both.acknowledge_as_if(let_by.end()),
                _ => {}
            }
        }
        // Then everything in order, with the latest timestamp.
        for (at, bytes) in evil.chunks(40).enumerate() {
            let_by.take(&both.stamped(at * 40, bytes, Some(6)), both.first);
        }
        let judged: Vec<u8> = let_by.0.into_values().collect();
        prop_assert!(judged.starts_with(both.read()));
    }

    /// An honest client over a bad network: everything arrives as it was sent, except the denied.
    #[test]
    fn an_honest_stream_arrives_unchanged_up_to_what_is_denied(schedule in schedule(0.0)) {
        let allowed = [GOOD, LONG_PUT, &long_body(), GOOD, GOOD].concat();
        let mut both = Both::new();
        for (start, len, _, lost, acknowledges) in schedule {
            let start = stretch(start);
            let bytes = piece(&allowed, start, len).to_vec();
            if bytes.is_empty() {
                continue;
            }
            both.send(TcpFlags::ACK, start.min(allowed.len()), &bytes, lost);
            if acknowledges {
                both.acknowledge();
            }
        }
        prop_assert!(both.gate.denials().is_empty());
        for (at, bytes) in allowed.chunks(SEGMENT).enumerate() {
            both.data(at * SEGMENT, bytes);
        }
        both.data(allowed.len(), BAD);
        prop_assert!(both.read() == allowed, "{}", both.read().len());
        prop_assert_eq!(both.gate.denials().len(), 1);
    }

    /// A client that sends two versions of its stream: no server finds a request that was not allowed.
    #[test]
    fn two_versions_of_a_stream_never_make_a_forbidden_request(schedule in schedule(0.4)) {
        let good = [GOOD, LONG_PUT, &long_body(), GOOD, GOOD, GOOD, GOOD].concat();
        let evil = [GOOD, LONG_PUT, &long_body(), BAD, GOOD, BAD, BAD].concat();
        prop_assert_eq!(good.len(), evil.len());
        let mut both = Both::new();
        for (start, len, is_evil, lost, acknowledges) in schedule {
            let start = stretch(start);
            let bytes = piece(if is_evil { &evil } else { &good }, start, len).to_vec();
            if bytes.is_empty() {
                continue;
            }
            // Both kinds of server are checked after every segment.
            both.send(TcpFlags::ACK, start.min(good.len()), &bytes, lost);
            if acknowledges {
                both.acknowledge();
            }
        }
        // Then all of the forbidden version, in order.
        for (at, bytes) in evil.chunks(SEGMENT).enumerate() {
            both.send(TcpFlags::ACK, at * SEGMENT, bytes, false);
        }
    }
}
