//! Single frames through the gate. The endpoint is a TAP, as a VM's is, on a bridge with another
//! TAP that is the wire; the test holds both and the gate's. Delivery is synchronous: when a write
//! returns, the frame is where it went.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_datapath::bpf::{self, Mechanism, Programs, Settings};
use tollgate_datapath::counters::{Counter, Counters};
use tollgate_datapath::endpoints::{EndpointEntry, Endpoints};
use tollgate_datapath::flows::FlowMap;
use tollgate_datapath::tap::{MAX_FRAME_LEN, Offloads, Tap, VNET_HEADER_LEN};
use tollgate_engine::cache::{CacheEntry, Progress};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::{Direction, Tag};

use super::{TAP, endpoint, eventually, mount_bpffs, run};

/// What became of a frame. Frames are without virtio-net header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed(Vec<u8>),
    Diverted {
        queue: usize,
        tag: Tag,
        frame: Vec<u8>,
    },
    Dropped,
}

impl Fate {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "pass",
            Self::Diverted { .. } => "divert",
            Self::Dropped => "drop",
        }
    }
}

pub struct Bench {
    pub netns: String,
    pub pins: PathBuf,
    pub programs: Option<Programs>,
    pub flows: FlowMap,
    pub vm: Tap,
    pub wire: Tap,
    pub gate: Tap,
}

impl Bench {
    pub fn new(name: &str) -> Self {
        Self::with(name, 1, None)
    }

    pub fn with(name: &str, queues: usize, mechanism: Option<Mechanism>) -> Self {
        Self::loaded(
            name,
            queues,
            &Settings {
                mechanism,
                ..Settings::default()
            },
        )
    }

    /// Moves the calling thread to the namespace.
    pub fn loaded(name: &str, queues: usize, settings: &Settings) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        mount_bpffs();
        let netns = format!("tg-dp-{name}");
        let pins = PathBuf::from(format!("/sys/fs/bpf/tg-dp-{name}"));
        remove(&netns, &pins);
        run(&format!("ip netns add {netns}"));
        let file = File::open(format!("/run/netns/{netns}")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();

        let mut programs = Programs::load_or_adopt(&pins, settings).unwrap();
        let gate = Tap::open(TAP, queues, Offloads::ALL).unwrap();
        gate.set_steering(programs.steering().unwrap()).unwrap();
        programs.attach_tap(TAP).unwrap();
        let vm = Tap::open("vm0", 1, Offloads::ALL).unwrap();
        let wire = Tap::open("wire0", 1, Offloads::ALL).unwrap();
        bridge(&netns);
        wait_for_bridge(&vm, &wire);
        let entry = EndpointEntry {
            id: endpoint(),
            ifindex: vm.ifindex,
            governed: true,
        };
        Endpoints::open(&pins).unwrap().set(entry).unwrap();
        programs.attach("vm0").unwrap();
        let flows = FlowMap::open(&pins).unwrap();
        let bench = Self {
            netns,
            pins,
            programs: Some(programs),
            flows,
            vm,
            wire,
            gate,
        };
        // What the bridge had to say at its start.
        while bench.fate().word() != "drop" {}
        bench
    }

    pub fn send(&self, direction: Direction, frame: &[u8]) -> Fate {
        self.send_with(&[0; VNET_HEADER_LEN], direction, frame)
    }

    /// Sends a frame with a virtio-net header of its own.
    pub fn send_with(&self, header: &[u8], direction: Direction, frame: &[u8]) -> Fate {
        let from = if direction == Direction::Outbound {
            &self.vm
        } else {
            &self.wire
        };
        let bytes = [header, frame].concat();
        assert_eq!(from.queues[0].write(&bytes).unwrap(), bytes.len());
        let fate = self.fate();
        assert_eq!(
            self.fate(),
            Fate::Dropped,
            "one frame became several; first {fate:?}"
        );
        fate
    }

