//! From what was read to a verdict: requests and hellos become facts, facts are held against the
//! rule sets of the flow.

use std::sync::Arc;

use tollgate_l7::Version;
use tollgate_l7::http1::{Request, split_target};
use tollgate_l7::http2::Http2Request;
use tollgate_l7::tls::ClientHello;
use tollgate_policy::{HttpFacts, L7Verdict, RuleRef, RuleSet, TlsFacts};

use crate::event::{Carrier, GrpcMethod, HttpVersion, L7Facts};
use crate::inspect::{Refused, Tell};

/// The rule sets that judge a flow; at least one.
#[derive(Clone)]
pub(crate) struct Judges {
    /// What it denies is refused. `None`: the flow is allowed, whatever it carries.
    pub enforced: Option<Arc<RuleSet>>,
    /// Of a policy in audit mode: what it denies is reported and forwarded.
    pub audited: Option<Arc<RuleSet>>,
}

/// What was let through.
#[derive(Debug)]
pub(crate) struct Judged {
    pub facts: Box<L7Facts>,
    /// A policy in audit mode would have refused it: its rule, and why.
    pub audit: Option<(RuleRef, &'static str)>,
}

impl Judges {
    /// Whether an L7 rule looks at header fields.
    pub(crate) fn want_headers(&self) -> bool {
        self.sets().any(|set| !set.wanted_headers().is_empty())
    }

    /// Judges a request of HTTP/1.
    pub(crate) fn http1(&self, request: Request) -> Result<Judged, Refused> {
        let tell = Tell::Http {
            head_only: request.method == "HEAD",
        };
        let upgrade = request.connect || request.upgrade.is_some();
        let facts = L7Facts::Http {
            method: request.method,
            host: request.host,
            target: request.target,
            version: match request.version {
                Version::Http10 => HttpVersion::Http10,
                Version::Http11 => HttpVersion::Http11,
            },
            headers: self.wanted(request.headers),
            looked_for: self.looked_for(),
            grpc: None,
            upgrade,
        };
        let detail = request.path.ambiguous.map_or("", |why| why.detail);
        self.judge(Box::new(facts), detail, tell)
    }

    /// Judges a request of HTTP/2.
    pub(crate) fn http2(&self, request: Http2Request) -> Result<Judged, Refused> {
        let tell = Tell::Http2 {
            stream: request.stream,
            head_only: request.method == "HEAD",
            grpc: request.grpc.is_some(),
        };
        let upgrade = request.method == "CONNECT";
        let facts = L7Facts::Http {
            method: request.method,
            host: request.host,
            target: request.target,
            version: HttpVersion::Http2,
            headers: self.wanted(request.headers),
            looked_for: self.looked_for(),
            grpc: request.grpc.map(|grpc| GrpcMethod {
                service: grpc.service,
                method: grpc.method,
            }),
            upgrade,
        };
        let detail = request.path.ambiguous.map_or("", |why| why.detail);
        self.judge(Box::new(facts), detail, tell)
    }

    /// Judges a ClientHello that came over `carrier`.
    pub(crate) fn hello(
        &self,
        hello: ClientHello,
        carrier: Option<Carrier>,
    ) -> Result<Judged, Refused> {
        let facts = L7Facts::Tls {
            version: hello.max_version(),
            ja4: Some(hello.ja4(carrier == Some(Carrier::Quic))),
            sni: hello.sni,
            alpn: hello.alpn,
            ech: hello.ech,
            carrier,
        };
        self.judge(Box::new(facts), "", Tell::Tls)
    }

    /// Judges recorded facts under (possibly new) rules; `None` means allowed.
    pub(crate) fn recorded(&self, facts: &L7Facts) -> Option<&'static str> {
        let rules = self.enforced.as_ref()?;
        if lacks_headers(rules, facts) {
            return Some("l7-facts-unknown");
        }
        denial(rules, facts)
    }

    fn judge(
        &self,
        facts: Box<L7Facts>,
        detail: &'static str,
        tell: Tell,
    ) -> Result<Judged, Refused> {
        if let Some(reason) = self.enforced.as_ref().and_then(|set| denial(set, &facts)) {
            return Err(Refused {
                reason,
                detail,
                facts: Some(facts),
                tell,
            });
        }
        let audit = self
            .audited
            .as_ref()
            .and_then(|set| Some((set.rule().clone(), denial(set, &facts)?)));
        Ok(Judged { facts, audit })
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<RuleSet>> {
        self.enforced.iter().chain(&self.audited)
    }

    fn looked_for(&self) -> Vec<Box<str>> {
        let names = self.sets().flat_map(|set| set.wanted_headers());
        names.cloned().collect()
    }

    /// The headers that the rules look at, names in lower case; the others are not worth keeping.
    fn wanted(&self, mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        headers.retain(|(name, _)| {
            self.sets()
                .flat_map(|set| set.wanted_headers())
                .any(|wanted| **wanted == **name)
        });
        headers
    }
}

/// Only the headers that the rules of the time looked at were recorded.
fn lacks_headers(rules: &RuleSet, facts: &L7Facts) -> bool {
    let L7Facts::Http { looked_for, .. } = facts else {
        return false;
    };
    let wanted = rules.wanted_headers();
    !wanted.iter().all(|name| looked_for.contains(name))
}

/// Why a rule set refuses; `None` if it does not.
fn denial(rules: &RuleSet, facts: &L7Facts) -> Option<&'static str> {
    let verdict = match facts {
        L7Facts::Tls {
            sni,
            alpn,
            version,
            ech,
            carrier,
            ..
        } => rules.judge_tls(&TlsFacts {
            sni: sni.as_deref(),
            alpn,
            version: *version,
            ech: *ech,
            quic: *carrier == Some(Carrier::Quic),
        }),
        L7Facts::Http {
            method,
            host,
            target,
            headers,
            grpc,
            upgrade,
            ..
        } => {
            let (path, query) = split_target(method, target);
            rules.judge_http(&HttpFacts {
                method,
                host,
                path: &path.normal,
                query,
                path_ambiguous: path.ambiguous.is_some(),
                headers,
                grpc: grpc.as_ref().map(|grpc| (&*grpc.service, &*grpc.method)),
                upgrade: *upgrade,
            })
        }
    };
    match verdict {
        L7Verdict::Allow { .. } => None,
        L7Verdict::Deny { reason } => Some(reason),
    }
}
