//! Captures: pcap (draft-ietf-opsawg-pcap) in both byte orders, with microseconds or nanoseconds,
//! and pcapng (draft-ietf-opsawg-pcapng) with any number of sections and interfaces.

use std::io::Read;
use std::time::Duration;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{
    Block, IDB_MAGIC, InterfaceDescriptionBlock, LegacyPcapBlock, PcapBlockOwned, PcapError,
    PcapHeader, create_reader,
};

/// First size of the buffer: some forty full-size frames.
const BUFFER: usize = 64 * 1024;

/// Largest buffer, and with it the largest block: far above the 256 KiB that capture programs take
/// of one packet, and small enough to hold.
const BUFFER_MAX: usize = 16 * 1024 * 1024;

/// Interfaces of one section; a capture of every interface of a large node has a few thousand.
const INTERFACES_MAX: usize = 65_536;

/// Latest time stamp that is believed: the end of the year 9999, behind which RFC 3339 has no
/// notation.
const TIME_MAX: Duration = Duration::from_secs(253_402_207_200);

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

/// Bit of a link type field above which other things are stored (FCS length).
const LINK_TYPE_MASK: i32 = 0xffff;

/// Why a capture cannot be read (further).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The file is neither pcap nor pcapng.
    #[error("this is neither a pcap nor a pcapng file")]
    NotACapture,
    /// The system failed to read.
    #[error("after packet {packet}: reading failed")]
    Read {
        /// Packets read before.
        packet: u64,
    },
    /// The file ends in the middle of a packet or block.
    #[error("after packet {packet}: the file ends in the middle of a packet")]
    Truncated {
        /// Packets read before.
        packet: u64,
    },
    /// A block contradicts itself.
    #[error("after packet {packet}: a block is malformed")]
    Malformed {
        /// Packets read before.
        packet: u64,
    },
    /// A block is larger than what is held.
    #[error("after packet {packet}: a block has more than {BUFFER_MAX} bytes")]
    TooLarge {
        /// Packets read before.
        packet: u64,
    },
    /// A packet names an interface that was not described.
    #[error("packet {packet}: interface {interface} is not described")]
    NoInterface {
        /// Number of the packet, from 1.
        packet: u64,
        /// Number of the interface, from 0.
        interface: u32,
    },
    /// A section describes too many interfaces.
    #[error("after packet {packet}: more than {INTERFACES_MAX} interfaces")]
    TooManyInterfaces {
        /// Packets read before.
        packet: u64,
    },
}

impl CaptureError {
    /// Stable word for scripts.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotACapture => "capture-unknown-format",
            Self::Read { .. } => "capture-read",
            Self::Truncated { .. } => "capture-truncated",
            Self::Malformed { .. } => "capture-malformed",
            Self::TooLarge { .. } => "capture-block-too-large",
            Self::NoInterface { .. } => "capture-no-interface",
            Self::TooManyInterfaces { .. } => "capture-too-many-interfaces",
        }
    }
}

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Number in the file, from 1.
    pub number: u64,
    /// Since 1970, UTC.
    pub time: Duration,
    /// `LINKTYPE_` number.
    pub link_type: i32,
    /// The bytes that were kept.
    pub data: Vec<u8>,
    /// Whether these are all; if not, the capture's snap length cut them.
    pub whole: bool,
}

/// How an interface counts time, and what its frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    link_type: i32,
    /// Ticks per second; `None`: more than can be counted, the time is 0.
    ticks: Option<u64>,
    /// Added to every stamp, in seconds.
    offset: i64,
    /// Bytes kept of a packet; 0: all.
    snap_len: u32,
}

impl Interface {
    fn of_header(header: &PcapHeader) -> Self {
        let nanoseconds = header.is_nanosecond_precision();
        Self {
            link_type: header.network.0 & LINK_TYPE_MASK,
            ticks: Some(if nanoseconds {
                1_000_000_000
            } else {
                1_000_000
            }),
            offset: 0,
            snap_len: header.snaplen,
        }
    }

    fn of_block(block: &InterfaceDescriptionBlock<'_>) -> Self {
        // The parser reads a block's type and this option as little endian, whatever the section is.
        let offset = match block.block_type {
            IDB_MAGIC => block.if_tsoffset,
            _ => block.if_tsoffset.swap_bytes(),
        };
        Self {
            link_type: block.linktype.0 & LINK_TYPE_MASK,
            ticks: ticks_per_second(block.if_tsresol),
            offset,
            snap_len: block.snaplen,
        }
    }

    /// A stamp in ticks as a time, within what can be shown.
    fn time(&self, ticks: u64) -> Duration {
        let Some(per_second) = self.ticks.filter(|&ticks| ticks > 0) else {
            return Duration::ZERO;
        };
        let seconds = (ticks / per_second).saturating_add_signed(self.offset);
        let nanos = u128::from(ticks % per_second) * NANOS / u128::from(per_second);
        // Less than a second by construction.
        let nanos = u32::try_from(nanos).unwrap_or(0);
        Duration::new(seconds.min(TIME_MAX.as_secs()), nanos).min(TIME_MAX)
    }
}

