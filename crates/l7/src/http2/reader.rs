//! The state machine over a connection's frames.

use super::fields::{Fields, Trailers};
use super::flood::Flood;
use super::frame::{Frame, HEADER_LEN, Kind, PRIORITY_LEN};
use super::hpack::Decoder;
use super::request;
use super::streams::{Section, Streams};
use super::{
    BLOCK_MAX, CONTINUATIONS_MAX, EMPTY_CONTINUATIONS_MAX, Http2Event, Http2Request, Http2Step,
    PREFACE,
};
use crate::buffer;
use crate::refusal::{
    Fault, HTTP2_BLOCK_TOO_LARGE, HTTP2_CONTINUATION_EXPECTED, HTTP2_CONTINUATION_UNEXPECTED,
    HTTP2_FIRST_FRAME, HTTP2_PADDING, HTTP2_PREFACE, HTTP2_SELF_DEPENDENCY,
    HTTP2_TOO_MANY_CONTINUATIONS, HTTP2_TRAILERS_END, Refusal,
};

/// Bytes in front of the content of a frame that are read: pad length and priority fields.
const PREFIX_MAX: usize = 1 + PRIORITY_LEN as usize;
/// A larger block buffer is given back when the block is over.
const BLOCK_KEPT: usize = 4 * 1024;

/// Up to `HEADER_LEN` bytes that may come in pieces.
#[derive(Debug, Clone, Copy, Default)]
struct Small {
    bytes: [u8; HEADER_LEN],
    len: usize,
}

impl Small {
    /// Takes what is missing to `want` bytes; how many that were.
    fn fill(&mut self, bytes: &[u8], want: usize) -> usize {
        let slots = self.bytes.get_mut(self.len..want).unwrap_or_default();
        let taken = slots.len().min(bytes.len());
        for (slot, byte) in slots.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        self.len += taken;
        taken
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// So many bytes of the preface are read.
    Preface(usize),
    /// Reading a frame header.
    Header(Small),
    /// Reading what stands in front of the content of DATA or HEADERS, or the whole payload of
    /// WINDOW_UPDATE.
    Prefix(Frame, Small),
    /// In the content and padding of DATA; at least one byte is to come.
    Data(u32),
    /// In a fragment of a header block, then its padding.
    Fragment {
        fragment: u32,
        padding: u32,
    },
    /// In a payload that nothing depends on.
    Skip(u32),
    Refused(Refusal),
}

/// The header block being read.
#[derive(Debug, Clone, Copy)]
struct Open {
    stream: u32,
    section: Section,
    end_stream: bool,
    /// The frame being read is the last one.
    last: bool,
    continuations: u32,
    empty: u32,
}

/// What reading some bytes led to.
#[expect(clippy::large_enum_variant, reason = "becomes an event at once")]
enum Found {
    Nothing,
    /// Content of DATA begins or ends here.
    Edge,
    Request(Http2Request),
}

/// Reads the client's half of one HTTP/2 connection. Holds at most a header block
/// ([`BLOCK_MAX`]), the HPACK table ([`HPACK_TABLE_MAX`](super::HPACK_TABLE_MAX)) and a few
/// bytes for each of [`OPEN_STREAMS_MAX`](super::OPEN_STREAMS_MAX) streams.
#[derive(Debug)]
pub struct Http2Reader {
    phase: Phase,
    /// The client's first frame, which must be SETTINGS, came.
    settled: bool,
    open: Option<Open>,
    /// Fragments of the open header block.
    block: Vec<u8>,
    decoder: Decoder,
    streams: Streams,
    flood: Flood,
}

impl Default for Http2Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Http2Reader {
    /// A reader at the start of the 24-byte preface.
    pub fn new() -> Self {
        Self::with(Streams::default())
    }

    /// A reader at the start of the preface that follows an upgrade from HTTP/1.1 (RFC 7540
    /// section 3.2): stream 1 is the request that asked for it, and its client half is closed.
    pub fn upgraded() -> Self {
        Self::with(Streams::upgraded())
    }

