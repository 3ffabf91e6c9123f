//! Checks of the node's interfaces, the same before and after.

use std::collections::BTreeSet;

use tollgate_datapath::peer::{self, Finder};
use tollgate_datapath::{links, probe};
use tollgate_doctor::check::{Outcome, Section, mtu_conflicts};

/// Who else acts on the packets of the governed interfaces, and whether their sizes fit.
/// `endpoints`: names of the interfaces on the node; `tap`: name of our own.
pub fn section(endpoints: &[String], tap: &str) -> Section {
    let mut section = Section::new("Interfaces");
    let present: Vec<String> = endpoints
        .iter()
        .filter(|name| links::index(name).is_ok())
        .cloned()
        .collect();
    match (endpoints.len(), present.len()) {
        (0, _) => section.ok("endpoints", "no endpoint is declared"),
        (all, here) => section.ok(
            "endpoints",
            format!("{here} of {all} endpoints' interfaces are there"),
        ),
    }
    programs(&mut section, &present);
    flow_tables(&mut section, &present);
    mtu(&mut section, &present, tap);
    pairs(&mut section, &present);
    section
}

fn programs(section: &mut Section, present: &[String]) {
    let before = section.lines.len();
    for name in present {
        let attached = match probe::attached(name) {
            Ok(attached) => attached,
            Err(error) => {
                let hint = "reading the programs of an interface needs root";
                section.add("conflicts", Outcome::Unknown, error, hint);
                continue;
            }
        };
        for other in attached.iter().filter(|other| !other.ours()) {
            let direction = if other.ingress { "ingress" } else { "egress" };
            let text = format!(
                "{name}: {} {direction} has {:?}, which is not ours",
                other.hook, other.name
            );
            let (outcome, hint) = match other.hook {
                "xdp" => (
                    Outcome::Warn,
                    "XDP sees packets before they are governed, and may keep them from it",
                ),
                _ => (
                    Outcome::Fail,
                    "it may redirect or drop packets around the gate: remove it (`tc filter show`, \
                     `bpftool net`), or do not govern this interface",
                ),
            };
            section.add("conflicts", outcome, text, hint);
        }
    }
    if section.lines.len() == before {
        section.ok("conflicts", "no foreign program at a governed interface");
    }
}

fn flow_tables(section: &mut Section, present: &[String]) {
    let tables = match probe::flow_tables() {
        Ok(tables) => tables,
        Err(error) => {
            let hint = "reading nftables needs root";
            return section.add("flow-tables", Outcome::Unknown, error, hint);
        }
    };
    let over = |device: &String| present.contains(device);
    let Some(table) = tables.iter().find(|table| table.devices.iter().any(over)) else {
        return section.ok(
            "flow-tables",
            "no nftables flow table over a governed interface",
        );
    };
    let text = format!("flow table {} takes in a governed interface", table.name);
    let hint = "offloaded flows leave by a short cut: take the interface out of the flow table";
    section.add("flow-tables", Outcome::Warn, text, hint);
}

/// Interfaces that lead away: those of default routes; without any, all that are up but for the
/// endpoints' own.
fn uplinks(present: &[String], tap: &str) -> Vec<(String, u32)> {
    let routed = default_route_interfaces();
    let leads = |name: &String| {
        name != tap
            && !present.contains(name)
            && (routed.is_empty() || routed.contains(name.as_str()))
    };
    let names = links::names().unwrap_or_default();
    let facts = names
        .iter()
        .filter(|name| leads(name))
        .filter_map(|name| links::by_name(name).ok());
    facts
        .filter(|link| link.up && link.ethernet)
        .map(|link| (link.name, link.mtu))
        .collect()
}

/// From `/proc/net/route`: name in the first column, destination in the second.
fn default_route_interfaces() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let default = |line: &str| {
        let mut columns = line.split_whitespace();
        let name = columns.next()?;
        (columns.next()? == "00000000").then(|| name.to_owned())
    };
    text.lines().filter_map(default).collect()
}

fn mtu(section: &mut Section, present: &[String], tap: &str) {
    let of = |name: &String| Some((name.clone(), links::by_name(name).ok()?.mtu));
    let endpoints: Vec<_> = present.iter().filter_map(of).collect();
    let conflicts = mtu_conflicts(&endpoints, &uplinks(present, tap));
    for conflict in &conflicts {
        let hint = "packets of full size are cut or refused on their way out: lower the \
                    endpoint's MTU, or raise the other";
        section.add("mtu", Outcome::Warn, conflict, hint);
    }
    if conflicts.is_empty() {
        section.ok("mtu", "no endpoint's MTU is above that of the way out");
    }
}

/// Both ends of a pair must have one MTU: what is larger than the receiver's is dropped silently.
fn pairs(section: &mut Section, present: &[String]) {
    let mut finder = Finder::default();
    let (mut compared, before) = (0, section.lines.len());
    for name in present {
        let Some((inside, theirs)) = other_end(name, &mut finder) else {
            continue;
        };
        let Ok(own) = links::by_name(name) else {
            continue;
        };
        compared += 1;
        if own.mtu != theirs {
            let text = format!(
                "{name} has MTU {}, its other end {inside} has {theirs}",
                own.mtu
            );
            let hint = "packets larger than the receiving end's MTU are lost: make both the same";
            section.add("pair-mtu", Outcome::Fail, text, hint);
        }
    }
    if compared > 0 && section.lines.len() == before {
        let text = format!("both ends of {compared} pairs have the same MTU");
        section.ok("pair-mtu", text);
    }
}

/// Name and MTU of the interface inside an endpoint, if it can be looked at.
fn other_end(name: &str, finder: &mut Finder) -> Option<(String, u32)> {
    let peer = peer::peer(name).ok()??;
    let look = || {
        let name = links::name(peer.ifindex);
        Ok(name.and_then(|name| links::by_name(&name).ok()))
    };
    let link = match peer.nsid {
        None => look(),
        Some(nsid) => peer::within(&finder.open(nsid)?.1, look),
    };
    let link = link.ok()??;
    Some((link.name, link.mtu))
}
