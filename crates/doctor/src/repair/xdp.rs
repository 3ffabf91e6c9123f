//! Moving an XDP program from the driver to after it. The kernel cannot do that in one step: for
//! some microseconds no program is attached. The program is pinned meanwhile and until it is moved
//! back, so that being killed does not lose it.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tollgate_datapath::xdp;

use crate::repair::RepairError;
use crate::repair::journal::Step;
use crate::repair::links::{self, Xdp};

/// Where programs are pinned.
const PINS: &str = "/sys/fs/bpf/tollgate-doctor";

/// No program.
const NONE: i32 = -1;

fn pin_of(program: &Xdp) -> PathBuf {
    PathBuf::from(PINS).join(format!("xdp-{}", program.id))
}

/// Attaches the same program after the driver.
pub fn to_generic(ifname: &str, step: &dyn Fn(Step)) -> Result<(), RepairError> {
    let Some(program) = links::one(ifname)?.xdp else {
        return Err(RepairError::Unfit(format!("{ifname} has no XDP program")));
    };
    let pin = pin_of(&program);
    xdp::pin(program.id, &pin)?;
    let fd = xdp::open(&pin)?;
    links::set_xdp(ifname, NONE, false)?;
    step(Step::Halfway);
    links::set_xdp(ifname, fd.as_raw_fd(), true)
}

/// Puts it back into the driver. Somebody else's program that is there now is left alone;
/// false if the program itself is gone.
pub fn restore(ifname: &str, before: &Xdp) -> Result<bool, RepairError> {
    let pin = pin_of(before);
    let now = links::one(ifname)?.xdp;
    if now.as_ref() == Some(before) {
        return unpin(&pin);
    }
    if now.is_none() && !pin.exists() {
        return Ok(false);
    }
    if let Some(other) = now.filter(|now| now.id != before.id) {
        return Err(RepairError::Refused {
            what: format!("XDP program of {ifname}"),
            is: format!("number {}", other.id),
            should: format!("number {}", before.id),
            hint: "another program was attached meanwhile; take it off first",
        });
    }
    let fd = xdp::open(&pin)?;
    // Taking off what is not there succeeds.
    links::set_xdp(ifname, NONE, true)?;
    links::set_xdp(ifname, fd.as_raw_fd(), before.generic)?;
    unpin(&pin)
}

fn unpin(pin: &Path) -> Result<bool, RepairError> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RepairError::file("unpinning", pin)(error))
        }
        _ => Ok(true),
    }
}
