//! Which events and flows a reader wants. Travels as the query of an admin request, so that an
//! agent under load sends no more than is asked for.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tollgate_engine::event::{Carrier, HttpVersion, L7Facts, VerdictWord};

use crate::record::{Peer, Record, RecordKind};

/// Every field that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Governed endpoint: `namespace/name`, or `namespace/` for all of a namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Verdict word, any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// `http`, `tls`, or a transport protocol (`tcp`, `udp`, `icmp`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Destination: an address, a port, an `address:port`, a host or server name, or an
    /// endpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Source: an address, a port, an `address:port` or an endpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Policy that decided: its full name, or the last part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

impl Filter {
    /// Whether the record is wanted. Notices of lost events always are.
    pub fn matches(&self, record: &Record) -> bool {
        record.event == RecordKind::Lost
            || (given(&self.endpoint, |wanted| {
                is_endpoint(wanted, record.endpoint.as_deref())
            }) && given(&self.verdict, |wanted| is_verdict(wanted, record.verdict))
                && given(&self.protocol, |wanted| {
                    is_protocol(wanted, record.protocol.as_deref(), record.l7.as_ref())
                })
                && given(&self.to, |wanted| {
                    is_peer(wanted, record.destination.as_ref()) || is_host(wanted, &record.l7)
                })
                && given(&self.from, |wanted| is_peer(wanted, record.source.as_ref()))
                && given(&self.policy, |wanted| {
                    is_policy(wanted, record.policy.as_deref())
                }))
    }
}

/// A word for a verdict in messages and filters.
pub fn verdict_word(word: VerdictWord) -> &'static str {
    match word {
        VerdictWord::Allowed => "ALLOWED",
        VerdictWord::Denied => "DENIED",
        VerdictWord::Audited => "AUDITED",
        VerdictWord::Bypassed => "BYPASSED",
    }
}

fn given(wanted: &Option<String>, test: impl FnOnce(&str) -> bool) -> bool {
    wanted.as_deref().is_none_or(test)
}

fn is_endpoint(wanted: &str, endpoint: Option<&str>) -> bool {
    let Some(endpoint) = endpoint else {
        return false;
    };
    match wanted.strip_suffix('/') {
        Some(namespace) => endpoint
            .split_once('/')
            .is_some_and(|(ns, _)| ns == namespace),
        None => endpoint == wanted,
    }
}

fn is_verdict(wanted: &str, verdict: Option<VerdictWord>) -> bool {
    verdict.is_some_and(|word| verdict_word(word).eq_ignore_ascii_case(wanted))
}

fn is_protocol(wanted: &str, transport: Option<&str>, l7: Option<&L7Facts>) -> bool {
    let words: &[&str] = match l7 {
        Some(L7Facts::Http { grpc: Some(_), .. }) => &["grpc", "http2", "http"],
        Some(L7Facts::Http {
            version: HttpVersion::Http2,
            ..
        }) => &["http2", "http"],
        Some(L7Facts::Http { .. }) => &["http"],
        Some(L7Facts::Tls {
            carrier: Some(Carrier::Quic),
            ..
        }) => &["quic", "tls"],
        Some(L7Facts::Tls { .. }) => &["tls"],
        None => &[],
    };
    words.iter().any(|word| wanted.eq_ignore_ascii_case(word))
        || transport.is_some_and(|t| wanted.eq_ignore_ascii_case(t))
}

fn is_peer(wanted: &str, peer: Option<&Peer>) -> bool {
    let Some(peer) = peer else { return false };
    if let Ok(address) = wanted.parse::<IpAddr>() {
        return peer.address == address;
    }
    if let Ok(socket) = wanted.parse::<std::net::SocketAddr>() {
        return (peer.address, peer.port) == (socket.ip(), socket.port());
    }
    if let Ok(port) = wanted.parse::<u16>() {
        return peer.port == port;
    }
    is_endpoint(wanted, peer.name.as_deref())
}

fn is_host(wanted: &str, l7: &Option<L7Facts>) -> bool {
    match l7 {
        Some(L7Facts::Http { host, .. }) => host.eq_ignore_ascii_case(wanted),
        Some(L7Facts::Tls { sni: Some(sni), .. }) => sni.eq_ignore_ascii_case(wanted),
        _ => false,
    }
}

fn is_policy(wanted: &str, policy: Option<&str>) -> bool {
    policy.is_some_and(|name| name == wanted || name.rsplit('/').next() == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::samples::{names, recorder, stamped};

    /// A filter with one field set.
    fn one(field: &str, value: &str) -> Filter {
        serde_json::from_value(serde_json::json!({ field: value })).unwrap()
    }

    #[test]
    fn each_field_selects() {
        let record = recorder().record(&stamped(VerdictWord::Denied, 1), &names());
        for (field, value, expected) in [
            ("endpoint", "shop/web-0", true),
            ("endpoint", "shop/", true),
            ("endpoint", "sho/", false),
            ("endpoint", "shop/web", false),
            ("verdict", "denied", true),
            ("verdict", "ALLOWED", false),
            ("protocol", "http", true),
            ("protocol", "TCP", true),
            ("protocol", "tls", false),
            ("protocol", "", false),
            ("to", "203.0.113.7", true),
            ("to", "203.0.113.7:80", true),
            ("to", "203.0.113.7:81", false),
            ("to", "80", true),
            ("to", "Example.COM", true),
            ("to", "ample.com", false),
            ("to", "40000", false),
            ("from", "shop/web-0", true),
            ("from", "40000", true),
            ("from", "10.0.0.3", false),
            ("policy", "web", true),
            ("policy", "ClusterNetworkPolicy/web", true),
            ("policy", "we", false),
        ] {
            assert_eq!(
                one(field, value).matches(&record),
                expected,
                "{field}={value}"
            );
        }
        assert!(Filter::default().matches(&record));
        let both = Filter {
            to: Some("81".into()),
            ..one("endpoint", "shop/web-0")
        };
        assert!(!both.matches(&record), "all fields must match");
    }

    #[test]
    fn a_loss_is_always_told() {
        let lost = recorder().lost("2026-11-23T10:00:00Z".parse().unwrap(), 4);
        assert!(one("endpoint", "a/b").matches(&lost));
    }
}