    /// What a diverted frame becomes when the engine writes it back.
    pub fn give_back(&self, fate: &Fate) -> Fate {
        let Fate::Diverted { tag, frame, .. } = fate else {
            panic!("not diverted: {fate:?}")
        };
        self.write_tagged(tag.vlan_id(), frame)
    }

    /// Writes a frame to the gate's TAP with a tag.
    pub fn write_tagged(&self, tci: u16, frame: &[u8]) -> Fate {
        let mut bytes = vec![0; VNET_HEADER_LEN];
        bytes.extend(tagged(tci, frame));
        self.gate.queues[0].write(&bytes).unwrap();
        self.fate()
    }

    /// Where a frame is now.
    pub fn fate(&self) -> Fate {
        let mut buffer = vec![0; MAX_FRAME_LEN];
        for (queue, tap) in self.gate.queues.iter().enumerate() {
            if let Ok(len) = tap.read(&mut buffer) {
                let mut frame = buffer[VNET_HEADER_LEN..len].to_vec();
                let tag: Vec<u8> = frame.drain(12..16).collect();
                assert_eq!(tag[..2], [0x81, 0x00], "no tag");
                let tag = Tag::from_vlan_id(u16::from_be_bytes([tag[2], tag[3]])).unwrap();
                return Fate::Diverted { queue, tag, frame };
            }
        }
        for tap in [&self.vm, &self.wire] {
            if let Ok(len) = tap.queues[0].read(&mut buffer) {
                return Fate::Passed(buffer[VNET_HEADER_LEN..len].to_vec());
            }
        }
        Fate::Dropped
    }

    pub fn put(&mut self, key: &FlowKey, entry: CacheEntry) {
        self.flows.put(key, &entry).unwrap();
    }

    pub fn progress(&self, key: &FlowKey) -> Progress {
        self.flows.progress(key).unwrap()
    }

    pub fn counters(&self) -> Vec<Counter> {
        Counters::open(&self.pins).unwrap().read().unwrap()
    }

    /// The counters that an action raises, by name.
    pub fn counted(&self, direction: Direction, action: impl FnOnce()) -> Vec<&'static str> {
        let before = self.counters();
        action();
        let after = self.counters();
        let raised = before.iter().zip(&after).filter(|(a, b)| a.value < b.value);
        raised
            .filter(|(a, _)| a.direction == direction)
            .map(|(a, _)| a.name)
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = bpf::cleanup(&self.pins, TAP);
        remove(&self.netns, &self.pins);
    }
}

fn bridge(netns: &str) {
    run(&format!(
        "ip -n {netns} link add br0 type bridge mcast_snooping 0"
    ));
    fs::write("/proc/sys/net/ipv6/conf/br0/disable_ipv6", "1").unwrap();
    run(&format!("ip -n {netns} link set br0 up"));
    // Where bridged packets are shown to netfilter, it drops those with wrong checksums.
    for family in ["ip", "ip6", "arp"] {
        let path = PathBuf::from(format!(
            "/proc/sys/net/bridge/bridge-nf-call-{family}tables"
        ));
        if path.exists() {
            fs::write(path, "0").unwrap();
        }
    }
    for port in ["vm0", "wire0"] {
        run(&format!("ip -n {netns} link set {port} master br0"));
    }
}

/// Its ports forward once the kernel has noticed their carrier.
fn wait_for_bridge(vm: &Tap, wire: &Tap) {
    let hello = [
        &[0; VNET_HEADER_LEN][..],
        &[0xff; 6],
        &[2; 6],
        &[0x08, 0x06],
        &[0; 46],
    ]
    .concat();
    let mut buffer = vec![0; MAX_FRAME_LEN];
    for (from, to) in [(vm, wire), (wire, vm)] {
        eventually("forwarding by the bridge", || {
            from.queues[0].write(&hello).unwrap();
            to.queues[0].read(&mut buffer).is_ok()
        });
    }
}

