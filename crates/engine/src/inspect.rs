//! What a rule set wants to know of a TCP stream: recognise, read, judge.

use std::time::Duration;

use tollgate_l7::Refusal;
use tollgate_l7::detect::{DETECT_MAX, Detected, detect};
use tollgate_l7::http1::{HttpEvent, RequestReader};
use tollgate_l7::http2::{FLOOD_MAX, FLOOD_PER_CALM, Http2Event, Http2Reader};
use tollgate_l7::refusal::{
    LDAP_UNSUPPORTED, MYSQL_UNSUPPORTED, POSTGRESQL_WITHOUT_TLS, TLS_SSLV2_HELLO,
};
use tollgate_l7::starttls::{StarttlsEvent, StarttlsProtocol, StarttlsReader};
use tollgate_l7::tls::{AfterHello, AfterHelloReader, ClientHelloReader, TlsProgress};

use crate::cache::{CacheEntry, Steer};
use crate::event::{Carrier, L7Facts};
use crate::judge::{Judged, Judges};
use crate::response::{ResponseWatch, Switch};
use crate::seq;
use crate::stream::{ClientStream, OPAQUE_MAX};

/// Smallest rest of a request body that is worth a flow-cache update: below it the update costs
/// more than the one or two segments that it saves from coming up.
const WINDOW_MIN: u64 = 16 * 1024;

/// Seconds of silence after which an HTTP/2 reader has forgotten every flood.
const CALMS_MAX: u64 = (FLOOD_MAX / FLOOD_PER_CALM) as u64;

/// TLS 1.3 on the wire; only it knows HelloRetryRequest.
const TLS13: u16 = 0x0304;

/// Longest part of a body granted at once. Half of what the stream may remember as opaque, so
/// that a retransmission from before the latest grant is still known.
const GRANT_MAX: u32 = OPAQUE_MAX / 2;

/// Why the stream must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub reason: &'static str,
    pub detail: &'static str,
    /// What was read, if the denial is a verdict on it and not on its form.
    pub facts: Option<Box<L7Facts>>,
    /// In whose words the client can be told.
    pub tell: Tell,
}

impl Refused {
    /// Refused for its form.
    pub(crate) fn form(reason: &'static str, detail: &'static str) -> Self {
        Self {
            reason,
            detail,
            facts: None,
            tell: Tell::Reset,
        }
    }
}

/// How a client can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// `403`; `head_only` for a HEAD request, whose answer has no body.
    Http { head_only: bool },
    /// The same on an HTTP/2 stream; gRPC has its own way to say it.
    Http2 {
        stream: u32,
        head_only: bool,
        grpc: bool,
    },
    /// A TLS alert.
    Tls,
    /// RST.
    Reset,
}

/// How the client's bytes are being read.
enum Reader {
    /// Too few bytes yet to tell the protocol.
    Detecting(Vec<u8>),
    Http(Box<RequestReader>),
    Http2(Box<Http2Reader>),
    /// What precedes TLS in another protocol.
    Starttls(Box<StarttlsReader>, StarttlsProtocol),
    Tls(Box<ClientHelloReader>),
    /// Behind a hello of TLS 1.3: the server may ask for a second one, and acts on that.
    AfterTls(Box<AfterHelloReader>),
    /// Judged for good: TLS after its hello, HTTP after a protocol switch.
    Settled,
}

