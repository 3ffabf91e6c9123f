//! What was read from the machine. Plain values without behaviour beyond looking things up, so that
//! a recording of a machine with hardware that is not here can be judged like the machine itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Name of the first process's namespace ([`Netns::name`]).
pub(crate) const HOST: &str = "host";

/// Identity of a network namespace: the inode number of its `nsfs` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetnsId(pub u64);

/// An interface on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkRef {
    /// The namespace that it is in.
    pub netns: NetnsId,
    /// Its index there.
    pub ifindex: u32,
}

/// The machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Kernel release as `uname -r` prints it.
    pub kernel: String,
    /// The namespace that the doctor runs in; `None` if that is the one called `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<NetnsId>,
    /// Every network namespace that was found.
    pub namespaces: Vec<Netns>,
    /// Open vSwitch, if it runs here.
    pub ovs: Option<Ovs>,
    /// What could not be read, in words; a judgement that needs it says that it cannot tell.
    pub unreadable: Vec<String>,
}

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Netns {
    /// Its identity.
    pub id: NetnsId,
    /// What people call it: `host`, the name in `/run/netns`, `pid:123`, or a pod's `ns/name`.
    pub name: String,
    /// A path that names it, e.g. `/run/netns/blue` or `/proc/123/ns/net`.
    pub path: PathBuf,
    /// Processes in it, by number.
    #[serde(default)]
    pub pids: Vec<u32>,
    /// Other names that it can be found by: identifiers of containers and pods (from the control
    /// groups of its processes), and further names in `/run/netns`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its interfaces, by index.
    pub links: Vec<Link>,
    /// Its routes (main table), both families.
    pub routes: Vec<Route>,
    /// Settings under `/proc/sys/net`, key in `sysctl`'s dotted form; those that the catalogue reads.
    pub sysctls: BTreeMap<String, String>,
    /// Counters of `/proc/net/snmp`, `snmp6` and `netstat`: `Tcp:InCsumErrors`, `TcpExt:TCPTimeouts`, ...
    /// and of conntrack, summed over CPUs: `Conntrack:invalid`, ... Those of `snmp6` are named in
    /// the same way: `Udp6:InCsumErrors`. Counters that are 0 are left out.
    pub counters: BTreeMap<String, u64>,
    /// Packet sockets open in it.
    pub packet_sockets: Vec<PacketSocket>,
    /// What the packet filter does that matters here.
    pub filter: Filter,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// The driver, as `ethtool -i` says; empty if unknown.
    pub driver: String,
    /// It is up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address, `aa:bb:cc:dd:ee:ff`; empty if none.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The bridge, bond or Open vSwitch datapath that it is a port of, in the same namespace.
    pub master: Option<u32>,
    /// The other end (veth), or the lower device (VLAN, macvlan, VXLAN's underlay).
    pub link: Option<LinkRef>,
    /// Outer destination of a tunnel that has one, otherwise none.
    pub remote: Option<IpAddr>,
    /// Outer destinations of a VXLAN interface that has several: from its forwarding table.
    pub remotes: Vec<TunnelRemote>,
    /// Offload features as `ethtool -k` shows them.
    pub features: Vec<Feature>,
    /// `gso_max_size`, `gro_max_size`, ... in bytes.
    pub sizes: Sizes,
    /// Numbers of queues that are in use.
    pub queues: Queues,
    /// An XDP program is attached.
    pub xdp: Option<XdpMode>,
    /// Counters of `ip -s link` and, of hardware, `ethtool -S` (names with a `hw:` prefix).
    /// Counters that are 0 are left out.
    pub counters: BTreeMap<String, u64>,
}

/// One offload feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// The kernel's name, e.g. `tx-checksum-ip-generic`.
    pub name: String,
    /// It is on.
    pub active: bool,
    /// Somebody asked for it; differs from `active` where something else prevents it.
    pub wanted: bool,
    /// It cannot be switched: `[fixed]`.
    pub fixed: bool,
}

