//! From the bytes of a complete head to a [`Request`].

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::inert::INERT_MAX;
use super::target::Target;
use super::{FIELDS_MAX, Framing, Request, Version};
use crate::chars::trim_ows;
use crate::refusal::{HTTP_CONNECT_BODY, HTTP_MALFORMED, HTTP_UNEXPECTED_BODY, Refusal};

/// Reads a head that the scanner found complete, its final empty line included.
pub(super) fn parse(head: &[u8], keep_headers: bool) -> Result<Request, Refusal> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(head, &mut slots);
    if status != Ok(httparse::Status::Complete(head.len())) {
        return Err(HTTP_MALFORMED);
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HTTP_MALFORMED);
    };
    let version = match parsed.version {
        Some(0) => Version::Http10,
        Some(1) => Version::Http11,
        _ => return Err(HTTP_MALFORMED),
    };
    let fields = Fields::collect(parsed.headers)?;
    let headers = match keep_headers {
        true => parsed.headers.iter().map(owned).collect(),
        false => Vec::new(),
    };
    let framing = fields.framing(version)?;
    let connect = method == "CONNECT";
    if connect && !matches!(framing, Framing::None | Framing::Length(0)) {
        return Err(HTTP_CONNECT_BODY);
    }
    let unusual = has_no_usual_body(method);
    if unusual && !matches!(framing, Framing::None | Framing::Length(..=INERT_MAX)) {
        return Err(HTTP_UNEXPECTED_BODY);
    }
    let expect_continue = fields.expect_continue(version)?;
    fields.check_upgrade()?;
    let resolved = Target::resolve(method, target, fields.host, version)?;
    Ok(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        path: resolved.path,
        query: resolved.query,
        host: resolved.host,
        port: resolved.port,
        version,
        framing,
        expect_continue,
        connect,
        keep_alive: fields.persistent(version),
        head_len: head.len(),
        headers,
        user_agent: fields.user_agent_text(),
        upgrade: fields.upgrade,
    })
}

/// Some servers do not read the body of such a request.
pub(super) fn has_no_usual_body(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

fn owned(header: &httparse::Header<'_>) -> (String, String) {
    let value = String::from_utf8_lossy(trim_ows(header.value)).into_owned();
    (header.name.to_owned(), value)
}