pub(crate) struct Inspection {
    pub judges: Judges,
    /// The server is known to have answered the SYN. The kernel passes and notes the SYN-ACK; the
    /// engine looks when the client's first byte comes.
    pub established: bool,
    pub stream: ClientStream,
    /// Requests let through.
    pub requests: u64,
    /// What the client had acknowledged when its latest request came.
    pub last_request_ack: u32,
    /// A request came before there was an answer to the one before it: from then on several answers may
    /// be outstanding.
    pub pipelined: bool,
    /// Set while the server's answer to Upgrade or CONNECT is awaited.
    pub response: Option<ResponseWatch>,
    reader: Reader,
    /// Behind the last byte of the server when the client's first byte came.
    pub heard_first: Option<u32>,
    /// Nothing is read any more, though something was to be.
    given_up: bool,
    /// The server may have agreed to change protocols: the next byte shows whether it has.
    doubted: bool,
    /// When the reader last heard of the time.
    calmed: Duration,
    /// The protocol in which TLS starts.
    carrier: Option<Carrier>,
    /// An Upgrade or CONNECT request was let through; its body, if any, comes first.
    switch: Option<Switch>,
    /// Part of the stream that the kernel may pass on its own.
    window: Option<(u32, u32)>,
}

impl Inspection {
    /// `first` is the sequence number of the client's first byte (its SYN's plus one).
    pub(crate) fn new(judges: Judges, first: u32) -> Self {
        Self {
            judges,
            established: false,
            stream: ClientStream::new(first),
            requests: 0,
            last_request_ack: 0,
            pipelined: false,
            response: None,
            reader: Reader::Detecting(Vec::new()),
            heard_first: None,
            given_up: false,
            doubted: false,
            calmed: Duration::ZERO,
            carrier: None,
            switch: None,
            window: None,
        }
    }

    /// An end of stream now would leave the server to interpret what was not judged.
    pub(crate) fn must_not_end(&self) -> bool {
        match &self.reader {
            Reader::Http(reader) => self.in_head() && !reader.may_end(),
            _ => self.in_head(),
        }
    }

