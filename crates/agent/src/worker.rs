//! One worker: a thread that owns a TAP queue, an engine, and every flow whose hash leads to that
//! queue. It shares nothing with the other workers but the kernel's maps, and the names that
//! endpoints were told.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use tollgate_datapath::ovs::flows::{UNDECIDE, code};
use tollgate_datapath::sched;
use tollgate_datapath::tap::{MAX_FRAME_LEN, TapQueue};
use tollgate_engine::cache::{CacheEntry, Progress, Steer};
use tollgate_engine::event::Event;
use tollgate_engine::key::FlowKey;
use tollgate_engine::output::CacheFull;
use tollgate_engine::table::PolicyTable;
use tollgate_engine::{Engine, Output, Remembered};
use tollgate_steer::{Fate, FlowCache, Packet};
use tollgate_wire::edit::set_vlan;
use tollgate_wire::packet::{self, L4, parse};
use tollgate_wire::tag::Tag;
use tollgate_wire::vnet;

use crate::control::{Command, Inbox, WorkerContext};
use crate::counters::WorkerCounters;
use crate::events::EventSender;
use crate::ovs::saved::CachedFlow;
use crate::store::FlowStore;

/// Frames read before the inbox is looked at again: bounds how long a policy change waits behind
/// traffic (64 super-packets are about a millisecond).
const BATCH: usize = 64;

/// How often the engine is told the time when nothing else happens.
const TICK: Duration = Duration::from_secs(1);

/// A flow that the kernel went on passing while no agent ran.
#[derive(Clone, Debug)]
pub struct Inherited {
    /// The flow.
    pub key: FlowKey,
    /// What the kernel does with it.
    pub entry: CacheEntry,
    /// What the agent before this one knew of it.
    pub remembered: Option<Remembered>,
    /// The policy is the one that it was decided under.
    pub policy_unchanged: bool,
}

/// The engine's way out to the kernel.
struct Live {
    queue: TapQueue,
    flows: FlowStore,
    events: EventSender,
    counters: Arc<WorkerCounters>,
    wants_all: Arc<AtomicBool>,
    /// Room for a frame whose tag is changed.
    scratch: Vec<u8>,
}

impl Live {
    fn write(&mut self, frame: &[u8]) {
        match self.queue.write(frame) {
            Ok(_) => {
                self.counters.frames_written.inc();
                self.counters.bytes_written.add(frame.len() as u64);
            }
            // The frame is lost as on any full link; TCP sends it again.
            Err(_) => self.counters.write_errors.inc(),
        }
    }
}

impl Output for Live {
    fn emit(&mut self, frame: &[u8]) {
        if let FlowStore::Own(cache) = &self.flows
            && let Some(tci) = taken_back(cache, frame)
        {
            let mut signed = std::mem::take(&mut self.scratch);
            signed.clear();
            signed.extend_from_slice(frame);
            // It has a tag: without one there would be nothing to take back.
            let _ = set_vlan(&mut signed, tci);
            self.write(&signed);
            self.scratch = signed;
            return;
        }
        self.write(frame);
    }

    fn cache_put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        self.flows.put(key, entry)
    }

    fn cache_get(&mut self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        self.flows.get(key)
    }

    fn cache_delete(&mut self, key: &FlowKey) {
        self.flows.delete(key);
    }

    fn passes_unseen(&self) -> bool {
        matches!(self.flows, FlowStore::Own(_))
    }

    fn event(&mut self, event: Event) {
        self.events.send(event);
    }

    fn wants_all(&self) -> bool {
        self.wants_all.load(Ordering::Relaxed)
    }
}

/// What a worker leaves when it is told to stop.
#[derive(Debug, Default)]
pub struct Left {
    /// What the next agent should know of the flows.
    pub remembered: Vec<Remembered>,
    /// The flow cache, if it is the worker's own.
    pub flows: Vec<CachedFlow>,
}

/// A worker, ready to run.
pub struct Worker {
    engine: Engine,
    live: Live,
    inbox: Arc<Inbox>,
    last_tick: Duration,
    generation: u64,
}

impl Worker {
    /// A worker on its queue. It denies everything until its first policy comes.
    pub fn new(
        context: WorkerContext,
        queue: TapQueue,
        flows: FlowStore,
        wants_all: Arc<AtomicBool>,
    ) -> Self {
        let live = Live {
            queue,
            flows,
            events: context.events,
            counters: context.counters,
            wants_all,
            scratch: Vec::new(),
        };
        let mut engine = Engine::new(Arc::new(PolicyTable::default()), context.limits);
        engine.set_names(context.names);
        Self {
            engine,
            live,
            inbox: context.inbox,
            last_tick: Duration::ZERO,
            generation: 0,
        }
    }

    /// Works until [`Command::Stop`]; returns what the next agent needs.
    ///
    /// # Errors
    /// Waiting for or reading the TAP failed for good: the device is gone.
    pub fn run(mut self) -> io::Result<Left> {
        if let Err(error) = sched::batch() {
            tracing::warn!(%error, "the worker may preempt what it serves");
        }
        let mut frame = vec![0; MAX_FRAME_LEN];
        loop {
            if self.wait()? && !self.obey() {
                return Ok(Left {
                    remembered: self.engine.remember(),
                    flows: self.live.flows.to_leave(),
                });
            }
            self.read_batch(&mut frame)?;
            self.tick();
            self.publish();
        }
    }

