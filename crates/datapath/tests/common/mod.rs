//! A pod, a node and an outside host in network namespaces, and an engine that echoes.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod bench;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_datapath::bpf::{self, Programs, Settings};
use tollgate_datapath::counters::Counters;
use tollgate_datapath::endpoints::{EndpointEntry, Endpoints};
use tollgate_datapath::links;
use tollgate_datapath::tap::{MAX_FRAME_LEN, Offloads, Tap, VNET_HEADER_LEN};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::{Direction, EndpointId, Tag};

pub const POD_V4: &str = "10.9.0.2";
pub const OUT_V4: &str = "10.8.0.2";
pub const POD_V6: &str = "fd09::2";
pub const OUT_V6: &str = "fd08::2";
/// The endpoint's interface on the node.
pub const POD_LINK: &str = "pod0";
pub const TAP: &str = "tg0";
/// Longer than anything here takes; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs in a thread of its own in a namespace.
pub fn inside<T: Send + 'static>(
    netns: &str,
    f: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        f()
    })
}

/// Link-local addresses are usable at once; until they are, neighbours cannot be asked for.
fn without_duplicate_detection() {
    for scope in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").unwrap();
    }
}

/// Three namespaces, and pins, that go when this goes. The calling thread moves to the node.
pub struct Lab {
    pub pod: String,
    pub node: String,
    pub out: String,
    pub pins: PathBuf,
}

impl Lab {
    pub fn new(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        mount_bpffs();
        let lab = Self {
            pod: format!("tg-dp-{name}-pod"),
            node: format!("tg-dp-{name}-node"),
            out: format!("tg-dp-{name}-out"),
            pins: PathBuf::from(format!("/sys/fs/bpf/tg-dp-{name}")),
        };
        lab.remove();
        for netns in [&lab.pod, &lab.node, &lab.out] {
            run(&format!("ip netns add {netns}"));
            run(&format!("ip -n {netns} link set lo up"));
            inside(netns, without_duplicate_detection).join().unwrap();
        }
        lab.wire(&lab.pod, POD_LINK, "10.9.0", "fd09:");
        lab.wire(&lab.out, "out0", "10.8.0", "fd08:");
        let file = File::open(format!("/run/netns/{}", lab.node)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        lab
    }

    /// A veth pair between the node and a namespace, where it is called eth0.
    fn wire(&self, netns: &str, link: &str, v4: &str, v6: &str) {
        let node = &self.node;
        run(&format!(
            "ip -n {node} link add {link} type veth peer name eth0 netns {netns}"
        ));
        for (ns, dev, host) in [(node.as_str(), link, 1), (netns, "eth0", 2)] {
            run(&format!("ip -n {ns} addr add {v4}.{host}/24 dev {dev}"));
            run(&format!(
                "ip -n {ns} addr add {v6}:{host}/64 dev {dev} nodad"
            ));
            run(&format!("ip -n {ns} link set {dev} up"));
        }
        run(&format!("ip -n {netns} route add default via {v4}.1"));
        run(&format!("ip -n {netns} route add default via {v6}:1"));
    }

    pub fn load(&self) -> Programs {
        Programs::load_or_adopt(&self.pins, &Settings::default()).unwrap()
    }

    /// Makes the pod endpoint 7, attaches to it and to a TAP, and returns the TAP.
    pub fn gate(&self, programs: &mut Programs, queues: usize) -> Tap {
        let tap = Tap::open(TAP, queues, Offloads::ALL).unwrap();
        tap.set_steering(programs.steering().unwrap()).unwrap();
        programs.attach_tap(TAP).unwrap();
        self.govern(true);
        programs.attach(POD_LINK).unwrap();
        tap
    }

    pub fn govern(&self, governed: bool) {
        let ifindex = links::index(POD_LINK).unwrap();
        let entry = EndpointEntry {
            id: endpoint(),
            ifindex,
            governed,
        };
        Endpoints::open(&self.pins).unwrap().set(entry).unwrap();
    }

    pub fn count(&self, name: &str, direction: Direction) -> u64 {
        let counters = Counters::open(&self.pins).unwrap().read().unwrap();
        let found = counters
            .iter()
            .find(|c| c.name == name && c.direction == direction);
        found.unwrap().value
    }

    fn remove(&self) {
        for netns in [&self.pod, &self.node, &self.out] {
            if PathBuf::from(format!("/run/netns/{netns}")).exists() {
                run(&format!("ip netns del {netns}"));
            }
        }
        for item in fs::read_dir(&self.pins).into_iter().flatten() {
            fs::remove_file(item.unwrap().path()).unwrap();
        }
        let _ = fs::remove_dir(&self.pins);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Detaches what the pins do not hold, too.
        let _ = bpf::cleanup(&self.pins, TAP);
        self.remove();
    }
}

/// One bpffs for all tests, however many start at once.
pub fn mount_bpffs() {
    let lock = File::open("/run").unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if !mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf"))
    {
        run("mount -t bpf bpf /sys/fs/bpf");
    }
}

pub fn endpoint() -> EndpointId {
    EndpointId::new(7).unwrap()
}

/// A frame that came up.
#[derive(Clone, Debug)]
pub struct Seen {
    pub queue: usize,
    pub len: usize,
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn tag(&self) -> Tag {
        let at = VNET_HEADER_LEN + 12;
        assert_eq!(self.bytes[at..at + 2], [0x81, 0x00]);
        Tag::from_vlan_id(u16::from_be_bytes([self.bytes[at + 2], self.bytes[at + 3]])).unwrap()
    }

