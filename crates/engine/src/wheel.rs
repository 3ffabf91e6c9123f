//! A timing wheel with one-second slots: cheap to arm, never cancelled. Whoever is woken looks at
//! the flow and arms again if it is not time yet.

use std::time::Duration;

/// Slots; also the longest delay in seconds. Longer delays are cut and re-armed when they fire.
const SLOTS: usize = 4096;

/// What is armed: a slab index and the generation it had, so that a reused index is not mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub index: usize,
    pub id: u64,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<Alarm>>,
    /// Second up to which (inclusive) everything has fired.
    fired: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            fired: 0,
        }
    }

    /// Fires at the first whole second not before `at`.
    pub(crate) fn arm(&mut self, at: Duration, alarm: Alarm) {
        let second = at.as_secs() + u64::from(at.subsec_nanos() > 0);
        let second = second.clamp(self.fired + 1, self.fired + SLOTS as u64 - 1);
        let slot = (second % SLOTS as u64) as usize;
        self.slots[slot].push(alarm);
    }

    /// Everything that is due; each call moves the wheel on to `now`.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Alarm> {
        let now = now.as_secs();
        if self.fired == 0 || now.saturating_sub(self.fired) >= SLOTS as u64 {
            return self.jump(now);
        }
        let mut due = Vec::new();
        while self.fired < now {
            self.fired += 1;
            due.append(&mut self.slots[(self.fired % SLOTS as u64) as usize]);
        }
        due
    }

    /// First use, or a pause longer than the wheel: everything is due.
    fn jump(&mut self, now: u64) -> Vec<Alarm> {
        self.fired = now;
        self.slots.iter_mut().flat_map(std::mem::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_once_and_not_early() {
        let mut wheel = Wheel::new();
        let start = Duration::from_secs(1_000_000);
        assert!(wheel.due(start).is_empty());
        let alarm = Alarm { index: 7, id: 1 };
        wheel.arm(start + Duration::from_millis(2500), alarm);
        assert!(wheel.due(start + Duration::from_millis(2900)).is_empty());
        assert_eq!(wheel.due(start + Duration::from_millis(3000)), vec![alarm]);
        assert!(wheel.due(start + Duration::from_secs(10_000)).is_empty());
    }

    #[test]
    fn a_long_pause_fires_everything() {
        let mut wheel = Wheel::new();
        wheel.due(Duration::from_secs(5));
        wheel.arm(Duration::from_secs(4000), Alarm { index: 1, id: 1 });
        wheel.arm(Duration::from_secs(10), Alarm { index: 2, id: 2 });
        assert_eq!(wheel.due(Duration::from_secs(100_000)).len(), 2);
    }
}
