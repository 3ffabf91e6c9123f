//! The field `offloads` of the configuration file.

use tollgate_doctor::declared::TX_CHECKSUM;
pub use tollgate_doctor::offloads::{Interfaces, Offloads, Place};

use crate::config::ConfigError;

/// `ETH_GSTRING_LEN` less the terminator.
const MAX_FEATURE_NAME: usize = 31;
/// The least that IPv4 needs (RFC 791), and the most that a device's MTU can be set to here.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// Checks what serde cannot.
///
/// # Errors
/// The first value that cannot be used.
pub fn check(offloads: &Offloads) -> Result<(), ConfigError> {
    let fault = |field, message| Err(ConfigError::Value { field, message });
    if let Some(path) = &offloads.antrea_agent_conf
        && !path.is_absolute()
    {
        let message = format!("`{}` is no absolute path", path.display());
        return fault("offloads.antreaAgentConf", message);
    }
    for (index, entry) in offloads.interfaces.iter().enumerate() {
        let at = |message: String| format!("entry {}: {message}", index + 1);
        let name = &entry.r#match;
        if name.is_empty() || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            let message = at(format!(
                "`{name}` is no interface name; `*` and `?` may stand for parts of it"
            ));
            return fault("offloads.interfaces.match", message);
        }
        if entry.features.is_empty() && entry.mtu.is_none() {
            let message = at("neither features nor an mtu are given".to_owned());
            return fault("offloads.interfaces.features", message);
        }
        if let Some(feature) = entry.features.keys().find(|name| !is_feature(name)) {
            let message = at(format!(
                "`{feature}` is no name of a feature; use the kernel's, such as {TX_CHECKSUM} \
                     or tx-tcp-segmentation (`ethtool -k`)"
            ));
            return fault("offloads.interfaces.features", message);
        }
        if let Some(mtu) = entry.mtu.filter(|mtu| !MTU.contains(mtu)) {
            let (least, most) = (MTU.start(), MTU.end());
            let message = at(format!("{mtu} is no MTU; {least} to {most}"));
            return fault("offloads.interfaces.mtu", message);
        }
    }
    Ok(())
}

fn is_feature(name: &str) -> bool {
    let fits = (1..=MAX_FEATURE_NAME).contains(&name.len());
    fits && name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