    /// A head has begun and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        match &self.reader {
            Reader::Detecting(prefix) => !prefix.is_empty(),
            Reader::Http(reader) => !reader.at_boundary() && reader.opaque_body().is_none(),
            Reader::Http2(reader) => !reader.at_boundary() && reader.data_left().is_none(),
            // Commands that are not complete ask for nothing.
            Reader::Starttls(..) => false,
            Reader::Tls(_) => true,
            // A client may give up here; no server acts on a part of a second hello.
            Reader::AfterTls(_) => false,
            Reader::Settled => false,
        }
    }

    /// Bytes of memory held: the inspection itself, judged bytes, and what the reader holds.
    pub(crate) fn memory(&self) -> usize {
        let reader = match &self.reader {
            Reader::Detecting(prefix) => prefix.capacity(),
            Reader::Http(reader) => size_of_val(&**reader) + reader.buffered(),
            Reader::Http2(reader) => size_of_val(&**reader) + reader.buffered(),
            Reader::Starttls(reader, _) => size_of_val(&**reader),
            Reader::Tls(reader) => size_of_val(&**reader) + reader.buffered(),
            Reader::AfterTls(reader) => size_of_val(&**reader) + reader.buffered(),
            Reader::Settled => 0,
        };
        let response = self.response.as_ref().map_or(0, ResponseWatch::held);
        size_of::<Self>() + self.stream.memory() + reader + response
    }

    /// Whether a rule that is enforced judges the stream. If none does, nothing of it may be held up for
    /// long, changed or refused.
    pub(crate) fn is_enforced(&self) -> bool {
        self.judges.enforced.is_some()
    }

    /// Whether a part of the stream has gone by that should have been read.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether no byte of the stream matters any more.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.reader, Reader::Settled)
    }

    /// What the kernel may do on its own in this state: (client's direction, server's direction).
    pub(crate) fn steering(&self) -> (Steer, Steer) {
        if self.response.is_some() {
            return (Steer::Divert, Steer::Divert);
        }
        if self.is_settled() && !self.is_enforced() {
            return (Steer::Pass, Steer::Pass);
        }
        if self.is_settled() {
            let start = self.stream.next();
            return (
                Steer::Window {
                    start,
                    end: start.wrapping_add(OPAQUE_MAX),
                },
                Steer::Pass,
            );
        }
        if self.in_head() {
            return (Steer::Divert, Steer::Pass);
        }
        let (start, end) = self.window.unwrap_or((0, 0));
        (Steer::Window { start, end }, Steer::Pass)
    }

    /// The steering as a flow-cache entry.
    pub(crate) fn cache_entry(&self, client_is_local: bool) -> CacheEntry {
        let (client, server) = self.steering();
        match client_is_local {
            true => CacheEntry {
                outbound: client,
                inbound: server,
            },
            false => CacheEntry {
                outbound: server,
                inbound: client,
            },
        }
    }

    /// Tells a reader that bounds floods that time has passed.
    pub(crate) fn calm(&mut self, now: Duration) {
        let Reader::Http2(reader) = &mut self.reader else {
            return;
        };
        let seconds = now.saturating_sub(self.calmed).as_secs();
        if seconds > 0 {
            self.calmed = now;
        }
        for _ in 0..seconds.min(CALMS_MAX) {
            reader.calm();
        }
    }

    /// The next bytes of the client, in order. Each request or hello that is let through goes to
    /// `allowed`. On refusal nothing of `bytes` may be delivered.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        allowed: &mut dyn FnMut(Judged),
    ) -> Result<(), Refused> {
        self.close_stale_window();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.switch.is_some() && self.is_between_requests() {
                return Err(Refused::form(
                    "http-data-before-switch",
                    "data sent before the server agreed to switch protocols",
                ));
            }
            let taken = match &mut self.reader {
                Reader::Detecting(_) => self.feed_prefix(rest)?,
                Reader::Http(_) => self.feed_http(rest, allowed)?,
                Reader::Http2(_) => self.feed_http2(rest, allowed)?,
                Reader::Starttls(..) => self.feed_starttls(rest)?,
                Reader::Tls(_) => self.feed_tls(rest, allowed)?,
                Reader::AfterTls(_) => self.feed_after_tls(rest, allowed)?,
                Reader::Settled => {
                    self.skip(rest.len() as u64);
                    rest.len()
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        self.grant_body();
        self.await_switch();
        Ok(())
    }

    /// The last request and its body are over.
    fn is_between_requests(&self) -> bool {
        matches!(&self.reader, Reader::Http(reader) if reader.at_boundary())
    }

    /// Looks at the first bytes until the protocol is known. Bytes are not kept here but by the
    /// reader that they turn out to be for; those of an earlier segment were kept already.
    fn feed_prefix(&mut self, rest: &[u8]) -> Result<usize, Refused> {
        let Reader::Detecting(prefix) = &mut self.reader else {
            return Ok(0);
        };
        let earlier = prefix.len();
        let room = DETECT_MAX.saturating_sub(earlier).min(rest.len());
        prefix.extend_from_slice(rest.get(..room).unwrap_or_default());
        let detected = detect(prefix);
        prefix.truncate(earlier);
        match detected {
            Detected::NeedMore => {
                prefix.extend_from_slice(rest);
                self.stream.keep(rest);
                Ok(rest.len())
            }
            Detected::Http1 => {
                let mut reader = Box::new(RequestReader::new());
                let step = reader.push(prefix);
                if let HttpEvent::Refused(refusal) = step.event {
                    return Err(refused_http(refusal));
                }
                self.reader = Reader::Http(reader);
                Ok(0)
            }
            Detected::Tls => {
                let mut reader = Box::new(ClientHelloReader::new());
                if let TlsProgress::Refused(refusal) = reader.push(prefix) {
                    return Err(refused_tls(refusal));
                }
                self.reader = Reader::Tls(reader);
                Ok(0)
            }
            Detected::Http2Preface => {
                let mut reader = Box::new(Http2Reader::new());
                if let Http2Event::Refused(refusal) = reader.push(prefix).event {
                    return Err(refused_plain(refusal));
                }
                self.reader = Reader::Http2(reader);
                Ok(0)
            }
            Detected::SslV2 => Err(refused_tls(TLS_SSLV2_HELLO)),
            Detected::Smtp => self.begin_starttls(StarttlsProtocol::Smtp),
            Detected::PostgreSqlTls => self.begin_starttls(StarttlsProtocol::PostgreSql),
            Detected::PostgreSqlPlain => Err(refused_plain(POSTGRESQL_WITHOUT_TLS)),
            Detected::MySql => Err(refused_plain(MYSQL_UNSUPPORTED)),
            Detected::Ldap => Err(refused_plain(LDAP_UNSUPPORTED)),
            Detected::Unknown => Err(Refused::form("protocol-unknown", "neither HTTP/1 nor TLS")),
        }
    }

    /// Goes on with a protocol in which TLS may start; shows it what was kept already.
    fn begin_starttls(&mut self, protocol: StarttlsProtocol) -> Result<usize, Refused> {
        let Reader::Detecting(prefix) = &self.reader else {
            return Ok(0);
        };
        let mut reader = Box::new(StarttlsReader::new(protocol));
        if let StarttlsEvent::Refused(refusal) = reader.push(prefix) {
            return Err(refused_plain(refusal));
        }
        self.carrier = Some(match protocol {
            StarttlsProtocol::Smtp => Carrier::Smtp,
            StarttlsProtocol::PostgreSql => Carrier::Postgresql,
        });
        self.reader = Reader::Starttls(reader, protocol);
        Ok(0)
    }

    fn feed_starttls(&mut self, rest: &[u8]) -> Result<usize, Refused> {
        let Reader::Starttls(reader, protocol) = &mut self.reader else {
            return Ok(0);
        };
        match reader.push(rest) {
            StarttlsEvent::NeedMore => {}
            StarttlsEvent::AwaitServer => {
                self.response = Some(ResponseWatch::starttls(*protocol));
            }
            StarttlsEvent::Refused(refusal) => return Err(refused_plain(refusal)),
        }
        self.stream.keep(rest);
        Ok(rest.len())
    }

    /// SMTP servers greet with the code that stands for their agreement to TLS. A client that asks
    /// before it has read the greeting, and the answer to its own, could have that taken for the
    /// agreement (RFC 5321, section 4.3.1, forbids it).
    pub(crate) fn asks_too_early(&self, ack: u32, has_all: impl FnOnce() -> bool) -> bool {
        self.carrier == Some(Carrier::Smtp)
            && self.response.is_some()
            && !(has_all()
                && self
                    .heard_first
                    .is_some_and(|first| seq::before(first, ack)))
    }

    fn feed_http(
        &mut self,
        rest: &[u8],
        allowed: &mut dyn FnMut(Judged),
    ) -> Result<usize, Refused> {
        let Reader::Http(reader) = &mut self.reader else {
            return Ok(0);
        };
        if let Some(body) = reader.opaque_body() {
            let seen = body.min(rest.len() as u64);
            reader.skip_body(seen);
            self.skip(seen);
            return Ok(usize::try_from(seen).unwrap_or(rest.len()));
        }
        if std::mem::take(&mut self.doubted) && rest.first().is_some_and(|b| begins_no_request(*b))
        {
            self.reader = Reader::Settled;
            return Ok(0);
        }
        let (piece, is_data) = chunk_piece(reader, rest);
        reader.keep_headers(self.judges.want_headers());
        let step = reader.push(piece);
        match step.event {
            HttpEvent::Refused(refusal) => return Err(refused_http(refusal)),
            HttpEvent::NeedMore | HttpEvent::BodyEnd if is_data => {
                self.skip(step.consumed as u64);
                return Ok(step.consumed);
            }
            HttpEvent::NeedMore | HttpEvent::BodyEnd => {}
            HttpEvent::Request(request) => {
                self.switch = Switch::asked_for(&request);
                allowed(self.judges.http1(request)?);
                self.requests += 1;
            }
        }
        self.stream
            .keep(rest.get(..step.consumed).unwrap_or_default());
        Ok(step.consumed)
    }

    fn feed_http2(
        &mut self,
        rest: &[u8],
        allowed: &mut dyn FnMut(Judged),
    ) -> Result<usize, Refused> {
        let Reader::Http2(reader) = &mut self.reader else {
            return Ok(0);
        };
        if let Some(left) = reader.data_left() {
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let data = rest.get(..len).unwrap_or(rest);
            let step = reader.push(data);
            if let Http2Event::Refused(refusal) = step.event {
                return Err(refused_plain(refusal));
            }
            self.skip(data.len() as u64);
            return Ok(data.len());
        }
        let step = reader.push(rest);
        match step.event {
            Http2Event::Refused(refusal) => {
                return Err(refused_plain(refusal));
            }
            Http2Event::NeedMore => {}
            Http2Event::Request(request) => {
                allowed(self.judges.http2(request)?);
                self.requests += 1;
            }
        }
        self.stream
            .keep(rest.get(..step.consumed).unwrap_or_default());
        Ok(step.consumed)
    }

    fn feed_tls(&mut self, rest: &[u8], allowed: &mut dyn FnMut(Judged)) -> Result<usize, Refused> {
        let Reader::Tls(reader) = &mut self.reader else {
            return Ok(0);
        };
        let mut read = rest;
        match reader.push(rest) {
            TlsProgress::NeedMore => {}
            TlsProgress::Refused(refusal) => return Err(refused_tls(refusal)),
            TlsProgress::Done(hello) => {
                read = rest
                    .get(..rest.len().saturating_sub(reader.behind()))
                    .unwrap_or(rest);
                let next = match hello.max_version() {
                    Some(version) if version >= TLS13 => {
                        Reader::AfterTls(Box::new(AfterHelloReader::new(hello.early_data)))
                    }
                    _ => Reader::Settled,
                };
                allowed(self.judges.hello(hello, self.carrier)?);
                self.reader = next;
            }
        }
        self.stream.keep(read);
        Ok(read.len())
    }

    /// What follows a hello of TLS 1.3, until a second one is there or none can come.
    fn feed_after_tls(
        &mut self,
        rest: &[u8],
        allowed: &mut dyn FnMut(Judged),
    ) -> Result<usize, Refused> {
        let Reader::AfterTls(reader) = &mut self.reader else {
            return Ok(0);
        };
        match reader.push(rest) {
            AfterHello::NeedMore => {}
            AfterHello::Settled => self.reader = Reader::Settled,
            AfterHello::Second(hello) => {
                allowed(self.judges.hello(hello, self.carrier)?);
                self.reader = Reader::Settled;
            }
            AfterHello::Refused(refusal) => {
                return Err(refused_plain(refusal));
            }
        }
        self.stream.keep(rest);
        Ok(rest.len())
    }

    /// Moves past bytes that no verdict depends on.
    fn skip(&mut self, len: u64) {
        let mut left = len;
        while left > 0 {
            let step = u32::try_from(left).unwrap_or(GRANT_MAX).min(GRANT_MAX);
            self.stream.skip(step);
            left -= u64::from(step);
        }
    }

    /// Moves ahead over a gap if it lies wholly in a body of known length: nothing in it will be
    /// judged, so nothing has to wait for it. False: the gap matters.
    pub(crate) fn leap(&mut self, ahead: u32) -> bool {
        let Reader::Http(reader) = &mut self.reader else {
            return false;
        };
        if ahead > GRANT_MAX
            || reader
                .opaque_body()
                .is_none_or(|rest| rest < u64::from(ahead))
        {
            return false;
        }
        reader.skip_body(u64::from(ahead));
        self.stream.skip(ahead);
        true
    }

    /// Grants the rest of a body of known length ahead of its arrival.
    fn grant_body(&mut self) {
        let Reader::Http(reader) = &mut self.reader else {
            return;
        };
        let Some(rest) = reader.opaque_body().filter(|rest| *rest > 0) else {
            return;
        };
        let grant = u32::try_from(rest).unwrap_or(GRANT_MAX).min(GRANT_MAX);
        reader.skip_body(u64::from(grant));
        self.stream.skip(grant);
        if rest >= WINDOW_MIN {
            self.window = self.stream.opaque_tail();
        }
    }

    /// A window left open would let other bytes pass once sequence numbers come round again.
    fn close_stale_window(&mut self) {
        let passed = |end: u32| self.stream.next().wrapping_sub(end) > GRANT_MAX;
        if self.window.is_some_and(|(_, end)| passed(end)) {
            self.window = None;
        }
    }

    /// After an Upgrade or CONNECT request and its body the server's answer says how to go on.
    fn await_switch(&mut self) {
        let Reader::Http(reader) = &self.reader else {
            return;
        };
        if self.response.is_none()
            && reader.at_boundary()
            && let Some(switch) = self.switch
        {
            self.response = Some(ResponseWatch::new(switch));
        }
    }

    /// No rule that is enforced judges the flow, and it cannot be read any further: nothing of it
    /// matters from here on.
    pub(crate) fn give_up(&mut self, len: usize) {
        self.given_up = true;
        self.reader = Reader::Settled;
        self.switch = None;
        self.response = None;
        self.window = None;
        self.skip(len as u64);
    }

    /// The server's answer to Upgrade or CONNECT has been read.
    pub(crate) fn switch_answered(&mut self, agreed: bool) {
        self.response = None;
        let switch = self.switch.take();
        if let Reader::Starttls(reader, _) = &mut self.reader {
            match agreed {
                true => self.reader = Reader::Tls(Box::default()),
                false => reader.server_declined(),
            }
        } else if agreed {
            match switch {
                Some(Switch::Http2) => {
                    self.reader = Reader::Http2(Box::new(Http2Reader::upgraded()));
                }
                // What was read may have been another request's answer.
                _ if self.requests > 1 => self.doubted = true,
                _ => self.reader = Reader::Settled,
            }
        }
    }
}

/// No server that still reads HTTP/1 finds a request in a stream that goes on with this byte: it can be
/// in no method, and nobody takes it for white space, be it in ISO 8859-1. TLS begins with such a byte,
/// and so do the frames of WebSocket and SPDY.
fn begins_no_request(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0e..=0x1b | 0x80..=0xff) && !matches!(byte, 0x85 | 0xa0)
}

