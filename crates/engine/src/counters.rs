//! What one engine counted. Plain numbers; the worker publishes them.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of one engine, since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            /// Names, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
            /// Help texts, in the same order.
            pub const HELP: &'static [&'static str] = &[$(concat!($($doc),+)),+];
            /// The numbers, in the order of [`Counters::NAMES`].
            pub fn values(&self) -> [u64; Self::NAMES.len()] { [$(self.$name),+] }
        }
    };
}

counters! {
    /// Frames that came up from the kernel.
    frames_in,
    /// Bytes of those frames.
    bytes_in,
    /// Frames sent on as they came.
    frames_forwarded,
    /// Frames made or changed by the engine (RST, 403, alerts, trimmed segments).
    frames_made,
    /// Frames that carried no valid tag or an unknown endpoint.
    bad_tag,
    /// Frames whose headers could not be read.
    malformed,
    /// Frames dropped because their receiver would drop them: a wrong checksum, no hop left.
    decoy,
    /// Frames dropped because an endpoint sent them to itself in another's name.
    spoofed,
    /// Frames dropped because an endpoint that may send from its own addresses only sent them from another.
    foreign_source,
    /// Frames dropped because their protocol has no defined treatment.
    not_ip,
    /// Flows entered into the table.
    flows_opened,
    /// Flows removed from the table.
    flows_closed,
    /// First packets dropped: the flow table was full.
    flow_table_full,
    /// First packets dropped: the endpoint's share of the flow table was full.
    endpoint_flows_full,
    /// Flow-cache entries refused by a full kernel map; the flow stays with the engine.
    flow_cache_full,
    /// HTTP requests judged.
    http_requests,
    /// TLS hellos judged.
    tls_hellos,
    /// TLS hellos of QUIC connections judged.
    quic_hellos,
    /// QUIC datagrams dropped: unreadable, of a denied connection, or ahead of a hello that never came.
    quic_dropped,
    /// Verdicts ALLOWED.
    allowed,
    /// Verdicts DENIED.
    denied,
    /// Verdicts AUDITED: would be denied, forwarded because the policy is in audit mode.
    audited,
    /// Segments dropped because they came before the handshake was complete.
    before_handshake,
    /// Out-of-order segments held back until the gap was filled.
    held,
    /// Out-of-order segments dropped because a holding limit was reached.
    held_full,
    /// Segments dropped because too many judged bytes waited for their acknowledgement.
    kept_full,
    /// Segments dropped because the endpoint's share of the memory of what is judged was full.
    endpoint_kept_full,
    /// Retransmissions whose bytes differ from those that were judged; dropped.
    retransmission_differs,
    /// Retransmissions of bytes neither remembered nor acknowledged; dropped.
    retransmission_unknown,
    /// Segments whose already judged front was cut off before they were sent on.
    trimmed,
    /// Segments whose urgent pointer was cleared: it takes a byte out of the stream that is read.
    urgent_cleared,
    /// Flows under policies in audit mode only that could not be read any further without holding up or
    /// changing what they carry; they go on unread.
    audit_unread,
    /// FINs dropped because the stream would have ended before something that was judged.
    fin_misplaced,
    /// SYNs dropped because the other side had already opened the flow.
    simultaneous_open,
    /// SYNs that the other side of a flow that is judged sent on it: passed, and without a consequence.
    syn_in_servers_name,
    /// Packets of flows that the engine does not know, answered with RST.
    unknown_flow,
    /// Packets of denied flows that were swallowed or answered.
    after_denial,
    /// Fragments dropped: no verdict for their first fragment.
    fragment_unknown,
    /// Fragments dropped: TCP under an L7 rule must not be fragmented.
    fragment_refused,
    /// Fragmented packets not remembered: too many at once.
    fragments_full,
    /// ICMP errors dropped because they belong to no known flow.
    icmp_unrelated,
    /// Flows cut by a change of policy.
    cut_by_policy,
    /// Server segments held back because the answer to Upgrade or CONNECT was awaited.
    response_out_of_order,
    /// DNS answers that taught an endpoint's names.
    dns_learnt,
    /// DNS answers about names of interest that matched no question; they taught nothing.
    dns_unasked,
    /// DNS segments dropped because an earlier one was missing.
    dns_out_of_order,
    /// DNS questions and connections not read because too many bytes were held.
    dns_held_full,
    /// Learnt pairs of name and address that gave way to newer ones.
    names_replaced,
    /// Addresses not learnt because the endpoint's table of names was full.
    names_full,
}
