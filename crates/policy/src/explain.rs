//! How a decision comes about.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::Side;
use crate::chain::{Chain, Peers, Rule, Stage};
use crate::names::{Asked, NamePattern};
use crate::query::{Action, Audited, DenyHow, FlowVerdict, L7Query, L7Verdict, RuleRef};
use crate::ruleset::{
    HTTP_DENIED, HTTP_UPGRADE, QUIC, RuleSet, TLS_ALPN, TLS_DENIED, TLS_ECH, TLS_VERSION,
};
use crate::unsaid::{self, Missing};

/// A decision and the way to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// `namespace/name` of the endpoint.
    pub endpoint: String,
    /// Who opens the flow.
    pub side: Side,
    /// The endpoint's address.
    pub local: IpAddr,
    /// The other side's address.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port that the flow is opened to.
    pub destination_port: u16,
    /// Rules and stages in the order in which they were asked; ends with the one that decided.
    pub steps: Vec<Step>,
    /// Policies that have no rule for the endpoint in this direction.
    pub not_selecting: Vec<Arc<str>>,
    /// What came of it.
    pub outcome: Outcome,
    /// What would have come of it if the policies under audit were enforced, as far as one of them
    /// would have refused or inspected the flow. Never enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Outcome>,
}

/// One rule that was asked, or one stage that had something to say as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// `antrea`, `kubernetes` or `baseline`.
    pub stage: &'static str,
    /// Antrea only: the tier.
    pub tier: Option<Arc<str>>,
    /// Antrea only: the policy's priority in its tier.
    pub priority: Option<f64>,
    /// The policy, as in [`RuleRef::policy`].
    pub policy: Arc<str>,
    /// The rule; `None` if the step is about a Kubernetes policy's isolation.
    pub rule: Option<Arc<str>>,
    /// The rule's action.
    pub action: Option<Action>,
    /// Whether the rule matched on L3/L4.
    pub matched: bool,
    /// The policy is under audit: the rule does not decide, whether it matches or not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// Why, or why not.
    pub why: String,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// What becomes of the flow.
    pub verdict: Verdict,
    /// The policy that decided.
    pub policy: Option<Arc<str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// Stable word: as in [`crate::Denial::reason`] and [`L7Verdict`]; `rule` or `no-policy` for
    /// what is allowed, `l7-undecided` if it depends on facts that were not given.
    pub reason: &'static str,
    /// How a denial shows.
    pub how: Option<DenyHow>,
    /// Index of the item of `l7Protocols` that allowed it.
    pub item: Option<usize>,
    /// What was not said and would have to be, if it cannot be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// One sentence for people.
    pub detail: String,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Forwarded.
    Allowed,
    /// Refused.
    Denied,
    /// Depends on what the flow carries.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "ALLOWED",
            Self::Denied => "DENIED",
            Self::Undecided => "UNDECIDED",
        })
    }
}

pub(crate) fn explain(
    endpoint: &str,
    chain: &Chain,
    policies: &[Arc<str>],
    asked: Asked<'_>,
    l7: Option<&L7Query<'_>>,
) -> Explanation {
    let query = asked.query;
    let decision = chain.decide_audited_naive(asked);
    Explanation {
        endpoint: endpoint.to_owned(),
        side: query.side,
        local: query.local,
        remote: query.remote,
        protocol: query.protocol,
        destination_port: query.destination_port(),
        steps: steps(chain, asked),
        not_selecting: not_selecting(chain, policies),
        outcome: outcome(&decision.verdict, l7),
        audit: decision.audit.as_ref().and_then(|a| audited(a, l7)),
    }
}

/// What a policy under audit would have said, unless it would have let the flow pass.
fn audited(audited: &Audited, l7: Option<&L7Query<'_>>) -> Option<Outcome> {
    let verdict = match audited {
        Audited::Deny(denial) => FlowVerdict::Deny(denial.clone()),
        Audited::Inspect(set) => FlowVerdict::Inspect(set.clone()),
    };
    let outcome = outcome(&verdict, l7);
    (outcome.verdict != Verdict::Allowed).then_some(outcome)
}

fn not_selecting(chain: &Chain, policies: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut selecting = std::collections::HashSet::new();
    for stage in [&chain.antrea, &chain.kubernetes, &chain.baseline] {
        selecting.extend(stage.rules().iter().map(|rule| rule.info.policy().clone()));
    }
    selecting.extend(chain.isolated_by.iter().cloned());
    policies
        .iter()
        .filter(|name| !selecting.contains(*name))
        .cloned()
        .collect()
}

/// Mirrors [`Chain::decide`], and stops where it stops.
fn steps(chain: &Chain, asked: Asked<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut noted = false;
    match stage_steps("antrea", &chain.antrea, asked, &mut steps, &mut noted) {
        Some(Action::Pass) | None => {}
        Some(_) => return steps,
    }
    if chain.isolated_by.is_empty() {
        stage_steps("baseline", &chain.baseline, asked, &mut steps, &mut noted);
        return steps;
    }
    if stage_steps(
        "kubernetes",
        &chain.kubernetes,
        asked,
        &mut steps,
        &mut noted,
    )
    .is_none()
    {
        let exempt = chain.isolation.exempts(asked.query);
        let why = match exempt {
            true => "isolates the endpoint, but traffic with its own node is always allowed",
            false => "isolates the endpoint, and no rule of any policy allows the flow",
        };
        steps.extend(chain.isolated_by.iter().map(|policy| Step {
            stage: "kubernetes",
            tier: None,
            priority: None,
            policy: policy.clone(),
            rule: None,
            action: None,
            matched: !exempt,
            audit: false,
            why: why.to_owned(),
        }));
    }
    steps
}

