//! Per-worker counters: published by one thread without locks, summed when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_engine::counters::Counters;

/// How many numbers an engine counts.
const ENGINE: usize = Counters::NAMES.len();

/// What a number means to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One cell. One worker writes it, anybody reads it.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`. Relaxed: readers want a number, not an order.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Replaces the value; for gauges, and for totals that are kept elsewhere.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One number of one or all workers, with what a reader needs to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Name without the product's prefix and without `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// The number.
    pub value: u64,
}

/// The numbers of one worker thread. Aligned so that two workers never write to the same cache
/// line.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    engine: [Cell; ENGINE],
    /// Frames written to the TAP.
    pub frames_written: Cell,
    /// Bytes of those frames, virtio-net header included.
    pub bytes_written: Cell,
    /// Frames that the TAP refused; they are lost.
    pub write_errors: Cell,
    /// Frames that the worker passed by its own flow cache, without the engine.
    pub cache_passed: Cell,
    /// Frames of denied flows that the worker dropped by its own flow cache.
    pub cache_dropped: Cell,
    /// Times the worker woke up.
    pub wakeups: Cell,
    /// Flows in the table now.
    pub flows: Cell,
    /// Bytes held back now until a verdict.
    pub held_bytes: Cell,
    /// Generation of the policy that the worker applies.
    pub policy_generation: Cell,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            engine: std::array::from_fn(|_| Cell::default()),
            frames_written: Cell::default(),
            bytes_written: Cell::default(),
            write_errors: Cell::default(),
            cache_passed: Cell::default(),
            cache_dropped: Cell::default(),
            wakeups: Cell::default(),
            flows: Cell::default(),
            held_bytes: Cell::default(),
            policy_generation: Cell::default(),
        }
    }
}

/// The name of the one number of which the lowest counts, not the sum.
const GENERATION: &str = "worker_policy_generation";

impl WorkerCounters {
    /// Shows what the engine counted; cheap enough for every wake-up.
    pub fn publish(&self, counters: &Counters) {
        for (cell, value) in self.engine.iter().zip(counters.values()) {
            cell.set(value);
        }
    }

    /// Every number of this worker.
    pub fn read(&self) -> Vec<Reading> {
        let named = Counters::NAMES.iter().zip(Counters::HELP).zip(&self.engine);
        let engine = named.map(|((name, help), cell)| Reading {
            name,
            help: help.trim(),
            kind: Kind::Counter,
            value: cell.get(),
        });
        engine.chain(self.own()).collect()
    }

    fn own(&self) -> [Reading; 9] {
        let reading = |name, help, kind, cell: &Cell| Reading {
            name,
            help,
            kind,
            value: cell.get(),
        };
        use Kind::{Counter, Gauge};
        [
            reading(
                "frames_written",
                "Frames written to the TAP.",
                Counter,
                &self.frames_written,
            ),
            reading(
                "bytes_written",
                "Bytes of frames written to the TAP, virtio-net headers included.",
                Counter,
                &self.bytes_written,
            ),
            reading(
                "write_errors",
                "Frames that the TAP refused.",
                Counter,
                &self.write_errors,
            ),
            reading(
                "cache_passed",
                "Frames that workers passed by their own flow caches (data path ovs).",
                Counter,
                &self.cache_passed,
            ),
            reading(
                "cache_dropped",
                "Frames of denied flows that workers dropped by their own flow caches (data path ovs).",
                Counter,
                &self.cache_dropped,
            ),
            reading(
                "wakeups",
                "Times that workers woke up.",
                Counter,
                &self.wakeups,
            ),
            reading("flows", "Flows in the engines' tables.", Gauge, &self.flows),
            reading(
                "held_bytes",
                "Bytes held back until a verdict.",
                Gauge,
                &self.held_bytes,
            ),
            reading(
                GENERATION,
                "Generation of the policy that the slowest worker applies.",
                Gauge,
                &self.policy_generation,
            ),
        ]
    }
}

/// One list of all workers' numbers: counters and gauges are summed, generations show the lowest.
pub fn sum<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Vec<Reading> {
    let mut total: Option<Vec<Reading>> = None;
    for worker in workers {
        let readings = worker.read();
        let Some(total) = total.as_mut() else {
            total = Some(readings);
            continue;
        };
        for (sum, one) in total.iter_mut().zip(readings) {
            sum.value = match sum.name {
                GENERATION => sum.value.min(one.value),
                _ => sum.value.saturating_add(one.value),
            };
        }
    }
    total.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up_and_the_oldest_generation_shows() {
        let workers = [WorkerCounters::default(), WorkerCounters::default()];
        workers[0].publish(&Counters {
            frames_in: 2,
            ..Counters::default()
        });
        workers[1].publish(&Counters {
            frames_in: 1,
            ..Counters::default()
        });
        workers[0].flows.set(5);
        workers[0].policy_generation.set(7);
        workers[1].policy_generation.set(6);
        let sums = sum(&workers);
        let value = |name| sums.iter().find(|r| r.name == name).unwrap().value;
        assert_eq!(value("frames_in"), 3);
        assert_eq!(value("flows"), 5);
        assert_eq!(value(GENERATION), 6);
        assert!(
            sums.iter()
                .all(|r| !r.help.is_empty() && !r.help.starts_with(' '))
        );
        assert!(sum([]).is_empty());
    }
}
