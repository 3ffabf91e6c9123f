//! Repairs: the command that a person would type, carrying an action out, and taking it back.
//!
//! Before anything is changed, what it was is written to a record on disk ([`journal`]). Being
//! killed at any moment therefore leaves a record from which [`Repairer::undo`] restores everything;
//! a change that was recorded and not made is restored to what it is anyway.

pub mod command;
mod features;
pub mod journal;
mod links;
mod mss;
pub mod namespace;
mod ovs;
mod run;
mod sysctl;
mod xdp;

use std::io;
use std::path::PathBuf;

pub use command::{command_line, quote};
pub use journal::Step;
pub use run::{Applied, Repairer, Undone, Word};

/// Where the record lies unless another directory is named.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/tollgate/doctor";

/// Why something could not be changed or restored.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file system.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record cannot be written.
    #[error("nothing was changed, because what was could not be recorded: {0}")]
    Journal(Box<RepairError>),
    /// Another doctor changes things.
    #[error("another `tollgate doctor` is changing this machine (it holds {}); wait until it ends", .0.display())]
    Locked(PathBuf),
    /// The record holds something that this version did not write.
    #[error("{}:{line}: not an entry of the record of repairs: {why}; look at the file, restore by hand what it names, then move it away", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The namespace cannot be entered.
    #[error("entering the network namespace {path}: {source}")]
    Namespace {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// An ioctl.
    #[error(transparent)]
    Device(#[from] tollgate_datapath::Error),
    /// Netlink.
    #[error("{action} {object}: {why}")]
    Netlink {
        /// What was being done.
        action: &'static str,
        /// To which interface.
        object: String,
        /// What the kernel said.
        why: String,
    },
    /// A program that does part of the work failed.
    #[error("{command}: {why}")]
    Program {
        /// What was run.
        command: String,
        /// What it said.
        why: String,
    },
    /// There is no such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// The kernel took the change and did something else.
    #[error("{what} is {is} and should be {should}: {hint}")]
    Refused {
        /// What was to be changed.
        what: String,
        /// What it is.
        is: String,
        /// What it should be.
        should: String,
        /// What to do next.
        hint: &'static str,
    },
    /// An action that cannot be carried out as it stands.
    #[error("{0}")]
    Unfit(String),
}

impl RepairError {
    fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
