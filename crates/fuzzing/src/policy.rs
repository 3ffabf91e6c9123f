//! Policies: YAML that anybody may have written.

use std::net::{IpAddr, Ipv4Addr};

use tollgate_policy::{CompileOptions, FlowQuery, PolicySet, Side, SourceFile, compile};

/// A flow to look up, from the endpoint's side and port.
const QUERIES: [(Side, u8, u16); 5] = [
    (Side::Egress, 6, 80),
    (Side::Egress, 6, 443),
    (Side::Egress, 17, 53),
    (Side::Ingress, 6, 8080),
    (Side::Ingress, 1, 0),
];

/// A file of policies. What compiles is asked: the index decides as the naive evaluation does.
///
/// # Panics
/// If a promise of the compiler is broken.
pub fn policy_yaml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let file = SourceFile {
        name: "fuzz.yaml",
        text,
    };
    match compile(&[file], &CompileOptions::default()) {
        Ok(set) => decides(&set),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            assert!(faults.is_sorted(), "faults are sorted");
            let lines = text.split(['\n', '\r']).count();
            for fault in faults {
                assert!(!fault.message.is_empty());
                let line = fault.line.and_then(|line| usize::try_from(line).ok());
                assert!(
                    line.is_none_or(|line| (1..=lines + 1).contains(&line)),
                    "a line that is not there: {fault}"
                );
            }
        }
    }
}

fn decides(set: &PolicySet) {
    let remotes = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    ];
    for endpoint in set.endpoints() {
        let Some(local) = endpoint.addresses().first().copied() else {
            continue;
        };
        let peers = set.endpoints().iter().flat_map(|peer| peer.addresses());
        for remote in remotes.iter().chain(peers.take(4)).copied() {
            for (side, protocol, port) in QUERIES {
                let (local_port, remote_port) = match side {
                    Side::Egress => (40_000, port),
                    Side::Ingress => (port, 40_000),
                };
                let query = FlowQuery {
                    side,
                    remote,
                    local,
                    protocol,
                    local_port,
                    remote_port,
                    icmp: (protocol == 1).then_some((8, 0)),
                };
                let quick = endpoint.decide_audited(&query);
                let naive = endpoint.decide_audited_naive(&query);
                assert_eq!(format!("{quick:?}"), format!("{naive:?}"), "{query:?}");
            }
        }
    }
}
