//! Whatever is found: carrying out what it offers is enough, and repairs do not chase each other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

mod common;

use common::*;
use proptest::prelude::*;
use tollgate_doctor::case::Case;
use tollgate_doctor::catalogue::judge;
use tollgate_doctor::finding::{Finding, Severity};
use tollgate_doctor::model::*;

/// Repairs that the user may have to ask for until nothing is left to do: one may bring out what
/// another had hidden, but not for ever.
const ROUNDS: usize = 4;

/// One thing that somebody changed.
#[derive(Clone, Debug)]
enum Change {
    Feature(usize, usize, bool),
    Mtu(usize, u32),
    Gso(usize, u32, u32),
    Xdp(usize),
    Engine(u32, u32, bool),
    Icmp(bool),
    OldKernel,
}

fn change() -> impl Strategy<Value = Change> {
    let mtu = prop::sample::select(vec![1280_u32, 1400, 1450, 1500, 9000]);
    let size = prop::sample::select(vec![65_536_u32, 131_072, 524_280, 600_000]);
    prop_oneof![
        4 => (0..9_usize, 0..14_usize, any::<bool>()).prop_map(|(l, f, on)| Change::Feature(l, f, on)),
        2 => (0..9_usize, mtu).prop_map(|(l, mtu)| Change::Mtu(l, mtu)),
        1 => (0..9_usize, size.clone(), size).prop_map(|(l, a, b)| Change::Gso(l, a, b)),
        1 => (0..9_usize).prop_map(Change::Xdp),
        3 => (2..9_u32, 2..9_u32, any::<bool>()).prop_map(|(a, b, hdr)| Change::Engine(a, b, hdr)),
        1 => any::<bool>().prop_map(Change::Icmp),
        1 => Just(Change::OldKernel),
    ]
}

fn make(case: &mut Case, change: &Change) {
    match change {
        Change::Engine(a, b, vnet_hdr) => {
            host(case).packet_sockets = [*a, *b].map(|i| socket(i, "engine", *vnet_hdr)).into();
        }
        Change::Icmp(clamps) => {
            host(case).filter.drops_icmp = Some("icmp drop".to_owned());
            host(case).filter.clamps_mss = *clamps;
        }
        Change::OldKernel => case.now.kernel = "5.4.0".to_owned(),
        Change::Feature(i, feature, on) => {
            let Some((netns, link)) = case.now.links().nth(*i) else {
                return;
            };
            let (id, name) = (netns.id, link.name.clone());
            if let Some(feature) = link.features.get(*feature).map(|f| f.name.clone()) {
                set(case, id, &name, &feature, *on);
            }
        }
        Change::Mtu(i, _) | Change::Gso(i, ..) | Change::Xdp(i) => {
            let mut links = case
                .now
                .namespaces
                .iter_mut()
                .flat_map(|n| n.links.iter_mut());
            if let Some(link) = links.nth(*i) {
                match change {
                    Change::Mtu(_, mtu) => link.mtu = *mtu,
                    Change::Gso(_, all, ipv4) => {
                        (link.sizes.gso_max, link.sizes.gro_ipv4_max) = (*all, *ipv4);
                    }
                    _ => link.xdp = Some(XdpMode::Native),
                }
            }
        }
    }
}

fn repair(case: &Case, finding: &Finding) -> Result<Case, TestCaseError> {
    let mut repaired = case.clone();
    for action in &finding.actions {
        prop_assert!(
            action.apply_to(&mut repaired.now),
            "{action:?} of {finding:#?}"
        );
    }
    Ok(repaired)
}

fn check(mut case: Case) -> Result<(), TestCaseError> {
    for finding in judge(&case).findings {
        if finding.actions.is_empty() {
            continue;
        }
        let after = judge(&repair(&case, &finding)?);
        let same = after.findings.iter().find(|f| {
            (f.number, f.at) == (finding.number, finding.at) && f.sentence == finding.sentence
        });
        prop_assert!(same.is_none(), "not enough: {finding:#?}");
    }
    for _ in 0..ROUNDS {
        let findings = judge(&case).findings;
        let Some(finding) = findings.iter().find(|f| !f.actions.is_empty()) else {
            return Ok(());
        };
        // One after the other, as on the machine: a repair is judged anew before the next.
        let mut number = finding.number;
        let mut next = Some(finding.clone());
        while let Some(finding) = next {
            case = repair(&case, &finding)?;
            next = judge(&case)
                .findings
                .into_iter()
                .find(|f| !f.actions.is_empty() && f.number > number);
            if let Some(finding) = &next {
                number = finding.number;
            }
        }
    }
    let left = judge(&case).findings;
    prop_assert!(
        left.iter()
            .all(|f| f.actions.is_empty() || f.severity == Severity::Info),
        "repairs chase each other: {left:#?}"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn repairs_suffice(changes in prop::collection::vec(change(), 1..6), ovs in any::<bool>(), on_path in any::<bool>()) {
        let mut case = if ovs { switched() } else { bridged() };
        for change in &changes {
            make(&mut case, change);
        }
        if on_path {
            case.path = Some(if ovs { engine_path() } else { bridge_path() });
        }
        check(case)?;
    }
}
