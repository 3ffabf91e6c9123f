//! A node with two pods, a gateway behind which there is an outside, and a tunnel to another node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use tollgate_lab::run::{Cmd, Output};

use crate::pipeline::{self, Family, Local, Match, Ports, VIRTUAL_MAC};

/// Bound of a wait for something that takes milliseconds; generous for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// MTU of pods, gateway and engine's ports: the tunnel's header fits into the wire's 1500.
pub const MTU: usize = 1450;

const GATEWAY: Local = Local {
    port: 2,
    mac: "02:0a:0a:00:00:01",
    addresses: ["10.10.0.1", "fd10::1"],
};
pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
const PODS: [Local; 2] = [
    Local {
        port: 3,
        mac: "02:0a:0a:00:00:02",
        addresses: ["10.10.0.2", "fd10::2"],
    },
    Local {
        port: 4,
        mac: "02:0a:0a:00:00:03",
        addresses: ["10.10.0.3", "fd10::3"],
    },
];
const TUNNEL: u16 = 1;
const TAP0: u16 = 10;
const TAP1: u16 = 11;
/// The pod on the other node.
pub const REMOTE: [&str; 2] = ["10.10.1.9", "fd11::9"];
/// The outside; also the other node's own address, and where its tunnel ends.
pub const OUTSIDE: [&str; 2] = [pipeline::OTHER_NODE, "2001:db8:100::2"];
/// This node's own address, by which pods are masqueraded.
pub const NODE: [&str; 2] = ["198.51.100.1", "2001:db8:100::1"];
/// An Egress address.
pub const EGRESS: [&str; 2] = ["198.51.100.77", "2001:db8:100::77"];
const NODE_MAC: &str = "02:c6:33:64:00:01";
const OUT_MAC: &str = "02:c6:33:64:00:02";

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node,
    Client,
    Server,
    /// The other node, which is also the outside.
    Out,
}

const PLACES: [(Place, &str); 4] = [
    (Place::Node, "n"),
    (Place::Client, "c"),
    (Place::Server, "s"),
    (Place::Out, "o"),
];

/// Whether the switch's datapath is the kernel's.
pub fn kernel_datapath() -> bool {
    std::env::var("TOLLGATE_OVS_DATAPATH").is_ok_and(|kind| kind == "system")
}

pub struct Bed {
    name: &'static str,
    dir: tempfile::TempDir,
    pub ports: Ports,
    processes: Vec<Child>,
}

impl Bed {
    /// A node without policy: flows as of Antrea, but for layer 7.
    pub fn new(name: &'static str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        let ports = Ports {
            gateway: GATEWAY,
            pods: PODS.into(),
            tunnel: TUNNEL,
            tap0: TAP0,
            tap1: TAP1,
            remote_pod: REMOTE,
        };
        let mut bed = Self {
            name,
            dir: tempfile::tempdir().unwrap(),
            ports,
            processes: Vec::new(),
        };
        bed.clear();
        bed.places();
        bed.switch();
        bed.addresses();
        bed.other_node();
        bed.add_flows(&pipeline::node(&bed.ports));
        bed
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn netns(&self, place: Place) -> String {
        let (_, suffix) = PLACES.iter().find(|(p, _)| *p == place).unwrap();
        format!("tg-an-{}-{suffix}", self.name)
    }

    /// A command in a place.
    pub fn command(&self, place: Place, cmd: Cmd) -> Cmd {
        cmd.env("OVS_RUNDIR", self.dir.path())
            .in_netns(&self.netns(place))
    }

    /// Runs a shell line somewhere, whatever comes of it.
    pub fn output(&self, place: Place, line: &str) -> Output {
        let cmd = Cmd::new("bash").args(["-c", line]);
        self.command(place, cmd).output().unwrap()
    }

    /// Runs a shell line somewhere; it must succeed.
    pub fn run(&self, place: Place, line: &str) -> String {
        let cmd = Cmd::new("bash").args(["-c", line]);
        self.command(place, cmd).run().unwrap().stdout
    }

