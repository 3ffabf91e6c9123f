//! After installation: whether the running agent has everything in place.

use std::path::Path;

use tollgate_agent::api::{self, EndpointState, EndpointStatus, Health, Status};
use tollgate_datapath::bpf::{self, Pins};
use tollgate_datapath::{features, links, probe};
use tollgate_doctor::check::{Outcome, Section};

use super::node;
use crate::client::Client;

/// What a TAP with all offloads shows, and whether a super-packet without it costs more than speed.
const TAP_FEATURES: [(&str, Outcome); 4] = [
    ("tx-checksum-ip-generic", Outcome::Fail),
    ("tx-tcp-segmentation", Outcome::Fail),
    ("tx-tcp6-segmentation", Outcome::Fail),
    ("tx-udp-segmentation", Outcome::Warn),
];

/// What the programs count when something is not as it should be.
const TROUBLE: [&str; 5] = [
    "drop-no-tap",
    "drop-tag-failed",
    "drop-unknown-interface",
    "drop-bad-tag",
    "events-lost",
];

/// All sections.
pub async fn sections(client: &Client) -> Vec<Section> {
    let mut section = Section::new("Agent");
    let status = match client.get::<Status>(api::STATUS, &()).await {
        Ok(status) => status,
        Err(failure) => {
            let text = failure.to_string();
            let (text, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            section.add("agent", Outcome::Fail, text, hint);
            return vec![section];
        }
    };
    agent(&mut section, &status);
    let interfaces: Vec<String> = status
        .endpoints
        .iter()
        .map(|endpoint| endpoint.interface.clone())
        .collect();
    vec![
        section,
        datapath(&status),
        endpoints(&status),
        counters(&status),
        node::section(&interfaces, &status.datapath.tap),
    ]
}

fn agent(section: &mut Section, status: &Status) {
    let text = format!("version {}, process {}", status.version, status.pid);
    section.ok("agent", text);
    match status.health {
        Health::Ok => section.ok("health", "it has nothing to complain of"),
        Health::Starting => {
            let hint = "`tollgate status --wait 30`";
            section.add("health", Outcome::Fail, "it is not ready", hint);
        }
        Health::Degraded => {
            for warning in &status.warnings {
                section.add("health", Outcome::Warn, warning, "");
            }
        }
    }
    match &status.policy.stale {
        None => section.ok(
            "policy",
            format!("{} policies in force", status.policy.policies),
        ),
        Some(stale) => section.add(
            "policy",
            Outcome::Fail,
            format!(
                "the policy in force is older than its files: since {}",
                stale.since
            ),
            &format!("tollgate policy lint {}", status.policy.directory),
        ),
    }
}

fn datapath(status: &Status) -> Section {
    let mut section = Section::new("Data path");
    let path = &status.datapath;
    match links::by_name(&path.tap) {
        Err(error) => section.add(
            "tap",
            Outcome::Fail,
            format!("TAP {}: {error}", path.tap),
            "is this the agent's network namespace? Else restart the agent",
        ),
        Ok(link) => {
            match link.up {
                true => section.ok("tap", format!("TAP {} is up", path.tap)),
                false => {
                    let hint = format!("ip link set {} up", path.tap);
                    let text = format!("TAP {} is down", path.tap);
                    section.add("tap", Outcome::Fail, text, &hint);
                }
            }
            if path.bridge.is_none() {
                tap_features(&mut section, &path.tap);
            }
        }
    }
    if let Some(bridge) = &path.bridge {
        // That its flows are there the agent itself looks after; see its warnings.
        section.ok("bridge", format!("the data path is bridge {bridge}"));
        return section;
    }
    match bpf::pins(Path::new(&path.pin_dir)) {
        Ok(Pins::Ours) => section.ok("pins", format!("maps are pinned in {}", path.pin_dir)),
        Ok(other) => section.add(
            "pins",
            Outcome::Fail,
            format!("{} has not what the agent pins: {other:?}", path.pin_dir),
            "restart the agent",
        ),
        // Another mount namespace has other bpffs; the agent's word has to do.
        Err(error) => section.add(
            "pins",
            Outcome::Unknown,
            error,
            "run this where the agent runs",
        ),
    }
    section
}

fn tap_features(section: &mut Section, tap: &str) {
    let found = match features::read(tap) {
        Ok(found) => found,
        Err(error) => return section.add("tap-offloads", Outcome::Unknown, error, ""),
    };
    let on = |name: &str| found.iter().any(|f| f.name == name && f.active);
    let missing: Vec<_> = TAP_FEATURES.iter().filter(|(name, _)| !on(name)).collect();
    for (name, outcome) in &missing {
        let hint = format!("ethtool -K {tap} {name} on (UDP's needs Linux 6.2)");
        section.add(
            "tap-offloads",
            *outcome,
            format!("{name} is off on {tap}"),
            &hint,
        );
    }
    if missing.is_empty() {
        section.ok("tap-offloads", "its offloads are as the agent set them");
    }
}

fn endpoints(status: &Status) -> Section {
    let endpoints: &[EndpointStatus] = &status.endpoints;
    let mut section = Section::new("Endpoints");
    for endpoint in endpoints {
        let text = format!("{} at {}", endpoint.name, endpoint.interface);
        match endpoint.state {
            EndpointState::Attached if status.datapath.bridge.is_some() => {
                section.ok("endpoint", format!("{text}: a port of the bridge"));
            }
            EndpointState::Attached => hooks(&mut section, &endpoint.interface, &text),
            EndpointState::Waiting => section.add(
                "endpoint",
                Outcome::Warn,
                format!("{text}: the interface is not there"),
                "it is governed as soon as it comes",
            ),
            EndpointState::Failed => {
                let text = format!("{text}: {}", endpoint.detail);
                section.add("endpoint", Outcome::Fail, text, "see the agent's log");
            }
        }
    }
    if endpoints.is_empty() {
        section.add(
            "endpoint",
            Outcome::Warn,
            "the policy names no endpoint",
            "",
        );
    }
    section
}

/// What the kernel says, whatever the agent says.
fn hooks(section: &mut Section, interface: &str, text: &str) {
    let attached = match probe::attached(interface) {
        Ok(attached) => attached,
        Err(error) => return section.add("endpoint", Outcome::Unknown, error, "run this as root"),
    };
    let ours = |ingress| attached.iter().any(|a| a.ours() && a.ingress == ingress);
    match (ours(true), ours(false)) {
        (true, true) => section.ok("endpoint", format!("{text}: programs in both directions")),
        _ => section.add(
            "endpoint",
            Outcome::Fail,
            format!("{text}: the agent believes its programs are there, but they are not"),
            "somebody removed them; restart the agent",
        ),
    }
}

fn counters(status: &Status) -> Section {
    let mut section = Section::new("Traffic");
    let kernel = &status.datapath.kernel;
    match kernel.iter().map(|counter| counter.value).sum::<u64>() {
        0 => section.add("counters", Outcome::Warn, "no packet has come by yet", ""),
        sum => section.ok("counters", format!("{sum} packets have come by")),
    }
    let mut clean = true;
    for counter in kernel {
        let kind = counter.name.split(' ').next().unwrap_or_default();
        if counter.value > 0 && TROUBLE.contains(&kind) {
            clean = false;
            let text = format!("{}: {}", counter.name, counter.value);
            let hint = "packets of this kind were lost; is the number still growing?";
            section.add("errors", Outcome::Warn, text, hint);
        }
    }
    if clean {
        section.ok("errors", "the programs count no error");
    }
    if let Some(offloads) = &status.offloads {
        match offloads.problems.as_slice() {
            [] => section.ok("offloads", "declared offloads are as declared"),
            problems => {
                for problem in problems {
                    section.add("offloads", Outcome::Warn, problem, "");
                }
            }
        }
    }
    section
}
