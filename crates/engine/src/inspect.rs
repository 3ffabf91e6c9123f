//! What a rule set wants to know of a TCP stream: recognise, read, judge.

use std::sync::Arc;

use tollgate_l7::Refusal;
use tollgate_l7::detect::{DETECT_MAX, Detected, detect};
use tollgate_l7::http1::{HttpEvent, Request, RequestReader, split_target};
use tollgate_l7::tls::{ClientHelloReader, TlsProgress};
use tollgate_policy::{HttpFacts, L7Verdict, RuleSet, TlsFacts};

use crate::cache::{CacheEntry, Steer};
use crate::event::L7Facts;
use crate::response::{ResponseWatch, Switch};
use crate::stream::{ClientStream, OPAQUE_MAX};

/// Smallest rest of a request body that is worth a flow-cache update: below it the update costs
/// more than the one or two segments that it saves from coming up.
const WINDOW_MIN: u64 = 16 * 1024;

/// Longest part of a body granted at once. Half of what the stream may remember as opaque, so
/// that a retransmission from before the latest grant is still known.
const GRANT_MAX: u32 = OPAQUE_MAX / 2;

/// Why the stream must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub reason: &'static str,
    pub detail: &'static str,
    /// What was read, if the denial is a verdict on it and not on its form.
    pub facts: Option<L7Facts>,
    /// In whose words the client can be told.
    pub tell: Tell,
}

/// How a client can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// `403`; `head_only` for a HEAD request, whose answer has no body.
    Http { head_only: bool },
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
    Tls(Box<ClientHelloReader>),
    /// Judged for good: TLS after its hello, HTTP after a protocol switch.
    Settled,
}

pub(crate) struct Inspection {
    pub rules: Arc<RuleSet>,
    /// The server is known to have answered the SYN. The kernel passes and notes the SYN-ACK; the
    /// engine looks when the client's first byte comes.
    pub established: bool,
    pub stream: ClientStream,
    /// Requests let through.
    pub requests: u64,
    /// What the client had acknowledged when its latest request came.
    pub last_request_ack: u32,
    /// Set while the server's answer to Upgrade or CONNECT is awaited.
    pub response: Option<ResponseWatch>,
    reader: Reader,
    /// An Upgrade or CONNECT request was let through; its body, if any, comes first.
    switch: Option<Switch>,
    /// Part of the stream that the kernel may pass on its own.
    window: Option<(u32, u32)>,
}

impl Inspection {
    /// `first` is the sequence number of the client's first byte (its SYN's plus one).
    pub(crate) fn new(rules: Arc<RuleSet>, first: u32) -> Self {
        Self {
            rules,
            established: false,
            stream: ClientStream::new(first),
            requests: 0,
            last_request_ack: 0,
            response: None,
            reader: Reader::Detecting(Vec::new()),
            switch: None,
            window: None,
        }
    }

    /// A head has begun and is not complete: an end of stream now would leave the server to
    /// interpret what was not judged.
    pub(crate) fn in_head(&self) -> bool {
        match &self.reader {
            Reader::Detecting(prefix) => !prefix.is_empty(),
            Reader::Http(reader) => !reader.at_boundary() && reader.opaque_body().is_none(),
            Reader::Tls(_) => true,
            Reader::Settled => false,
        }
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

    /// The next bytes of the client, in order. Each request or hello that is let through goes to
    /// `allowed`. On refusal nothing of `bytes` may be delivered.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        allowed: &mut dyn FnMut(L7Facts),
    ) -> Result<(), Refused> {
        self.close_stale_window();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.switch.is_some() {
                return Err(refused_form(
                    "http-data-before-switch",
                    "data sent before the server agreed to switch protocols",
                ));
            }
            let taken = match &mut self.reader {
                Reader::Detecting(_) => self.feed_prefix(rest)?,
                Reader::Http(_) => self.feed_http(rest, allowed)?,
                Reader::Tls(_) => self.feed_tls(rest, allowed)?,
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
            Detected::Http2Preface => Err(refused_form(
                "http2-unsupported",
                "HTTP/2 without TLS is not understood yet",
            )),
            Detected::Unknown => Err(refused_form("protocol-unknown", "neither HTTP/1 nor TLS")),
        }
    }

