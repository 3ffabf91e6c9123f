//! Stands in for Suricata where it enforces layer-7 policy inline between two ports of a switch, as
//! Antrea runs it: same command line, rule files, command socket and event log; the packets go through
//! Tollgate's engine, with their offload metadata.
//!
//! * [`args`], [`config`]: what was asked for
//! * [`daemon`], [`state`]: the processes, and what survives them
//! * [`control`], [`commands`]: the command socket and its client, and what the commands do
//! * [`rules`], [`tenants`], [`policy`], [`board`]: from rule files to what the engine judges by
//! * [`worker`], [`flows`]: packets
//! * [`eve`], [`counters`], [`log`]: what is told
//! * [`conntrack`], [`pods`]: what is told to the switch, and learnt from it
#![forbid(unsafe_code)]

pub mod args;
pub mod board;
pub mod commands;
pub mod config;
pub mod conntrack;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod eve;
pub mod flows;
pub mod log;
pub mod pods;
pub mod policy;
pub mod rules;
pub mod state;
pub mod tenants;
pub mod worker;

/// What `version` and `-V` say.
pub const VERSION_LINE: &str = concat!(
    "Tollgate ",
    env!("CARGO_PKG_VERSION"),
    " in Suricata's place"
);
