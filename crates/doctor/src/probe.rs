//! Active probes: small amounts of traffic between an endpoint and another side, and what became of
//! them. They find faults without knowing the cause; what is read from the machine names it.
//!
//! Both sides are driven from this process: sockets are made in threads that enter the network
//! namespaces, and belong to them from then on. The endpoint opens every flow, so address
//! translation on the way does not matter. What TCP probes send looks like HTTP, with a host that can
//! be chosen: a policy about HTTP can let it through.
//!
//! Nothing is changed on the machine, and no privilege is needed beyond entering the namespaces
//! (`CAP_SYS_ADMIN`).

mod content;
pub mod counters;
mod judge;
pub mod netns;
pub mod tcp;
pub mod udp;
mod url;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use url::{Trust, Web};

use crate::case::{Direction, ProbeKind, ProbeOutcome, ProbeResult, Transport};

/// Time one probe may take. Long enough for a lost SYN to be sent again (after 1 s) and for two
/// retransmission timeouts; short enough that a person waits for all of them.
pub const EACH: Duration = Duration::from_secs(3);
/// Bytes of a burst: many times what the initial windows hold, so that it grows to full-sized
/// super-packets, and a fraction of a second on any link worth the name.
pub const BURST: u64 = 4 << 20;

/// Every kind of probe, the simplest first: what a later one finds is read in the light of the earlier.
pub const KINDS: [ProbeKind; 6] = [
    ProbeKind::Small,
    ProbeKind::Mtu,
    ProbeKind::MtuPlusOne,
    ProbeKind::Checksum,
    ProbeKind::Gso,
    ProbeKind::UdpGso,
];

/// What to send, from where, to where.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// A file that names the endpoint's network namespace, e.g. `/run/netns/blue` or `/proc/1/ns/net`.
    pub endpoint: PathBuf,
    /// The other side.
    pub other: OtherSide,
    /// Kinds to send; those that a transport does not have are left out.
    pub kinds: Vec<ProbeKind>,
    /// Transports.
    pub transports: Vec<Transport>,
    /// Address families: `false` is IPv4, `true` is IPv6.
    pub ipv6: Vec<bool>,
    /// Directions of the payload.
    pub directions: Vec<Direction>,
    /// Bounds.
    pub limits: Limits,
    /// `Host` of the HTTP heads that TCP probes send; the address unless given. For a URL, the URL's.
    pub host: Option<String>,
}

/// Bounds of every probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time that one probe may take.
    pub each: Duration,
    /// Bytes that a burst may have.
    pub burst: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            each: EACH,
            burst: BURST,
        }
    }
}

/// What the endpoint talks to.
#[derive(Clone, Debug)]
pub enum OtherSide {
    /// A network namespace on this machine.
    Namespace(Listening),
    /// A web server somewhere else.
    Web(Web),
}

/// The other side in a network namespace of this machine.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// A file that names it.
    pub netns: PathBuf,
    /// Its IPv4 address; without it, one of its own to which the endpoint has a route.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address; as above.
    pub v6: Option<Ipv6Addr>,
    /// Port to listen on, TCP and UDP; 0 for any free one.
    pub port: u16,
}

impl ProbePlan {
    /// Everything, between an endpoint and another namespace's own addresses.
    pub fn between(endpoint: impl Into<PathBuf>, other: impl Into<PathBuf>) -> Self {
        let listening = Listening {
            netns: other.into(),
            ..Listening::default()
        };
        Self::to(endpoint.into(), OtherSide::Namespace(listening))
    }

    /// Everything that can be done against a web server.
    pub fn web(endpoint: impl Into<PathBuf>, web: Web) -> Self {
        Self::to(endpoint.into(), OtherSide::Web(web))
    }

    fn to(endpoint: PathBuf, other: OtherSide) -> Self {
        Self {
            endpoint,
            other,
            kinds: KINDS.to_vec(),
            transports: vec![Transport::Tcp, Transport::Udp],
            ipv6: vec![false, true],
            directions: vec![Direction::Outbound, Direction::Inbound],
            limits: Limits::default(),
            host: None,
        }
    }

