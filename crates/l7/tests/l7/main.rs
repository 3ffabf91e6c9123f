//! Tests of the recognisers from outside.
#![allow(clippy::panic, reason = "helpers of tests fail the test")]

mod detect;
mod drive;
mod http_accepted;
mod http_refused;
mod paths;
mod random;
mod response;
mod starttls;
mod tls;
mod tls_after;
mod tls_build;
mod tls_differential;
mod tls_ja4;
mod tls_refused;
