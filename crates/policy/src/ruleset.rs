//! The L7 rules that govern one flow: the `l7Protocols` of the rule that its first packet matched.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::model::L7Item;
use crate::pattern::{Pattern, PatternIndex};
use crate::query::{HttpFacts, L7Verdict, RuleRef, TlsFacts};

/// No item of the rule matches the request.
pub(crate) const HTTP_NO_RULE: &str = "http-no-rule-matches";
/// Items would match, but for a path that two servers may read differently.
pub(crate) const HTTP_AMBIGUOUS: &str = "http-ambiguous-path";
/// No item of the rule matches the server name.
pub(crate) const TLS_NO_RULE: &str = "tls-sni-no-rule-matches";
/// The ClientHello has no server name and the rule does not allow that.
pub(crate) const TLS_NO_SNI: &str = "tls-no-sni";

/// The compiled `l7Protocols` of one rule. A request or ClientHello is allowed if any item matches
/// it; an http item never matches a ClientHello, nor a tls item a request.
#[derive(Debug)]
pub struct RuleSet {
    rule: RuleRef,
    items: Vec<L7Item>,
    http: Option<HttpIndex>,
    tls: Option<TlsIndex>,
    wanted_headers: Box<[Box<str>]>,
}

impl RuleSet {
    pub(crate) fn new(rule: RuleRef, items: Vec<L7Item>) -> Self {
        let (http, tls) = (HttpIndex::new(&items), TlsIndex::new(&items));
        Self {
            rule,
            items,
            http,
            tls,
            wanted_headers: Box::default(),
        }
    }

    /// The rule that the items belong to.
    pub fn rule(&self) -> &RuleRef {
        &self.rule
    }

    /// Whether any item is about HTTP: if not, a request is never allowed.
    pub fn wants_http(&self) -> bool {
        self.http.is_some()
    }

    /// Whether any item is about TLS: if not, a ClientHello is never allowed.
    pub fn wants_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The header fields that items look at, in lower case and sorted, each once.
    pub fn wanted_headers(&self) -> &[Box<str>] {
        &self.wanted_headers
    }

    /// Judges one HTTP request.
    pub fn judge_http(&self, facts: &HttpFacts<'_>) -> L7Verdict {
        let host = normal_host(facts.host);
        let found = self.http.as_ref().map(|index| index.find(&host, facts));
        http_verdict(found.unwrap_or_default())
    }

    /// Judges one TLS ClientHello.
    pub fn judge_tls(&self, facts: &TlsFacts<'_>) -> L7Verdict {
        let name = facts.sni.map(normal_name);
        let found = self
            .tls
            .as_ref()
            .and_then(|index| index.find(name.as_deref()));
        tls_verdict(found, name.is_some())
    }

    /// [`RuleSet::judge_http`] by trying one item after the other; for tests of the former.
    #[doc(hidden)]
    pub fn judge_http_naive(&self, facts: &HttpFacts<'_>) -> L7Verdict {
        let host = normal_host(facts.host);
        let mut found = Found::default();
        for (number, item) in self.items.iter().enumerate() {
            let L7Item::Http {
                host: pattern,
                method,
                path,
            } = item
            else {
                continue;
            };
            if !pattern.matches(absent_if_empty(&host)) || method.is_some_and(|m| m != facts.method)
            {
                continue;
            }
            if *path == Pattern::Any {
                found.item = found.item.or(Some(number));
            } else if facts.path_ambiguous {
                found.ambiguous = true;
            } else if path.matches(Some(&Target::new(facts).text_for(path))) {
                found.item = found.item.or(Some(number));
            }
        }
        http_verdict(found)
    }

    /// [`RuleSet::judge_tls`] by trying one item after the other; for tests of the former.
    #[doc(hidden)]
    pub fn judge_tls_naive(&self, facts: &TlsFacts<'_>) -> L7Verdict {
        let name = facts.sni.map(normal_name);
        let found = self.items.iter().position(|item| match item {
            L7Item::Tls { sni } => sni.matches(name.as_deref()),
            L7Item::Http { .. } => false,
        });
        tls_verdict(found, name.is_some())
    }
}

fn http_verdict(found: Found) -> L7Verdict {
    match found.item {
        Some(item) => L7Verdict::Allow { item },
        None if found.ambiguous => L7Verdict::Deny {
            reason: HTTP_AMBIGUOUS,
        },
        None => L7Verdict::Deny {
            reason: HTTP_NO_RULE,
        },
    }
}

