//! Frames, headers and checksums: bytes in, bytes out; no I/O and no clock.
//!
//! A *frame* here is what a TAP opened with `IFF_VNET_HDR` hands over: a 12-byte virtio-net header
//! ([`vnet`]), then an Ethernet frame that may be a super-packet (GSO) and may have a partial
//! checksum.
#![forbid(unsafe_code)]

pub mod tag;
