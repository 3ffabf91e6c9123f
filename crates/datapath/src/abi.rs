//! The mirror of `bpf/tollgate.h`: change both, and raise [`ABI_VERSION`].

use std::net::{IpAddr, Ipv6Addr};

use tollgate_engine::cache::{CacheEntry, DirectionProgress, Progress, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::EndpointId;

/// `TG_ABI_VERSION`
pub const ABI_VERSION: u32 = 4;
/// `TG_FLOWS_MAX`
pub const FLOWS_MAX: u32 = 131_072;
/// `TG_GOVERNED`
pub const GOVERNED: u32 = 1;

/// Names of the maps, as pinned.
pub mod map {
    pub const CONFIG: &str = "tg_config";
    pub const ENDPOINTS: &str = "tg_endpoints";
    pub const IFINDEX: &str = "tg_ifindex";
    pub const FLOWS: &str = "tg_flows";
    pub const CLOSED: &str = "tg_closed";
    pub const COUNTERS: &str = "tg_counters";
}

/// The only index of [`map::CONFIG`].
pub const CONFIG_INDEX: u32 = 0;

/// `struct tg_config`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub abi_version: u32,
    pub tap_ifindex: u32,
}

/// `struct tg_endpoint`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: u32,
    pub flags: u32,
}

/// `struct tg_flow_key`; ports in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    endpoint: u32,
    proto: u8,
    pad: [u8; 3],
    local: [u8; 16],
    remote: [u8; 16],
    local_port: [u8; 2],
    remote_port: [u8; 2],
}

/// `struct tg_direction`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    steer: u32,
    start: u32,
    end: u32,
    max_ack: u32,
    max_seq: u32,
    syn_ack: u32,
    packets: u64,
    bytes: u64,
    apart: [u64; 10],
}

/// `struct tg_flow`; `[outbound, inbound]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    last_seen_ns: u64,
    state: u32,
    pad: u32,
    apart: [u64; 6],
    dir: [Direction; 2],
}

// The sizes that the C side's layout has; a difference would misread every entry.
const _: () = assert!(size_of::<Key>() == 44 && size_of::<Direction>() == 120);
const _: () = assert!(size_of::<Flow>() == 304);

// SAFETY: plain integers and arrays of them without padding (see the sizes above): every bit
// pattern is a value, and no byte is uninitialised.
unsafe impl aya::Pod for Config {}
// SAFETY: as above.
unsafe impl aya::Pod for Endpoint {}
// SAFETY: as above.
unsafe impl aya::Pod for Key {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}

const SEEN_ACK: u32 = 1;
const SEEN_SEQ: u32 = 2;
const SEEN_FIN: u32 = 4;
const SEEN_RST: u32 = 8;
const SEEN_SYN_ACK: u32 = 16;
const SEEN_SHIFT: usize = 8;

const STEER_DIVERT: u32 = 0;
const STEER_PASS: u32 = 1;
const STEER_DROP: u32 = 2;
const STEER_WINDOW: u32 = 3;
const STEER_QUIC: u32 = 4;

fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn unmapped(octets: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(octets);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

impl From<&FlowKey> for Key {
    fn from(key: &FlowKey) -> Self {
        Self {
            endpoint: u32::from(key.endpoint.get()),
            proto: key.protocol,
            pad: [0; 3],
            local: mapped(key.local),
            remote: mapped(key.remote),
            local_port: key.local_port.to_be_bytes(),
            remote_port: key.remote_port.to_be_bytes(),
        }
    }
}

impl Key {
    /// The engine's form; `None` if the endpoint is none (nobody writes such a key).
    pub fn to_flow_key(self) -> Option<FlowKey> {
        let endpoint = u16::try_from(self.endpoint)
            .ok()
            .and_then(EndpointId::new)?;
        Some(FlowKey {
            endpoint,
            protocol: self.proto,
            local: unmapped(self.local),
            local_port: u16::from_be_bytes(self.local_port),
            remote: unmapped(self.remote),
            remote_port: u16::from_be_bytes(self.remote_port),
        })
    }

    /// Reads a key from the bytes of an event.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (endpoint, rest) = bytes.split_first_chunk::<4>()?;
        let (proto, rest) = rest.split_first_chunk::<4>()?;
        let (local, rest) = rest.split_first_chunk::<16>()?;
        let (remote, rest) = rest.split_first_chunk::<16>()?;
        let (local_port, rest) = rest.split_first_chunk::<2>()?;
        let (remote_port, _) = rest.split_first_chunk::<2>()?;
        Some(Self {
            endpoint: u32::from_ne_bytes(*endpoint),
            proto: proto[0],
            pad: [0; 3],
            local: *local,
            remote: *remote,
            local_port: *local_port,
            remote_port: *remote_port,
        })
    }
}

