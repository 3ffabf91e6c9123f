//! `l7Protocols`.

use super::cx::{Cx, Fields};
use crate::model::L7Item;
use crate::pattern::Pattern;
use crate::ruleset::normal_name;
use crate::yaml::{Node, shorten};

/// The methods of Antrea's CRD.
const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("HEAD", "HEAD"),
    ("DELETE", "DELETE"),
    ("TRACE", "TRACE"),
    ("OPTIONS", "OPTIONS"),
    ("CONNECT", "CONNECT"),
    ("PATCH", "PATCH"),
];
/// Longest host or server name pattern: a DNS name (RFC 1035, 2.3.4) and two stars.
const MAX_HOST: usize = 255;
/// Longest path pattern; no server in use takes a longer request line by default.
const MAX_PATH: usize = 8192;

/// One item: `http` or `tls`.
pub(crate) fn item<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<L7Item> {
    let fields = cx.fields(node, &["http", "tls"])?;
    match fields.count(&["http", "tls"]) {
        0 => {
            if fields.is_empty() {
                cx.fault(node.pos, "must have one of http and tls");
            }
            None
        }
        1 if fields.has("http") => cx.optional(fields, "http", http),
        1 => cx.optional(fields, "tls", tls),
        _ => {
            cx.fault(
                node.pos,
                "must have only one of http and tls; write two items to allow both",
            );
            None
        }
    }
}

fn http<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<L7Item> {
    let fields = cx.fields(node, &["host", "method", "path"])?;
    let host = pattern(cx, fields, "host", host);
    let path = pattern(cx, fields, "path", path);
    let method = match fields.has("method") {
        true => Some(cx.optional(fields, "method", |cx, node| cx.word(node, METHODS))?),
        false => None,
    };
    Some(L7Item::Http {
        host: host?,
        method,
        path: path?,
    })
}

fn tls<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<L7Item> {
    let fields = cx.fields(node, &["sni"])?;
    let sni = pattern(cx, fields, "sni", host)?;
    Some(L7Item::Tls { sni })
}

/// A pattern field; absent is any.
fn pattern<'a>(
    cx: &mut Cx<'a>,
    fields: Fields<'a>,
    key: &'a str,
    decode: impl FnOnce(&mut Cx<'a>, &'a Node) -> Option<Pattern>,
) -> Option<Pattern> {
    match fields.has(key) {
        true => cx.optional(fields, key, decode),
        false => Some(Pattern::Any),
    }
}

/// A host as it is compared, see [`crate::ruleset::normal_host`]: lower case, no trailing dot.
fn host<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pattern> {
    let text = bounded(cx, node, MAX_HOST)?;
    let address = text.starts_with('[') && text.ends_with(']');
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c) || (address && ":[]".contains(c));
    let slash = text.contains('/').then_some('/');
    if let Some(bad) = slash.or_else(|| text.chars().find(|c| !allowed(*c))) {
        let message = match bad {
            ':' => format!(
                "{:?} has a port; hosts are compared without it",
                shorten(text)
            ),
            '/' => format!(
                "{:?} is not a host name: it has no scheme and no path",
                shorten(text)
            ),
            bad if !bad.is_ascii() => {
                format!(
                    "{:?} is not ASCII; write the name as it is sent (`xn--...`)",
                    shorten(text)
                )
            }
            bad => format!("{:?} is not a host name: it has {bad:?}", shorten(text)),
        };
        cx.fault(node.pos, message);
        return None;
    }
    Some(Pattern::new(&normal_name(text)))
}

fn path<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pattern> {
    let text = bounded(cx, node, MAX_PATH)?;
    if !text.starts_with('/') && !text.starts_with('*') {
        let message = format!(
            "{:?} would never match: a path starts with `/` or `*`",
            shorten(text)
        );
        cx.fault(node.pos, message);
        return None;
    }
    if text.contains('#') {
        cx.fault(
            node.pos,
            "would never match: the part behind `#` is not sent to servers",
        );
        return None;
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !c.is_ascii() || c.is_ascii_control() || *c == ' ')
    {
        cx.fault(
            node.pos,
            format!("has {bad:?}, which is sent percent-encoded in a path"),
        );
        return None;
    }
    Some(Pattern::new(text))
}

fn bounded<'a>(cx: &mut Cx<'a>, node: &'a Node, longest: usize) -> Option<&'a str> {
    let text = cx.string(node)?;
    if text.is_empty() {
        cx.fault(
            node.pos,
            "must not be empty; leave the field out to match anything",
        );
        return None;
    }
    if text.len() > longest {
        cx.fault(node.pos, format!("is longer than {longest} characters"));
        return None;
    }
    Some(text)
}
