//! The agent: configuration, policy from a directory, the data path, workers, and what people and
//! programs see of them.
//!
//! Threads: the caller's runs the control plane (a single-threaded tokio runtime: signals, watched
//! directory and links, admin socket, metrics); one more for each TAP queue runs an engine; one
//! writes events. No packet waits for the control plane, and nothing there is shared with workers
//! but an inbox, counters and the queue of events.
#![forbid(unsafe_code)]

pub mod admin;
pub mod api;
pub mod config;
pub mod control;
pub mod counters;
pub mod endpoints;
pub mod events;
pub mod filter;
pub mod hub;
pub mod kernel;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod name_memory;
pub mod offloads;
pub mod ovs;
pub mod policy_loop;
pub mod privileges;
pub mod record;
pub mod run;
pub mod sources;
pub mod state;
pub mod store;
pub mod verdict_log;
pub mod watch;
pub mod worker;

pub use config::{Config, Overrides};
pub use run::{RunError, run};
