//! Frame by frame: what comes out of the second port for what goes into the first.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_datapath::packet::{Options, PacketSocket, TAG_LEN};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::packet::{self, Layout, Packet, TcpFlags};
use tollgate_wire::vnet::VNET_HDR_LEN;

use crate::bed::{Daemon, PATIENCE, eventually};

const VLAN: u16 = 7;
/// Priority 3 and the VLAN.
const TCI: u16 = 3 << 13 | VLAN;
const API: &str = r#"http http.uri; content:"/v2/"; startswith;"#;
/// Time in which a frame that is not forwarded does not come.
const NOTHING: Duration = Duration::from_millis(300);

/// Ethernet addresses, source and destination, as a switch with service addresses has them: those of
/// replies are not those of requests turned round.
const REQUEST: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const REPLY: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]];
const PLACEHOLDER: [u8; 6] = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The outer ends of the daemon's two ports.
struct Ports {
    daemon: Daemon,
    into: PacketSocket,
    out: PacketSocket,
    netns: Netns,
}

struct Netns(String);

impl Netns {
    fn new(name: &str) -> Self {
        let netns = Self(format!("tg-di-{name}"));
        netns.remove();
        let name = &netns.0;
        ip(&format!("netns add {name}"));
        netns.inside(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        });
        for pair in PAIRS {
            netns.link(pair);
        }
        netns
    }

    fn link(&self, (inner, outer): (&str, &str)) {
        let name = &self.0;
        ip(&format!(
            "-n {name} link add {inner} type veth peer name {outer}"
        ));
        for end in [inner, outer] {
            ip(&format!("-n {name} link set {end} up"));
        }
    }

    /// On the outer ends.
    fn sockets(&self) -> (PacketSocket, PacketSocket) {
        self.inside(|| {
            let open = |name| PacketSocket::open(name, Options::default()).unwrap();
            (open("o0"), open("o1"))
        })
    }

    fn inside<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    fn remove(&self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The daemon's ports and their outer ends.
const PAIRS: [(&str, &str); 2] = [("t0", "o0"), ("t1", "o1")];

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}

/// What came out of the second port.
#[derive(Debug)]
struct Out {
    frame: Vec<u8>,
    layout: Layout,
}

impl Out {
    fn link(&self) -> [[u8; 6]; 2] {
        [self.layout.eth.src, self.layout.eth.dst]
    }

    fn flags(&self) -> TcpFlags {
        self.layout.tcp().unwrap().flags
    }

    fn payload(&self) -> &[u8] {
        self.layout.payload(&self.frame)
    }
}

impl Ports {
    fn new(name: &str) -> Self {
        Self::with(name, API)
    }

    fn with(name: &str, rule: &str) -> Self {
        let netns = Netns::new(name);
        let daemon = Daemon::between(&netns.0, ["t0", "t1"], "");
        let (into, out) = netns.sockets();
        let yaml = daemon.write_tenant(VLAN, &[rule]);
        daemon.ok(
            &format!("register-tenant {VLAN} {yaml}"),
            "adding tenant succeeded",
        );
        let handler = format!("register-tenant-handler {VLAN} vlan {VLAN}");
        daemon.ok(&handler, "handler added");
        Self {
            daemon,
            into,
            out,
            netns,
        }
    }

    fn put(&self, frame: &[u8]) {
        self.into.send(frame).unwrap();
    }

