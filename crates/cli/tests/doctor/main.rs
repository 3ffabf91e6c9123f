//! `tollgate doctor` over real faults: each is made with the usual tools in network namespaces
//! `tg-dr-*`, found by its number, repaired, and taken back.
//!
//! Needs root, and fails without it. Every namespace goes away with its test, also when it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod bed;
mod command;
mod faults;
mod killed;
mod recorded;
