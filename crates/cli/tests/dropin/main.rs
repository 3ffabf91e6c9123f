//! `suricata` and `suricatasc` from outside, between an engine's two ports: real clients and servers,
//! every offload on.
//!
//! Needs root, and fails without it. Everything goes away with its test, also when the test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod bed;
mod life;
mod raw;
mod traffic;

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