    /// The next frame, within a time.
    fn next(&self, within: Duration) -> Option<Out> {
        let end = Instant::now() + within;
        let mut buffer = vec![0; TAG_LEN + 2000];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.out, PollFlags::IN)];
            let time = Timespec {
                tv_sec: left.as_secs().try_into().unwrap(),
                tv_nsec: left.subsec_nanos().into(),
            };
            if poll(&mut fds, Some(&time)).unwrap() == 0 {
                return None;
            }
            let received = self.out.receive(&mut buffer[TAG_LEN..]).unwrap();
            let frame = received.whole(&mut buffer, false).to_vec();
            if let Ok(Packet::Ip(layout)) = packet::parse(&frame) {
                return Some(Out { frame, layout });
            }
        }
    }

    fn get(&self) -> Out {
        self.next(PATIENCE).expect("a frame comes out")
    }

    fn passes(&self, frame: &[u8]) {
        self.put(frame);
        assert_eq!(self.get().frame, frame);
    }

    fn is_dropped(&self, frame: &[u8]) {
        self.put(frame);
        let came = self.next(NOTHING);
        assert!(came.is_none(), "{came:?}");
    }

    fn counter(&self, name: &str) -> u64 {
        self.daemon.counters()["tollgate"][name].as_u64().unwrap()
    }

    /// Nothing was ever sent by the port that frames come from.
    fn first_port_is_silent(&self) {
        let mut buffer = [0; 2000];
        let error = self.into.receive(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    server: SocketAddr,
    request: [[u8; 6]; 2],
    reply: [[u8; 6]; 2],
}

impl Ends {
    fn new(client: &str, server: &str) -> Self {
        Self {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            request: REQUEST,
            reply: REPLY,
        }
    }

    fn request(&self, seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        segment(
            self.request,
            self.client,
            self.server,
            (seq, ack, flags),
            payload,
        )
    }

    fn reply(&self, seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        segment(
            self.reply,
            self.server,
            self.client,
            (seq, ack, flags),
            payload,
        )
    }

    /// The handshake, from 1000 and 5000.
    fn open(&self, ports: &Ports) {
        ports.put(&self.request(1000, 0, TcpFlags::SYN, b""));
        assert_eq!(ports.get().link(), self.request);
        ports.put(&self.reply(5000, 1001, syn_ack(), b""));
        ports.get();
        ports.passes(&self.request(1001, 5001, TcpFlags::ACK, b""));
    }
}

fn syn_ack() -> TcpFlags {
    TcpFlags::SYN | TcpFlags::ACK
}

fn psh_ack() -> TcpFlags {
    TcpFlags::PSH | TcpFlags::ACK
}

fn segment(
    [src_mac, dst_mac]: [[u8; 6]; 2],
    src: SocketAddr,
    dst: SocketAddr,
    (seq, ack, flags): (u32, u32, TcpFlags),
    payload: &[u8],
) -> Vec<u8> {
    let l2 = L2 {
        src: src_mac,
        dst: dst_mac,
        vlan: Some(TCI),
    };
    let segment = Segment {
        src,
        dst,
        seq,
        ack,
        flags,
        window: 1000,
        payload,
        hop_limit: 63,
    };
    let mut frame = Vec::new();
    build::tcp(&mut frame, &l2, &segment).unwrap();
    frame.split_off(VNET_HDR_LEN)
}

const CONNECTIONS: [(&str, &str); 2] = [
    ("10.10.0.3:40000", "10.10.1.9:8080"),
    ("[fd00::3]:40000", "[fd00::9]:8080"),
];

#[test]
fn what_the_engine_makes_goes_the_way_of_the_flows_own_packets() {
    let ports = Ports::new("raw");
    for (client, server) in CONNECTIONS {
        let ends = Ends::new(client, server);
        ends.open(&ports);
        // Nothing that begins with this may pass: both ends are reset.
        ports.put(&ends.request(1001, 5001, psh_ack(), b"\x00\x1cDNS?"));
        let made = [ports.get(), ports.get()];
        for frame in &made {
            assert!(frame.flags().rst(), "{frame:?}");
            assert_eq!(frame.layout.eth.vlan.unwrap() & 0xfff, VLAN);
            let to_server = frame.layout.dst == ends.server.ip();
            let expected = if to_server { ends.request } else { ends.reply };
            assert_eq!(frame.link(), expected, "{frame:?}");
        }
        assert_ne!(made[0].layout.dst, made[1].layout.dst);
        // A request that is refused: the answer in the server's name, on the server's way.
        let ends = Ends {
            client: SocketAddr::new(ends.client.ip(), 40_001),
            ..ends
        };
        ends.open(&ports);
        let request = b"GET /v1/ HTTP/1.1\r\nHost: x\r\n\r\n";
        ports.put(&ends.request(1001, 5001, psh_ack(), request));
        let answer = ports.get();
        assert!(answer.payload().starts_with(b"HTTP/1.1 403 "), "{answer:?}");
        assert_eq!(answer.link(), ends.reply);
        let reset = ports.get();
        assert!(reset.flags().rst());
        assert_eq!(reset.link(), ends.request);
    }
    ports.first_port_is_silent();
}

#[test]
fn frames_pass_as_they_are_and_only_those_of_known_flows() {
    let ports = Ports::new("frames");
    let (client, server) = CONNECTIONS[0];
    let ends = Ends::new(client, server);
    // A SYN-ACK whose SYN was not seen: the client will send its SYN again.
    ports.is_dropped(&ends.reply(5000, 1001, syn_ack(), b""));
    ends.open(&ports);
    let request = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    ports.passes(&ends.request(1001, 5001, psh_ack(), request));
    ports.passes(&ends.reply(5001, 1031, psh_ack(), b"HTTP/1.1 204 No\r\n\r\n"));
    // The server cannot make itself the client.
    ports.is_dropped(&ends.reply(9000, 0, TcpFlags::SYN, b""));
    // Nor after an RST that somebody forged.
    ports.put(&ends.request(77_777, 0, TcpFlags::RST, b""));
    let _ = ports.next(NOTHING);
    ports.is_dropped(&ends.reply(9000, 0, TcpFlags::SYN, b""));
    assert_eq!(ports.counter("reversed_syn"), 2);
    // An ICMP error about the flow passes, from whoever it comes; one about no flow does not.
    let error_about = |frame: &[u8]| {
        let Ok(Packet::Ip(layout)) = packet::parse(frame) else {
            panic!("no packet")
        };
        let l2 = L2::back(&layout.eth);
        let mut error = Vec::new();
        let router = "10.10.0.1".parse().unwrap();
        build::icmp_admin_prohibited(&mut error, &l2, frame, &layout, router).unwrap();
        error.split_off(VNET_HDR_LEN)
    };
    ports.passes(&error_about(&ends.request(1031, 5020, TcpFlags::ACK, b"")));
    let other = Ends::new("10.10.0.4:40000", server);
    ports.is_dropped(&error_about(&other.request(1, 1, TcpFlags::ACK, b"")));
    assert_eq!(ports.counter("unrelated_icmp"), 1);
    // A copy for observers: no tag, nothing happens.
    let tagged = other.request(1000, 0, TcpFlags::SYN, b"");
    let untagged = [&tagged[..12], &tagged[16..]].concat();
    ports.is_dropped(&untagged);
    let untagged = &ports.daemon.counters()["capture"]["t0"]["untagged"];
    assert_eq!(untagged, 1);
    // Another VLAN, without rules: whatever it is, it passes, in the middle of a connection too.
    let mut stranger = other.request(1, 1, TcpFlags::ACK, b"data");
    stranger[14..16].copy_from_slice(&9_u16.to_be_bytes());
    ports.passes(&stranger);
    ports.first_port_is_silent();
}

/// The switch's database alone, with one pod in it.
struct Database(Child);

impl Database {
    fn start(ports: &Ports) -> Self {
        let dir = ports.daemon.path("ovs");
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("conf.db");
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .env("OVS_RUNDIR", &dir)
                .output()
                .unwrap();
            assert!(output.status.success(), "{program} {args:?}: {output:?}");
        };
        let name = file.to_str().unwrap();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run("ovsdb-tool", &["create", name, schema]);
        let socket = dir.join("db.sock");
        let server = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", dir.join("ctl").display()))
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = Self(server);
        eventually("the database", || socket.exists());
        run("ovs-vsctl", &["--no-wait", "init"]);
        run("ovs-vsctl", &["--no-wait", "add-br", "br0"]);
        run("ovs-vsctl", &["--no-wait", "add-port", "br0", "gw0"]);
        let ids = [
            "external_ids:attached-mac=\"02:00:00:00:00:09\"",
            "external_ids:ip-address=\"10.10.0.3,fd00::3\"",
        ];
        let args = [
            "--no-wait",
            "add-port",
            "br0",
            "pod",
            "--",
            "set",
            "Port",
            "pod",
        ];
        run("ovs-vsctl", &[&args[..], &ids].concat());
        database
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn replies_out_of_a_tunnel_get_the_pods_own_address() {
    let ports = Ports::new("pods");
    let _database = Database::start(&ports);
    for (client, server) in CONNECTIONS {
        let ends = Ends {
            // The request goes into the tunnel, to a pod that is not here: the placeholder stays.
            request: [REQUEST[0], PLACEHOLDER],
            reply: [REPLY[0], PLACEHOLDER],
            ..Ends::new(client, server)
        };
        ports.passes(&ends.request(1000, 0, TcpFlags::SYN, b""));
        let expected = [ends.reply[0], POD_MAC];
        // The first reply makes the daemon ask; the server sends it again.
        eventually("the pod's address", || {
            ports.put(&ends.reply(5000, 1001, syn_ack(), b""));
            ports.get().link() == expected
        });
        ports.passes(&ends.request(1001, 5001, TcpFlags::ACK, b""));
        ports.put(&ends.request(1001, 5001, psh_ack(), b"\x00\x1cDNS?"));
        // What is made for the pod has it too.
        let made = [ports.get(), ports.get()];
        let reset = made.iter().find(|out| out.layout.dst == ends.client.ip());
        assert_eq!(reset.unwrap().link(), expected);
    }
    assert!(ports.counter("pod_macs") >= 4);
}

#[test]
fn the_switch_takes_over_what_is_decided() {
    // Any TCP passes: decided with the SYN.
    let ports = Ports::with("offload", "tcp");
    // The kernel has such a connection in the switch's zone, marked as the switch marks it.
    let rules = "table inet t {\n\
         chain out { type filter hook output priority raw; ct zone set 65520; }\n\
         chain in { type filter hook prerouting priority raw; ct zone set 65520; }\n\
         chain marks { type filter hook output priority 0; ct state new ct mark set 0x81; }\n}\n";
    let file = ports.daemon.path("rules.nft");
    std::fs::write(&file, rules).unwrap();
    let (client, server, _held) = ports.netns.inside(move || {
        let run = |line: &str| {
            let mut words = line.split(' ');
            let program = words.next().unwrap();
            let output = Command::new(program).args(words).output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
        };
        run("ip link set lo up");
        run("ip addr add 10.99.0.1/32 dev lo");
        run(&format!("nft -f {}", file.display()));
        let listener = std::net::TcpListener::bind("10.99.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(server).unwrap();
        (stream.local_addr().unwrap(), server, (stream, listener))
    });
    let ends = Ends::new(&client.to_string(), &server.to_string());
    ends.open(&ports);
    eventually("the switch has it", || ports.counter("offloaded") == 1);
    // Forgotten here, since its end will not be seen; what is still under way passes.
    eventually("it is forgotten", || {
        ports.counter("flows_ended") == ports.counter("flows_opened")
    });
    ports.passes(&ends.request(1001, 5001, psh_ack(), b"late"));
    ports.passes(&ends.reply(5001, 1005, psh_ack(), b"late too"));
    assert_eq!(ports.counter("unjudged"), 2);
    // The same ends again are another connection.
    ends.open(&ports);
    assert_eq!(ports.counter("flows_opened"), 2);
    // One that the kernel does not have goes on here.
    let other = Ends::new("10.99.0.1:1", &server.to_string());
    other.open(&ports);
    eventually("it cannot be", || ports.counter("offload_failed") >= 1);
    ports.passes(&other.request(1001, 5001, psh_ack(), b"data"));
    assert_eq!(ports.counter("unjudged"), 2);
}

#[test]
fn ports_that_are_made_anew_are_opened_anew() {
    let mut ports = Ports::new("anew");
    let (client, server) = CONNECTIONS[0];
    for (round, (inner, outer)) in PAIRS.into_iter().enumerate() {
        let name = ports.netns.0.clone();
        ip(&format!("-n {name} link del {inner}"));
        ports.netns.link((inner, outer));
        (ports.into, ports.out) = ports.netns.sockets();
        let ends = Ends {
            client: SocketAddr::new(
                client.parse::<SocketAddr>().unwrap().ip(),
                40_000 + round as u16,
            ),
            ..Ends::new(client, server)
        };
        eventually("frames pass again", || {
            ports.put(&ends.request(1000, 0, TcpFlags::SYN, b""));
            ports.next(NOTHING).is_some()
        });
        while ports.next(NOTHING).is_some() {}
        // With the tenants.
        ports.passes(&ends.reply(5000, 1001, syn_ack(), b""));
        ports.passes(&ends.request(1001, 5001, TcpFlags::ACK, b""));
        let request = b"GET /v1/ HTTP/1.1\r\nHost: x\r\n\r\n";
        ports.put(&ends.request(1001, 5001, psh_ack(), request));
        assert!(ports.get().payload().starts_with(b"HTTP/1.1 403 "));
        while ports.next(NOTHING).is_some() {}
    }
}

#[test]
fn an_answers_status_is_told_only_if_it_is_certain_whose_it_is() {
    let ports = Ports::new("status");
    let (client, server) = CONNECTIONS[0];
    let ends = Ends::new(client, server);
    let request = |path: &str| format!("GET /v2/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n";
    // One after the other.
    ends.open(&ports);
    let one = request("one");
    ports.passes(&ends.request(1001, 5001, psh_ack(), one.as_bytes()));
    let after = 1001 + one.len() as u32;
    ports.passes(&ends.reply(5001, after, psh_ack(), answer));
    // Both at once, then another: whose an answer is would have to be counted out.
    let ends = Ends {
        client: SocketAddr::new(ends.client.ip(), 40_001),
        ..ends
    };
    ends.open(&ports);
    let both = request("two") + &request("three");
    ports.passes(&ends.request(1001, 5001, psh_ack(), both.as_bytes()));
    let after = 1001 + both.len() as u32;
    ports.passes(&ends.reply(5001, after, psh_ack(), answer));
    let four = request("four");
    ports.passes(&ends.request(
        after,
        5001 + answer.len() as u32,
        psh_ack(),
        four.as_bytes(),
    ));
    eventually("four events", || ports.daemon.events().len() == 4);
    let told: Vec<_> = ports
        .daemon
        .events()
        .iter()
        .map(|event| {
            let http = &event["http"];
            (
                http["url"].as_str().unwrap().to_owned(),
                http["status"].as_u64(),
            )
        })
        .collect();
    let expected = [
        ("/v2/one", Some(204)),
        ("/v2/two", None),
        ("/v2/three", None),
        ("/v2/four", None),
    ];
    assert_eq!(told, expected.map(|(url, status)| (url.to_owned(), status)));
}
