//! The doctor: finds faults in the way of a packet that make layer-7 policy slow or break it, says
//! why, and repairs them.
//!
//! * [`model`]: what was read from the machine, a plain value that can be recorded and replayed
//! * [`collect`]: reads the machine
//! * [`path`]: the way of a packet through it
//! * [`draw`]: that way for the terminal
//! * [`case`]: a snapshot with the path, probes and declarations that go with it
//! * [`finding`]: what is wrong, with its evidence
//! * [`action`]: what a repair changes, and how to change it back
//! * [`probe`]: traffic that shows what reading cannot: what arrives, and how
//! * [`catalogue`]: the rules, each with a stable number
//! * [`growth`]: what grew between two readings
//! * [`repair`]: carries actions out, and takes them back
//! * [`persist`]: keeps repairs after a restart
//! * [`report`]: what people and programs read
//! * [`declared`]: offload state that somebody declared, and where the machine differs from it
//! * [`offloads`]: the state that the agent keeps, as its configuration says it
//! * [`check`]: what a check before and after installation found
//!
//! Reading is apart from judging: everything that touches the machine fills a [`model::Snapshot`],
//! and the catalogue of findings is a pure function of it.
#![forbid(unsafe_code)]

pub mod action;
pub mod case;
pub mod catalogue;
pub mod check;
pub mod collect;
pub mod declared;
pub mod draw;
pub mod finding;
pub mod growth;
pub mod model;
pub mod offloads;
pub mod path;
pub mod persist;
pub mod probe;
pub mod repair;
pub mod report;