/// Sizes of super-packets, in bytes; 0 where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizes {
    /// Largest super-packet sent to it (IPv6 and, before Linux 6.3, IPv4).
    pub gso_max: u32,
    /// The same for IPv4, since Linux 6.3.
    pub gso_ipv4_max: u32,
    /// Largest number of segments of one super-packet.
    pub gso_max_segs: u32,
    /// Largest that GRO builds (IPv6).
    pub gro_max: u32,
    /// Largest that GRO builds for IPv4, since Linux 6.3.
    pub gro_ipv4_max: u32,
    /// What the device itself can take.
    pub tso_max: u32,
    /// Segments that the device itself can take.
    pub tso_max_segs: u32,
}

/// Queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queues {
    /// For receiving.
    pub rx: u32,
    /// For sending.
    pub tx: u32,
    /// The hash that picks a receive queue gives both directions of a flow the same one; `None` if
    /// the device does not say (`ethtool -x`).
    pub symmetric_hash: Option<bool>,
}

/// What kind of interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A network card, or what a hypervisor shows as one.
    #[default]
    Physical,
    /// `lo`.
    Loopback,
    /// One end of a pair.
    Veth,
    /// A Linux bridge.
    Bridge,
    /// A VLAN on a lower device.
    Vlan {
        /// Its number.
        id: u16,
    },
    /// VXLAN.
    Vxlan(Vxlan),
    /// WireGuard.
    Wireguard,
    /// IP in IP, SIT, GRE, Geneve and other tunnels, by the kernel's name.
    Tunnel(String),
    /// TUN or TAP.
    Tun {
        /// Frames (TAP) rather than packets (TUN).
        tap: bool,
        /// Its reader gets the virtio-net header (`IFF_VNET_HDR`).
        vnet_hdr: bool,
    },
    /// An internal port of Open vSwitch's kernel datapath.
    OvsInternal,
    /// Open vSwitch's kernel datapath itself.
    OvsDatapath,
    /// `dummy`.
    Dummy,
    /// Any other, by the kernel's name.
    Other(String),
}

/// Attributes of a VXLAN interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Outer UDP checksum over IPv4 (`IFLA_VXLAN_UDP_CSUM`).
    pub udp_csum: bool,
    /// Outer addresses are IPv6.
    pub ipv6: bool,
}

