//! One item of `l7Protocols`, and whether it fits what a flow carries.
//!
//! What an item asks for may be answered neither yes nor no: two servers may read the same path or
//! query differently. Such a doubt always falls to the side of refusal: an Allow item in doubt does
//! not match, a Deny item in doubt does.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::pattern::Pattern;
use crate::query::{HttpFacts, TlsFacts};

/// One entry of `l7Protocols`.
#[derive(Clone, Debug)]
pub(crate) struct L7Item {
    /// `action: Deny`.
    pub(crate) deny: bool,
    pub(crate) what: Protocol,
}

/// What an item is about.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    /// `http`, and `grpc`, which is HTTP as well.
    Http(HttpItem),
    Tls(TlsItem),
}

/// Antrea's fields of an http item, and the further ones if there are any.
#[derive(Clone, Debug)]
pub(crate) struct HttpItem {
    pub(crate) host: Pattern,
    pub(crate) method: Option<&'static str>,
    pub(crate) path: Pattern,
    pub(crate) more: Option<Box<HttpMore>>,
}

/// What only the extended kinds can say about a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpMore {
    /// Empty: any.
    pub(crate) methods: Vec<Box<str>>,
    /// Matches whole paths only.
    pub(crate) path_regex: Option<regex::bytes::Regex>,
    /// Names are in lower case.
    pub(crate) headers: Vec<Named>,
    pub(crate) query: Vec<Named>,
    pub(crate) deny_upgrade: bool,
    /// A `grpc` item.
    pub(crate) grpc: Option<Grpc>,
}

/// A header field or query parameter that must be there.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Box<str>,
    /// [`Pattern::Any`]: with any value.
    pub(crate) value: Pattern,
}

#[derive(Clone, Debug)]
pub(crate) struct Grpc {
    pub(crate) service: Pattern,
    pub(crate) method: Pattern,
}

/// Antrea's field of a tls item, and the further ones if there are any.
#[derive(Clone, Debug)]
pub(crate) struct TlsItem {
    pub(crate) sni: Pattern,
    pub(crate) more: Option<Box<TlsMore>>,
}

/// What only the extended kinds can say about a ClientHello.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsMore {
    /// Empty: any.
    pub(crate) alpn: Vec<Box<str>>,
    pub(crate) min_version: Option<u16>,
    pub(crate) deny_quic: bool,
    pub(crate) deny_ech: bool,
}

impl L7Item {
    pub(crate) fn http(&self) -> Option<&HttpItem> {
        match &self.what {
            Protocol::Http(item) => Some(item),
            Protocol::Tls(_) => None,
        }
    }

    pub(crate) fn tls(&self) -> Option<&TlsItem> {
        match &self.what {
            Protocol::Tls(item) => Some(item),
            Protocol::Http(_) => None,
        }
    }
}

/// How an http item fits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpFit {
    No,
    Yes,
    /// But for an ambiguous path.
    AmbiguousPath,
    /// But for a header field or parameter that says more than one thing.
    Unsure,
    /// But for `upgrade: Deny`.
    Upgrade,
}

/// A request with what several items need of it, made once.
pub(crate) struct Request<'a> {
    pub(crate) facts: &'a HttpFacts<'a>,
    /// In normal form.
    pub(crate) host: Option<&'a str>,
    parameters: OnceCell<Parameters<'a>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(facts: &'a HttpFacts<'a>, host: Option<&'a str>) -> Self {
        Self {
            facts,
            host,
            parameters: OnceCell::new(),
        }
    }

    fn parameters(&self) -> &Parameters<'a> {
        let query = self.facts.query.unwrap_or_default();
        self.parameters.get_or_init(|| Parameters::of(query))
    }
}

impl HttpItem {
    pub(crate) fn fit(&self, request: &Request<'_>) -> HttpFit {
        let facts = request.facts;
        if !self.host.matches(request.host) || self.method.is_some_and(|m| m != facts.method) {
            return HttpFit::No;
        }
        let more = match &self.more {
            Some(more) => more.fit(request),
            None => HttpFit::Yes,
        };
        if more == HttpFit::No || self.path == Pattern::Any {
            return more;
        }
        if facts.path_ambiguous {
            return HttpFit::AmbiguousPath;
        }
        match self.matches_path(facts) {
            true => more,
            false => HttpFit::No,
        }
    }

    /// The query only counts for a pattern that has a `?` itself.
    fn matches_path(&self, facts: &HttpFacts<'_>) -> bool {
        match facts.query.filter(|_| self.path.mentions('?')) {
            Some(query) => self.path.matches(Some(&format!("{}?{query}", facts.path))),
            None => self.path.matches(Some(facts.path)),
        }
    }
}

