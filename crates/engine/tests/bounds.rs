//! What an engine holds when it is made to hold as much as it can, and what happens then.

// Test support outside of test functions.
#![allow(clippy::unwrap_used)]

mod sim;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim::{Conn, SERVER, table, usual};
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::event::Event;
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::output::CacheFull;
use tollgate_engine::table::PolicyTable;
use tollgate_engine::{Engine, Output};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::{EndpointId, Tag};
use tollgate_wire::vnet::VNET_HDR_LEN;

/// The tests measure the process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

const NOW: Duration = Duration::from_secs(1000);
const HEAD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\nAccept: text/html\r\n";
/// More flows than one engine takes by default.
const MANY: u32 = 200_000;

/// A data path that remembers nothing, so that what grows is the engine. Counts what comes out.
#[derive(Default)]
struct Bare {
    frames: u64,
}

impl Output for Bare {
    fn emit(&mut self, _: &[u8]) {
        self.frames += 1;
    }
    fn cache_put(&mut self, _: &FlowKey, _: &CacheEntry) -> Result<(), CacheFull> {
        Err(CacheFull)
    }
    fn cache_get(&mut self, _: &FlowKey) -> Option<(CacheEntry, Progress)> {
        None
    }
    fn cache_delete(&mut self, _: &FlowKey) {}
    fn event(&mut self, _: Event) {}
    fn wants_all(&self) -> bool {
        false
    }
}

/// The connection of this number: to another server and port each.
fn conn(number: u32) -> Conn {
    let mut conn = Conn::egress(SERVER);
    let server = IpAddr::V4(Ipv4Addr::from(0x0a09_0000 + number / 50_000));
    conn.server = SocketAddr::new(server, 80);
    conn.client.set_port(10_000 + (number % 50_000) as u16);
    conn
}

struct Test {
    engine: Engine,
    out: Bare,
}

impl Test {
    fn new(limits: Limits) -> Self {
        Self {
            engine: Engine::new(table(&usual(), 1), limits),
            out: Bare::default(),
        }
    }

    fn frame(&mut self, frame: &[u8]) -> u64 {
        let before = self.out.frames;
        self.engine.handle(NOW, frame, &mut self.out);
        self.out.frames - before
    }

    /// Opens a flow; false: its SYN did not come out.
    fn open(&mut self, conn: &mut Conn) -> bool {
        let syn = conn.frame(true, TcpFlags::SYN, conn.client_seq, 0, b"");
        if self.frame(&syn) == 0 {
            return false;
        }
        conn.client_seq = conn.client_seq.wrapping_add(1);
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        let answer = conn.frame(false, flags, conn.server_seq, conn.client_seq, b"");
        conn.server_seq += 1;
        assert_eq!(self.frame(&answer), 1);
        true
    }

    /// The client's next bytes; false: nothing came out.
    fn send(&mut self, conn: &mut Conn, payload: &[u8]) -> bool {
        let (seq, ack) = (conn.client_seq, conn.server_seq);
        let passed = self.frame(&conn.frame(true, TcpFlags::ACK, seq, ack, payload)) > 0;
        if passed {
            conn.client_seq = seq.wrapping_add(payload.len() as u32);
        }
        passed
    }
}

/// Bytes of memory that the process has in use.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * PAGE
}

#[test]
fn the_engines_own_figure_is_what_the_process_grows_by() {
    let _alone = ALONE.lock();
    let limits = Limits {
        flows: MANY as usize,
        flows_per_endpoint: MANY as usize,
        ..Limits::default()
    };
    let mut test = Test::new(limits);
    let (start, empty) = (resident(), test.engine.memory());
    for number in 0..MANY {
        let mut conn = conn(number);
        assert!(test.open(&mut conn) && test.send(&mut conn, HEAD));
    }
    let (grown, told) = (resident() - start, test.engine.memory() - empty);
    println!("{MANY} undecided flows: {told} bytes told, {grown} grown by");
    assert_eq!(test.engine.flow_count(), MANY as usize);
    // Spare room that was never touched is told and not resident; what the allocator adds, and
    // alarms, are resident and not told.
    assert!(
        grown < told * 3 / 2 && told < grown * 3 / 2,
        "{told} {grown}"
    );
    assert!(told / MANY as usize <= 2048, "{told}");
}

#[test]
fn beyond_the_default_number_of_flows_new_ones_are_dropped_and_counted() {
    let _alone = ALONE.lock();
    let limits = Limits::default();
    let mut test = Test::new(limits);
    let mut passed = 0;
    for number in 0..MANY {
        let mut conn = conn(number);
        if test.open(&mut conn) {
            passed += 1;
            assert!(test.send(&mut conn, HEAD));
        } else {
            // Not one byte of a flow that is not in the table.
            conn.client_seq = conn.client_seq.wrapping_add(1);
            let seq = conn.client_seq;
            let frame = conn.frame(true, TcpFlags::NONE, seq, 0, HEAD);
            assert!(test.frame(&frame) <= 1, "an RST at most");
        }
    }
    assert_eq!(passed, limits.flows_per_endpoint);
    assert_eq!(test.engine.flow_count(), limits.flows_per_endpoint);
    let refused = u64::from(MANY) - limits.flows_per_endpoint as u64;
    assert_eq!(test.engine.counters().endpoint_flows_full, refused);
    assert!(test.engine.memory() < 256 << 20, "{}", test.engine.memory());
    // Flows that are in the table go on.
    let mut first = conn(0);
    first.client_seq = first.client_seq.wrapping_add(1 + HEAD.len() as u32);
    first.server_seq += 1;
    assert!(test.send(&mut first, b"\r\n"));
}

