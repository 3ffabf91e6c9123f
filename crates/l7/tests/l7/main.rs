//! Tests of the recognisers from outside.
#![allow(clippy::panic, reason = "helpers of tests fail the test")]

mod detect;
mod dns;
mod drive;
mod http_accepted;
mod http_refused;
mod paths;
mod random;
mod response;
mod tls;
mod tls_build;
mod tls_differential;
mod tls_refused;
