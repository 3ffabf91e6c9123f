//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, Ethernet interfaces, nanoseconds.

use std::io::{self, Write};
use std::time::Duration;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINK_TYPE_ETHERNET: u16 = 1;
/// Option of an interface: its name.
const OPTION_NAME: u16 = 2;
/// Option of an interface: the unit of its time stamps.
const OPTION_TSRESOL: u16 = 9;
/// 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// Length of a section that is not told.
const UNKNOWN_LENGTH: u64 = u64::MAX;
/// Type, length, and the length again at the end.
const AROUND_LEN: usize = 12;

/// A pcapng file that is being written.
#[derive(Debug)]
pub struct PcapngWriter<W> {
    out: W,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes the beginning of a file with one interface that has no name.
    ///
    /// # Errors
    /// What writing says.
    pub fn new(out: W) -> io::Result<Self> {
        Self::of_interfaces(out, &[""])
    }

    /// Writes the beginning of a file with these interfaces, which [`packet`](Self::packet) numbers
    /// from 0.
    ///
    /// # Errors
    /// What writing says; a name of 64 KiB is refused.
    pub fn of_interfaces(out: W, names: &[&str]) -> io::Result<Self> {
        let mut writer = Self { out };
        let mut section = Vec::new();
        section.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0.
        section.extend(1u16.to_le_bytes());
        section.extend(0u16.to_le_bytes());
        section.extend(UNKNOWN_LENGTH.to_le_bytes());
        writer.block(SECTION_HEADER, &section)?;
        for name in names {
            writer.interface(name)?;
        }
        Ok(writer)
    }

    fn interface(&mut self, name: &str) -> io::Result<()> {
        let mut interface = Vec::new();
        interface.extend(LINK_TYPE_ETHERNET.to_le_bytes());
        interface.extend(0u16.to_le_bytes());
        // No snap length.
        interface.extend(0u32.to_le_bytes());
        if !name.is_empty() {
            interface.extend(OPTION_NAME.to_le_bytes());
            interface.extend(
                u16::try_from(name.len())
                    .map_err(|_| too_long())?
                    .to_le_bytes(),
            );
            interface.extend(name.as_bytes());
            interface.resize(interface.len().next_multiple_of(4), 0);
        }
        interface.extend(OPTION_TSRESOL.to_le_bytes());
        interface.extend(1u16.to_le_bytes());
        interface.extend([NANOSECONDS, 0, 0, 0]);
        // End of options.
        interface.extend(0u32.to_le_bytes());
        self.block(INTERFACE_DESCRIPTION, &interface)
    }

    /// Writes one Ethernet frame of the first interface.
    ///
    /// # Errors
    /// What writing says; a frame of 4 GiB is refused.
    pub fn frame(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        self.packet(0, time, frame, frame.len())
    }

    /// Writes one Ethernet frame of an interface, of which `frame` is the beginning and `full_len`
    /// the length.
    ///
    /// # Errors
    /// What writing says; a frame of 4 GiB is refused.
    pub fn packet(
        &mut self,
        interface: u32,
        time: Duration,
        frame: &[u8],
        full_len: usize,
    ) -> io::Result<()> {
        let ticks = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let len = length(frame.len())?;
        let mut packet = Vec::with_capacity(20 + frame.len());
        packet.extend(interface.to_le_bytes());
        for half in [(ticks >> 32) as u32, ticks as u32] {
            packet.extend(half.to_le_bytes());
        }
        packet.extend(len.to_le_bytes());
        packet.extend(length(full_len)?.to_le_bytes());
        packet.extend(frame);
        self.block(ENHANCED_PACKET, &packet)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// What flushing says.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let padded = body.len().next_multiple_of(4);
        let len = length(padded + AROUND_LEN)?.to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len)?;
        self.out.write_all(body)?;
        let padding = [0; 3];
        self.out
            .write_all(padding.get(..padded - body.len()).unwrap_or_default())?;
        self.out.write_all(&len)
    }
}

fn length(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| too_long())
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "too long for pcapng")
}
