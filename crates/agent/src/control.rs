//! What the control plane and the worker threads have between them: an inbox per worker, and what
//! a worker is started with.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use tollgate_engine::FlowSummary;
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::names::NameTable;
use tollgate_engine::table::PolicyTable;

use crate::counters::WorkerCounters;
use crate::events::EventSender;
use crate::worker::Inherited;

/// Ends of flows that may wait in one inbox. What comes on top is forgotten: the engine's own time
/// limits end those flows a little later.
const MAX_CLOSED: usize = 65_536;

/// Where a worker sends its flows; a worker that ends without an answer drops it.
pub type FlowReply = oneshot::Sender<Vec<FlowSummary>>;

/// What the control plane asks of a worker.
pub enum Command {
    /// A new policy is in force.
    PolicyChanged(Arc<PolicyTable>),
    /// The kernel saw these flows end. Every worker gets all of them and ignores foreign ones.
    FlowClosed(Vec<FlowKey>),
    /// Flows of this worker's queue that the kernel went on passing while no agent ran.
    Adopt(Vec<Inherited>),
    /// Answer with the flows of the table.
    DumpFlows(FlowReply),
    /// End after the frames at hand.
    Stop,
}

#[derive(Default)]
struct Pending {
    commands: Vec<Command>,
    closed: usize,
}

/// One worker's inbox: a list and a descriptor that is readable while the list is not empty.
pub struct Inbox {
    pending: Mutex<Pending>,
    wake: OwnedFd,
    forgotten: AtomicU64,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            pending: Mutex::default(),
            wake,
            forgotten: AtomicU64::new(0),
        }))
    }

    /// Adds a command and wakes the worker.
    pub fn push(&self, command: Command) {
        let mut pending = self.lock();
        if let Command::FlowClosed(keys) = &command {
            if pending.closed + keys.len() > MAX_CLOSED {
                self.forgotten
                    .fetch_add(keys.len() as u64, Ordering::Relaxed);
                return;
            }
            pending.closed += keys.len();
        }
        pending.commands.push(command);
        drop(pending);
        // The only failure is a counter at its maximum, and then the descriptor is readable.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes everything, in order; the descriptor is unreadable until the next push.
    pub fn take(&self) -> Vec<Command> {
        // Cleared before the list is taken: a push in between wakes once too often, never too
        // rarely. Failure (nothing to clear) is no harm either.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        let mut pending = self.lock();
        pending.closed = 0;
        std::mem::take(&mut pending.commands)
    }

    /// Ends of flows that did not fit.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// One worker as the control plane knows it.
#[derive(Clone)]
pub struct WorkerHandle {
    /// Its inbox.
    pub inbox: Arc<Inbox>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
}

/// What a worker is started with, besides its TAP queue and its view of the flow cache.
pub struct WorkerContext {
    /// Its number, from 0; also the number of its TAP queue.
    pub index: usize,
    /// Where commands come from. The first is a [`Command::PolicyChanged`].
    pub inbox: Arc<Inbox>,
    /// Where events go.
    pub events: EventSender,
    /// Where it shows what it counts.
    pub counters: Arc<WorkerCounters>,
    /// Bounds of its engine.
    pub limits: Limits,
    /// The names that all workers share.
    pub names: Arc<NameTable>,
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::record::samples;

    fn readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    #[test]
    fn the_descriptor_is_readable_while_something_waits() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox));
        inbox.push(Command::FlowClosed(vec![samples::key()]));
        inbox.push(Command::Stop);
        assert!(readable(&inbox));
        let commands = inbox.take();
        assert!(matches!(
            commands[..],
            [Command::FlowClosed(_), Command::Stop]
        ));
        assert!(!readable(&inbox));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn ends_of_flows_cannot_fill_memory() {
        let inbox = Inbox::new().unwrap();
        let keys = vec![samples::key(); 40_000];
        inbox.push(Command::FlowClosed(keys.clone()));
        inbox.push(Command::FlowClosed(keys.clone()));
        assert_eq!(inbox.forgotten(), 40_000);
        assert_eq!(inbox.take().len(), 1);
        inbox.push(Command::FlowClosed(keys));
        assert_eq!(
            inbox.take().len(),
            1,
            "the bound is on what waits, not for ever"
        );
    }
}
