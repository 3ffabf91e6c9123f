//! Puts one enforcer at a time into the path, and sends the bench's traffic through it.

use std::time::{Duration, Instant};

use super::CompareOptions;
use super::peer::Peer;
use super::proxy::Proxy;
use crate::agent::AgentHandle;
use crate::bench::Case;
use crate::bench::measure::{ALL_BULK, Traffic};
use crate::bench::policies;
use crate::blind::helper::Helper;
use crate::blind::path::{self, Off};
use crate::blind::suricata::{Program, Suricata};
use crate::error::{LabError, Result};
use crate::interrupt;
use crate::lab::Lab;
use crate::names::API_HOST;
use crate::run::Cmd;

/// A host that the bench's policy refuses, in the clear and by TLS.
const REFUSED_HOST: &str = "evil.example.net";
/// Seconds that a request for the proof may take.
const PROOF_SECONDS: &str = "2";
/// How long an enforcer may take, once it has started, until it lets pass what it has to.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two tries.
const POLL: Duration = Duration::from_millis(100);

/// What is in the path.
enum Running {
    Nothing,
    Tollgate(AgentHandle),
    Inline(Suricata, Helper),
    Proxy(Proxy),
}

/// The path, what is in it and the traffic through it.
pub(super) struct Place<'a> {
    lab: &'a Lab,
    options: &'a CompareOptions,
    traffic: Traffic<'a>,
    now: Option<(Peer, usize)>,
    running: Running,
}

impl<'a> Place<'a> {
    /// An empty path.
    pub fn new(lab: &'a Lab, options: &'a CompareOptions, time: Duration) -> Result<Place<'a>> {
        Ok(Place {
            lab,
            options,
            traffic: Traffic::new(lab, options.tollgate.clone(), time)?,
            now: None,
            running: Running::Nothing,
        })
    }

    /// Empties the path.
    ///
    /// # Errors
    /// The switch's detour had ended too early, or offloads cannot be set.
    pub fn clear(&mut self) -> Result<()> {
        self.now = None;
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Inline(engine, detour) => {
                let stopped = detour.stop();
                drop(engine);
                stopped?;
            }
            Running::Tollgate(agent) => agent.stop(),
            Running::Proxy(_) | Running::Nothing => {}
        }
        path::set_offloads(self.lab, Off::default())
    }

    /// Puts an enforcer with so many rules into the path, or nothing, unless it is there already; it
    /// has to show that it enforces.
    ///
    /// # Errors
    /// It does not start, or does not enforce.
    pub fn put(&mut self, peer: Option<Peer>, rules: usize) -> Result<()> {
        let wanted = peer.map(|peer| (peer, rules));
        if self.now == wanted {
            return Ok(());
        }
        self.clear()?;
        let Some((peer, rules)) = wanted else {
            return Ok(());
        };
        if matches!(peer, Peer::Workaround | Peer::Suricata) {
            let both = Off {
                pod_checksum: true,
                gateway_checksum: true,
                ..Off::default()
            };
            path::set_offloads(self.lab, both)?;
        }
        self.running = self.start(peer, rules)?;
        self.now = wanted;
        self.prove(peer)
    }

    fn start(&self, peer: Peer, rules: usize) -> Result<Running> {
        let tollgate = &self.options.tollgate;
        Ok(match peer {
            Peer::Workaround => Running::Nothing,
            Peer::Tollgate => {
                let dir = self.lab.names.dir().join(format!("policy-{rules}"));
                let dir = policies::write(&dir, rules)?;
                Running::Tollgate(AgentHandle::start(self.lab, tollgate, &dir)?)
            }
            Peer::Suricata => {
                let root = self
                    .options
                    .suricata_root
                    .as_deref()
                    .unwrap_or("/".as_ref());
                self.start_inline(&Program::Chroot(root), rules)?
            }
            Peer::DropIn => self.start_inline(&Program::DropIn(tollgate), rules)?,
            Peer::HaProxy | Peer::Nginx => Running::Proxy(Proxy::start(self.lab, peer)?),
        })
    }

    fn start_inline(&self, program: &Program<'_>, rules: usize) -> Result<Running> {
        let engine = Suricata::start(self.lab, program, &policies::suricata_rules(rules))?;
        let detour = path::detour(self.lab, &self.options.tollgate)?;
        Ok(Running::Inline(engine, detour))
    }

    /// One value, with what is in the path.
    ///
    /// # Errors
    /// A transfer or a request failed, or the enforcer ended.
    pub fn measure(&mut self, case: Case) -> Result<f64> {
        let value = match case {
            Case::CpuPerGb => self.cpu_per_gb()?,
            _ => self.traffic.value(case)?,
        };
        let ended = match &mut self.running {
            Running::Nothing => None,
            Running::Tollgate(agent) => (!agent.alive()).then(|| agent.log_tail()),
            Running::Inline(engine, _) => engine.ended().then(String::new),
            Running::Proxy(proxy) => proxy.ended().then(String::new),
        };
        match ended {
            None => Ok(value),
            Some(said) => Err(LabError::NotReady(format!("it ended: {said}"))),
        }
    }

    fn cpu_per_gb(&self) -> Result<f64> {
        let judged = |peer: Peer| {
            let taken = |(tls, _): &(bool, bool)| *tls || peer.judges_http();
            ALL_BULK.into_iter().filter(taken).collect::<Vec<_>>()
        };
        let kinds = self.now.map_or_else(Vec::new, |(peer, _)| judged(peer));
        match &self.running {
            Running::Nothing => Ok(0.0),
            Running::Tollgate(agent) => self.traffic.cpu_per_gb(&|| agent.cpu_seconds(), &kinds),
            Running::Inline(engine, _) => self.traffic.cpu_per_gb(&|| engine.cpu_seconds(), &kinds),
            Running::Proxy(proxy) => self.traffic.cpu_per_gb(&|| proxy.cpu_seconds(), &kinds),
        }
    }

    /// What the policy allows passes, and what it refuses does not: an enforcer that does not enforce
    /// is not worth measuring.
    fn prove(&self, peer: Peer) -> Result<()> {
        for (scheme, judged) in [("http", peer.judges_http()), ("https", peer.judges_tls())] {
            if !judged {
                continue;
            }
            let deadline = Instant::now() + READY_LIMIT;
            while !self.answered(scheme, API_HOST)? {
                if Instant::now() > deadline {
                    return Err(LabError::NotReady(format!(
                        "{peer} lets nothing pass: {scheme}://{API_HOST} is not answered"
                    )));
                }
                interrupt::sleep(POLL)?;
            }
            if self.answered(scheme, REFUSED_HOST)? {
                return Err(LabError::NotReady(format!(
                    "{peer} enforces nothing: {scheme}://{REFUSED_HOST} is answered"
                )));
            }
        }
        Ok(())
    }

    /// Whether a small request is answered with 200.
    fn answered(&self, scheme: &str, host: &str) -> Result<bool> {
        let cmd = Cmd::line("curl -4 -sq -o /dev/null -w %{http_code} --max-time");
        let cmd = cmd
            .arg(PROOF_SECONDS)
            .arg("--cacert")
            .arg(self.lab.names.ca());
        let cmd = cmd.arg(format!("{scheme}://{host}/v2/small"));
        Ok(self.lab.pod_by_name(cmd).output()?.stdout.trim() == "200")
    }
}
