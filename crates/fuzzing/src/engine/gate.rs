//! A gate without a kernel: the flow cache's rules as the kernel programs apply them, around a real
//! engine.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tollgate_engine::cache::{CacheEntry, DirectionProgress, Progress, Steer};
use tollgate_engine::event::Event;
use tollgate_engine::key::FlowKey;
use tollgate_engine::limits::Limits;
use tollgate_engine::output::CacheFull;
use tollgate_engine::table::PolicyTable;
use tollgate_engine::{Engine, Output};
use tollgate_policy::{CompileOptions, SourceFile, compile};
use tollgate_wire::build::{self, L2, Segment};
use tollgate_wire::packet::{ETHERTYPE_VLAN, Layout, Packet, TcpFlags, TcpHeader, parse};
use tollgate_wire::tag::{Direction, EndpointId, Tag};
use tollgate_wire::vnet::{self, VNET_HDR_LEN};
use tollgate_wire::{ChecksumState, verify};

/// The endpoint.
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
/// The port that the watched connection comes from, and no other.
const POD_PORT: u16 = 40_000;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Where the checksum lies in a TCP header.
const TCP_CHECKSUM_OFFSET: usize = 16;
/// Where the tag lies in a frame with a virtio-net header.
const TAG_AT: usize = VNET_HDR_LEN + 12;

/// The policy: `GET /allowed*` in clear text, TLS to `*.example.com`, some other flows to look at.
const POLICY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {interface: veth0, addresses: [10.1.0.2, 'fd00::2']}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: test}
spec:
  priority: 1
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
  - name: l7
    action: Allow
    ports: [{protocol: TCP, port: 80}, {protocol: TCP, port: 443}]
    l7Protocols:
    - http: {method: GET, path: /allowed*}
    - tls: {sni: '*.example.com'}
  - name: dns
    action: Allow
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 22}]
  - name: silent
    action: Drop
    ports: [{port: 9}, {protocol: UDP, port: 9}]
  - name: rest
    action: Reject
";

/// Small, so that a short input reaches them.
const LIMITS: Limits = Limits {
    flows: 24,
    flows_per_endpoint: 16,
    held_bytes_per_flow: 4096,
    held_bytes: 6000,
    kept_bytes_per_flow: 128 * 1024,
    judged_bytes: 128 * 1024 * 1024,
    judged_bytes_per_endpoint: 64 * 1024 * 1024,
    fragments: 4,
    tcp_idle: Duration::from_secs(3600),
    tcp_handshake: Duration::from_secs(130),
    datagram_idle: Duration::from_secs(120),
};

static TABLE: LazyLock<Arc<PolicyTable>> = LazyLock::new(|| {
    let file = SourceFile {
        name: "fuzz.yaml",
        text: POLICY,
    };
    let set = compile(&[file], &CompileOptions::default());
    let policy = set.ok().and_then(|set| set.endpoint("shop/web").cloned());
    assert!(policy.is_some(), "the policy compiles");
    Arc::new(PolicyTable {
        generation: 1,
        by_id: vec![None, policy],
    })
});

#[derive(Default)]
struct Kernel {
    flows: HashMap<FlowKey, (CacheEntry, Progress)>,
    out: Vec<Vec<u8>>,
}

impl Output for Kernel {
    fn emit(&mut self, frame: &[u8]) {
        is_sound(frame);
        self.out.push(frame.to_vec());
    }
    fn cache_put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        self.flows.entry(*key).or_default().0 = *entry;
        Ok(())
    }
    fn cache_get(&mut self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        self.flows.get(key).copied()
    }
    fn cache_delete(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }
    fn event(&mut self, _event: Event) {}
    fn wants_all(&self) -> bool {
        true
    }
}

