//! Stands in for Suricata where it enforces layer-7 policy inline between two ports of a switch, as
//! Antrea runs it: same command line, rule files, command socket and event log; the packets go through
//! Tollgate's engine, with their offload metadata.
//!
//! * [`control`]: the command socket and its client
//! * [`policy`]: what the engine judges by
//! * [`rules`]: reads rule files
//! * [`tenants`]: whose rules are whose
#![forbid(unsafe_code)]

pub mod control;
pub mod policy;
pub mod rules;
pub mod tenants;
