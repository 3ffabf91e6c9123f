//! The flow cache's entries as the engine thinks of them; `datapath` turns them into the kernel
//! map's bytes.

/// What the kernel does with one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// Every packet goes to the engine.
    #[default]
    Divert,
    /// Every packet passes (SYN without ACK excepted: it may open a new flow under an old key).
    Pass,
    /// Every packet is dropped.
    Drop,
    /// TCP only: a segment without FIN and URG passes if it carries no payload, or if its payload
    /// lies wholly inside `[start, end)` of the direction's sequence numbers (modulo 2^32, `end - start < 2^31`).
    /// Every other segment goes to the engine. `start == end` lets no payload pass.
    Window {
        /// First sequence number inside.
        start: u32,
        /// First sequence number behind it.
        end: u32,
    },
    /// UDP only: a datagram passes if it begins with a QUIC short header (RFC 8999, section 5.2).
    /// Long headers open connections and go to the engine; of a super-packet every datagram is
    /// looked at.
    Quic,
}

/// One entry: what happens to each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// Packets that leave the endpoint.
    pub outbound: Steer,
    /// Packets that go to the endpoint.
    pub inbound: Steer,
}

/// What the kernel noted about one direction of a cached flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionProgress {
    /// Packets that passed in the kernel.
    pub packets: u64,
    /// Bytes (whole frames) that passed in the kernel.
    pub bytes: u64,
    /// TCP: highest acknowledgement number that passed in this direction, if any did.
    pub max_ack: Option<u32>,
    /// TCP: highest sequence number (end of segment, FIN counted) that passed, if any did.
    pub max_seq: Option<u32>,
    /// TCP: what the latest SYN-ACK acknowledged, if one passed.
    pub syn_ack: Option<u32>,
    /// TCP: a FIN passed.
    pub fin: bool,
    /// TCP: an RST passed.
    pub rst: bool,
}

/// What the kernel noted about a cached flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets that left the endpoint.
    pub outbound: DirectionProgress,
    /// Packets that went to the endpoint.
    pub inbound: DirectionProgress,
    /// When a packet last hit the entry, nanoseconds of `CLOCK_MONOTONIC` (coarse).
    pub last_seen_ns: u64,
}