/// A frame that leaves the engine has right checksums, or ones that the kernel vouches for; and no
/// checksum is filled in where it would overwrite a TCP segment's payload.
fn is_sound(frame: &[u8]) {
    let Ok((header, eth_frame)) = vnet::split(frame) else {
        return;
    };
    if !header.needs_csum() {
        let is_checked = header.flags & vnet::DATA_VALID != 0;
        let state = verify(frame);
        assert!(
            is_checked || state != ChecksumState::Bad,
            "a wrong checksum"
        );
    } else if let Ok(Packet::Ip(layout)) = parse(eth_frame)
        && layout.tcp().is_some()
    {
        let field = layout.l4_offset + TCP_CHECKSUM_OFFSET;
        assert_eq!(header.csum_field(), field, "a checksum in the payload");
    }
}

/// What the kernel does with one packet.
enum Way {
    Passes,
    Falls,
    ToEngine,
}

pub(super) struct Gate {
    engine: Engine,
    kernel: Kernel,
    now: Duration,
    generation: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        let mut gate = Self {
            engine: Engine::new(TABLE.clone(), LIMITS),
            kernel: Kernel::default(),
            now: Duration::from_secs(1000),
            generation: 1,
        };
        gate.engine.tick(gate.now, &mut gate.kernel);
        gate
    }

    /// Lets time pass, second by second.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.engine.tick(self.now, &mut self.kernel);
        }
    }

    pub(super) fn renew_policy(&mut self) {
        self.generation += 1;
        let table = PolicyTable {
            generation: self.generation,
            by_id: TABLE.by_id.clone(),
        };
        self.engine
            .set_policy(self.now, Arc::new(table), &mut self.kernel);
    }

    /// A frame arrives at the endpoint's interface, going `direction`.
    pub(super) fn arrives(&mut self, direction: Direction, frame: &[u8]) {
        match self.steer(direction, frame) {
            Way::Passes => self.kernel.out.push(frame.to_vec()),
            Way::Falls => {}
            Way::ToEngine => self.engine.handle(self.now, frame, &mut self.kernel),
        }
    }

    pub(super) fn take_out(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.kernel.out)
    }

    pub(super) fn within_bounds(&self) {
        let held = self.engine.held_bytes();
        assert!(held <= LIMITS.held_bytes, "{held} bytes held");
        let flows = self.engine.flow_count();
        assert!(flows <= LIMITS.flows_per_endpoint, "{flows} flows");
    }

    /// As `bpf/tollgate.bpf.c` decides.
    fn steer(&mut self, direction: Direction, frame: &[u8]) -> Way {
        let eth_frame = frame.get(VNET_HDR_LEN..).unwrap_or_default();
        let Ok(Packet::Ip(layout)) = parse(eth_frame) else {
            return Way::ToEngine;
        };
        let tcp = layout.tcp().copied();
        if tcp.is_some_and(|tcp| tcp.flags.is_syn()) {
            return Way::ToEngine;
        }
        let Some(key) = key(direction, &layout) else {
            return Way::ToEngine;
        };
        let Some((entry, progress)) = self.kernel.flows.get_mut(&key) else {
            return Way::ToEngine;
        };
        let (steer, noted) = match direction {
            Direction::Outbound => (entry.outbound, &mut progress.outbound),
            Direction::Inbound => (entry.inbound, &mut progress.inbound),
        };
        let way = way(steer, &layout, eth_frame);
        if !matches!(way, Way::Passes) {
            return way;
        }
        note(noted, tcp, layout.payload_len());
        progress.last_seen_ns = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        let (there, back) = (progress.outbound, progress.inbound);
        if (there.fin && back.fin) || there.rst || back.rst {
            self.engine.flow_closed(self.now, &key, &mut self.kernel);
        }
        Way::Passes
    }
}

fn key(direction: Direction, layout: &Layout) -> Option<FlowKey> {
    let (src_port, dst_port) = layout.ports()?;
    let (local, local_port, remote, remote_port) = match direction {
        Direction::Outbound => (layout.src, src_port, layout.dst, dst_port),
        Direction::Inbound => (layout.dst, dst_port, layout.src, src_port),
    };
    Some(FlowKey {
        endpoint: EndpointId::new(1)?,
        protocol: layout.protocol,
        local,
        local_port,
        remote,
        remote_port,
    })
}

