//! TCP options (RFC 9293 section 3.2, RFC 7323, RFC 2018, RFC 7413), read one by one.

use crate::bytes::{be16, be32};

/// Option kinds (IANA "TCP Option Kind Numbers").
mod kind {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
    pub const FAST_OPEN: u8 = 34;
}

/// Kind and length bytes of every option but END and NOP.
const OPTION_HEADER: usize = 2;
/// A SACK block is two sequence numbers.
const SACK_BLOCK: usize = 8;
/// Length of a Fast Open cookie (RFC 7413, 4.1.1).
const COOKIE_LEN: std::ops::RangeInclusive<usize> = 4..=16;

/// One option. NOP and END are not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// Largest segment the sender wants, in bytes.
    Mss(u16),
    /// Shift count of the window, as sent; a receiver uses at most 14 (RFC 7323, 2.3).
    WindowScale(u8),
    /// The sender understands SACK.
    SackPermitted,
    /// Received blocks.
    Sack(SackBlocks<'a>),
    /// The sender's clock, and the echo of the peer's.
    Timestamps {
        /// TSval.
        value: u32,
        /// TSecr.
        echo: u32,
    },
    /// Fast Open: a cookie, or empty for the request of one.
    FastOpen(&'a [u8]),
    /// Any other option with its data.
    Unknown {
        /// Its kind.
        kind: u8,
        /// The bytes after kind and length.
        data: &'a [u8],
    },
}

/// The blocks of a SACK option: pairs of left (first byte held) and right edge (first byte missing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SackBlocks<'a>(&'a [u8]);

impl SackBlocks<'_> {
    /// The blocks, first to last; at most four fit a TCP header.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0
            .chunks_exact(SACK_BLOCK)
            .filter_map(|block| Some((be32(block, 0)?, be32(block, 4)?)))
    }
}

/// Options that break the format. Iteration ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpOptionError {
    /// The option runs past the end of the header.
    #[error("TCP option {kind}: longer than the rest of the header")]
    Truncated {
        /// Its kind.
        kind: u8,
    },
    /// The length is one that this kind cannot have.
    #[error("TCP option {kind}: length {len} is not allowed")]
    BadLength {
        /// Its kind.
        kind: u8,
        /// Its length byte.
        len: u8,
    },
}

impl TcpOptionError {
    /// Stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "tcp-option-truncated",
            Self::BadLength { .. } => "tcp-option-bad-length",
        }
    }
}

/// Reads options in order. After an error or END there is nothing more.
#[derive(Clone, Debug)]
pub struct TcpOptions<'a> {
    rest: &'a [u8],
}

impl<'a> TcpOptions<'a> {
    /// `options` are the bytes between the fixed TCP header and the payload
    /// (see [`crate::packet::Layout::tcp_options`]).
    pub fn new(options: &'a [u8]) -> Self {
        Self { rest: options }
    }

    /// Reads the option at the front, which is neither END nor NOP.
    fn read(&mut self, kind: u8) -> Result<TcpOption<'a>, TcpOptionError> {
        let truncated = TcpOptionError::Truncated { kind };
        let len = *self.rest.get(1).ok_or(truncated)?;
        let bad = TcpOptionError::BadLength { kind, len };
        if usize::from(len) < OPTION_HEADER {
            return Err(bad);
        }
        let (option, rest) = self
            .rest
            .split_at_checked(usize::from(len))
            .ok_or(truncated)?;
        self.rest = rest;
        decode(kind, option.get(OPTION_HEADER..).unwrap_or_default()).ok_or(bad)
    }
}

/// The option of this kind with this data, `None` if the data has a wrong length.
fn decode(kind: u8, data: &[u8]) -> Option<TcpOption<'_>> {
    let option = match (kind, data.len()) {
        (kind::MSS, 2) => TcpOption::Mss(be16(data, 0)?),
        (kind::WINDOW_SCALE, 1) => TcpOption::WindowScale(*data.first()?),
        (kind::SACK_PERMITTED, 0) => TcpOption::SackPermitted,
        (kind::SACK, len) if len >= SACK_BLOCK && len % SACK_BLOCK == 0 => {
            TcpOption::Sack(SackBlocks(data))
        }
        (kind::TIMESTAMPS, 8) => TcpOption::Timestamps {
            value: be32(data, 0)?,
            echo: be32(data, 4)?,
        },
        (kind::FAST_OPEN, len) if len == 0 || (COOKIE_LEN.contains(&len) && len % 2 == 0) => {
            TcpOption::FastOpen(data)
        }
        (
            kind::MSS
            | kind::WINDOW_SCALE
            | kind::SACK_PERMITTED
            | kind::SACK
            | kind::TIMESTAMPS
            | kind::FAST_OPEN,
            _,
        ) => return None,
        _ => TcpOption::Unknown { kind, data },
    };
    Some(option)
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = Result<TcpOption<'a>, TcpOptionError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.rest.first()? {
                kind::END => {
                    self.rest = &[];
                    return None;
                }
                kind::NOP => self.rest = self.rest.get(1..).unwrap_or_default(),
                kind => {
                    let option = self.read(kind);
                    if option.is_err() {
                        self.rest = &[];
                    }
                    return Some(option);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<TcpOption<'_>, TcpOptionError>> {
        TcpOptions::new(bytes).collect()
    }

    #[test]
    fn the_options_of_a_linux_syn() {
        let bytes = [
            2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7, 34, 2, 0, 2, 4,
        ];
        let expected = vec![
            Ok(TcpOption::Mss(1460)),
            Ok(TcpOption::SackPermitted),
            Ok(TcpOption::Timestamps { value: 9, echo: 0 }),
            Ok(TcpOption::WindowScale(7)),
            Ok(TcpOption::FastOpen(&[])),
        ];
        assert_eq!(all(&bytes), expected);
    }

    #[test]
    fn sack_blocks_and_unknown_kinds() {
        let bytes = [
            5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 253, 3, 0xaa,
        ];
        let options = all(&bytes);
        let Ok(TcpOption::Sack(blocks)) = options[0] else {
            panic!("{options:?}")
        };
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [(1, 2), (5, 9)]);
        assert_eq!(
            options[1],
            Ok(TcpOption::Unknown {
                kind: 253,
                data: &[0xaa]
            })
        );
    }

    #[test]
    fn malformed_options_end_with_an_error() {
        use TcpOptionError::{BadLength, Truncated};
        let cases: &[(&[u8], TcpOptionError)] = &[
            (&[2], Truncated { kind: 2 }),
            (&[2, 4, 5], Truncated { kind: 2 }),
            (&[2, 0, 1, 1], BadLength { kind: 2, len: 0 }),
            (&[254, 1], BadLength { kind: 254, len: 1 }),
            (&[2, 3, 1, 1], BadLength { kind: 2, len: 3 }),
            (&[3, 2, 1], BadLength { kind: 3, len: 2 }),
            (&[4, 3, 1], BadLength { kind: 4, len: 3 }),
            (&[5, 2], BadLength { kind: 5, len: 2 }),
            (&[5, 9, 0, 0, 0, 0, 0, 0, 0], BadLength { kind: 5, len: 9 }),
            (&[8, 4, 0, 0], BadLength { kind: 8, len: 4 }),
            (&[34, 5, 1, 2, 3], BadLength { kind: 34, len: 5 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(all(bytes), [Err(*error)], "{bytes:?}");
        }
    }
}
