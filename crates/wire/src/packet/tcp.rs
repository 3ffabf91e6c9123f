//! The TCP header (RFC 9293, 3.1).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::bytes::{array, be16, be32};
use crate::packet::ParseError;

/// Length of a TCP header without options.
pub(crate) const MIN_HEADER_LEN: usize = 20;
/// Where the sequence number lies in the header.
pub(crate) const SEQ_OFFSET: usize = 4;
/// Where the flags lie in the header.
pub(crate) const FLAGS_OFFSET: usize = 13;
/// Where the checksum lies in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 16;

/// Where the urgent pointer lies in the header.
pub(crate) const URGENT_OFFSET: usize = 18;

/// The TCP flags. The ninth (AE, once NS) is not among them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// SYN without ACK: the first segment of a connection.
    pub fn is_syn(self) -> bool {
        self.syn() && !self.ack()
    }

    /// SYN with ACK: the second segment of a connection.
    pub fn is_syn_ack(self) -> bool {
        self.syn() && self.ack()
    }

    /// SYN is set, with or without ACK.
    pub fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    /// FIN is set.
    pub fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    /// RST is set.
    pub fn rst(self) -> bool {
        self.contains(Self::RST)
    }

    /// PSH is set.
    pub fn psh(self) -> bool {
        self.contains(Self::PSH)
    }

    /// ACK is set.
    pub fn ack(self) -> bool {
        self.contains(Self::ACK)
    }

    /// URG is set.
    pub fn urg(self) -> bool {
        self.contains(Self::URG)
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TcpFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `SYN|ACK`; `-` for none.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        if self.0 == 0 {
            return f.write_str("-");
        }
        let set = (0..).zip(NAMES).filter(|(bit, _)| self.0 >> bit & 1 == 1);
        for (index, (_, name)) in set.enumerate() {
            f.write_str(if index == 0 { "" } else { "|" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first payload byte, or of SYN.
    pub seq: u32,
    /// Next sequence number expected; counts if ACK is set.
    pub ack: u32,
    /// The flags.
    pub flags: TcpFlags,
    /// Receive window as sent, not scaled.
    pub window: u16,
    /// Urgent pointer; counts if URG is set.
    pub urgent: u16,
    /// Length of the header with its options: 20 to 60 bytes.
    pub header_len: u8,
}

impl TcpHeader {
    /// Reads the header of a segment that ends where `segment` ends.
    #[inline]
    pub(crate) fn parse(segment: &[u8]) -> Result<Self, ParseError> {
        let header: &[u8; MIN_HEADER_LEN] =
            segment.first_chunk().ok_or(ParseError::TcpTruncated)?;
        let parsed = Self::fixed(header).ok_or(ParseError::TcpTruncated)?;
        let header_len = usize::from(parsed.header_len);
        if !(MIN_HEADER_LEN..=segment.len()).contains(&header_len) {
            return Err(ParseError::TcpBadOffset);
        }
        Ok(parsed)
    }

    /// The fields; the optimiser drops the checks, since the length is known.
    #[inline]
    fn fixed(header: &[u8; MIN_HEADER_LEN]) -> Option<Self> {
        let [offset, flags] = array(header, FLAGS_OFFSET - 1)?;
        Some(Self {
            src_port: be16(header, 0)?,
            dst_port: be16(header, 2)?,
            seq: be32(header, SEQ_OFFSET)?,
            ack: be32(header, 8)?,
            flags: TcpFlags(flags),
            window: be16(header, 14)?,
            urgent: be16(header, URGENT_OFFSET)?,
            // The high four bits count 32-bit words.
            header_len: (offset >> 4) * 4,
        })
    }
}
