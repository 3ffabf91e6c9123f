//! Real namespaces read, followed and drawn. Needs root.
//!
//! ```text
//!  tg-dr-pod        tg-dr-a                                 tg-dr-b               tg-dr-srv
//!  eth0 ---- pa     br0 10.66.0.1   vx0 == VXLAN over ==    vx0  br0 ---- pb ---- eth0
//!                                   mac0 on wire ---- wire, mac0
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tollgate_doctor::case::{Case, Path, Via};
use tollgate_doctor::collect;
use tollgate_doctor::draw::{self, draw};
use tollgate_doctor::model::{Link, LinkKind, Netns, Snapshot, XdpMode};
use tollgate_doctor::path::{self, Endpoint, Target};

const NAMES: [&str; 4] = ["tg-dr-pod", "tg-dr-a", "tg-dr-b", "tg-dr-srv"];
const POD: &str = NAMES[0];
const A: &str = NAMES[1];
const B: &str = NAMES[2];
const SERVER: &str = NAMES[3];
/// Behind the tunnel.
const SERVER_IP: &str = "10.66.0.9";
/// Cargo runs the tests of this file at once; the names are the same.
static ONE: Mutex<()> = Mutex::new(());

/// The namespaces, removed also after a failure.
struct Lab(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Drop for Lab {
    fn drop(&mut self) {
        for name in NAMES {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn sh(line: &str) -> Output {
    let output = Command::new("sh").args(["-c", line]).output();
    output.expect("sh is installed")
}

fn must(line: &str) {
    let output = sh(line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

fn lab() -> Lab {
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for name in NAMES {
        sh(&format!("ip netns del {name} 2>/dev/null"));
    }
    let lab = Lab(guard);
    for name in NAMES {
        must(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ));
    }
    node(A, POD, "10.66.0.2/24", "192.0.2.1", "192.0.2.2");
    must(&format!(
        "ip -n {A} link add wire type veth peer name wire netns {B}"
    ));
    node(B, SERVER, "10.66.0.9/24", "192.0.2.2", "192.0.2.1");
    for (name, address) in [(A, "192.0.2.1/24"), (B, "192.0.2.2/24")] {
        must(&format!(
            "set -e; ip() {{ /sbin/ip -n {name} \"$@\"; }}; ip link set wire up; \
             ip link add mac0 link wire type macvlan mode bridge; ip addr add {address} dev mac0; ip link set mac0 up"
        ));
    }
    must(&format!("ip -n {A} addr add 10.66.0.1/24 dev br0"));
    must(&format!("ip -n {POD} route add default via 10.66.0.1"));
    must(&format!(
        "ip -n {A} route add default via 192.0.2.2 mtu 1400"
    ));
    lab
}

/// A bridge with one pod and a VXLAN.
fn node(node: &str, pod: &str, address: &str, local: &str, remote: &str) {
    must(&format!(
        "set -e; ip() {{ /sbin/ip -n {node} \"$@\"; }}; \
         ip link add br0 type bridge; ip link set br0 up; \
         ip link add p0 type veth peer name eth0 netns {pod}; ip link set p0 master br0 up; \
         ip link add vx0 type vxlan id 42 local {local} remote {remote} dstport 4789 noudpcsum; \
         ip link set vx0 master br0 up; \
         /sbin/ip -n {pod} addr add {address} dev eth0; /sbin/ip -n {pod} link set eth0 mtu 1450 up"
    ));
}

fn read() -> Snapshot {
    collect::snapshot().expect("/proc is there")
}

fn netns<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Netns {
    snapshot
        .netns_named(name)
        .unwrap_or_else(|| panic!("{name} is found"))
}

fn link<'a>(snapshot: &'a Snapshot, netns_name: &str, name: &str) -> &'a Link {
    let found = netns(snapshot, netns_name).link_named(name);
    found.unwrap_or_else(|| panic!("{name} of {netns_name} is found"))
}

fn to(address: &str) -> Target {
    Target::from(address.parse::<IpAddr>().expect("an address"))
}

fn resolve(snapshot: &Snapshot, from: &str, address: &str) -> Path {
    let from: Endpoint = from.parse().unwrap_or_else(|e| match e {});
    path::resolve(snapshot, &from, &to(address)).expect("the endpoint is there")
}

/// The path as words: `namespace/interface+overhead`.
fn words(snapshot: &Snapshot, path: &Path) -> Vec<String> {
    let hops = path.hops.iter().map(|hop| {
        let netns = snapshot.netns(hop.at.netns).expect("of the snapshot");
        let link = netns.link(hop.at.ifindex).expect("of the snapshot");
        format!("{}/{}+{}", netns.name, link.name, hop.overhead)
    });
    hops.collect()
}

#[test]
fn a_path_through_bridge_vxlan_and_macvlan_is_followed_to_the_other_pod() {
    let _lab = lab();
    let snapshot = read();
    let path = resolve(&snapshot, POD, SERVER_IP);
    assert_eq!(path.ends, "");
    assert_eq!(
        words(&snapshot, &path),
        [
            "tg-dr-pod/eth0+0",
            "tg-dr-a/p0+0",
            "tg-dr-a/vx0+0",
            "tg-dr-a/mac0+50",
            "tg-dr-a/wire+50",
            "tg-dr-b/wire+50",
            "tg-dr-b/mac0+50",
            "tg-dr-b/vx0+0",
            "tg-dr-b/p0+0",
            "tg-dr-srv/eth0+0",
        ]
    );
    let via = path.hops.get(3).map(|hop| hop.via.clone());
    assert_eq!(via, Some(Via::Tunnel("vxlan to 192.0.2.2".to_owned())));

    let routed = resolve(&snapshot, POD, "192.0.2.2");
    assert_eq!(
        words(&snapshot, &routed),
        [
            "tg-dr-pod/eth0+0",
            "tg-dr-a/p0+0",
            "tg-dr-a/br0+0",
            "tg-dr-a/mac0+0",
            "tg-dr-a/wire+0",
            "tg-dr-b/wire+0",
            "tg-dr-b/mac0+0",
        ]
    );
    let far = resolve(&snapshot, POD, "198.51.100.1");
    assert_eq!(far.ends, "tg-dr-b has no route to 198.51.100.1");
    let route = far.hops.get(3).map(|hop| hop.via.clone());
    let text = "default via 192.0.2.2 dev mac0 mtu 1400".to_owned();
    assert_eq!(route, Some(Via::Route(text)));
    assert!(
        resolve(&snapshot, POD, "2001:db8::1")
            .ends
            .contains("no route")
    );
    let own = resolve(&snapshot, POD, "10.66.0.2");
    assert_eq!(words(&snapshot, &own), ["tg-dr-pod/lo+0"]);
}

#[test]
fn what_a_link_is_reads_as_the_kernel_has_it() {
    let _lab = lab();
    must(&format!(
        "ip -n {A} link set wire gso_max_size 40000 gro_max_size 30000 mtu 1600"
    ));
    let snapshot = read();
    let vxlan = match &link(&snapshot, A, "vx0").kind {
        LinkKind::Vxlan(vxlan) => vxlan.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((vxlan.vni, vxlan.port, vxlan.udp_csum), (42, 4789, false));
    let macvlan = LinkKind::Other("macvlan".to_owned());
    assert_eq!(link(&snapshot, A, "mac0").kind, macvlan);
    assert_eq!(link(&snapshot, A, "br0").kind, LinkKind::Bridge);
    assert_eq!(link(&snapshot, A, "lo").kind, LinkKind::Loopback);
    let up = link(&snapshot, A, "wire");
    assert_eq!(
        (up.sizes.gso_max, up.sizes.gro_max, up.mtu),
        (40_000, 30_000, 1600)
    );
    assert_eq!(up.driver, "veth");
    let lower = link(&snapshot, A, "mac0")
        .link
        .and_then(|at| snapshot.link(at));
    assert_eq!(lower.map(|link| link.name.as_str()), Some("wire"));
    let peer = up.link.expect("its other end is known");
    assert_eq!(peer.netns, netns(&snapshot, B).id);
    let p0 = link(&snapshot, A, "p0");
    let master = netns(&snapshot, A).link(p0.master.expect("it is a port"));
    assert_eq!(master.map(|link| link.name.as_str()), Some("br0"));
    let default = netns(&snapshot, A)
        .routes
        .iter()
        .find(|route| route.to.prefix_len() == 0);
    assert_eq!(default.and_then(|route| route.mtu), Some(1400));
}

#[test]
fn features_are_active_wanted_and_fixed_as_ethtool_says() {
    let _lab = lab();
    let feature = |snapshot: &Snapshot, name: &str| {
        let feature = link(snapshot, POD, "eth0").feature(name).cloned();
        feature.map(|feature| (feature.active, feature.wanted, feature.fixed))
    };
    let snapshot = read();
    assert_eq!(
        feature(&snapshot, "tx-checksum-ip-generic"),
        Some((true, true, false))
    );
    assert_eq!(feature(&snapshot, "rx-lro"), Some((false, false, true)));
    must(&format!(
        "ip netns exec {POD} ethtool -K eth0 tx-checksum-ip-generic off"
    ));
    let snapshot = read();
    assert_eq!(
        feature(&snapshot, "tx-checksum-ip-generic"),
        Some((false, false, false))
    );
    // Nobody asked for this one to go: it needs the other.
    assert_eq!(
        feature(&snapshot, "tx-tcp-segmentation"),
        Some((false, true, false))
    );
    let shown = draw(
        &Case {
            now: snapshot.clone(),
            ..Case::default()
        },
        &resolve(&snapshot, POD, SERVER_IP),
        draw::Options::default(),
    );
    assert!(shown.contains("tso off [requested on]"), "{shown}");
}

#[test]
fn a_tap_says_whether_its_reader_gets_the_header() {
    let _lab = lab();
    must(&format!(
        "ip -n {A} tuntap add with mode tap vnet_hdr && ip -n {A} tuntap add without mode tap"
    ));
    must(&format!("ip -n {A} tuntap add packets mode tun"));
    let snapshot = read();
    let kind = |name| link(&snapshot, A, name).kind.clone();
    assert_eq!(
        kind("with"),
        LinkKind::Tun {
            tap: true,
            vnet_hdr: true
        }
    );
    assert_eq!(
        kind("without"),
        LinkKind::Tun {
            tap: true,
            vnet_hdr: false
        }
    );
    assert_eq!(
        kind("packets"),
        LinkKind::Tun {
            tap: false,
            vnet_hdr: false
        }
    );
}

/// Opens packet sockets on two interfaces, one of them with the virtio-net header and auxiliary
/// data, the other with a ring of frames of 2048 bytes and in a fanout group; says so, and waits
/// until its input ends.
const SOCKETS: &str = "
import socket, struct, sys
a = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
a.setsockopt(263, 15, 1)
a.setsockopt(263, 8, 1)
a.bind((sys.argv[1], 3))
b = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
b.setsockopt(263, 5, struct.pack('4I', 4096, 4, 2048, 8))
b.bind((sys.argv[2], 3))
b.setsockopt(263, 18, 77)
print('open', flush=True)
sys.stdin.read()
";

#[test]
fn packet_sockets_are_read_and_a_program_between_two_interfaces_is_a_hop() {
    use std::io::BufRead as _;
    let _lab = lab();
    // The program takes the bridge's place.
    must(&format!(
        "ip -n {B} link set p0 nomaster; ip -n {B} link set vx0 nomaster"
    ));
    let mut program = Command::new("ip")
        .args(["netns", "exec", B, "python3", "-c", SOCKETS, "vx0", "p0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut line = String::new();
    let output = program.stdout.take().expect("it was piped");
    std::io::BufReader::new(output)
        .read_line(&mut line)
        .expect("it speaks");
    assert_eq!(line, "open\n");
    let snapshot = read();
    let path = resolve(&snapshot, B, SERVER_IP);
    let from_pod = resolve(&snapshot, POD, SERVER_IP);
    drop(program.stdin.take());
    program.wait().expect("it ends");

    let on = |name: &str| {
        let ifindex = link(&snapshot, B, name).ifindex;
        let sockets = &netns(&snapshot, B).packet_sockets;
        let found = sockets.iter().find(|socket| socket.ifindex == ifindex);
        found
            .cloned()
            .unwrap_or_else(|| panic!("the socket on {name}"))
    };
    let (with, without) = (on("vx0"), on("p0"));
    assert!(with.vnet_hdr && with.aux_data);
    assert!(!without.vnet_hdr && !without.aux_data);
    assert_eq!((with.ring_frame, with.fanout), (0, false));
    assert_eq!((without.ring_frame, without.fanout), (2048, true));
    let process = with.process.expect("its process is found");
    assert_eq!(
        (process.pid, process.name.as_str()),
        (program.id(), "python3")
    );
    assert_ne!(path.ends, "", "the node itself has no route there");
    let engines = from_pod
        .hops
        .iter()
        .filter(|hop| matches!(hop.via, Via::Engine(_)));
    assert_eq!(engines.count(), 1, "{:?}", words(&snapshot, &from_pod));
    assert_eq!(from_pod.ends, "");
}

#[test]
fn an_xdp_program_is_seen_and_how_it_is_attached() {
    let _lab = lab();
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("pass.c");
    let text = "__attribute__((section(\"xdp\"))) int pass(void *c) { return 2; }\n\
                char _license[] __attribute__((section(\"license\"))) = \"GPL\";\n";
    std::fs::File::create(&source)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("it can be written");
    let object = directory.path().join("pass.o");
    let (source, object) = (source.display(), object.display());
    must(&format!("clang-14 -O2 -target bpf -c {source} -o {object}"));
    must(&format!(
        "ip -n {A} link set p0 xdpdrv obj {object} sec xdp"
    ));
    must(&format!(
        "ip -n {A} link set wire xdpgeneric obj {object} sec xdp"
    ));
    let snapshot = read();
    assert_eq!(link(&snapshot, A, "p0").xdp, Some(XdpMode::Native));
    assert_eq!(link(&snapshot, A, "wire").xdp, Some(XdpMode::Generic));
    assert_eq!(link(&snapshot, A, "vx0").xdp, None);
}

#[test]
fn the_packet_filter_is_read_in_the_namespace_that_has_it() {
    let _lab = lab();
    must(&format!(
        "ip netns exec {A} nft 'table inet t {{ chain f {{ type filter hook forward priority 0; \
         ct state invalid drop; tcp flags syn tcp option maxseg size set rt mtu; \
         meta l4proto icmp icmp type destination-unreachable drop; }}; \
         chain p {{ type nat hook postrouting priority 100; masquerade; }}; }}'"
    ));
    let snapshot = read();
    let filter = &netns(&snapshot, A).filter;
    assert!(filter.readable && filter.clamps_mss, "{filter:?}");
    assert_eq!(
        filter.drops_invalid.as_deref(),
        Some("inet t f: ct state invalid drop")
    );
    assert!(
        filter
            .drops_icmp
            .as_deref()
            .is_some_and(|rule| rule.contains("destination-unreachable"))
    );
    assert_eq!(
        filter.nat_of_tunnel.as_deref(),
        Some("inet t p: masquerade")
    );
    let other = &netns(&snapshot, B).filter;
    assert!(other.readable && !other.clamps_mss && other.nat.is_none());
}

#[test]
fn counters_and_settings_are_those_of_the_namespace() {
    let _lab = lab();
    must(&format!(
        "ip netns exec {A} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_mtu_probing=2"
    ));
    // To a closed port: one datagram for which there is no socket.
    let datagram = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))";
    must(&format!("ip netns exec {SERVER} python3 -c \"{datagram}\""));
    let snapshot = read();
    let setting = |name, key| netns(&snapshot, name).sysctls.get(key).map(String::as_str);
    assert_eq!(setting(A, "net.ipv4.ip_forward"), Some("1"));
    assert_eq!(setting(A, "net.ipv4.tcp_mtu_probing"), Some("2"));
    assert_eq!(setting(B, "net.ipv4.ip_forward"), Some("0"));
    assert_eq!(netns(&snapshot, SERVER).counter("Udp:NoPorts"), 1);
    assert_eq!(netns(&snapshot, POD).counter("Udp:NoPorts"), 0);
}

#[test]
fn endpoints_are_found_by_every_name_that_they_have() {
    let _lab = lab();
    let mut process = Command::new("ip")
        .args(["netns", "exec", POD, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut input = process.stdin.take().expect("it was piped");
    input.write_all(b"x").expect("cat reads");
    let mut byte = [0];
    let mut output = process.stdout.take().expect("it was piped");
    std::io::Read::read_exact(&mut output, &mut byte).expect("cat runs in the namespace now");
    let snapshot = read();
    drop(input);
    process.wait().expect("it ends");
    let pid = process.id();
    let names = [
        POD.to_owned(),
        format!("netns:{POD}"),
        format!("pid:{pid}"),
        format!("/run/netns/{POD}"),
        format!("/proc/{pid}/ns/net"),
    ];
    for name in names {
        let endpoint: Endpoint = name.parse().unwrap_or_else(|e| match e {});
        let found = path::namespace(&snapshot, &endpoint).map(|netns| netns.name.as_str());
        assert_eq!(found, Ok(POD), "{name}");
    }
    let nobody: Endpoint = "pod:shop/cart".parse().unwrap_or_else(|e| match e {});
    let error = path::namespace(&snapshot, &nobody).expect_err("nobody knows it");
    assert!(error.to_string().contains("container:ID"), "{error}");
}

/// A database server of Open vSwitch for this test, ended with it.
struct Database {
    server: std::process::Child,
    directory: tempfile::TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Database {
    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("db.sock")
    }

    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().display();
        must(&format!(
            "ovsdb-tool create {at}/db /usr/share/openvswitch/vswitch.ovsschema"
        ));
        let server = Command::new("ovsdb-server")
            .args([format!("{at}/db"), format!("--remote=punix:{at}/db.sock")])
            .arg(format!("--unixctl={at}/ctl"))
            .stderr(Stdio::null())
            .spawn()
            .expect("openvswitch-switch is installed");
        let database = Self { server, directory };
        // It waits for the server itself.
        database.must("init");
        database
    }

    fn must(&self, arguments: &str) {
        let socket = self.socket();
        let socket = socket.display();
        must(&format!(
            "ovs-vsctl --timeout=20 --retry --no-wait --db=unix:{socket} {arguments}"
        ));
    }
}

#[test]
fn a_switch_is_read_from_its_database_and_followed() {
    let _lab = lab();
    let database = Database::start();
    // The switch takes the bridge's place: what joins the ports is in the database. Their names are
    // looked up on the whole machine.
    for (port, renamed) in [("p0", "swp0"), ("vx0", "swvx0")] {
        must(&format!(
            "ip -n {A} link set {port} nomaster down && ip -n {A} link set {port} name {renamed} up"
        ));
    }
    must(&format!("ip -n {A} link del br0"));
    database.must(
        "set Open_vSwitch . other_config:userspace-tso-enable=true \
         -- add-br ovs0 -- set Bridge ovs0 datapath_type=netdev \
         -- add-port ovs0 swp0 tag=7 -- set Interface swp0 mtu_request=1400 \
         -- add-port ovs0 wires -- set Interface wires type=patch options:peer=ports \
         -- add-br ovs1 -- add-port ovs1 ports -- set Interface ports type=patch options:peer=wires \
         -- add-port ovs1 swvx0",
    );
    let options = collect::Options {
        ovs_database: Some(database.socket()),
        ..collect::Options::default()
    };
    let snapshot = collect::snapshot_with(&options).expect("/proc is there");
    let ovs = snapshot.ovs.as_ref().expect("the switch is read");
    assert!(ovs.userspace_tso);
    let bridge = ovs
        .bridges
        .iter()
        .find(|bridge| bridge.name == "ovs0")
        .expect("the bridge");
    assert_eq!(bridge.datapath_type, "netdev");
    let port = bridge
        .ports
        .iter()
        .find(|port| port.name == "swp0")
        .expect("the port");
    assert_eq!(
        (port.kind.as_str(), port.tag, port.mtu_request),
        ("system", Some(7), Some(1400))
    );
    let patch = bridge
        .ports
        .iter()
        .find(|port| port.name == "wires")
        .expect("the patch port");
    assert_eq!(patch.options.get("peer").map(String::as_str), Some("ports"));
    let path = resolve(&snapshot, POD, SERVER_IP);
    assert_eq!(path.ends, "");
    let way = words(&snapshot, &path);
    assert_eq!(
        way.get(..3).unwrap_or_default(),
        ["tg-dr-pod/eth0+0", "tg-dr-a/swp0+0", "tg-dr-a/swvx0+0"]
    );
    assert_eq!(path.hops.get(2).map(|hop| hop.via.clone()), Some(Via::Ovs));
}

/// What `tests/draw.rs` draws is this lab with a few faults. After a wanted change run, in this order,
/// `TOLLGATE_GOLDEN=write cargo test -p tollgate-doctor --test machine` and the same with `--test draw`,
/// and look at the difference.
#[test]
fn the_recording_is_of_this_lab() {
    let _lab = lab();
    must(&format!(
        "ip netns exec {POD} ethtool -K eth0 tx-checksum-ip-generic off"
    ));
    must(&format!("ip -n {SERVER} link set eth0 gso_max_size 30000"));
    let mut now = read();
    // The rest of the machine is nobody's business.
    now.namespaces
        .retain(|netns| NAMES.contains(&netns.name.as_str()));
    now.unreadable.clear();
    now.ovs = None;
    let file = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/two-nodes.json");
    if std::env::var_os("TOLLGATE_GOLDEN").is_some_and(|value| value == "write") {
        let json = serde_json::to_string(&now).expect("it can be written down");
        std::fs::write(&file, json + "\n").expect("the recording can be written");
    }
    let recorded = std::fs::read_to_string(&file).expect("the recording is there");
    let recorded: Snapshot = serde_json::from_str(&recorded).expect("it is a snapshot");
    let path = |snapshot| words(snapshot, &resolve(snapshot, POD, SERVER_IP));
    assert_eq!(path(&now), path(&recorded));
}