    fn with(streams: Streams) -> Self {
        Self {
            phase: Phase::Preface(0),
            settled: false,
            open: None,
            block: Vec::new(),
            decoder: Decoder::default(),
            streams,
            flood: Flood::default(),
        }
    }

    /// Reads the next piece, up to the first event in it or to where the payload of a DATA frame
    /// begins or ends.
    pub fn push(&mut self, bytes: &[u8]) -> Http2Step {
        if let Phase::Refused(why) = self.phase {
            return refused(0, why);
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok((n, Found::Nothing)) => at += n,
                Ok((n, Found::Edge)) => {
                    at += n;
                    break;
                }
                Ok((n, Found::Request(request))) => {
                    return Http2Step {
                        consumed: at + n,
                        event: Http2Event::Request(request),
                    };
                }
                Err(fault) => {
                    *self = Self::with(Streams::default());
                    self.phase = Phase::Refused(fault.why);
                    return refused(at + fault.at, fault.why);
                }
            }
        }
        Http2Step {
            consumed: at,
            event: Http2Event::NeedMore,
        }
    }

    /// In the payload of a DATA frame: how many bytes of it are still to come, padding included,
    /// at least one. They must be shown to the reader, but nothing depends on what they are.
    pub fn data_left(&self) -> Option<u64> {
        if let Phase::Data(left) = self.phase {
            Some(u64::from(left))
        } else {
            None
        }
    }

    /// The preface is complete, no byte of a next frame is read and no header block is open.
    pub fn at_boundary(&self) -> bool {
        matches!(self.phase, Phase::Header(header) if header.len == 0) && self.open.is_none()
    }

    /// Bytes of memory held.
    pub fn buffered(&self) -> usize {
        self.block.capacity() + self.decoder.buffered() + self.streams.buffered()
    }

    /// To be called about once a second by a caller that has a clock, so that what is counted
    /// against a flood of small frames wears off with time. Without it only requests and data take
    /// frames off the counts.
    pub fn calm(&mut self) {
        self.flood.calm();
    }

    /// Reads at least one byte of at least one.
    fn read(&mut self, bytes: &[u8]) -> Result<(usize, Found), Fault> {
        match self.phase {
            Phase::Preface(seen) => self.preface(seen, bytes),
            Phase::Header(header) => self.header(header, bytes),
            Phase::Prefix(frame, prefix) => self.prefix(frame, prefix, bytes),
            Phase::Data(left) => {
                let (n, left) = take(left, bytes);
                if left > 0 {
                    self.phase = Phase::Data(left);
                    return Ok((n, Found::Nothing));
                }
                self.next_frame();
                Ok((n, Found::Edge))
            }
            Phase::Fragment { fragment, padding } => {
                let (n, left) = take(fragment, bytes);
                let piece = bytes.get(..n).unwrap_or_default();
                buffer::append(&mut self.block, piece, BLOCK_MAX);
                let (skipped, padding) = take(padding, bytes.get(n..).unwrap_or_default());
                found(n + skipped, self.fragment(left, padding))
            }
            Phase::Skip(left) => {
                let (n, left) = take(left, bytes);
                self.skip(left);
                Ok((n, Found::Nothing))
            }
            Phase::Refused(why) => Err(Fault { at: 0, why }),
        }
    }

    fn header(&mut self, mut header: Small, bytes: &[u8]) -> Result<(usize, Found), Fault> {
        let n = header.fill(bytes, HEADER_LEN);
        self.phase = Phase::Header(header);
        if header.len < HEADER_LEN {
            return Ok((n, Found::Nothing));
        }
        found(n, self.begin(Frame::parse(header.bytes)))
    }

    fn prefix(
        &mut self,
        frame: Frame,
        mut prefix: Small,
        bytes: &[u8],
    ) -> Result<(usize, Found), Fault> {
        let want = want(frame);
        let pad_first = frame.padded() && prefix.len == 0;
        let n = prefix.fill(bytes, want);
        self.phase = Phase::Prefix(frame, prefix);
        if pad_first && frame.prefix() + pad_length(frame, &prefix) > frame.length {
            return Err(Fault {
                at: 1,
                why: HTTP2_PADDING,
            });
        }
        if prefix.len < want {
            return Ok((n, Found::Nothing));
        }
        found(n, self.content(frame, &prefix))
    }