    /// Starts something that lives as long as the bed, or until it is ended by its number.
    pub fn start(&mut self, place: Place, cmd: Cmd, log: &str) -> u32 {
        let child = self.command(place, cmd).spawn(&self.path(log)).unwrap();
        let pid = child.id();
        self.processes.push(child);
        pid
    }

    /// Ends what [`Self::start`] started, at once.
    pub fn end(&mut self, pid: u32) {
        let at = self.processes.iter().position(|c| c.id() == pid).unwrap();
        let mut child = self.processes.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until a log has a line that begins so.
    pub fn logged(&self, log: &str, beginning: &str) {
        until(&format!("{log}: {beginning}"), || {
            let text = fs::read_to_string(self.path(log)).ok()?;
            let found = text.lines().any(|line| line.starts_with(beginning));
            found.then_some(())
        });
    }

    fn places(&self) {
        for (place, _) in PLACES {
            sh(&format!("ip netns add {}", self.netns(place)));
            self.run(
                place,
                "ip link set lo up; sysctl -qw net.ipv6.conf.default.accept_dad=0 \
                             net.ipv6.conf.all.accept_dad=0",
            );
        }
    }

    fn switch(&mut self) {
        let database = self.path("conf.db");
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let create = Cmd::new("ovsdb-tool")
            .arg("create")
            .arg(&database)
            .arg(schema);
        create.run().unwrap();
        let ovsdb = Cmd::new("ovsdb-server")
            .arg(&database)
            .arg(format!("--remote=punix:{}", self.path("db.sock").display()))
            .arg(format!("--unixctl={}", self.path("db.ctl").display()));
        self.start(Place::Node, ovsdb, "ovsdb.log");
        self.answers("db.sock");
        self.vsctl("--no-wait init");
        let vswitchd = Cmd::new("ovs-vswitchd")
            .arg(format!("unix:{}", self.path("db.sock").display()))
            .arg(format!("--unixctl={}", self.path("vswitchd.ctl").display()));
        self.start(Place::Node, vswitchd, "vswitchd.log");
        self.answers("vswitchd.ctl");
        self.bridges();
    }

    fn answers(&self, socket: &str) {
        let path = self.path(socket);
        until(&format!("{} is there", path.display()), || {
            path.exists().then_some(())
        });
    }

    fn vsctl(&self, line: &str) {
        let socket = self.path("db.sock");
        self.run(
            Place::Node,
            &format!("ovs-vsctl --db=unix:{} {line}", socket.display()),
        );
    }

    /// The integration bridge, and one that holds the node's own address, where tunnels end.
    fn bridges(&self) {
        self.run(
            Place::Node,
            &format!(
                "ip link add up0 mtu 1500 type veth peer name eth0 address {OUT_MAC} netns {}; \
                 ip link set up0 up",
                self.netns(Place::Out)
            ),
        );
        for (place, ifname, pod) in [
            (Place::Client, "podc", &self.ports.pods[CLIENT]),
            (Place::Server, "pods", &self.ports.pods[SERVER]),
        ] {
            self.run(
                Place::Node,
                &format!(
                    "ip link add {ifname} mtu {MTU} type veth peer name eth0 address {} mtu {MTU} \
                     netns {}; ip link set {ifname} up",
                    pod.mac,
                    self.netns(place)
                ),
            );
        }
        let datapath = if kernel_datapath() {
            "system"
        } else {
            "netdev"
        };
        let internal = |name: &str, port: u16| {
            format!(
                "-- add-port br-int {name} -- set interface {name} type=internal \
                 ofport_request={port} mtu_request={MTU} "
            )
        };
        // The agent keeps with each port whose it is.
        let known = |name: &str, pod: &Local| {
            let [v4, v6] = pod.addresses;
            format!(
                "-- set port {name} external_ids:attached-mac=\\\"{}\\\" \
                 external_ids:ip-address=\\\"{v4},{v6}\\\" ",
                pod.mac
            )
        };
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type={datapath} other-config:hwaddr=\\\"{NODE_MAC}\\\" \
             -- add-port br-phy up0 \
             -- add-br br-int -- set bridge br-int datapath_type={datapath} fail_mode=secure \
             -- add-port br-int tun0 -- set interface tun0 type=vxlan options:remote_ip=flow \
             ofport_request={TUNNEL} {}-- set interface antrea-gw0 mac=\\\"{}\\\" {}{}\
             -- add-port br-int podc -- set interface podc ofport_request={} {}\
             -- add-port br-int pods -- set interface pods ofport_request={} {}",
            internal("antrea-gw0", GATEWAY.port),
            GATEWAY.mac,
            internal("antrea-l7-tap0", TAP0),
            internal("antrea-l7-tap1", TAP1),
            PODS[CLIENT].port,
            known("podc", &PODS[CLIENT]),
            PODS[SERVER].port,
            known("pods", &PODS[SERVER]),
        ));
        // OpenFlow 1.0: later versions have no such flag.
        for port in ["antrea-l7-tap0", "antrea-l7-tap1", "tun0"] {
            self.run(
                Place::Node,
                &format!("ovs-ofctl mod-port br-int {port} no-flood"),
            );
        }
    }

    fn addresses(&self) {
        let [v4, v6] = NODE;
        let [e4, e6] = EGRESS;
        let mark = pipeline::EGRESS_MARK;
        self.run(
            Place::Node,
            &format!(
                "set -e; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
                 for i in antrea-gw0 antrea-l7-tap0 antrea-l7-tap1 br-phy; do ip link set $i up; done
                 ip addr add {v4}/24 dev br-phy; ip addr add {v6}/64 dev br-phy nodad
                 ip addr add {e4}/32 dev br-phy; ip addr add {e6}/128 dev br-phy nodad preferred_lft 0
                 ip addr add {}/24 dev antrea-gw0; ip addr add {}/64 dev antrea-gw0 nodad
                 nft -f - <<END
                 table inet tg {{
                   chain out {{
                     type nat hook postrouting priority srcnat
                     oifname br-phy meta mark and 0xff == {mark} meta nfproto ipv4 snat ip to {e4}
                     oifname br-phy meta mark and 0xff == {mark} meta nfproto ipv6 snat ip6 to {e6}
                     oifname br-phy ip saddr 10.10.0.0/24 masquerade
                     oifname br-phy ip6 saddr fd10::/64 masquerade
                   }}
                 }}
END",
                GATEWAY.addresses[0], GATEWAY.addresses[1]
            ),
        );
        for (place, pod) in [(Place::Client, CLIENT), (Place::Server, SERVER)] {
            let [v4, v6] = PODS[pod].addresses;
            self.run(
                place,
                &format!(
                    "set -e; ip link set eth0 up; ip addr add {v4}/24 dev eth0; \
                     ip addr add {v6}/64 dev eth0 nodad; ip route add default via {}; \
                     ip route add default via {}",
                    GATEWAY.addresses[0], GATEWAY.addresses[1]
                ),
            );
        }
        if !kernel_datapath() {
            // What a datapath in user space reads, the kernel would take in as well.
            self.run(
                Place::Node,
                "nft add table netdev tg; for i in podc pods up0; do \
                 nft add chain netdev tg $i \
                 \"{ type filter hook ingress device $i priority 0; policy drop; }\"; done",
            );
            // And it knows neither unfilled checksums nor super-packets.
            for place in [Place::Client, Place::Server, Place::Out] {
                self.run(place, "ethtool -K eth0 tx off >/dev/null");
            }
        }
    }

    /// The other node: a pod's address on the tunnel's device, and a router's way of sending.
    fn other_node(&self) {
        let [v4, v6] = OUTSIDE;
        let mut script = format!(
            "set -e; ip link set eth0 up; ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad
             ip link add vx0 mtu {MTU} address {VIRTUAL_MAC} type vxlan id 0 dstport 4789 \
                local {v4} remote {} nolearning
             ip link set vx0 up; ip addr add {}/24 dev vx0; ip addr add {}/64 dev vx0 nodad
             ip route add {} dev vx0; ip route add {} dev vx0
             ",
            NODE[0], REMOTE[0], REMOTE[1], pipeline::LOCAL_PODS[0], pipeline::LOCAL_PODS[1]
        );
        for address in PODS.iter().flat_map(|pod| pod.addresses) {
            script.push_str(&format!(
                "ip neigh add {address} lladdr {VIRTUAL_MAC} dev vx0 nud permanent\n"
            ));
        }
        self.run(Place::Out, &script);
        if !kernel_datapath() {
            self.appctl(&format!("tnl/arp/set br-phy {v4} {OUT_MAC}"));
        }
    }

    pub fn appctl(&self, line: &str) -> String {
        let socket = self.path("vswitchd.ctl");
        self.run(
            Place::Node,
            &format!("ovs-appctl -t {} {line}", socket.display()),
        )
    }

    pub fn add_flows(&self, flows: &str) {
        let file = self.path("flows");
        fs::write(&file, flows).unwrap();
        self.run(
            Place::Node,
            &format!(
                "ovs-ofctl -O OpenFlow15 add-flows br-int {}",
                file.display()
            ),
        );
        self.settle();
    }

    /// Waits until the datapath has no flow left that it learnt from tables before the change.
    fn settle(&self) {
        self.appctl("revalidator/wait");
    }

    /// The flows of a layer-7 rule; the first brings those of layer 7.
    pub fn add_rule(&self, rule: &Match, vlan: u16, id: u32) {
        self.add_flows(&pipeline::layer_7(&self.ports));
        self.add_flows(&pipeline::rule(rule, vlan, id, &self.ports));
    }

    /// Takes the flows of a rule away. Connections keep their VLAN.
    pub fn delete_rule(&self, rule: &Match) {
        for (_, matches) in pipeline::rule_matches(rule, &self.ports) {
            self.run(
                Place::Node,
                &format!("ovs-ofctl -O OpenFlow15 --strict del-flows br-int '{matches}'"),
            );
        }
        self.settle();
    }

    /// Starts the web servers of a place.
    pub fn serve(&mut self, place: Place, name: &str, ports: &str) {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        if !cert.exists() {
            let line = format!(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj \
                 /CN=test -days 2 -keyout {} -out {}",
                key.display(),
                cert.display()
            );
            Cmd::line(&line).run().unwrap();
        }
        let log = format!("{name}.log");
        let cmd = Cmd::new("python3")
            .arg(here("servers.py"))
            .args([name])
            .args([&cert, &key])
            .args(ports.split(' '));
        self.start(place, cmd, &log);
        self.logged(&log, "ready");
    }

    fn clear(&self) {
        for (place, _) in PLACES {
            let name = self.netns(place);
            if Path::new("/run/netns").join(&name).exists() {
                let _ = Cmd::line(&format!("ip netns del {name}")).output();
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(self.dir.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name();
                if name.to_string_lossy().ends_with(".log") {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    eprintln!("{}:\n{text}", name.display());
                }
            }
        }
        // The switch last: the kernel's datapath is deleted with its bridges.
        for bridge in ["br-int", "br-phy"] {
            let socket = self.path("db.sock");
            let line = format!(
                "ovs-vsctl --timeout=5 --db=unix:{} del-br {bridge}",
                socket.display()
            );
            let _ = Cmd::line(&line).output();
        }
        for mut process in self.processes.drain(..).rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        self.clear();
    }
}

/// A file beside the tests' sources.
pub fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/antrea")
        .join(name)
}

/// An address in a URL.
pub fn in_url(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// A pod's address.
pub fn pod(pod: usize, family: Family) -> &'static str {
    PODS[pod].addresses[family.index()]
}

pub fn sh(line: &str) {
    Cmd::line(line).run().unwrap();
}

/// Waits until there is an answer; fails after [`SOON`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        std::thread::sleep(POLL);
    }
}
