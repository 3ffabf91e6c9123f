//! The client halves of streams that are open.

use std::collections::BTreeMap;

use super::OPEN_STREAMS_MAX;
use crate::refusal::{
    HTTP2_IDLE_STREAM, HTTP2_LENGTH_MISMATCH, HTTP2_STREAM_CLOSED, HTTP2_STREAM_ID,
    HTTP2_TOO_MANY_STREAMS, Refusal,
};

/// What a field section on a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Request,
    Trailers,
}

/// Streams the client opened and did not end, with what is left of their content length.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The highest identifier in use; 0: none.
    last: u32,
    open: BTreeMap<u32, Option<u64>>,
}

impl Streams {
    /// Stream 1 is the request that asked for the upgrade; its client half is closed.
    pub(super) fn upgraded() -> Self {
        Self {
            last: 1,
            open: BTreeMap::new(),
        }
    }

    /// What HEADERS on this stream begin.
    pub(super) fn section(&self, id: u32) -> Result<Section, Refusal> {
        if id.is_multiple_of(2) {
            return Err(HTTP2_STREAM_ID);
        }
        if self.open.contains_key(&id) {
            return Ok(Section::Trailers);
        }
        if id <= self.last {
            return Err(HTTP2_STREAM_CLOSED);
        }
        if self.open.len() >= OPEN_STREAMS_MAX {
            return Err(HTTP2_TOO_MANY_STREAMS);
        }
        Ok(Section::Request)
    }

    /// A request came; `length` is its content length.
    pub(super) fn request(
        &mut self,
        id: u32,
        length: Option<u64>,
        end_stream: bool,
    ) -> Result<(), Refusal> {
        self.last = self.last.max(id);
        if !end_stream {
            self.open.insert(id, length);
        } else if length.is_some_and(|n| n > 0) {
            return Err(HTTP2_LENGTH_MISMATCH);
        }
        Ok(())
    }

    /// RST_STREAM and WINDOW_UPDATE may name this stream: it is not idle. Even identifiers are
    /// pushes of the server, which knows about them.
    pub(super) fn known(&self, id: u32) -> Result<(), Refusal> {
        if id > self.last && !id.is_multiple_of(2) {
            return Err(HTTP2_IDLE_STREAM);
        }
        Ok(())
    }

    /// DATA may come on this stream.
    pub(super) fn writable(&self, id: u32) -> Result<(), Refusal> {
        if self.open.contains_key(&id) {
            return Ok(());
        }
        if id.is_multiple_of(2) {
            return Err(HTTP2_STREAM_ID);
        }
        self.known(id)?;
        Err(HTTP2_STREAM_CLOSED)
    }

    /// So many bytes of content come on an open stream, and perhaps its end.
    pub(super) fn data(&mut self, id: u32, bytes: u32, end_stream: bool) -> Result<(), Refusal> {
        if let Some(Some(left)) = self.open.get_mut(&id) {
            *left = left
                .checked_sub(u64::from(bytes))
                .ok_or(HTTP2_LENGTH_MISMATCH)?;
        }
        if end_stream { self.end(id) } else { Ok(()) }
    }

    /// The client ended its half.
    pub(super) fn end(&mut self, id: u32) -> Result<(), Refusal> {
        match self.open.remove(&id) {
            Some(Some(left)) if left > 0 => Err(HTTP2_LENGTH_MISMATCH),
            _ => Ok(()),
        }
    }

    /// The client gave the stream up.
    pub(super) fn reset(&mut self, id: u32) {
        self.open.remove(&id);
    }

    /// Bytes of memory held, about.
    pub(super) fn buffered(&self) -> usize {
        self.open.len() * size_of::<(u32, Option<u64>)>()
    }
}
