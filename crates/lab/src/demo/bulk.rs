//! Large transfers with and without policy, by curl, and the hash of what arrived.

use std::fs;
use std::path::PathBuf;

use super::client::base;
use super::{Stage, table};
use crate::agent::AgentHandle;
use crate::content;
use crate::error::{IoContext, LabError, Result};
use crate::lab::Place;
use crate::names::Family;
use crate::stats::{median, ratio};

/// Below this ratio a transfer counts as slowed down. Single transfers of one second vary by some
/// 10 % on a machine that does other things; `tollgate bench` measures the ratio itself.
const RATIO_MIN: f64 = 0.8;
/// Rounds added at most for a kind whose ratio looks too low: more samples, the same medians.
const EXTRA_ROUNDS: usize = 6;
/// Above this the agent takes part in bulk transfers. It normally needs less than a hundredth.
const CPU_PER_GB_MAX: f64 = 0.1;
/// File that the pod saves a download to, and name of what it uploads.
const RECEIVED: &str = "received.bin";

/// One kind of transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    scheme: &'static str,
    upload: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        scheme: "http",
        upload: false,
    },
    Kind {
        scheme: "http",
        upload: true,
    },
    Kind {
        scheme: "https",
        upload: false,
    },
    Kind {
        scheme: "https",
        upload: true,
    },
];

impl Kind {
    fn words(self) -> String {
        let direction = if self.upload { "upload" } else { "download" };
        format!("{} {direction}", self.scheme.to_uppercase())
    }
}

/// Rates of one kind in MB/s, a value a round.
#[derive(Default)]
struct Rates {
    without: Vec<f64>,
    with: Vec<f64>,
}

/// Measures, checks hashes and shows both; returns what was wrong, and the agent, running.
pub fn run(
    stage: &Stage<'_>,
    agent: AgentHandle,
    rounds: usize,
) -> Result<(Vec<String>, AgentHandle)> {
    let mut rates: [Rates; 4] = Default::default();
    let mut cpu = 0.0;
    let mut agent = Some(agent);
    let mut round = 0;
    loop {
        let wanted = rates.each_ref().map(|r| round < rounds.max(1) || r.slow());
        if round >= rounds + EXTRA_ROUNDS || !wanted.contains(&true) {
            break;
        }
        // with, without; without, with; ...: drift of the machine hits both alike.
        let order = if round % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        for with in order {
            agent = switch(stage, agent.take(), with)?;
            let before = agent.as_ref().map_or(0.0, AgentHandle::cpu_seconds);
            measure(stage, with, round, &wanted, &mut rates)?;
            cpu += agent.as_ref().map_or(0.0, AgentHandle::cpu_seconds) - before;
        }
        round += 1;
    }
    let Some(agent) = switch(stage, agent.take(), true)? else {
        return Err(LabError::NotReady("the agent is gone".into()));
    };
    let mut wrong = show(stage, &rates, cpu);
    wrong.extend(hashes(stage)?);
    Ok((wrong, agent))
}

impl Rates {
    /// Medians without and with policy, and their ratio.
    fn medians(&self) -> (f64, f64, f64) {
        let without = median(&self.without).unwrap_or(0.0);
        let with = median(&self.with).unwrap_or(0.0);
        (without, with, ratio(with, without).unwrap_or(0.0))
    }

    fn slow(&self) -> bool {
        self.medians().2 < RATIO_MIN
    }
}

/// Sees to it that the agent runs, or does not.
fn switch(
    stage: &Stage<'_>,
    agent: Option<AgentHandle>,
    with: bool,
) -> Result<Option<AgentHandle>> {
    match (agent, with) {
        (Some(agent), true) => Ok(Some(agent)),
        (None, true) => stage.start_agent().map(Some),
        (Some(agent), false) => {
            agent.stop();
            Ok(None)
        }
        (None, false) => Ok(None),
    }
}

fn measure(
    stage: &Stage<'_>,
    with: bool,
    round: usize,
    wanted: &[bool; 4],
    rates: &mut [Rates; 4],
) -> Result<()> {
    for ((kind, rates), _) in KINDS
        .into_iter()
        .zip(rates)
        .zip(wanted)
        .filter(|(_, w)| **w)
    {
        let policy = if with { "with" } else { "without" };
        let size = stage.lab.info.big_bytes >> 20;
        let words = kind.words();
        stage.progress.step(format!(
            "{words} of {size} MiB {policy} policy, round {}",
            round + 1
        ));
        let rate = transfer(stage, kind, "/dev/null")?;
        if with {
            &mut rates.with
        } else {
            &mut rates.without
        }
        .push(rate);
    }
    Ok(())
}