fn tls_verdict(found: Option<usize>, named: bool) -> L7Verdict {
    match found {
        Some(item) => L7Verdict::Allow { item },
        None if named => L7Verdict::Deny {
            reason: TLS_NO_RULE,
        },
        None => L7Verdict::Deny { reason: TLS_NO_SNI },
    }
}

/// A host as it is compared: lower case, without port and trailing dot.
pub(crate) fn normal_host(host: &str) -> Cow<'_, str> {
    normal_name(without_port(host))
}

/// A DNS name as it is compared: lower case, without the trailing dot. No ending, not even a
/// repeated dot, is cut beyond that.
pub(crate) fn normal_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// `host:port` (RFC 3986, 3.2.2) without the port; an IPv6 address is in brackets or, bare, has
/// more than one colon and then no port.
fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host
            .find(']')
            .and_then(|end| host.get(..=end))
            .unwrap_or(host);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

fn absent_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// What paths are compared with.
struct Target<'a> {
    path: &'a str,
    /// `path?query`, if there is a query.
    whole: Option<String>,
}

impl<'a> Target<'a> {
    fn new(facts: &HttpFacts<'a>) -> Self {
        let whole = facts.query.map(|query| format!("{}?{query}", facts.path));
        Self {
            path: facts.path,
            whole,
        }
    }

    fn path_only(facts: &HttpFacts<'a>) -> Self {
        Self {
            path: facts.path,
            whole: None,
        }
    }

    /// The query only counts for a pattern that has a `?` itself.
    fn text_for(&self, pattern: &Pattern) -> Cow<'_, str> {
        match &self.whole {
            Some(whole) if pattern.mentions('?') => Cow::Borrowed(whole),
            _ => Cow::Borrowed(self.path),
        }
    }
}

/// What a search has found so far.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// First matching item.
    item: Option<usize>,
    /// An item was passed over for an ambiguous path alone.
    ambiguous: bool,
}

impl Found {
    fn note(&mut self, item: u32) {
        let item = item as usize;
        self.item = Some(self.item.map_or(item, |earlier| earlier.min(item)));
    }
}

/// Items by host, then by path, then by method.
#[derive(Debug)]
struct HttpIndex {
    hosts: PatternIndex,
    /// By host pattern number.
    buckets: Vec<PathIndex>,
    /// Some pattern has a `?`, so that `path?query` is worth writing down.
    wants_query: bool,
}

