//! A packet thread's way out: frames, cache, events.

use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tollgate_datapath::packet::{PacketSocket, VNET_HEADER_LEN};
use tollgate_engine::Output;
use tollgate_engine::cache::{CacheEntry, Progress, Steer};
use tollgate_engine::event::{Event, EventKind, L7Facts, Verdict, VerdictWord};
use tollgate_engine::key::FlowKey;
use tollgate_engine::output::CacheFull;
use tollgate_steer::{Fate, FlowCache, Packet};
use tollgate_wire::packet::{self, Layout, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use tollgate_wire::tag::Tag;
use tollgate_wire::vnet::{VNET_HDR_LEN, VnetHdr};

use super::{Shared, TCI, TCI_REST};
use crate::board::Snapshot;
use crate::conntrack::Released;
use crate::counters::PortCounters;
use crate::eve::{self, About, Awaited, Kind};
use crate::flows::{Ends, Flow, Flows, LINK_LEN, side};
use crate::pods::PLACEHOLDER;

/// Length of an Ethernet header with its tag up to the EtherType behind it.
const TAGGED_LEN: usize = LINK_LEN + 4;

/// What the engine says of a flow that it need not see any more.
const PASSING: CacheEntry = CacheEntry {
    outbound: Steer::Pass,
    inbound: Steer::Pass,
};

/// Everything but the engine.
pub(super) struct Parts {
    pub to: PacketSocket,
    pub cache: FlowCache,
    pub flows: Flows,
    pub snapshot: Arc<Snapshot>,
    pub interface: String,
    /// Flows that the engine has forgotten.
    pub closed: Vec<(Ends, tollgate_wire::tag::EndpointId)>,
    pub out: Arc<PortCounters>,
    /// Flows that the switch has taken over.
    pub released: Released,
    pub shared: Shared,
}

/// [`Parts`] while the engine looks at a frame.
pub(super) struct Way<'a> {
    pub parts: &'a mut Parts,
    /// The frame; empty if there is none.
    pub frame: &'a [u8],
}

impl Parts {
    /// What the cache says to a packet.
    pub fn fate(&mut self, now: Duration, tag: Tag, layout: &Layout, frame: &[u8]) -> Fate {
        let packet = Packet {
            tag,
            layout,
            ethernet: frame.get(VNET_HDR_LEN..).unwrap_or_default(),
            gso_size: VnetHdr::parse(frame).map_or(0, |header| header.gso_size),
        };
        self.cache.fate(now, &packet)
    }

    /// Sends a frame out with its VLAN.
    pub fn send(&self, frame: &[u8], vlan: u16) {
        let link = frame
            .get(VNET_HDR_LEN..)
            .and_then(|rest| rest.first_chunk());
        if let Some(link) = link {
            self.send_as(frame, vlan, *link);
        }
    }

