//! The last word to a client, in the words of its own protocol.

use crate::inspect::Refused;

/// TLS 1.2 alert record: fatal `access_denied` (RFC 8446, section 6.2).
pub(crate) const TLS_ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// HTTP/2 frame types and flags (RFC 9113, section 6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
}

/// Names in HPACK's static table (RFC 7541, appendix A).
mod indexed {
    pub(super) const STATUS: u8 = 8;
    pub(super) const STATUS_200: u8 = 0x80 | 8;
    pub(super) const CONTENT_LENGTH: u8 = 28;
    pub(super) const CONTENT_TYPE: u8 = 31;
}

/// gRPC's status `PERMISSION_DENIED`.
const GRPC_PERMISSION_DENIED: &str = "7";

/// Longest string whose length HPACK writes in one byte.
const HPACK_SHORT: usize = 126;

/// Who denied it and why, one line.
pub(crate) fn sentence(policy: Option<&str>, rule: Option<&str>, why: &Refused) -> String {
    let policy = policy.unwrap_or("policy");
    let rule = rule
        .map(|rule| format!(" rule \"{rule}\""))
        .unwrap_or_default();
    let detail = if why.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", why.detail)
    };
    format!("Denied by {policy}{rule}: {}{detail}\n", why.reason)
}

/// A `403` of HTTP/1.1.
pub(crate) fn http1(text: &str, head_only: bool) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\nServer: tollgate\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let mut answer = head.into_bytes();
    if !head_only {
        answer.extend_from_slice(text.as_bytes());
    }
    answer
}

/// The same on an HTTP/2 stream, and GOAWAY: the connection ends with it. It begins with SETTINGS,
/// which must be the server's first frame and may be any later one (RFC 9113, section 3.4). A gRPC
/// client gets `PERMISSION_DENIED` in a trailers-only response.
pub(crate) fn http2(text: &str, stream: u32, head_only: bool, grpc: bool) -> Vec<u8> {
    let mut answer = Vec::new();
    push_frame(&mut answer, frame::SETTINGS, 0, 0, &[]);
    if grpc {
        let block = grpc_block(text.trim_end());
        let flags = frame::END_HEADERS | frame::END_STREAM;
        push_frame(&mut answer, frame::HEADERS, flags, stream, &block);
    } else {
        let ends = if head_only { frame::END_STREAM } else { 0 };
        let block = forbidden_block(text.len());
        let flags = frame::END_HEADERS | ends;
        push_frame(&mut answer, frame::HEADERS, flags, stream, &block);
        if !head_only {
            let data = text.as_bytes();
            push_frame(&mut answer, frame::DATA, frame::END_STREAM, stream, data);
        }
    }
    let last_stream_and_no_error = [stream.to_be_bytes(), [0; 4]].concat();
    push_frame(&mut answer, frame::GOAWAY, 0, 0, &last_stream_and_no_error);
    answer
}

fn forbidden_block(length: usize) -> Vec<u8> {
    let mut block = Vec::new();
    push_indexed_name(&mut block, indexed::STATUS, "403");
    push_indexed_name(
        &mut block,
        indexed::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    push_indexed_name(&mut block, indexed::CONTENT_LENGTH, &length.to_string());
    push_literal(&mut block, "server", "tollgate");
    block
}

fn grpc_block(text: &str) -> Vec<u8> {
    let mut block = vec![indexed::STATUS_200];
    push_indexed_name(&mut block, indexed::CONTENT_TYPE, "application/grpc");
    push_literal(&mut block, "grpc-status", GRPC_PERMISSION_DENIED);
    push_literal(&mut block, "grpc-message", &percent_encoded(text));
    block
}

/// As gRPC wants messages: printable ASCII but `%`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let [_, length @ ..] = length.to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Literal without indexing, name from the static table (RFC 7541, section 6.2.2).
fn push_indexed_name(out: &mut Vec<u8>, name: u8, value: &str) {
    /// What fits the prefix of four bits.
    const PREFIX: u8 = 15;
    match name.checked_sub(PREFIX) {
        Some(rest) => out.extend_from_slice(&[PREFIX, rest]),
        None => out.push(name),
    }
    push_string(out, value);
}

/// Literal without indexing, new name.
fn push_literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    push_string(out, name);
    push_string(out, value);
}

/// A string without Huffman coding, cut to what one length byte can say.
fn push_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..HPACK_SHORT).unwrap_or(bytes);
    out.push(u8::try_from(bytes.len()).unwrap_or(0));
    out.extend_from_slice(bytes);
}
