//! Our reader.

use tollgate_l7::{Framing, HttpEvent, Request, RequestReader};

use crate::seen::{Asked, End, Seen};

/// What our reader saw.
#[derive(Debug)]
pub struct Ours {
    pub seen: Seen,
    /// The reason word, if it refused.
    pub refusal: Option<&'static str>,
    /// So many bytes may have reached the server at the time of the refusal; all without one.
    pub delivered: usize,
}

/// Reads byte by byte: that is when most bytes are delivered before a refusal. What follows an Upgrade
/// or CONNECT request is held until the server has answered, so it is not among what was delivered.
pub fn read(bytes: &[u8]) -> Ours {
    let mut reader = RequestReader::new();
    reader.keep_headers(true);
    let mut requests: Vec<Asked> = Vec::new();
    let mut waits_for_server = false;
    for (at, byte) in bytes.iter().enumerate() {
        let chunk_data = reader.chunk_data().is_some_and(|left| left > 0);
        let in_body = chunk_data || reader.opaque_body().is_some();
        if let (true, Some(last)) = (in_body, requests.last_mut()) {
            last.body = last.body.map(|n| n + 1);
        }
        match reader.push(std::slice::from_ref(byte)).event {
            HttpEvent::NeedMore => {}
            HttpEvent::Request(request) => {
                waits_for_server = request.connect || request.upgrade.is_some();
                requests.push(asked(request));
            }
            HttpEvent::BodyEnd => {
                if let Some(last) = requests.last_mut() {
                    last.done = true;
                }
            }
            HttpEvent::Refused(why) => return ours(requests, Some(why.reason), at),
        }
        if waits_for_server && requests.last().is_some_and(|last| last.done) {
            return ours(requests, None, at + 1);
        }
    }
    ours(requests, None, bytes.len())
}

fn ours(requests: Vec<Asked>, refusal: Option<&'static str>, delivered: usize) -> Ours {
    let end = if refusal.is_some() {
        End::Closed
    } else {
        End::Open
    };
    Ours {
        seen: Seen { requests, end },
        refusal,
        delivered,
    }
}

fn asked(request: Request) -> Asked {
    let host = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("host");
    Asked {
        host: request
            .headers
            .iter()
            .find(host)
            .map(|(_, value)| value.clone()),
        done: matches!(request.framing, Framing::None | Framing::Length(0)),
        method: request.method,
        target: request.target,
        body: Some(0),
    }
}
