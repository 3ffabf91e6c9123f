//! Decided connections are left to the switch: Open vSwitch brings a connection here because its
//! conntrack entry has a mark, so the mark is taken away, by ctnetlink
//! (`net/netfilter/nf_conntrack_netlink.c`). Works with the kernel's datapath only; where there is no
//! such entry the connection's frames go on passing here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tollgate_datapath::netlink::{self, Family};
use tollgate_engine::key::FlowKey;

use crate::counters::Counters;
use crate::log;

/// Bit 7 of a connection's mark redirects it (`L7NPRedirectCTMark`).
pub const REDIRECT_BIT: u32 = 0x80;
/// Zone of IPv4 connections.
pub const ZONE_V4: u16 = 65_520;
/// Zone of IPv6 connections.
pub const ZONE_V6: u16 = 65_510;

/// Connections that may wait; one more goes on as it does.
const QUEUE: usize = 1024;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`: without `NLM_F_CREATE` it changes what is there.
const CHANGE: u16 = 1 << 8;
/// Flag of nested attributes.
const NESTED: u16 = 0x8000;

/// Attributes (`linux/netfilter/nfnetlink_conntrack.h`).
mod cta {
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const MARK: u16 = 8;
    pub(super) const ZONE: u16 = 18;
    pub(super) const MARK_MASK: u16 = 21;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const IP_V4_SRC: u16 = 1;
    pub(super) const IP_V4_DST: u16 = 2;
    pub(super) const IP_V6_SRC: u16 = 3;
    pub(super) const IP_V6_DST: u16 = 4;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_SRC_PORT: u16 = 2;
    pub(super) const PROTO_DST_PORT: u16 = 3;
}

/// Address families of netlink messages.
const AF_INET: u8 = 2;
/// See [`AF_INET`].
const AF_INET6: u8 = 10;

/// A decided connection. The ends are those behind the translation of service addresses, as on the
/// port: the conntrack entry's reply direction has the same.
struct Decided {
    key: FlowKey,
    client: SocketAddr,
    server: SocketAddr,
    told: Released,
}

/// Flows that the switch has taken over, for the packet thread that they were given up by.
#[derive(Clone, Debug, Default)]
pub struct Released(Arc<Mutex<Vec<FlowKey>>>);

impl Released {
    /// Those since the last call.
    pub fn take(&self) -> Vec<FlowKey> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, key: FlowKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(key);
    }
}

/// Hands connections over to a thread of its own.
#[derive(Clone, Debug)]
pub struct Offloader {
    sender: SyncSender<Decided>,
    counters: Arc<Counters>,
}

impl Offloader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(counters: &Arc<Counters>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let theirs = Arc::clone(counters);
        thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || run(&receiver, &theirs))?;
        Ok(Self {
            sender,
            counters: Arc::clone(counters),
        })
    }

    /// Hands over a connection; never waits. `released` hears when the switch has it.
    pub fn put(&self, key: &FlowKey, client: SocketAddr, server: SocketAddr, released: &Released) {
        let decided = Decided {
            key: *key,
            client,
            server,
            told: released.clone(),
        };
        if self.sender.try_send(decided).is_err() {
            self.counters.offload_failed.inc();
        }
    }
}

fn run(decided: &Receiver<Decided>, counters: &Counters) {
    let mut told = false;
    for flow in decided {
        match release(flow.key.protocol, flow.client, flow.server) {
            Ok(()) => {
                counters.offloaded.inc();
                flow.told.put(flow.key);
            }
            Err(error) => {
                counters.offload_failed.inc();
                if !std::mem::replace(&mut told, true) {
                    log::notice(format_args!(
                        "a decided connection cannot be left to the switch: {error}; it goes on here \
                         (no conntrack entry of the kernel's: the switch may have its own)"
                    ));
                }
            }
        }
    }
}

/// Takes the redirecting bit from a connection's mark, in the calling thread's network namespace.
/// Needs CAP_NET_ADMIN.
///
/// # Errors
/// `NotFound`: there is no such entry. Else what the kernel said.
pub fn release(protocol: u8, client: SocketAddr, server: SocketAddr) -> io::Result<()> {
    let (family, zone) = match client.ip() {
        IpAddr::V4(_) => (AF_INET, ZONE_V4),
        IpAddr::V6(_) => (AF_INET6, ZONE_V6),
    };
    // struct nfgenmsg: family, version, resource.
    let mut body = vec![family, 0, 0, 0];
    let mut tuple = Vec::new();
    netlink::push(&mut tuple, cta::TUPLE_IP | NESTED, &ip(&server, &client));
    let mut proto = Vec::new();
    netlink::push(&mut proto, cta::PROTO_NUM, &[protocol]);
    let ports = [
        (cta::PROTO_SRC_PORT, server.port()),
        (cta::PROTO_DST_PORT, client.port()),
    ];
    for (kind, port) in ports {
        netlink::push(&mut proto, kind, &port.to_be_bytes());
    }
    netlink::push(&mut tuple, cta::TUPLE_PROTO | NESTED, &proto);
    netlink::push(&mut body, cta::TUPLE_REPLY | NESTED, &tuple);
    netlink::push(&mut body, cta::ZONE, &zone.to_be_bytes());
    netlink::push(&mut body, cta::MARK, &0_u32.to_be_bytes());
    netlink::push(&mut body, cta::MARK_MASK, &REDIRECT_BIT.to_be_bytes());
    netlink::ask(Family::Netfilter, CHANGE, false, &body).map(drop)
}

fn ip(source: &SocketAddr, destination: &SocketAddr) -> Vec<u8> {
    let mut attributes = Vec::new();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            netlink::push(&mut attributes, cta::IP_V4_SRC, &source.octets());
            netlink::push(&mut attributes, cta::IP_V4_DST, &destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            netlink::push(&mut attributes, cta::IP_V6_SRC, &source.octets());
            netlink::push(&mut attributes, cta::IP_V6_DST, &destination.octets());
        }
        // No connection has ends of two families.
        _ => {}
    }
    attributes
}
