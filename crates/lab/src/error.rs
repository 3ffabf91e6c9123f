//! What can go wrong in the lab, each said so that a person can act on it.

use std::io;
use std::path::PathBuf;

/// Result of a lab operation.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// A failed lab operation.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// An external program is not installed.
    #[error("cannot run `{program}`: not found; {hint}")]
    MissingProgram {
        /// Program that was looked for on `PATH`.
        program: String,
        /// Where to get it.
        hint: &'static str,
    },
    /// An external program could not be started.
    #[error("cannot run `{command}`: {source}")]
    Spawn {
        /// The whole command line.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// An external program ended with an error.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The whole command line.
        command: String,
        /// Exit status in words.
        status: String,
        /// What it said on standard error, trimmed.
        stderr: String,
    },
    /// An external program did not end in time and was killed.
    #[error("`{command}` did not end within {seconds} s")]
    Timeout {
        /// The whole command line.
        command: String,
        /// Time it had.
        seconds: u64,
    },
    /// A file or system operation failed.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, e.g. `writing`.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The user, or the system, asked to stop (SIGINT, SIGTERM or SIGHUP).
    #[error("interrupted")]
    Interrupted,
    /// A lab name that cannot be used.
    #[error("lab name {0:?}: use 1 to 20 of a-z, 0-9 and -, starting with a letter")]
    BadName(String),
    /// The lab belongs to a running process.
    #[error("lab {name:?} is in use by process {pid}; wait for it or choose another name")]
    InUse {
        /// Lab name.
        name: String,
        /// The process.
        pid: i32,
    },
    /// There is no such lab.
    #[error("no lab named {0:?}; `tollgate lab up` makes one, `tollgate lab list` shows them")]
    NoSuchLab(String),
    /// The user is not root.
    #[error("the lab makes network namespaces: run it as root")]
    NotRoot,
    /// A key or certificate could not be made.
    #[error("making the lab's certificates: {0}")]
    Pki(#[from] rcgen::Error),
    /// Output of a program was not what it should be.
    #[error("{what}: cannot read {text:?}")]
    Parse {
        /// What was being read.
        what: &'static str,
        /// The text, shortened.
        text: String,
    },
    /// TLS set-up of a traffic helper failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A packet socket, an interface or a program of the lab's switch.
    #[error(transparent)]
    Datapath(#[from] tollgate_datapath::Error),
    /// A traffic helper could not do its job.
    #[error("traffic: {0}")]
    Traffic(String),
    /// Something did not become ready in time.
    #[error("{0}")]
    NotReady(String),
    /// An option that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Results were not as expected; each is named.
    #[error("not as expected: {}", .0.join("; "))]
    Unexpected(Vec<String>),
}

impl LabError {
    /// Exit status for this error: 130 after an interrupt, 2 for wrong use, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            LabError::Interrupted => 130,
            LabError::Usage(_) | LabError::BadName(_) => 2,
            _ => 1,
        }
    }
}

/// Adds what was being done, and to what, to a system error.
pub(crate) trait IoContext<T> {
    /// Wraps the error.
    fn doing(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|e| LabError::Io {
            doing,
            path: path.into(),
            source: e.into(),
        })
    }
}
