//! The field `offloads` of the agent's configuration: offload state that it keeps, and that the doctor's
//! repairs are written into.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::declared::TX_CHECKSUM;

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
}