/// The part of `rest` to show to the reader at once, and whether it is data of a chunk. Where the
/// chunks end is judged, so framing is remembered; their data is not, or an upload would have to
/// wait until the server has acknowledged each few of them.
fn chunk_piece<'a>(reader: &RequestReader, rest: &'a [u8]) -> (&'a [u8], bool) {
    let len = match reader.chunk_data() {
        None => rest.len(),
        // One line: what follows it may be data.
        Some(0) => rest
            .iter()
            .position(|&b| b == b'\n')
            .map_or(rest.len(), |at| at + 1),
        Some(left) => usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len())),
    };
    let is_data = reader.chunk_data().is_some_and(|left| left > 0);
    (rest.get(..len).unwrap_or(rest), is_data)
}

fn refused_http(refusal: Refusal) -> Refused {
    // A request that cannot be read strictly may be read otherwise by the client's own side;
    // 403 is still the truth about it.
    Refused {
        tell: Tell::Http { head_only: false },
        ..Refused::form(refusal.reason, refusal.detail)
    }
}

fn refused_tls(refusal: Refusal) -> Refused {
    Refused {
        tell: Tell::Tls,
        ..Refused::form(refusal.reason, refusal.detail)
    }
}

fn refused_plain(refusal: Refusal) -> Refused {
    Refused::form(refusal.reason, refusal.detail)
}
