//! Offload features. Switching one may drag others along (without checksums there is no
//! segmentation), so the record holds all of them.

use serde::{Deserialize, Serialize};
use tollgate_datapath::features::{self, Feature};

use crate::repair::RepairError;

/// Features rest on others at most this deep (checksum, scatter-gather, segmentation), so that many
/// rounds of switching settle them.
const ROUNDS: usize = 4;

/// What a feature was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    name: String,
    active: bool,
    wanted: bool,
}

/// All features that can be switched.
pub fn read(ifname: &str) -> Result<Vec<Was>, RepairError> {
    let changeable = features::read(ifname)?
        .into_iter()
        .filter(|feature| feature.changeable);
    Ok(changeable.map(was).collect())
}

fn was(feature: Feature) -> Was {
    Was {
        name: feature.name,
        active: feature.active,
        wanted: feature.wanted,
    }
}

/// Refuses what cannot be switched.
pub fn check(ifname: &str, feature: &str, all: &[Was]) -> Result<(), RepairError> {
    match all.iter().any(|was| was.name == feature) {
        true => Ok(()),
        false => Err(RepairError::Unfit(format!(
            "{ifname} has no feature {feature} that can be switched; see ethtool -k {ifname}"
        ))),
    }
}

/// Is it so already, in wish and effect?
pub fn is(now: &[Was], feature: &str, on: bool) -> bool {
    let this = now.iter().find(|was| was.name == feature);
    this.is_some_and(|was| was.active == on && was.wanted == on)
}

/// Switches one, and looks whether it obeyed.
pub fn set(ifname: &str, feature: &str, on: bool) -> Result<(), RepairError> {
    features::set(ifname, &[(feature, on)])?;
    let now = features::read(ifname)?;
    let this = now.iter().find(|now| now.name == feature);
    match this.map(|now| now.active) {
        Some(active) if active == on => Ok(()),
        found => Err(RepairError::Refused {
            what: format!("{feature} of {ifname}"),
            is: found.map_or("unknown to the kernel", word).to_owned(),
            should: word(on).to_owned(),
            hint: "the driver fixes it, or a feature that it rests on is off; see ethtool -k",
        }),
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Makes wish and effect of every feature what they were.
pub fn restore(ifname: &str, before: &[Was]) -> Result<(), RepairError> {
    for _ in 0..ROUNDS {
        let wrong = differing(ifname, before)?;
        if wrong.is_empty() {
            return Ok(());
        }
        // One at a time: the kernel refuses none, but settles what rests on what at each.
        for (name, wanted) in &wrong {
            features::set(ifname, &[(name, *wanted)])?;
        }
    }
    match differing(ifname, before)?.first() {
        None => Ok(()),
        Some((name, wanted)) => Err(RepairError::Refused {
            what: format!("{name} of {ifname}"),
            is: "otherwise".to_owned(),
            should: word(*wanted).to_owned(),
            hint: "another program switches it, or the driver no longer allows it; see ethtool -k",
        }),
    }
}

/// Features that are not what they were, with what to ask for. A feature that was wanted and off
/// all the same is only asked for.
fn differing(ifname: &str, before: &[Was]) -> Result<Vec<(String, bool)>, RepairError> {
    let now = read(ifname)?;
    let differs = |was: &&Was| {
        now.iter()
            .find(|now| now.name == was.name)
            .is_some_and(|now| now.active != was.active || now.wanted != was.wanted)
    };
    let wrong = before.iter().filter(differs);
    Ok(wrong.map(|was| (was.name.clone(), was.wanted)).collect())
}
