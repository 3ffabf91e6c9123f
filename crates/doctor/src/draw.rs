//! A path for the terminal: one box for each interface, under the namespace that it is in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::action::LEGACY_SIZE;
use crate::case::{Case, Hop, Path, Via};
use crate::finding::Finding;
use crate::model::{Feature, Link, LinkKind, Netns, PacketSocket, Snapshot, XdpMode};

/// Columns of a drawing unless told.
pub const WIDTH: usize = 100;
/// Fewer columns than these hold no box.
const MIN_WIDTH: usize = 40;
/// Counters of one interface that are shown; cards have hundreds.
const MAX_COUNTERS: usize = 8;
/// Columns before a box.
const MARGIN: &str = "  ";

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Plain ASCII instead of box characters.
    pub ascii: bool,
    /// Columns of the terminal; 100 if it is not one.
    pub width: usize,
    /// What was found: an interface's box has the numbers of what is about it.
    pub findings: &'a [Finding],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            ascii: false,
            width: WIDTH,
            findings: &[],
        }
    }
}

/// What a box is made of.
struct Lines {
    horizontal: char,
    vertical: char,
    /// Corners: top left, top right, bottom left, bottom right.
    corners: [char; 4],
    down: char,
    more: &'static str,
}

const BOX: Lines = Lines {
    horizontal: '─',
    vertical: '│',
    corners: ['┌', '┐', '└', '┘'],
    down: '▼',
    more: "…",
};
const ASCII: Lines = Lines {
    horizontal: '-',
    vertical: '|',
    corners: ['+', '+', '+', '+'],
    down: 'v',
    more: "...",
};

/// Features that matter to a path: what it is called here, and the kernel's names, the first of
/// which that the device has counts.
const FEATURES: [(&str, &[&str]); 8] = [
    (
        "tx-checksum",
        &[
            "tx-checksum-ip-generic",
            "tx-checksum-ipv4",
            "tx-checksum-ipv6",
        ],
    ),
    ("rx-checksum", &["rx-checksum"]),
    ("tso", &["tx-tcp-segmentation"]),
    ("tso6", &["tx-tcp6-segmentation"]),
    ("gso", &["tx-generic-segmentation"]),
    ("udp-gso", &["tx-udp-segmentation"]),
    ("gro", &["rx-gro"]),
    (LRO, &["rx-lro"]),
];
/// Cards alone have it.
const LRO: &str = "lro";
/// Those that matter where packets are in tunnels.
const TUNNEL_FEATURES: [(&str, &[&str]); 3] = [
    ("tunnel-tso", &["tx-udp_tnl-segmentation"]),
    ("tunnel-csum-tso", &["tx-udp_tnl-csum-segmentation"]),
    ("gre-tso", &["tx-gre-segmentation"]),
];
/// Those that are off almost everywhere, shown where they are on.
const RARE_FEATURES: [&str; 3] = ["rx-gro-list", "rx-udp-gro-forwarding", "rx-gro-hw"];
/// Counters of a namespace that tell of broken checksums.
const CHECKSUMS: [&str; 4] = [
    "Tcp:InCsumErrors",
    "Udp:InCsumErrors",
    "Udp6:InCsumErrors",
    "Icmp:InCsumErrors",
];

/// Draws a path with what is known of its interfaces. Lines end in a line feed and have no trailing
/// blanks; none is wider than asked for, down to 40 columns.
pub fn draw(case: &Case, path: &Path, options: Options<'_>) -> String {
    let mut drawing = Drawing {
        case,
        options,
        lines: if options.ascii { &ASCII } else { &BOX },
        inner: options.width.max(MIN_WIDTH) - MARGIN.len() - "| ".len() - " |".len(),
        out: String::new(),
    };
    drawing.line(&format!("{} to {}", path.from, path.to));
    let mut netns = None;
    for hop in &path.hops {
        if hop.via != Via::Start {
            drawing.arrow(&via(&hop.via));
        }
        if netns != Some(hop.at.netns) {
            drawing.namespace(hop);
            netns = Some(hop.at.netns);
        }
        drawing.interface(hop);
    }
    if !path.ends.is_empty() {
        drawing.arrow(&path.ends);
    }
    drawing.out
}