impl HttpIndex {
    fn new(items: &[L7Item]) -> Option<Self> {
        let mut hosts = Numbered::default();
        let mut members: Vec<Vec<(u32, Option<&'static str>, &Pattern)>> = Vec::new();
        for (number, item) in (0u32..).zip(items) {
            let L7Item::Http { host, method, path } = item else {
                continue;
            };
            let bucket = hosts.number(host);
            if bucket == members.len() {
                members.push(Vec::new());
            }
            members.get_mut(bucket)?.push((number, *method, path));
        }
        let buckets: Vec<_> = members
            .iter()
            .map(|members| PathIndex::new(members))
            .collect();
        let wants_query = buckets.iter().any(|bucket| bucket.whole.is_some());
        (!buckets.is_empty()).then(|| Self {
            hosts: hosts.index(),
            buckets,
            wants_query,
        })
    }

    fn find(&self, host: &str, facts: &HttpFacts<'_>) -> Found {
        let target = if self.wants_query {
            Target::new(facts)
        } else {
            Target::path_only(facts)
        };
        let mut found = Found::default();
        self.hosts.find(absent_if_empty(host), |bucket| {
            if let Some(bucket) = self.buckets.get(bucket as usize) {
                bucket.find(facts, &target, &mut found);
            }
        });
        found
    }
}

/// The items under one host pattern.
#[derive(Debug, Default)]
struct PathIndex {
    /// Without a path.
    any: Methods,
    /// With a path that says nothing about the query.
    path: Option<Paths>,
    /// With a path that has a `?`.
    whole: Option<Paths>,
    /// All that have a path.
    constrained: Methods,
}

impl PathIndex {
    fn new(members: &[(u32, Option<&'static str>, &Pattern)]) -> Self {
        let mut index = Self::default();
        let (mut path, mut whole) = (PathsBuilder::default(), PathsBuilder::default());
        for (item, method, pattern) in members {
            if **pattern == Pattern::Any {
                index.any.add(*item, *method);
                continue;
            }
            index.constrained.add(*item, *method);
            let builder = if pattern.mentions('?') {
                &mut whole
            } else {
                &mut path
            };
            builder.add(*item, *method, pattern);
        }
        index.path = path.finish();
        index.whole = whole.finish();
        index
    }

    fn find(&self, facts: &HttpFacts<'_>, target: &Target<'_>, found: &mut Found) {
        self.any
            .find(facts.method)
            .into_iter()
            .for_each(|item| found.note(item));
        if facts.path_ambiguous {
            found.ambiguous |= self.constrained.find(facts.method).is_some();
            return;
        }
        if let Some(paths) = &self.path {
            paths.find(target.path, facts.method, found);
        }
        if let Some(paths) = &self.whole {
            paths.find(
                target.whole.as_deref().unwrap_or(target.path),
                facts.method,
                found,
            );
        }
    }
}

/// Path patterns and the items that have each of them.
#[derive(Debug)]
struct Paths {
    index: PatternIndex,
    methods: Vec<Methods>,
}

impl Paths {
    fn find(&self, path: &str, method: &str, found: &mut Found) {
        self.index.find(Some(path), |number| {
            let methods = self.methods.get(number as usize);
            methods
                .and_then(|m| m.find(method))
                .into_iter()
                .for_each(|item| found.note(item));
        });
    }
}

#[derive(Default)]
struct PathsBuilder<'a> {
    patterns: Numbered<'a>,
    methods: Vec<Methods>,
}

impl<'a> PathsBuilder<'a> {
    fn add(&mut self, item: u32, method: Option<&'static str>, pattern: &'a Pattern) {
        let number = self.patterns.number(pattern);
        if number == self.methods.len() {
            self.methods.push(Methods::default());
        }
        if let Some(methods) = self.methods.get_mut(number) {
            methods.add(item, method);
        }
    }

    fn finish(self) -> Option<Paths> {
        (!self.methods.is_empty()).then(|| Paths {
            index: self.patterns.index(),
            methods: self.methods,
        })
    }
}

/// The first item for each method; there are only as many methods as the policy format has.
#[derive(Debug, Default)]
struct Methods(Vec<(Option<&'static str>, u32)>);

impl Methods {
    fn add(&mut self, item: u32, method: Option<&'static str>) {
        if !self.0.iter().any(|(known, _)| *known == method) {
            self.0.push((method, item));
        }
    }

    fn find(&self, method: &str) -> Option<u32> {
        let matching = self
            .0
            .iter()
            .filter(|(known, _)| known.is_none_or(|known| known == method));
        matching.map(|(_, item)| *item).min()
    }
}

#[derive(Debug)]
struct TlsIndex {
    names: PatternIndex,
    /// By name pattern number: the first item that has it.
    items: Vec<u32>,
}

impl TlsIndex {
    fn new(items: &[L7Item]) -> Option<Self> {
        let mut names = Numbered::default();
        let mut firsts = Vec::new();
        for (number, item) in (0u32..).zip(items) {
            let L7Item::Tls { sni } = item else { continue };
            if names.number(sni) == firsts.len() {
                firsts.push(number);
            }
        }
        (!firsts.is_empty()).then(|| Self {
            names: names.index(),
            items: firsts,
        })
    }

    fn find(&self, name: Option<&str>) -> Option<usize> {
        let mut first: Option<u32> = None;
        self.names.find(name, |number| {
            if let Some(item) = self.items.get(number as usize) {
                first = Some(first.map_or(*item, |earlier| earlier.min(*item)));
            }
        });
        first.map(|item| item as usize)
    }
}

/// Different patterns, numbered in order of appearance.
#[derive(Default)]
struct Numbered<'a> {
    numbers: HashMap<&'a Pattern, usize>,
    patterns: Vec<Pattern>,
}

impl<'a> Numbered<'a> {
    fn number(&mut self, pattern: &'a Pattern) -> usize {
        *self.numbers.entry(pattern).or_insert_with(|| {
            self.patterns.push(pattern.clone());
            self.patterns.len() - 1
        })
    }

    fn index(&self) -> PatternIndex {
        PatternIndex::new(&self.patterns)
    }
}