/// Where a VXLAN interface sends what is for one station behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRemote {
    /// The station's hardware address; all zero for everything else.
    pub mac: String,
    /// The station's IP address, where the neighbour table has it.
    pub ip: Option<IpAddr>,
    /// The outer destination.
    pub at: IpAddr,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// After the driver (`xdpgeneric`).
    Generic,
    /// In the hardware.
    Offload,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Interface.
    pub ifindex: u32,
    /// MTU of the route (`RTAX_MTU`), if it has one.
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`, if it has one.
    pub advmss: Option<u32>,
    /// Lower is preferred.
    pub metric: u32,
}

/// A packet socket (`AF_PACKET`), as `sock_diag` shows it (linux/packet_diag.h).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PacketSocket {
    /// Interface that it is bound to; 0 for all.
    pub ifindex: u32,
    /// Its reader gets the virtio-net header (`PACKET_VNET_HDR`).
    pub vnet_hdr: bool,
    /// Its reader gets `PACKET_AUXDATA`, which says that a checksum is not filled in.
    pub aux_data: bool,
    /// Size of a frame's place in the receive ring in bytes; 0 without a ring.
    pub ring_frame: u32,
    /// It belongs to a `PACKET_FANOUT` group.
    pub fanout: bool,
    /// It holds its interface in promiscuous mode (`PACKET_MR_PROMISC`), as everything does that is to
    /// see other hosts' frames; `None` if that could not be read.
    pub promiscuous: Option<bool>,
    /// Who has it open.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
}

/// Rules of the packet filter that matter to a path, from the kernel's rule listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The MSS of forwarded SYNs is clamped.
    pub clamps_mss: bool,
    /// ICMP "fragmentation needed" or ICMPv6 "packet too big" is dropped: the rule's text.
    pub drops_icmp: Option<String>,
    /// Packets in conntrack state `invalid` are dropped or rejected: the rule's text.
    pub drops_invalid: Option<String>,
    /// Packets that leave are masqueraded or source-NATed: the rule's text.
    pub nat: Option<String>,
    /// Of those, encapsulated ones (to the VXLAN's UDP port) too: the rule's text.
    pub nat_of_tunnel: Option<String>,
    /// The rules could be read.
    pub readable: bool,
}

/// Open vSwitch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ovs {
    /// `other_config:userspace-tso-enable`.
    pub userspace_tso: bool,
    /// Its bridges.
    pub bridges: Vec<OvsBridge>,
}

/// A bridge of Open vSwitch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OvsBridge {
    /// Its name.
    pub name: String,
    /// `system` (kernel) or `netdev` (userspace).
    pub datapath_type: String,
    /// Its ports.
    pub ports: Vec<OvsPort>,
}

/// A port of such a bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OvsPort {
    /// Name of the interface.
    pub name: String,
    /// `system`, `internal`, `tap`, `vxlan`, `dpdk`, ...
    pub kind: String,
    /// MTU that Open vSwitch uses; `None` if it does not say.
    pub mtu: Option<u32>,
    /// MTU that somebody asked for.
    pub mtu_request: Option<u32>,
    /// VLAN of an access port.
    pub tag: Option<u16>,
    /// Options, such as `remote_ip`.
    pub options: BTreeMap<String, String>,
    /// Statistics, such as `ovs_tx_mtu_exceeded_drops`.
    pub statistics: BTreeMap<String, u64>,
}

impl Snapshot {
    /// A namespace.
    pub fn netns(&self, id: NetnsId) -> Option<&Netns> {
        self.namespaces.iter().find(|netns| netns.id == id)
    }

    /// A namespace by what people call it.
    pub fn netns_named(&self, name: &str) -> Option<&Netns> {
        self.namespaces.iter().find(|netns| netns.name == name)
    }

    /// Does the doctor run in it?
    pub fn is_own(&self, netns: &Netns) -> bool {
        self.own.map_or(netns.name == HOST, |own| own == netns.id)
    }

    /// An interface.
    pub fn link(&self, at: LinkRef) -> Option<&Link> {
        self.netns(at.netns)?.link(at.ifindex)
    }

    /// Every interface with its namespace.
    pub fn links(&self) -> impl Iterator<Item = (&Netns, &Link)> {
        self.namespaces
            .iter()
            .flat_map(|netns| netns.links.iter().map(move |link| (netns, link)))
    }
}

impl Netns {
    /// An interface by its index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    /// An interface by its name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interfaces that are ports of the one with this index.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.links
            .iter()
            .filter(move |link| link.master == Some(master))
    }

    /// A reference to one of its interfaces.
    pub fn at(&self, link: &Link) -> LinkRef {
        LinkRef {
            netns: self.id,
            ifindex: link.ifindex,
        }
    }

    /// A counter; 0 where the kernel does not have it.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

impl Link {
    /// Is the feature on? `None` if the device does not have it.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }

    /// Is the feature there and on?
    pub fn has(&self, name: &str) -> bool {
        self.feature(name).is_some_and(|feature| feature.active)
    }

    /// It fills in checksums for TCP over IPv4 or IPv6: any of the features that
    /// `ethtool` sums up as `tx-checksumming`.
    pub fn tx_checksums(&self) -> bool {
        [
            "tx-checksum-ip-generic",
            "tx-checksum-ipv4",
            "tx-checksum-ipv6",
        ]
        .iter()
        .any(|name| self.has(name))
    }
}
