//! The field `offloads` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tollgate_doctor::declared::TX_CHECKSUM;

use crate::config::ConfigError;

/// `ETH_GSTRING_LEN` less the terminator.
const MAX_FEATURE_NAME: usize = 31;
/// The least that IPv4 needs (RFC 791), and the most that a device's MTU can be set to here.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// Offload state to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Offloads {
    /// No endpoint leaves checksums to a device: `tx-checksum-ip-generic` off, on every interface
    /// inside the endpoints' namespaces.
    pub disable_tx_checksum: bool,
    /// Antrea's agent configuration, whose `disableTXChecksumOffload` means the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub antrea_agent_conf: Option<PathBuf>,
    /// Anything else.
    pub interfaces: Vec<Interfaces>,
}

/// Where an interface is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the node.
    #[default]
    Node,
    /// Inside the namespace of each endpoint.
    Endpoints,
}

/// State of the interfaces of a name. Where several say something of the same, the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interfaces {
    /// Name, in which `*` stands for any text and `?` for one character.
    pub r#match: String,
    /// Where.
    #[serde(default)]
    pub place: Place,
    /// Features by the kernel's names, and whether they are on.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Interfaces {
    /// No endpoint leaves checksums to a device.
    pub fn no_tx_checksum() -> Self {
        Self {
            r#match: "*".to_owned(),
            place: Place::Endpoints,
            features: [(TX_CHECKSUM.to_owned(), false)].into(),
            mtu: None,
        }
    }
}

impl Offloads {
    /// Is there anything to keep?
    pub fn declares(&self) -> bool {
        self.disable_tx_checksum || self.antrea_agent_conf.is_some() || !self.interfaces.is_empty()
    }

    /// Checks what serde cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fault = |field, message| Err(ConfigError::Value { field, message });
        if let Some(path) = &self.antrea_agent_conf
            && !path.is_absolute()
        {
            let message = format!("`{}` is no absolute path", path.display());
            return fault("offloads.antreaAgentConf", message);
        }
        for (index, entry) in self.interfaces.iter().enumerate() {
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
}

fn is_feature(name: &str) -> bool {
    let fits = (1..=MAX_FEATURE_NAME).contains(&name.len());
    fits && name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
