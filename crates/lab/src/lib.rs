//! Tollgate's test bed: a pod, a node and an external host in network namespaces, with real
//! servers and real clients; the demo and the benchmark that run in it.
//!
//! * [`lab`]: `up`, `down`, `list`, `exec`
//! * [`demo`]: shows what a policy lets through, refuses, and costs
//! * [`blind`]: sends the pod's traffic through an engine that loses what the kernel knew of it
//! * [`mod@bench`]: measures with and without policy, as ratios
//! * [`traffic`]: the load generators, run inside the namespaces as hidden subcommands
//!
//! Everything needs root. Everything that is made lies in namespaces named `tg-<lab>-*` and under
//! `/run/tollgate-lab/<lab>/`, and goes away with the lab, also after a failure or an interrupt.
#![forbid(unsafe_code)]

pub mod agent;
pub mod bench;
pub mod blind;
pub mod content;
pub mod demo;
pub mod error;
pub mod interrupt;
pub mod lab;
pub mod names;
pub mod net;
pub mod nginx;
pub mod pki;
pub mod procs;
pub mod progress;
pub mod run;
pub mod stats;
pub mod traffic;

pub use error::{LabError, Result};
