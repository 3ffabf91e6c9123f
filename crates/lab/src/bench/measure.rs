//! One measurement of one case.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cases::{Case, Streams};
use super::policies;
use crate::agent::AgentHandle;
use crate::error::{LabError, Result};
use crate::lab::{Lab, Place};
use crate::names::{API_HOST, Family, OUT_V4};
use crate::procs;
use crate::run::{Cmd, kill_group};
use crate::stats::Wrk;
use crate::traffic::{BulkResult, parse_result};

/// Port of the sink for uploads in the clear.
pub const SINK_HTTP: u16 = 8080;
/// And with TLS.
pub const SINK_HTTPS: u16 = 8443;
/// Connections of wrk for rates of requests: enough that client, server and a worker between them
/// always find something to do. With 32 all three wait for each other at times, on idle CPUs.
const REQUEST_CONNECTIONS: usize = 128;
/// Connections of wrk for rates of new connections.
const NEW_CONNECTIONS: usize = 16;
/// Time that a helper may take on top of the time measured.
const MARGIN: Duration = Duration::from_secs(20);

/// Kinds of bulk transfer, as TLS and upload; processor time is measured over one stream of each.
pub const ALL_BULK: [(bool, bool); 4] =
    [(false, false), (false, true), (true, false), (true, true)];

/// The bench's traffic: the lab with its servers and what is sent between them.
pub struct Traffic<'a> {
    lab: &'a Lab,
    tollgate: PathBuf,
    time: Duration,
    sink: std::process::Child,
}

/// The bench's traffic, and the agent when it runs.
pub struct Bench<'a> {
    lab: &'a Lab,
    tollgate: PathBuf,
    traffic: Traffic<'a>,
    agent: Option<(usize, AgentHandle)>,
}

impl<'a> Bench<'a> {
    /// Starts the sink.
    pub fn new(lab: &'a Lab, tollgate: PathBuf, time: Duration) -> Result<Bench<'a>> {
        Ok(Bench {
            lab,
            traffic: Traffic::new(lab, tollgate.clone(), time)?,
            tollgate,
            agent: None,
        })
    }

    /// Stops the agent.
    pub fn finish(&mut self) {
        if let Some((_, agent)) = self.agent.take() {
            agent.stop();
        }
    }

    /// One value of a case, with or without policy.
    pub fn measure(&mut self, case: Case, with: bool) -> Result<f64> {
        self.switch(with.then_some(case.rules()))?;
        let value = match (case, &self.agent) {
            (Case::CpuPerGb, None) => 0.0,
            (Case::CpuPerGb, Some((_, agent))) => self
                .traffic
                .cpu_per_gb(&|| agent.cpu_seconds(), &ALL_BULK)?,
            _ => self.traffic.value(case)?,
        };
        if let Some((_, agent)) = self.agent.as_ref().filter(|(_, agent)| !agent.alive()) {
            return Err(LabError::NotReady(format!(
                "the agent ended: {}",
                agent.log_tail()
            )));
        }
        Ok(value)
    }

    /// Sees to it that the agent runs with so many rules, or not at all.
    fn switch(&mut self, rules: Option<usize>) -> Result<()> {
        if self.agent.as_ref().map(|(rules, _)| *rules) == rules {
            return Ok(());
        }
        self.finish();
        if let Some(rules) = rules {
            let dir = self.lab.names.dir().join(format!("policy-{rules}"));
            let dir = policies::write(&dir, rules)?;
            let agent = AgentHandle::start(self.lab, &self.tollgate, &dir)?;
            self.agent = Some((rules, agent));
        }
        Ok(())
    }
}

impl<'a> Traffic<'a> {
    /// Starts the sink.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(lab: &'a Lab, tollgate: PathBuf, time: Duration) -> Result<Traffic<'a>> {
        let sink = start_sink(lab, &tollgate)?;
        Ok(Traffic {
            lab,
            tollgate,
            time,
            sink,
        })
    }

