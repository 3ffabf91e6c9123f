//! One play of one stage: what is set up, asked and counted.

use std::path::Path;
use std::time::Duration;

use super::engine::BlindEngine;
use super::helper::Helper;
use super::path::{self, ENGINE_PORTS};
use super::stage::Stage;
use super::suricata::{self, Program, Suricata};
use super::{BlindOptions, Engine, LARGE_PATH};
use crate::agent::AgentHandle;
use crate::bench::policies;
use crate::error::{IoContext, LabError, Result};
use crate::lab::{Lab, Place};
use crate::names::{API_HOST, POD_HOST_IF};
use crate::progress::Progress;
use crate::run::Cmd;
use crate::stats;

/// Time that a small request has. A lost SYN is sent again after one second.
const SMALL_SECONDS: u32 = 3;
/// Time that curl may take on top of the time it is told.
const MARGIN: Duration = Duration::from_secs(10);
/// Bytes of a stage's capture.
const TRACE_BYTES: u64 = 16 << 20;

/// The measured facts of one play.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Rate of the large download.
    pub gbit_per_s: f64,
    /// The small request was answered with 200.
    pub small_request_ok: bool,
    /// The large download's connection was made.
    pub connected: bool,
    /// Frames that were refused as too long.
    pub emsgsize: u64,
    /// Frames cut off by the engine's buffer.
    pub truncated: u64,
    /// Packets that the pod dropped for their checksum.
    pub checksum_errors_pod: u64,
    /// Packets that the external host dropped for their checksum.
    pub checksum_errors_outside: u64,
    /// TCP segments that the external host sent again.
    pub retransmits_outside: u64,
    /// TCP segments that the pod sent again.
    pub retransmits_pod: u64,
}

/// Counters of the two ends at one time.
#[derive(Clone, Copy)]
struct Ends {
    checksums: [u64; 2],
    retransmits: [u64; 2],
}

/// What stands in the path.
enum Running {
    Nothing,
    Copier(BlindEngine, Helper),
    Suricata(Suricata, Helper),
    Tollgate(AgentHandle),
}

/// The lab and what plays in it.
pub(super) struct Theatre<'a> {
    pub lab: &'a Lab,
    pub options: &'a BlindOptions,
    pub progress: &'a Progress,
}

