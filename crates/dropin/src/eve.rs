//! Events as Suricata writes them (EVE JSON), one object a line.
//!
//! `alert`: something was refused. `http`: a request passed; status and length come from the head of
//! the answer, if its beginning is seen. `tls`: a ClientHello passed.

mod response;
mod writer;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tollgate_engine::event::{HttpVersion, L7Facts, Verdict};

use crate::board::Endpoint;
use crate::flows::Flow;

pub use response::Awaited;
pub use writer::{EventLog, LogError};

/// Bytes of a packet that an alert shows: a frame of the usual MTU with its tag. A super-packet is cut.
const PACKET_BYTES_MAX: usize = 1518;

/// `linktype` of Ethernet (`LINKTYPE_ETHERNET`).
const LINKTYPE_ETHERNET: u32 = 1;

/// Severity of a rule without a class, as Suricata counts.
const SEVERITY: u32 = 3;

/// Bytes of a request in which `User-Agent` is looked for.
const USER_AGENT_WITHIN: usize = 8192;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refused.
    Alert,
    /// A request.
    Http,
    /// A TLS connection.
    Tls,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
}

/// What an event is about.
pub struct About<'a> {
    /// Interface that the packet came by.
    pub interface: &'a str,
    /// Flow.
    pub flow: &'a Flow,
    /// IP protocol number.
    pub protocol: u8,
    /// Rules.
    pub endpoint: &'a Endpoint,
    /// The frame that brought it about, with its VLAN's tag.
    pub ethernet: &'a [u8],
}

fn stamp(time: Timestamp) -> String {
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%dT%H:%M:%S%.6f%z").to_string()
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "IPv6-ICMP".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

fn common(kind: Kind, about: &About<'_>) -> Map<String, Value> {
    let flow = about.flow;
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
    put("timestamp", json!(stamp(Timestamp::now())));
    put("flow_id", json!(flow.id));
    put("in_iface", json!(about.interface));
    put("event_type", json!(kind.word()));
    put("vlan", json!([about.endpoint.vlan]));
    put("src_ip", json!(flow.client.ip()));
    put("src_port", json!(flow.client.port()));
    put("dest_ip", json!(flow.server.ip()));
    put("dest_port", json!(flow.server.port()));
    put("proto", json!(protocol(about.protocol)));
    put("pkt_src", json!("wire/pcap"));
    if let Some(tenant) = about.endpoint.tenant {
        put("tenant_id", json!(tenant));
    }
    event
}

/// Something was refused.
pub fn alert(about: &About<'_>, verdict: &Verdict, with_packet: bool) -> Map<String, Value> {
    let mut event = common(Kind::Alert, about);
    let mut alert = match &about.endpoint.otherwise {
        Some(rule) => json!({
            "action": "blocked", "gid": rule.gid, "signature_id": rule.sid, "rev": rule.rev,
            "signature": rule.msg, "category": "", "severity": SEVERITY,
        }),
        None => json!({
            "action": "blocked", "gid": 1, "signature_id": 0, "rev": 0,
            "signature": verdict.reason, "category": "", "severity": SEVERITY,
        }),
    };
    if let Some(tenant) = about.endpoint.tenant {
        alert["tenant_id"] = json!(tenant);
    }
    event.insert("alert".to_owned(), alert);
    if let Some(facts) = &verdict.l7 {
        let word = match facts {
            L7Facts::Http { .. } => "http",
            L7Facts::Tls { .. } => "tls",
        };
        event.insert("app_proto".to_owned(), json!(word));
        event.insert("tx_id".to_owned(), json!(0));
    }
    // With tenants the rule that refuses is about packets, and names no request.
    if let (None, Some(facts)) = (about.endpoint.tenant, &verdict.l7)
        && let Some(request) = request(about, facts)
    {
        event.insert("http".to_owned(), Value::Object(request));
    }
    event.insert("direction".to_owned(), json!("to_server"));
    event.insert("flow".to_owned(), flow(about.flow));
    // Suricata has no such object; those who read its events pass over what they do not know.
    let why = json!({ "reason": verdict.reason, "detail": verdict.detail });
    event.insert("tollgate".to_owned(), why);
    if with_packet {
        let end = about.ethernet.len().min(PACKET_BYTES_MAX);
        let packet = base64(about.ethernet.get(..end).unwrap_or_default());
        event.insert("packet".to_owned(), json!(packet));
        let info = json!({ "linktype": LINKTYPE_ETHERNET });
        event.insert("packet_info".to_owned(), info);
    }
    event
}

fn flow(flow: &Flow) -> Value {
    let [to_server, to_client] = flow.sums;
    json!({
        "pkts_toserver": to_server.packets, "pkts_toclient": to_client.packets,
        "bytes_toserver": to_server.bytes, "bytes_toclient": to_client.bytes,
        "start": stamp(flow.start),
        "src_ip": flow.client.ip(), "dest_ip": flow.server.ip(),
        "src_port": flow.client.port(), "dest_port": flow.server.port(),
    })
}

/// A ClientHello passed. What the server chose is not known: the version is the highest offered.
pub fn tls(about: &About<'_>, facts: &L7Facts) -> Option<Map<String, Value>> {
    let L7Facts::Tls {
        sni, version, ja4, ..
    } = facts
    else {
        return None;
    };
    let mut tls = Map::new();
    if let Some(sni) = sni {
        tls.insert("sni".to_owned(), json!(sni));
    }
    if let Some(word) = version.and_then(version_word) {
        tls.insert("version".to_owned(), json!(word));
    }
    if let Some(ja4) = ja4 {
        tls.insert("ja4".to_owned(), json!(ja4));
    }
    let mut event = common(Kind::Tls, about);
    event.insert("tls".to_owned(), Value::Object(tls));
    Some(event)
}

fn version_word(version: u16) -> Option<&'static str> {
    Some(match version {
        0x0300 => "SSLv3",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 => "TLS 1.3",
        _ => return None,
    })
}

