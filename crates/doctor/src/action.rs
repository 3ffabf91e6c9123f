//! What a repair changes. Every action can be printed as the command that a person would type,
//! carried out, and taken back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Link, LinkKind, Netns, Sizes, Snapshot, XdpMode};

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

/// Features by which the device cuts super-packets; the kernel puts them out of action while their
/// checksum offload is off and takes them back with it.
const DEPENDENT: [&str; 6] = [
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
    "tx-generic-segmentation",
];

/// Up to this size a write of `gso_max_size` or `gro_max_size` also sets the IPv4 value
/// (`GSO_LEGACY_MAX_SIZE`, include/linux/netdevice.h).
pub(crate) const LEGACY_SIZE: u32 = 65_536;

impl Action {
    /// Carries it out on a snapshot, the way that the kernel would on the machine, so that it can be
    /// judged before anything is touched. False if what it is about is not in the snapshot.
    pub fn apply_to(&self, snapshot: &mut Snapshot) -> bool {
        if let Self::Ovs {
            record,
            column,
            value,
            ..
        } = self
        {
            return apply_ovs(snapshot, record, column, value);
        }
        let Some(netns) = netns_of(snapshot, self.netns()) else {
            return false;
        };
        match self {
            Self::Sysctl { key, value, .. } => {
                netns.sysctls.insert(key.clone(), value.clone());
                true
            }
            Self::ClampMss { .. } => {
                netns.filter.clamps_mss = true;
                true
            }
            Self::Feature { ifname, .. }
            | Self::Mtu { ifname, .. }
            | Self::Sizes { ifname, .. }
            | Self::GenericXdp { ifname, .. } => netns
                .links
                .iter_mut()
                .find(|link| link.name == *ifname)
                .is_some_and(|link| self.apply_to_link(link)),
            Self::Ovs { .. } => false,
        }
    }

    fn apply_to_link(&self, link: &mut Link) -> bool {
        match self {
            Self::Feature { feature, on, .. } => return set_feature(link, feature, *on),
            Self::Mtu { mtu, .. } => link.mtu = *mtu,
            Self::Sizes { sizes, .. } => {
                return sizes
                    .iter()
                    .all(|(name, value)| set_size(&mut link.sizes, name, *value));
            }
            Self::GenericXdp { .. } => link.xdp = Some(XdpMode::Generic),
            _ => return false,
        }
        true
    }
}

fn netns_of<'a>(snapshot: &'a mut Snapshot, path: Option<&Path>) -> Option<&'a mut Netns> {
    let id = snapshot
        .namespaces
        .iter()
        .find(|netns| match path {
            Some(path) => netns.path == path,
            None => snapshot.is_own(netns),
        })?
        .id;
    snapshot.namespaces.iter_mut().find(|netns| netns.id == id)
}

fn apply_ovs(snapshot: &mut Snapshot, record: &str, column: &str, value: &str) -> bool {
    let Some(ovs) = snapshot.ovs.as_mut() else {
        return false;
    };
    match column {
        "other_config:userspace-tso-enable" => {
            ovs.userspace_tso = value == "true";
            true
        }
        "mtu_request" => value
            .parse()
            .is_ok_and(|mtu| request_mtu(snapshot, record, mtu)),
        _ => false,
    }
}

fn request_mtu(snapshot: &mut Snapshot, record: &str, mtu: u32) -> bool {
    let bridges = snapshot.ovs.iter_mut().flat_map(|ovs| &mut ovs.bridges);
    let Some(port) = bridges
        .flat_map(|bridge| &mut bridge.ports)
        .find(|port| port.name == record)
    else {
        return false;
    };
    port.mtu_request = Some(mtu);
    port.mtu = Some(mtu);
    let links = snapshot.namespaces.iter_mut().flat_map(|n| &mut n.links);
    for link in links.filter(|link| link.kind == LinkKind::OvsInternal && link.name == record) {
        link.mtu = mtu;
    }
    true
}

/// Switches one feature, then drops what cannot be on without it, as `netdev_fix_features`
/// (net/core/dev.c) does.
fn set_feature(link: &mut Link, name: &str, on: bool) -> bool {
    let Some(feature) = link
        .features
        .iter_mut()
        .find(|feature| feature.name == name && !feature.fixed)
    else {
        return false;
    };
    feature.wanted = on;
    feature.active = on;
    for feature in &mut link.features {
        if !feature.fixed && feature.wanted && DEPENDENT.contains(&feature.name.as_str()) {
            feature.active = true;
        }
    }
    fix_features(link);
    true
}

fn fix_features(link: &mut Link) {
    let gather = link.has("tx-scatter-gather");
    let generic = link.has("tx-checksum-ip-generic");
    let ipv4 = generic || link.has("tx-checksum-ipv4");
    let ipv6 = generic || link.has("tx-checksum-ipv6");
    let tso = gather && ipv4 && link.has("tx-tcp-segmentation");
    let rx_checksum = link.feature("rx-checksum").is_none_or(|rx| rx.active);
    for feature in &mut link.features {
        let allowed = match feature.name.as_str() {
            "tx-tcp-segmentation" => gather && ipv4,
            "tx-tcp6-segmentation" => gather && ipv6,
            "tx-tcp-ecn-segmentation" | "tx-tcp-mangleid-segmentation" => tso,
            "tx-udp-segmentation" => ipv4 && ipv6,
            "tx-generic-segmentation" => gather,
            "rx-gro-hw" => rx_checksum,
            _ => true,
        };
        if !feature.fixed {
            feature.active &= allowed;
        }
    }
}

fn set_size(sizes: &mut Sizes, name: &str, value: u32) -> bool {
    match name {
        "gso_max_size" => {
            sizes.gso_max = value;
            if value <= LEGACY_SIZE && sizes.gso_ipv4_max != 0 {
                sizes.gso_ipv4_max = value;
            }
        }
        "gro_max_size" => {
            sizes.gro_max = value;
            if value <= LEGACY_SIZE && sizes.gro_ipv4_max != 0 {
                sizes.gro_ipv4_max = value;
            }
        }
        "gso_ipv4_max_size" => sizes.gso_ipv4_max = value,
        "gro_ipv4_max_size" => sizes.gro_ipv4_max = value,
        _ => return false,
    }
    true
}