struct Drawing<'a> {
    case: &'a Case,
    options: Options<'a>,
    lines: &'static Lines,
    /// Columns inside a box.
    inner: usize,
    out: String,
}

impl Drawing<'_> {
    fn line(&mut self, text: &str) {
        let text = self.fitted(text, self.inner + MARGIN.len());
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// Without what a terminal would obey, and no longer than there is room for.
    fn fitted(&self, text: &str, room: usize) -> String {
        let clean = |c: char| if c.is_control() { '?' } else { c };
        let mut fitted: String = text.chars().map(clean).collect();
        if fitted.chars().count() > room {
            let kept = room.saturating_sub(self.lines.more.chars().count());
            fitted = fitted.chars().take(kept).collect();
            fitted.push_str(self.lines.more);
        }
        fitted
    }

    fn arrow(&mut self, label: &str) {
        let (bar, down) = (self.lines.vertical, self.lines.down);
        for part in wrapped(label.split(' ').map(ToOwned::to_owned), " ", self.inner - 6) {
            self.line(&format!("{MARGIN}    {bar} {part}"));
        }
        self.line(&format!("{MARGIN}    {down}"));
    }

    fn namespace(&mut self, hop: &Hop) {
        let Some(netns) = self.case.now.netns(hop.at.netns) else {
            return;
        };
        let earlier = self.earlier(|earlier| earlier.netns(hop.at.netns));
        let counters = CHECKSUMS.iter().filter_map(|&name| {
            let before = earlier.map(|netns| netns.counter(name));
            counted(name, netns.counter(name), before)
        });
        let mut text = format!("namespace {}", netns.name);
        for counter in counters {
            let _ = write!(text, "   {counter}");
        }
        self.line(&text);
    }

    fn earlier<T>(&self, find: impl Fn(&Snapshot) -> Option<&T>) -> Option<&T> {
        self.case.earlier.as_ref().and_then(find)
    }

    fn interface(&mut self, hop: &Hop) {
        let known = self.case.now.netns(hop.at.netns);
        let known = known.and_then(|netns| Some((netns, netns.link(hop.at.ifindex)?)));
        let Some((netns, link)) = known else {
            self.boxed(&[format!(
                "interface {} is not in the snapshot",
                hop.at.ifindex
            )]);
            return;
        };
        let mut rows = vec![self.title(hop, netns, link)];
        let tunnelled = hop.overhead > 0 || is_tunnel(link);
        rows.extend(wrapped(features(link, tunnelled), "  ", self.inner));
        rows.extend(wrapped(sizes(link), "  ", self.inner));
        rows.extend(wrapped(readers(netns, link), "  ", self.inner));
        let earlier = self.earlier(|earlier| earlier.link(hop.at));
        rows.extend(wrapped(counters(link, earlier), "  ", self.inner));
        self.boxed(&rows);
    }

    /// Name, kind and MTU on the left, numbers of findings on the right.
    fn title(&self, hop: &Hop, netns: &Netns, link: &Link) -> String {
        let mut text = format!("{}  {}  mtu {}", link.name, kind(link), link.mtu);
        if hop.overhead > 0 {
            let _ = write!(text, "  (+{} of tunnels)", hop.overhead);
        }
        let master = link.master.and_then(|master| netns.link(master));
        if let Some(master) = master {
            let _ = write!(text, "  port of {}", master.name);
        }
        for address in link
            .addresses
            .iter()
            .filter(|net| !is_link_local(net.addr()))
        {
            let _ = write!(text, "  {address}");
        }
        if !link.up {
            text.push_str("  DOWN");
        }
        match link.xdp {
            Some(XdpMode::Native) => text.push_str("  xdp"),
            Some(XdpMode::Generic) => text.push_str("  xdp generic"),
            Some(XdpMode::Offload) => text.push_str("  xdp offload"),
            None => {}
        }
        let mut numbers: Vec<_> = self.options.findings.iter().collect();
        numbers.retain(|finding| finding.at == Some(hop.at));
        let mut numbers: Vec<String> = numbers.iter().map(|f| f.number.to_string()).collect();
        numbers.dedup();
        let numbers = numbers.join(" ");
        if numbers.is_empty() {
            return text;
        }
        let room = self.inner.saturating_sub(numbers.chars().count() + 2);
        format!("{:room$}  {numbers}", self.fitted(&text, room))
    }

    fn boxed(&mut self, rows: &[String]) {
        let [top_left, top_right, bottom_left, bottom_right] = self.lines.corners;
        let edge: String = std::iter::repeat_n(self.lines.horizontal, self.inner + 2).collect();
        let bar = self.lines.vertical;
        let _ = writeln!(self.out, "{MARGIN}{top_left}{edge}{top_right}");
        for row in rows {
            let row = self.fitted(row, self.inner);
            let _ = writeln!(
                self.out,
                "{MARGIN}{bar} {row:width$} {bar}",
                width = self.inner
            );
        }
        let _ = writeln!(self.out, "{MARGIN}{bottom_left}{edge}{bottom_right}");
    }
}

