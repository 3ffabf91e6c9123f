//! Layer-7 recognisers: TLS ClientHello, requests for TLS inside another protocol, HTTP/1.x requests
//! and HTTP/2 in clear text, read from one direction of a TCP stream in pieces of any size, the
//! ClientHello in QUIC's Initial packets, read from one direction of a UDP flow, and DNS messages.
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
pub mod http2;
pub mod quic;
pub mod refusal;
pub mod response;
pub mod starttls;
pub mod tls;

mod buffer;
mod chars;
mod name;

pub use detect::{DETECT_MAX, Detected, detect};
pub use http1::{Framing, HttpEvent, PathForm, Request, RequestReader, Step, Version};
pub use http2::{Grpc, Http2Event, Http2Reader, Http2Request, Http2Step};
pub use quic::{QuicEvent, QuicReader, QuicVersion, is_long_header};
pub use refusal::Refusal;
pub use response::{ResponseProgress, ResponseReader};
pub use starttls::{StarttlsEvent, StarttlsProtocol, StarttlsReader, server_agrees};
pub use tls::{
    AfterHello, AfterHelloReader, ClientHello, ClientHelloReader, TlsProgress, version_name,
};
