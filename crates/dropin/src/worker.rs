//! A packet thread: takes frames from the port where the switch puts them, asks cache and engine, and
//! puts them out at the other port.
//!
//! A frame keeps its virtio-net header, so a super-packet passes as one and a partial checksum stays
//! partial. Its 802.1Q tag, which the kernel hands over beside it, is put back into it. On its way
//! through the engine the tag names endpoint and direction; both directions leave with the VLAN that
//! they came with. Nothing is ever sent by the port that frames come from.

mod output;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use tollgate_datapath::links;
use tollgate_datapath::packet::{Options, PacketSocket, Received, TAG_LEN, VNET_HEADER_LEN};
use tollgate_datapath::tap::MAX_FRAME_LEN;
use tollgate_engine::Engine;
use tollgate_engine::limits::Limits;
use tollgate_steer::{Fate, FlowCache};
use tollgate_wire::packet::{self, Layout, icmp_quoted};
use tollgate_wire::tag::{Direction, Tag};
use tollgate_wire::vnet::{VNET_HDR_LEN, VnetHdr};

use crate::board::Board;
use crate::config::{Midstream, Own, Pair};
use crate::conntrack::{Offloader, Released};
use crate::counters::{Counters, PortCounters};
use crate::eve::EventLog;
use crate::flows::{Class, Ends, Flows, Seen, Why};
use crate::log;
use crate::pods::Pods;
use output::{Parts, Way};

/// Frames read before other things are looked at: bounds how long a change of rules waits behind
/// traffic.
const BATCH: usize = 64;

/// How often the engine is told the time when nothing else happens.
const TICK: Duration = Duration::from_secs(1);

/// Bytes that may wait for the thread: some windows of super-packets.
const RECEIVE_BUFFER: u32 = 32 << 20;

/// Flows that the cache holds, as many as the engine knows at most.
const CACHED_FLOWS: usize = 131_072;

/// Place of the TCI in a frame with the engine's virtio-net header.
const TCI: usize = VNET_HDR_LEN + 14;

/// Bits of a TCI that are no VLAN: priority and drop eligibility.
const TCI_REST: u16 = 0xf000;

/// The engine's header is longer than the socket's by `num_buffers`.
const HEADER_GROWTH: usize = VNET_HDR_LEN - VNET_HEADER_LEN;

/// What a packet thread shares with the rest.
#[derive(Clone)]
pub struct Shared {
    /// Rules in force.
    pub board: Arc<Board>,
    /// Events.
    pub events: EventLog,
    /// Counters.
    pub counters: Arc<Counters>,
    /// Decided flows are told to the switch.
    pub offloader: Option<Offloader>,
    /// Pods' addresses.
    pub pods: Option<Pods>,
    /// Settings.
    pub own: Own,
}

/// A packet thread before it runs.
pub struct Worker {
    index: usize,
    from: PacketSocket,
    engine: Engine,
    parts: Parts,
    counters: Arc<PortCounters>,
    shared: Shared,
    is_down: bool,
    /// The ports by name and index: one that is made anew has its name and another index, and nothing
    /// would come by the old socket.
    ports: [(String, u32); 2],
}