    pub fn gso_size(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    pub fn needs_checksum(&self) -> bool {
        self.bytes[0] & 1 != 0
    }

    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([
            self.bytes[VNET_HEADER_LEN + 16],
            self.bytes[VNET_HEADER_LEN + 17],
        ])
    }

    /// From the IP header on.
    pub fn ip(&self) -> &[u8] {
        &self.bytes[VNET_HEADER_LEN + 18..]
    }
}

/// As much of a frame as the tests look at.
const KEPT: usize = 256;

/// The engine: writes back what it reads, if `judge` says so.
pub struct Echo {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<rustix::fd::OwnedFd>,
    workers: Vec<JoinHandle<()>>,
}

impl Echo {
    pub fn start(tap: Tap) -> Self {
        Self::judging(tap, |_| true)
    }

    pub fn judging(tap: Tap, judge: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let judge = Arc::new(judge);
        let workers = tap.queues.into_iter().enumerate().map(|(queue, tap)| {
            let (seen, stop, judge) = (seen.clone(), stop.clone(), judge.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; MAX_FRAME_LEN];
                loop {
                    let mut fds = [
                        PollFd::new(&tap, PollFlags::IN),
                        PollFd::new(&stop, PollFlags::IN),
                    ];
                    poll(&mut fds, None).unwrap();
                    if !fds[1].revents().is_empty() {
                        return;
                    }
                    while let Ok(len) = tap.read(&mut buffer) {
                        let bytes = buffer[..len.min(KEPT)].to_vec();
                        let frame = Seen { queue, len, bytes };
                        let pass = judge(&frame);
                        seen.lock().unwrap().push(frame);
                        if pass {
                            assert_eq!(tap.write(&buffer[..len]).unwrap(), len);
                        }
                    }
                }
            })
        });
        let workers = workers.collect();
        Self {
            seen,
            stop,
            workers,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Closes the queues.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.halt();
        }
    }
}

/// The byte at a place of a transfer: a content check that needs no hash.
fn pattern(position: usize) -> u8 {
    (position.wrapping_mul(2_654_435_761) >> 16) as u8
}

fn send(mut stream: TcpStream, len: usize) {
    let mut sent = 0;
    while sent < len {
        let chunk: Vec<u8> = (sent..len.min(sent + (1 << 18))).map(pattern).collect();
        stream.write_all(&chunk).unwrap();
        sent += chunk.len();
    }
}

fn receive(mut stream: TcpStream) -> usize {
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        if n == 0 {
            return received;
        }
        for (i, byte) in buffer[..n].iter().enumerate() {
            assert_eq!(*byte, pattern(received + i), "content at {}", received + i);
        }
        received += n;
    }
}

/// Sends `len` bytes over a connection from `client` to a server at `addr` in `server`, from the
/// client (`upload`) or to it, and checks what arrives. Returns the client's address.
pub fn transfer(
    client: &str,
    server: &str,
    addr: &str,
    port: u16,
    len: usize,
    upload: bool,
) -> SocketAddr {
    let to = SocketAddr::new(addr.parse::<IpAddr>().unwrap(), port);
    let (ready, started) = mpsc::channel();
    let server = inside(server, move || {
        let listener = TcpListener::bind(to).unwrap();
        ready.send(()).unwrap();
        let (stream, from) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if upload {
            assert_eq!(receive(stream), len);
        } else {
            send(stream, len);
        }
        from
    });
    started.recv_timeout(PATIENCE).unwrap();
    let client = inside(client, move || {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if upload {
            send(stream, len);
        } else {
            assert_eq!(receive(stream), len);
        }
    });
    client.join().unwrap();
    server.join().unwrap()
}

/// A counter of a namespace's /proc/net/snmp.
pub fn snmp(netns: &str, protocol: &str, name: &str) -> u64 {
    let (protocol, name) = (format!("{protocol}:"), name.to_owned());
    let read = move || {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut rows = text.lines().filter(|line| line.starts_with(&protocol));
        let names = rows.next().unwrap().split_whitespace();
        let values = rows.next().unwrap().split_whitespace();
        let found = names.zip(values).find(|(n, _)| **n == name).unwrap();
        found.1.parse().unwrap()
    };
    inside(netns, read).join().unwrap()
}

/// Waits until something holds; fails if it does not in time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Seen {
    /// The flow of an IPv4 or IPv6 TCP frame without options or extension headers.
    pub fn tcp_key(&self) -> FlowKey {
        let ip = self.ip();
        let (src, dst, l4): (IpAddr, IpAddr, &[u8]) = match self.ether_type() {
            0x0800 => {
                let at = |i: usize| <[u8; 4]>::try_from(&ip[i..i + 4]).unwrap();
                (at(12).into(), at(16).into(), &ip[20..])
            }
            _ => {
                let at = |i: usize| <[u8; 16]>::try_from(&ip[i..i + 16]).unwrap();
                (at(8).into(), at(24).into(), &ip[40..])
            }
        };
        let port = |i: usize| u16::from_be_bytes([l4[i], l4[i + 1]]);
        let (src, dst) = ((src, port(0)), (dst, port(2)));
        let tag = self.tag();
        let (local, remote) = match tag.direction {
            Direction::Outbound => (src, dst),
            Direction::Inbound => (dst, src),
        };
        FlowKey {
            endpoint: tag.endpoint,
            protocol: 6,
            local: local.0,
            local_port: local.1,
            remote: remote.0,
            remote_port: remote.1,
        }
    }
}
