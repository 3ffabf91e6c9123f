//! Bounds of one worker's engine. Reaching one is counted and never opens the gate.

use std::time::Duration;

/// What one engine may hold. Every field has a counter that tells when it bites
/// ([`crate::counters::Counters`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows in the table. At the limit a new flow's first packet is dropped
    /// (`flow_table_full`).
    pub flows: usize,
    /// Flows of one endpoint, so that one pod cannot take the whole table
    /// (`endpoint_flows_full`).
    pub flows_per_endpoint: usize,
    /// Bytes of out-of-order segments held for one flow; beyond it the segment is dropped and TCP
    /// sends it again (`held_full`).
    pub held_bytes_per_flow: usize,
    /// Bytes of out-of-order segments and of DNS messages held for all flows; one endpoint gets half of it
    /// (`held_full`, `dns_held_full`).
    pub held_bytes: usize,
    /// Judged but unacknowledged bytes remembered for one flow; beyond it new segments wait for
    /// acknowledgements (`kept_full`).
    pub kept_bytes_per_flow: usize,
    /// Memory of what is judged, for all flows: inspections, remembered bytes, what readers hold of
    /// unfinished heads, the latest facts of each flow. One flow gets at most a 1024th of what is left. Beyond it new segments are
    /// dropped and TCP sends them again (`kept_full`).
    pub judged_bytes: usize,
    /// The same for the flows of one endpoint, so that one pod cannot take all of it
    /// (`endpoint_kept_full`).
    pub judged_bytes_per_endpoint: usize,
    /// Fragmented packets remembered (`fragments_full`).
    pub fragments: usize,
    /// A TCP flow without a packet for this long is forgotten.
    pub tcp_idle: Duration,
    /// A TCP flow whose handshake has not completed after this long is forgotten.
    pub tcp_handshake: Duration,
    /// A UDP or other flow without a packet for this long is forgotten.
    pub datagram_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 128 Ki flows of some 300 bytes: 40 MiB when full.
            flows: 131_072,
            flows_per_endpoint: 65_536,
            // Four full super-packets.
            held_bytes_per_flow: 256 * 1024,
            held_bytes: 32 * 1024 * 1024,
            // A head may be 64 KiB; four of them may wait for their acknowledgement.
            kept_bytes_per_flow: 256 * 1024,
            // A full table of flows with a head of 2 KiB under way.
            judged_bytes: 512 * 1024 * 1024,
            // As of the table, one endpoint gets half.
            judged_bytes_per_endpoint: 256 * 1024 * 1024,
            fragments: 4096,
            // The kernel's conntrack keeps five days; an hour bounds memory and still outlives
            // the usual keep-alive interval of two hours' probes being tuned down.
            tcp_idle: Duration::from_secs(3600),
            // Linux gives up on a SYN after 127 s.
            tcp_handshake: Duration::from_secs(130),
            datagram_idle: Duration::from_secs(120),
        }
    }
}
