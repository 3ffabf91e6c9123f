//! What a fuzzer runs: each function takes any bytes, feeds them to the real code and asserts what
//! that code promises. A broken promise is a panic.
//!
//! The functions know nothing of a fuzzer: `fuzz/` calls them from libFuzzer, this crate's tests
//! from every file of the corpus.
#![forbid(unsafe_code)]

mod cut;
mod dns;
mod engine;
mod http;
mod policy;
mod quic;
#[path = "../../l7/tests/l7/quic_build.rs"]
#[allow(
    dead_code,
    clippy::panic,
    reason = "shared with the tests of the readers, where a panic fails a test"
)]
mod quic_build;
mod tls;
mod wire;

pub use dns::dns;
pub use engine::engine;
pub use http::{http1, http2};
pub use policy::policy_yaml;
pub use quic::quic;
pub use tls::tls;
pub use wire::wire;

/// One function for the fuzzer and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target by the name of its folder in `fuzz/corpus`.
pub const TARGETS: &[Target] = &[
    ("wire", wire),
    ("tls", tls),
    ("http1", http1),
    ("http2", http2),
    ("quic", quic),
    ("dns", dns),
    ("policy_yaml", policy_yaml),
    ("engine", engine),
];