impl HttpMore {
    fn fit(&self, request: &Request<'_>) -> HttpFit {
        let facts = request.facts;
        let any_method = self.methods.is_empty();
        if !any_method && !self.methods.iter().any(|m| **m == *facts.method) {
            return HttpFit::No;
        }
        let grpc = match (&self.grpc, facts.grpc) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(item), Some((service, method))) => {
                // An ambiguous path is an ambiguous method too.
                facts.path_ambiguous
                    || item.service.matches(Some(service)) && item.method.matches(Some(method))
            }
        };
        let path = |regex: &regex::bytes::Regex| regex.is_match(facts.path.as_bytes());
        if !grpc || !(facts.path_ambiguous || self.path_regex.as_ref().is_none_or(path)) {
            return HttpFit::No;
        }
        let headers = self.headers.iter().map(|wanted| wanted.in_headers(facts));
        let query = self
            .query
            .iter()
            .map(|wanted| request.parameters().fit(wanted));
        let mut unsure = false;
        for fit in headers.chain(query) {
            match fit {
                HttpFit::No => return HttpFit::No,
                HttpFit::Yes => {}
                _ => unsure = true,
            }
        }
        let needs_path = self.path_regex.is_some() || self.grpc.is_some();
        match (facts.path_ambiguous && needs_path, unsure) {
            (true, _) => HttpFit::AmbiguousPath,
            (false, true) => HttpFit::Unsure,
            (false, false) if self.deny_upgrade && facts.upgrade => HttpFit::Upgrade,
            (false, false) => HttpFit::Yes,
        }
    }
}

impl Named {
    /// Yes if all header fields of the name have a matching value, unsure if only some have.
    fn in_headers(&self, facts: &HttpFacts<'_>) -> HttpFit {
        let of_name = facts
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(&self.name));
        let (mut matching, mut others) = (false, false);
        for (_, value) in of_name {
            match self.value.matches(Some(value)) {
                true => matching = true,
                false => others = true,
            }
        }
        match (matching, others) {
            (false, _) => HttpFit::No,
            (true, true) => HttpFit::Unsure,
            (true, false) => HttpFit::Yes,
        }
    }
}

/// The parameters of a query, decoded as forms are (URL Standard, 5.1).
struct Parameters<'a> {
    /// A value that cannot be decoded is `None`.
    pairs: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    /// A name cannot be decoded: it might be any.
    doubtful: bool,
}

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Self {
        let mut parameters = Self {
            pairs: Vec::new(),
            doubtful: false,
        };
        for piece in query.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            match decoded(name) {
                Some(name) => parameters.pairs.push((name, decoded(value))),
                None => parameters.doubtful = true,
            }
        }
        parameters
    }

    fn fit(&self, wanted: &Named) -> HttpFit {
        let mut values = self
            .pairs
            .iter()
            .filter(|(name, _)| **name == *wanted.name)
            .map(|(_, value)| value);
        let Some(first) = values.next() else {
            return match self.doubtful {
                true => HttpFit::Unsure,
                false => HttpFit::No,
            };
        };
        let Some(value) = first else {
            return HttpFit::Unsure;
        };
        if self.doubtful || values.any(|other| other.as_ref() != Some(value)) {
            return HttpFit::Unsure;
        }
        match wanted.value.matches(Some(value)) {
            true => HttpFit::Yes,
            false => HttpFit::No,
        }
    }
}

/// Percent-decoded text with `+` as a blank; `None` if an escape is broken or the outcome is not
/// UTF-8: servers differ in what they make of that.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Why a tls item with the right name does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFit {
    No,
    Yes,
    Quic,
    Ech,
    Version,
    Alpn,
}

impl TlsItem {
    /// How an Allow item fits a hello with this name (in normal form).
    pub(crate) fn fit(&self, name: Option<&str>, facts: &TlsFacts<'_>) -> TlsFit {
        if !self.sni.matches(name) {
            return TlsFit::No;
        }
        match &self.more {
            Some(more) => more.fit(facts),
            None => TlsFit::Yes,
        }
    }

    /// Whether a Deny item is about a hello: the server may pick any protocol offered, so one of
    /// those listed is enough.
    pub(crate) fn denies(&self, name: Option<&str>, facts: &TlsFacts<'_>) -> bool {
        let offers =
            |more: &TlsMore| more.alpn.is_empty() || facts.alpn.iter().any(|p| more.has(p));
        self.sni.matches(name) && self.more.as_deref().is_none_or(offers)
    }
}

impl TlsMore {
    fn fit(&self, facts: &TlsFacts<'_>) -> TlsFit {
        let too_low = |least: u16| facts.version.is_none_or(|version| version < least);
        if self.deny_quic && facts.quic {
            TlsFit::Quic
        } else if self.deny_ech && facts.ech {
            TlsFit::Ech
        } else if self.min_version.is_some_and(too_low) {
            TlsFit::Version
        } else if !self.allows_all(facts.alpn) {
            TlsFit::Alpn
        } else {
            TlsFit::Yes
        }
    }

    /// The server picks from what is offered, so all of it must be in the list; a client that
    /// offers nothing speaks what the server likes.
    fn allows_all(&self, offered: &[String]) -> bool {
        self.alpn.is_empty() || !offered.is_empty() && offered.iter().all(|p| self.has(p))
    }

    fn has(&self, protocol: &str) -> bool {
        self.alpn.iter().any(|known| **known == *protocol)
    }
}
