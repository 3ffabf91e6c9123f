//! Where the cases run: the two sides' namespaces and the addresses between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_doctor::case::{Direction, ProbeKind, ProbeOutcome, Transport};
use tollgate_doctor::probe::tcp::{Job, parallel};
use tollgate_doctor::probe::{Limits, Listening, Probe, Trouble, Way, counters, netns};

use crate::engine::{HOST, PORT, QUIC_PORT};
use crate::error::Result;
use crate::quic;
use crate::suite::{Case, Check};

/// Time of a probe: one that fails needs a lost SYN's repetition (after 1 s) and a standstill of 1 s.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// Bytes of a probe's burst.
const BURST: u64 = 4 << 20;
/// Time of a transfer: at a twentieth of a Gbit/s, still enough for the large one.
const TRANSFER_TIME: Duration = Duration::from_secs(12);
/// Without an engine that keeps offloads, transfers stall: no need to wait so long to see it.
const DOOMED_TIME: Duration = Duration::from_secs(2);

/// Two sides.
#[derive(Debug)]
pub(crate) struct Sides {
    from: PathBuf,
    to: PathBuf,
    addresses: Vec<IpAddr>,
    /// Cases are expected to fail: less time for each.
    pub doomed: bool,
}

/// What came of a case.
pub(crate) struct Done {
    pub outcome: ProbeOutcome,
    pub from: BTreeMap<String, u64>,
    pub to: BTreeMap<String, u64>,
}

impl Sides {
    /// Finds the addresses of the side that listens.
    pub fn new(from: &Path, to: &Path) -> Result<Self> {
        let listening = Listening {
            netns: to.to_owned(),
            ..Listening::default()
        };
        Ok(Self {
            from: from.to_owned(),
            to: to.to_owned(),
            addresses: netns::addresses(from, &listening)?,
            doomed: false,
        })
    }

    /// Has the listening side an address of the case's family?
    pub fn has(&self, ipv6: bool) -> bool {
        self.address(ipv6).is_some()
    }

    fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv6() == ipv6)
    }

    fn way(&self, address: IpAddr, each: Duration) -> Way<'_> {
        let each = if self.doomed { DOOMED_TIME } else { each };
        Way {
            endpoint: &self.from,
            other: &self.to,
            address: SocketAddr::new(address, PORT),
            host: HOST.to_owned(),
            limits: Limits { each, burst: BURST },
        }
    }

    /// Runs a case and reads what the kernels counted meanwhile.
    pub fn run(&self, case: &Case) -> Result<Done> {
        let before = (counters::read(&self.from)?, counters::read(&self.to)?);
        let outcome = match self.address(case.ipv6) {
            Some(address) => self.check(&case.check, address)?,
            None => ProbeOutcome::NotRun("the other side has no such address".to_owned()),
        };
        Ok(Done {
            outcome,
            from: counters::grown(&before.0, &counters::read(&self.from)?),
            to: counters::grown(&before.1, &counters::read(&self.to)?),
        })
    }

    fn check(&self, check: &Check, address: IpAddr) -> Result<ProbeOutcome> {
        match check {
            Check::Probes(transport, kinds) => self.probes(*transport, kinds, address),
            Check::Transfer {
                direction,
                connections,
                bytes,
            } => self.transfer(*direction, *connections, *bytes, address),
            Check::Quic { streams, bytes } => {
                let time = self.way(address, TRANSFER_TIME).limits.each;
                let to = SocketAddr::new(address, QUIC_PORT);
                quic::exchange(&self.from, &self.to, to, *streams, *bytes, time)
            }
        }
    }

    /// Probes in both directions, until one does not pass.
    fn probes(
        &self,
        transport: Transport,
        kinds: &[ProbeKind],
        address: IpAddr,
    ) -> Result<ProbeOutcome> {
        let way = self.way(address, PROBE_TIME);
        for &kind in kinds {
            for (direction, word) in [(Direction::Outbound, "out"), (Direction::Inbound, "in")] {
                let probe = Probe {
                    kind,
                    transport,
                    ipv6: address.is_ipv6(),
                    direction,
                };
                let told = |why: String| format!("{} {word}: {why}", word_of(kind));
                match way.send(probe)?.outcome {
                    ProbeOutcome::Passed => {}
                    ProbeOutcome::Failed(why) => return Ok(ProbeOutcome::Failed(told(why))),
                    ProbeOutcome::NotRun(why) => return Ok(ProbeOutcome::NotRun(told(why))),
                }
            }
        }
        Ok(ProbeOutcome::Passed)
    }

    fn transfer(
        &self,
        direction: Direction,
        connections: usize,
        bytes: u64,
        address: IpAddr,
    ) -> Result<ProbeOutcome> {
        let way = self.way(address, TRANSFER_TIME);
        let moved = match parallel(&way, Job::burst(direction, bytes), connections)? {
            Ok(moved) => moved,
            Err(Trouble::Failed(why)) => return Ok(ProbeOutcome::Failed(why)),
            Err(Trouble::NotRun(why)) => return Ok(ProbeOutcome::NotRun(why)),
        };
        if let Some(fault) = moved.iter().find_map(|m| m.fault.clone()) {
            return Ok(ProbeOutcome::Failed(fault));
        }
        let short = moved.iter().filter(|m| !m.complete).count();
        if short == 0 {
            return Ok(ProbeOutcome::Passed);
        }
        let arrived: u64 = moved.iter().map(|m| m.received).sum();
        Ok(ProbeOutcome::Failed(format!(
            "{short} of {connections} not complete in {} s; {:.1} of {:.1} MiB arrived",
            way.limits.each.as_secs(),
            mib(arrived),
            mib(bytes * connections as u64),
        )))
    }

    /// A small exchange over the first address, for a host.
    pub fn small(&self, host: &str) -> Result<ProbeOutcome> {
        let Some(&address) = self.addresses.first() else {
            return Ok(ProbeOutcome::NotRun("no address".to_owned()));
        };
        let way = Way {
            host: host.to_owned(),
            ..self.way(address, PROBE_TIME)
        };
        let small = Probe {
            kind: ProbeKind::Small,
            transport: Transport::Tcp,
            ipv6: address.is_ipv6(),
            direction: Direction::Inbound,
        };
        Ok(way.send(small)?.outcome)
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn word_of(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Small => "small",
        ProbeKind::Mtu => "MTU",
        ProbeKind::MtuPlusOne => "MTU and one byte",
        ProbeKind::Gso | ProbeKind::UdpGso => "burst",
        ProbeKind::Checksum => "many small",
    }
}
