//! The outside of QUIC packets: what can be read without a key (RFC 9000 section 17, RFC 9369
//! section 3).

use super::QuicVersion;
use crate::refusal::{
    QUIC_CONNECTION_ID, QUIC_MALFORMED, QUIC_RETRY_PACKET, QUIC_UNKNOWN_VERSION,
    QUIC_VERSION_NEGOTIATION, Refusal,
};

/// Header form bit: set in long headers (RFC 9000 section 17.2).
pub(super) const LONG_FORM: u8 = 0x80;
/// Fixed bit (RFC 9000 section 17.2).
const FIXED_BIT: u8 = 0x40;
/// Where the two bits of the long packet type are.
const TYPE_SHIFT: u8 = 4;
/// Longest connection ID of versions 1 and 2 (RFC 9000 section 17.2).
pub(super) const CONNECTION_ID_MAX: usize = 20;
/// Version number of Version Negotiation packets (RFC 9000 section 17.2.1).
const NEGOTIATION: u32 = 0;

/// Reads integers and byte strings; every length is checked.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(QUIC_MALFORMED)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        let (&first, rest) = self.0.split_first().ok_or(QUIC_MALFORMED)?;
        self.0 = rest;
        Ok(first)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        let (&first, rest) = self.0.split_first_chunk::<4>().ok_or(QUIC_MALFORMED)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(first))
    }

    /// A variable-length integer (RFC 9000 section 16); encodings longer than needed are valid.
    pub(super) fn varint(&mut self) -> Result<u64, Refusal> {
        let first = self.u8()?;
        let rest = self.take((1 << (first >> 6)) - 1)?;
        let high = u64::from(first & 0x3f);
        Ok(rest
            .iter()
            .fold(high, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A byte string with its length as a variable-length integer before it.
    pub(super) fn vec(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| QUIC_MALFORMED)?)
    }

    fn connection_id(&mut self) -> Result<&'a [u8], Refusal> {
        let len = usize::from(self.u8()?);
        if len > CONNECTION_ID_MAX {
            return Err(QUIC_CONNECTION_ID);
        }
        self.take(len)
    }
}

/// What a packet is.
pub(super) enum Kind<'a> {
    /// An Initial packet.
    Initial(Initial<'a>),
    /// A 0-RTT or Handshake packet.
    Long,
    /// A 1-RTT packet, which takes the rest of the datagram.
    Short,
}

/// One packet of a datagram.
pub(super) struct Packet<'a> {
    pub(super) kind: Kind<'a>,
    /// Destination connection ID; `None` in short headers, which do not say how long it is.
    pub(super) dcid: Option<&'a [u8]>,
    /// The fixed bit is set.
    pub(super) fixed_bit: bool,
}

/// A protected Initial packet.
pub(super) struct Initial<'a> {
    pub(super) version: QuicVersion,
    pub(super) dcid: &'a [u8],
    /// The whole packet, from its first byte to the end of its tag.
    pub(super) bytes: &'a [u8],
    /// Where in it the packet number starts.
    pub(super) number_at: usize,
}

/// Splits the first packet off `datagram`, which is not empty.
pub(super) fn split<'a>(datagram: &'a [u8]) -> Result<(Packet<'a>, &'a [u8]), Refusal> {
    let mut cursor = Cursor::new(datagram);
    let first = cursor.u8()?;
    let fixed_bit = first & FIXED_BIT != 0;
    if first & LONG_FORM == 0 {
        let packet = Packet {
            kind: Kind::Short,
            dcid: None,
            fixed_bit,
        };
        return Ok((packet, &[]));
    }
    let version = version(cursor.u32()?)?;
    let dcid = cursor.connection_id()?;
    cursor.connection_id()?;
    let long = long_type(version, first)?;
    if long == LongType::Initial {
        // The token: only its length matters here.
        cursor.vec()?;
    }
    let body_len = usize::try_from(cursor.varint()?).map_err(|_| QUIC_MALFORMED)?;
    let number_at = datagram.len() - cursor.len();
    cursor.take(body_len)?;
    let (bytes, rest) = datagram.split_at(datagram.len() - cursor.len());
    let kind = match long {
        LongType::Initial => Kind::Initial(Initial {
            version,
            dcid,
            bytes,
            number_at,
        }),
        LongType::Other => Kind::Long,
    };
    let packet = Packet {
        kind,
        dcid: Some(dcid),
        fixed_bit,
    };
    Ok((packet, rest))
}

fn version(number: u32) -> Result<QuicVersion, Refusal> {
    match number {
        NEGOTIATION => Err(QUIC_VERSION_NEGOTIATION),
        1 => Ok(QuicVersion::V1),
        // RFC 9369 section 3.1.
        0x6b33_43cf => Ok(QuicVersion::V2),
        _ => Err(QUIC_UNKNOWN_VERSION),
    }
}

#[derive(PartialEq, Eq)]
enum LongType {
    Initial,
    /// 0-RTT or Handshake.
    Other,
}

/// The types have other numbers in version 2 (RFC 9369 section 3.2).
fn long_type(version: QuicVersion, first: u8) -> Result<LongType, Refusal> {
    let (initial, retry) = match version {
        QuicVersion::V1 => (0, 3),
        QuicVersion::V2 => (1, 0),
    };
    let number = first >> TYPE_SHIFT & 3;
    if number == retry {
        Err(QUIC_RETRY_PACKET)
    } else if number == initial {
        Ok(LongType::Initial)
    } else {
        Ok(LongType::Other)
    }
}