    fn preface(&mut self, seen: usize, bytes: &[u8]) -> Result<(usize, Found), Fault> {
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let same = expected
            .iter()
            .zip(bytes)
            .take_while(|(a, b)| a == b)
            .count();
        if same < expected.len().min(bytes.len()) {
            return Err(Fault {
                at: same + 1,
                why: HTTP2_PREFACE,
            });
        }
        if same == expected.len() {
            self.next_frame();
        } else {
            self.phase = Phase::Preface(seen + same);
        }
        Ok((same, Found::Nothing))
    }

    fn next_frame(&mut self) {
        self.phase = Phase::Header(Small::default());
    }

    fn skip(&mut self, left: u32) {
        if left == 0 {
            self.next_frame();
        } else {
            self.phase = Phase::Skip(left);
        }
    }

    /// Judges a frame by its header.
    fn begin(&mut self, frame: Frame) -> Result<Found, Refusal> {
        if !self.settled && (frame.kind != Kind::Settings || frame.ack()) {
            return Err(HTTP2_FIRST_FRAME);
        }
        self.settled = true;
        if self.open.is_some() {
            return self.continuation(frame);
        }
        frame.check()?;
        match frame.kind {
            Kind::Data => self.streams.writable(frame.stream)?,
            Kind::Headers => self.headers(frame)?,
            Kind::Continuation => return Err(HTTP2_CONTINUATION_UNEXPECTED),
            Kind::WindowUpdate if frame.stream != 0 => self.streams.known(frame.stream)?,
            Kind::WindowUpdate => {}
            Kind::RstStream => {
                self.streams.known(frame.stream)?;
                self.streams.reset(frame.stream);
                self.flood.reset()?;
            }
            _ if frame.ack() => {}
            _ => self.flood.frame()?,
        }
        if want(frame) > 0 {
            self.phase = Phase::Prefix(frame, Small::default());
            return Ok(Found::Nothing);
        }
        self.content(frame, &Small::default())
    }

    fn headers(&mut self, frame: Frame) -> Result<(), Refusal> {
        let section = self.streams.section(frame.stream)?;
        if section == Section::Trailers && !frame.end_stream() {
            return Err(HTTP2_TRAILERS_END);
        }
        self.open = Some(Open {
            stream: frame.stream,
            section,
            end_stream: frame.end_stream(),
            last: frame.end_headers(),
            continuations: 0,
            empty: 0,
        });
        Ok(())
    }

    /// A frame while a header block is open: nothing else may come.
    fn continuation(&mut self, frame: Frame) -> Result<Found, Refusal> {
        let Some(open) = &mut self.open else {
            return Err(HTTP2_CONTINUATION_UNEXPECTED);
        };
        if frame.kind != Kind::Continuation || frame.stream != open.stream {
            return Err(HTTP2_CONTINUATION_EXPECTED);
        }
        frame.check()?;
        open.continuations += 1;
        open.empty += u32::from(frame.length == 0);
        if open.continuations > CONTINUATIONS_MAX || open.empty > EMPTY_CONTINUATIONS_MAX {
            return Err(HTTP2_TOO_MANY_CONTINUATIONS);
        }
        open.last = frame.end_headers();
        self.content(frame, &Small::default())
    }

    /// The content of a frame begins; `prefix` is what stands in front of it.
    fn content(&mut self, frame: Frame, prefix: &Small) -> Result<Found, Refusal> {
        let padding = pad_length(frame, prefix);
        let content = frame
            .length
            .checked_sub(frame.prefix() + padding)
            .ok_or(HTTP2_PADDING)?;
        match frame.kind {
            Kind::Data => self.data(frame, content, padding),
            Kind::Headers | Kind::Continuation => {
                if depends_on_itself(frame, prefix) {
                    return Err(HTTP2_SELF_DEPENDENCY);
                }
                if self.block.len() + content as usize > BLOCK_MAX {
                    return Err(HTTP2_BLOCK_TOO_LARGE);
                }
                self.fragment(content, padding)
            }
            Kind::WindowUpdate => {
                if frame.stream == 0 {
                    self.flood.moved(increment(prefix));
                }
                self.next_frame();
                Ok(Found::Nothing)
            }
            _ => {
                self.skip(frame.length);
                Ok(Found::Nothing)
            }
        }
    }

