//! Tests of the recognisers from outside.
#![allow(clippy::panic, reason = "helpers of tests fail the test")]

mod detect;
mod drive;
mod http_accepted;
mod http_refused;
mod paths;
mod quic;
mod quic_build;
mod quic_peer;
mod quic_random;
mod quic_refused;
mod quic_two_keys;
mod random;
mod response;
mod tls;
mod tls_build;
mod tls_differential;
mod tls_refused;
