//! The head of the answer to one request, for status and length in the event. Nothing is decided on
//! it, so what is not simple is left out: answers to requests that were sent before the last answer
//! was read, informational answers, heads that do not come in order.

use serde_json::{Map, Value, json};

/// A head of more bytes is not waited for.
const HEAD_MAX: usize = 8192;

/// A request's event that waits for its answer.
#[derive(Debug)]
pub struct Awaited {
    event: Map<String, Value>,
    next: u32,
    head: Vec<u8>,
}

impl Awaited {
    /// `next`: where the answer begins, which is what the request's segment acknowledges.
    pub fn new(event: Map<String, Value>, next: u32) -> Self {
        Self {
            event,
            next,
            head: Vec::new(),
        }
    }

    /// Takes a segment of the server; true when there is nothing more to wait for.
    pub fn push(&mut self, seq: u32, payload: &[u8]) -> bool {
        let behind = self.next.wrapping_sub(seq) as usize;
        // What lies ahead of the place makes a distance longer than any segment.
        let Some(new) = payload.get(behind..).filter(|new| !new.is_empty()) else {
            return false;
        };
        let room = HEAD_MAX.saturating_sub(self.head.len()).min(new.len());
        self.head
            .extend_from_slice(new.get(..room).unwrap_or_default());
        self.next = self.next.wrapping_add(room as u32);
        self.head.len() >= HEAD_MAX || find(&self.head, b"\r\n\r\n").is_some()
    }

    /// The event, with what is known of the answer.
    pub fn into_event(mut self) -> Map<String, Value> {
        let http = self.event.get_mut("http").and_then(Value::as_object_mut);
        if let (Some(http), Some(status)) = (http, status(&self.head)) {
            http.insert("status".to_owned(), json!(status));
            if let Some(kind) = field(&self.head, "content-type") {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                http.insert("http_content_type".to_owned(), json!(kind));
            }
            let length = field(&self.head, "content-length");
            let length = length.and_then(|length| length.parse::<i32>().ok());
            http.insert("length".to_owned(), json!(length.unwrap_or(0)));
        }
        self.event
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("HTTP/1.")?.split(' ');
    words.nth(1)?.parse().ok()
}

/// The value of a header field in a message's head; its name in lower case.
pub(super) fn field(head: &[u8], name: &str) -> Option<String> {
    let end = find(head, b"\r\n\r\n").unwrap_or(head.len());
    let lines = head.get(..end)?.split(|byte| *byte == b'\n').skip(1);
    lines.into_iter().find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (key, value) = line.split_at_checked(colon)?;
        if !key.eq_ignore_ascii_case(name.as_bytes()) {
            return None;
        }
        let value = String::from_utf8_lossy(value.get(1..)?);
        Some(value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited() -> Awaited {
        let event = json!({ "http": { "url": "/" } });
        let Value::Object(event) = event else {
            return Awaited::new(Map::new(), 0);
        };
        Awaited::new(event, u32::MAX - 4)
    }

    const HEAD: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=x\r\nContent-Length: 12\r\n\r\nbody";

    #[test]
    fn status_and_length_are_read_wherever_it_is_cut() {
        for cut in 1..HEAD.len() {
            let mut awaited = awaited();
            let start = u32::MAX - 4;
            let (first, rest) = HEAD.split_at(cut);
            let done = awaited.push(start, first);
            assert_eq!(done, first.windows(4).any(|part| part == b"\r\n\r\n"));
            // Sent again with more: only the new bytes count.
            assert!(done || awaited.push(start, HEAD) || rest.len() < 4);
            let event = awaited.into_event();
            let http = &event["http"];
            assert_eq!(http["status"], 404, "{cut}");
            assert_eq!(http["length"], 12);
            assert_eq!(http["http_content_type"], "text/html");
        }
    }

    #[test]
    fn what_is_out_of_order_or_no_answer_says_nothing() {
        let mut one = awaited();
        assert!(!one.push(100, HEAD));
        assert!(one.into_event()["http"].get("status").is_none());
        let mut other = awaited();
        other.push(u32::MAX - 4, b"SSH-2.0-x\r\n\r\n");
        assert!(other.into_event()["http"].get("status").is_none());
        let mut long = awaited();
        assert!(long.push(u32::MAX - 4, &[b'a'; HEAD_MAX + 9]));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let head =
            b"GET / HTTP/1.1\r\nX-User-Agent: no\r\nuser-AGENT:  yes \r\n\r\nUser-Agent: late";
        assert_eq!(field(head, "user-agent").as_deref(), Some("yes"));
        assert_eq!(field(b"GET /", "user-agent"), None);
    }
}
