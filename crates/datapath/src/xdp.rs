//! Programs that others attached to interfaces: keeping one alive while it is moved.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::programs::loaded_programs;

use crate::sys;
use crate::{Error, bpffs};

/// Pins the program with this number, so that it outlives being detached. A pin that is there
/// already is left alone: a path belongs to one number.
pub fn pin(id: u32, path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        bpffs::prepare(dir)?;
    }
    let program = loaded_programs().flatten().find(|info| info.id() == id);
    let Some(info) = program else {
        return Err(Error::Missing("program of that number"));
    };
    let fd = info.fd().map_err(|source| Error::Program {
        action: "opening",
        program: "that is attached",
        object: id.to_string(),
        source: Box::new(source),
    })?;
    sys::obj_pin(path, fd.as_fd()).map_err(Error::os("pinning a program as", path.display()))
}

/// Opens a pinned program.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    sys::obj_get(path).map_err(Error::os("opening", path.display()))
}
