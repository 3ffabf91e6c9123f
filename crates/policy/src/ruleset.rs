//! The L7 rules that govern one flow: the `l7Protocols` of the rule that its first packet matched.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::item::{HttpFit, L7Item, Request, TlsFit};
use crate::pattern::{Pattern, PatternIndex};
use crate::query::{HttpFacts, L7Verdict, RuleRef, TlsFacts};

/// No item of the rule matches the request.
pub(crate) const HTTP_NO_RULE: &str = "http-no-rule-matches";
/// Items would match, but for a path that two servers may read differently.
pub(crate) const HTTP_AMBIGUOUS: &str = "http-ambiguous-path";
/// A Deny item matches the request.
pub(crate) const HTTP_DENIED: &str = "http-denied-by-item";
/// An item would match, but for `upgrade: Deny`.
pub(crate) const HTTP_UPGRADE: &str = "http-upgrade-denied";
/// No item of the rule matches the server name.
pub(crate) const TLS_NO_RULE: &str = "tls-sni-no-rule-matches";
/// The ClientHello has no server name and the rule does not allow that.
pub(crate) const TLS_NO_SNI: &str = "tls-no-sni";
/// A Deny item matches the ClientHello.
pub(crate) const TLS_DENIED: &str = "tls-denied-by-item";
/// Items have the name, but the client offers a protocol that they do not list, or none.
pub(crate) const TLS_ALPN: &str = "tls-alpn-not-allowed";
/// Items have the name, but the client offers no version as high as they ask for.
pub(crate) const TLS_VERSION: &str = "tls-version-too-low";
/// Items have the name, but for `ech: Deny`.
pub(crate) const TLS_ECH: &str = "tls-ech-denied";
/// Items have the name, but for `quic: Deny`.
pub(crate) const QUIC: &str = "quic-denied";

/// The compiled `l7Protocols` of one rule. A request or ClientHello is refused if a Deny item
/// matches it, and else allowed if any other item does; an http item never matches a ClientHello,
/// nor a tls item a request.
///
/// Allow items that say no more than Antrea's can are found by an index, whatever their number.
/// The others are tried one by one: Deny items before it, further Allow items after it, so that
/// each costs a comparison per request.
#[derive(Debug)]
pub struct RuleSet {
    rule: RuleRef,
    items: Vec<L7Item>,
    http: OneByOne,
    http_index: Option<HttpIndex>,
    tls: OneByOne,
    tls_index: Option<TlsIndex>,
    wanted_headers: Box<[Box<str>]>,
}

/// The items of a protocol that are not in its index, by number and in order.
#[derive(Debug, Default)]
struct OneByOne {
    deny: Vec<usize>,
    allow: Vec<usize>,
}

impl OneByOne {
    fn new(items: &[L7Item], plain: impl Fn(&L7Item) -> Option<bool>) -> Self {
        let mut lists = Self::default();
        for (number, item) in items.iter().enumerate() {
            match (plain(item), item.deny) {
                (None, _) | (Some(true), false) => {}
                (Some(_), true) => lists.deny.push(number),
                (Some(false), false) => lists.allow.push(number),
            }
        }
        lists
    }
}

impl RuleSet {
    pub(crate) fn new(rule: RuleRef, items: Vec<L7Item>) -> Self {
        let (http_index, tls_index) = (HttpIndex::new(&items), TlsIndex::new(&items));
        let plain_http = |item: &L7Item| Some(item.http()?.more.is_none());
        let plain_tls = |item: &L7Item| Some(item.tls()?.more.is_none());
        Self {
            rule,
            http: OneByOne::new(&items, plain_http),
            http_index,
            tls: OneByOne::new(&items, plain_tls),
            tls_index,
            wanted_headers: wanted_headers(&items),
            items,
        }
    }

    pub(crate) fn items(&self) -> &[L7Item] {
        &self.items
    }

