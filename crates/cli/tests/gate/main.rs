//! The whole product from outside: the real agent with its eBPF data path between a pod and an
//! external host, real nginx, curl and openssl, in network namespaces `tg-gt-*`.
//!
//! Needs root, and fails without it. Every lab goes away with its test, also when the test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod bed;
mod download;
mod net;
mod servers;

mod frames;
mod heads;
mod large;
mod leftovers;
mod life;
mod live;
mod many;
mod mtu;
mod names;
mod policy;
mod protocols;
mod quic;
mod seen;
mod transfer;
