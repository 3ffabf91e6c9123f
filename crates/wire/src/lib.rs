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
//! ```
//! use tollgate_wire::{ChecksumState, build, packet, verify, vnet};
//!
//! let l2 = build::L2 { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2], vlan: Some(7) };
//! let segment = build::Segment {
//!     src: "10.0.0.1:40000".parse()?,
//!     dst: "192.0.2.1:80".parse()?,
//!     seq: 1,
//!     ack: 1,
//!     flags: packet::TcpFlags::PSH | packet::TcpFlags::ACK,
//!     window: 512,
//!     payload: b"GET / HTTP/1.1\r\n\r\n",
//!     hop_limit: build::DEFAULT_HOP_LIMIT,
//! };
//! let mut frame = Vec::new();
//! build::tcp(&mut frame, &l2, &segment)?;
//! assert_eq!(verify(&frame), ChecksumState::Good);
//!
//! let (_, eth_frame) = vnet::split(&frame)?;
//! let packet::Packet::Ip(layout) = packet::parse(eth_frame)? else { panic!("not IP") };
//! assert_eq!(layout.payload(eth_frame), segment.payload);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
