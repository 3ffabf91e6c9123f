//! A case with what the rules ask of it again and again: names, commands, the engines.

use std::path::PathBuf;

use crate::action::Action;
use crate::case::{Case, Path, Via};
use crate::finding::{Evidence, Severity};
use crate::model::{HOST, Link, LinkKind, LinkRef, Netns, NetnsId};

use super::topology::{self, Engine};

/// Checksum offloads, of which a device has the first or the other two.
pub(super) const TX_CHECKSUMS: [&str; 3] = [
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
];

/// TCP segmentation in the device.
pub(super) const TSO: [&str; 2] = ["tx-tcp-segmentation", "tx-tcp6-segmentation"];

/// Merging of received segments: by the stack, by old drivers, by the card.
pub(super) const MERGING: [&str; 3] = ["rx-gro", "rx-lro", "rx-gro-hw"];

/// The case, looked at by the rules.
pub(super) struct View<'a> {
    pub(super) case: &'a Case,
    /// Programs in user space that carry frames from one interface to another.
    pub(super) engines: Vec<Engine<'a>>,
}

/// A fault as a rule reports it; its number and cost are the catalogue's.
#[derive(Default)]
pub(super) struct Fault {
    /// The interface that it is about, if one.
    pub(super) at: Option<LinkRef>,
    /// Every interface concerned: it is reported for a path that touches one of them.
    pub(super) touches: Vec<LinkRef>,
    /// Namespaces concerned, where it is about a whole namespace.
    pub(super) namespaces: Vec<NetnsId>,
    /// Where it differs from the catalogue's.
    pub(super) severity: Option<Severity>,
    pub(super) sentence: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) fix: String,
    pub(super) actions: Vec<Action>,
}

/// What the rules say.
#[derive(Default)]
pub(super) struct Report {
    pub(super) faults: Vec<Fault>,
    pub(super) untold: Vec<String>,
}

impl<'a> View<'a> {
    pub(super) fn new(case: &'a Case) -> Self {
        Self {
            case,
            engines: topology::engines(case),
        }
    }

