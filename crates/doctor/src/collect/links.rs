//! Interfaces and their addresses, by rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Link, LinkKind, TunnelRemote, Vxlan, XdpMode};
use tollgate_datapath::netlink::{
    Socket, address, attributes, attributes_after, mac, text, u8_of, u16_at, u32_at, u32_of, u64_at,
};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg`, `struct ndmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const NDMSG: usize = 12;
const AF_BRIDGE: u8 = 7;
/// `IFF_UP` and `IFF_LOOPBACK` of linux/if.h.
const UP: u32 = 1;
const LOOPBACK: u32 = 8;

// Attributes of linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_XDP: u16 = 43;
const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_TSO_MAX_SIZE: u16 = 59;
const IFLA_TSO_MAX_SEGS: u16 = 60;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;
/// `IFLA_IPTUN_LINK` and `_REMOTE`; `IFLA_GRE_REMOTE`; `IFLA_GENEVE_REMOTE` and `_REMOTE6`. The link
/// has the same number for all but Geneve.
const IFLA_TUNNEL_LINK: u16 = 1;
const IFLA_IPTUN_REMOTE: u16 = 3;
const IFLA_GRE_REMOTE: u16 = 7;
const IFLA_GENEVE_REMOTE: u16 = 2;
const IFLA_GENEVE_REMOTE6: u16 = 7;
/// `IFF_TAP`.
const TAP: u8 = 2;

/// The members of `struct rtnl_link_stats64`, in order.
const STATISTICS: [&str; 25] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
];

/// An interface with what names another one, not yet looked up.
#[derive(Debug, Default)]
pub struct RawLink {
    /// What is known of it.
    pub link: Link,
    /// Index of the other end or lower device.
    pub other: Option<u32>,
    /// Number that this namespace has for the other's; `None` if that is this one.
    pub other_netns: Option<u32>,
}

/// All interfaces, with addresses, by index.
pub fn read(socket: &mut Socket) -> io::Result<Vec<RawLink>> {
    let mut links = socket.dump(RTM_GETLINK, &[0; IFINFO], |kind, body| {
        (kind == RTM_NEWLINK).then(|| link(body)).flatten()
    })?;
    links.sort_unstable_by_key(|raw| raw.link.ifindex);
    links.dedup_by_key(|raw| raw.link.ifindex);
    let addresses = socket.dump(RTM_GETADDR, &[0; IFADDR], |kind, body| {
        (kind == RTM_NEWADDR)
            .then(|| interface_address(body))
            .flatten()
    })?;
    for (ifindex, net) in addresses {
        if let Ok(at) = links.binary_search_by_key(&ifindex, |raw| raw.link.ifindex)
            && let Some(raw) = links.get_mut(at)
        {
            raw.link.addresses.push(net);
        }
    }
    let datapaths: Vec<u32> = links.iter().filter_map(|raw| raw.link.master).collect();
    for raw in &mut links {
        // The datapath itself is of the same kind as its internal ports.
        let is_master = datapaths.contains(&raw.link.ifindex) || raw.link.name == "ovs-system";
        if raw.link.kind == LinkKind::OvsInternal && is_master {
            raw.link.kind = LinkKind::OvsDatapath;
        }
    }
    if links
        .iter()
        .any(|raw| matches!(raw.link.kind, LinkKind::Vxlan(_)))
    {
        remotes(socket, &mut links)?;
    }
    Ok(links)
}

