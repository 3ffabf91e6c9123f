//! `l7Protocols`.

use super::cx::{Cx, Fields};
use crate::item::{Grpc, HttpItem, HttpMore, L7Item, Named, Protocol, TlsItem, TlsMore};
use crate::pattern::Pattern;
use crate::ruleset::normal_name;
use crate::yaml::{Node, Value, shorten};

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

/// Longest name of a header field or parameter, gRPC service or method: far beyond those in use.
const MAX_NAME: usize = 256;
/// Longest value pattern of a header field or parameter: as long as servers take by default.
const MAX_VALUE: usize = 8192;
/// Methods, header fields, parameters or protocols in one item; each is compared on every request.
const MAX_ENTRIES: usize = 32;
/// Longest ALPN protocol name (RFC 7301, 3.1).
const MAX_ALPN: usize = 255;
/// Longest path expression: what a person can still read.
const MAX_REGEX: usize = 1024;
/// Bytes of a compiled path expression. Time per request is bounded by this times the path's length.
const MAX_REGEX_SIZE: usize = 256 << 10;
/// Bytes of the states that an expression may remember per thread.
const MAX_REGEX_CACHE: usize = 256 << 10;
/// Groups within groups of a path expression.
const MAX_REGEX_NESTING: u32 = 32;

/// `action` of an item, and whether it is a Deny item.
const ITEM_ACTIONS: &[(&str, bool)] = &[("Allow", false), ("Deny", true)];
/// `upgrade`, `quic` and `ech`, and whether they are denied.
const ALLOW_DENY: &[(&str, bool)] = &[("Allow", false), ("Deny", true)];
/// `minVersion` as on the wire (RFC 8446, 4.2.1).
const TLS_VERSIONS: &[(&str, u16)] = &[
    ("1.0", 0x0301),
    ("1.1", 0x0302),
    ("1.2", 0x0303),
    ("1.3", 0x0304),
];
/// Fields that take something away from what an Allow item matches.
const ONLY_OF_ALLOW: &[(&str, &[&str])] = &[
    ("http", &["upgrade"]),
    ("tls", &["minVersion", "quic", "ech"]),
];

/// One item: `http`, `grpc` or `tls`.
pub(crate) fn item<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<L7Item> {
    const PROTOCOLS: &[&str] = &["http", "grpc", "tls"];
    let fields = cx.fields_with(node, &["http", "tls"], &["grpc", "action"])?;
    let words = if cx.extended() {
        "http, grpc and tls"
    } else {
        "http and tls"
    };
    let deny = match fields.has("action") {
        true => cx.optional(fields, "action", |cx, node| cx.word(node, ITEM_ACTIONS)),
        false => Some(false),
    };
    match fields.count(PROTOCOLS) {
        0 => {
            if fields.is_empty() || fields.has("action") {
                cx.fault(node.pos, format!("must have one of {words}"));
            }
            return None;
        }
        1 => {}
        _ => {
            let message = format!("must have only one of {words}; write two items to allow both");
            cx.fault(node.pos, message);
            return None;
        }
    }
    let what = if fields.has("http") {
        cx.optional(fields, "http", http)
    } else if fields.has("grpc") {
        cx.optional(fields, "grpc", grpc)
    } else {
        cx.optional(fields, "tls", tls)
    };
    if deny == Some(true) {
        refuse_of_deny(cx, fields);
    }
    Some(L7Item {
        deny: deny?,
        what: what?,
    })
}

fn refuse_of_deny<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) {
    for (protocol, keys) in ONLY_OF_ALLOW {
        let Some(node) = fields.get(protocol) else {
            continue;
        };
        for key in keys.iter().filter(|key| node.get(key).is_some()) {
            let message = "is only for Allow items; a Deny item refuses all that it matches";
            cx.entry(protocol, |cx| cx.fault_in(Fields::of(node), key, message));
        }
    }
}

