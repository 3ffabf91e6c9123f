//! Questions to a policy, and its answers.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Side;
use crate::ruleset::RuleSet;

/// One flow, as seen from the endpoint: what is known from its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowQuery {
    /// Who opened the flow.
    pub side: Side,
    /// The other side's address.
    pub remote: IpAddr,
    /// The endpoint's address.
    pub local: IpAddr,
    /// IP protocol number, e.g. 6 for TCP.
    pub protocol: u8,
    /// The endpoint's port: the destination of an ingress flow, the source of an egress flow.
    /// 0 where the protocol has no ports.
    pub local_port: u16,
    /// The other side's port: the destination of an egress flow, the source of an ingress flow.
    pub remote_port: u16,
    /// Type and code of an ICMP or ICMPv6 message. For IGMP: its type, and 0.
    pub icmp: Option<(u8, u8)>,
}

impl FlowQuery {
    /// The port that the flow was opened to.
    pub fn destination_port(&self) -> u16 {
        match self.side {
            Side::Egress => self.remote_port,
            Side::Ingress => self.local_port,
        }
    }

    /// The port that the flow was opened from.
    pub fn source_port(&self) -> u16 {
        match self.side {
            Side::Egress => self.local_port,
            Side::Ingress => self.remote_port,
        }
    }

    /// The address that the flow was opened to.
    pub fn destination(&self) -> IpAddr {
        match self.side {
            Side::Egress => self.remote,
            Side::Ingress => self.local,
        }
    }
}

/// What a policy says to a flow, judged on its first packet.
#[derive(Clone, Debug)]
pub enum FlowVerdict {
    /// Forward it. The rule that says so; `None` if no policy has a say in the flow.
    Allow(Option<RuleRef>),
    /// Refuse it.
    Deny(Denial),
    /// TCP, or UDP under a rule with tls items (QUIC), and the deciding rule has `l7Protocols`: judge
    /// what the flow carries.
    Inspect(Arc<RuleSet>),
}

/// [`FlowVerdict`] and what policies under audit would have said.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What becomes of the flow; policies under audit have no part in it.
    pub verdict: FlowVerdict,
    /// What the first matching rule of a policy under audit would have done, if it is asked before
    /// the rule that decides. `None`: no such rule matches, or it would let the flow pass.
    pub audit: Option<Audited>,
}

/// What a rule of a policy with `enforcement: audit` would have done to a flow.
#[derive(Clone, Debug)]
pub enum Audited {
    /// It would have refused the flow.
    Deny(Denial),
    /// It would have judged what the flow carries: ask these rules, but only to report.
    Inspect(Arc<RuleSet>),
}

/// Why and how a flow is refused.
#[derive(Clone, Debug)]
pub struct Denial {
    /// The rule that refuses; `None` if the flow is refused because no rule allows it.
    pub rule: Option<RuleRef>,
    /// The policy that refuses.
    pub policy: Option<Arc<str>>,
    /// How the opener learns of it.
    pub how: DenyHow,
    /// Stable word: `rule` (a rule says Drop or Reject), `no-rule-matches` (isolated by a Kubernetes
    /// NetworkPolicy), `l7-needs-tcp` (an L7 rule matched a flow that cannot be inspected for
    /// it: not TCP, and not UDP under a rule with tls items).
    pub reason: &'static str,
    /// The same for people; empty if the reason says it all.
    pub detail: &'static str,
}

/// How a refusal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyHow {
    /// Silently.
    Drop,
    /// With an answer: RST, ICMP administratively prohibited, 403 or a TLS alert.
    Reject,
}

/// What a rule does with a flow that matches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Forward (after L7 inspection if the rule has `l7Protocols`).
    Allow,
    /// Refuse silently.
    Drop,
    /// Refuse with an answer.
    Reject,
    /// Leave the decision to Kubernetes NetworkPolicies and the baseline tier.
    Pass,
}

impl Action {
    /// The word used in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Drop => "Drop",
            Self::Reject => "Reject",
            Self::Pass => "Pass",
        }
    }
}

/// A rule's name and what to report with its verdicts; cheap to clone.
#[derive(Clone, Debug)]
pub struct RuleRef(pub(crate) Arc<RuleInfo>);

#[derive(Debug)]
pub(crate) struct RuleInfo {
    pub(crate) policy: Arc<str>,
    pub(crate) rule: Arc<str>,
    pub(crate) action: Action,
    pub(crate) logged: bool,
    pub(crate) log_label: Option<Arc<str>>,
    pub(crate) audit: bool,
}

