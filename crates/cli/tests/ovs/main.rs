//! The agent on an Open vSwitch bridge, from outside: real switch, nginx, curl and openssl, in network
//! namespaces `tg-ovs-*`.
//!
//! The switch is started here, with its database and sockets in a directory of the test. Its data path is
//! the userspace one; `TOLLGATE_OVS_DATAPATH=system` asks for the kernel's, which needs the kernel module
//! `openvswitch`. Needs root, and fails without it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod bed;

mod life;
mod pipeline;
mod traffic;
