//! The way of an event: from a worker through a bounded queue to one writer thread, and from there
//! to the log file, the counters and whoever observes.
//!
//! A worker pays for one short lock and, only when the writer sleeps, for waking it: the writer
//! takes what has gathered in batches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tollgate_engine::event::Event;

use crate::hub::Hub;
use crate::offloads::OffloadChange;
use crate::record::{Stamped, What};
use crate::verdict_log::VerdictLog;

/// How long the writer lets events gather while they keep coming: a wake-up per event would cost
/// a worker more than the event itself. Observers see a verdict at most this much later.
const GATHER: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Queue {
    events: Vec<Stamped>,
    /// The writer waits on the condition variable without a time-out.
    idle: bool,
    stop: bool,
}

/// The queue that all workers share.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<Queue>,
    wake: Condvar,
    capacity: usize,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

/// A worker's end of the queue.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: Arc<Events>,
    worker: usize,
}

impl Events {
    /// A queue for at most `capacity` events.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            capacity,
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        })
    }

    /// The end of one worker.
    pub fn sender(self: &Arc<Self>, worker: usize) -> EventSender {
        EventSender {
            events: Arc::clone(self),
            worker,
        }
    }

    /// Events lost because the writer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lets the writer close the log file and open it again by name, after a rotation.
    pub fn reopen_log(&self) {
        self.reopen.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Lets the writer end after what is queued.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Hands over what the keeper of offloads has to say.
    pub fn tell(&self, change: OffloadChange) {
        self.push(Stamped {
            time: Timestamp::now(),
            what: What::Offload(change),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A worker that panicked while pushing left a whole vector behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, stamped: Stamped) {
        let mut queue = self.lock();
        if queue.events.len() >= self.capacity {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.events.push(stamped);
        let wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The next batch into `batch` (empty: only look whether the log is to be reopened); false at
    /// the end.
    fn next(&self, batch: &mut Vec<Stamped>) -> bool {
        let mut queue = self.lock();
        while queue.events.is_empty() && !queue.stop && !self.reopen.load(Ordering::Acquire) {
            queue.idle = true;
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        std::mem::swap(&mut queue.events, batch);
        !(queue.stop && batch.is_empty())
    }

    /// Waits while events gather, unless the end has come.
    fn gather(&self) {
        let queue = self.lock();
        if !queue.stop {
            let _ = self.wake.wait_timeout(queue, GATHER);
        }
    }
}

impl EventSender {
    /// Hands an event over with the present time; never blocks, a full queue counts and drops it.
    pub fn send(&self, event: Event) {
        self.events.push(Stamped {
            time: Timestamp::now(),
            what: What::Flow {
                worker: self.worker,
                event,
            },
        });
    }
}

/// Starts the writer thread. It ends after [`Events::stop`].
pub fn spawn_writer(
    events: Arc<Events>,
    hub: Arc<Hub>,
    log: Option<VerdictLog>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("tg-events".to_owned())
        .spawn(move || write_all(&events, &hub, log))
}

fn write_all(events: &Events, hub: &Hub, mut log: Option<VerdictLog>) {
    let mut batch = Vec::new();
    while events.next(&mut batch) {
        if let Some(log) = log.as_mut() {
            if events.reopen.swap(false, Ordering::AcqRel) {
                log.reopen();
            }
            log.write(&batch, hub);
        } else {
            events.reopen.store(false, Ordering::Release);
        }
        hub.publish(&mut batch);
        events.gather();
    }
}

#[cfg(test)]
mod tests {
    use tollgate_engine::event::VerdictWord;

    use super::*;
    use crate::record::samples;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let events = Events::new(2);
        let sender = events.sender(0);
        for id in 0..5 {
            sender.send(
                samples::stamped(VerdictWord::Allowed, id)
                    .flow()
                    .unwrap()
                    .clone(),
            );
        }
        assert_eq!(events.dropped(), 3);
        let mut batch = Vec::new();
        assert!(events.next(&mut batch));
        let ids: Vec<_> = batch.iter().map(|s| s.flow().unwrap().flow_id).collect();
        assert_eq!(ids, [0, 1], "the oldest stay");
    }

    #[test]
    fn what_is_queued_before_the_stop_is_written() {
        let events = Events::new(10);
        let hub = Hub::for_tests(10);
        events.sender(0).send(
            samples::stamped(VerdictWord::Denied, 7)
                .flow()
                .unwrap()
                .clone(),
        );
        events.stop();
        spawn_writer(Arc::clone(&events), Arc::clone(&hub), None)
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(hub.recent(10).len(), 1);
    }
}