/// Items in lines of at most so many columns.
fn wrapped(items: impl IntoIterator<Item = String>, between: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.chars().count() + between.len() + item.chars().count() <= room => {
                line.push_str(between);
                line.push_str(&item);
            }
            _ => lines.push(item),
        }
    }
    lines
}

/// How a packet comes to an interface, in words.
fn via(via: &Via) -> String {
    match via {
        Via::Start => String::new(),
        Via::Pair => "other end of the pair".to_owned(),
        Via::Bridge => "bridged".to_owned(),
        Via::Master => "port and its bridge".to_owned(),
        Via::Ovs => "Open vSwitch".to_owned(),
        Via::Route(route) => format!("routed: {route}"),
        Via::Lower => "upper and lower device".to_owned(),
        Via::Tunnel(tunnel) => format!("in a tunnel: {tunnel}"),
        Via::Redirect => "redirected by a program in the kernel".to_owned(),
        Via::Engine(process) => {
            format!("read and written by {} (pid {})", process.name, process.pid)
        }
    }
}

/// What kind of interface, in words.
pub fn kind(link: &Link) -> String {
    match &link.kind {
        LinkKind::Physical if link.driver.is_empty() => "network card".to_owned(),
        LinkKind::Physical => format!("network card ({})", link.driver),
        LinkKind::Loopback => "loopback".to_owned(),
        LinkKind::Veth => "veth".to_owned(),
        LinkKind::Bridge => "bridge".to_owned(),
        LinkKind::Vlan { id } => format!("vlan {id}"),
        LinkKind::Vxlan(vxlan) => {
            let csum = if vxlan.udp_csum {
                "udp checksum"
            } else {
                "no udp checksum"
            };
            format!("vxlan {} port {} {csum}", vxlan.vni, vxlan.port)
        }
        LinkKind::Wireguard => "wireguard".to_owned(),
        LinkKind::Tunnel(kind) | LinkKind::Other(kind) => kind.clone(),
        LinkKind::Tun { tap, vnet_hdr } => {
            let kind = if *tap { "tap" } else { "tun" };
            let header = if *vnet_hdr { "with" } else { "without" };
            format!("{kind} {header} vnet_hdr")
        }
        LinkKind::OvsInternal => "internal port of Open vSwitch".to_owned(),
        LinkKind::OvsDatapath => "datapath of Open vSwitch".to_owned(),
        LinkKind::Dummy => "dummy".to_owned(),
    }
}

/// Every interface has such an address, and none tells it from another.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn is_tunnel(link: &Link) -> bool {
    matches!(
        link.kind,
        LinkKind::Vxlan(_) | LinkKind::Wireguard | LinkKind::Tunnel(_)
    )
}