    /// The rule that the items belong to.
    pub fn rule(&self) -> &RuleRef {
        &self.rule
    }

    /// Whether any item allows HTTP: if not, a request is never allowed.
    pub fn wants_http(&self) -> bool {
        self.http_index.is_some() || !self.http.allow.is_empty()
    }

    /// Whether any item allows TLS: if not, a ClientHello is never allowed.
    pub fn wants_tls(&self) -> bool {
        self.tls_index.is_some() || !self.tls.allow.is_empty()
    }

    /// The header fields that items look at, in lower case and sorted, each once.
    pub fn wanted_headers(&self) -> &[Box<str>] {
        &self.wanted_headers
    }

    /// Judges one HTTP request.
    pub fn judge_http(&self, facts: &HttpFacts<'_>) -> L7Verdict {
        let host = normal_host(facts.host);
        let request = Request::new(facts, absent_if_empty(&host));
        for number in &self.http.deny {
            if let Some(reason) = self.denies_http(*number, &request) {
                return L7Verdict::Deny { reason };
            }
        }
        let index = self.http_index.as_ref();
        let mut found = index
            .map(|index| index.find(&host, facts))
            .unwrap_or_default();
        for number in &self.http.allow {
            if found.item.is_some_and(|first| first < *number) {
                break;
            }
            self.allows_http(*number, &request, &mut found);
        }
        http_verdict(found)
    }

    /// Judges one TLS ClientHello.
    pub fn judge_tls(&self, facts: &TlsFacts<'_>) -> L7Verdict {
        let name = facts.sni.map(normal_name);
        let name = name.as_deref();
        let denies = |number: &&usize| self.denies_tls(**number, name, facts);
        if self.tls.deny.iter().find(denies).is_some() {
            return L7Verdict::Deny { reason: TLS_DENIED };
        }
        let index = self.tls_index.as_ref();
        let mut found = TlsFound {
            item: index.and_then(|index| index.find(name)),
            missed: None,
        };
        for number in &self.tls.allow {
            if found.item.is_some_and(|first| first < *number) {
                break;
            }
            self.allows_tls(*number, name, facts, &mut found);
        }
        tls_verdict(found, name.is_some())
    }

    /// [`RuleSet::judge_http`] by trying one item after the other; for tests of the former.
    #[doc(hidden)]
    pub fn judge_http_naive(&self, facts: &HttpFacts<'_>) -> L7Verdict {
        let host = normal_host(facts.host);
        let request = Request::new(facts, absent_if_empty(&host));
        let deny = self.numbers(true);
        if let Some(reason) = deny.filter_map(|n| self.denies_http(n, &request)).next() {
            return L7Verdict::Deny { reason };
        }
        let mut found = Found::default();
        for number in self.numbers(false) {
            self.allows_http(number, &request, &mut found);
        }
        http_verdict(found)
    }

    /// [`RuleSet::judge_tls`] by trying one item after the other; for tests of the former.
    #[doc(hidden)]
    pub fn judge_tls_naive(&self, facts: &TlsFacts<'_>) -> L7Verdict {
        let name = facts.sni.map(normal_name);
        let name = name.as_deref();
        if self.numbers(true).any(|n| self.denies_tls(n, name, facts)) {
            return L7Verdict::Deny { reason: TLS_DENIED };
        }
        let mut found = TlsFound::default();
        for number in self.numbers(false) {
            self.allows_tls(number, name, facts, &mut found);
        }
        tls_verdict(found, name.is_some())
    }

    fn numbers(&self, deny: bool) -> impl Iterator<Item = usize> {
        let numbered = self.items.iter().enumerate();
        numbered.filter_map(move |(number, item)| (item.deny == deny).then_some(number))
    }

