//! The file system of pins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::Error;

/// Where every distribution has it.
const USUAL_MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h
const MAGIC: u32 = 0xcafe_4a11;

fn is_bpffs(path: &Path) -> bool {
    // The magic number has 32 bits; the field's type differs between architectures.
    statfs(path).is_ok_and(|fs| fs.f_type as u32 == MAGIC)
}

/// Where to mount it: the usual place if `dir` is below, else the directory that `dir` lies in.
fn mount_point(dir: &Path) -> PathBuf {
    if dir.starts_with(USUAL_MOUNT) {
        return PathBuf::from(USUAL_MOUNT);
    }
    dir.parent()
        .map_or_else(|| dir.to_path_buf(), Path::to_path_buf)
}

/// Makes `dir` a directory on a bpffs, mounting one if there is none.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    let point = mount_point(dir);
    let on_bpffs = dir.ancestors().find(|a| a.exists()).is_some_and(is_bpffs);
    if !on_bpffs {
        fs::create_dir_all(&point).map_err(Error::os("creating", point.display()))?;
        mount("bpf", &point, "bpf", MountFlags::empty(), None)
            .map_err(io::Error::from)
            .map_err(Error::os("mounting a bpffs on", point.display()))?;
    }
    fs::create_dir_all(dir).map_err(Error::os("creating", dir.display()))
}

/// Removes a pin; true if there was one.
pub fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::os("removing", path.display())(e)),
    }
}