/// What a request asked for.
fn request(about: &About<'_>, facts: &L7Facts) -> Option<Map<String, Value>> {
    let L7Facts::Http {
        method,
        host,
        target,
        version,
        ..
    } = facts
    else {
        return None;
    };
    let mut http = Map::new();
    let mut put = |name: &str, value: Value| http.insert(name.to_owned(), value);
    // Brackets belong to the way addresses of IPv6 are written in front of a port.
    put("hostname", json!(host.trim_matches(['[', ']'])));
    put("http_port", json!(about.flow.server.port()));
    put("url", json!(target));
    put("http_method", json!(method));
    let word = match version {
        HttpVersion::Http10 => "HTTP/1.0",
        HttpVersion::Http11 => "HTTP/1.1",
        HttpVersion::Http2 => "HTTP/2",
    };
    put("protocol", json!(word));
    Some(http)
}

/// A request passed; whose status is not known yet. `payload`: of the packet that completed its head.
pub fn http(about: &About<'_>, facts: &L7Facts, payload: &[u8]) -> Option<Map<String, Value>> {
    let mut http = request(about, facts)?;
    let L7Facts::Http { method, .. } = facts else {
        return None;
    };
    if payload.starts_with(method.as_bytes())
        && let Some(agent) = response::field(cut(payload, USER_AGENT_WITHIN), "user-agent")
    {
        http.insert("http_user_agent".to_owned(), json!(agent));
    }
    let mut event = common(Kind::Http, about);
    event.insert("tx_id".to_owned(), json!(0));
    event.insert("http".to_owned(), Value::Object(http));
    Some(event)
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

/// Whether a flow's event can have a status: HTTP/1 answers in the clear, in order.
pub fn has_status(facts: &L7Facts) -> bool {
    matches!(
        facts,
        L7Facts::Http {
            version: HttpVersion::Http10 | HttpVersion::Http11,
            ..
        }
    )
}

/// Base 64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0_u32, |group, &byte| group << 8 | u32::from(byte));
        for place in 0..4 {
            let digit = (group >> (18 - 6 * place) & 63) as usize;
            match DIGITS.get(digit).filter(|_| place <= chunk.len()) {
                Some(&digit) => text.push(char::from(digit)),
                None => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