    /// Why a Deny item refuses the request, if it does: also in doubt.
    fn denies_http(&self, number: usize, request: &Request<'_>) -> Option<&'static str> {
        match self.items.get(number)?.http()?.fit(request) {
            HttpFit::No | HttpFit::Upgrade => None,
            HttpFit::Yes | HttpFit::Unsure => Some(HTTP_DENIED),
            HttpFit::AmbiguousPath => Some(HTTP_AMBIGUOUS),
        }
    }

    fn allows_http(&self, number: usize, request: &Request<'_>, found: &mut Found) {
        let Some(item) = self.items.get(number).and_then(L7Item::http) else {
            return;
        };
        match item.fit(request) {
            HttpFit::No | HttpFit::Unsure => {}
            HttpFit::Yes => {
                found.item = Some(found.item.map_or(number, |first| first.min(number)));
            }
            HttpFit::AmbiguousPath => found.ambiguous = true,
            HttpFit::Upgrade => found.upgrade = true,
        }
    }

    fn denies_tls(&self, number: usize, name: Option<&str>, facts: &TlsFacts<'_>) -> bool {
        let item = self.items.get(number).and_then(L7Item::tls);
        item.is_some_and(|item| item.denies(name, facts))
    }

    fn allows_tls(
        &self,
        number: usize,
        name: Option<&str>,
        facts: &TlsFacts<'_>,
        found: &mut TlsFound,
    ) {
        let Some(item) = self.items.get(number).and_then(L7Item::tls) else {
            return;
        };
        let missed = match item.fit(name, facts) {
            TlsFit::No => return,
            TlsFit::Yes => {
                found.item = Some(found.item.map_or(number, |first| first.min(number)));
                return;
            }
            TlsFit::Quic => QUIC,
            TlsFit::Ech => TLS_ECH,
            TlsFit::Version => TLS_VERSION,
            TlsFit::Alpn => TLS_ALPN,
        };
        found.missed = found.missed.or(Some(missed));
    }
}

fn wanted_headers(items: &[L7Item]) -> Box<[Box<str>]> {
    let more = items.iter().filter_map(|item| item.http()?.more.as_ref());
    let names = more.flat_map(|more| more.headers.iter().map(|header| header.name.clone()));
    let sorted: std::collections::BTreeSet<Box<str>> = names.collect();
    sorted.into_iter().collect()
}

fn http_verdict(found: Found) -> L7Verdict {
    let reason = match found {
        Found {
            item: Some(item), ..
        } => return L7Verdict::Allow { item },
        Found {
            ambiguous: true, ..
        } => HTTP_AMBIGUOUS,
        Found { upgrade: true, .. } => HTTP_UPGRADE,
        Found { .. } => HTTP_NO_RULE,
    };
    L7Verdict::Deny { reason }
}

fn tls_verdict(found: TlsFound, named: bool) -> L7Verdict {
    let none = if named { TLS_NO_RULE } else { TLS_NO_SNI };
    match found.item {
        Some(item) => L7Verdict::Allow { item },
        None => L7Verdict::Deny {
            reason: found.missed.unwrap_or(none),
        },
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
}

/// What a search has found so far.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// First matching item.
    item: Option<usize>,
    /// An item was passed over for an ambiguous path alone.
    ambiguous: bool,
    /// An item was passed over for `upgrade: Deny` alone.
    upgrade: bool,
}

/// What a search among tls items has found so far.
#[derive(Clone, Copy, Debug, Default)]
struct TlsFound {
    /// First matching item.
    item: Option<usize>,
    /// Why the first item with the right name was passed over.
    missed: Option<&'static str>,
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
            let Some(item) = item.http().filter(|http| !item.deny && http.more.is_none()) else {
                continue;
            };
            let bucket = hosts.number(&item.host);
            if bucket == members.len() {
                members.push(Vec::new());
            }
            members
                .get_mut(bucket)?
                .push((number, item.method, &item.path));
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
            let Some(item) = item.tls().filter(|tls| !item.deny && tls.more.is_none()) else {
                continue;
            };
            if names.number(&item.sni) == firsts.len() {
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
