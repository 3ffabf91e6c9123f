//! The place of an inline engine, for tests of one: the lab with its node rebuilt and the detour in
//! force.

use std::path::Path;

use super::helper::Helper;
use super::path;
use crate::error::Result;
use crate::lab::{self, Lab, UpOptions};

/// A lab whose pod reaches the outside by way of an engine between
/// [`ENGINE_PORTS`](super::ENGINE_PORTS), tagged with [`VLAN`](super::VLAN), and not without one.
/// Every offload is on. Dropping it takes it down.
#[derive(Debug)]
pub struct EngineBed {
    // Ends before its lab goes.
    detour: Helper,
    /// The lab.
    pub lab: Lab,
}

impl EngineBed {
    /// Makes it.
    ///
    /// # Errors
    /// A part of it cannot be made; nothing stays.
    pub fn up(tollgate: &Path, options: &UpOptions) -> Result<EngineBed> {
        let lab = lab::up(options)?;
        path::build(&lab)?;
        let detour = path::detour(&lab, tollgate)?;
        Ok(EngineBed { detour, lab })
    }

    /// Whether the detour is in force.
    pub fn alive(&mut self) -> bool {
        !self.detour.ended()
    }
}
