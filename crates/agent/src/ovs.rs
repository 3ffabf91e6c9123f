//! The agent on an Open vSwitch bridge.

pub mod config;
pub mod live;
pub mod saved;

use std::path::Path;

use tollgate_datapath::ovs::switch::Switch;
use tollgate_datapath::ovs::tools::Tools;
use tollgate_datapath::{Error, tap};

use saved::Saved;

/// Removes what an agent with this run directory has on a bridge; says what, in words. Nothing, if there
/// was none.
///
/// # Errors
/// The switch, or its bridge, is not there, or refuses.
pub fn cleanup(run_dir: &Path) -> Result<Vec<String>, Error> {
    let Some(saved) = Saved::read(run_dir) else {
        return Ok(Vec::new());
    };
    let tools = Tools::new(&saved.config.run_dir, &saved.config.bridge);
    let (switch, _) = Switch::open(tools)?;
    let mut removed = switch.clean(&saved.config.place(), &saved.tap)?;
    if tap::remove(&saved.tap)? {
        removed.push(format!("TAP {}", saved.tap));
    }
    saved::forget(run_dir);
    Ok(removed)
}