fn http<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Protocol> {
    let fields = cx.fields_with(
        node,
        &["host", "method", "path"],
        &["methods", "pathRegex", "headers", "query", "upgrade"],
    )?;
    exclusive(cx, fields, "method", "methods");
    exclusive(cx, fields, "path", "pathRegex");
    let host = pattern(cx, fields, "host", host);
    let path = pattern(cx, fields, "path", path);
    let method = match fields.has("method") {
        true => cx
            .optional(fields, "method", |cx, node| cx.word(node, METHODS))
            .map(Some),
        false => Some(None),
    };
    let more = http_more(cx, fields);
    Some(Protocol::Http(HttpItem {
        host: host?,
        method: method?,
        path: path?,
        more: more?,
    }))
}

/// The fields that make an item more than Antrea's; `Some(None)` if it has none of them.
fn http_more<'a>(cx: &mut Cx<'a>, fields: Fields<'a>) -> Option<Option<Box<HttpMore>>> {
    let methods = entries(cx, fields, "methods", method_token);
    let headers = entries(cx, fields, "headers", |cx, node| {
        named(cx, node, header_name, header_value)
    });
    let query = entries(cx, fields, "query", |cx, node| {
        named(cx, node, parameter_name, parameter_value)
    });
    let path_regex = match fields.has("pathRegex") {
        true => cx.optional(fields, "pathRegex", path_regex).map(Some),
        false => Some(None),
    };
    let deny_upgrade = flag(cx, fields, "upgrade");
    let more = HttpMore {
        methods: methods?,
        path_regex: path_regex?,
        headers: headers?,
        query: query?,
        deny_upgrade: deny_upgrade?,
        grpc: None,
    };
    let says_more =
        more.deny_upgrade || fields.count(&["methods", "pathRegex", "headers", "query"]) > 0;
    Some(says_more.then(|| Box::new(more)))
}

fn grpc<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Protocol> {
    let fields = cx.fields(node, &["host", "service", "method"])?;
    let host = pattern(cx, fields, "host", host);
    let service = pattern(cx, fields, "service", |cx, node| grpc_name(cx, node, "._*"));
    let method = pattern(cx, fields, "method", |cx, node| grpc_name(cx, node, "_*"));
    let grpc = Grpc {
        service: service?,
        method: method?,
    };
    Some(Protocol::Http(HttpItem {
        host: host?,
        method: None,
        path: Pattern::Any,
        more: Some(Box::new(HttpMore {
            grpc: Some(grpc),
            ..HttpMore::default()
        })),
    }))
}

fn tls<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Protocol> {
    let fields = cx.fields_with(node, &["sni"], &["alpn", "minVersion", "quic", "ech"])?;
    let sni = pattern(cx, fields, "sni", host);
    let alpn = entries(cx, fields, "alpn", alpn);
    let min_version = match fields.has("minVersion") {
        true => cx
            .optional(fields, "minVersion", |cx, node| cx.word(node, TLS_VERSIONS))
            .map(Some),
        false => Some(None),
    };
    let quic = flag(cx, fields, "quic");
    let ech = flag(cx, fields, "ech");
    let more = TlsMore {
        alpn: alpn?,
        min_version: min_version?,
        deny_quic: quic?,
        deny_ech: ech?,
    };
    let says_more = more.deny_quic || more.deny_ech || fields.count(&["alpn", "minVersion"]) > 0;
    Some(Protocol::Tls(TlsItem {
        sni: sni?,
        more: says_more.then(|| Box::new(more)),
    }))
}

fn exclusive<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, one: &str, other: &'a str) {
    if fields.has(one) && fields.has(other) {
        cx.fault_in(fields, other, format!("cannot be set together with {one}"));
    }
}

/// `Allow` or `Deny`: whether it is denied. Absent is `Allow`.
fn flag<'a>(cx: &mut Cx<'a>, fields: Fields<'a>, key: &'a str) -> Option<bool> {
    match fields.has(key) {
        true => cx.optional(fields, key, |cx, node| cx.word(node, ALLOW_DENY)),
        false => Some(false),
    }
}

