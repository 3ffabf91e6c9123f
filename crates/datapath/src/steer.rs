//! Which queue of the TAP a flow comes by; the kernel's side is `tg_steer` in `bpf/tollgate.bpf.c`.

use std::net::IpAddr;

use tollgate_engine::key::FlowKey;

const SEED: u32 = 0x746f_6c6c;
// Multipliers of MurmurHash3's 32-bit mixing.
const STEP: u32 = 0x85eb_ca6b;
const LAST: u32 = 0xc2b2_ae35;

fn mix(hash: u32, word: u32) -> u32 {
    let hash = (hash ^ word).wrapping_mul(STEP);
    hash ^ hash >> 15
}

fn words(addr: IpAddr) -> [u32; 4] {
    let bits = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [bits >> 96, bits >> 64, bits >> 32, bits].map(|word| word as u32)
}

/// The hash, the same for both directions (and for both endpoints of traffic inside the node).
pub fn hash(a: IpAddr, b: IpAddr, ports_xor: u16, protocol: u8) -> u32 {
    let mut hash = SEED;
    for (a, b) in words(a).into_iter().zip(words(b)) {
        hash = mix(hash, a ^ b);
    }
    hash = mix(hash, u32::from(ports_xor) << 8 | u32::from(protocol));
    hash = (hash ^ hash >> 13).wrapping_mul(LAST);
    hash ^ hash >> 16
}

/// The queue, out of `queues`, of a flow's packets and of the ICMP errors about it. Fragments are
/// not among them: see [`queue_of_fragments`].
pub fn queue_of(key: &FlowKey, queues: usize) -> usize {
    let ports = key.local_port ^ key.remote_port;
    hash(key.local, key.remote, ports, key.protocol) as usize % queues.max(1)
}

/// The queue of all IP fragments between two addresses.
pub fn queue_of_fragments(a: IpAddr, b: IpAddr, queues: usize) -> usize {
    hash(a, b, 0, 0) as usize % queues.max(1)
}