    /// One value of a case other than processor time, whatever is in the path.
    ///
    /// # Errors
    /// A transfer or a request failed.
    pub fn value(&self, case: Case) -> Result<f64> {
        let small = "/v2/small";
        Ok(match case {
            Case::Bulk {
                tls,
                upload,
                streams,
            } => self.bulk(tls, upload, streams)?.gbits(),
            Case::HttpConnections => {
                let url = format!("http://{API_HOST}{small}");
                self.wrk(&url, NEW_CONNECTIONS, true)?.rate
            }
            Case::TlsConnections => {
                let url = format!("https://{API_HOST}{small}");
                self.wrk(&url, NEW_CONNECTIONS, true)?.rate
            }
            Case::HttpRequests | Case::Rules(_) => {
                let url = format!("http://{API_HOST}{small}");
                self.wrk(&url, REQUEST_CONNECTIONS, false)?.rate
            }
            Case::LatencyP50 => {
                self.wrk(&format!("http://{API_HOST}{small}"), 1, false)?
                    .p50_us
            }
            Case::LatencyP99 => {
                self.wrk(&format!("http://{API_HOST}{small}"), 1, false)?
                    .p99_us
            }
            Case::CpuPerGb => 0.0,
        })
    }

    fn bulk(&self, tls: bool, upload: bool, streams: Streams) -> Result<BulkResult> {
        let port = match (tls, upload) {
            (false, false) => 80,
            (true, false) => 443,
            (false, true) => SINK_HTTP,
            (true, true) => SINK_HTTPS,
        };
        let addr = SocketAddr::new(Family::V4.outside(), port).to_string();
        let (name, path) = if upload {
            ("upload", "/upload/bulk")
        } else {
            ("download", "/v2/data/big.bin")
        };
        let cmd = Cmd::new(&self.tollgate).args(["lab", "traffic", name, "--addr", &addr]);
        let cmd = cmd.args(["--host", API_HOST, "--path", path]);
        let cmd = cmd.arg("--streams").arg(streams.count().to_string());
        let cmd = cmd
            .arg("--seconds")
            .arg(self.time.as_secs_f64().to_string());
        let cmd = if tls {
            cmd.arg("--ca").arg(self.lab.names.ca())
        } else {
            cmd
        };
        let output = self
            .lab
            .at(Place::Pod, cmd.timeout(self.time + MARGIN))
            .run()?;
        parse_result(&output.stdout)
    }

    fn wrk(&self, url: &str, connections: usize, close: bool) -> Result<Wrk> {
        let seconds = self.time.as_secs().max(1);
        let cmd = Cmd::new("wrk").args(["-t1", "--latency", "--timeout", "10"]);
        let cmd = cmd
            .arg(format!("-c{connections}"))
            .arg(format!("-d{seconds}"));
        let cmd = if close {
            cmd.args(["-H", "Connection: close"])
        } else {
            cmd
        };
        let cmd = cmd.arg(url).timeout(self.time + MARGIN);
        Wrk::parse(&self.lab.pod_by_name(cmd).run()?.stdout)
    }

    /// Processor seconds per GB over one stream of each of these kinds of bulk transfer; `used` tells
    /// the processor time that was used so far.
    ///
    /// # Errors
    /// A transfer failed.
    pub fn cpu_per_gb(&self, used: &dyn Fn() -> f64, kinds: &[(bool, bool)]) -> Result<f64> {
        let before = used();
        let mut bytes = 0;
        for (tls, upload) in kinds {
            bytes += self.bulk(*tls, *upload, Streams::One)?.bytes;
        }
        Ok((used() - before) / (bytes as f64 / 1e9))
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        kill_group(&mut self.sink);
        procs::forget(&self.lab.names.procs(), "sink");
    }
}

fn start_sink(lab: &Lab, tollgate: &Path) -> Result<std::process::Child> {
    let (cert, key) = lab.names.server_pem();
    let listen = |port: u16| SocketAddr::new(OUT_V4.into(), port).to_string();
    let cmd = Cmd::new(tollgate).args(["lab", "traffic", "sink"]);
    let cmd = cmd
        .arg("--http")
        .arg(listen(SINK_HTTP))
        .arg("--https")
        .arg(listen(SINK_HTTPS));
    let cmd = cmd.arg("--cert").arg(cert).arg("--key").arg(key);
    let mut child = lab.at(Place::Out, cmd).spawn_piped()?;
    procs::record(
        &lab.names.procs(),
        "sink",
        i32::try_from(child.id()).unwrap_or(0),
    )?;
    let mut line = String::new();
    // Returns when the sink is ready, or when it has ended.
    let read = child
        .stdout
        .take()
        .map(|out| BufReader::new(out).read_line(&mut line));
    if matches!(read, Some(Ok(n)) if n > 0) {
        return Ok(child);
    }
    kill_group(&mut child);
    Err(LabError::NotReady(
        "the sink for uploads does not start".into(),
    ))
}