fn features(link: &Link, tunnelled: bool) -> Vec<String> {
    let tunnel = TUNNEL_FEATURES.iter().filter(|_| tunnelled);
    // What the device cannot do and nobody misses.
    let absent = |label: &str, feature: &Feature| label == LRO && feature.fixed && !feature.active;
    let shown = FEATURES.iter().chain(tunnel).filter_map(|(label, names)| {
        let feature = pick(link, names).filter(|feature| !absent(label, feature))?;
        Some(format!("{label} {}", state(feature)))
    });
    let rare = RARE_FEATURES.iter().filter(|name| link.has(name));
    shown.chain(rare.map(|name| format!("{name} on"))).collect()
}

/// Of several features for one purpose the one that is on, or else one that could be.
fn pick<'a>(link: &'a Link, names: &[&str]) -> Option<&'a Feature> {
    let mut found: Vec<&Feature> = names.iter().filter_map(|name| link.feature(name)).collect();
    found.sort_by_key(|feature| (!feature.active, feature.fixed));
    found.first().copied()
}

/// As `ethtool -k` says it.
fn state(feature: &Feature) -> String {
    let on = |on| if on { "on" } else { "off" };
    let mut text = on(feature.active).to_owned();
    if feature.fixed {
        text.push_str(" [fixed]");
    } else if feature.wanted != feature.active {
        let _ = write!(text, " [requested {}]", on(feature.wanted));
    }
    text
}

/// Sizes of super-packets, where any is not what every device has.
fn sizes(link: &Link) -> Vec<String> {
    let sizes = link.sizes;
    let common = |size: u32| size == 0 || size == LEGACY_SIZE;
    let all = [
        sizes.gso_max,
        sizes.gro_max,
        sizes.gso_ipv4_max,
        sizes.gro_ipv4_max,
    ];
    if all.into_iter().all(common) && (sizes.tso_max == 0 || sizes.tso_max >= LEGACY_SIZE) {
        return Vec::new();
    }
    let all = [
        ("gso_max_size", sizes.gso_max, sizes.gso_ipv4_max),
        ("gro_max_size", sizes.gro_max, sizes.gro_ipv4_max),
        ("tso_max_size", sizes.tso_max, 0),
    ];
    let known = all.into_iter().filter(|(_, value, _)| *value != 0);
    known
        .map(|(name, value, ipv4)| match ipv4 {
            0 => format!("{name} {value}"),
            _ if ipv4 == value => format!("{name} {value}"),
            _ => format!("{name} {value} (ipv4 {ipv4})"),
        })
        .collect()
}

/// Who reads the interface's packets by a packet socket, and whether with the virtio-net header.
fn readers(netns: &Netns, link: &Link) -> Vec<String> {
    let bound = |socket: &&PacketSocket| socket.ifindex == link.ifindex;
    let mut readers: Vec<String> = netns
        .packet_sockets
        .iter()
        .filter(bound)
        .map(reader)
        .collect();
    readers.dedup();
    readers
}

fn reader(socket: &PacketSocket) -> String {
    let header = if socket.vnet_hdr { "with" } else { "without" };
    match &socket.process {
        Some(process) => format!(
            "packet socket of {} (pid {}) {header} vnet_hdr",
            process.name, process.pid
        ),
        None => format!("packet socket {header} vnet_hdr"),
    }
}

/// Counters of what was lost or broken.
fn counters(link: &Link, earlier: Option<&Link>) -> Vec<String> {
    let of_loss = |name: &str| {
        ["drop", "err", "csum_bad", "discard"]
            .iter()
            .any(|part| name.contains(part))
    };
    let none = BTreeMap::new();
    let before = earlier.map(|earlier| &earlier.counters);
    let lost = link.counters.iter().filter(|(name, _)| of_loss(name));
    let lost = lost.filter_map(|(name, value)| {
        let known = before.unwrap_or(&none).get(name).copied().unwrap_or(0);
        counted(name, *value, before.map(|_| known))
    });
    lost.take(MAX_COUNTERS).collect()
}

/// A counter and how much it grew; nothing if it is 0.
fn counted(name: &str, now: u64, before: Option<u64>) -> Option<String> {
    let grown = before.map_or(0, |before| now.saturating_sub(before));
    match (now, grown) {
        (0, _) => None,
        (_, 0) => Some(format!("{name} {now}")),
        _ => Some(format!("{name} {now} (+{grown})")),
    }
}
