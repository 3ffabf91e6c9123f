//! What is counted, for `dump-counters` and `iface-stat`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames that came.
    pub packets: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Super-packets among them.
    pub super_packets: Counter,
    /// Frames without a tag: copies for observers, which are nobody's traffic.
    pub untagged: Counter,
    /// Frames cut off by the buffer, and so dropped.
    pub truncated: Counter,
    /// Frames sent on, or made and sent.
    pub sent: Counter,
    /// Frames that the kernel would not send.
    pub send_errors: Counter,
}

impl PortCounters {
    /// As `iface-stat` shows it: Suricata's fields, then what is behind them.
    pub fn to_json(&self) -> Value {
        json!({
            "pkts": self.packets.get(),
            "drop": self.truncated.get(),
            "invalid-checksums": 0,
            "bytes": self.bytes.get(),
            "super_packets": self.super_packets.get(),
            "untagged": self.untagged.get(),
            "truncated": self.truncated.get(),
            "sent": self.sent.get(),
            "send_errors": self.send_errors.get(),
        })
    }
}

/// Of the daemon.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames of VLANs without rules that passed.
    pub unknown_vlan_passed: Counter,
    /// And that were dropped.
    pub unknown_vlan_dropped: Counter,
    /// Frames that are no IP or not well-formed, of VLANs with rules; dropped.
    pub unreadable: Counter,
    /// Packets of connections whose beginning was not seen.
    pub midstream: Counter,
    /// Packets that passed unjudged: of connections whose beginning was not seen, if those pass, and
    /// late ones of connections that the switch has taken over.
    pub unjudged: Counter,
    /// SYNs from the server of a connection that is known; dropped.
    pub reversed_syn: Counter,
    /// ICMP errors about no known flow; dropped.
    pub unrelated_icmp: Counter,
    /// Fragments whose first part was not seen; dropped.
    pub unknown_fragment: Counter,
    /// Flows that found no room; their packets were dropped.
    pub flows_full: Counter,
    /// Flows that are known now.
    pub flows_opened: Counter,
    /// Flows that ended.
    pub flows_ended: Counter,
    /// Requests, hellos and connections that were refused.
    pub denied: Counter,
    /// Requests and hellos that were allowed.
    pub allowed: Counter,
    /// Frames that passed without the engine.
    pub passed_cached: Counter,
    /// Connections left to the switch.
    pub offloaded: Counter,
    /// Connections that could not be.
    pub offload_failed: Counter,
    /// Replies that were given the pod's address.
    pub pod_macs: Counter,
    /// Events written.
    pub events: Counter,
    /// Events lost because the writer was behind or could not write.
    pub events_lost: Counter,
}

impl Counters {
    /// All of them by name.
    pub fn to_json(&self) -> Value {
        json!({
            "unknown_vlan_passed": self.unknown_vlan_passed.get(),
            "unknown_vlan_dropped": self.unknown_vlan_dropped.get(),
            "unreadable": self.unreadable.get(),
            "midstream": self.midstream.get(),
            "unjudged": self.unjudged.get(),
            "reversed_syn": self.reversed_syn.get(),
            "unrelated_icmp": self.unrelated_icmp.get(),
            "unknown_fragment": self.unknown_fragment.get(),
            "flows_full": self.flows_full.get(),
            "flows_opened": self.flows_opened.get(),
            "flows_ended": self.flows_ended.get(),
            "denied": self.denied.get(),
            "allowed": self.allowed.get(),
            "passed_cached": self.passed_cached.get(),
            "offloaded": self.offloaded.get(),
            "offload_failed": self.offload_failed.get(),
            "pod_macs": self.pod_macs.get(),
            "events": self.events.get(),
            "events_lost": self.events_lost.get(),
        })
    }
}