fn link(body: &[u8]) -> Option<RawLink> {
    let flags = u32_at(body, 8)?;
    let mut raw = RawLink::default();
    let link = &mut raw.link;
    link.ifindex = u32_at(body, 4)?;
    link.up = flags & UP != 0;
    let mut tunnel_link = None;
    for (kind, value) in attributes_after(body, IFINFO) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS if value.len() == 6 => link.mac = mac(value),
            IFLA_MTU => link.mtu = u32_of(value),
            IFLA_MASTER => link.master = Some(u32_of(value)),
            IFLA_LINK => raw.other = Some(u32_of(value)).filter(|&index| index != 0),
            IFLA_LINK_NETNSID => raw.other_netns = Some(u32_of(value)),
            IFLA_LINKINFO => tunnel_link = info(value, link),
            IFLA_STATS64 => link.counters = statistics(value),
            IFLA_NUM_TX_QUEUES => link.queues.tx = u32_of(value),
            IFLA_NUM_RX_QUEUES => link.queues.rx = u32_of(value),
            IFLA_XDP => link.xdp = xdp(value),
            _ => size(kind, u32_of(value), link),
        }
    }
    if flags & LOOPBACK != 0 {
        link.kind = LinkKind::Loopback;
    }
    // Some tunnels name their lower device only among their own attributes.
    raw.other = raw
        .other
        .or(tunnel_link)
        .filter(|&other| other != raw.link.ifindex || raw.other_netns.is_some());
    Some(raw)
}

fn size(kind: u16, value: u32, link: &mut Link) {
    let sizes = &mut link.sizes;
    match kind {
        IFLA_GSO_MAX_SIZE => sizes.gso_max = value,
        IFLA_GSO_MAX_SEGS => sizes.gso_max_segs = value,
        IFLA_GRO_MAX_SIZE => sizes.gro_max = value,
        IFLA_TSO_MAX_SIZE => sizes.tso_max = value,
        IFLA_TSO_MAX_SEGS => sizes.tso_max_segs = value,
        IFLA_GSO_IPV4_MAX_SIZE => sizes.gso_ipv4_max = value,
        IFLA_GRO_IPV4_MAX_SIZE => sizes.gro_ipv4_max = value,
        _ => {}
    }
}

fn xdp(value: &[u8]) -> Option<XdpMode> {
    let attached = attributes(value).find(|(kind, _)| *kind == IFLA_XDP_ATTACHED)?;
    match u8_of(attached.1) {
        0 => None,
        2 => Some(XdpMode::Generic),
        3 => Some(XdpMode::Offload),
        // 1, in the driver; 4, in several places, one of which is the driver.
        _ => Some(XdpMode::Native),
    }
}

fn statistics(value: &[u8]) -> BTreeMap<String, u64> {
    let values = STATISTICS.iter().enumerate().filter_map(|(i, name)| {
        let value = u64_at(value, i * size_of::<u64>())?;
        (value != 0).then(|| ((*name).to_owned(), value))
    });
    values.collect()
}

/// Kind and what goes with it; returns the lower device that a tunnel names.
fn info(value: &[u8], link: &mut Link) -> Option<u32> {
    let mut kind = String::new();
    let mut data: &[u8] = &[];
    for (number, value) in attributes(value) {
        match number {
            IFLA_INFO_KIND => kind = text(value),
            IFLA_INFO_DATA => data = value,
            _ => {}
        }
    }
    let mut lower = None;
    link.kind = match kind.as_str() {
        "" => LinkKind::Physical,
        "veth" => LinkKind::Veth,
        "bridge" => LinkKind::Bridge,
        "wireguard" => LinkKind::Wireguard,
        "openvswitch" => LinkKind::OvsInternal,
        "dummy" => LinkKind::Dummy,
        "vlan" => LinkKind::Vlan {
            id: find(data, IFLA_VLAN_ID)
                .and_then(|v| u16_at(v, 0))
                .unwrap_or(0),
        },
        "tun" => LinkKind::Tun {
            tap: find(data, IFLA_TUN_TYPE).is_some_and(|v| u8_of(v) == TAP),
            vnet_hdr: find(data, IFLA_TUN_VNET_HDR).is_some_and(|v| u8_of(v) != 0),
        },
        "vxlan" => LinkKind::Vxlan(vxlan(data, link, &mut lower)),
        "ipip" | "sit" | "ip6tnl" | "vti" | "vti6" => {
            tunnel(data, &[IFLA_IPTUN_REMOTE], link, &mut lower);
            LinkKind::Tunnel(kind)
        }
        "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" | "ip6erspan" => {
            tunnel(data, &[IFLA_GRE_REMOTE], link, &mut lower);
            LinkKind::Tunnel(kind)
        }
        "geneve" => {
            tunnel(
                data,
                &[IFLA_GENEVE_REMOTE, IFLA_GENEVE_REMOTE6],
                link,
                &mut None,
            );
            LinkKind::Tunnel(kind)
        }
        _ => LinkKind::Other(kind),
    };
    lower
}

