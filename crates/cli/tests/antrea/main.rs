//! Antrea's redirection of layer-7 flows: its flow tables in a real Open vSwitch, in network
//! namespaces `tg-an-*`, and in the engine's place first a copier, then Tollgate.
//!
//! Needs root, and fails without it. Every namespace goes away with its test, also when it fails.
//! `TOLLGATE_OVS_DATAPATH=system` takes the kernel's datapath in place of the one in user space.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod agent;
mod bed;
mod cases;
mod life;
mod more;
mod net;
mod pipeline;
mod stock;
mod walk;