    fn data(&mut self, frame: Frame, content: u32, padding: u32) -> Result<Found, Refusal> {
        self.streams
            .data(frame.stream, content, frame.end_stream())?;
        if content == 0 && !frame.end_stream() {
            self.flood.frame()?;
        }
        self.flood.moved(content);
        if content + padding == 0 {
            self.next_frame();
            return Ok(Found::Nothing);
        }
        self.phase = Phase::Data(content + padding);
        Ok(Found::Edge)
    }

    /// So much of the frame with the fragment is to come.
    fn fragment(&mut self, fragment: u32, padding: u32) -> Result<Found, Refusal> {
        if fragment + padding > 0 {
            self.phase = Phase::Fragment { fragment, padding };
            return Ok(Found::Nothing);
        }
        self.next_frame();
        match self.open {
            Some(open) if open.last => self.block_end(open),
            _ => Ok(Found::Nothing),
        }
    }

    /// The header block is complete.
    fn block_end(&mut self, open: Open) -> Result<Found, Refusal> {
        let found = self.section(open);
        self.open = None;
        self.block.clear();
        if self.block.capacity() > BLOCK_KEPT {
            self.block = Vec::new();
        }
        found
    }

    fn section(&mut self, open: Open) -> Result<Found, Refusal> {
        if open.section == Section::Trailers {
            let mut trailers = Trailers::default();
            self.decoder.decode(&self.block, &mut trailers)?;
            self.streams.end(open.stream)?;
            return Ok(Found::Nothing);
        }
        let mut fields = Fields::default();
        self.decoder.decode(&self.block, &mut fields)?;
        let length = fields.content_length;
        let request = request::request(fields, open.stream, open.end_stream)?;
        self.streams.request(open.stream, length, open.end_stream)?;
        self.flood.request();
        Ok(Found::Request(request))
    }
}

fn refused(consumed: usize, why: Refusal) -> Http2Step {
    Http2Step {
        consumed,
        event: Http2Event::Refused(why),
    }
}

fn found(n: usize, result: Result<Found, Refusal>) -> Result<(usize, Found), Fault> {
    match result {
        Ok(found) => Ok((n, found)),
        Err(why) => Err(Fault { at: n, why }),
    }
}

/// How many of `left` bytes the piece has, and how many are still to come then.
fn take(left: u32, bytes: &[u8]) -> (usize, u32) {
    let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(left);
    (n as usize, left - n)
}

/// Bytes of the payload that are read before its content.
fn want(frame: Frame) -> usize {
    if frame.kind == Kind::WindowUpdate {
        return frame.length as usize;
    }
    (frame.prefix() as usize).min(PREFIX_MAX)
}

fn pad_length(frame: Frame, prefix: &Small) -> u32 {
    if frame.padded() {
        prefix.bytes.first().copied().map_or(0, u32::from)
    } else {
        0
    }
}

/// The increment of a window for the whole connection; the prefix holds the payload.
fn increment(prefix: &Small) -> u32 {
    prefix
        .bytes
        .first_chunk()
        .map_or(0, |b| u32::from_be_bytes(*b) & 0x7fff_ffff)
}

/// The priority fields of HEADERS name the stream itself (RFC 7540 section 5.3.1).
fn depends_on_itself(frame: Frame, prefix: &Small) -> bool {
    let at = usize::from(frame.padded());
    if prefix.len < at + PRIORITY_LEN as usize {
        return false;
    }
    let dependency = prefix.bytes.get(at..).and_then(|b| b.first_chunk());
    dependency.is_some_and(|b| u32::from_be_bytes(*b) & 0x7fff_ffff == frame.stream)
}
