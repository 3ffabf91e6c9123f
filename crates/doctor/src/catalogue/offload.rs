//! TG13xx: offload features for themselves.

use crate::action::{Action, LEGACY_SIZE};
use crate::case::Declared;
use crate::declared::matches;
use crate::finding::{Evidence, Severity};
use crate::model::{Feature, Link, LinkKind, LinkRef, Netns, XdpMode};

use super::view::{Fault, Report, TX_CHECKSUMS, View, command, forwards};

/// TG1301.
pub(super) fn lro_while_forwarding(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let at = netns.at(link);
        let forwarded =
            forwards(netns) || link.master.is_some_and(|master| switches(netns, master));
        if link.kind != LinkKind::Physical || !link.has("rx-lro") || !forwarded {
            continue;
        }
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "{} merges received packets in a way that cannot be taken apart again (LRO), and they \
                 are forwarded: the receivers' transfers collapse.",
                view.name(at)
            ),
            evidence: vec![
                view.shows_feature(at, "rx-lro"),
                Evidence::new(command(netns, "sysctl net.ipv4.ip_forward"), "forwarding"),
            ],
            fix: "Switch LRO off; GRO does the same in a way that can be undone.".to_owned(),
            actions: view.switch_off(at, &["rx-lro"]),
            ..Fault::default()
        });
    }
}

fn switches(netns: &Netns, master: u32) -> bool {
    netns.link(master).is_some_and(|master| {
        matches!(
            master.kind,
            LinkKind::Bridge | LinkKind::OvsDatapath | LinkKind::OvsInternal
        )
    })
}

/// TG1302.
pub(super) fn native_xdp_on_veth(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        if link.kind != LinkKind::Veth || link.xdp != Some(XdpMode::Native) {
            continue;
        }
        let at = netns.at(link);
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "{} runs an XDP program in the driver: the kernel takes super-packets apart for it, and \
                 throughput falls to a fraction.",
                view.name(at)
            ),
            evidence: vec![Evidence::new(
                command(netns, &format!("ip link show {}", link.name)),
                "xdp",
            )],
            fix: "Use a tc (TCX) program on pairs; where it has to be XDP, attach it after the driver \
                  (xdpgeneric)."
                .to_owned(),
            actions: vec![Action::GenericXdp {
                netns: view.path_of(netns),
                ifname: link.name.clone(),
            }],
            ..Fault::default()
        });
    }
}

/// TG1303.
pub(super) fn beyond_device(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let sizes = &link.sizes;
        let limit = sizes.tso_max;
        let largest = sizes.gso_max.max(sizes.gso_ipv4_max);
        if limit == 0 || largest <= limit {
            continue;
        }
        let at = netns.at(link);
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "{} is sent super-packets of up to {largest} bytes and can take {limit}: the kernel \
                 cuts them in software, and setting them up fails again and again.",
                view.name(at)
            ),
            evidence: vec![shows_sizes(netns, link)],
            fix: format!("Set them to {limit}, the first before the one for IPv4."),
            actions: vec![set_sizes(view, netns, link, sizes.gso_max.min(limit), sizes.gso_ipv4_max.min(limit))],
            ..Fault::default()
        });
    }
}

/// TG1304.
pub(super) fn sizes_reset(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let sizes = &link.sizes;
        // 0: the kernel has no size of its own for IPv4.
        let fell_back = sizes.gso_ipv4_max != 0 && sizes.gso_ipv4_max <= LEGACY_SIZE;
        let meant = sizes.gro_ipv4_max > LEGACY_SIZE;
        let target = sizes.gro_ipv4_max.min(sizes.tso_max);
        if !fell_back || (!meant && sizes.gso_max <= LEGACY_SIZE) {
            continue;
        }
        let at = netns.at(link);
        let can = meant && target > LEGACY_SIZE;
        report.faults.push(Fault {
            at: Some(at),
            severity: (!can).then_some(Severity::Info),
            sentence: format!(
                "Super-packets to {} are limited to {} bytes for IPv4, though larger ones are set up \
                 for {}.",
                view.name(at),
                sizes.gso_ipv4_max,
                if meant { "receiving" } else { "IPv6" }
            ),
            evidence: vec![shows_sizes(netns, link)],
            fix: "Set gso_max_size first and gso_ipv4_max_size after it: the first one, at 65536 or \
                  less, sets the other too."
                .to_owned(),
            actions: can
                .then(|| set_sizes(view, netns, link, sizes.gso_max, target))
                .into_iter()
                .collect(),
            ..Fault::default()
        });
    }
}

fn shows_sizes(netns: &Netns, link: &Link) -> Evidence {
    Evidence::new(
        command(netns, &format!("ip -d link show {}", link.name)),
        format!(
            "gso_max_size {} gso_ipv4_max_size {} gro_ipv4_max_size {} tso_max_size {}",
            link.sizes.gso_max,
            link.sizes.gso_ipv4_max,
            link.sizes.gro_ipv4_max,
            link.sizes.tso_max
        ),
    )
}

