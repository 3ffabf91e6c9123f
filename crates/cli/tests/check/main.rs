//! `tollgate check` and the agent's declared offloads, in network namespaces `tg-ck-*` with the real
//! kernel, ethtool, tc and nft.
//!
//! Needs root, and fails without it. Every namespace goes away with its test, also when it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod bed;
mod findings;
mod offloads;
