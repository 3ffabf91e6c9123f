//! The server's end of the watched connection: puts together what is delivered and looks for what
//! the policy forbids.

use std::collections::BTreeMap;

use tollgate_l7::http1::HEAD_MAX;
use tollgate_l7::{
    ClientHelloReader, Detected, Http2Event, Http2Reader, HttpEvent, RequestReader, TlsProgress,
    detect,
};

use super::gate::for_server;

/// Most header fields that the independent parser makes room for.
const FIELDS: usize = 300;

/// Which of two versions of a byte counts that came before it was its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wins {
    /// The earlier one (Linux, BSD).
    First,
    /// The later one.
    Last,
}

pub(super) struct Server {
    wins: Wins,
    first: u32,
    port: u16,
    /// Bytes ahead of the stream, by offset.
    early: BTreeMap<u32, u8>,
    /// The stream, as far as it has no gap.
    pub(super) read: Vec<u8>,
    fin: Option<u32>,
    reset: bool,
    /// A segment with an urgent pointer came.
    urgent: bool,
    /// The server said something: an Upgrade may have been agreed to, and what follows is not HTTP.
    spoke: bool,
}

impl Server {
    /// Of the connection whose client's first byte has this sequence number.
    pub(super) fn new(wins: Wins, first: u32, port: u16) -> Self {
        Self {
            wins,
            first,
            port,
            early: BTreeMap::new(),
            read: Vec::new(),
            fin: None,
            reset: false,
            urgent: false,
            spoke: false,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.reset
    }

    pub(super) fn speaks(&mut self, payload: &[u8]) {
        self.spoke |= !payload.is_empty();
    }

    /// What it acknowledges.
    pub(super) fn ack(&self) -> u32 {
        self.next().wrapping_add(u32::from(self.has_ended()))
    }

    fn next(&self) -> u32 {
        self.first.wrapping_add(self.len())
    }

    fn len(&self) -> u32 {
        u32::try_from(self.read.len()).unwrap_or(u32::MAX)
    }

    fn has_ended(&self) -> bool {
        self.fin == Some(self.len())
    }

    /// Takes a frame that left the gate.
    pub(super) fn take(&mut self, frame: &[u8], port: u16) {
        let Some((header, payload)) = for_server(frame, port) else {
            return;
        };
        if header.flags.rst() {
            // Any other place is no reset to a server that is awake (RFC 5961 section 3.2).
            self.reset |= header.seq == self.next();
            return;
        }
        if header.flags.syn() || self.reset {
            return;
        }
        self.urgent |= header.flags.urg();
        let start = header.seq.wrapping_sub(self.first);
        self.keep(start, payload);
        if header.flags.fin() {
            let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            self.fin = Some(start.wrapping_add(len));
        }
        self.advance();
    }

    fn keep(&mut self, start: u32, payload: &[u8]) {
        for (index, byte) in (0u32..).zip(payload) {
            let at = start.wrapping_add(index);
            let is_new = at.wrapping_sub(self.len()).cast_signed() >= 0;
            if is_new && (self.wins == Wins::Last || !self.early.contains_key(&at)) {
                self.early.insert(at, *byte);
            }
        }
    }

    fn advance(&mut self) {
        while !self.has_ended() {
            let Some(byte) = self.early.remove(&self.len()) else {
                break;
            };
            self.read.push(byte);
        }
    }

    /// Nothing that the policy forbids is complete in what was read.
    pub(super) fn check(&self) {
        match detect(&self.read) {
            Detected::Http1 => {
                self.independently();
                self.http1();
            }
            Detected::Http2Preface => self.http2(),
            Detected::Tls => self.tls(),
            Detected::NeedMore => {}
            // Until there is enough to tell, bytes go on; then the connection is cut.
            other => {
                let longest = 2 * HEAD_MAX;
                assert!(self.read.len() <= longest, "{other:?} was delivered");
            }
        }
    }

    /// The first head, as another parser sees it.
    fn independently(&self) {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        if let Ok(httparse::Status::Complete(_)) = request.parse(&self.read) {
            let path = request.path.unwrap_or_default();
            allowed(request.method.unwrap_or_default(), path);
        }
    }

    fn http1(&self) {
        let mut reader = RequestReader::new();
        let mut refused = None;
        let mut rest = &self.read[..];
        while !rest.is_empty() {
            let step = reader.push(rest);
            rest = rest.get(step.consumed..).unwrap_or_default();
            match step.event {
                HttpEvent::Request(request) => {
                    allowed(&request.method, &request.target);
                    if self.spoke && (request.upgrade.is_some() || request.connect) {
                        return;
                    }
                }
                HttpEvent::BodyEnd => {}
                HttpEvent::NeedMore => break,
                HttpEvent::Refused(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        assert!(!self.urgent, "a byte would be taken out");
        assert_eq!(refused, None, "bytes that cannot be judged were delivered");
        let begun = self.read.len().saturating_sub(reader.head_len());
        let head = self.read.get(begun..).unwrap_or_default();
        // One word is a part of a method: no server finds a request there.
        let may_be_request = head.trim_ascii_start().iter().any(u8::is_ascii_whitespace);
        assert!(
            !(may_be_request && self.has_ended() && !self.reset),
            "the end of the stream in place of a head's"
        );
    }

    fn http2(&self) {
        assert!(!self.urgent, "a byte would be taken out");
        let mut reader = Http2Reader::new();
        let mut rest = &self.read[..];
        while !rest.is_empty() {
            let step = reader.push(rest);
            rest = rest.get(step.consumed..).unwrap_or_default();
            match step.event {
                Http2Event::Request(request) => allowed(&request.method, &request.target),
                Http2Event::NeedMore => {}
                Http2Event::Refused(_) => return,
            }
        }
    }

    fn tls(&self) {
        let mut reader = ClientHelloReader::new();
        if let TlsProgress::Done(hello) = reader.push(&self.read) {
            let name = hello.sni.unwrap_or_default();
            assert!(
                name.ends_with(".example.com"),
                "a hello to {name:?} was delivered to port {}",
                self.port
            );
        }
    }
}

/// As the policy of the gate has it. Whether an escaped path is one of the allowed is not for this
/// check to say.
fn allowed(method: &str, target: &str) {
    let is_allowed = method == "GET" && (target.contains("/allowed") || target.contains('%'));
    assert!(is_allowed, "{method} {target} was delivered");
}
