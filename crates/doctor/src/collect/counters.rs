//! Counters under `/proc/thread-self/net`, and settings under `/proc/sys/net`. Both show the
//! namespace of the thread that reads, whichever is mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Settings that the catalogue of findings reads.
pub const SYSCTLS: [&str; 19] = [
    "net.ipv4.ip_forward",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.ip_forward_use_pmtu",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_base_mss",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_checksum",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.core.gro_normal_batch",
    "net.core.netdev_max_backlog",
];

/// Families of `/proc/net/snmp6`, longest first: there the name follows without a colon.
const SNMP6: [&str; 4] = ["UdpLite6", "Icmp6", "Udp6", "Ip6"];

/// Those of the settings that this kernel has in this namespace.
pub fn sysctls() -> BTreeMap<String, String> {
    let read = |key: &str| {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        let value = fs::read_to_string(path).ok()?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    SYSCTLS.into_iter().filter_map(read).collect()
}

/// All counters that are not 0.
///
/// # Errors
/// A file that every kernel has could not be read.
pub fn read() -> io::Result<BTreeMap<String, u64>> {
    let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let mut counters = BTreeMap::new();
    pairs(&file("snmp")?, &mut counters);
    pairs(&file("netstat")?, &mut counters);
    // These two are there only with IPv6, and with connection tracking.
    snmp6(&file("snmp6").unwrap_or_default(), &mut counters);
    conntrack(
        &file("stat/nf_conntrack").unwrap_or_default(),
        &mut counters,
    );
    Ok(counters)
}

/// `Tcp: A B` and under it `Tcp: 1 2`.
fn pairs(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((family, names)) = names.split_once(": ") else {
            continue;
        };
        let values = values.split_whitespace().skip(1);
        for (name, value) in names.split_whitespace().zip(values) {
            // A few are signed (Tcp:MaxConn is -1): those are no counters.
            if value != "0"
                && let Ok(value) = value.parse()
            {
                counters.insert(format!("{family}:{name}"), value);
            }
        }
    }
}

/// `Udp6InErrors  3`.
fn snmp6(text: &str, counters: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let Some((name, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let value = value.trim();
        if value == "0" {
            continue;
        }
        let family = SNMP6.into_iter().find(|family| name.starts_with(family));
        if let (Some(family), Ok(value)) = (family, value.parse()) {
            let name = name.get(family.len()..).unwrap_or_default();
            counters.insert(format!("{family}:{name}"), value);
        }
    }
}

/// Names, then a line of hexadecimal numbers for each CPU.
fn conntrack(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            let value = u64::from_str_radix(value, 16).unwrap_or(0);
            if value == 0 {
                continue;
            }
            let sum = counters.entry(format!("Conntrack:{name}")).or_insert(0);
            // Every CPU's line has the number of entries of all of them.
            *sum = if *name == "entries" {
                value
            } else {
                sum.saturating_add(value)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_three_formats_are_read() {
        let mut counters = BTreeMap::new();
        pairs(
            "Tcp: MaxConn InCsumErrors InErrs\nTcp: -1 7 0\n",
            &mut counters,
        );
        snmp6(
            "Udp6InCsumErrors                 \t3\nUdpLite6InErrors 2\nIp6InReceives 0\n",
            &mut counters,
        );
        conntrack(
            "entries  invalid drop\n0000000a 00000001 00000000\n0000000a 0000000f 00000000\n",
            &mut counters,
        );
        let expected = [
            ("Conntrack:entries", 10),
            ("Conntrack:invalid", 16),
            ("Tcp:InCsumErrors", 7),
            ("Udp6:InCsumErrors", 3),
            ("UdpLite6:InErrors", 2),
        ];
        let read: Vec<_> = counters
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        assert_eq!(read, expected);
    }
}
