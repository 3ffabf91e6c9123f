//! The server's answer to a request that asked to change protocols (Upgrade, CONNECT). Responses
//! to other requests decide nothing and are never looked at.

use tollgate_l7::http1::Request;
use tollgate_l7::response::{ResponseProgress, ResponseReader};

use crate::seq;

/// What the request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// `Upgrade:`; the server agrees with 101.
    Upgrade,
    /// `CONNECT`; the server agrees with any 2xx.
    Connect,
}

impl Switch {
    pub(crate) fn asked_for(request: &Request) -> Option<Self> {
        if request.connect {
            Some(Self::Connect)
        } else {
            request.upgrade.is_some().then_some(Self::Upgrade)
        }
    }

    fn agreed(self, status: u16) -> bool {
        match self {
            Self::Upgrade => status == 101,
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

/// Reads the server's stream, in order, up to the end of the awaited response head.
pub(crate) struct ResponseWatch {
    switch: Switch,
    reader: ResponseReader,
    /// Next byte of the server; unknown until its first segment.
    next: Option<u32>,
}

impl ResponseWatch {
    pub(crate) fn new(switch: Switch) -> Self {
        Self {
            switch,
            reader: ResponseReader::new(),
            next: None,
        }
    }

    /// Tells where the answer begins: what the client had acknowledged when it asked.
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
        match self.reader.push(new) {
            ResponseProgress::NeedMore => Answer::Waiting,
            ResponseProgress::Refused(refusal) => Answer::Refused(refusal),
            ResponseProgress::Done { status, .. } if self.switch.agreed(status) => Answer::Agreed,
            ResponseProgress::Done { .. } => Answer::Declined,
        }
    }
}