/// One transfer of the large object; its rate in MB/s.
fn transfer(stage: &Stage<'_>, kind: Kind, save_to: &str) -> Result<f64> {
    let www = stage.lab.names.www();
    let site = format!("{}://api.example.com", kind.scheme);
    let cmd = base(stage, Family::V4).args(["--fail", "-w", "%{time_total}", "-o", save_to]);
    let cmd = if kind.upload {
        let _ = fs::remove_file(uploaded(stage));
        cmd.arg("-T")
            .arg(www.join("v2/data/big.bin"))
            .arg(format!("{site}/upload/{RECEIVED}"))
    } else {
        cmd.arg(format!("{site}/v2/data/big.bin"))
    };
    let output = stage.lab.at(Place::Pod, cmd).run()?;
    let text = output.stdout.trim();
    let seconds: Option<f64> = text.parse().ok().filter(|s| *s > 0.0);
    let seconds = seconds.ok_or(LabError::Parse {
        what: "curl's time",
        text: text.to_owned(),
    })?;
    Ok(stage.lab.info.big_bytes as f64 / seconds / 1e6)
}

fn uploaded(stage: &Stage<'_>) -> PathBuf {
    stage.lab.names.www().join("upload").join(RECEIVED)
}

fn show(stage: &Stage<'_>, rates: &[Rates; 4], cpu: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut cells = Vec::new();
    for (kind, rates) in KINDS.into_iter().zip(rates) {
        let (without, with, ratio) = rates.medians();
        if rates.slow() {
            wrong.push(format!(
                "{}: only {ratio:.2} of the speed without policy",
                kind.words()
            ));
        }
        let words = [kind.words(), format!("{without:.0}"), format!("{with:.0}")];
        let of = rates.with.len().to_string();
        cells.push(
            words
                .into_iter()
                .chain([format!("{ratio:.2}"), of])
                .collect(),
        );
    }
    let header = [
        "1 GiB by curl",
        "MB/s without policy",
        "MB/s with policy",
        "ratio",
        "runs",
    ];
    let title = "Bulk transfers, medians";
    stage
        .progress
        .print(&table::render(title, &header, cells, &[1, 2, 3, 4]));
    let transfers: usize = rates.iter().map(|r| r.with.len()).sum();
    let gigabytes = stage.lab.info.big_bytes as f64 * transfers as f64 / 1e9;
    let per_gb = cpu / gigabytes;
    stage.progress.print(&format!(
        "Agent CPU in these transfers: {cpu:.2} s for {gigabytes:.1} GB ({per_gb:.3} s/GB)"
    ));
    if per_gb > CPU_PER_GB_MAX {
        wrong.push(format!("the agent used {per_gb:.2} s of CPU per GB"));
    }
    wrong
}

/// Transfers everything once more under policy and compares what arrived.
fn hashes(stage: &Stage<'_>) -> Result<Vec<String>> {
    let expected = &stage.lab.info.big_sha256;
    let saved = stage.lab.names.www().join(RECEIVED);
    let mut wrong = Vec::new();
    let mut cells = Vec::new();
    for kind in KINDS {
        stage
            .progress
            .step(format!("SHA-256 of what arrived: {}", kind.words()));
        let target = saved.display().to_string();
        transfer(stage, kind, if kind.upload { "/dev/null" } else { &target })?;
        let file = if kind.upload {
            uploaded(stage)
        } else {
            saved.clone()
        };
        let hash = content::hash_file(&file)?;
        fs::remove_file(&file).doing("removing", &file)?;
        let right = hash == *expected;
        if !right {
            wrong.push(format!("{}: SHA-256 {hash}, not {expected}", kind.words()));
        }
        let mark = if right { "ok" } else { "WRONG" };
        cells.push(vec![kind.words(), hash, mark.into()]);
    }
    let header = ["under policy", "SHA-256 of what arrived", ""];
    let title = format!("Content of 1 GiB, sent as {expected}");
    stage
        .progress
        .print(&table::render(&title, &header, cells, &[]));
    Ok(wrong)
}
