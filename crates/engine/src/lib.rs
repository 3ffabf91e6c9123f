//! Flows, stream reassembly, verdicts, and what to do with each frame. No I/O and no clock.
//!
//! An [`Engine`] belongs to one worker. It is handed every frame that the kernel could not decide
//! ([`Engine::handle`]), the policy in force ([`Engine::set_policy`]), news of flows that ended in
//! the kernel ([`Engine::flow_closed`]) and the time ([`Engine::tick`]); what it wants done goes
//! out through an [`Output`]. Time is a [`Duration`](std::time::Duration) of the monotonic clock
//! whose origin the caller chooses (the live agent: `CLOCK_MONOTONIC`, which the kernel programs
//! use as well).
#![forbid(unsafe_code)]

pub mod cache;
pub mod counters;
pub mod event;
pub mod key;
pub mod limits;
mod lost;
pub mod names;
pub mod output;
pub mod table;

mod answer;
mod datagram;
mod deny;
mod dns;
mod engine;
mod flow;
mod flow_table;
mod fragment;
mod inspect;
mod judge;
mod judged;
mod open;
mod policy_change;
mod quic;
mod response;
mod segment;
mod seq;
mod stream;
mod tcp;
mod wheel;

pub use engine::{Engine, Remembered};
pub use flow_table::FlowSummary;
pub use output::Output;
