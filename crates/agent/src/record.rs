//! One event as the verdict log, `observe` and other programs see it. The field names are part of
//! the product's interface: they may be added to, not changed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_engine::FlowSummary;
use tollgate_engine::event::{Event, EventKind, L7Facts, Verdict, VerdictWord};
use tollgate_policy::Side;
use tollgate_wire::tag::EndpointId;

use crate::offloads::OffloadChange;

/// What kind of event a [`Record`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// Something was decided.
    Verdict,
    /// A flow is gone from the table.
    Closed,
    /// Declared offload state was changed by somebody else and put back, or cannot be had.
    Offload,
    /// This reader was too slow: `lost` says how many events it missed.
    Lost,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 for protocols without ports.
    pub port: u16,
    /// Endpoint with that address on this node, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

/// Frames and bytes of a flow, seen from its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Bytes that left the endpoint.
    pub bytes_out: u64,
    /// Bytes that went to the endpoint.
    pub bytes_in: u64,
    /// Packets that left the endpoint.
    pub packets_out: u64,
    /// Packets that went to the endpoint.
    pub packets_in: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When, RFC 3339 in UTC with microseconds.
    pub time: String,
    /// What kind of event.
    pub event: RecordKind,
    /// The verdict word, in verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictWord>,
    /// `egress`: opened by the endpoint; `ingress`: opened towards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Side>,
    /// The governed endpoint, e.g. `shop/web-0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Arc<str>>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or the protocol's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Who opened the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Peer>,
    /// Towards whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Peer>,
    /// What was read from the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l7: Option<L7Facts>,
    /// Policy that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<str>>,
    /// Rule in that policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Why, as a stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What passed, in ends of flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// What was found and what was done about it, in `offload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<OffloadChange>,
    /// Events that this reader missed, in `lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Names the flow on this node since the agent's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// The node.
    pub node: Arc<str>,
}

/// An event with when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// When it was sent.
    pub time: Timestamp,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An engine said something of a flow.
    Flow {
        /// Which worker's.
        worker: usize,
        /// What it said.
        event: Event,
    },
    /// Declared offload state was not as declared.
    Offload(OffloadChange),
}

impl Stamped {
    /// What an engine said.
    pub fn flow(&self) -> Option<&Event> {
        match &self.what {
            What::Flow { event, .. } => Some(event),
            What::Offload(_) => None,
        }
    }
}

/// What is known of an endpoint by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// e.g. `shop/web-0`.
    pub name: Arc<str>,
    /// Namespace, if it has one.
    pub namespace: Option<Arc<str>>,
}

impl EndpointName {
    /// Splits `namespace/name`; a name without a slash has no namespace.
    pub fn new(name: &str) -> Self {
        let namespace = name
            .split_once('/')
            .map(|(namespace, _)| Arc::from(namespace));
        Self {
            name: Arc::from(name),
            namespace,
        }
    }
}

/// Names for identifiers and addresses; replaced as a whole when the policy changes.
#[derive(Clone, Debug, Default)]
pub struct Names {
    by_id: HashMap<EndpointId, EndpointName>,
    by_address: HashMap<IpAddr, Arc<str>>,
}

impl Names {
    /// Adds one endpoint.
    pub fn insert(&mut self, id: EndpointId, name: &str, addresses: &[IpAddr]) {
        let name = EndpointName::new(name);
        self.by_address
            .extend(addresses.iter().map(|&a| (a, Arc::clone(&name.name))));
        self.by_id.insert(id, name);
    }

    /// The endpoint's names; an endpoint that is gone shows its number.
    pub fn endpoint(&self, id: EndpointId) -> EndpointName {
        let unknown = || EndpointName {
            name: format!("#{}", id.get()).into(),
            namespace: None,
        };
        self.by_id.get(&id).cloned().unwrap_or_else(unknown)
    }

    fn peer(&self, address: IpAddr, port: u16) -> Peer {
        Peer {
            address,
            port,
            name: self.by_address.get(&address).cloned(),
        }
    }
}

/// Turns events into records.
#[derive(Debug)]
pub struct Recorder {
    /// The node's name.
    pub node: Arc<str>,
    /// Keep what follows the `?` of a request target.
    pub keep_queries: bool,
}

impl Recorder {
    /// The record of one event.
    pub fn record(&self, stamped: &Stamped, names: &Names) -> Record {
        let (worker, event) = match &stamped.what {
            What::Flow { worker, event } => (*worker, event),
            What::Offload(change) => return self.offload(stamped.time, change),
        };
        let record = self.bare(stamped.time, worker, event, names);
        match &event.kind {
            EventKind::Verdict(verdict) => self.verdict(record, verdict),
            EventKind::Closed {
                bytes_out,
                bytes_in,
                packets_out,
                packets_in,
            } => Record {
                event: RecordKind::Closed,
                traffic: Some(Traffic {
                    bytes_out: *bytes_out,
                    bytes_in: *bytes_in,
                    packets_out: *packets_out,
                    packets_in: *packets_in,
                }),
                ..record
            },
        }
    }

