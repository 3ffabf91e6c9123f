//! The packet filter: which of its rules matter to a path. By the listings of `nft` and, where the
//! older iptables is in use, `iptables-save` and `ip6tables-save`.

use std::fs;
use std::io;
use std::process::Command;

use rustix::net::netlink::NETFILTER;

use super::routes::has_nft_tables;
use crate::model::{Filter, Link, LinkKind};
use tollgate_datapath::netlink::Socket;

/// Types and codes of ICMP that say nothing of a path's MTU: a rule that drops only these is fine.
const OTHER_ICMP: [&str; 7] = [
    "echo-",
    "redirect",
    "timestamp",
    "router-",
    "nd-",
    "--icmp-type 8",
    "--icmpv6-type 128",
];

/// Types and codes that discover an MTU.
const NEEDED_ICMP: [&str; 7] = [
    "unreachable",
    "frag-needed",
    "fragmentation-needed",
    "packet-too-big",
    "--icmp-type 3",
    "--icmpv6-type 2",
    "icmp type 3",
];

/// Reads the rules of the thread's namespace. `links` are its interfaces: what is sent to a VXLAN's
/// port matters only where there is one.
pub fn read(links: &[Link], unreadable: &mut Vec<String>) -> Filter {
    let mut listings = Vec::new();
    let mut missing = Vec::new();
    if Socket::open(Some(NETFILTER))
        .and_then(|mut socket| has_nft_tables(&mut socket))
        .unwrap_or(false)
    {
        match run("nft", &["--terse", "--stateless", "list", "ruleset"]) {
            Ok(text) => listings.push(nft_rules(&text)),
            Err(e) => missing.push(e),
        }
    }
    for (names, legacy, save) in [
        ("ip_tables_names", "iptables-legacy-save", "iptables-save"),
        (
            "ip6_tables_names",
            "ip6tables-legacy-save",
            "ip6tables-save",
        ),
    ] {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
        if tables.unwrap_or_default().trim().is_empty() {
            continue;
        }
        match run(legacy, &[]).or_else(|_| run(save, &[])) {
            Ok(text) => listings.push(text.lines().map(ToOwned::to_owned).collect()),
            Err(e) => missing.push(e),
        }
    }
    let mut filter = Filter {
        readable: missing.is_empty(),
        ..Filter::default()
    };
    unreadable.extend(missing);
    let ports: Vec<u16> = links.iter().filter_map(vxlan_port).collect();
    for rules in &listings {
        judge(rules, &ports, &mut filter);
    }
    filter
}

fn vxlan_port(link: &Link) -> Option<u16> {
    match &link.kind {
        LinkKind::Vxlan(vxlan) => Some(vxlan.port),
        _ => None,
    }
}

