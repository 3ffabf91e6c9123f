//! Flows that were open before the engine was: what it would have to know of them is gone.

use tollgate_policy::{EndpointPolicy, FlowVerdict};

use crate::deny::{self, Why};
use crate::flow::{Flow, Refusing, State};
use crate::output::Output;
use crate::quic;
use crate::segment::{Ctx, Packet, UDP};

/// How a flow goes on of which the engine before this one knew more. What no enforced rule judges may
/// go on.
pub(crate) fn regained(flow: &Flow, policy: &EndpointPolicy) -> State {
    if flow.key.protocol == UDP {
        return quic::adopted(flow, policy);
    }
    match policy.decide_named(&flow.query(), &flow.names) {
        FlowVerdict::Allow(_) => State::Open,
        FlowVerdict::Deny(_) | FlowVerdict::Inspect(_) => State::Lost,
    }
}

/// A flow of which the engine before this one knew more.
pub(crate) fn end<O: Output>(flow: &mut Flow, packet: &Packet<'_>, ctx: &mut Ctx<'_, O>) {
    ctx.counters.unknown_flow += 1;
    flow.drop_cache(ctx);
    let why = Why {
        policy: flow.rule.as_ref().map(|rule| rule.policy().clone()),
        rule: flow.rule.as_ref().map(|rule| rule.rule().clone()),
        reason: "state-gone",
        detail: "the connection was under inspection when the agent was restarted".to_owned(),
        facts: flow.facts.clone(),
    };
    deny::report(flow, why, ctx);
    deny::reset_unknown(flow, packet, ctx);
    flow.state = State::Denied(Refusing::default());
}

/// Why a flow whose L7 facts are gone must end; `None` if the policy needs none.
pub(crate) fn refusal_without_facts(flow: &Flow, policy: &EndpointPolicy) -> Option<Why> {
    let (policy, rule, reason) = match policy.decide_named(&flow.query(), &flow.names) {
        FlowVerdict::Allow(_) => return None,
        FlowVerdict::Deny(denial) => (
            denial.policy.clone(),
            denial.rule.as_ref().map(|rule| rule.rule().clone()),
            denial.reason,
        ),
        FlowVerdict::Inspect(rules) => {
            let rule = rules.rule();
            (
                Some(rule.policy().clone()),
                Some(rule.rule().clone()),
                "state-gone",
            )
        }
    };
    let detail = "the connection was open before it could be judged".to_owned();
    Some(Why {
        policy,
        rule,
        reason,
        detail,
        facts: None,
    })
}