/// Asks the rules of a stage up to the first that matches; returns its action. Of rules under audit
/// only those up to the first that matches are asked, in any stage; `noted` says that it was found.
fn stage_steps(
    name: &'static str,
    stage: &Stage,
    asked: Asked<'_>,
    steps: &mut Vec<Step>,
    noted: &mut bool,
) -> Option<Action> {
    for rule in stage.rules() {
        let audit = rule.info.audit();
        if audit && *noted {
            continue;
        }
        let matched = rule.matches(asked);
        steps.push(Step {
            stage: name,
            tier: rule.tier.clone(),
            priority: rule.priority,
            policy: rule.info.policy().clone(),
            rule: Some(rule.info.rule().clone()),
            action: Some(rule.info.action()),
            matched,
            audit,
            why: why(rule, asked, matched),
        });
        *noted |= audit && matched;
        if matched && !audit {
            return Some(rule.info.action());
        }
    }
    None
}

fn why(rule: &Rule, asked: Asked<'_>, matched: bool) -> String {
    if matched && rule.info.audit() {
        return "matches, but its policy is under audit: it is reported and does not decide"
            .to_owned();
    }
    let query = asked.query;
    if matched {
        return match (rule.info.action(), &rule.l7) {
            (Action::Pass, _) => {
                "matches; leaves the decision to Kubernetes policies and the baseline tier"
            }
            (_, Some(_)) => "matches; its l7Protocols decide",
            _ => "matches",
        }
        .to_owned();
    }
    if rule.matches_peer(asked) {
        return match query.destination_port() {
            0 => format!(
                "protocol {} is not among its ports and protocols",
                query.protocol
            ),
            port => format!(
                "port {port} of protocol {} is not among its ports",
                query.protocol
            ),
        };
    }
    match &rule.peers {
        Peers::Set(set) if !set.names.is_empty() => {
            let names: Vec<_> = set.names.iter().map(NamePattern::as_str).collect();
            format!(
                "{} is not known as {}, nor is it among its other peers",
                query.remote,
                names.join(" or ")
            )
        }
        Peers::Set(set) if set.addresses.is_empty() && set.blocks.is_empty() => {
            "its peers select no known pod".to_owned()
        }
        _ => format!("{} is not among its peers", query.remote),
    }
}

fn outcome(verdict: &FlowVerdict, l7: Option<&L7Query<'_>>) -> Outcome {
    match verdict {
        FlowVerdict::Allow(Some(rule)) => allowed(Some(rule), "rule", None, "a rule allows it"),
        FlowVerdict::Allow(None) => allowed(None, "no-policy", None, "no policy has a say in it"),
        FlowVerdict::Deny(denial) => Outcome {
            verdict: Verdict::Denied,
            policy: denial.policy.clone(),
            rule: denial.rule.as_ref().map(|rule| rule.rule().clone()),
            reason: denial.reason,
            how: Some(denial.how),
            item: None,
            missing: Vec::new(),
            detail: match denial.detail {
                "" => "a rule forbids it".to_owned(),
                detail => detail.to_owned(),
            },
        },
        FlowVerdict::Inspect(set) => l7_outcome(set, l7),
    }
}

fn allowed(
    rule: Option<&RuleRef>,
    reason: &'static str,
    item: Option<usize>,
    detail: &str,
) -> Outcome {
    Outcome {
        verdict: Verdict::Allowed,
        policy: rule.map(|rule| rule.policy().clone()),
        rule: rule.map(|rule| rule.rule().clone()),
        reason,
        how: None,
        item,
        missing: Vec::new(),
        detail: detail.to_owned(),
    }
}

fn why_not(reason: &'static str) -> &'static str {
    match reason {
        HTTP_DENIED | TLS_DENIED => "the rule matches, and a Deny item of its l7Protocols does",
        HTTP_UPGRADE => "an item would match, but it denies to upgrade the connection",
        TLS_ALPN => "an item has the name, but not every protocol that the client offers",
        TLS_VERSION => "an item has the name, but asks for a higher TLS version",
        TLS_ECH => "an item has the name, but denies encrypted ClientHellos",
        QUIC => "an item has the name, but denies QUIC",
        _ => "the rule matches, and none of its l7Protocols does",
    }
}

fn l7_outcome(set: &RuleSet, l7: Option<&L7Query<'_>>) -> Outcome {
    let rule = set.rule();
    let (verdict, reason, how, detail, missing) = match unsaid::judge(set, l7) {
        Ok(L7Verdict::Allow { item }) => {
            let detail = format!("item {item} of the rule's l7Protocols allows it");
            return allowed(Some(rule), "rule", Some(item), &detail);
        }
        Ok(L7Verdict::Deny { reason }) => {
            let how = Some(DenyHow::Reject);
            (Verdict::Denied, reason, how, why_not(reason), Vec::new())
        }
        Err(missing) => (
            Verdict::Undecided,
            "l7-undecided",
            None,
            match l7 {
                None => "the rule's l7Protocols decide on the content",
                Some(_) => "the rule's l7Protocols decide, and look at what was not given",
            },
            missing,
        ),
    };
    Outcome {
        verdict,
        policy: Some(rule.policy().clone()),
        rule: Some(rule.rule().clone()),
        reason,
        how,
        item: None,
        missing,
        detail: detail.to_owned(),
    }
}
