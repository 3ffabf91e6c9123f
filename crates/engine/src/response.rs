//! The server's answer to a request that asked to change protocols (Upgrade, CONNECT). Responses
//! to other requests decide nothing and are never looked at.

use tollgate_l7::http1::Request;
use tollgate_l7::response::{ResponseProgress, ResponseReader};
use tollgate_l7::starttls::{ANSWER_MAX, StarttlsProtocol, server_agrees};

use crate::seq;

/// What the request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// `Upgrade:`; the server agrees with 101.
    Upgrade,
    /// `Upgrade: h2c`: the same, and HTTP/2 follows, whose requests are judged.
    Http2,
    /// `CONNECT`; the server agrees with any 2xx.
    Connect,
}

impl Switch {
    pub(crate) fn asked_for(request: &Request) -> Option<Self> {
        if request.connect {
            Some(Self::Connect)
        } else {
            request.upgrade.as_deref().map(|protocol| match protocol {
                "h2c" => Self::Http2,
                _ => Self::Upgrade,
            })
        }
    }

    fn agreed(self, status: u16) -> bool {
        match self {
            Self::Upgrade | Self::Http2 => status == 101,
            Self::Connect => (200..300).contains(&status),
        }
    }
}

/// What a server segment told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not complete.
    Waiting,
    /// The segment came too early; it must be sent again.
    OutOfOrder,
    /// The protocol changes: no byte from here on is HTTP.
    Agreed,
    /// It stays HTTP/1.
    Declined,
    /// Unreadable.
    Refused(tollgate_l7::Refusal),
}

/// Reads the server's stream, in order, up to the end of the awaited answer.
pub(crate) struct ResponseWatch {
    awaited: Awaited,
    /// Next byte of the server; unknown until its first segment.
    next: Option<u32>,
}

enum Awaited {
    /// The head of a response.
    Response(ResponseReader, Switch),
    /// The answer to a request for TLS, as far as it is there; at most [`ANSWER_MAX`] bytes.
    Starttls(StarttlsProtocol, Vec<u8>),
}

impl ResponseWatch {
    pub(crate) fn new(switch: Switch) -> Self {
        Self {
            awaited: Awaited::Response(ResponseReader::new(), switch),
            next: None,
        }
    }

    pub(crate) fn starttls(protocol: StarttlsProtocol) -> Self {
        Self {
            awaited: Awaited::Starttls(protocol, Vec::new()),
            next: None,
        }
    }

    /// Bytes of memory held beside itself.
    pub(crate) fn held(&self) -> usize {
        match &self.awaited {
            Awaited::Response(..) => 0,
            Awaited::Starttls(_, bytes) => bytes.capacity(),
        }
    }

    /// Tells where the answer begins: behind what the server had sent when it was asked.
    pub(crate) fn starts_at(&mut self, seq: u32) {
        self.next.get_or_insert(seq);
    }

    pub(crate) fn push(&mut self, start: u32, payload: &[u8]) -> Answer {
        let next = *self.next.get_or_insert(start);
        let Ok(old) = usize::try_from(seq::distance(next, start)) else {
            return Answer::OutOfOrder;
        };
        let Some(new) = payload.get(old..).filter(|new| !new.is_empty()) else {
            return Answer::Waiting;
        };
        self.next = Some(next.wrapping_add(seq::span(new.len())));
        match &mut self.awaited {
            Awaited::Response(reader, switch) => match reader.push(new) {
                ResponseProgress::NeedMore => Answer::Waiting,
                ResponseProgress::Refused(refusal) => Answer::Refused(refusal),
                ResponseProgress::Done { status, .. } if switch.agreed(status) => Answer::Agreed,
                ResponseProgress::Done { .. } => Answer::Declined,
            },
            Awaited::Starttls(protocol, bytes) => {
                let room = ANSWER_MAX.saturating_sub(bytes.len()).min(new.len());
                bytes.extend_from_slice(new.get(..room).unwrap_or_default());
                match server_agrees(*protocol, bytes) {
                    None => Answer::Waiting,
                    Some(true) => Answer::Agreed,
                    Some(false) => Answer::Declined,
                }
            }
        }
    }
}