    /// Tells a reader that it missed `lost` events.
    pub fn lost(&self, now: Timestamp, lost: u64) -> Record {
        Record {
            time: rfc3339(now),
            event: RecordKind::Lost,
            verdict: None,
            direction: None,
            endpoint: None,
            namespace: None,
            protocol: None,
            source: None,
            destination: None,
            l7: None,
            policy: None,
            rule: None,
            reason: None,
            detail: String::new(),
            traffic: None,
            offload: None,
            lost: Some(lost),
            flow: None,
            node: Arc::clone(&self.node),
        }
    }

    fn offload(&self, time: Timestamp, change: &OffloadChange) -> Record {
        let endpoint = change.endpoint.as_deref().map(EndpointName::new);
        let (endpoint, namespace) =
            endpoint.map_or((None, None), |names| (Some(names.name), names.namespace));
        Record {
            event: RecordKind::Offload,
            endpoint,
            namespace,
            offload: Some(change.clone()),
            lost: None,
            ..self.lost(time, 0)
        }
    }

    fn bare(&self, time: Timestamp, worker: usize, event: &Event, names: &Names) -> Record {
        let Event { key, side, .. } = event;
        let endpoint = names.endpoint(key.endpoint);
        let (source, destination) = directed(key.local_addr(), key.remote_addr(), *side, names);
        Record {
            event: RecordKind::Verdict,
            endpoint: Some(endpoint.name),
            namespace: endpoint.namespace,
            protocol: Some(protocol_name(key.protocol)),
            direction: Some(*side),
            source: Some(source),
            destination: Some(destination),
            lost: None,
            flow: Some(flow_name(worker, event.flow_id)),
            ..self.lost(time, 0)
        }
    }

    fn verdict(&self, record: Record, verdict: &Verdict) -> Record {
        Record {
            verdict: Some(verdict.word),
            l7: verdict.l7.as_ref().map(|facts| self.facts(facts)),
            policy: verdict.policy.clone(),
            rule: verdict.rule.clone(),
            reason: Some(verdict.reason.to_owned()),
            detail: verdict.detail.clone(),
            ..record
        }
    }

    /// The facts, without the query string unless it is wanted, and without header fields: they may
    /// carry secrets.
    pub fn facts(&self, facts: &L7Facts) -> L7Facts {
        let mut facts = facts.clone();
        let L7Facts::Http {
            target,
            headers,
            looked_for,
            ..
        } = &mut facts
        else {
            return facts;
        };
        headers.clear();
        looked_for.clear();
        if !self.keep_queries
            && let Some(at) = target.find('?')
        {
            target.truncate(at);
            target.push_str("?…");
        }
        facts
    }
}

/// Source and destination of a flow, from the engine's summary of it.
pub fn summary_ends(flow: &FlowSummary, names: &Names) -> (Peer, Peer) {
    directed(flow.local, flow.remote, flow.side, names)
}

fn directed(local: SocketAddr, remote: SocketAddr, side: Side, names: &Names) -> (Peer, Peer) {
    let local = names.peer(local.ip(), local.port());
    let remote = names.peer(remote.ip(), remote.port());
    match side {
        Side::Egress => (local, remote),
        Side::Ingress => (remote, local),
    }
}

/// A time stamp as all of Tollgate writes it.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// A flow's name: worker and number, because each worker counts its own.
pub fn flow_name(worker: usize, flow_id: u64) -> String {
    format!("{worker}-{flow_id}")
}

