//! A gate without a kernel: the flow cache's rules as the kernel programs apply them, around a real
//! engine. Frames go in at either side; what comes out is read back with the real parser.
// Test support: a panic is a failed test. Not every test uses all of it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod receiver;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tollgate_engine::cache::{CacheEntry, DirectionProgress, Progress, Steer};
use tollgate_engine::event::{Event, EventKind, Verdict, VerdictWord};
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::output::CacheFull;
use tollgate_engine::table::PolicyTable;
use tollgate_engine::{Engine, Output};
use tollgate_policy::{CompileOptions, SourceFile, compile};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::checksum;
use tollgate_wire::packet::{self, Packet, TcpFlags, TcpHeader};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::tcp_options::TcpOption;
use tollgate_wire::vnet::VNET_HDR_LEN;

pub const POD: &str = "10.1.0.2:40000";
pub const SERVER: &str = "192.0.2.1:80";
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The endpoint that every test policy is about, and its namespace.
pub const ENDPOINT: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {interface: veth0, addresses: [10.1.0.2, 'fd00::2']}
---
";

/// An egress policy: `rules` is the YAML of `spec.egress`, indented by two.
pub fn egress(rules: &str) -> String {
    format!(
        "{ENDPOINT}
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {{name: test}}
spec:
  priority: 1
  appliedTo: [{{podSelector: {{matchLabels: {{app: web}}}}}}]
  egress:
{rules}
"
    )
}

