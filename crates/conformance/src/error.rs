//! What can go wrong apart from the cases themselves.

use tollgate_doctor::probe::ProbeError;
use tollgate_lab::LabError;

/// Result of an operation.
pub type Result<T, E = ConformanceError> = std::result::Result<T, E>;

/// Why the suites could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The lab could not be made, or an engine not be started.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A namespace cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Options that do not go together.
    #[error("{0}")]
    Usage(String),
    /// An engine that should stand in the path does not.
    #[error("{engine} is not in the path: {why}; nothing that it is tested for would be its doing")]
    NotInPath {
        /// The engine.
        engine: &'static str,
        /// What showed it.
        why: String,
    },
    /// The QUIC client or server could not be set up.
    #[error("setting QUIC up: {0}")]
    Quic(String),
    /// The JUnit file could not be made.
    #[error("writing JUnit XML: {0}")]
    Junit(String),
}
