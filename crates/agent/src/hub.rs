//! Where events meet those who ask for them: recent events in memory, live observers, counters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::metrics::EventMetrics;
use crate::record::{Names, Record, Recorder, Stamped};

/// Events that one observer may lag behind before it misses some; it is told how many.
const OBSERVER_LAG: usize = 4096;

/// The hub.
#[derive(Debug)]
pub struct Hub {
    recorder: Recorder,
    names: ArcSwap<Names>,
    recent: Mutex<VecDeque<Arc<Stamped>>>,
    keep: usize,
    live: broadcast::Sender<Arc<Stamped>>,
    metrics: EventMetrics,
    log_writable: AtomicBool,
    log_all: bool,
    wants_all: Arc<AtomicBool>,
}

/// Live events. While one exists, the engines report everything.
#[derive(Debug)]
pub struct Observer {
    hub: Arc<Hub>,
    /// Always there, but in `drop`.
    live: Option<broadcast::Receiver<Arc<Stamped>>>,
}

impl Observer {
    /// The next event, or how many were missed; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Arc<Stamped>, u64>> {
        match self.live.as_mut()?.recv().await {
            Ok(stamped) => Some(Ok(stamped)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Err(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Where the events come from.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.live = None;
        self.hub.update_wishes();
    }
}

impl Hub {
    /// A hub that remembers `keep` events; `log_all`: the log wants all there are.
    pub fn new(recorder: Recorder, keep: usize, log_all: bool, metrics: EventMetrics) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            names: ArcSwap::default(),
            recent: Mutex::default(),
            keep,
            live: broadcast::channel(OBSERVER_LAG).0,
            metrics,
            log_writable: AtomicBool::new(true),
            log_all,
            wants_all: Arc::new(AtomicBool::new(log_all)),
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(keep: usize) -> Arc<Self> {
        let hub = Self::new(
            crate::record::samples::recorder(),
            keep,
            false,
            EventMetrics::default(),
        );
        hub.set_names(crate::record::samples::names());
        hub
    }

    /// Replaces the endpoints' names.
    pub fn set_names(&self, names: Names) {
        self.names.store(Arc::new(names));
    }

    /// The endpoints' names.
    pub fn names(&self) -> Arc<Names> {
        self.names.load_full()
    }

    /// What turns events into records.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// An event as readers see it.
    pub fn record(&self, stamped: &Stamped) -> Record {
        self.recorder.record(stamped, &self.names.load())
    }

    /// A notice for a reader that missed events.
    pub fn lost(&self, count: u64) -> Record {
        self.recorder.lost(Timestamp::now(), count)
    }

    /// Takes a batch in, in order; `batch` is empty afterwards.
    pub fn publish(&self, batch: &mut Vec<Stamped>) {
        let names = self.names.load();
        for stamped in batch.iter() {
            self.metrics.count(stamped, &names);
        }
        let mut recent = self.lock();
        let observed = self.live.receiver_count() > 0;
        for stamped in batch.drain(..).map(Arc::new) {
            if recent.len() >= self.keep {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&stamped));
            if observed {
                // An error says that the last observer left meanwhile.
                let _ = self.live.send(stamped);
            }
        }
    }

    /// The last `count` events, oldest first.
    pub fn recent(&self, count: usize) -> Vec<Arc<Stamped>> {
        let recent = self.lock();
        recent
            .iter()
            .skip(recent.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// All remembered events.
    pub fn remembered(&self) -> Vec<Arc<Stamped>> {
        self.recent(usize::MAX)
    }

    /// All remembered events and everything after them, without a gap or an overlap.
    pub fn observe(self: &Arc<Self>) -> (Vec<Arc<Stamped>>, Observer) {
        let recent = self.lock();
        let live = Some(self.live.subscribe());
        let past = recent.iter().cloned().collect();
        drop(recent);
        self.update_wishes();
        (
            past,
            Observer {
                hub: Arc::clone(self),
                live,
            },
        )
    }

    /// Whether anybody wants events that no rule asked for; shared with the workers.
    pub fn wants_all(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.wants_all)
    }

    fn update_wishes(&self) {
        let wanted = self.log_all || self.live.receiver_count() > 0;
        self.wants_all.store(wanted, Ordering::Relaxed);
    }

    /// Whether the last write to the verdict log succeeded.
    pub fn log_writable(&self) -> bool {
        self.log_writable.load(Ordering::Relaxed)
    }

    /// Notes whether the log can be written.
    pub fn set_log_writable(&self, writable: bool) {
        self.log_writable.store(writable, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Stamped>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_engine::event::VerdictWord;

    use super::*;
    use crate::record::samples::stamped;

    fn ids(events: &[Arc<Stamped>]) -> Vec<u64> {
        events.iter().map(|s| s.flow().unwrap().flow_id).collect()
    }

    #[tokio::test]
    async fn the_ring_keeps_the_latest_and_an_observer_sees_no_gap() {
        let hub = Hub::for_tests(3);
        let mut batch: Vec<_> = (0..5).map(|id| stamped(VerdictWord::Allowed, id)).collect();
        hub.publish(&mut batch);
        assert!(batch.is_empty());
        assert_eq!(ids(&hub.recent(2)), [3, 4]);
        let (past, mut live) = hub.observe();
        assert_eq!(ids(&past), [2, 3, 4]);
        hub.publish(&mut vec![stamped(VerdictWord::Allowed, 5)]);
        assert_eq!(
            live.next().await.unwrap().unwrap().flow().unwrap().flow_id,
            5
        );
    }

    #[tokio::test]
    async fn a_slow_observer_is_told_what_it_missed() {
        let hub = Hub::for_tests(1);
        let (_, mut live) = hub.observe();
        let mut batch: Vec<_> = (0..OBSERVER_LAG as u64 + 10)
            .map(|id| stamped(VerdictWord::Allowed, id))
            .collect();
        hub.publish(&mut batch);
        assert_eq!(live.next().await, Some(Err(10)));
        assert_eq!(
            live.next().await.unwrap().unwrap().flow().unwrap().flow_id,
            10
        );
    }

    #[test]
    fn everything_is_wanted_only_while_somebody_looks() {
        let hub = Hub::for_tests(1);
        let wanted = || hub.wants_all().load(Ordering::Relaxed);
        assert!(!wanted());
        let (first, second) = (hub.observe(), hub.observe());
        drop(first);
        assert!(wanted());
        drop(second);
        assert!(!wanted());
    }
}