    pub(super) fn path(&self) -> Option<&'a Path> {
        self.case.path.as_ref()
    }

    /// The interfaces of the path with what was read of them, in order.
    pub(super) fn hops(&self) -> Vec<(LinkRef, &'a Link)> {
        self.path()
            .into_iter()
            .flat_map(|path| &path.hops)
            .filter_map(|hop| Some((hop.at, self.case.now.link(hop.at)?)))
            .collect()
    }

    /// Every interface that is up, except `lo`.
    pub(super) fn links(&self) -> impl Iterator<Item = (&'a Netns, &'a Link)> {
        self.case
            .now
            .links()
            .filter(|(_, link)| link.up && link.kind != LinkKind::Loopback)
    }

    /// Is the interface on the path, or is no path given?
    pub(super) fn concerns(&self, at: LinkRef) -> bool {
        self.path()
            .is_none_or(|path| path.hops.iter().any(|hop| hop.at == at))
    }

    /// Is the interface the remote side's own? How that side sends is its owner's affair, unless it
    /// breaks the path.
    pub(super) fn is_remote(&self, at: LinkRef) -> bool {
        self.path().is_some_and(|path| {
            let ends = [path.hops.first(), path.hops.last()].map(|hop| hop.map(|hop| hop.at.netns));
            let [first, last] = ends;
            path.ends.is_empty() && first != last && last == Some(at.netns)
        })
    }

    /// Does the path cross something that sends the packet on without the routing table?
    pub(super) fn redirected(&self) -> bool {
        self.path().is_some_and(|path| {
            path.hops
                .iter()
                .any(|hop| matches!(hop.via, Via::Redirect | Via::Engine(_)))
        })
    }

    /// `eth0 in namespace blue`.
    pub(super) fn name(&self, at: LinkRef) -> String {
        match (self.case.now.netns(at.netns), self.case.now.link(at)) {
            (Some(netns), Some(link)) => format!("{} in {}", link.name, place(netns)),
            _ => format!("interface {} in namespace {}", at.ifindex, at.netns.0),
        }
    }

    /// `p0 and p1 in namespace blue, eth0 in namespace green`.
    pub(super) fn names(&self, links: &[LinkRef]) -> String {
        let mut places: Vec<(NetnsId, Vec<String>)> = Vec::new();
        for at in links {
            let name = self.case.now.link(*at);
            let name = name.map_or_else(|| format!("interface {}", at.ifindex), |l| l.name.clone());
            match places.iter_mut().find(|(netns, _)| *netns == at.netns) {
                Some((_, names)) => names.push(name),
                None => places.push((at.netns, vec![name])),
            }
        }
        let all = places.into_iter().map(|(id, names)| {
            let netns = self.case.now.netns(id);
            let netns = netns.map_or_else(|| format!("namespace {}", id.0), place);
            format!("{} in {netns}", listed(&names))
        });
        listed(&all.collect::<Vec<_>>())
    }

    /// Evidence of a feature's state, as `ethtool` shows it.
    pub(super) fn shows_feature(&self, at: LinkRef, feature: &str) -> Evidence {
        let (Some(netns), Some(link)) = (self.case.now.netns(at.netns), self.case.now.link(at))
        else {
            return Evidence::new("ethtool -k", "not read");
        };
        let state = link.feature(feature).map_or("absent", |feature| {
            match (feature.active, feature.wanted) {
                (true, _) => "on",
                (false, true) => "off [requested on]",
                (false, false) => "off",
            }
        });
        Evidence::new(
            command(netns, &format!("ethtool -k {}", link.name)),
            format!("{}: {state}", ethtool_name(feature)),
        )
    }

    /// Evidence of an interface's MTU.
    pub(super) fn shows_mtu(&self, at: LinkRef) -> Evidence {
        match (self.case.now.netns(at.netns), self.case.now.link(at)) {
            (Some(netns), Some(link)) => Evidence::new(
                command(netns, &format!("ip link show {}", link.name)),
                format!("mtu {}", link.mtu),
            ),
            _ => Evidence::new("ip link show", "not read"),
        }
    }

    /// The namespace as actions name it.
    pub(super) fn path_of(&self, netns: &Netns) -> Option<PathBuf> {
        (!self.case.now.is_own(netns)).then(|| netns.path.clone())
    }

    /// Switches a feature of an interface.
    pub(super) fn switch(&self, at: LinkRef, feature: &str, on: bool) -> Option<Action> {
        let netns = self.case.now.netns(at.netns)?;
        let link = self.case.now.link(at)?;
        if link.feature(feature).is_none_or(|feature| feature.fixed) {
            return None;
        }
        Some(Action::Feature {
            netns: self.path_of(netns),
            ifname: link.name.clone(),
            feature: feature.to_owned(),
            on,
        })
    }

    /// Switches off those of the features that are on.
    pub(super) fn switch_off(&self, at: LinkRef, features: &[&str]) -> Vec<Action> {
        let Some(link) = self.case.now.link(at) else {
            return Vec::new();
        };
        features
            .iter()
            .filter(|name| link.has(name))
            .filter_map(|name| self.switch(at, name, false))
            .collect()
    }

    /// Sets an interface's MTU.
    pub(super) fn set_mtu(&self, at: LinkRef, mtu: u32) -> Option<Action> {
        Some(Action::Mtu {
            netns: self.path_of(self.case.now.netns(at.netns)?),
            ifname: self.case.now.link(at)?.name.clone(),
            mtu,
        })
    }
}

/// The namespaces that the path goes through, or all.
pub(super) fn namespaces<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Netns> {
    let path = view.path();
    view.case.now.namespaces.iter().filter(move |netns| {
        path.is_none_or(|path| path.hops.iter().any(|hop| hop.at.netns == netns.id))
    })
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// `namespace blue`, or `the host`.
pub(super) fn place(netns: &Netns) -> String {
    if netns.name == HOST {
        "the host's namespace".to_owned()
    } else {
        format!("namespace {}", netns.name)
    }
}

/// A command as it is typed on the host to run in a namespace.
pub(super) fn command(netns: &Netns, command: &str) -> String {
    if netns.name == HOST {
        command.to_owned()
    } else if netns.path.starts_with("/run/netns") {
        format!("ip netns exec {} {command}", netns.name)
    } else {
        format!("nsenter --net={} {command}", netns.path.display())
    }
}

/// The packets that this namespace gets are forwarded.
pub(super) fn forwards(netns: &Netns) -> bool {
    ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
        .iter()
        .any(|key| sysctl(netns, key) == Some("1"))
}

/// A setting.
pub(super) fn sysctl<'a>(netns: &'a Netns, key: &str) -> Option<&'a str> {
    netns.sysctls.get(key).map(String::as_str)
}

/// What `ethtool -k` prints for the kernel's name of a feature, where that differs.
fn ethtool_name(feature: &str) -> &str {
    match feature {
        "rx-gro" => "generic-receive-offload",
        "rx-lro" => "large-receive-offload",
        "rx-checksum" => "rx-checksumming",
        "tx-generic-segmentation" => "generic-segmentation-offload",
        other => other,
    }
}

/// Kernel release as numbers: `6.1.0-18-amd64` is (6, 1, 0).
pub(super) fn kernel(release: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().ok());
    let major = numbers.next()??;
    let minor = numbers.next()??;
    Some((major, minor, numbers.next().flatten().unwrap_or(0)))
}
