//! The tables that HPACK indices point into (RFC 7541 section 2.3).

use std::collections::VecDeque;

use crate::refusal::{HTTP2_HPACK_INDEX, Refusal};

/// Size of the dynamic table at the start (RFC 9113 section 6.5.2).
const SIZE_DEFAULT: usize = 4096;
/// What an entry counts besides its bytes (RFC 7541 section 4.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// The static table (RFC 7541 appendix A); index 1 is the first.
#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// One entry of the dynamic table.
#[derive(Debug)]
pub(super) struct Entry {
    /// Name and value, one behind the other.
    bytes: Box<[u8]>,
    name: usize,
}

impl Entry {
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        Self {
            bytes: [name, value].concat().into_boxed_slice(),
            name: name.len(),
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + ENTRY_OVERHEAD
    }
}

/// Both tables.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest entry comes first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: SIZE_DEFAULT,
        }
    }
}

impl Table {
    /// Name and value at an index.
    pub(super) fn get(&self, index: usize) -> Result<(&[u8], &[u8]), Refusal> {
        let index = index.checked_sub(1).ok_or(HTTP2_HPACK_INDEX)?;
        if let Some(field) = STATIC.get(index) {
            return Ok(*field);
        }
        let entry = index
            .checked_sub(STATIC.len())
            .and_then(|index| self.entries.get(index))
            .ok_or(HTTP2_HPACK_INDEX)?;
        Ok(entry.bytes.split_at(entry.name))
    }

    /// Adds an entry; makes room first. One that is larger than the table empties it.
    pub(super) fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(self.max.saturating_sub(size));
        if size <= self.max {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Changes how large the dynamic table may be.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
    }

    fn evict(&mut self, max: usize) {
        while self.size > max {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size();
        }
    }

    /// Bytes of memory held.
    pub(super) fn buffered(&self) -> usize {
        let bytes = self.size - self.entries.len() * ENTRY_OVERHEAD;
        bytes + self.entries.capacity() * size_of::<Entry>()
    }
}
