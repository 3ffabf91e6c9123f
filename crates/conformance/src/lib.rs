//! Test suites for what a node does to packets: large transfers, MTUs, checksums, bursts, QUIC, many
//! streams. Between two network namespaces as they are, or in a lab of its own, each case without an
//! engine in the path, with one that is blind to offloads, and with Tollgate.
//!
//! * [`suite`]: the suites and their cases
//! * [`engine`]: what stands in the path, and what is expected of it
//! * [`report`]: results, for people, programs and CI
//!
//! What is sent is compared byte by byte where it arrives, and the kernel's counters on both sides are
//! part of every result. Needs root.
#![forbid(unsafe_code)]

pub mod engine;
pub mod error;
mod place;
mod quic;
pub mod report;
mod run;
pub mod suite;

pub use engine::Engine;
pub use error::{ConformanceError, Result};
pub use report::{CaseResult, Report, Verdict};
pub use run::{LAB_NAME, Options, Place, run};
pub use suite::Suite;