fn way(steer: Steer, layout: &Layout, eth_frame: &[u8]) -> Way {
    let passes = match steer {
        Steer::Divert => false,
        Steer::Drop => return Way::Falls,
        Steer::Pass => true,
        Steer::Quic => {
            let first = layout.payload(eth_frame).first();
            first.is_none_or(|first| first & 0x80 == 0)
        }
        Steer::Window { start, end } => layout
            .tcp()
            .is_some_and(|tcp| is_inside(tcp, layout.payload_len(), start, end)),
    };
    match passes {
        true => Way::Passes,
        false => Way::ToEngine,
    }
}

fn is_inside(tcp: &TcpHeader, len: usize, start: u32, end: u32) -> bool {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let before = tcp.seq.wrapping_sub(start);
    let size = end.wrapping_sub(start);
    let fits = len == 0 || (before <= size && len <= size - before);
    fits && !tcp.flags.fin() && !tcp.flags.urg()
}

fn note(noted: &mut DirectionProgress, tcp: Option<TcpHeader>, len: usize) {
    noted.packets += 1;
    let Some(tcp) = tcp else { return };
    if tcp.flags.is_syn_ack() {
        noted.syn_ack = Some(tcp.ack);
    }
    noted.fin |= tcp.flags.fin();
    noted.rst |= tcp.flags.rst();
    if !tcp.flags.rst() {
        let end = tcp.seq.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
        noted.max_ack = Some(tcp.ack);
        noted.max_seq = Some(end.wrapping_add(u32::from(tcp.flags.fin())));
    }
}

fn tag(direction: Direction) -> Option<u16> {
    let endpoint = EndpointId::new(1)?;
    Some(
        Tag {
            endpoint,
            direction,
        }
        .vlan_id(),
    )
}

/// A segment of the watched connection.
pub(super) fn segment(
    direction: Direction,
    port: u16,
    flags: TcpFlags,
    seq: u32,
    ack: u32,
    payload: &[u8],
) -> Vec<u8> {
    let client = SocketAddr::new(POD, POD_PORT);
    let server = SocketAddr::new(SERVER, port);
    let (src, dst, from, to) = match direction {
        Direction::Outbound => (client, server, POD_MAC, GATEWAY_MAC),
        Direction::Inbound => (server, client, GATEWAY_MAC, POD_MAC),
    };
    let l2 = L2 {
        src: from,
        dst: to,
        vlan: tag(direction),
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
    // Too large a payload makes no frame; an empty one is malformed and falls.
    let _ = build::tcp(&mut frame, &l2, &segment);
    frame
}

/// Gives the frame the tag that the kernel puts there.
pub(super) fn link_up(frame: &mut [u8], direction: Direction) {
    let tci = tag(direction).unwrap_or_default().to_be_bytes();
    let tpid = ETHERTYPE_VLAN.to_be_bytes();
    if let Some(place) = frame.get_mut(TAG_AT..TAG_AT + 4) {
        place.copy_from_slice(&[tpid, tci].concat());
    }
}

/// Whether the frame has a port of the watched connection, in either direction.
pub(super) fn is_watched(frame: &[u8]) -> bool {
    let Ok(Packet::Ip(layout)) = parse(frame.get(VNET_HDR_LEN..).unwrap_or_default()) else {
        return false;
    };
    let of = |(src, dst)| src == POD_PORT || dst == POD_PORT;
    layout.ports().is_some_and(of)
}

/// The TCP header and payload of a frame for the watched connection's server.
pub(super) fn for_server(frame: &[u8], port: u16) -> Option<(TcpHeader, &[u8])> {
    let eth_frame = frame.get(VNET_HDR_LEN..)?;
    let Ok(Packet::Ip(layout)) = parse(eth_frame) else {
        return None;
    };
    let tag = layout.eth.vlan.and_then(Tag::from_vlan_id)?;
    let is_ours = tag.direction == Direction::Outbound
        && (layout.src, layout.dst) == (POD, SERVER)
        && layout.ports() == Some((POD_PORT, port));
    let tcp = layout.tcp().copied().filter(|_| is_ours)?;
    Some((tcp, layout.payload(eth_frame)))
}
