//! Ends of flows that the kernel saw.

use std::path::Path;

use aya::maps::{MapData, RingBuf};
use tollgate_engine::key::FlowKey;

use crate::Error;
use crate::abi::{Key, map};
use crate::endpoints::open;

/// Flows whose both FINs, or an RST, have passed in the kernel. Has one reader at a time: what one
/// drains, no other sees. Does not wake anybody: poll it.
pub struct Closed {
    ring: RingBuf<MapData>,
}

impl Closed {
    /// Opens the ring buffer pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let raw = open(pin_dir, map::CLOSED)?;
        let ring = RingBuf::try_from(raw).map_err(Error::map("opening", map::CLOSED))?;
        Ok(Self { ring })
    }

    /// Takes what is there.
    pub fn drain(&mut self) -> Vec<FlowKey> {
        let mut keys = Vec::new();
        while let Some(item) = self.ring.next() {
            keys.extend(Key::from_bytes(&item).and_then(Key::to_flow_key));
        }
        keys
    }
}
