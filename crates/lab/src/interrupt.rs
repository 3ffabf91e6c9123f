//! Stopping in good order: a signal sets a flag, every wait looks at it, and the guards clean up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// How long a sleep goes on before it looks at the flag again.
const POLL: Duration = Duration::from_millis(20);

/// From now on SIGINT, SIGTERM and SIGHUP make the next wait return [`LabError::Interrupted`].
///
/// A process can do this once; if another handler is installed already, that one stays in force.
pub fn install() {
    INSTALLED.get_or_init(|| {
        let handler = || INTERRUPTED.store(true, Ordering::SeqCst);
        if let Err(e) = ctrlc::set_handler(handler) {
            tracing::warn!("cannot install the signal handler: {e}");
        }
    });
}

/// Whether a signal asked to stop.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails once a signal asked to stop.
///
/// # Errors
/// [`LabError::Interrupted`].
pub fn check() -> Result<()> {
    if requested() {
        Err(LabError::Interrupted)
    } else {
        Ok(())
    }
}

/// Sleeps, but not past an interrupt.
///
/// # Errors
/// [`LabError::Interrupted`].
pub fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL));
    }
}
