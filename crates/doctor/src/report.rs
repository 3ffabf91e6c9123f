//! What people and programs read: one value, as text, as JSON and as a page.

mod html;
mod text;

use serde::{Deserialize, Serialize};

use crate::case::{Case, ProbeResult, Via};
use crate::catalogue::entry;
use crate::finding::{Evidence, Finding, Severity};
use crate::model::{LinkRef, Snapshot};
use crate::repair::command_line;

pub use html::{Stages, page};
pub use text::{printable, text};

/// The result. Field names of its JSON are stable: they may be added to, not changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// No warning and no error was found.
    pub healthy: bool,
    /// What was found, the worst first.
    pub findings: Vec<Found>,
    /// What could not be told, in words.
    pub untold: Vec<String>,
    /// The path that was asked about.
    pub path: Option<Way>,
    /// What probes found.
    pub probes: Vec<ProbeResult>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Its number, `TG1001`.
    pub code: String,
    /// What is wrong, in a few words.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong here.
    pub sentence: String,
    /// Where, if it is about one interface.
    pub at: Option<Place>,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub fix: String,
    /// What that costs.
    pub cost: String,
    /// Where it is described.
    pub page: String,
    /// What `--fix` would run.
    pub actions: Vec<Run>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// As a person would type it.
    pub command: String,
}

/// An interface by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// What people call the namespace.
    pub netns: String,
    /// The interface.
    pub interface: String,
}

/// A path by names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// The endpoint.
    pub from: String,
    /// The remote side.
    pub to: String,
    /// The interfaces, outbound order.
    pub hops: Vec<Stop>,
    /// Where it could not be followed further; empty if it ends at the remote side.
    pub ends: String,
}

/// One interface of a path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stop {
    /// Where.
    #[serde(flatten)]
    pub at: Place,
    /// In bytes; 0 if the interface is not in the snapshot.
    pub mtu: u32,
    /// How the packet comes here.
    pub via: Via,
    /// Bytes that tunnels add to a packet here.
    pub overhead: u32,
    /// Numbers of the findings about it.
    pub findings: Vec<String>,
}

impl Report {
    /// Of what was judged.
    pub fn new(case: &Case, findings: &[Finding], untold: Vec<String>) -> Self {
        let mut findings: Vec<&Finding> = findings.iter().collect();
        findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.number));
        let wrong = |finding: &&Finding| finding.severity > Severity::Info;
        Self {
            healthy: !findings.iter().any(wrong),
            path: case.path.as_ref().map(|path| Way {
                from: path.from.clone(),
                to: path.to.clone(),
                hops: path
                    .hops
                    .iter()
                    .map(|hop| Stop {
                        at: place(&case.now, hop.at),
                        mtu: case.now.link(hop.at).map_or(0, |link| link.mtu),
                        via: hop.via.clone(),
                        overhead: hop.overhead,
                        findings: findings
                            .iter()
                            .filter(|finding| finding.at == Some(hop.at))
                            .map(|finding| finding.number.to_string())
                            .collect(),
                    })
                    .collect(),
                ends: path.ends.clone(),
            }),
            findings: findings.iter().map(|one| found(&case.now, one)).collect(),
            untold,
            probes: case.probes.clone(),
        }
    }
}

fn found(now: &Snapshot, finding: &Finding) -> Found {
    let known = entry(finding.number);
    Found {
        page: known.map_or_else(String::new, |entry| entry.page.to_owned()),
        title: known.map_or_else(String::new, |entry| entry.title.to_owned()),
        code: finding.number.to_string(),
        severity: finding.severity,
        sentence: finding.sentence.clone(),
        at: finding.at.map(|at| place(now, at)),
        evidence: finding.evidence.clone(),
        fix: finding.fix.clone(),
        cost: finding.cost.clone(),
        actions: finding
            .actions
            .iter()
            .map(|action| Run {
                command: command_line(action),
            })
            .collect(),
    }
}

fn place(now: &Snapshot, at: LinkRef) -> Place {
    let netns = now.netns(at.netns);
    let link = now.link(at);
    Place {
        netns: netns.map_or_else(
            || format!("net:[{}]", at.netns.0),
            |netns| netns.name.clone(),
        ),
        interface: link.map_or_else(|| format!("if{}", at.ifindex), |link| link.name.clone()),
    }
}

