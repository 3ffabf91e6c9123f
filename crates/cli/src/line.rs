//! One event as one line for people.

use tollgate_agent::offloads::OffloadChange;
use tollgate_agent::record::{Peer, Record, RecordKind, Traffic};
use tollgate_engine::event::{Carrier, HttpVersion, L7Facts};

use crate::output::{Style, bytes, printable};

/// `time: source -> destination what VERDICT by policy rule name: reason (what was asked for)`.
pub fn compact(record: &Record, style: Style) -> String {
    let time = style.dim(&format!("{}:", record.time));
    if record.event == RecordKind::Lost {
        let count = record.lost.unwrap_or(0);
        return format!(
            "{time} {}",
            style.odd(&format!("{count} events missed: too slow"))
        );
    }
    if let Some(change) = &record.offload {
        return format!("{time} {}", offload(change, style));
    }
    let ends = format!("{} -> {}", peer(&record.source), peer(&record.destination));
    let what = what(record);
    match record.event {
        RecordKind::Closed => format!("{time} {ends} {what} closed{}", traffic(record.traffic)),
        _ => format!("{time} {ends} {what} {}", verdict(record, style)),
    }
}

fn offload(change: &OffloadChange, style: Style) -> String {
    let OffloadChange {
        interface,
        feature,
        found,
        declared,
        ..
    } = change;
    let place = change
        .endpoint
        .as_ref()
        .map_or_else(String::new, |name| format!(" in {name}"));
    match change.restored {
        true => format!(
            "{interface}{place} {feature} {}: was {found}, is {declared} again",
            style.odd("RESTORED")
        ),
        false => format!(
            "{interface}{place} {feature} {}: declared {declared}: {}",
            style.bad("REFUSED"),
            change.detail
        ),
    }
}

fn verdict(record: &Record, style: Style) -> String {
    let mut text = record
        .verdict
        .map_or_else(|| "?".to_owned(), |word| style.verdict(word));
    if let Some(policy) = &record.policy {
        text.push_str(&format!(" by {policy}"));
    }
    if let Some(rule) = &record.rule {
        text.push_str(&format!(" rule {rule}"));
    }
    match (record.reason.as_deref(), record.detail.as_str()) {
        // A rule that decided is named already.
        (None | Some("rule"), "") => {}
        (None | Some("rule"), detail) => text.push_str(&format!(": {}", printable(detail))),
        (Some(reason), "") => text.push_str(&format!(": {reason}")),
        (Some(reason), detail) => text.push_str(&format!(": {reason}: {}", printable(detail))),
    }
    if let Some(facts) = &record.l7 {
        text.push_str(&format!(" ({})", asked(facts)));
    }
    text
}

/// An end of a flow: `name:port (address)`, or `address:port` if it has no name.
pub fn peer(peer: &Option<Peer>) -> String {
    let Some(peer) = peer else {
        return "?".to_owned();
    };
    match (&peer.name, peer.port) {
        (Some(name), 0) => format!("{name} ({})", peer.address),
        (Some(name), port) => format!("{name}:{port} ({})", peer.address),
        (None, 0) => peer.address.to_string(),
        (None, port) => std::net::SocketAddr::new(peer.address, port).to_string(),
    }
}

fn what(record: &Record) -> String {
    match &record.l7 {
        Some(L7Facts::Http { grpc: Some(_), .. }) => "grpc-request".to_owned(),
        Some(L7Facts::Http {
            version: HttpVersion::Http2,
            ..
        }) => "http2-request".to_owned(),
        Some(L7Facts::Http { .. }) => "http-request".to_owned(),
        Some(L7Facts::Tls {
            carrier: Some(Carrier::Quic),
            ..
        }) => "quic-hello".to_owned(),
        Some(L7Facts::Tls { .. }) => "tls-hello".to_owned(),
        None => format!("{}-flow", record.protocol.as_deref().unwrap_or("ip")),
    }
}

/// What the client wanted.
pub fn asked(facts: &L7Facts) -> String {
    let text = match facts {
        L7Facts::Http {
            host,
            grpc: Some(grpc),
            ..
        } => format!("gRPC {host} {}/{}", grpc.service, grpc.method),
        // Origin form; everything else names its host itself.
        L7Facts::Http {
            method,
            host,
            target,
            ..
        } if target.starts_with('/') => {
            format!("{method} http://{host}{target}")
        }
        L7Facts::Http { method, target, .. } => format!("{method} {target}"),
        L7Facts::Tls { sni, alpn, ech, .. } => {
            let mut text = sni
                .as_ref()
                .map_or("no SNI".to_owned(), |name| format!("SNI {name}"));
            if !alpn.is_empty() {
                text.push_str(&format!(", ALPN {}", alpn.join(",")));
            }
            if *ech {
                text.push_str(", ECH");
            }
            text
        }
    };
    printable(&text)
}