impl Theatre<'_> {
    /// Plays a stage. The path is as it was before afterwards.
    pub fn play(&self, stage: Stage) -> Result<Facts> {
        let name = stage.name();
        self.progress.step(format!("{name}: {}", stage.setting()));
        path::set_offloads(self.lab, stage.off())?;
        let running = self.start(stage)?;
        let trace = self.trace(stage)?;
        let before = self.ends()?;
        self.progress.step(format!("{name}: a small request"));
        let mut facts = Facts {
            small_request_ok: self.small()?,
            ..Facts::default()
        };
        self.progress.step(format!("{name}: a large download"));
        (facts.gbit_per_s, facts.connected) = self.large()?;
        let after = self.ends()?;
        let grown = |of: fn(&Ends) -> [u64; 2]| {
            let ([pod, out], [pod_before, out_before]) = (of(&after), of(&before));
            (
                pod.saturating_sub(pod_before),
                out.saturating_sub(out_before),
            )
        };
        (facts.checksum_errors_pod, facts.checksum_errors_outside) = grown(|ends| ends.checksums);
        (facts.retransmits_pod, facts.retransmits_outside) = grown(|ends| ends.retransmits);
        if let Some(trace) = trace {
            trace.stop()?;
        }
        (facts.emsgsize, facts.truncated) = self.stop(running)?;
        Ok(facts)
    }

    fn tollgate(&self) -> &Path {
        &self.options.tollgate
    }

    fn start(&self, stage: Stage) -> Result<Running> {
        Ok(match (stage, &self.options.engine) {
            (Stage::NoEngine, _) => Running::Nothing,
            (Stage::Tollgate, _) => {
                let dir = self.lab.names.dir().join("policy");
                let dir = policies::write(&dir, 1)?;
                Running::Tollgate(AgentHandle::start(self.lab, self.tollgate(), &dir)?)
            }
            (_, Engine::Copier) => {
                let [a, b] = ENGINE_PORTS;
                let (node, dir) = (&self.lab.names.node, self.lab.names.dir());
                let engine = BlindEngine::start(self.tollgate(), node, a, b, &dir)?;
                Running::Copier(engine, path::detour(self.lab, self.tollgate())?)
            }
            (_, Engine::Suricata { root }) => {
                let engine = Suricata::start(self.lab, &Program::Chroot(root), &suricata::rules())?;
                Running::Suricata(engine, path::detour(self.lab, self.tollgate())?)
            }
        })
    }

    /// Takes it out of the path; returns how many frames it could not send because they were too
    /// long, and how many it cut off.
    fn stop(&self, running: Running) -> Result<(u64, u64)> {
        match running {
            Running::Nothing => Ok((0, 0)),
            Running::Copier(engine, detour) => {
                detour.stop()?;
                let counters = engine.stop()?;
                Ok((counters.emsgsize, counters.truncated))
            }
            Running::Suricata(engine, detour) => {
                detour.stop()?;
                let counters = engine.stop()?;
                Ok((counters.send_errors, counters.truncated))
            }
            Running::Tollgate(agent) => {
                let errors = agent.counter(self.lab, self.tollgate(), "write_errors")?;
                if !agent.alive() {
                    let log = agent.log_tail();
                    return Err(LabError::NotReady(format!("the agent ended: {log}")));
                }
                agent.stop();
                Ok((errors, 0))
            }
        }
    }

    /// Starts to write what passes: the pod's interface always, the engine's ports if it has some.
    fn trace(&self, stage: Stage) -> Result<Option<Helper>> {
        let Some(dir) = &self.options.trace else {
            return Ok(None);
        };
        std::fs::create_dir_all(dir).doing("creating", dir)?;
        let mut interfaces = vec![POD_HOST_IF];
        if stage.is_blind() {
            interfaces.extend(ENGINE_PORTS);
        }
        let cmd = Cmd::new(self.tollgate())
            .args(["lab", "traffic", "capture", "--interfaces"])
            .arg(interfaces.join(","))
            .arg("--file")
            .arg(dir.join(format!("{}.pcapng", stage.name())))
            .args(["--limit", &TRACE_BYTES.to_string()]);
        Helper::start("the capture", &self.lab.at(Place::Node, cmd)).map(Some)
    }

    fn ends(&self) -> Result<Ends> {
        let mut ends = Ends {
            checksums: [0; 2],
            retransmits: [0; 2],
        };
        let counters = ends.checksums.iter_mut().zip(&mut ends.retransmits);
        for (place, (checksums, retransmits)) in [Place::Pod, Place::Out].into_iter().zip(counters)
        {
            let cat = Cmd::line("cat /proc/net/snmp /proc/net/snmp6");
            let snmp = self.lab.at(place, cat).run()?.stdout;
            *checksums = stats::checksum_errors(&snmp)?;
            *retransmits = stats::snmp_counter(&snmp, "Tcp", "RetransSegs")?;
        }
        Ok(ends)
    }

    /// Whether a small request is answered with 200.
    fn small(&self) -> Result<bool> {
        let answer = self.curl("/v2/status", SMALL_SECONDS, "%{http_code}")?;
        Ok(answer.trim() == "200")
    }

    /// The rate of a large download in Gbit/s, and whether its connection was made.
    fn large(&self) -> Result<(f64, bool)> {
        let seconds = self.options.seconds;
        let format = "%{size_download} %{time_total} %{time_connect}";
        let text = self.curl(&format!("/{LARGE_PATH}"), seconds, format)?;
        let numbers: Vec<f64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [bytes, time, connect] = numbers[..] else {
            return Err(LabError::Parse {
                what: "curl's numbers",
                text,
            });
        };
        let rate = if time > 0.0 {
            bytes * 8.0 / time / 1e9
        } else {
            0.0
        };
        Ok((rate, connect > 0.0))
    }

    /// A GET that may fail or be cut off; what `-w` says of it.
    fn curl(&self, path: &str, seconds: u32, format: &str) -> Result<String> {
        let limit = seconds.to_string();
        let cmd = Cmd::line("curl -4 -s -o /dev/null --max-time").args([&limit, "-w", format]);
        let cmd = cmd.arg(format!("http://{API_HOST}{path}"));
        let cmd = cmd.timeout(Duration::from_secs(seconds.into()) + MARGIN);
        Ok(self.lab.pod_by_name(cmd).output()?.stdout)
    }
}
