//! From the fields of a section to a request (RFC 9113 section 8.3.1, RFC 8441).

use super::fields::{Fields, text};
use super::{Grpc, Http2Request};
use crate::chars;
use crate::http1::{METHOD_MAX, PathForm, split_target};
use crate::name::Authority;
use crate::refusal::{
    HTTP_CONNECT_BODY, HTTP_HOST_PORT, HTTP2_FIELD_VALUE, HTTP2_HOST_MISMATCH, HTTP2_HOST_MISSING,
    HTTP2_METHOD, HTTP2_PATH_EMPTY, HTTP2_PATH_INVALID, HTTP2_PSEUDO_EXCESS, HTTP2_PSEUDO_MISSING,
    HTTP2_SCHEME, Refusal,
};

/// The media type of gRPC calls.
const GRPC_TYPE: &[u8] = b"application/grpc";

/// Where a request goes.
struct Target {
    scheme: &'static str,
    authority: Authority,
    target: String,
    path: PathForm,
    query: Option<String>,
}

/// Reads the fields of a complete section.
pub(super) fn request(
    fields: Fields,
    stream: u32,
    end_stream: bool,
) -> Result<Http2Request, Refusal> {
    let method = method(&fields)?;
    let protocol = protocol(&fields, &method)?;
    let resolved = if method == "CONNECT" && protocol.is_none() {
        connect(&fields)?
    } else {
        resource(&fields, &method)?
    };
    let grpc = grpc(fields.content_type.as_deref(), &resolved.target);
    if fields.grpc_binary && grpc.is_none() {
        return Err(HTTP2_FIELD_VALUE);
    }
    Ok(Http2Request {
        stream,
        grpc,
        method,
        scheme: resolved.scheme.to_owned(),
        host: resolved.authority.host,
        port: resolved.authority.port,
        target: resolved.target,
        path: resolved.path,
        query: resolved.query,
        headers: fields.headers,
        end_stream,
        protocol,
        user_agent: fields.user_agent,
    })
}

fn method(fields: &Fields) -> Result<String, Refusal> {
    let method = fields.method.as_deref().ok_or(HTTP2_PSEUDO_MISSING)?;
    let token = chars::run(method, &chars::TOKEN) == method.len();
    if method.is_empty() || method.len() > METHOD_MAX || !token {
        return Err(HTTP2_METHOD);
    }
    if method == b"CONNECT" && fields.content_length.is_some() {
        return Err(HTTP_CONNECT_BODY);
    }
    Ok(text(method))
}

/// `:protocol`, which goes with CONNECT alone.
fn protocol(fields: &Fields, method: &str) -> Result<Option<String>, Refusal> {
    let Some(protocol) = fields.protocol.as_deref() else {
        return Ok(None);
    };
    let token = chars::run(protocol, &chars::TOKEN) == protocol.len();
    if method != "CONNECT" || protocol.is_empty() || !token {
        return Err(HTTP2_PSEUDO_EXCESS);
    }
    Ok(Some(text(protocol).to_ascii_lowercase()))
}

/// CONNECT as in RFC 9113 section 8.5: an authority with a port and nothing else.
fn connect(fields: &Fields) -> Result<Target, Refusal> {
    if fields.scheme.is_some() || fields.path.is_some() {
        return Err(HTTP2_PSEUDO_EXCESS);
    }
    let target = fields.authority.as_deref().ok_or(HTTP2_PSEUDO_MISSING)?;
    let authority = Authority::parse(target)?;
    let port = authority.port.ok_or(HTTP_HOST_PORT)?;
    let target = text(target);
    let (path, _) = split_target("CONNECT", &target);
    Ok(Target {
        scheme: "",
        authority: agreed(Some(authority), fields.host.as_deref(), port)?,
        target,
        path,
        query: None,
    })
}

fn resource(fields: &Fields, method: &str) -> Result<Target, Refusal> {
    let (scheme, port) = match fields.scheme.as_deref() {
        None => return Err(HTTP2_PSEUDO_MISSING),
        Some(b"http") => ("http", 80),
        Some(b"https") => ("https", 443),
        Some(_) => return Err(HTTP2_SCHEME),
    };
    let target = fields.path.as_deref().ok_or(HTTP2_PSEUDO_MISSING)?;
    check_path(target, method)?;
    let authority = fields.authority.as_deref().map(Authority::parse);
    let authority = agreed(authority.transpose()?, fields.host.as_deref(), port)?;
    let target = text(target);
    // An extended CONNECT has a path like any other method.
    let of = if method == "CONNECT" { "GET" } else { method };
    let (path, query) = split_target(of, &target);
    let query = query.map(str::to_owned);
    Ok(Target {
        scheme,
        authority,
        target,
        path,
        query,
    })
}

fn check_path(path: &[u8], method: &str) -> Result<(), Refusal> {
    if path.is_empty() {
        return Err(HTTP2_PATH_EMPTY);
    }
    let visible = chars::run(path, &chars::TARGET) == path.len();
    let asterisk = path == b"*" && method == "OPTIONS";
    if visible && (path.starts_with(b"/") || asterisk) {
        Ok(())
    } else {
        Err(HTTP2_PATH_INVALID)
    }
}

/// The authority that `:authority` and `host` name. Servers take either.
fn agreed(
    authority: Option<Authority>,
    host: Option<&[u8]>,
    default_port: u16,
) -> Result<Authority, Refusal> {
    let host = host.map(Authority::parse).transpose()?;
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.same(&host, default_port) => {
            Err(HTTP2_HOST_MISMATCH)
        }
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(HTTP2_HOST_MISSING),
    }
}

/// Service and method of a gRPC call.
fn grpc(content_type: Option<&[u8]>, target: &str) -> Option<Grpc> {
    let (media, rest) = content_type?.split_at_checked(GRPC_TYPE.len())?;
    let whole = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
    if !whole || !media.eq_ignore_ascii_case(GRPC_TYPE) {
        return None;
    }
    let (service, method) = target.strip_prefix('/')?.split_once('/')?;
    // Names of Protocol Buffers: nothing that a server could decode or cut off.
    let plain = |name: &str, dots: bool| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.');
        !name.is_empty() && name.bytes().all(allowed)
    };
    (plain(service, true) && plain(method, false)).then(|| Grpc {
        service: service.to_owned(),
        method: method.to_owned(),
    })
}
