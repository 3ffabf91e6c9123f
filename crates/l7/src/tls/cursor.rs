//! Reading TLS's length-prefixed vectors; every length is checked.

use crate::refusal::{Refusal, TLS_MALFORMED};

/// The bytes still to read.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(TLS_MALFORMED)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        let (&first, rest) = self.0.split_first().ok_or(TLS_MALFORMED)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refusal> {
        let (&first, rest) = self.0.split_first_chunk::<2>().ok_or(TLS_MALFORMED)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(first))
    }

    /// A vector with a one-byte length.
    pub(super) fn vec8(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// A vector with a two-byte length.
    pub(super) fn vec16(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Refusal> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TLS_MALFORMED)
        }
    }
}
