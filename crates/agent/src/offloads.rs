//! Keeps interfaces in the offload state that the configuration declares: on the node, and inside
//! the endpoints' network namespaces.
//!
//! One thread looks at everything when a link changes anywhere (the kernel tells of changed
//! features too), when endpoints change, and every `SLOW` anyway. It alone keeps the right to
//! enter other namespaces, and it exists only where something is declared. When the agent ends,
//! the state stays as it is.

pub mod config;
pub mod keeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tollgate_datapath::caps;
use tollgate_datapath::notices::LinkNotices;

use crate::api::OffloadStatus;
use crate::state::State;
use keeper::Keeper;

/// How often everything is looked at though nobody spoke of a change.
const SLOW: Duration = Duration::from_secs(10);

/// How long changes may gather: an interface that is made comes with half a dozen of them.
const GATHER: Duration = Duration::from_millis(30);

/// The least time between putting something back and looking again: two that do not agree must not
/// keep a processor, and the log, busy.
const CALM: Duration = Duration::from_millis(200);

/// How often endpoints are looked at for changes, in milliseconds.
const LOOK_MILLIS: u32 = 500;

/// A change of somebody else's that was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffloadChange {
    /// The interface.
    pub interface: String,
    /// The endpoint in whose namespace it is; `None`: on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Arc<str>>,
    /// The kernel's name of the feature, or `mtu`.
    pub feature: String,
    /// What was found: `on`, `off` or a number.
    pub found: String,
    /// What is declared.
    pub declared: String,
    /// True: it was put back. False: it cannot be had, `detail` says why.
    pub restored: bool,
    /// Why it cannot be had.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What the keeper shows of itself.
#[derive(Debug, Default)]
pub struct Shown {
    /// The status.
    pub status: ArcSwap<Option<OffloadStatus>>,
    /// Changes that were put back.
    pub drift: AtomicU64,
}

/// Starts the keeper's thread if anything is declared. Call it before privileges are given up.
///
/// # Errors
/// The thread or its socket could not be made.
pub fn start(state: &Arc<State>) -> std::io::Result<()> {
    if !state.config.offloads.declares() {
        return Ok(());
    }
    let (notices, everywhere) = LinkNotices::open()?;
    if !everywhere {
        tracing::warn!(
            "without CAP_NET_BROADCAST, changes inside endpoints are seen after {} s only",
            SLOW.as_secs()
        );
    }
    let state = Arc::clone(state);
    std::thread::Builder::new()
        .name("tg-offloads".to_owned())
        .spawn(move || {
            if let Err(error) = caps::limit_to_offloads() {
                tracing::warn!(%error, "the keeper of offloads keeps its privileges");
            }
            keep(&state, &notices);
        })?;
    Ok(())
}

/// Looks at everything, again and again, for as long as the process lives.
fn keep(state: &Arc<State>, notices: &LinkNotices) {
    let mut keeper = Keeper::new(state.config.offloads.clone());
    loop {
        let endpoints = state.endpoints.load_full();
        let mut calm = GATHER;
        for change in keeper.pass(&endpoints) {
            if change.restored {
                calm = CALM;
                state.offloads.drift.fetch_add(1, Ordering::Relaxed);
            }
            state.events.tell(change);
        }
        state.offloads.status.store(Arc::new(Some(keeper.status())));
        let looked = Instant::now();
        while looked.elapsed() < SLOW && Arc::ptr_eq(&endpoints, &state.endpoints.load_full()) {
            match notices.wait(LOOK_MILLIS) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of changed links");
                    std::thread::sleep(SLOW);
                }
            }
        }
        std::thread::sleep(calm);
    }
}
