//! What the programs count.

use std::path::Path;

use aya::maps::{MapData, PerCpuArray};
use tollgate_wire::tag::Direction;

use crate::Error;
use crate::abi::map;
use crate::endpoints::open;

/// `enum tg_counter`, in its order.
const KINDS: [&str; 14] = [
    "passed",
    "diverted",
    "fragments-diverted",
    "returned",
    "ungoverned",
    "drop-flow",
    "drop-vlan",
    "drop-non-ip",
    "drop-malformed",
    "drop-no-tap",
    "drop-tag-failed",
    "drop-unknown-interface",
    "drop-bad-tag",
    "events-lost",
];

/// One counter, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted, a stable word.
    pub name: &'static str,
    /// Of which direction.
    pub direction: Direction,
    /// Since the maps were made.
    pub value: u64,
}

/// The programs' counters.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Opens the map pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let raw = open(pin_dir, map::COUNTERS)?;
        let map = PerCpuArray::try_from(raw).map_err(Error::map("opening", map::COUNTERS))?;
        Ok(Self { map })
    }

    /// Reads all counters, in a fixed order.
    pub fn read(&self) -> Result<Vec<Counter>, Error> {
        let mut counters = Vec::with_capacity(2 * KINDS.len());
        let mut index = 0;
        for name in KINDS {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let cpus = self
                    .map
                    .get(&index, 0)
                    .map_err(Error::map("reading", map::COUNTERS))?;
                counters.push(Counter {
                    name,
                    direction,
                    value: cpus.iter().sum(),
                });
                index += 1;
            }
        }
        Ok(counters)
    }
}
