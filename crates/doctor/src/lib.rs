//! The doctor: finds faults in the way of a packet that make layer-7 policy slow or break it, says
//! why, and repairs them.
//!
//! * [`model`]: what was read from the machine, a plain value that can be recorded and replayed
//! * [`case`]: a snapshot with the path, probes and declarations that go with it
//! * [`finding`]: what is wrong, with its evidence
//! * [`action`]: what a repair changes, and how to change it back
//! * [`probe`]: traffic that shows what reading cannot: what arrives, and how
//!
//! Reading is apart from judging: everything that touches the machine fills a [`model::Snapshot`],
//! and the catalogue of findings is a pure function of it.
#![forbid(unsafe_code)]

pub mod action;
pub mod case;
pub mod finding;
pub mod model;
pub mod probe;
