//! What a repair changes. Every action can be printed as the command that a person would type,
//! carried out, and taken back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Action {
    /// Switch an offload feature of an interface.
    Feature {
        /// Path of the network namespace; `None` for the one that the doctor runs in.
        netns: Option<PathBuf>,
        /// The interface.
        ifname: String,
        /// The kernel's name of the feature.
        feature: String,
        /// On or off.
        on: bool,
    },
    /// Set an interface's MTU.
    Mtu {
        /// Path of the network namespace.
        netns: Option<PathBuf>,
        /// The interface.
        ifname: String,
        /// In bytes.
        mtu: u32,
    },
    /// Set sizes of super-packets (`ip link set ... gso_max_size`).
    Sizes {
        /// Path of the network namespace.
        netns: Option<PathBuf>,
        /// The interface.
        ifname: String,
        /// Attribute as `ip link` names it, e.g. `gso_max_size`, with its value in bytes; set in this order.
        sizes: Vec<(String, u32)>,
    },
    /// Set a `sysctl`.
    Sysctl {
        /// Path of the network namespace.
        netns: Option<PathBuf>,
        /// The key, dotted.
        key: String,
        /// The value.
        value: String,
    },
    /// Clamp the MSS of forwarded TCP connections to the route's MTU, in a table of our own.
    ClampMss {
        /// Path of the network namespace.
        netns: Option<PathBuf>,
        /// Interface towards the smaller MTU.
        ifname: String,
    },
    /// Set a column of Open vSwitch's database (`ovs-vsctl set`).
    Ovs {
        /// Table, e.g. `Interface`.
        table: String,
        /// Record, e.g. the port's name.
        record: String,
        /// Column, with a key where it is a map: `other_config:userspace-tso-enable`.
        column: String,
        /// The value.
        value: String,
    },
    /// Attach an interface's XDP program after the driver rather than in it.
    GenericXdp {
        /// Path of the network namespace.
        netns: Option<PathBuf>,
        /// The interface.
        ifname: String,
    },
}

impl Action {
    /// Name of the network namespace's file, `None` for the one that the doctor runs in.
    pub fn netns(&self) -> Option<&Path> {
        match self {
            Self::Feature { netns, .. }
            | Self::Mtu { netns, .. }
            | Self::Sizes { netns, .. }
            | Self::Sysctl { netns, .. }
            | Self::ClampMss { netns, .. }
            | Self::GenericXdp { netns, .. } => netns.as_deref(),
            Self::Ovs { .. } => None,
        }
    }
}