    /// The probes of the plan, in the order in which they are sent.
    fn probes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for &ipv6 in &self.ipv6 {
            for &transport in &self.transports {
                for kind in self.kinds.iter().copied().filter(|k| exists(*k, transport)) {
                    probes.extend(self.directions.iter().map(|&direction| Probe {
                        kind,
                        transport,
                        ipv6,
                        direction,
                    }));
                }
            }
        }
        probes
    }
}

/// Does a transport have this kind?
pub fn exists(kind: ProbeKind, transport: Transport) -> bool {
    match kind {
        ProbeKind::Gso => transport == Transport::Tcp,
        ProbeKind::UdpGso => transport == Transport::Udp,
        _ => true,
    }
}

/// One probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is sent.
    pub kind: ProbeKind,
    /// Over what.
    pub transport: Transport,
    /// Over IPv6 rather than IPv4.
    pub ipv6: bool,
    /// Which way.
    pub direction: Direction,
}

/// The way that a probe takes.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// Namespace of the endpoint, which opens the flow.
    pub endpoint: &'a Path,
    /// Namespace of the other side, which listens.
    pub other: &'a Path,
    /// Address and port to listen on.
    pub address: SocketAddr,
    /// `Host` of HTTP heads.
    pub host: String,
    /// Bounds.
    pub limits: Limits,
}

/// What a probe moved, before it is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Payload bytes that the sender's kernel took.
    pub sent: u64,
    /// Payload bytes that arrived intact.
    pub received: u64,
    /// Everything that was to arrive did.
    pub complete: bool,
    /// Time it took.
    pub took: Duration,
    /// Time since the last byte came, if it is not complete.
    pub silent: Duration,
    /// Something that decides by itself: content that differs, an error of the kernel.
    pub fault: Option<String>,
}

/// Why nothing was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The way is broken, in words.
    Failed(String),
    /// It says nothing about the way: refused, no route.
    NotRun(String),
}

impl From<Trouble> for ProbeOutcome {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Failed(why) => Self::Failed(why),
            Trouble::NotRun(why) => Self::NotRun(why),
        }
    }
}