#[test]
fn heads_that_never_end_are_bounded_together_and_leave_room_for_small_ones() {
    let _alone = ALONE.lock();
    const JUDGED: usize = 16 << 20;
    let limits = Limits {
        judged_bytes: JUDGED,
        ..Limits::default()
    };
    let mut test = Test::new(limits);
    let line = [&b"X-Padding: "[..], &[b'x'; 1200], b"\r\n"].concat();
    let mut conns = Vec::new();
    for number in 0..5000 {
        let mut conn = conn(number);
        assert!(test.open(&mut conn));
        if test.send(&mut conn, HEAD) {
            conns.push(conn);
        }
    }
    // Everyone goes on with its head as long as anything is let through.
    let mut stuck = false;
    while !stuck {
        stuck = true;
        for conn in &mut conns {
            stuck &= !test.send(conn, &line);
        }
        assert!(
            test.engine.judged_bytes() <= JUDGED,
            "{}",
            test.engine.judged_bytes()
        );
    }
    assert!(test.engine.counters().kept_full > 0);
    let used = test.engine.judged_bytes();
    assert!(used > JUDGED / 2, "{used}: most of the room is used");
    // A small request of a new flow still finds room.
    let mut late = conn(9999);
    assert!(test.open(&mut late));
    let request = b"GET /v2/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    assert!(test.send(&mut late, request));
}

/// The frame as if another endpoint had sent it.
fn of_another(frame: &[u8]) -> Vec<u8> {
    let endpoint = EndpointId::new(2).unwrap();
    let tci = VNET_HDR_LEN + 14..VNET_HDR_LEN + 16;
    let vlan = u16::from_be_bytes(frame[tci.clone()].try_into().unwrap());
    let direction = Tag::from_vlan_id(vlan).unwrap().direction;
    let tag = Tag {
        endpoint,
        direction,
    };
    let mut frame = frame.to_vec();
    frame[tci].copy_from_slice(&tag.vlan_id().to_be_bytes());
    frame
}

#[test]
fn one_endpoint_takes_no_more_than_its_share() {
    let _alone = ALONE.lock();
    const SHARE: usize = 8 << 20;
    let limits = Limits {
        judged_bytes: 4 * SHARE,
        judged_bytes_per_endpoint: SHARE,
        ..Limits::default()
    };
    let first = table(&usual(), 1);
    let web = first.by_id[1].clone();
    let both = PolicyTable {
        generation: 1,
        by_id: vec![None, web.clone(), web],
    };
    let mut test = Test {
        engine: Engine::new(Arc::new(both), limits),
        out: Bare::default(),
    };
    // More heads than there is room for.
    let head = [HEAD, b"X-Padding: ", &[b'x'; 1100], b"\r\n"].concat();
    let mut passed = 0;
    let mut conns: Vec<_> = (0..5000).map(conn).collect();
    for conn in &mut conns {
        assert!(test.open(conn));
    }
    for conn in &mut conns {
        passed += usize::from(test.send(conn, &head));
        let used = test.engine.judged_bytes();
        assert!(used <= SHARE, "{used} after {passed}");
    }
    assert!((1000..5000).contains(&passed), "{passed}");
    let counters = *test.engine.counters();
    assert!(counters.endpoint_kept_full > 0);
    assert_eq!(counters.kept_full, 0, "there is room for others");
    // Of which another endpoint has as much as ever.
    let conn = conn(0);
    let mut frames = |flags, seq, payload: &[u8]| {
        let frame = conn.frame(true, flags, seq, conn.server_seq + 1, payload);
        test.frame(&of_another(&frame))
    };
    assert_eq!(frames(TcpFlags::SYN, conn.client_seq, b""), 1);
    let answer = conn.frame(
        false,
        TcpFlags::SYN | TcpFlags::ACK,
        conn.server_seq,
        conn.client_seq + 1,
        b"",
    );
    let answer = of_another(&answer);
    assert_eq!(test.frame(&answer), 1);
    let seq = conn.client_seq + 1;
    let large = [&head[..], &b"X-More: x\r\n".repeat(20), b"\r\n"].concat();
    let frame = conn.frame(true, TcpFlags::ACK, seq, conn.server_seq + 1, &large);
    assert_eq!(test.frame(&of_another(&frame)), 1);
}

#[test]
fn small_chunks_cost_no_more_than_is_allowed() {
    let _alone = ALONE.lock();
    let limits = Limits::default();
    let mut test = Test::new(limits);
    let mut conn = conn(0);
    test.open(&mut conn);
    let head =
        b"PUT /upload/a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(test.send(&mut conn, head));
    // The server acknowledges nothing of it.
    let chunks = b"1\r\nx\r\n".repeat(200);
    for _ in 0..1000 {
        test.send(&mut conn, &chunks);
    }
    assert!(test.engine.counters().kept_full > 0);
    let used = test.engine.judged_bytes();
    assert!(used < limits.kept_bytes_per_flow + (64 << 10), "{used}");
}
