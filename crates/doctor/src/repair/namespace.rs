//! Working in another network namespace, and recognising it later.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tollgate_datapath::netns;

use crate::repair::RepairError;

/// The namespace that the doctor runs in.
pub const OWN: &str = "/proc/self/ns/net";

/// What identifies a namespace until the machine is started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// A path that named it.
    pub path: PathBuf,
    /// The inode number of its file, which another namespace may get once it is gone.
    pub inode: u64,
    /// Its cookie, which no other gets; absent before Linux 5.14.
    pub cookie: Option<u64>,
}

impl Mark {
    /// Of the namespace with this path.
    pub fn of(path: &Path) -> Result<Self, RepairError> {
        let inode = inode(path).map_err(failed(path))?;
        let cookie = within(path, || Ok(netns::cookie().ok()))?;
        Ok(Self {
            path: path.to_owned(),
            inode,
            cookie,
        })
    }

    /// A path of the same namespace now: the old one, or another one's of this machine.
    pub fn find(&self) -> Option<PathBuf> {
        let own = PathBuf::from(OWN);
        let mut candidates = vec![self.path.clone(), own];
        candidates.extend(children("/run/netns"));
        let processes = children("/proc").into_iter();
        candidates.extend(processes.map(|process| process.join("ns/net")));
        candidates.into_iter().find(|path| self.is(path))
    }

    fn is(&self, path: &Path) -> bool {
        if inode(path).ok() != Some(self.inode) {
            return false;
        }
        let cookie = || Ok(netns::cookie().ok());
        let now = within(path, cookie).ok().flatten();
        self.cookie.is_none() || now == self.cookie
    }
}

fn children(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn inode(path: &Path) -> std::io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> RepairError {
    let path = path.display().to_string();
    move |source| RepairError::Namespace { path, source }
}

/// Does something in a namespace; see [`netns::within`].
pub fn within<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, RepairError> + Send,
) -> Result<T, RepairError> {
    let file = File::open(path).map_err(failed(path))?;
    netns::within(&file, work).map_err(failed(path))?
}
