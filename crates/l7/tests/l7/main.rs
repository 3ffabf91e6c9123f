//! Tests of the recognisers from outside.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests fail the test"
)]

mod detect;
mod dns;
mod drive;
mod h2_accepted;
mod h2_build;
mod h2_differential;
mod h2_random;
mod h2_refused;
mod h2_refused_fields;
mod http_accepted;
mod http_inert;
mod http_refused;
mod paths;
mod quic;
mod quic_build;
mod quic_peer;
mod quic_random;
mod quic_refused;
mod quic_two_keys;
mod random;
mod recorded;
mod response;
mod starttls;
mod tls;
mod tls_after;
mod tls_build;
mod tls_differential;
mod tls_ja4;
mod tls_refused;