    fn feed_http(
        &mut self,
        rest: &[u8],
        allowed: &mut dyn FnMut(L7Facts),
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
        let (piece, is_data) = chunk_piece(reader, rest);
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
                allowed(judge_http(&self.rules, request)?);
                self.requests += 1;
            }
        }
        self.stream
            .keep(rest.get(..step.consumed).unwrap_or_default());
        Ok(step.consumed)
    }

    fn feed_tls(
        &mut self,
        rest: &[u8],
        allowed: &mut dyn FnMut(L7Facts),
    ) -> Result<usize, Refused> {
        let Reader::Tls(reader) = &mut self.reader else {
            return Ok(0);
        };
        match reader.push(rest) {
            TlsProgress::NeedMore => {}
            TlsProgress::Refused(refusal) => return Err(refused_tls(refusal)),
            TlsProgress::Done(hello) => {
                let facts = L7Facts::Tls {
                    sni: hello.sni,
                    alpn: hello.alpn,
                };
                judge_tls(&self.rules, &facts)?;
                self.reader = Reader::Settled;
                allowed(facts);
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

    /// The server's answer to Upgrade or CONNECT has been read.
    pub(crate) fn switch_answered(&mut self, agreed: bool) {
        self.response = None;
        self.switch = None;
        if agreed {
            self.reader = Reader::Settled;
        }
    }
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

fn judge_http(rules: &RuleSet, request: Request) -> Result<L7Facts, Refused> {
    let verdict = rules.judge_http(&HttpFacts {
        method: &request.method,
        host: &request.host,
        path: &request.path.normal,
        query: request.query.as_deref(),
        path_ambiguous: request.path.ambiguous.is_some(),
        ..Default::default()
    });
    let head_only = request.method == "HEAD";
    let facts = L7Facts::Http {
        method: request.method,
        host: request.host,
        target: request.target,
    };
    match verdict {
        L7Verdict::Allow { .. } => Ok(facts),
        L7Verdict::Deny { reason } => Err(Refused {
            reason,
            detail: request
                .path
                .ambiguous
                .map_or("", |ambiguity| ambiguity.detail),
            tell: Tell::Http { head_only },
            facts: Some(facts),
        }),
    }
}

fn judge_tls(rules: &RuleSet, facts: &L7Facts) -> Result<(), Refused> {
    let L7Facts::Tls { sni, .. } = facts else {
        return Ok(());
    };
    match rules.judge_tls(&TlsFacts {
        sni: sni.as_deref(),
        ..Default::default()
    }) {
        L7Verdict::Allow { .. } => Ok(()),
        L7Verdict::Deny { reason } => Err(Refused {
            reason,
            detail: "",
            facts: Some(facts.clone()),
            tell: Tell::Tls,
        }),
    }
}

/// Judges recorded facts under (possibly new) rules; `None` means allowed.
pub(crate) fn judge_facts(rules: &RuleSet, facts: &L7Facts) -> Option<&'static str> {
    let verdict = match facts {
        L7Facts::Tls { sni, .. } => rules.judge_tls(&TlsFacts {
            sni: sni.as_deref(),
            ..Default::default()
        }),
        L7Facts::Http {
            method,
            host,
            target,
        } => {
            let (path, query) = split_target(method, target);
            rules.judge_http(&HttpFacts {
                method,
                host,
                path: &path.normal,
                query,
                path_ambiguous: path.ambiguous.is_some(),
                ..Default::default()
            })
        }
    };
    match verdict {
        L7Verdict::Allow { .. } => None,
        L7Verdict::Deny { reason } => Some(reason),
    }
}

fn refused_http(refusal: Refusal) -> Refused {
    // A request that cannot be read strictly may be read otherwise by the client's own side;
    // 403 is still the truth about it.
    Refused {
        tell: Tell::Http { head_only: false },
        ..refused_form(refusal.reason, refusal.detail)
    }
}

fn refused_tls(refusal: Refusal) -> Refused {
    Refused {
        tell: Tell::Tls,
        ..refused_form(refusal.reason, refusal.detail)
    }
}

fn refused_form(reason: &'static str, detail: &'static str) -> Refused {
    Refused {
        reason,
        detail,
        facts: None,
        tell: Tell::Reset,
    }
}