/// The usual one: GET of api.example.com/v2/*, PUT of /upload/*, TLS to *.example.com.
pub fn usual() -> String {
    egress(
        "  - name: l7
    action: Allow
    ports: [{protocol: TCP, port: 80}, {protocol: TCP, port: 443}]
    l7Protocols:
    - http: {host: api.example.com, method: GET, path: /v2/*}
    - http: {host: api.example.com, method: PUT, path: /upload/*}
    - http: {host: ws.example.com}
    - tls: {sni: '*.example.com'}
  - name: dns
    action: Allow
    ports: [{protocol: UDP, port: 53}]
  - name: silent
    action: Drop
    ports: [{port: 9}, {protocol: UDP, port: 9}]
  - name: rest
    action: Reject",
    )
}

pub fn table(yaml: &str, generation: u64) -> Arc<PolicyTable> {
    let files = [SourceFile {
        name: "test.yaml",
        text: yaml,
    }];
    let set = match compile(&files, &CompileOptions::default()) {
        Ok(set) => set,
        Err(faults) => panic!(
            "{}",
            faults.iter().map(|f| format!("{f}\n")).collect::<String>()
        ),
    };
    let policy = set.endpoint("shop/web").unwrap().clone();
    Arc::new(PolicyTable {
        generation,
        by_id: vec![None, Some(policy)],
    })
}

/// The kernel's part.
#[derive(Default)]
pub struct Kernel {
    pub flows: HashMap<FlowKey, (CacheEntry, Progress)>,
    pub full: bool,
    pub out: Vec<Vec<u8>>,
    pub events: Vec<Event>,
}

impl Output for Kernel {
    fn emit(&mut self, frame: &[u8]) {
        assert_ne!(
            tollgate_wire::verify(frame),
            tollgate_wire::ChecksumState::Bad,
            "the engine sent a frame with a wrong checksum"
        );
        self.out.push(frame.to_vec());
    }
    fn cache_put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        if self.full {
            return Err(CacheFull);
        }
        self.flows.entry(*key).or_default().0 = *entry;
        Ok(())
    }
    fn cache_get(&mut self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        self.flows.get(key).copied()
    }
    fn cache_delete(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
    fn wants_all(&self) -> bool {
        true
    }
}

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    pub to: Direction,
    pub header: Option<TcpHeader>,
    pub payload: Vec<u8>,
    /// TCP timestamp.
    pub timestamp: Option<u32>,
    pub by_kernel: bool,
}

impl Out {
    pub fn is_rst(&self) -> bool {
        self.header.is_some_and(|header| header.flags.rst())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub struct Gate {
    pub engine: Engine,
    pub kernel: Kernel,
    pub now: Duration,
}

impl Gate {
    pub fn new(yaml: &str) -> Self {
        Self::with_limits(yaml, Limits::default())
    }

    pub fn with_limits(yaml: &str, limits: Limits) -> Self {
        Self::with_table(table(yaml, 1), limits)
    }

    pub fn with_table(table: Arc<PolicyTable>, limits: Limits) -> Self {
        let mut gate = Self {
            engine: Engine::new(table, limits),
            kernel: Kernel::default(),
            now: Duration::from_secs(1000),
        };
        gate.engine.tick(gate.now, &mut gate.kernel);
        gate
    }

    /// Lets time pass, second by second.
    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.engine.tick(self.now, &mut self.kernel);
        }
    }

    pub fn set_policy(&mut self, yaml: &str) -> Vec<Out> {
        self.engine
            .set_policy(self.now, table(yaml, 2), &mut self.kernel);
        self.take_out()
    }

    fn take_out(&mut self) -> Vec<Out> {
        self.kernel
            .out
            .drain(..)
            .map(|frame| read(&frame, false))
            .collect()
    }

    /// A frame arrives at the endpoint's interface, going `direction`.
    pub fn arrives(&mut self, direction: Direction, frame: &[u8]) -> Vec<Out> {
        match self.steer(direction, frame) {
            Some(true) => vec![read(frame, true)],
            Some(false) => Vec::new(),
            None => {
                self.engine.handle(self.now, frame, &mut self.kernel);
                self.take_out()
            }
        }
    }

    /// Pass, drop or (`None`) divert, as `bpf/tollgate.bpf.c` decides.
    fn steer(&mut self, direction: Direction, frame: &[u8]) -> Option<bool> {
        let Ok(Packet::Ip(layout)) = packet::parse(&frame[VNET_HDR_LEN..]) else {
            return None;
        };
        let tcp = layout.tcp().copied();
        if tcp.is_some_and(|tcp| tcp.flags.is_syn()) {
            return None;
        }
        let (src_port, dst_port) = layout.ports().unwrap_or((0, 0));
        let (local, local_port, remote, remote_port) = match direction {
            Direction::Outbound => (layout.src, src_port, layout.dst, dst_port),
            Direction::Inbound => (layout.dst, dst_port, layout.src, src_port),
        };
        let endpoint = EndpointId::new(1).unwrap();
        let protocol = layout.protocol;
        let key = FlowKey {
            endpoint,
            protocol,
            local,
            local_port,
            remote,
            remote_port,
        };
        let (entry, progress) = self.kernel.flows.get_mut(&key)?;
        let (steer, noted) = match direction {
            Direction::Outbound => (entry.outbound, &mut progress.outbound),
            Direction::Inbound => (entry.inbound, &mut progress.inbound),
        };
        let len = layout.payload_len() as u32;
        match steer {
            Steer::Divert => return None,
            Steer::Drop => return Some(false),
            Steer::Pass => {}
            Steer::Quic => {
                let payload = layout.payload(&frame[VNET_HDR_LEN..]);
                if payload.first().is_some_and(|first| first & 0x80 != 0) {
                    return None;
                }
            }
            Steer::Window { start, end } => {
                let tcp = tcp?;
                if tcp.flags.fin() || tcp.flags.urg() {
                    return None;
                }
                let before = tcp.seq.wrapping_sub(start);
                let size = end.wrapping_sub(start);
                if len > 0 && (before > size || len > size - before) {
                    return None;
                }
            }
        }
        note(noted, tcp, len);
        progress.last_seen_ns = self.now.as_nanos() as u64;
        let ended = (progress.outbound.fin && progress.inbound.fin)
            || progress.outbound.rst
            || progress.inbound.rst;
        if ended {
            self.engine.flow_closed(self.now, &key, &mut self.kernel);
        }
        Some(true)
    }

    pub fn denials(&self) -> Vec<&Verdict> {
        self.verdicts()
            .filter(|v| v.word == VerdictWord::Denied)
            .collect()
    }

    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.kernel
            .events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Verdict(verdict) => Some(verdict),
                EventKind::Closed { .. } => None,
            })
    }
}

fn note(noted: &mut DirectionProgress, tcp: Option<TcpHeader>, len: u32) {
    noted.packets += 1;
    let Some(tcp) = tcp else { return };
    if tcp.flags.is_syn_ack() {
        noted.syn_ack = Some(tcp.ack);
    }
    noted.fin |= tcp.flags.fin();
    noted.rst |= tcp.flags.rst();
    if !tcp.flags.rst() {
        noted.max_ack = Some(tcp.ack);
        noted.max_seq = Some(
            tcp.seq
                .wrapping_add(len)
                .wrapping_add(u32::from(tcp.flags.fin()))
                .wrapping_add(u32::from(tcp.flags.syn())),
        );
    }
}

fn read(frame: &[u8], by_kernel: bool) -> Out {
    let ethernet = &frame[VNET_HDR_LEN..];
    let Packet::Ip(layout) = packet::parse(ethernet).unwrap() else {
        panic!("not IP")
    };
    let tag = Tag::from_vlan_id(layout.eth.vlan.unwrap()).unwrap();
    Out {
        to: tag.direction,
        header: layout.tcp().copied(),
        payload: layout.payload(ethernet).to_vec(),
        timestamp: layout
            .tcp_options(ethernet)
            .find_map(|option| match option {
                Ok(TcpOption::Timestamps { value, .. }) => Some(value),
                _ => None,
            }),
        by_kernel,
    }
}

pub fn link(direction: Direction) -> L2 {
    let vlan = Some(
        Tag {
            endpoint: EndpointId::new(1).unwrap(),
            direction,
        }
        .vlan_id(),
    );
    match direction {
        Direction::Outbound => L2 {
            src: POD_MAC,
            dst: GATEWAY_MAC,
            vlan,
        },
        Direction::Inbound => L2 {
            src: GATEWAY_MAC,
            dst: POD_MAC,
            vlan,
        },
    }
}

/// A TCP connection through the gate; the caller plays both ends.
pub struct Conn {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Direction of the client's packets.
    pub direction: Direction,
    /// Next sequence numbers.
    pub client_seq: u32,
    pub server_seq: u32,
}

impl Conn {
    pub fn egress(server: &str) -> Self {
        Self {
            client: POD.parse().unwrap(),
            server: server.parse().unwrap(),
            direction: Direction::Outbound,
            client_seq: 0xffff_ff00,
            server_seq: 5000,
        }
    }

    pub fn ingress(client: &str, port: u16) -> Self {
        let pod: SocketAddr = POD.parse().unwrap();
        Self {
            client: client.parse().unwrap(),
            server: SocketAddr::new(pod.ip(), port),
            direction: Direction::Inbound,
            client_seq: 77,
            server_seq: 9000,
        }
    }

    pub fn frame(
        &self,
        from_client: bool,
        flags: TcpFlags,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let (src, dst, direction) = match from_client {
            true => (self.client, self.server, self.direction),
            false => (self.server, self.client, self.direction.reverse()),
        };
        let segment = Segment {
            src,
            dst,
            seq,
            ack,
            flags,
            window: 1000,
            payload,
            hop_limit: 64,
        };
        let mut frame = Vec::new();
        build::tcp(&mut frame, &link(direction), &segment).unwrap();
        frame
    }

    /// SYN only.
    pub fn syn(&mut self, gate: &mut Gate) -> Vec<Out> {
        let frame = self.frame(true, TcpFlags::SYN, self.client_seq, 0, b"");
        gate.arrives(self.direction, &frame)
    }

    /// The three-way handshake.
    pub fn open(&mut self, gate: &mut Gate) {
        assert_eq!(self.syn(gate).len(), 1, "the SYN goes through");
        self.client_seq = self.client_seq.wrapping_add(1);
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        let frame = self.frame(false, flags, self.server_seq, self.client_seq, b"");
        assert_eq!(
            gate.arrives(self.direction.reverse(), &frame).len(),
            1,
            "the SYN-ACK too"
        );
        self.server_seq = self.server_seq.wrapping_add(1);
        let frame = self.frame(true, TcpFlags::ACK, self.client_seq, self.server_seq, b"");
        assert_eq!(gate.arrives(self.direction, &frame).len(), 1, "and the ACK");
    }

    /// The client sends its next bytes.
    pub fn send(&mut self, gate: &mut Gate, payload: &[u8]) -> Vec<Out> {
        let out = self.send_at(gate, self.client_seq, payload);
        self.client_seq = self.client_seq.wrapping_add(payload.len() as u32);
        out
    }

    /// The client sends bytes anywhere in its stream.
    pub fn send_at(&mut self, gate: &mut Gate, seq: u32, payload: &[u8]) -> Vec<Out> {
        let flags = TcpFlags::ACK | TcpFlags::PSH;
        let frame = self.frame(true, flags, seq, self.server_seq, payload);
        gate.arrives(self.direction, &frame)
    }

    /// The server acknowledges everything and answers.
    pub fn answer(&mut self, gate: &mut Gate, payload: &[u8]) -> Vec<Out> {
        let frame = self.frame(
            false,
            TcpFlags::ACK,
            self.server_seq,
            self.client_seq,
            payload,
        );
        self.server_seq = self.server_seq.wrapping_add(payload.len() as u32);
        gate.arrives(self.direction.reverse(), &frame)
    }

    /// Client or server sends FIN.
    pub fn fin(&mut self, gate: &mut Gate, from_client: bool) -> Vec<Out> {
        let (seq, ack) = match from_client {
            true => (self.client_seq, self.server_seq),
            false => (self.server_seq, self.client_seq),
        };
        let frame = self.frame(from_client, TcpFlags::FIN | TcpFlags::ACK, seq, ack, b"");
        match from_client {
            true => self.client_seq = self.client_seq.wrapping_add(1),
            false => self.server_seq = self.server_seq.wrapping_add(1),
        }
        let direction = if from_client {
            self.direction
        } else {
            self.direction.reverse()
        };
        gate.arrives(direction, &frame)
    }
}

/// What reached `to`, as one text.
pub fn delivered(out: &[Out], to: Direction) -> String {
    out.iter().filter(|o| o.to == to).map(Out::text).collect()
}

/// A ClientHello record with this name; `padding` bytes of an unknown extension.
pub fn client_hello(name: &str, padding: usize) -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| {
        [
            &kind.to_be_bytes()[..],
            &(body.len() as u16).to_be_bytes(),
            body,
        ]
        .concat()
    };
    let host = [
        &[0u8][..],
        &(name.len() as u16).to_be_bytes(),
        name.as_bytes(),
    ]
    .concat();
    let list = [&(host.len() as u16).to_be_bytes()[..], &host].concat();
    let versions = extension(43, &[2, 3, 4]);
    let extensions = [
        extension(0, &list),
        versions,
        extension(0x5a5a, &vec![0; padding]),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0x13, 1],
        &[1, 0],
        &(extensions.len() as u16).to_be_bytes(),
        &extensions,
    ]
    .concat();
    let handshake = [&[1u8][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    [
        &[22, 3, 1][..],
        &(handshake.len() as u16).to_be_bytes(),
        &handshake,
    ]
    .concat()
}

/// Overwrites 16 bits of the TCP header, `at` bytes into it, of a frame made by [`Conn::frame`], and
/// its checksum with the right one.
pub fn patch_tcp(frame: &mut [u8], at: usize, value: u16) {
    let Ok(Packet::Ip(layout)) = packet::parse(&frame[VNET_HDR_LEN..]) else {
        panic!("not IP")
    };
    let l4 = VNET_HDR_LEN + layout.l4_offset;
    let end = VNET_HDR_LEN + layout.end;
    frame[l4 + at..l4 + at + 2].copy_from_slice(&value.to_be_bytes());
    frame[l4 + 16..l4 + 18].fill(0);
    let pseudo = checksum::pseudo(layout.src, layout.dst, layout.protocol, (end - l4) as u32);
    let sum = checksum::finish(pseudo + checksum::sum(&frame[l4..end]));
    frame[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Gives a frame made by [`Conn::frame`] (IPv4) a TCP timestamp.
pub fn set_timestamp(frame: &mut Vec<u8>, value: u32) {
    const IP: usize = VNET_HDR_LEN + 18;
    const TCP: usize = IP + 20;
    const OPTIONS: [u8; 4] = [1, 1, 8, 10];
    let option = [&OPTIONS[..], &value.to_be_bytes(), &[0; 4]].concat();
    let total = (frame.len() - IP + option.len()) as u16;
    frame.splice(TCP + 20..TCP + 20, option);
    frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[IP..TCP]));
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    frame[TCP + 12] = 8 << 4;
    let window = u16::from_be_bytes([frame[TCP + 14], frame[TCP + 15]]);
    patch_tcp(frame, 14, window);
}

pub fn set_urgent_pointer(frame: &mut [u8], urgent: u16) {
    patch_tcp(frame, 18, urgent);
}

/// Both fragments of a UDP datagram of the flow, as an IPv4 router would make them.
pub fn fragments(frame: &[u8]) -> [Vec<u8>; 2] {
    const IP: usize = 12 + 18;
    let mut pieces = [frame[..IP + 20 + 8].to_vec(), frame[..IP + 20].to_vec()];
    pieces[1].extend_from_slice(&frame[IP + 28..]);
    for (piece, offset) in pieces.iter_mut().zip([0x2000u16, 1]) {
        let total = (piece.len() - IP) as u16;
        piece[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        piece[IP + 4..IP + 6].copy_from_slice(&7u16.to_be_bytes());
        piece[IP + 6..IP + 8].copy_from_slice(&offset.to_be_bytes());
        piece[IP + 10..IP + 12].fill(0);
        let sum: u32 = piece[IP..IP + 20]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        piece[IP + 10..IP + 12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    pieces
}
