//! Layer-7 recognisers: DNS messages, and TLS ClientHello and HTTP/1.x requests, read from one direction of a TCP
//! stream in pieces of any size.
//!
//! Nothing here does I/O or reads a clock. Every recogniser is a state machine that is fed
//! in-order bytes, answers after each piece, holds no more than a stated number of bytes and does
//! work linear in what it was fed. The answer does not depend on how the stream was cut.
//!
//! Strictness is the point: where two readers of the same bytes could see different requests, the
//! bytes are refused with a stable reason ([`refusal::ALL`] lists them). Bytes of an incomplete
//! head may already be on their way to the server, so a head is refused at the first byte that
//! cannot be part of a valid one, not when it is complete.
#![forbid(unsafe_code)]

pub mod detect;
pub mod dns;
pub mod http1;
pub mod refusal;
pub mod response;
pub mod tls;

mod buffer;
mod chars;
mod name;

pub use detect::{DETECT_MAX, Detected, detect};
pub use http1::{Framing, HttpEvent, PathForm, Request, RequestReader, Step, Version};
pub use refusal::Refusal;
pub use response::{ResponseProgress, ResponseReader};
pub use tls::{ClientHello, ClientHelloReader, TlsProgress};
