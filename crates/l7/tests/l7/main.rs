//! Tests of the recognisers from outside.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests fail the test"
)]

mod detect;
mod drive;
mod h2_accepted;
mod h2_build;
mod h2_differential;
mod h2_random;
mod h2_refused;
mod h2_refused_fields;
mod http_accepted;
mod http_refused;
mod paths;
mod random;
mod response;
mod tls;
mod tls_build;
mod tls_differential;
mod tls_refused;