fn find(data: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(data)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn remote(value: &[u8]) -> Option<IpAddr> {
    address(value).filter(|ip| !ip.is_unspecified())
}

fn tunnel(data: &[u8], remotes: &[u16], link: &mut Link, lower: &mut Option<u32>) {
    link.remote = remotes.iter().find_map(|&kind| remote(find(data, kind)?));
    *lower = find(data, IFLA_TUNNEL_LINK)
        .map(u32_of)
        .filter(|&index| index != 0);
}

fn vxlan(data: &[u8], link: &mut Link, lower: &mut Option<u32>) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_VXLAN_ID => vxlan.vni = u32_of(value),
            IFLA_VXLAN_GROUP | IFLA_VXLAN_GROUP6 => link.remote = remote(value).or(link.remote),
            IFLA_VXLAN_LINK => *lower = Some(u32_of(value)).filter(|&index| index != 0),
            IFLA_VXLAN_LOCAL6 => vxlan.ipv6 = remote(value).is_some() || vxlan.ipv6,
            IFLA_VXLAN_LOCAL => {}
            // In network order.
            IFLA_VXLAN_PORT => vxlan.port = u16_at(value, 0).map(u16::from_be).unwrap_or(0),
            IFLA_VXLAN_UDP_CSUM => vxlan.udp_csum = u8_of(value) != 0,
            _ => {}
        }
    }
    vxlan.ipv6 |= link.remote.is_some_and(|ip| ip.is_ipv6());
    vxlan
}

/// `IFA_ADDRESS` and `IFA_LOCAL`: of a point-to-point interface the former is the other side.
fn interface_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let prefix = body.get(1).copied()?;
    let mut best = None;
    for (kind, value) in attributes_after(body, IFADDR) {
        match kind {
            1 => best = best.or(address(value)),
            2 => best = address(value),
            _ => {}
        }
    }
    Some((u32_at(body, 4)?, IpNet::new(best?, prefix).ok()?))
}

/// One entry of a neighbour or forwarding table.
struct Neighbour {
    ifindex: u32,
    mac: String,
    to: Option<IpAddr>,
}

/// Fills in where VXLAN interfaces send: forwarding entries with an outer destination, and the
/// addresses that the neighbour table has for their stations.
fn remotes(socket: &mut Socket, links: &mut [RawLink]) -> io::Result<()> {
    let neighbours = neighbours(socket, 0)?;
    for entry in neighbours_of_bridges(socket)? {
        let owner = links
            .iter_mut()
            .find(|raw| raw.link.ifindex == entry.ifindex);
        let (Some(raw), Some(at)) = (owner, entry.to) else {
            continue;
        };
        if at.is_unspecified() || !matches!(raw.link.kind, LinkKind::Vxlan(_)) {
            continue;
        }
        let ip = neighbours
            .iter()
            .find(|neighbour| neighbour.ifindex == entry.ifindex && neighbour.mac == entry.mac);
        raw.link.remotes.push(TunnelRemote {
            mac: entry.mac,
            ip: ip.and_then(|neighbour| neighbour.to),
            at,
        });
    }
    Ok(())
}

fn neighbours_of_bridges(socket: &mut Socket) -> io::Result<Vec<Neighbour>> {
    neighbours(socket, AF_BRIDGE)
}

fn neighbours(socket: &mut Socket, family: u8) -> io::Result<Vec<Neighbour>> {
    let mut body = [0; NDMSG];
    body[0] = family;
    socket.dump(RTM_GETNEIGH, &body, |kind, body| {
        if kind != RTM_NEWNEIGH {
            return None;
        }
        let mut neighbour = Neighbour {
            ifindex: u32_at(body, 4)?,
            mac: String::new(),
            to: None,
        };
        for (kind, value) in attributes_after(body, NDMSG) {
            match kind {
                1 => neighbour.to = address(value), // NDA_DST
                2 => neighbour.mac = mac(value),    // NDA_LLADDR
                _ => {}
            }
        }
        Some(neighbour)
    })
}