/// How a packet comes to a hop, in a word or two.
fn via(via: &Via) -> String {
    match via {
        Via::Start => String::new(),
        Via::Pair => "veth pair".to_owned(),
        Via::Bridge => "bridge".to_owned(),
        Via::Master => "port".to_owned(),
        Via::Ovs => "Open vSwitch".to_owned(),
        Via::Route(route) => format!("route {route}"),
        Via::Lower => "lower device".to_owned(),
        Via::Tunnel(tunnel) => format!("tunnel {tunnel}"),
        Via::Redirect => "redirect".to_owned(),
        Via::Engine(process) => format!("{} ({})", process.name, process.pid),
    }
}

/// The severity's word.
fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A measured stage of a bed, for plots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Throughput in Gbit/s.
    pub gbit_per_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::case::{Direction, Hop, Path, ProbeKind, ProbeOutcome, Transport};
    use crate::finding::Number;
    use crate::model::{Link, Netns, NetnsId};
    use std::collections::BTreeMap;

    /// Everything that the machine can name, with what a page or a terminal would obey.
    pub(super) const EVIL: &str = "<script>alert(1)</script>\x1b[31m&'\"";

    pub(super) fn evil() -> Report {
        let at = LinkRef {
            netns: NetnsId(1),
            ifindex: 2,
        };
        let link = Link {
            ifindex: 2,
            name: EVIL.into(),
            mtu: 1500,
            ..Link::default()
        };
        let netns = Netns {
            pids: Vec::new(),
            aliases: Vec::new(),
            id: NetnsId(1),
            name: EVIL.into(),
            path: EVIL.into(),
            links: vec![link],
            routes: Vec::new(),
            sysctls: BTreeMap::new(),
            counters: BTreeMap::new(),
            packet_sockets: Vec::new(),
            filter: Default::default(),
        };
        let case = Case {
            now: Snapshot {
                namespaces: vec![netns],
                ..Snapshot::default()
            },
            path: Some(Path {
                from: EVIL.into(),
                to: EVIL.into(),
                hops: vec![
                    Hop {
                        at,
                        via: Via::Start,
                        overhead: 0,
                    },
                    Hop {
                        at,
                        via: Via::Route(EVIL.into()),
                        overhead: 50,
                    },
                ],
                ends: EVIL.into(),
            }),
            probes: vec![ProbeResult {
                kind: ProbeKind::Gso,
                transport: Transport::Tcp,
                ipv6: false,
                direction: Direction::Inbound,
                outcome: ProbeOutcome::Failed(EVIL.into()),
                sent: 10,
                received: 0,
                millis: 3,
                receiver: BTreeMap::from([(EVIL.to_owned(), 1)]),
                sender: BTreeMap::new(),
            }],
            ..Case::default()
        };
        let finding = |number, severity| Finding {
            number: Number(number),
            severity,
            sentence: EVIL.into(),
            at: Some(at),
            evidence: vec![Evidence::new(EVIL, EVIL)],
            fix: EVIL.into(),
            cost: EVIL.into(),
            actions: vec![Action::Mtu {
                netns: None,
                ifname: EVIL.into(),
                mtu: 1450,
            }],
        };
        let findings = [
            finding(1002, Severity::Info),
            finding(1003, Severity::Warning),
            finding(1001, Severity::Error),
        ];
        Report::new(&case, &findings, vec![EVIL.into()])
    }

    #[test]
    fn json_has_its_stable_names() {
        let value = serde_json::to_value(evil()).unwrap();
        assert_eq!(value["healthy"], false);
        let codes = [0, 1, 2].map(|i| value["findings"][i]["code"].as_str().unwrap());
        assert_eq!(codes, ["TG1001", "TG1003", "TG1002"]);
        let first = &value["findings"][0];
        assert_eq!(first["severity"], "error");
        assert_eq!(first["page"], "docs/doctor/TG1001.md");
        assert_eq!(first["evidence"][0]["source"], EVIL);
        let command = first["actions"][0]["command"].as_str().unwrap();
        assert!(
            command.starts_with("ip link set dev '<script>"),
            "{command}"
        );
        assert_eq!(value["untold"][0], EVIL);
        assert_eq!(value["path"]["hops"][1]["interface"], EVIL);
        assert_eq!(value["path"]["hops"][1]["mtu"], 1500);
        assert_eq!(value["probes"][0]["kind"], "gso");
    }

    #[test]
    fn what_is_only_worth_knowing_is_healthy() {
        let finding = Finding {
            number: Number(1),
            severity: Severity::Info,
            sentence: String::new(),
            at: None,
            evidence: Vec::new(),
            fix: String::new(),
            cost: String::new(),
            actions: Vec::new(),
        };
        assert!(Report::new(&Case::default(), &[finding], Vec::new()).healthy);
    }
}
