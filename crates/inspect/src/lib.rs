//! The engine run over a capture: no privileges, no clock, the same answer every time.
//!
//! * [`capture::Reader`] reads pcap and pcapng, packet by packet.
//! * [`link::to_ethernet`] makes an Ethernet frame of whatever the link type is.
//! * [`Setup`] says who is governed and by which policy; [`Replay`] shows each frame to an
//!   [`Engine`](tollgate_engine::Engine) as the kernel would: with the virtio-net header and the
//!   802.1Q tag that names endpoint and direction.
//! * [`write::PcapngWriter`] writes what came out.
//!
//! ```no_run
//! use tollgate_inspect::{Replay, Setup, Sink, capture::Reader};
//!
//! # fn run(sink: &mut impl Sink) -> Result<(), Box<dyn std::error::Error>> {
//! let mut reader = Reader::new(std::fs::File::open("a.pcap")?)?;
//! let mut replay = Replay::new(Setup::reading(&[])?);
//! while let Some(packet) = reader.next_packet()? {
//!     replay.packet(&packet, sink);
//! }
//! let report = replay.finish(sink);
//! # let _ = report; Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod capture;
pub mod link;
pub mod write;

mod replay;
mod setup;
mod sides;

pub use replay::{Replay, Report, Sink};
pub use setup::{Setup, SetupError};
