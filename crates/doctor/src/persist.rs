//! Keeping repairs after a restart of the machine or of an endpoint.
//!
//! * [`systemd`]: for interfaces of the host, a unit each, bound to the device
//! * [`agent`]: in the agent's configuration, for everything that the agent keeps as declared

pub mod agent;
pub mod systemd;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::action::Action;
use crate::repair::command_line;

/// Why repairs could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The file system.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent's configuration is not one that can be added to.
    #[error("{}: {why}; add this yourself:\n{snippet}", path.display())]
    Configuration {
        /// Which file.
        path: PathBuf,
        /// What is in the way.
        why: String,
        /// What was to be added.
        snippet: String,
    },
}

impl PersistError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

/// An action that is not kept, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// As a person would type it.
    pub command: String,
    /// Why, and what to do instead.
    pub why: &'static str,
}

impl Left {
    fn new(action: &Action, why: &'static str) -> Self {
        Self {
            command: command_line(action),
            why,
        }
    }
}

/// Puts a file in place as a whole: who reads it sees the old one or the new one. An old one's mode
/// and owner are kept.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), PersistError> {
    let failed = |error| PersistError::file("writing", path)(error);
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(PersistError::file("making", dir))?;
    // A link is followed: the file behind it is what is configured.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = fs::metadata(&path).ok();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tollgate-new");
    let new = path.with_file_name(name);
    // What an interrupted run left.
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(failed)?;
    let written = (|| {
        if let Some(old) = &old {
            file.set_permissions(old.permissions())?;
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}