impl Direction {
    fn set(&mut self, steer: Steer) {
        (self.steer, self.start, self.end) = match steer {
            Steer::Divert => (STEER_DIVERT, 0, 0),
            Steer::Pass => (STEER_PASS, 0, 0),
            Steer::Drop => (STEER_DROP, 0, 0),
            Steer::Window { start, end } => (STEER_WINDOW, start, end),
            Steer::Quic => (STEER_QUIC, 0, 0),
        };
    }

    fn steer(&self) -> Steer {
        match self.steer {
            STEER_PASS => Steer::Pass,
            STEER_DROP => Steer::Drop,
            STEER_QUIC => Steer::Quic,
            STEER_WINDOW => Steer::Window {
                start: self.start,
                end: self.end,
            },
            // The programs treat what they do not know in the same way.
            _ => Steer::Divert,
        }
    }

    fn progress(&self, seen: u32) -> DirectionProgress {
        DirectionProgress {
            packets: self.packets,
            bytes: self.bytes,
            max_ack: (seen & SEEN_ACK != 0).then_some(self.max_ack),
            max_seq: (seen & SEEN_SEQ != 0).then_some(self.max_seq),
            syn_ack: (seen & SEEN_SYN_ACK != 0).then_some(self.syn_ack),
            fin: seen & SEEN_FIN != 0,
            rst: seen & SEEN_RST != 0,
        }
    }
}

impl Flow {
    /// A fresh entry, seen now.
    pub fn new(entry: &CacheEntry, now_ns: u64) -> Self {
        let mut flow = Self {
            last_seen_ns: now_ns,
            ..Self::default()
        };
        flow.set(entry);
        flow
    }

    /// Changes what happens to the flow, not what was noted about it.
    pub fn set(&mut self, entry: &CacheEntry) {
        self.dir[0].set(entry.outbound);
        self.dir[1].set(entry.inbound);
    }

    /// What happens to the flow.
    pub fn entry(&self) -> CacheEntry {
        CacheEntry {
            outbound: self.dir[0].steer(),
            inbound: self.dir[1].steer(),
        }
    }

    /// What was noted about it.
    pub fn progress(&self) -> Progress {
        Progress {
            outbound: self.dir[0].progress(self.state),
            inbound: self.dir[1].progress(self.state >> SEEN_SHIFT),
            last_seen_ns: self.last_seen_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(local: &str, remote: &str) -> FlowKey {
        FlowKey {
            endpoint: EndpointId::new(2046).unwrap(),
            protocol: 6,
            local: local.parse().unwrap(),
            local_port: 40_000,
            remote: remote.parse().unwrap(),
            remote_port: 443,
        }
    }

    #[test]
    fn keys_survive_the_map() {
        for key in [key("10.0.0.2", "192.0.2.1"), key("fd00::2", "2001:db8::1")] {
            let raw = Key::from(&key);
            assert_eq!(raw.to_flow_key(), Some(key));
            let mut bytes = raw.endpoint.to_ne_bytes().to_vec();
            bytes.extend([raw.proto, 0, 0, 0]);
            bytes.extend(raw.local.iter().chain(&raw.remote));
            bytes.extend(raw.local_port.iter().chain(&raw.remote_port));
            assert_eq!(Key::from_bytes(&bytes), Some(raw));
            assert_eq!(Key::from_bytes(&bytes[1..]), None);
        }
    }

    #[test]
    fn entries_survive_the_map() {
        let steers = [
            Steer::Divert,
            Steer::Pass,
            Steer::Drop,
            Steer::Quic,
            Steer::Window {
                start: u32::MAX,
                end: 7,
            },
        ];
        for outbound in steers {
            for inbound in steers {
                let entry = CacheEntry { outbound, inbound };
                assert_eq!(Flow::new(&entry, 5).entry(), entry);
            }
        }
        assert_eq!(
            Flow::new(&CacheEntry::default(), 5).progress().last_seen_ns,
            5
        );
    }
}