/// Option `if_tsresol`: a negative power of ten, or with the highest bit set of two. The parser's own
/// function refuses the latter.
fn ticks_per_second(resolution: u8) -> Option<u64> {
    const OF_TWO: u8 = 0x80;
    let exponent = u32::from(resolution & !OF_TWO);
    match resolution & OF_TWO {
        0 => 10_u64.checked_pow(exponent),
        _ => 1_u64.checked_shl(exponent),
    }
}

/// Reads a capture packet by packet; holds one block.
pub struct Reader<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    interfaces: Vec<Interface>,
    packets: u64,
    buffer: usize,
    /// Time of the latest packet that had one.
    last_time: Duration,
}

/// What a block was.
enum Step {
    Packet(Captured),
    Other,
}

impl<'a> Reader<'a> {
    /// Reads the beginning of a capture.
    ///
    /// # Errors
    /// [`CaptureError::NotACapture`], or [`CaptureError::Read`].
    pub fn new(source: impl Read + Send + 'a) -> Result<Self, CaptureError> {
        let blocks = create_reader(BUFFER, source).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Read { packet: 0 },
            _ => CaptureError::NotACapture,
        })?;
        Ok(Self {
            blocks,
            interfaces: Vec::new(),
            packets: 0,
            buffer: BUFFER,
            last_time: Duration::ZERO,
        })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// The file is damaged; it cannot be read further.
    pub fn next_packet(&mut self) -> Result<Option<Captured>, CaptureError> {
        let packet = self.packets;
        loop {
            let (used, step) = match self.blocks.next() {
                Ok((used, block)) => {
                    let step = step(&mut self.interfaces, self.last_time, packet, block)?;
                    (used, step)
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.refill()?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::Truncated { packet }),
                Err(PcapError::ReadError) => return Err(CaptureError::Read { packet }),
                Err(_) => return Err(CaptureError::Malformed { packet }),
            };
            self.blocks.consume(used);
            if let Step::Packet(captured) = step {
                self.packets = captured.number;
                self.last_time = captured.time;
                return Ok(Some(captured));
            }
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        let packet = self.packets;
        self.blocks
            .refill()
            .map_err(|_| CaptureError::Read { packet })
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        if self.buffer >= BUFFER_MAX {
            return Err(CaptureError::TooLarge {
                packet: self.packets,
            });
        }
        self.buffer *= 2;
        self.blocks.grow(self.buffer);
        self.refill()
    }
}

fn step(
    interfaces: &mut Vec<Interface>,
    last_time: Duration,
    packets: u64,
    block: PcapBlockOwned<'_>,
) -> Result<Step, CaptureError> {
    let number = packets + 1;
    match block {
        PcapBlockOwned::LegacyHeader(header) => *interfaces = vec![Interface::of_header(&header)],
        PcapBlockOwned::Legacy(block) => {
            let interface = described(interfaces, 0, number)?;
            return Ok(Step::Packet(legacy(&interface, number, &block)));
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            if interfaces.len() >= INTERFACES_MAX {
                return Err(CaptureError::TooManyInterfaces { packet: packets });
            }
            interfaces.push(Interface::of_block(&block));
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let interface = described(interfaces, block.if_id, number)?;
            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
            return Ok(Step::Packet(Captured {
                number,
                time: interface.time(ticks),
                link_type: interface.link_type,
                data: block.packet_data().to_vec(),
                whole: block.caplen >= block.origlen,
            }));
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            let interface = described(interfaces, 0, number)?;
            return Ok(Step::Packet(simple(
                &interface,
                number,
                last_time,
                block.origlen,
                block.data,
            )));
        }
        // Names, statistics, keys, what is not known yet.
        PcapBlockOwned::NG(_) => {}
    }
    Ok(Step::Other)
}

fn described(
    interfaces: &[Interface],
    interface: u32,
    packet: u64,
) -> Result<Interface, CaptureError> {
    let found = usize::try_from(interface)
        .ok()
        .and_then(|at| interfaces.get(at));
    found
        .copied()
        .ok_or(CaptureError::NoInterface { packet, interface })
}

fn legacy(interface: &Interface, number: u64, block: &LegacyPcapBlock<'_>) -> Captured {
    let per_second = interface.ticks.unwrap_or(1);
    // The fraction may be a second or more in files of careless writers.
    let ticks = u64::from(block.ts_sec)
        .saturating_mul(per_second)
        .saturating_add(u64::from(block.ts_usec));
    Captured {
        number,
        time: interface.time(ticks),
        link_type: interface.link_type,
        data: block.data.to_vec(),
        whole: block.caplen >= block.origlen,
    }
}

/// A block without stamp and kept length: both follow from what is around it.
fn simple(
    interface: &Interface,
    number: u64,
    time: Duration,
    original: u32,
    padded: &[u8],
) -> Captured {
    let kept = match interface.snap_len {
        0 => original,
        snap_len => original.min(snap_len),
    };
    let kept = usize::try_from(kept)
        .unwrap_or(usize::MAX)
        .min(padded.len());
    Captured {
        number,
        time,
        link_type: interface.link_type,
        data: padded.get(..kept).unwrap_or_default().to_vec(),
        whole: u64::from(original) <= kept as u64,
    }
}