/// Why probes could not be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A namespace cannot be entered.
    #[error("cannot enter the network namespace {path}: {source}; run as root, and check the name", path = path.display())]
    Enter {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something in a namespace could not be read or made.
    #[error("{doing} in {path}: {source}", path = path.display())]
    Inside {
        /// What was being done.
        doing: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The other side has no address.
    #[error("{path} has no address that could be probed: give it one, or name one", path = path.display())]
    NoAddress {
        /// The namespace's file.
        path: PathBuf,
    },
    /// The URL cannot be used.
    #[error("URL {url:?}: {why}; use http://HOST[:PORT]/PATH or https://...")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Certificates cannot be used.
    #[error("reading certificates from {path}: {why}; name a file of PEM certificates", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Sends the probes of a plan, one after the other, and tells what came of each.
///
/// A family that the other side has no address of is left out. Where not even a small probe came
/// through, the larger ones are not run.
///
/// # Errors
/// A namespace cannot be entered, there is no address to send to, or a URL or certificate is wrong.
/// What goes wrong on the way is a result, not an error.
pub fn run(plan: &ProbePlan) -> Result<Vec<ProbeResult>, ProbeError> {
    match &plan.other {
        OtherSide::Namespace(listening) => between(plan, listening),
        OtherSide::Web(web) => url::run(plan, web),
    }
}

fn between(plan: &ProbePlan, other: &Listening) -> Result<Vec<ProbeResult>, ProbeError> {
    let addresses = netns::addresses(&plan.endpoint, other)?;
    if addresses.is_empty() {
        return Err(ProbeError::NoAddress {
            path: other.netns.clone(),
        });
    }
    let mut results: Vec<ProbeResult> = Vec::new();
    for probe in plan.probes() {
        if let Some(skipped) = hopeless(probe, &results) {
            results.push(skipped);
            continue;
        }
        let Some(&address) = addresses.iter().find(|a| a.is_ipv6() == probe.ipv6) else {
            continue;
        };
        let way = Way {
            endpoint: &plan.endpoint,
            other: &other.netns,
            address: SocketAddr::new(address, other.port),
            host: plan.host.clone().unwrap_or_else(|| host_of(address)),
            limits: plan.limits,
        };
        results.push(way.send(probe)?);
    }
    Ok(results)
}

/// Where not even a small probe came through, nothing larger will: that would only be waited for. Checksums
/// are looked at all the same, since wrong ones may be why.
fn hopeless(probe: Probe, results: &[ProbeResult]) -> Option<ProbeResult> {
    let small = results.iter().find(|result| {
        result.kind == ProbeKind::Small
            && result.transport == probe.transport
            && result.ipv6 == probe.ipv6
            && result.direction == probe.direction
    })?;
    if small.outcome == ProbeOutcome::Passed || probe.kind == ProbeKind::Checksum {
        return None;
    }
    let why = Trouble::NotRun("not even a small probe came through".to_owned());
    Some(result(probe, Err(why), Grown::default()))
}

/// An address as it stands in a `Host` field (RFC 3986, section 3.2.2).
fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

impl Way<'_> {
    /// Sends one probe and judges it.
    ///
    /// # Errors
    /// A namespace cannot be entered or read.
    pub fn send(&self, probe: Probe) -> Result<ProbeResult, ProbeError> {
        let (sender, receiver) = match probe.direction {
            Direction::Outbound => (self.endpoint, self.other),
            Direction::Inbound => (self.other, self.endpoint),
        };
        let before = (counters::read(sender)?, counters::read(receiver)?);
        let moved = match probe.transport {
            Transport::Tcp => tcp::probe(self, probe)?,
            Transport::Udp => udp::probe(self, probe)?,
        };
        let grown = Grown {
            sender: counters::grown(&before.0, &counters::read(sender)?),
            receiver: counters::grown(&before.1, &counters::read(receiver)?),
        };
        Ok(result(probe, moved, grown))
    }
}

/// What grew on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// At the sender of the payload.
    pub sender: BTreeMap<String, u64>,
    /// At its receiver.
    pub receiver: BTreeMap<String, u64>,
}

fn result(probe: Probe, moved: Result<Moved, Trouble>, grown: Grown) -> ProbeResult {
    let (moved, outcome) = match moved {
        Ok(moved) => {
            let outcome = judge::judge(probe, &moved, &grown);
            (moved, outcome)
        }
        Err(trouble) => {
            let outcome = judge::explain(probe, trouble.into(), &grown);
            (Moved::default(), outcome)
        }
    };
    ProbeResult {
        kind: probe.kind,
        transport: probe.transport,
        ipv6: probe.ipv6,
        direction: probe.direction,
        outcome,
        sent: moved.sent,
        received: moved.received,
        millis: u64::try_from(moved.took.as_millis()).unwrap_or(u64::MAX),
        receiver: grown.receiver,
        sender: grown.sender,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_every_probe_that_exists_once() {
        let plan = ProbePlan::between("/run/netns/a", "/run/netns/b");
        let probes = plan.probes();
        // 5 kinds of TCP, 5 of UDP, two families, two directions.
        assert_eq!(probes.len(), 40);
        for (i, probe) in probes.iter().enumerate() {
            assert!(!probes[..i].contains(probe), "{probe:?} twice");
        }
        assert!(probes.iter().all(|p| exists(p.kind, p.transport)));
        assert_eq!(probes[0].kind, ProbeKind::Small);
    }

    #[test]
    fn hosts_are_written_as_in_urls() {
        assert_eq!(host_of("192.0.2.1".parse().unwrap()), "192.0.2.1");
        assert_eq!(host_of("2001:db8::1".parse().unwrap()), "[2001:db8::1]");
    }
}
