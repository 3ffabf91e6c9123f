//! Flows, stream reassembly, verdicts, and what to do with each frame. No I/O and no clock.
#![forbid(unsafe_code)]

pub mod cache;
pub mod event;
pub mod key;
pub mod output;
