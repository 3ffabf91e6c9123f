//! Frames, headers and checksums: bytes in, bytes out; no I/O and no clock.
//!
//! A *frame* here is what a TAP opened with `IFF_VNET_HDR` hands over: a 12-byte virtio-net header
//! ([`vnet`]), then an Ethernet frame that may be a super-packet (GSO) and may have a partial
//! checksum.
//!
//! * [`packet::parse`] reads the Ethernet frame once, without allocation, into a [`packet::Layout`].
//! * [`build`] makes whole frames with right checksums.
//! * [`edit`] changes a frame in place and keeps its checksum, full or partial, as right as it was.
//! * [`verify()`] says whether a frame's checksums hold.
//!
//! Offsets in a [`packet::Layout`] count from the Ethernet header; functions that take a whole
//! frame add [`vnet::VNET_HDR_LEN`] themselves.
#![forbid(unsafe_code)]

pub mod build;
mod bytes;
pub mod checksum;
pub mod edit;
pub mod packet;
pub mod tag;
pub mod tcp_options;
mod verify;
pub mod vnet;

pub use verify::{ChecksumState, verify};