/// A list of which every entry is good; absent is empty, but empty is a fault.
fn entries<'a, T>(
    cx: &mut Cx<'a>,
    fields: Fields<'a>,
    key: &'a str,
    decode: impl FnMut(&mut Cx<'a>, &'a Node) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(node) = fields.get(key) else {
        return Some(Vec::new());
    };
    let list = cx.list(fields, key, decode);
    let Value::Seq(written) = &node.value else {
        return None;
    };
    if written.is_empty() {
        let message = "must not be empty; leave the field out to match anything";
        cx.fault_in(fields, key, message);
        return None;
    }
    if written.len() > MAX_ENTRIES {
        cx.fault_in(fields, key, format!("has more than {MAX_ENTRIES} entries"));
        return None;
    }
    (list.len() == written.len()).then_some(list)
}

/// `{name, value}`, or `{name}` for any value.
fn named<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    name: impl FnOnce(&mut Cx<'a>, &'a Node) -> Option<Box<str>>,
    value: impl FnOnce(&mut Cx<'a>, &'a Node) -> Option<Pattern>,
) -> Option<Named> {
    let fields = cx.fields(node, &["name", "value"])?;
    let name = cx.required(fields, "name", name);
    let value = pattern(cx, fields, "value", value);
    Some(Named {
        name: name?,
        value: value?,
    })
}

fn method_token<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Box<str>> {
    token(cx, node, "a method").map(Into::into)
}

/// A header field's name, in lower case.
fn header_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Box<str>> {
    let name = token(cx, node, "a header field's name")?;
    Some(name.to_ascii_lowercase().into())
}

/// A token (RFC 9110, 5.6.2).
fn token<'a>(cx: &mut Cx<'a>, node: &'a Node, what: &str) -> Option<&'a str> {
    let text = bounded(cx, node, MAX_NAME)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    refuse_other(cx, node, text, what, allowed)
}

fn grpc_name<'a>(cx: &mut Cx<'a>, node: &'a Node, special: &str) -> Option<Pattern> {
    let text = bounded(cx, node, MAX_NAME)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || special.contains(c);
    refuse_other(cx, node, text, "a gRPC name", allowed).map(Pattern::new)
}

fn refuse_other<'a>(
    cx: &mut Cx<'a>,
    node: &'a Node,
    text: &'a str,
    what: &str,
    allowed: impl Fn(char) -> bool,
) -> Option<&'a str> {
    let Some(bad) = text.chars().find(|c| !allowed(*c)) else {
        return Some(text);
    };
    let message = format!("{:?} is not {what}: it has {bad:?}", shorten(text));
    cx.fault(node.pos, message);
    None
}

fn header_value<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pattern> {
    let text = bounded(cx, node, MAX_VALUE)?;
    let blank = |c: char| c == ' ' || c == '\t';
    if text.starts_with(blank) || text.ends_with(blank) {
        let message = "would never match: values are compared without blanks around them";
        cx.fault(node.pos, message);
        return None;
    }
    let allowed = |c: char| !c.is_control() || c == '\t';
    refuse_other(cx, node, text, "a header field's value", allowed).map(Pattern::new)
}

fn parameter_name<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Box<str>> {
    bounded(cx, node, MAX_NAME).map(Into::into)
}

fn parameter_value<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Pattern> {
    bounded(cx, node, MAX_VALUE).map(Pattern::new)
}

fn alpn<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<Box<str>> {
    let text = bounded(cx, node, MAX_ALPN)?;
    refuse_other(cx, node, text, "a protocol's name", |c| {
        c.is_ascii_graphic()
    })
    .map(Into::into)
}

/// An expression that must match a whole path. It is first read on its own, so that no bracket in
/// it can close the group that it is put in.
fn path_regex<'a>(cx: &mut Cx<'a>, node: &'a Node) -> Option<regex::bytes::Regex> {
    let text = bounded(cx, node, MAX_REGEX)?;
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    refuse_other(
        cx,
        node,
        text,
        "an expression for paths, which are ASCII",
        printable,
    )?;
    let compiled = compile(text).and_then(|_| compile(&format!("\\A(?:{text})\\z")));
    match compiled {
        Ok(regex) => Some(regex),
        Err(error) => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            cx.fault(
                node.pos,
                format!("is not an expression that can be used: {reason}"),
            );
            None
        }
    }
}

fn compile(text: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_CACHE)
        .nest_limit(MAX_REGEX_NESTING)
        .build()
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