fn set_sizes(view: &View<'_>, netns: &Netns, link: &Link, all: u32, ipv4: u32) -> Action {
    let mut sizes = vec![("gso_max_size".to_owned(), all)];
    if link.sizes.gso_ipv4_max != 0 {
        sizes.push(("gso_ipv4_max_size".to_owned(), ipv4));
    }
    Action::Sizes {
        netns: view.path_of(netns),
        ifname: link.name.clone(),
        sizes,
    }
}

/// TG1305.
pub(super) fn drift(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view.links() {
        let at = netns.at(link);
        for declared in declared_for(view, at) {
            let Some(feature) = link.feature(&declared.feature) else {
                continue;
            };
            if feature.active == declared.on {
                continue;
            }
            report.faults.push(Fault {
                at: Some(at),
                sentence: format!(
                    "{} of {} is {}, and {} declares it {}.",
                    declared.feature,
                    view.name(at),
                    on_off(feature.active),
                    declared.source,
                    on_off(declared.on)
                ),
                evidence: vec![
                    view.shows_feature(at, &declared.feature),
                    Evidence::new(&declared.source, on_off(declared.on)),
                ],
                fix: drift_fix(feature),
                actions: declared_actions(view, at, link, declared),
                ..Fault::default()
            });
        }
    }
}

fn drift_fix(feature: &Feature) -> String {
    if feature.fixed {
        "The device cannot switch it: correct the declaration.".to_owned()
    } else {
        "Set it as declared, and keep it so: a setting made once is gone after a reboot or when the \
         interface is made anew."
            .to_owned()
    }
}

/// Sets the feature; where it needs checksum offload that is off, that first, unless it is declared
/// off too.
fn declared_actions(view: &View<'_>, at: LinkRef, link: &Link, declared: &Declared) -> Vec<Action> {
    let sums_off = declared_for(view, at)
        .iter()
        .any(|other| !other.on && TX_CHECKSUMS.contains(&other.feature.as_str()));
    let mut actions = Vec::new();
    if declared.on && needs_checksums(&declared.feature) && !link.tx_checksums() {
        if sums_off {
            return actions;
        }
        actions.extend(
            TX_CHECKSUMS
                .iter()
                .filter(|name| link.feature(name).is_some())
                .filter_map(|name| view.switch(at, name, true)),
        );
    }
    actions.extend(view.switch(at, &declared.feature, declared.on));
    actions
}

/// Declarations that this interface comes under. Of several about one feature the last counts.
pub(super) fn declared_for<'a>(view: &View<'a>, at: LinkRef) -> Vec<&'a Declared> {
    let case = view.case;
    let Some((netns, link)) = case.now.netns(at.netns).zip(case.now.link(at)) else {
        return Vec::new();
    };
    // An endpoint's interface leads to the node.
    let to = link.link.and_then(|to| case.now.netns(to.netns));
    let inside = !case.now.is_own(netns) && to.is_some_and(|to| case.now.is_own(to));
    let place = |declared: &&Declared| match declared.endpoints {
        true => inside,
        false => case.now.is_own(netns),
    };
    let mut found: Vec<&Declared> = Vec::new();
    for declared in case
        .declared
        .iter()
        .filter(place)
        .filter(|declared| matches(&declared.interface, &link.name))
    {
        found.retain(|earlier| earlier.feature != declared.feature);
        found.push(declared);
    }
    found
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn needs_checksums(feature: &str) -> bool {
    feature.starts_with("tx-tcp") || feature == "tx-udp-segmentation"
}

/// TG1306.
pub(super) fn wanted_but_off(view: &View<'_>, report: &mut Report) {
    for (netns, link) in view
        .links()
        .filter(|(_, link)| link.kind == LinkKind::Physical)
    {
        let at = netns.at(link);
        let names: Vec<&str> = link
            .features
            .iter()
            .filter(|feature| feature.wanted && !feature.active && !feature.fixed)
            .map(|feature| feature.name.as_str())
            .filter(|name| !is_explained(link, name))
            .collect();
        if names.is_empty() {
            continue;
        }
        report.faults.push(Fault {
            at: Some(at),
            sentence: format!(
                "{} of {} was asked for and is off: the driver or another setting prevents it.",
                names.join(", "),
                view.name(at)
            ),
            evidence: names
                .iter()
                .map(|name| view.shows_feature(at, name))
                .collect(),
            fix: "Look at what excludes it: an MTU too large for the card's segmentation, an XDP \
                  program, a feature that it depends on. The kernel's log says so when it is set."
                .to_owned(),
            ..Fault::default()
        });
    }
}

/// The kernel keeps it off for a reason that is in plain sight (`netdev_fix_features`).
fn is_explained(link: &Link, name: &str) -> bool {
    let sums = needs_checksums(name) && !link.tx_checksums();
    let gather = name.starts_with("tx-") && !link.has("tx-scatter-gather");
    // LRO and the card's GRO yield to XDP and to forwarding.
    sums || gather || matches!(name, "rx-lro" | "rx-gro-hw")
}