fn remove(netns: &str, pins: &PathBuf) {
    if PathBuf::from(format!("/run/netns/{netns}")).exists() {
        run(&format!("ip netns del {netns}"));
    }
    for item in fs::read_dir(pins).into_iter().flatten() {
        fs::remove_file(item.unwrap().path()).unwrap();
    }
    let _ = fs::remove_dir(pins);
}

const VM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const WIRE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub fn tagged(tci: u16, frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend([0x81, 0x00]);
    bytes.extend(tci.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

/// One side's view of a conversation; builds its frames.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    pub key: FlowKey,
    pub direction: Direction,
}

impl Talk {
    pub fn ether(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let (to, from) = match self.direction {
            Direction::Outbound => (WIRE_MAC, VM_MAC),
            Direction::Inbound => (VM_MAC, WIRE_MAC),
        };
        [&to[..], &from, &ether_type.to_be_bytes(), payload].concat()
    }

    fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        let local = (self.key.local, self.key.local_port);
        let remote = (self.key.remote, self.key.remote_port);
        match self.direction {
            Direction::Outbound => (local, remote),
            Direction::Inbound => (remote, local),
        }
    }

    /// An IP packet; `fragment` is the field of that name, or that of a fragment header.
    pub fn ip_packet(&self, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        match self.ends() {
            ((IpAddr::V4(src), _), (IpAddr::V4(dst), _)) => {
                let total = (20 + payload.len()) as u16;
                let mut ip = vec![0x45, 0];
                ip.extend(total.to_be_bytes());
                ip.extend([0, 1]);
                ip.extend(fragment.to_be_bytes());
                ip.extend([64, protocol, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(payload);
                ip
            }
            ((IpAddr::V6(src), _), (IpAddr::V6(dst), _)) => {
                let mut rest = payload.to_vec();
                let mut next = protocol;
                if fragment != 0 {
                    let head = [&[protocol, 0][..], &fragment.to_be_bytes(), &[0; 4]].concat();
                    rest.splice(0..0, head);
                    next = 44;
                }
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend((rest.len() as u16).to_be_bytes());
                ip.extend([next, 64]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(rest);
                ip
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    pub fn ip(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.frame(&self.ip_packet(protocol, 0, payload))
    }

    pub fn frame(&self, packet: &[u8]) -> Vec<u8> {
        self.ether(
            if self.key.local.is_ipv4() {
                0x0800
            } else {
                0x86dd
            },
            packet,
        )
    }

    /// Ports as TCP, UDP and SCTP have them.
    pub fn ports(&self) -> Vec<u8> {
        let ((_, src), (_, dst)) = self.ends();
        [src.to_be_bytes(), dst.to_be_bytes()].concat()
    }

    pub fn tcp_segment(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut tcp = self.ports();
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(payload);
        tcp
    }

    pub fn tcp(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        self.ip(6, &self.tcp_segment(flags, seq, ack, payload))
    }

    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        self.ip(
            17,
            &[&self.ports()[..], &len.to_be_bytes(), &[0, 0], payload].concat(),
        )
    }

    /// ICMP or ICMPv6, as the addresses are; eight bytes of header and a payload.
    pub fn icmp(&self, kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        let protocol = if self.key.local.is_ipv4() { 1 } else { 58 };
        let head = [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1]].concat();
        self.ip(protocol, &[&head[..], payload].concat())
    }
}

pub fn key(protocol: u8, local: (&str, u16), remote: (&str, u16)) -> FlowKey {
    FlowKey {
        endpoint: endpoint(),
        protocol,
        local: local.0.parse().unwrap(),
        local_port: local.1,
        remote: remote.0.parse().unwrap(),
        remote_port: remote.1,
    }
}

pub fn outbound(key: FlowKey) -> Talk {
    Talk {
        key,
        direction: Direction::Outbound,
    }
}

pub fn inbound(key: FlowKey) -> Talk {
    Talk {
        key,
        direction: Direction::Inbound,
    }
}