fn traffic(traffic: Option<Traffic>) -> String {
    let Some(t) = traffic else {
        return String::new();
    };
    let (sent, received) = (bytes(t.bytes_out), bytes(t.bytes_in));
    format!(
        " (out {sent} in {} packets, in {received} in {} packets)",
        t.packets_out, t.packets_in
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: serde_json::Value) -> Record {
        let mut base = serde_json::json!({
            "time": "2026-11-23T10:00:00.500000Z", "event": "verdict", "verdict": "DENIED",
            "direction": "egress", "endpoint": "shop/web-0", "protocol": "tcp",
            "source": {"address": "10.0.0.2", "port": 40000, "name": "shop/web-0"},
            "destination": {"address": "203.0.113.7", "port": 80}, "node": "n1",
        });
        let (Some(base_map), Some(more)) = (base.as_object_mut(), json.as_object()) else {
            panic!("objects")
        };
        base_map.extend(more.clone());
        serde_json::from_value(base).unwrap()
    }

    #[test]
    fn lines_say_who_what_and_why() {
        let http = serde_json::json!({"protocol": "http", "method": "GET", "host": "a.example",
            "target": "/x\u{1b}[2J"});
        let tls = serde_json::json!({"protocol": "tls", "sni": "b.example", "alpn": ["h2"]});
        let bare = serde_json::json!({"protocol": "tls", "sni": null, "alpn": []});
        let proxy = serde_json::json!({"protocol": "http", "method": "CONNECT", "host": "c",
            "target": "c:443"});
        let head = "2026-11-23T10:00:00.500000Z: shop/web-0:40000 (10.0.0.2) -> 203.0.113.7:80";
        for (more, expected) in [
            (
                serde_json::json!({"l7": http, "policy": "ClusterNetworkPolicy/web", "rule": "read",
                    "reason": "http-no-rule-matches"}),
                "http-request DENIED by ClusterNetworkPolicy/web rule read: http-no-rule-matches \
                 (GET http://a.example/x\\u{1b}[2J)",
            ),
            (
                serde_json::json!({"verdict": "ALLOWED", "l7": tls, "policy": "p", "rule": "r",
                    "reason": "rule"}),
                "tls-hello ALLOWED by p rule r (SNI b.example, ALPN h2)",
            ),
            (
                serde_json::json!({"verdict": "AUDITED", "l7": bare, "reason": "tls-no-sni",
                    "detail": "the hello has none"}),
                "tls-hello AUDITED: tls-no-sni: the hello has none (no SNI)",
            ),
            (
                serde_json::json!({"verdict": "ALLOWED", "reason": "no-policy"}),
                "tcp-flow ALLOWED: no-policy",
            ),
            (
                serde_json::json!({"l7": proxy}),
                "http-request DENIED (CONNECT c:443)",
            ),
            (
                serde_json::json!({"event": "closed", "traffic": {"bytesOut": 1500, "bytesIn": 10,
                    "packetsOut": 2, "packetsIn": 1}}),
                "tcp-flow closed (out 1.5 kB in 2 packets, in 10 B in 1 packets)",
            ),
        ] {
            assert_eq!(
                compact(&record(more), Style::plain()),
                format!("{head} {expected}")
            );
        }
    }

    #[test]
    fn addresses_without_ports_and_losses_are_shown() {
        let ping = record(serde_json::json!({"protocol": "icmpv6",
            "source": {"address": "fd00::2", "port": 0, "name": "a/b"},
            "destination": {"address": "fd00::1", "port": 0}}));
        let line = compact(&ping, Style::plain());
        assert!(
            line.ends_with("a/b (fd00::2) -> fd00::1 icmpv6-flow DENIED"),
            "{line}"
        );
        let put_back = record(serde_json::json!({"event": "offload", "offload": {
            "interface": "eth0", "endpoint": "a/b", "feature": "tx-checksum-ip-generic",
            "found": "on", "declared": "off", "restored": true}}));
        let line = compact(&put_back, Style::plain());
        assert!(
            line.ends_with("eth0 in a/b tx-checksum-ip-generic RESTORED: was on, is off again"),
            "{line}"
        );
        let lost = record(serde_json::json!({"event": "lost", "lost": 7}));
        assert!(compact(&lost, Style::plain()).ends_with(": 7 events missed: too slow"));
    }
}
