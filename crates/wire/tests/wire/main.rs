//! The crate from outside: tables, and a second implementation (etherparse) to agree with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which clippy.toml's exception for tests does not cover"
)]

mod build;
mod differential;
mod edit;
mod parse;
mod quoted;
mod robust;
mod sample;
mod verify;