    /// Sleeps until there is a frame, a command (then true), or it is time to tick.
    fn wait(&mut self) -> io::Result<bool> {
        let now = monotonic();
        let left = (self.last_tick + TICK).saturating_sub(now);
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.live.queue.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.inbox.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.live.counters.wakeups.inc();
        Ok(!fds[1].revents().is_empty())
    }

    /// Does what the inbox says; false: stop.
    fn obey(&mut self) -> bool {
        for command in self.inbox.take() {
            let now = monotonic();
            match command {
                Command::PolicyChanged(table) => {
                    self.generation = table.generation;
                    self.engine.set_policy(now, table, &mut self.live);
                }
                Command::FlowClosed(keys) => {
                    for key in &keys {
                        self.engine.flow_closed(now, key, &mut self.live);
                    }
                }
                Command::Adopt(flows) => self.adopt(now, flows),
                Command::DumpFlows(reply) => {
                    // Whoever asked may have gone away.
                    let _ = reply.send(self.engine.summaries(now, &mut self.live));
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn adopt(&mut self, now: Duration, flows: Vec<Inherited>) {
        for flow in flows {
            let Inherited {
                key,
                entry,
                remembered,
                policy_unchanged,
            } = flow;
            self.engine.adopt(
                now,
                key,
                entry,
                remembered,
                policy_unchanged,
                &mut self.live,
            );
        }
    }

    fn read_batch(&mut self, frame: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let len = match self.live.queue.read(frame) {
                Ok(len) => len,
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let Some(frame) = frame.get_mut(..len) else {
                continue;
            };
            let now = monotonic();
            if !self.steer(now, frame) {
                self.engine.handle(now, frame, &mut self.live);
            }
        }
        Ok(())
    }

    /// Does what the kernel program does elsewhere; false: the engine has to see the frame.
    fn steer(&mut self, now: Duration, frame: &mut [u8]) -> bool {
        let FlowStore::Own(cache) = &mut self.live.flows else {
            return false;
        };
        let Some((fate, tci)) = fate(cache, now, frame) else {
            return false;
        };
        for key in cache.take_closed() {
            self.engine.flow_closed(now, &key, &mut self.live);
        }
        match fate {
            Fate::Divert => return false,
            Fate::Drop => self.live.counters.cache_dropped.inc(),
            Fate::Pass { decided } => {
                self.live.counters.cache_passed.inc();
                if decided {
                    let tci = with_priority(tci, code(self.generation));
                    // It has a tag: without one there would be no fate.
                    let _ = set_vlan(frame, tci);
                }
                self.live.write(frame);
            }
        }
        true
    }

    fn tick(&mut self) {
        let now = monotonic();
        if now >= self.last_tick + TICK {
            self.last_tick = now;
            self.engine.tick(now, &mut self.live);
        }
    }

    fn publish(&self) {
        let counters = &self.live.counters;
        counters.publish(self.engine.counters());
        counters.flows.set(self.engine.flow_count() as u64);
        counters.held_bytes.set(self.engine.held_bytes() as u64);
        // Here and not where the command is obeyed: now every flow, adopted ones too, is judged.
        counters.policy_generation.set(self.generation);
    }
}

/// The VLAN id in a tag, and where the priority begins (IEEE 802.1Q, 9.6).
const VLAN_ID: u16 = 0x0fff;
const PRIORITY_SHIFT: u32 = 13;

fn with_priority(tci: u16, priority: u8) -> u16 {
    tci & VLAN_ID | u16::from(priority) << PRIORITY_SHIFT
}

/// The tag for a frame that the engine itself sends, if it has not let go of the flow: the switch must not
/// pass anything of it on its own before the worker has seen what follows. So the answer to every request
/// brings the server's acknowledgement up, and a flow that was decided and is not any more comes back.
fn taken_back(cache: &FlowCache, frame: &[u8]) -> Option<u16> {
    const PASS: CacheEntry = CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    };
    let (_, ethernet) = vnet::split(frame).ok()?;
    let packet::Packet::Ip(layout) = parse(ethernet).ok()? else {
        return None;
    };
    if matches!(layout.l4, L4::Fragment(_)) {
        // Connection tracking would wait for the other ones, which do not all come by there.
        return None;
    }
    let tci = layout.eth.vlan?;
    let key = FlowKey::of(Tag::from_vlan_id(tci)?, &layout);
    let is_open = cache.get(&key).is_some_and(|(entry, _)| entry == PASS);
    (!is_open).then(|| with_priority(tci, UNDECIDE))
}

/// What happens to a frame, and its tag; `None`: it is for the engine to say what is wrong with it.
fn fate(cache: &mut FlowCache, now: Duration, frame: &[u8]) -> Option<(Fate, u16)> {
    let (header, ethernet) = vnet::split(frame).ok()?;
    let packet::Packet::Ip(layout) = parse(ethernet).ok()? else {
        return None;
    };
    let tci = layout.eth.vlan?;
    let packet = Packet {
        tag: Tag::from_vlan_id(tci)?,
        layout: &layout,
        ethernet,
        gso_size: if header.is_gso() { header.gso_size } else { 0 },
    };
    Some((cache.fate(now, &packet), tci))
}

/// Nothing there, or nothing there for the moment (the device is down while it is reconfigured).
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The clock that the kernel programs use too.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // Since boot, so neither part is ever negative.
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