/// Why a packet thread ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A port cannot be opened.
    #[error(transparent)]
    Open(#[from] tollgate_datapath::Error),
    /// A port was made anew.
    #[error("{0} is not the interface any more that it was")]
    Changed(String),
    /// A port does not work any more.
    #[error("receiving from {port}: {source}")]
    Receive {
        /// The port.
        port: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Time of the clock that the engine counts by.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Worker {
    /// Opens both ports. `index` is its number among the packet threads.
    ///
    /// # Errors
    /// A port is not there, or the system refuses.
    pub fn open(
        index: usize,
        pair: &Pair,
        counters: [Arc<PortCounters>; 2],
        shared: Shared,
    ) -> Result<Self, WorkerError> {
        // Before the sockets: an index that is too old is noticed.
        let index_of = |name: &String| links::index(name).map(|index| (name.clone(), index));
        let ports = [index_of(&pair.from)?, index_of(&pair.to)?];
        let options = Options {
            vnet_header: true,
            receive_buffer: RECEIVE_BUFFER,
            ..Options::default()
        };
        let from = PacketSocket::open(&pair.from, options)?;
        let options = Options {
            vnet_header: true,
            send_only: true,
            ..Options::default()
        };
        let to = PacketSocket::open(&pair.to, options)?;
        let [counters, out] = counters;
        let snapshot = shared.board.snapshot();
        let limits = Limits::default();
        Ok(Self {
            index,
            from,
            engine: Engine::new(Arc::clone(&snapshot.table), limits),
            parts: Parts {
                to,
                cache: FlowCache::new(CACHED_FLOWS),
                flows: Flows::new(first_flow_id(index)),
                snapshot,
                interface: pair.from.clone(),
                closed: Vec::new(),
                released: Released::default(),
                out,
                shared: shared.clone(),
            },
            counters,
            shared,
            is_down: false,
            ports,
        })
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// A port does not work any more.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        let result = self.work(stop);
        self.shared.board.leave(self.index);
        result
    }

    fn work(&mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        let mut buffer = vec![0; HEADER_GROWTH + TAG_LEN + MAX_FRAME_LEN];
        let mut next_tick = now() + TICK;
        self.take_up();
        self.shared
            .board
            .take(self.index, self.parts.snapshot.epoch);
        while !stop.load(Ordering::Relaxed) {
            self.wait(next_tick.saturating_sub(now()))?;
            self.take_up();
            for _ in 0..BATCH {
                let room = buffer.get_mut(HEADER_GROWTH + TAG_LEN..);
                match self.from.receive(room.unwrap_or_default()) {
                    Ok(received) => self.frame(received, &mut buffer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => self.failed(error)?,
                }
            }
            if now() >= next_tick {
                self.tick();
                self.look_at_ports()?;
                next_tick = now() + TICK;
            }
        }
        Ok(())
    }

    fn wait(&self, time: Duration) -> Result<(), WorkerError> {
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(&self.from, PollFlags::IN)];
        let waker = self.shared.board.waker(self.index);
        fds.extend(waker.map(|waker| PollFd::new(waker, PollFlags::IN)));
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(self.receive_error(error.into())),
        }
        if let Some(waker) = waker {
            // Empty if it was a frame that woke the thread.
            let _ = rustix::io::read(waker, &mut [0; 8]);
        }
        Ok(())
    }

    fn receive_error(&self, source: io::Error) -> WorkerError {
        WorkerError::Receive {
            port: self.parts.interface.clone(),
            source,
        }
    }

    /// A port that is down may come up again; one that is gone does not.
    fn failed(&mut self, error: io::Error) -> Result<(), WorkerError> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::NetworkDown => {
                if !std::mem::replace(&mut self.is_down, true) {
                    log::warning(format_args!("{} is down", self.parts.interface));
                }
                self.look_at_ports()
            }
            _ => Err(self.receive_error(error)),
        }
    }

    /// Who starts the process again opens what is there then.
    fn look_at_ports(&self) -> Result<(), WorkerError> {
        for (name, index) in &self.ports {
            if links::index(name)? != *index {
                return Err(WorkerError::Changed(name.clone()));
            }
        }
        Ok(())
    }

    /// Judges by the newest rules from here on.
    fn take_up(&mut self) {
        let board = Arc::clone(&self.shared.board);
        if board.epoch() == self.parts.snapshot.epoch {
            return;
        }
        let snapshot = board.snapshot();
        let table = Arc::clone(&snapshot.table);
        let epoch = snapshot.epoch;
        self.parts.snapshot = snapshot;
        let mut way = Way {
            parts: &mut self.parts,
            frame: &[],
        };
        self.engine.set_policy(now(), table, &mut way);
        self.forget(None);
        board.take(self.index, epoch);
    }

    fn tick(&mut self) {
        let time = now();
        for key in self.parts.released.take() {
            if self.parts.take_over(&key) {
                let mut way = Way {
                    parts: &mut self.parts,
                    frame: &[],
                };
                self.engine.flow_closed(time, &key, &mut way);
            }
        }
        let mut way = Way {
            parts: &mut self.parts,
            frame: &[],
        };
        self.engine.tick(time, &mut way);
        self.forget(None);
        self.parts.flows.tick(time);
    }

    /// A frame as it was received into the buffer, behind room for what it needs more.
    fn frame(&mut self, received: Received, buffer: &mut [u8]) {
        self.is_down = false;
        self.counters.packets.inc();
        self.counters.bytes.add(received.full_len as u64);
        if received.full_len > received.len {
            self.counters.truncated.inc();
            return;
        }
        let Some(frame) = for_engine(&received, buffer) else {
            return;
        };
        if VnetHdr::parse(frame).is_ok_and(|header| header.is_gso()) {
            self.counters.super_packets.inc();
        }
        let parsed = packet::parse(frame.get(VNET_HDR_LEN..).unwrap_or_default());
        let eth = match parsed {
            Ok(packet::Packet::Ip(layout)) => return self.ip(&layout, frame),
            Ok(packet::Packet::NonIp(eth)) => eth.vlan,
            Err(_) => received.vlan.map(|tag| tag.tci),
        };
        let Some(tci) = eth else {
            self.counters.untagged.inc();
            return;
        };
        let vlan = tci & !TCI_REST;
        if self.parts.snapshot.by_vlan.contains_key(&vlan) {
            self.shared.counters.unreadable.inc();
        } else {
            self.unknown(vlan, frame);
        }
    }

    fn ip(&mut self, layout: &Layout, frame: &mut [u8]) {
        let Some(tci) = layout.eth.vlan else {
            self.counters.untagged.inc();
            return;
        };
        let vlan = tci & !TCI_REST;
        let time = now();
        let ethernet = frame.get(VNET_HDR_LEN..).unwrap_or_default();
        let seen = Seen {
            now: time,
            vlan,
            layout,
            ethernet,
            quoted: icmp_quoted(ethernet, layout),
            endpoint: self.parts.snapshot.by_vlan.get(&vlan).copied(),
            midstream_passes: self.shared.own.midstream == Midstream::Pass,
        };
        let mut replaced = None;
        let class = self.parts.flows.classify(&seen, &mut replaced);
        if let Some(mut flow) = replaced {
            self.parts.ended(&mut flow);
        }
        match class {
            Class::Judged { tag, new } => {
                self.judged(time, vlan, tci, tag, new, layout, frame);
            }
            Class::Unjudged => {
                self.shared.counters.unjudged.inc();
                self.parts.send(frame, vlan);
            }
            Class::Unknown => self.unknown(vlan, frame),
            Class::Dropped(why) => self.dropped(why),
        }
    }

    fn unknown(&mut self, vlan: u16, frame: &[u8]) {
        if self.shared.own.drop_unknown || self.parts.snapshot.refuses_others {
            self.shared.counters.unknown_vlan_dropped.inc();
        } else {
            self.shared.counters.unknown_vlan_passed.inc();
            self.parts.send(frame, vlan);
        }
    }

    fn dropped(&self, why: Why) {
        let counters = &self.shared.counters;
        match why {
            Why::ReversedSyn => counters.reversed_syn.inc(),
            Why::UnrelatedIcmp => counters.unrelated_icmp.inc(),
            Why::UnknownFragment => counters.unknown_fragment.inc(),
            Why::EarlyAnswer => counters.midstream.inc(),
            Why::Full => counters.flows_full.inc(),
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "what is known of one packet, all of it needed"
    )]
    fn judged(
        &mut self,
        time: Duration,
        vlan: u16,
        tci: u16,
        tag: Tag,
        new: bool,
        layout: &Layout,
        frame: &mut [u8],
    ) {
        if new {
            self.shared.board.flow_opened(tag.endpoint);
            self.shared.counters.flows_opened.inc();
        }
        let named = tci & TCI_REST | tag.vlan_id();
        if let Some(place) = frame.get_mut(TCI..TCI + 2) {
            place.copy_from_slice(&named.to_be_bytes());
        }
        let frame = &*frame;
        let ends = Ends::of(vlan, layout);
        if tag.direction == Direction::Inbound {
            self.parts.answer(&ends, layout, frame);
        }
        match self.parts.fate(time, tag, layout, frame) {
            Fate::Pass { .. } => {
                self.shared.counters.passed_cached.inc();
                self.parts.send(frame, vlan);
            }
            Fate::Drop => {}
            Fate::Divert => self.ask(time, ends, tag, new, layout, frame),
        }
        for key in self.parts.cache.take_closed() {
            let mut way = Way {
                parts: &mut self.parts,
                frame: &[],
            };
            self.engine.flow_closed(time, &key, &mut way);
        }
    }

    fn ask(
        &mut self,
        time: Duration,
        ends: Ends,
        tag: Tag,
        new: bool,
        layout: &Layout,
        frame: &[u8],
    ) {
        let is_opening = layout.tcp().is_none_or(|tcp| tcp.flags.is_syn());
        if new && !is_opening {
            self.shared.counters.midstream.inc();
        }
        let before = self.engine.flow_count();
        let mut way = Way {
            parts: &mut self.parts,
            frame,
        };
        self.engine.handle(time, frame, &mut way);
        // A SYN may have taken the place of a flow with the same ends, whose end is told as well.
        self.forget(Some(ends).filter(|_| is_opening));
        if new && self.engine.flow_count() == before {
            // The engine did not take it.
            if let Some(mut flow) = self.parts.flows.remove(&ends, tag.endpoint) {
                self.parts.ended(&mut flow);
            }
        }
    }

    /// Forgets the flows that the engine has forgotten, but for one.
    fn forget(&mut self, kept: Option<Ends>) {
        let mut closed = std::mem::take(&mut self.parts.closed);
        for (ends, endpoint) in closed.drain(..) {
            if Some(ends) == kept {
                continue;
            }
            if let Some(flow) = self.parts.flows.remove(&ends, endpoint) {
                self.parts.forgotten(ends, flow);
            }
        }
        self.parts.closed = closed;
    }
}

/// Brings a frame into the engine's form: a virtio-net header of 12 bytes, and the tag in its place.
fn for_engine<'a>(received: &Received, buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let len = received.whole(buffer.get_mut(HEADER_GROWTH..)?, true).len();
    let start = HEADER_GROWTH + TAG_LEN + received.len - len;
    let begin = start - HEADER_GROWTH;
    buffer.copy_within(start..start + VNET_HEADER_LEN, begin);
    let frame = buffer.get_mut(begin..start + len)?;
    frame.get_mut(VNET_HEADER_LEN..VNET_HDR_LEN)?.fill(0);
    Some(frame)
}

/// Flow numbers must differ from those of a daemon before this one, and fit into 53 bits, which is
/// what readers that take numbers for floating point can tell apart.
fn first_flow_id(worker: usize) -> u64 {
    const SECONDS_BITS: u32 = 32;
    const WORKER_BITS: u32 = 3;
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let worker = worker as u64 & ((1 << WORKER_BITS) - 1);
    (now & ((1 << SECONDS_BITS) - 1)) << (53 - SECONDS_BITS)
        | worker << (53 - SECONDS_BITS - WORKER_BITS)
}
