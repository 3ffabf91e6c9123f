//! Counting frames that cost the server work and carry nothing.
//!
//! There is no clock: what is counted is taken off again by what a client does with a connection
//! it has a use for.

use super::{
    FLOOD_MAX, FLOOD_PER_CALM, FLOOD_PER_REQUEST, FLOOD_UNIT, RESETS_MAX, RESETS_PER_CALM,
};
use crate::refusal::{HTTP2_FLOOD, HTTP2_RAPID_RESET, Refusal};

/// What a reset counts, where a request takes off one.
const RESET_WEIGHT: u32 = 2;

/// The counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Flood {
    frames: u32,
    resets: u32,
    /// Bytes not yet worth a frame; below [`FLOOD_UNIT`].
    bytes: u32,
}

impl Flood {
    pub(super) fn frame(&mut self) -> Result<(), Refusal> {
        self.frames += 1;
        if self.frames > FLOOD_MAX {
            return Err(HTTP2_FLOOD);
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) -> Result<(), Refusal> {
        self.resets += RESET_WEIGHT;
        if self.resets > RESETS_MAX * RESET_WEIGHT {
            return Err(HTTP2_RAPID_RESET);
        }
        self.frame()
    }

    pub(super) fn request(&mut self) {
        self.frames = self.frames.saturating_sub(FLOOD_PER_REQUEST);
        self.resets = self.resets.saturating_sub(1);
    }

    /// So many bytes went one way or the other.
    pub(super) fn moved(&mut self, bytes: u32) {
        let sum = self.bytes.saturating_add(bytes);
        self.frames = self.frames.saturating_sub(sum / FLOOD_UNIT);
        self.bytes = sum % FLOOD_UNIT;
    }

    pub(super) fn calm(&mut self) {
        self.frames = self.frames.saturating_sub(FLOOD_PER_CALM);
        self.resets = self.resets.saturating_sub(RESETS_PER_CALM * RESET_WEIGHT);
    }
}
