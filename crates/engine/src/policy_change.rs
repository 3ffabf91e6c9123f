//! A new policy and the flows that are open: each is judged again, on what is known of it.

use tollgate_policy::{Audited, Decision, Denial, DenyHow, FlowVerdict, RuleSet, Side};
use tollgate_wire::tag::Direction;

use std::sync::Arc;

use crate::cache::{CacheEntry, Steer};
use crate::deny::{self, Position, Why};
use crate::dns;
use crate::flow::{Flow, Refusing, State, of_direction};
use crate::judge::Judges;
use crate::names::NameTable;
use crate::output::Output;
use crate::segment::{Ctx, TCP};
use crate::table::PolicyTable;

/// Reason of a flow with an address that is not the endpoint's.
const FOREIGN_SOURCE: &str = "foreign-source";

/// Judges a flow under `table`. False: forget the flow, its next packet is judged afresh.
pub(crate) fn recheck<O: Output>(
    flow: &mut Flow,
    table: &PolicyTable,
    names: &NameTable,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let Some(policy) = table.get(flow.key.endpoint) else {
        return false;
    };
    if !policy.may_send_from(&flow.key.local) {
        return deny_foreign(flow, ctx);
    }
    let mut known = flow.names.to_vec();
    if policy.wants_names() {
        known.extend(names.names_for(flow.key.endpoint, &flow.key.remote, ctx.now));
    }
    let Decision { verdict, audit } = policy.decide_audited_named(&flow.query(), &known);
    let audited = match audit {
        Some(Audited::Inspect(rules)) => Some(rules),
        // What it says to the flow as a whole is reported when a flow begins.
        Some(Audited::Deny(_)) | None => None,
    };
    match verdict {
        FlowVerdict::Allow(rule) => {
            flow.rule = rule;
            match audited {
                Some(_) if is_read(flow) => {
                    let enforced = None;
                    set_judges(flow, Judges { enforced, audited });
                    true
                }
                _ => {
                    let is_watched = dns::is_watched(flow, policy, names);
                    allow(flow, is_watched, ctx)
                }
            }
        }
        FlowVerdict::Deny(denial) => deny_now(flow, &denial, ctx),
        FlowVerdict::Inspect(rules) => inspect(flow, rules, audited, ctx),
    }
}

/// The policy needs no L7 fact for the flow.
fn allow<O: Output>(flow: &mut Flow, is_watched: bool, ctx: &mut Ctx<'_, O>) -> bool {
    match &flow.state {
        // A connection that was refused stays closed; anything else may begin anew.
        State::Denied(_) => return flow.stays_denied(),
        State::Dns(_) if is_watched => {}
        // Of a connection that is open, the beginning was not read.
        State::Open if is_watched && flow.key.protocol != TCP => dns::watch(flow, ctx),
        State::Open | State::Lost | State::Inspect(_) | State::Quic(_) | State::Dns(_) => {
            ctx.held_bytes
                .change(flow.key.endpoint, flow.held_bytes(), 0);
            flow.state = State::Open;
            flow.put_cache(
                CacheEntry {
                    outbound: Steer::Pass,
                    inbound: Steer::Pass,
                },
                ctx,
            );
        }
    }
    true
}

fn deny_now<O: Output>(flow: &mut Flow, denial: &Denial, ctx: &mut Ctx<'_, O>) -> bool {
    if matches!(flow.state, State::Denied(_)) {
        return flow.stays_denied();
    }
    let why = Why {
        policy: denial.policy.clone(),
        rule: denial.rule.as_ref().map(|rule| rule.rule().clone()),
        reason: denial.reason,
        detail: "the policy changed".to_owned(),
        facts: flow.facts.clone(),
    };
    cut(flow, why, denial.how == DenyHow::Drop, ctx);
    true
}

/// The flow was opened with an address that the endpoint may not send from any more.
fn deny_foreign<O: Output>(flow: &mut Flow, ctx: &mut Ctx<'_, O>) -> bool {
    if matches!(flow.state, State::Denied(_)) {
        return flow.stays_denied();
    }
    let why = Why {
        policy: None,
        rule: None,
        reason: FOREIGN_SOURCE,
        detail: "the endpoint may send from its own addresses only".to_owned(),
        facts: flow.facts.clone(),
    };
    cut(flow, why, true, ctx);
    true
}

/// Whether the flow's content is being read.
fn is_read(flow: &Flow) -> bool {
    matches!(flow.state, State::Inspect(_) | State::Quic(_))
}

fn is_given_up(state: &State) -> bool {
    match state {
        State::Inspect(inspection) => inspection.is_given_up(),
        State::Quic(quic) => quic.is_given_up(),
        State::Open | State::Lost | State::Dns(_) | State::Denied(_) => false,
    }
}

fn set_judges(flow: &mut Flow, judges: Judges) {
    match &mut flow.state {
        State::Inspect(inspection) => inspection.judges = judges,
        State::Quic(quic) => quic.judges = judges,
        State::Open | State::Lost | State::Dns(_) | State::Denied(_) => {}
    }
}

fn inspect<O: Output>(
    flow: &mut Flow,
    rules: Arc<RuleSet>,
    audited: Option<Arc<RuleSet>>,
    ctx: &mut Ctx<'_, O>,
) -> bool {
    let rule = rules.rule().clone();
    let judges = Judges {
        enforced: Some(rules),
        audited,
    };
    let reason = match (&flow.state, &flow.facts) {
        (State::Denied(_), _) => return flow.stays_denied(),
        // A policy in audit mode let go by what it could not read.
        (state, _) if is_given_up(state) => Some("l7-facts-unknown"),
        (_, Some(facts)) => judges.recorded(facts),
        (State::Inspect(_) | State::Quic(_), None) => None,
        (State::Open | State::Lost | State::Dns(_), None) => Some("l7-facts-unknown"),
    };
    if let Some(reason) = reason {
        let why = Why {
            policy: Some(rule.policy().clone()),
            rule: Some(rule.rule().clone()),
            reason,
            detail: "the policy changed".to_owned(),
            facts: flow.facts.clone(),
        };
        cut(flow, why, false, ctx);
        return true;
    }
    flow.rule = Some(rule);
    set_judges(flow, judges);
    true
}

/// Ends a flow that was allowed until now.
pub(crate) fn cut<O: Output>(flow: &mut Flow, why: Why, silent: bool, ctx: &mut Ctx<'_, O>) {
    ctx.counters.cut_by_policy += 1;
    ctx.held_bytes
        .change(flow.key.endpoint, flow.held_bytes(), 0);
    flow.drop_cache(ctx);
    deny::report(flow, why, ctx);
    match position(flow) {
        Some(at) if !silent && flow.key.protocol == TCP => deny::reset_both(flow, at, ctx),
        _ => {
            flow.state = State::Denied(Refusing {
                silent,
                half_hello: flow.has_half_hello().then_some(ctx.now),
                ..Refusing::default()
            })
        }
    }
}

/// Where both halves stand, from what went by. The acknowledgements are the best witness: each
/// tells exactly what its sender expects next.
fn position(flow: &Flow) -> Option<Position> {
    let client_direction = match flow.side {
        Side::Egress => Direction::Outbound,
        Side::Ingress => Direction::Inbound,
    };
    let client = of_direction(&flow.seen, client_direction);
    let server = of_direction(&flow.seen, client_direction.reverse());
    Some(Position {
        delivered: server.max_ack.or(client.max_seq)?,
        sent: client.max_seq.or(server.max_ack)?,
        expected: client.max_ack.or(server.max_seq)?,
    })
}
