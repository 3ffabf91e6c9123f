//! The kernel's counters of a network namespace: those that tell what happened to a probe.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::ProbeError;
use super::netns::within;

/// Counters by name, such as `Tcp:InCsumErrors`, `Udp6:InCsumErrors` or `TcpExt:TCPTimeouts`.
pub type Counters = BTreeMap<String, u64>;

/// Names that are kept: what goes wrong, and what is done about it. Everything else (packets, bytes) grows
/// all the time and says nothing.
const KEPT: [&str; 32] = [
    "Tcp:RetransSegs",
    "Tcp:InErrs",
    "Tcp:InCsumErrors",
    "TcpExt:TCPTimeouts",
    "TcpExt:TCPSynRetrans",
    "TcpExt:TCPLostRetransmit",
    "TcpExt:TCPFastRetrans",
    "TcpExt:TCPMTUPFail",
    "TcpExt:TCPMTUPSuccess",
    "Udp:InErrors",
    "Udp:InCsumErrors",
    "Udp:RcvbufErrors",
    "Udp:SndbufErrors",
    "Udp6:InErrors",
    "Udp6:InCsumErrors",
    "Udp6:RcvbufErrors",
    "Udp6:SndbufErrors",
    "Ip:InHdrErrors",
    "Ip:FragFails",
    "Ip:FragCreates",
    "Ip:ReasmFails",
    "Ip:ReasmOKs",
    "Ip:OutNoRoutes",
    "IpExt:InCsumErrors",
    "Ip6:InTooBigErrors",
    "Ip6:FragFails",
    "Ip6:FragCreates",
    "Ip6:ReasmFails",
    "Ip6:ReasmOKs",
    "Icmp:InDestUnreachs",
    "Icmp:InCsumErrors",
    "Icmp6:InPktTooBigs",
];

/// Groups of `/proc/net/snmp6`, which writes group and name as one word.
const IPV6_GROUPS: [&str; 4] = ["Icmp6", "UdpLite6", "Udp6", "Ip6"];

/// Reads the counters of a namespace.
///
/// # Errors
/// The namespace cannot be entered, or `/proc` cannot be read.
pub fn read(netns: &Path) -> Result<Counters, ProbeError> {
    within(netns, || {
        let mut counters = Counters::new();
        for name in ["snmp", "netstat"] {
            paired(&text(netns, name)?, &mut counters);
        }
        // A kernel without IPv6 has no such file.
        flat(&text(netns, "snmp6").unwrap_or_default(), &mut counters);
        Ok(counters)
    })?
}

fn text(netns: &Path, name: &str) -> Result<String, ProbeError> {
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).map_err(|source| {
        ProbeError::Inside {
            doing: "reading the kernel's counters",
            path: netns.to_owned(),
            source,
        }
    })
}

/// Two lines a group: names, then values (net/ipv4/proc.c).
fn paired(text: &str, counters: &mut Counters) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut names = names.split_whitespace();
        let Some(group) = names.next() else {
            continue;
        };
        for (name, value) in names.zip(values.split_whitespace().skip(1)) {
            keep(format!("{group}{name}"), value, counters);
        }
    }
}

/// One counter a line (net/ipv6/proc.c).
fn flat(text: &str, counters: &mut Counters) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(word), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        let split = IPV6_GROUPS
            .iter()
            .find_map(|group| Some((group, word.strip_prefix(group)?)));
        if let Some((group, name)) = split {
            keep(format!("{group}:{name}"), value, counters);
        }
    }
}

fn keep(name: String, value: &str, counters: &mut Counters) {
    if let (true, Ok(value)) = (KEPT.contains(&name.as_str()), value.parse()) {
        counters.insert(name, value);
    }
}

/// What grew, by how much.
pub fn grown(before: &Counters, after: &Counters) -> Counters {
    let growth = after.iter().filter_map(|(name, value)| {
        let grown = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        (grown > 0).then(|| (name.clone(), grown))
    });
    growth.collect()
}

/// A counter; 0 if it did not grow.
pub fn of(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read_and_only_growth_is_told() {
        let mut before = Counters::new();
        paired(
            "Ip: Forwarding FragFails\nIp: 2 3\nTcp: MaxConn RetransSegs InCsumErrors\nTcp: -1 7 0\n",
            &mut before,
        );
        flat(
            "Udp6InCsumErrors 4\nIp6InOctets 1\nUdpLite6InErrors 2\n",
            &mut before,
        );
        let mut after = before.clone();
        assert_eq!(before["Ip:FragFails"], 3);
        assert_eq!(before["Udp6:InCsumErrors"], 4);
        assert_eq!(before.len(), 4);
        after.insert("Tcp:RetransSegs".into(), 9);
        assert_eq!(
            grown(&before, &after),
            Counters::from([("Tcp:RetransSegs".to_owned(), 2)])
        );
    }

    #[test]
    fn this_kernel_has_what_matters() {
        let counters = read(Path::new("/proc/self/ns/net"));
        // Entering even one's own namespace needs the privilege.
        let Ok(counters) = counters else { return };
        for name in ["Tcp:RetransSegs", "TcpExt:TCPTimeouts", "Udp:InCsumErrors"] {
            assert!(counters.contains_key(name), "{name}");
        }
    }
}