    /// Sends a frame out with its VLAN and these Ethernet addresses.
    fn send_as(&self, frame: &[u8], vlan: u16, mut link: [u8; LINK_LEN]) {
        let Some((header, rest)) = frame.split_at_checked(VNET_HDR_LEN) else {
            return;
        };
        let Some((tagged, rest)) = rest.split_at_checked(TAGGED_LEN) else {
            return;
        };
        if link.starts_with(&PLACEHOLDER) {
            self.set_pod_mac(&mut link, rest);
        }
        let mut head = [0; VNET_HEADER_LEN + TAGGED_LEN];
        let (vnet, eth) = head.split_at_mut(VNET_HEADER_LEN);
        vnet.copy_from_slice(header.get(..VNET_HEADER_LEN).unwrap_or_default());
        eth.copy_from_slice(tagged);
        let old = frame.get(TCI..).and_then(|tci| tci.first_chunk());
        let tci = old.map_or(0, |tci| u16::from_be_bytes(*tci)) & TCI_REST | vlan;
        for (place, bytes) in [(0, &link[..]), (LINK_LEN + 2, &tci.to_be_bytes()[..])] {
            if let Some(place) = eth.get_mut(place..place + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        let parts = [IoSlice::new(&head), IoSlice::new(rest)];
        let nothing = &mut SendAncillaryBuffer::default();
        match sendmsg(&self.to, &parts, nothing, SendFlags::empty()) {
            Ok(_) => self.out.sent.inc(),
            // The frame is lost as on any full link; TCP sends it again.
            Err(_) => self.out.send_errors.inc(),
        }
    }

    /// Gives a frame for a pod of this node the pod's address. `rest` begins with the EtherType.
    fn set_pod_mac(&self, link: &mut [u8; LINK_LEN], rest: &[u8]) {
        let Some(pods) = &self.shared.pods else {
            return;
        };
        let mac = destination(rest).and_then(|address| pods.mac_of(&address));
        if let (Some(mac), Some(place)) = (mac, link.first_chunk_mut()) {
            *place = mac;
            self.shared.counters.pod_macs.inc();
        }
    }

    fn ends_of(&self, key: &FlowKey) -> Option<Ends> {
        let endpoint = self.snapshot.endpoints.get(&key.endpoint)?;
        let mut remote = key.remote_addr();
        if matches!(key.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) {
            remote.set_port(key.local_port);
        }
        let local = key.local_addr();
        Some(Ends::new(endpoint.vlan, key.protocol, local, remote))
    }

    /// A frame that the engine made or held back: its flow's Ethernet addresses of that direction, as
    /// last seen, are those that the switch expects. The engine knows one direction's and turns them
    /// round, which is the best there is before the other direction was seen.
    fn link_of(&self, tag: Tag, vlan: u16, frame: &[u8]) -> Option<[u8; LINK_LEN]> {
        let ethernet = frame.get(VNET_HDR_LEN..)?;
        let packet::Packet::Ip(layout) = packet::parse(ethernet).ok()? else {
            return None;
        };
        let flow = match packet::icmp_quoted(ethernet, &layout) {
            // An error of the engine's own is about the packet that it looks at.
            Some(_) => None,
            None => self.flows.get(&Ends::of(vlan, &layout)),
        };
        *flow?.links.get(side(tag.direction))?
    }

    /// A flow is gone.
    pub fn ended(&mut self, flow: &mut Flow) {
        self.shared.counters.flows_ended.inc();
        if let Some(endpoint) = flow.endpoint {
            self.shared.board.flow_ended(endpoint);
        }
        self.flush(flow);
    }

    /// The engine has forgotten a flow. One that the switch has taken over may still have packets on
    /// their way here.
    pub fn forgotten(&mut self, ends: Ends, mut flow: Flow) {
        self.ended(&mut flow);
        if flow.released {
            self.flows.let_pass(ends, flow);
        }
    }

    /// The switch has taken over a flow: nothing of it will be seen here, its end neither. True if the
    /// engine may forget it.
    pub fn take_over(&mut self, key: &FlowKey) -> bool {
        let ends = self.ends_of(key);
        let Some(flow) = ends.and_then(|ends| self.flows.get_mut(&ends)) else {
            return false;
        };
        // By then it may be another flow with the same ends, or decided otherwise.
        let is_it = flow.endpoint == Some(key.endpoint) && flow.offloaded;
        let passes = |(entry, _)| entry == PASSING;
        if !is_it || !self.cache.get(key).is_some_and(passes) {
            return false;
        }
        flow.released = true;
        self.cache.end(key)
    }

    fn flush(&self, flow: &mut Flow) {
        if let Some(awaited) = flow.awaited.take() {
            self.shared.events.put(Kind::Http, awaited.into_event());
        }
    }

    /// A server's packet may be what a request's event waits for.
    pub fn answer(&mut self, ends: &Ends, layout: &Layout, frame: &[u8]) {
        let (Some(tcp), Some(flow)) = (layout.tcp(), self.flows.get_mut(ends)) else {
            return;
        };
        let Some(awaited) = &mut flow.awaited else {
            return;
        };
        let payload = layout.payload(frame.get(VNET_HDR_LEN..).unwrap_or_default());
        if awaited.push(tcp.seq, payload)
            && let Some(awaited) = flow.awaited.take()
        {
            self.shared.events.put(Kind::Http, awaited.into_event());
        }
    }

    /// Tells the switch that it need not bring a flow here any more.
    fn offload(&mut self, key: &FlowKey) {
        let Some(offloader) = &self.shared.offloader else {
            return;
        };
        let Some(flow) = self.ends_of(key).and_then(|ends| self.flows.get_mut(&ends)) else {
            return;
        };
        if !std::mem::replace(&mut flow.offloaded, true) {
            offloader.put(key, flow.client, flow.server, &self.released);
        }
    }

    fn verdict(&mut self, key: &FlowKey, verdict: &Verdict, frame: &[u8]) {
        let counters = &self.shared.counters;
        match (verdict.word, &verdict.l7) {
            (VerdictWord::Denied, _) => counters.denied.inc(),
            (_, Some(_)) => counters.allowed.inc(),
            (_, None) => return,
        }
        let Some(ends) = self.ends_of(key) else {
            return;
        };
        let endpoint = self.snapshot.endpoints.get(&key.endpoint);
        let (Some(flow), Some(endpoint)) = (self.flows.get(&ends), endpoint) else {
            return;
        };
        let plain = with_vlan(frame, endpoint.vlan);
        let about = About {
            interface: &self.interface,
            flow,
            protocol: key.protocol,
            endpoint,
            ethernet: &plain,
        };
        let events = &self.shared.events;
        match (verdict.word, &verdict.l7) {
            (VerdictWord::Denied, _) if events.wants(Kind::Alert) => {
                let with_packet = events.wants_packets() && !frame.is_empty();
                events.put(Kind::Alert, eve::alert(&about, verdict, with_packet));
            }
            (VerdictWord::Denied, _) | (_, None) => {}
            (_, Some(facts @ L7Facts::Tls { .. })) if events.wants(Kind::Tls) => {
                if let Some(event) = eve::tls(&about, facts) {
                    events.put(Kind::Tls, event);
                }
            }
            (_, Some(facts @ L7Facts::Http { .. })) if events.wants(Kind::Http) => {
                self.request(&ends, facts, &about_request(&about, facts, frame));
            }
            (_, Some(_)) => {}
        }
    }

    /// A request passed: its event waits for the answer, if that can be read.
    fn request(&mut self, ends: &Ends, facts: &L7Facts, request: &Option<Request>) {
        let (Some(request), Some(flow)) = (request, self.flows.get_mut(ends)) else {
            return;
        };
        if let Some(earlier) = flow.awaited.take() {
            flow.pipelined = true;
            self.shared.events.put(Kind::Http, earlier.into_event());
        }
        let event = request.event.clone();
        match request.answer_at.filter(|_| eve::has_status(facts)) {
            Some(next) if !flow.pipelined => {
                flow.awaited = Some(Box::new(Awaited::new(event, next)));
            }
            _ => self.shared.events.put(Kind::Http, event),
        }
    }
}

/// A request's event, and where its answer begins.
struct Request {
    event: serde_json::Map<String, serde_json::Value>,
    answer_at: Option<u32>,
}

fn about_request(about: &About<'_>, facts: &L7Facts, frame: &[u8]) -> Option<Request> {
    let ethernet = frame.get(VNET_HDR_LEN..).unwrap_or_default();
    let layout = match packet::parse(ethernet) {
        Ok(packet::Packet::Ip(layout)) => Some(layout),
        _ => None,
    };
    let payload = layout.map_or(&[][..], |layout| layout.payload(ethernet));
    let tcp = layout.and_then(|layout| layout.tcp().copied());
    Some(Request {
        event: eve::http(about, facts, payload)?,
        answer_at: tcp
            .filter(|tcp| tcp.flags.contains(packet::TcpFlags::ACK))
            .map(|tcp| tcp.ack),
    })
}

/// The Ethernet frame as it is on the switch's port.
fn with_vlan(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut ethernet = frame.get(VNET_HDR_LEN..).unwrap_or_default().to_vec();
    let place = ethernet
        .get_mut(TCI - VNET_HDR_LEN..)
        .and_then(|rest| rest.first_chunk_mut());
    if let Some(place) = place {
        let tci = u16::from_be_bytes(*place) & TCI_REST | vlan;
        *place = tci.to_be_bytes();
    }
    ethernet
}

/// Destination address of what follows a tag: EtherType and IP header.
fn destination(rest: &[u8]) -> Option<IpAddr> {
    let (kind, ip) = rest.split_first_chunk()?;
    match u16::from_be_bytes(*kind) {
        packet::ETHERTYPE_IPV4 => {
            let bytes: [u8; 4] = *ip.get(16..)?.first_chunk()?;
            Some(IpAddr::from(bytes))
        }
        packet::ETHERTYPE_IPV6 => {
            let bytes: [u8; 16] = *ip.get(24..)?.first_chunk()?;
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

impl Output for Way<'_> {
    fn emit(&mut self, frame: &[u8]) {
        let tci = frame.get(TCI..).and_then(|tci| tci.first_chunk());
        let tag = tci.and_then(|tci| Tag::from_vlan_id(u16::from_be_bytes(*tci)));
        let Some(tag) = tag else { return };
        let Some(endpoint) = self.parts.snapshot.endpoints.get(&tag.endpoint) else {
            return;
        };
        let vlan = endpoint.vlan;
        if std::ptr::eq(frame, self.frame) {
            return self.parts.send(frame, vlan);
        }
        match self.parts.link_of(tag, vlan, frame) {
            Some(link) => self.parts.send_as(frame, vlan, link),
            None => self.parts.send(frame, vlan),
        }
    }

    fn cache_put(&mut self, key: &FlowKey, entry: &CacheEntry) -> Result<(), CacheFull> {
        let put = self.parts.cache.put(key, entry);
        if *entry == PASSING {
            self.parts.offload(key);
        }
        put
    }

    fn cache_get(&mut self, key: &FlowKey) -> Option<(CacheEntry, Progress)> {
        self.parts.cache.get(key)
    }

    fn cache_delete(&mut self, key: &FlowKey) {
        self.parts.cache.delete(key);
    }

    fn event(&mut self, event: Event) {
        match &event.kind {
            EventKind::Verdict(verdict) => self.parts.verdict(&event.key, verdict, self.frame),
            EventKind::Closed { .. } => {
                if let Some(ends) = self.parts.ends_of(&event.key) {
                    self.parts.closed.push((ends, event.key.endpoint));
                }
            }
        }
    }

    fn wants_all(&self) -> bool {
        true
    }
}