impl RuleRef {
    /// The policy: `ClusterNetworkPolicy/web`, `NetworkPolicy/shop/api` for Antrea's namespaced kind,
    /// `K8sNetworkPolicy/shop/api` for `networking.k8s.io`.
    pub fn policy(&self) -> &Arc<str> {
        &self.0.policy
    }

    /// The rule's name in the policy; made up (`egress-allow-1a2b3c4`) if it has none.
    pub fn rule(&self) -> &Arc<str> {
        &self.0.rule
    }

    /// What the rule does.
    pub fn action(&self) -> Action {
        self.0.action
    }

    /// The rule has `enableLogging`.
    pub fn logged(&self) -> bool {
        self.0.logged
    }

    /// The rule's `logLabel`.
    pub fn log_label(&self) -> Option<&Arc<str>> {
        self.0.log_label.as_ref()
    }

    /// The policy is under audit (`enforcement: audit`): the rule is reported and never enforced.
    pub fn audit(&self) -> bool {
        self.0.audit
    }
}

impl PartialEq for RuleRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.policy == other.0.policy && self.0.rule == other.0.rule)
    }
}

impl Eq for RuleRef {}

/// One HTTP request, as far as policy cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpFacts<'a> {
    /// Method as sent; compared whole and with case (RFC 9110, 9.1).
    pub method: &'a str,
    /// Host in any case, with or without port and trailing dot; empty if the request names none.
    pub host: &'a str,
    /// Path in normal form.
    pub path: &'a str,
    /// Query, without the `?`.
    pub query: Option<&'a str>,
    /// Two servers might read the path differently: no item with a path matches.
    pub path_ambiguous: bool,
    /// Header fields in the order sent, values without surrounding blanks. Only those that
    /// [`RuleSet::wanted_headers`] names are looked at.
    pub headers: &'a [(String, String)],
    /// Service and method if this is a gRPC request; `None` matches no grpc item.
    pub grpc: Option<(&'a str, &'a str)>,
    /// The request asks to leave HTTP: `Upgrade`, or the method CONNECT.
    pub upgrade: bool,
}

/// One TLS ClientHello, as far as policy cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// Server name in any case, with or without trailing dot; `None` if the hello has none.
    pub sni: Option<&'a str>,
    /// Application protocols offered (RFC 7301), in order; empty if the hello offers none.
    pub alpn: &'a [String],
    /// Highest version offered, as on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3. `None` if it is
    /// not known: then no item with `minVersion` matches.
    pub version: Option<u16>,
    /// The hello has an encrypted ClientHello inside (ECH), so that `sni` is only its outer name.
    pub ech: bool,
    /// The hello came in QUIC.
    pub quic: bool,
}

/// L7 facts to explain a decision with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L7Query<'a> {
    /// A request, and what of it was not said.
    Http(HttpFacts<'a>, HttpUnsaid<'a>),
    /// A ClientHello, and what of it was not said.
    Tls(TlsFacts<'a>, TlsUnsaid),
}

/// What was not said of a request. The default: everything was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpUnsaid<'a> {
    /// The host is not known.
    pub host: bool,
    /// `Some`: the request may have header fields that the facts do not name, but none of these
    /// (in any case).
    pub headers_but: Option<&'a [String]>,
}

impl HttpUnsaid<'_> {
    /// Whether it is not known if, and with which values, the request has a header field.
    pub(crate) fn header(&self, name: &str, facts: &HttpFacts<'_>) -> bool {
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        self.headers_but.is_some_and(|absent| {
            !absent.iter().any(|other| is(other)) && !facts.headers.iter().any(|(n, _)| is(n))
        })
    }
}

/// What was not said of a ClientHello. The default: everything was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsUnsaid {
    /// Whether it names a server, and which.
    pub sni: bool,
    /// Which protocols it offers.
    pub alpn: bool,
    /// Which versions it offers.
    pub version: bool,
}

/// What a rule set says to a request or a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L7Verdict {
    /// Forward it.
    Allow {
        /// Index of the first matching Allow item in the rule's `l7Protocols`.
        item: usize,
    },
    /// Refuse it.
    Deny {
        /// Stable word: `http-no-rule-matches`, `http-ambiguous-path`, `http-denied-by-item`,
        /// `http-upgrade-denied`, `tls-sni-no-rule-matches`, `tls-no-sni`, `tls-denied-by-item`,
        /// `tls-alpn-not-allowed`, `tls-version-too-low`, `tls-ech-denied`, `quic-denied`.
        reason: &'static str,
    },
}