/// What a command prints. It is run in the namespace of this thread, which it inherits.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("the packet filter's rules: {program} is not installed"),
        _ => format!("the packet filter's rules: running {program}: {e}"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        return Err(format!(
            "the packet filter's rules: {program} failed: {said}"
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The rules of a listing of `nft`, each with its family, table and chain before it.
fn nft_rules(text: &str) -> Vec<String> {
    let mut table = "";
    let mut chain = "";
    let mut rules = Vec::new();
    for line in text.lines() {
        let depth = line.bytes().take_while(|&b| b == b'\t').count();
        let line = line.trim();
        let opened = line.strip_suffix(" {");
        match (depth, opened) {
            (0, Some(name)) => table = name.strip_prefix("table ").unwrap_or(name),
            (1, Some(name)) => chain = name.strip_prefix("chain ").unwrap_or_default(),
            (2, _) if !chain.is_empty() && !line.starts_with("type ") => {
                rules.push(format!("{table} {chain}: {line}"));
            }
            _ => {}
        }
    }
    rules
}

/// Sorts rules, in the words of either tool, into what they do.
fn judge(rules: &[String], vxlan_ports: &[u16], filter: &mut Filter) {
    // Whether an earlier rule takes encapsulated packets out before NAT.
    let mut exempt = false;
    // Whether an earlier rule accepts errors that belong to connections.
    let mut related = false;
    for rule in rules {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let drops = has("drop") || has("reject") || has("DROP") || has("REJECT");
        if rule.contains("maxseg size set") || has("TCPMSS") || rule.contains("\"TCPMSS\"") {
            filter.clamps_mss = true;
        }
        if drops && (rule.contains("ct state") && rule.contains("invalid") || names_invalid(&words))
        {
            filter.drops_invalid.get_or_insert_with(|| rule.clone());
        }
        if drops && !related && drops_needed_icmp(rule) {
            filter.drops_icmp.get_or_insert_with(|| rule.clone());
        }
        related |= (has("accept") || has("ACCEPT")) && rule.to_lowercase().contains("related");
        let of_tunnel = vxlan_ports.iter().any(|port| has(&port.to_string()));
        exempt |= of_tunnel && (has("return") || has("accept") || has("RETURN") || has("ACCEPT"));
        if is_nat(rule, &words) {
            filter.nat.get_or_insert_with(|| rule.clone());
            if !vxlan_ports.is_empty() && !exempt && (of_tunnel || takes_all(rule, &words)) {
                filter.nat_of_tunnel.get_or_insert_with(|| rule.clone());
            }
        }
    }
}

/// `--ctstate INVALID`, alone or in a list, in the words of iptables.
fn names_invalid(words: &[&str]) -> bool {
    words.windows(2).any(|pair| {
        matches!(pair, ["--ctstate" | "--state", states] if states.split(',').any(|s| s == "INVALID"))
    })
}

/// Does a rule that drops or rejects take what discovers an MTU? What a rejection is answered with is
/// no part of what it takes, and a limit lets some through.
fn drops_needed_icmp(rule: &str) -> bool {
    let taken = rule.split("reject with").next().unwrap_or_default();
    let taken = taken.split("--reject-with").next().unwrap_or_default();
    let icmp = |word: &str| matches!(word, "icmp" | "icmpv6" | "ipv6-icmp");
    if !taken.split_whitespace().any(icmp) || taken.contains("limit") {
        return false;
    }
    let has = |names: &[&str]| names.iter().any(|name| taken.contains(name));
    has(&NEEDED_ICMP) || !has(&OTHER_ICMP)
}

fn is_nat(rule: &str, words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| matches!(*word, "masquerade" | "snat" | "MASQUERADE" | "SNAT"))
        || rule.contains("\"MASQUERADE\"")
        || rule.contains("\"SNAT\"")
}

/// Nothing in the rule keeps encapsulated packets from it. A mark does not: it survives
/// encapsulation.
fn takes_all(rule: &str, words: &[&str]) -> bool {
    let narrow = [
        "saddr", "daddr", "tcp", "-s", "-d", "dport", "sport", "--dport", "--sport",
    ];
    !words.iter().any(|word| narrow.contains(word)) && !rule.contains("l4proto tcp")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = "table inet t {\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tct state invalid drop\n\t\ttcp flags syn tcp option maxseg size set rt mtu\n\t\ticmp type echo-request drop\n\t}\n\n\tchain p {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tmeta mark & 0x00004000 == 0x00004000 masquerade\n\t}\n}\n";

    fn judged(rules: &[String], ports: &[u16]) -> Filter {
        let mut filter = Filter::default();
        judge(rules, ports, &mut filter);
        filter
    }

    #[test]
    fn rules_of_nft_are_told_apart() {
        let filter = judged(&nft_rules(NFT), &[8472]);
        assert!(filter.clamps_mss);
        assert_eq!(
            filter.drops_invalid.as_deref(),
            Some("inet t f: ct state invalid drop")
        );
        assert_eq!(
            filter.drops_icmp, None,
            "pings are not what discovers an MTU"
        );
        let nat = Some("inet t p: meta mark & 0x00004000 == 0x00004000 masquerade".to_owned());
        assert_eq!(filter.nat, nat);
        assert_eq!(filter.nat_of_tunnel, nat, "the mark survives encapsulation");
        assert_eq!(
            judged(&nft_rules(NFT), &[]).nat_of_tunnel,
            None,
            "there is no tunnel"
        );
    }

    #[test]
    fn rules_of_iptables_are_told_apart() {
        let rules = [
            "-A INPUT -p icmp -m icmp --icmp-type 3/4 -j DROP",
            "-A FORWARD -m conntrack --ctstate NEW,INVALID -j DROP",
            "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            "-A POSTROUTING -p udp -m udp --dport 4789 -j RETURN",
            "-A POSTROUTING -o eth0 -j MASQUERADE",
        ];
        let rules = rules.map(ToOwned::to_owned);
        let filter = judged(&rules, &[4789]);
        assert!(filter.clamps_mss);
        assert_eq!(filter.drops_icmp.as_ref(), rules.first());
        assert_eq!(filter.drops_invalid.as_ref(), rules.get(1));
        assert_eq!(filter.nat.as_ref(), rules.get(4));
        assert_eq!(
            filter.nat_of_tunnel, None,
            "what is encapsulated returned before"
        );
        assert_eq!(judged(&rules, &[8472]).nat_of_tunnel.as_ref(), rules.get(4));
    }

    #[test]
    fn icmp_is_dropped_only_by_rules_that_take_it() {
        let drops = |rules: &[&str]| {
            let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
            judged(&rules, &[]).drops_icmp.is_some()
        };
        assert!(drops(&[
            "inet t f: icmp type { echo-request, destination-unreachable } drop"
        ]));
        assert!(drops(&["inet t f: icmpv6 type packet-too-big drop"]));
        assert!(drops(&["-A INPUT -p icmp -j DROP"]));
        assert!(!drops(&[
            "inet t f: tcp dport 23 reject with icmp port-unreachable"
        ]));
        assert!(!drops(&[
            "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
        ]));
        assert!(!drops(&[
            "inet t f: meta l4proto icmp limit rate over 9/second drop"
        ]));
        let accepted = "inet t f: ct state established,related accept";
        assert!(!drops(&[accepted, "inet t f: meta l4proto icmp drop"]));
    }

    #[test]
    fn a_rule_that_accepts_drops_nothing() {
        let rules = [
            "-A INPUT -p icmp -j ACCEPT".to_owned(),
            "ip t f: ct state invalid counter".to_owned(),
        ];
        assert_eq!(judged(&rules, &[]), Filter::default());
    }
}
