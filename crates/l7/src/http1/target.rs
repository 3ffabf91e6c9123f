//! The request target's four forms (RFC 9112 section 3.2) and the host they lead to.

use super::{PathForm, Version};
use crate::name::Authority;
use crate::refusal::{
    HTTP_HOST_MISMATCH, HTTP_HOST_MISSING, HTTP_HOST_PORT, HTTP_TARGET_FORM, HTTP_TARGET_SCHEME,
    Refusal,
};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target {
    pub path: PathForm,
    pub query: Option<String>,
    pub host: String,
    pub port: Option<u16>,
}

impl Target {
    /// Reads the target and holds it against `Host`.
    pub(super) fn resolve(
        method: &str,
        target: &str,
        host: Option<&[u8]>,
        version: Version,
    ) -> Result<Self, Refusal> {
        let host = host.map(Authority::parse).transpose()?;
        if host.is_none() && version == Version::Http11 {
            return Err(HTTP_HOST_MISSING);
        }
        if method == "CONNECT" {
            return authority_form(target, host);
        }
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            let (path, query) = split_target(method, target);
            return Ok(with_host(path, query, host));
        }
        absolute_form(method, target, host)
    }
}

/// Path and query of a target that a reader accepted with this method: what its
/// [`Request`](super::Request) said about them.
pub fn split_target<'a>(method: &str, target: &'a str) -> (PathForm, Option<&'a str>) {
    if method == "CONNECT" {
        return (PathForm::plain(""), None);
    }
    let resource = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => split_authority(rest).1,
        _ => target,
    };
    let (path, query) = match resource.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (resource, None),
    };
    let form = match path {
        "*" => PathForm::plain("*"),
        "" if method == "OPTIONS" => PathForm::options_root(),
        "" => PathForm::plain("/"),
        _ => PathForm::new(path),
    };
    (form, query)
}

/// Splits what stands behind `://` where the authority ends.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

fn with_host(path: PathForm, query: Option<&str>, host: Option<Authority>) -> Target {
    let (host, port) = host.map_or((String::new(), None), |a| (a.host, a.port));
    Target {
        path,
        query: query.map(str::to_owned),
        host,
        port,
    }
}

/// `CONNECT host:port`. `Host` may leave the port out, as some clients do.
fn authority_form(target: &str, host: Option<Authority>) -> Result<Target, Refusal> {
    if target.contains(['/', '?', '#', '*']) {
        return Err(HTTP_TARGET_FORM);
    }
    let authority = Authority::parse(target.as_bytes())?;
    let Some(port) = authority.port else {
        return Err(HTTP_HOST_PORT);
    };
    if host.is_some_and(|h| !h.same(&authority, port)) {
        return Err(HTTP_HOST_MISMATCH);
    }
    Ok(with_host(PathForm::plain(""), None, Some(authority)))
}

/// `http://host/path`. Servers take the host from here or from `Host`, so both must agree.
fn absolute_form(method: &str, target: &str, host: Option<Authority>) -> Result<Target, Refusal> {
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(HTTP_TARGET_FORM);
    };
    let default_port = if scheme.eq_ignore_ascii_case("http") {
        80
    } else if scheme.eq_ignore_ascii_case("https") {
        443
    } else if scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    {
        return Err(HTTP_TARGET_SCHEME);
    } else {
        return Err(HTTP_TARGET_FORM);
    };
    let (authority, _) = split_authority(rest);
    let authority = Authority::parse(authority.as_bytes())?;
    if host.is_some_and(|h| !h.same(&authority, default_port)) {
        return Err(HTTP_HOST_MISMATCH);
    }
    let (path, query) = split_target(method, target);
    Ok(with_host(path, query, Some(authority)))
}
