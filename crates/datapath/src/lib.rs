//! What touches the kernel: the TAP, packet sockets, the eBPF programs and their maps, links and their offload
//! features, capabilities.
//!
//! The only crate that may use `unsafe`; every block says why it is sound. Whatever names a network
//! interface is looked up in the calling thread's network namespace.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod abi;
pub mod bpf;
mod bpffs;
pub mod caps;
pub mod closed;
pub mod counters;
pub mod detour;
pub mod endpoints;
mod error;
pub mod ethtool;
pub mod features;
pub mod flows;
mod hook;
mod ifreq;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod notices;
pub mod ovs;
pub mod packet;
pub mod peer;
pub mod probe;
mod qdisc;
pub mod sched;
pub mod steer;
mod sys;
pub mod tap;
pub mod xdp;

pub use error::Error;
