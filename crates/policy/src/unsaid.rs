//! Verdicts on facts of which some were not said, for explanations.
//!
//! An item is asked as if it did not look at what was not said. If it fits even then and did look,
//! it may fit or not: it depends. What a Deny item depends on matters unless nothing is allowed
//! anyway, what an Allow item depends on matters unless another allows it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::item::{HttpFit, HttpItem, L7Item, Protocol, Request, TlsFit, TlsItem};
use crate::pattern::Pattern;
use crate::query::{HttpFacts, HttpUnsaid, L7Query, L7Verdict, TlsFacts, TlsUnsaid};
use crate::ruleset::{RuleSet, normal_host, normal_name};

/// A fact that was not said and that a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A request: nothing was said of what the flow carries, and it may be one.
    Request,
    /// A ClientHello: nothing was said of what the flow carries, and it may be one.
    Hello,
    /// The host of a request.
    Host,
    /// A header field, by its name in lower case.
    Header(Box<str>),
    /// The server name of a ClientHello.
    ServerName,
    /// The protocols that a ClientHello offers.
    Alpn,
    /// The highest version that a ClientHello offers.
    TlsVersion,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Hello => f.write_str("hello"),
            Self::Host => f.write_str("host"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::ServerName => f.write_str("sni"),
            Self::Alpn => f.write_str("alpn"),
            Self::TlsVersion => f.write_str("tls-version"),
        }
    }
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An item that does not look at what was not said.
struct Relaxed {
    item: L7Item,
    /// What it would have looked at.
    missing: Vec<Missing>,
}

/// What is known of all items that may decide.
#[derive(Default)]
struct Known {
    /// A Deny item fits.
    denied: bool,
    /// The first Allow item that fits.
    allowed: Option<usize>,
    /// What Deny items depend on.
    may_deny: BTreeSet<Missing>,
    /// What Allow items depend on.
    may_allow: BTreeSet<Missing>,
    /// All items but the Deny items that depend: they say why a refusal is one.
    items: Vec<L7Item>,
}

impl Known {
    fn note(&mut self, number: usize, relaxed: Relaxed, fits: bool) {
        let Relaxed { item, missing } = relaxed;
        match (fits, item.deny, missing.is_empty()) {
            (false, ..) => {}
            (true, true, true) => self.denied = true,
            (true, false, true) => self.allowed = self.allowed.or(Some(number)),
            (true, true, false) => {
                self.may_deny.extend(missing);
                return;
            }
            (true, false, false) => self.may_allow.extend(missing),
        }
        self.items.push(item);
    }

    /// The item that allows, or the items that say why it is refused; an error is what it depends
    /// on.
    fn verdict(self) -> Result<Result<usize, Vec<L7Item>>, Vec<Missing>> {
        let Self {
            denied,
            allowed,
            mut may_deny,
            may_allow,
            items,
        } = self;
        match allowed {
            _ if denied => Ok(Err(items)),
            Some(item) if may_deny.is_empty() => Ok(Ok(item)),
            None if may_allow.is_empty() => Ok(Err(items)),
            Some(_) => Err(may_deny.into_iter().collect()),
            None => {
                may_deny.extend(may_allow);
                Err(may_deny.into_iter().collect())
            }
        }
    }
}

/// Judges by what was said.
///
/// # Errors
/// The verdict depends on these facts, which were not said.
pub(crate) fn judge(set: &RuleSet, l7: Option<&L7Query<'_>>) -> Result<L7Verdict, Vec<Missing>> {
    match l7 {
        None => Err(anything(set)),
        Some(L7Query::Http(facts, unsaid)) => judge_http(set, facts, unsaid),
        Some(L7Query::Tls(facts, unsaid)) => judge_tls(set, facts, unsaid),
    }
}

fn anything(set: &RuleSet) -> Vec<Missing> {
    let request = set.wants_http().then_some(Missing::Request);
    let hello = set.wants_tls().then_some(Missing::Hello);
    request.into_iter().chain(hello).collect()
}

fn judge_http(
    set: &RuleSet,
    facts: &HttpFacts<'_>,
    unsaid: &HttpUnsaid<'_>,
) -> Result<L7Verdict, Vec<Missing>> {
    let host = normal_host(facts.host);
    let request = Request::new(facts, (!host.is_empty()).then_some(&*host));
    let mut known = Known::default();
    for (number, item) in set.items().iter().enumerate() {
        let relaxed = relax(item, facts, unsaid, &TlsUnsaid::default());
        let fits = relaxed.item.http().is_some_and(|http| {
            match http.fit(&request) {
                HttpFit::Yes => true,
                // In doubt a Deny item refuses.
                HttpFit::AmbiguousPath | HttpFit::Unsure => item.deny,
                HttpFit::No | HttpFit::Upgrade => false,
            }
        });
        known.note(number, relaxed, fits);
    }
    Ok(match known.verdict()? {
        Ok(item) => L7Verdict::Allow { item },
        Err(items) => RuleSet::new(set.rule().clone(), items).judge_http_naive(facts),
    })
}

fn judge_tls(
    set: &RuleSet,
    facts: &TlsFacts<'_>,
    unsaid: &TlsUnsaid,
) -> Result<L7Verdict, Vec<Missing>> {
    let name = facts.sni.map(normal_name);
    let name = name.as_deref();
    let mut known = Known::default();
    for (number, item) in set.items().iter().enumerate() {
        let relaxed = relax(item, &HttpFacts::default(), &HttpUnsaid::default(), unsaid);
        let fits = relaxed.item.tls().is_some_and(|tls| match item.deny {
            true => tls.denies(name, facts),
            false => tls.fit(name, facts) == TlsFit::Yes,
        });
        known.note(number, relaxed, fits);
    }
    Ok(match known.verdict()? {
        Ok(item) => L7Verdict::Allow { item },
        Err(items) => RuleSet::new(set.rule().clone(), items).judge_tls_naive(facts),
    })
}

fn relax(item: &L7Item, facts: &HttpFacts<'_>, http: &HttpUnsaid<'_>, tls: &TlsUnsaid) -> Relaxed {
    let mut item = item.clone();
    let missing = match &mut item.what {
        Protocol::Http(item) => relax_http(item, facts, http),
        Protocol::Tls(item) => relax_tls(item, tls),
    };
    Relaxed { item, missing }
}

fn relax_http(item: &mut HttpItem, facts: &HttpFacts<'_>, unsaid: &HttpUnsaid<'_>) -> Vec<Missing> {
    let mut missing = Vec::new();
    if unsaid.host && item.host != Pattern::Any {
        item.host = Pattern::Any;
        missing.push(Missing::Host);
    }
    if let Some(more) = &mut item.more {
        more.headers.retain(|header| {
            let said = !unsaid.header(&header.name, facts);
            if !said {
                missing.push(Missing::Header(header.name.clone()));
            }
            said
        });
    }
    missing
}

fn relax_tls(item: &mut TlsItem, unsaid: &TlsUnsaid) -> Vec<Missing> {
    let mut missing = Vec::new();
    if unsaid.sni && item.sni != Pattern::Any {
        item.sni = Pattern::Any;
        missing.push(Missing::ServerName);
    }
    if let Some(more) = &mut item.more {
        if unsaid.alpn && !more.alpn.is_empty() {
            more.alpn.clear();
            missing.push(Missing::Alpn);
        }
        if unsaid.version && more.min_version.take().is_some() {
            missing.push(Missing::TlsVersion);
        }
    }
    missing
}