/// IANA's keyword of a protocol number where people know it, else the number.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use tollgate_engine::key::FlowKey;

    use super::*;

    pub(crate) fn key() -> FlowKey {
        FlowKey {
            endpoint: EndpointId::new(3).unwrap(),
            protocol: 6,
            local: "10.0.0.2".parse().unwrap(),
            local_port: 40000,
            remote: "203.0.113.7".parse().unwrap(),
            remote_port: 80,
        }
    }

    pub(crate) fn verdict(word: VerdictWord) -> Verdict {
        Verdict {
            word,
            l7: Some(L7Facts::Http {
                method: "GET".into(),
                host: "example.com".into(),
                target: "/a?token=x".into(),
                version: Default::default(),
                headers: vec![("authorization".into(), "secret".into())],
                looked_for: vec!["authorization".into()],
                grpc: None,
                upgrade: false,
            }),
            policy: Some("ClusterNetworkPolicy/web".into()),
            rule: Some("read".into()),
            reason: "rule",
            detail: "no path matches".into(),
            logged: false,
        }
    }

    pub(crate) fn stamped(word: VerdictWord, flow_id: u64) -> Stamped {
        let kind = EventKind::Verdict(verdict(word));
        Stamped {
            time: "2026-11-23T10:00:00.5Z".parse().unwrap(),
            what: What::Flow {
                worker: 1,
                event: Event {
                    flow_id,
                    key: key(),
                    side: Side::Egress,
                    kind,
                },
            },
        }
    }

    pub(crate) fn event_of(stamped: &mut Stamped) -> &mut Event {
        match &mut stamped.what {
            What::Flow { event, .. } => event,
            What::Offload(_) => panic!("a flow's event"),
        }
    }

    pub(crate) fn names() -> Names {
        let mut names = Names::default();
        names.insert(
            EndpointId::new(3).unwrap(),
            "shop/web-0",
            &["10.0.0.2".parse().unwrap()],
        );
        names
    }

    pub(crate) fn recorder() -> Recorder {
        Recorder {
            node: "n1".into(),
            keep_queries: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    #[test]
    fn a_verdict_has_the_stable_fields() {
        let record = recorder().record(&stamped(VerdictWord::Denied, 9), &names());
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            serde_json::json!({
                "time": "2026-11-23T10:00:00.500000Z",
                "event": "verdict",
                "verdict": "DENIED",
                "direction": "egress",
                "endpoint": "shop/web-0",
                "namespace": "shop",
                "protocol": "tcp",
                "source": {"address": "10.0.0.2", "port": 40000, "name": "shop/web-0"},
                "destination": {"address": "203.0.113.7", "port": 80},
                "l7": {"protocol": "http", "method": "GET", "host": "example.com", "target": "/a?…",
                    "version": "1.1"},
                "policy": "ClusterNetworkPolicy/web",
                "rule": "read",
                "reason": "rule",
                "detail": "no path matches",
                "flow": "1-9",
                "node": "n1",
            })
        );
        let back: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(back, record);
    }

    #[test]
    fn an_ingress_flow_comes_from_the_remote_side() {
        let mut stamped = stamped(VerdictWord::Allowed, 1);
        event_of(&mut stamped).side = Side::Ingress;
        let record = recorder().record(&stamped, &names());
        assert_eq!(record.source.unwrap().port, 80);
        assert_eq!(
            record.destination.unwrap().name.as_deref(),
            Some("shop/web-0")
        );
    }

    #[test]
    fn a_closed_flow_shows_its_traffic_and_a_gone_endpoint_its_number() {
        let mut stamped = stamped(VerdictWord::Allowed, 2);
        event_of(&mut stamped).kind = EventKind::Closed {
            bytes_out: 1,
            bytes_in: 2,
            packets_out: 3,
            packets_in: 4,
        };
        let record = recorder().record(&stamped, &Names::default());
        assert_eq!(record.event, RecordKind::Closed);
        assert_eq!(record.endpoint.as_deref(), Some("#3"));
        assert_eq!(record.traffic.unwrap().packets_in, 4);
        assert_eq!((record.verdict, record.lost), (None, None));
    }

    #[test]
    fn a_change_of_offloads_has_no_flow() {
        let change = OffloadChange {
            interface: "eth0".into(),
            endpoint: Some("shop/web-0".into()),
            feature: "tx-checksum-ip-generic".into(),
            found: "on".into(),
            declared: "off".into(),
            restored: true,
            detail: String::new(),
        };
        let stamped = Stamped {
            time: "2026-11-23T10:00:00.5Z".parse().unwrap(),
            what: What::Offload(change),
        };
        let record = recorder().record(&stamped, &names());
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            serde_json::json!({
                "time": "2026-11-23T10:00:00.500000Z", "event": "offload",
                "endpoint": "shop/web-0", "namespace": "shop", "node": "n1",
                "offload": {"interface": "eth0", "endpoint": "shop/web-0",
                    "feature": "tx-checksum-ip-generic", "found": "on", "declared": "off",
                    "restored": true},
            })
        );
    }

    #[test]
    fn query_strings_are_kept_only_on_request() {
        let keeping = Recorder {
            keep_queries: true,
            ..recorder()
        };
        let record = keeping.record(&stamped(VerdictWord::Allowed, 1), &names());
        let Some(L7Facts::Http { target, .. }) = record.l7 else {
            panic!("HTTP")
        };
        assert_eq!(target, "/a?token=x");
    }
}
