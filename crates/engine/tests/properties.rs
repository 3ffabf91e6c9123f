//! Whatever arrives: no panic, no growth past the bounds, and no byte of the client's stream is
//! ever delivered in two versions or behind a denied request.

mod sim;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sim::{Conn, Gate, Out, SERVER, client_hello, usual};
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::{Inbound, Outbound};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const BAD: &[u8] = b"GET /v1/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";

/// What the server got: each byte of the stream, by its offset.
#[derive(Default)]
struct Server {
    bytes: BTreeMap<u32, u8>,
}

impl Server {
    fn take(&mut self, out: &[Out], first: u32) {
        for frame in out.iter().filter(|o| o.to == Outbound) {
            let Some(header) = frame.header else { continue };
            for (i, byte) in frame.payload.iter().enumerate() {
                let at = header.seq.wrapping_add(i as u32).wrapping_sub(first);
                let earlier = *self.bytes.entry(at).or_insert(*byte);
                assert_eq!(earlier, *byte, "two versions of byte {at} were delivered");
            }
        }
    }

    /// The stream as far as it has no gap.
    fn stream(&self) -> Vec<u8> {
        self.bytes
            .iter()
            .enumerate()
            .take_while(|(i, (at, _))| *i as u32 == **at)
            .map(|(_, (_, b))| *b)
            .collect()
    }
}

/// A segment: where it starts, how long it is, whose version of the stream it is taken from.
type Piece = (usize, usize, bool);

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop::collection::vec((0usize..200, 1usize..80, prop::bool::weighted(0.3)), 1..60)
}

proptest! {
    #[test]
    fn one_version_of_every_byte_and_nothing_denied(pieces in pieces()) {
        let good = GOOD.repeat(6);
        let bad = [GOOD, BAD, GOOD, BAD, GOOD, GOOD].concat();
        let mut gate = Gate::new(&usual());
        let mut conn = Conn::egress(SERVER);
        conn.open(&mut gate);
        let first = conn.client_seq;
        let mut server = Server::default();
        for (start, len, from_bad) in pieces {
            let stream = if from_bad { &bad } else { &good };
            let end = (start + len).min(stream.len());
            let out = conn.send_at(&mut gate, first.wrapping_add(start as u32), &stream[start..end]);
            server.take(&out, first);
            if gate.denials().is_empty() {
                conn.answer(&mut gate, b"");
            }
        }
        let stream = server.stream();
        let whole_bad = stream.windows(BAD.len()).any(|window| window == BAD);
        prop_assert!(!whole_bad, "{}", String::from_utf8_lossy(&stream));
    }

    #[test]
    fn random_segments_never_panic_and_stay_within_bounds(
        steps in prop::collection::vec(
            (any::<bool>(), 0u8..64, -3000i32..6000, prop::collection::vec(any::<u8>(), 0..60), 0usize..4),
            1..60,
        ),
    ) {
        let limits = Limits {
            flows: 8, flows_per_endpoint: 8, held_bytes_per_flow: 2000, held_bytes: 4000,
            kept_bytes_per_flow: 3000, ..Limits::default()
        };
        let mut gate = Gate::with_limits(&usual(), limits);
        let hello = client_hello("www.example.com", 500);
        let mut conn = Conn::egress(SERVER);
        let base = conn.client_seq;
        for (from_client, flags, shift, noise, what) in steps {
            let payload = [&noise[..], GOOD, &hello, b""][what];
            let (seq, direction) = match from_client {
                true => (base.wrapping_add_signed(shift), Outbound),
                false => (conn.server_seq.wrapping_add_signed(shift), Inbound),
            };
            conn.client.set_port(40_000 + u16::from(flags) % 12);
            let ack = base.wrapping_add_signed(shift / 2);
            let frame = conn.frame(from_client, TcpFlags(flags), seq, ack, payload);
            gate.arrives(direction, &frame);
            prop_assert!(gate.engine.flow_count() <= 8);
            prop_assert!(gate.engine.held_bytes() <= 4000);
        }
        gate.wait(4000);
        prop_assert_eq!(gate.engine.held_bytes(), 0);
        prop_assert_eq!(gate.engine.judged_bytes(), 0);
        prop_assert_eq!(gate.engine.flow_count(), 0);
        prop_assert!(gate.kernel.flows.is_empty());
    }

    #[test]
    fn random_and_mutated_frames_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((0usize..120, any::<u8>()), 0..6),
        cut in 0usize..140,
    ) {
        let mut gate = Gate::new(&usual());
        let conn = Conn::egress(SERVER);
        let mut frame = conn.frame(true, TcpFlags::SYN, 1, 0, GOOD);
        for (at, byte) in changes {
            let at = at % frame.len();
            frame[at] = byte;
        }
        frame.truncate(cut.max(12));
        gate.engine.handle(gate.now, &frame, &mut Sink);
        gate.engine.handle(gate.now, &noise, &mut Sink);
    }
}

/// Takes everything; a mutated frame's checksum need not be right.
struct Sink;

impl tollgate_engine::Output for Sink {
    fn emit(&mut self, _: &[u8]) {}
    fn cache_put(
        &mut self,
        _: &FlowKey,
        _: &CacheEntry,
    ) -> Result<(), tollgate_engine::output::CacheFull> {
        Ok(())
    }
    fn cache_get(&mut self, _: &FlowKey) -> Option<(CacheEntry, Progress)> {
        None
    }
    fn cache_delete(&mut self, _: &FlowKey) {}
    fn event(&mut self, _: tollgate_engine::event::Event) {}
    fn wants_all(&self) -> bool {
        true
    }
}
