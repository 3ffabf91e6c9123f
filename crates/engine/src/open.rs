//! How a flow begins: what the policy's answer to its first packet means for it.

use tollgate_policy::{Audited, Decision, Denial, DenyHow, FlowVerdict};

use crate::cache::{CacheEntry, Steer};
use crate::deny::{self, Why};
use crate::dns;
use crate::flow::{Flow, State};
use crate::inspect::Inspection;
use crate::judge::Judges;
use crate::output::Output;
use crate::quic;
use crate::segment::{Ctx, Packet, TCP};
use crate::tcp;

/// Everything passes in the kernel.
pub(crate) const PASS: CacheEntry = CacheEntry {
    outbound: Steer::Pass,
    inbound: Steer::Pass,
};
const DROP: CacheEntry = CacheEntry {
    outbound: Steer::Drop,
    inbound: Steer::Drop,
};

/// Meets the first packet of a flow.
pub(crate) fn begin<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    decision: Decision,
    reading: &dns::Reading<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    let Decision { verdict, audit } = decision;
    match (verdict, audit) {
        (FlowVerdict::Deny(denial), _) => refuse(flow, packet, &denial, ctx),
        (FlowVerdict::Allow(rule), Some(Audited::Inspect(audited))) => {
            flow.rule = rule;
            let judges = Judges {
                enforced: None,
                audited: Some(audited),
            };
            inspect(flow, packet, judges, ctx);
        }
        (FlowVerdict::Allow(rule), audit) => {
            flow.rule = rule;
            match audit {
                Some(Audited::Deny(denial)) => {
                    deny::report_audited(flow, Why::of(&denial), ctx);
                }
                _ => deny::report_allowed(flow, None, ctx),
            }
            let_pass(flow, packet, reading, ctx);
        }
        (FlowVerdict::Inspect(rules), audit) => {
            flow.rule = Some(rules.rule().clone());
            let audited = match audit {
                None => None,
                Some(Audited::Inspect(audited)) => Some(audited),
                Some(Audited::Deny(denial)) => {
                    deny::report_audited(flow, Why::of(&denial), ctx);
                    None
                }
            };
            let judges = Judges {
                enforced: Some(rules),
                audited,
            };
            inspect(flow, packet, judges, ctx);
        }
    }
}

/// The policy allows the flow only with L7 facts: its SYN goes out, its bytes will be judged.
fn inspect<O: Output>(flow: &mut Flow, packet: &Packet<'_>, judges: Judges, ctx: &mut Ctx<'_, O>) {
    let Some(syn) = flow.syn else {
        return quic::open(flow, packet, judges, ctx);
    };
    let inspection = Inspection::new(judges, syn.wrapping_add(1));
    // From here on the handshake is the kernel's; the client's first byte comes up.
    tcp::update_cache(flow, &inspection, ctx);
    flow.state = State::Inspect(Box::new(inspection));
    tcp::forward_syn(packet, ctx);
}

/// The first packet of a flow that is allowed, whatever it carries.
fn let_pass<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    reading: &dns::Reading<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    if dns::is_watched(flow, reading.policy, reading.names) {
        return watch(flow, packet, reading, ctx);
    }
    flow.put_cache(PASS, ctx);
    ctx.forward(packet.frame);
}

/// An allowed flow to a resolver, with its first packet.
fn watch<O: Output>(
    flow: &mut Flow,
    packet: &Packet<'_>,
    reading: &dns::Reading<'_>,
    ctx: &mut Ctx<'_, O>,
) {
    dns::watch(flow, ctx);
    if flow.syn.is_some() {
        tcp::forward_syn(packet, ctx);
    } else {
        dns::watched(flow, packet, reading, ctx);
    }
}

fn refuse<O: Output>(flow: &mut Flow, packet: &Packet<'_>, denial: &Denial, ctx: &mut Ctx<'_, O>) {
    flow.rule = denial.rule.clone();
    deny::report(flow, Why::of(denial), ctx);
    deny::refuse_first(flow, packet, denial.how, ctx);
    if denial.how == DenyHow::Drop && flow.key.protocol != TCP {
        // Nothing will ever be answered: the kernel may drop the rest of a flood.
        flow.put_cache(DROP, ctx);
    }
}
