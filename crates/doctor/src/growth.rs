//! Counters of lost and broken packets that grew between two readings.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::Path;
use crate::model::{LinkRef, Netns, Snapshot};

/// Counters of a namespace that tell of broken or lost packets.
const NAMESPACE: [&str; 9] = [
    "Tcp:InCsumErrors",
    "Udp:InCsumErrors",
    "Udp6:InCsumErrors",
    "Icmp:InCsumErrors",
    "Tcp:RetransSegs",
    "Ip:InHdrErrors",
    "Ip:FragFails",
    "Conntrack:invalid",
    "Conntrack:drop",
];
/// Parts of the names of an interface's counters that do; cards call them as they like.
const INTERFACE: [&str; 4] = ["drop", "err", "csum_bad", "discard"];
/// Frames for other stations, of which every port of a bridge gets some.
const HARMLESS: &str = "rx_otherhost_dropped";

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// What people call the namespace.
    pub netns: String,
    /// The interface, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The counter.
    pub counter: String,
    /// By how much.
    pub by: u64,
}

/// What grew, on a path or on the whole machine.
pub fn between(before: &Snapshot, now: &Snapshot, path: Option<&Path>) -> Vec<Growth> {
    let mut all = Vec::new();
    for netns in &now.namespaces {
        let hop = |at: LinkRef| path.is_none_or(|path| path.hops.iter().any(|hop| hop.at == at));
        let on_path = path.is_none_or(|path| path.hops.iter().any(|hop| hop.at.netns == netns.id));
        if let Some(before) = before.netns(netns.id).filter(|_| on_path) {
            let names = |name: &str| NAMESPACE.contains(&name);
            add(
                &mut all,
                netns,
                None,
                &before.counters,
                &netns.counters,
                names,
            );
        }
        for link in netns.links.iter().filter(|link| hop(netns.at(link))) {
            let Some(before) = before.link(netns.at(link)) else {
                continue;
            };
            let names =
                |name: &str| name != HARMLESS && INTERFACE.iter().any(|part| name.contains(part));
            let interface = Some(link.name.as_str());
            add(
                &mut all,
                netns,
                interface,
                &before.counters,
                &link.counters,
                names,
            );
        }
    }
    all
}

fn add(
    all: &mut Vec<Growth>,
    netns: &Netns,
    interface: Option<&str>,
    before: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    is: impl Fn(&str) -> bool,
) {
    for (name, value) in now.iter().filter(|(name, _)| is(name)) {
        // A counter that is 0 is left out.
        let by = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        if by > 0 {
            all.push(Growth {
                netns: netns.name.clone(),
                interface: interface.map(ToOwned::to_owned),
                counter: name.clone(),
                by,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::case::{Hop, Via};
    use crate::model::NetnsId;

    fn machine(errors: u64, dropped: u64) -> Snapshot {
        let machine = serde_json::json!({"namespaces": [{
            "id": 1, "name": "blue", "path": "/run/netns/blue", "routes": [], "sysctls": {},
            "packet_sockets": [], "filter": {},
            "counters": {"Tcp:InCsumErrors": errors, "Tcp:OutSegs": errors},
            "links": [{"ifindex": 2, "name": "eth0", "counters": {
                "rx_dropped": dropped, "rx_otherhost_dropped": dropped, "rx_bytes": dropped}}],
        }]});
        serde_json::from_value(machine).unwrap()
    }

    #[test]
    fn only_losses_that_grew_are_told() {
        let (before, now) = (machine(3, 0), machine(5, 7));
        let all = between(&before, &now, None);
        let told: Vec<_> = all
            .iter()
            .map(|one| (one.interface.as_deref(), one.counter.as_str(), one.by))
            .collect();
        assert_eq!(
            told,
            [
                (None, "Tcp:InCsumErrors", 2),
                (Some("eth0"), "rx_dropped", 7)
            ]
        );
        assert!(between(&now, &now, None).is_empty());
        assert!(between(&now, &before, None).is_empty(), "started anew");
    }

    #[test]
    fn a_path_leaves_out_what_it_does_not_touch() {
        let (before, now) = (machine(3, 0), machine(5, 7));
        let mut path = Path::default();
        assert!(between(&before, &now, Some(&path)).is_empty());
        path.hops.push(Hop {
            at: LinkRef {
                netns: NetnsId(1),
                ifindex: 9,
            },
            via: Via::Start,
            overhead: 0,
        });
        let all = between(&before, &now, Some(&path));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].counter, "Tcp:InCsumErrors");
    }
}
