//! What happens to packets in an inline engine that is blind to offloads, and what helps.
//!
//! The kernel hands packets on before they are finished: several segments as one super-packet,
//! checksums to be filled in by whoever sends them out. It keeps both facts beside the packet. An
//! engine that takes packets out of the kernel and puts them back by AF_PACKET without the virtio-net
//! header keeps only the bytes. [`run`] plays this in stages in a lab of its own and counts what each
//! setting breaks, what the usual way round costs, and how Tollgate fares in the same place.
//!
//! [`BlindEngine`] is such an engine, for other uses.

mod bed;
mod engine;
pub(crate) mod helper;
mod measure;
pub(crate) mod path;
mod stage;
pub(crate) mod suricata;

use std::fs::File;
use std::path::PathBuf;

use serde::Serialize;

pub use bed::EngineBed;
pub use engine::BlindEngine;
pub use path::{ENGINE_PORTS, GATEWAY_IF, VLAN};
pub use stage::Stage;

use crate::error::{IoContext, LabError, Result};
use crate::lab::{self, Lab, Outside, UpOptions};
use crate::progress::Progress;
use crate::stats::median;
use measure::{Facts, Theatre};

/// Name of the scenario's lab.
pub const LAB_NAME: &str = "blind";
/// Seconds that a large download may take unless told otherwise.
pub const DEFAULT_SECONDS: u32 = 6;

/// Length of the large object: at the full speed of a fast machine, still a second or two.
const LARGE_BYTES: u64 = 2 << 30;
/// Its path. It is a hole in the lab's tmpfs: it takes neither time to make nor memory.
const LARGE_PATH: &str = "v2/data/large.bin";
/// Length of the lab's usual large object, which is not needed here.
const BIG_BYTES: u64 = 1 << 20;

/// Which blind engine stands in the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The lab's own copier.
    Copier,
    /// Suricata, out of a directory with a system that has it.
    Suricata {
        /// That directory.
        root: PathBuf,
    },
}

/// How to play.
#[derive(Clone, Debug)]
pub struct BlindOptions {
    /// The `tollgate` binary: agent and helpers.
    pub tollgate: PathBuf,
    /// The blind engine.
    pub engine: Engine,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// Names of stages; empty: all. See [`Stage`].
    pub stages: Vec<String>,
    /// Times that each stage is played, one after the other.
    pub rounds: usize,
    /// Seconds that a large download may take.
    pub seconds: u32,
    /// Directory for a pcapng file of each stage; it makes transfers slower.
    pub trace: Option<PathBuf>,
    /// Name of the lab.
    pub lab: String,
}

impl BlindOptions {
    /// Everything as usual, with this binary.
    pub fn new(tollgate: impl Into<PathBuf>) -> Self {
        BlindOptions {
            tollgate: tollgate.into(),
            engine: Engine::Copier,
            outside: Outside::Wire,
            stages: Vec::new(),
            rounds: 1,
            seconds: DEFAULT_SECONDS,
            trace: None,
            lab: LAB_NAME.into(),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BlindReport {
    /// One entry a stage, in the story's order.
    pub stages: Vec<StageResult>,
}

/// What was measured in one stage. Rates are medians of the rounds, counters sums.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageResult {
    /// The stage.
    pub name: Stage,
    /// Rate of a large HTTP download in Gbit/s (10^9 bits of body a second).
    pub gbit_per_s: f64,
    /// A small request was answered, in every round.
    pub small_request_ok: bool,
    /// Frames that were refused because they were longer than the MTU allows, counted by what sent
    /// them. Of Suricata and of Tollgate: frames that could not be sent, whatever the reason.
    pub emsgsize: u64,
    /// Packets that the pod or the external host dropped for a wrong checksum.
    pub checksum_errors: u64,
    /// TCP segments that the pod or the external host sent again.
    pub retransmits: u64,
    /// Of the checksum errors, those of the pod.
    pub checksum_errors_pod: u64,
    /// Of the checksum errors, those of the external host.
    pub checksum_errors_outside: u64,
    /// Of the retransmits, those of the external host, which sends the download.
    pub retransmits_outside: u64,
    /// Frames that the engine's buffer cut off.
    pub truncated: u64,
    /// The large download's connection was made, in every round.
    pub connected: bool,
    /// The rates of the rounds, in their order.
    pub samples: Vec<f64>,
    /// What was set up.
    pub setting: &'static str,
    /// Why it goes as it goes.
    pub explanation: &'static str,
}

impl StageResult {
    fn of(stage: Stage, plays: &[Facts]) -> StageResult {
        let rates: Vec<f64> = plays.iter().map(|facts| facts.gbit_per_s).collect();
        let sum = |of: fn(&Facts) -> u64| plays.iter().map(of).sum::<u64>();
        let (pod, outside) = (
            sum(|facts| facts.checksum_errors_pod),
            sum(|facts| facts.checksum_errors_outside),
        );
        let retransmits_outside = sum(|facts| facts.retransmits_outside);
        StageResult {
            name: stage,
            gbit_per_s: median(&rates).unwrap_or(0.0),
            small_request_ok: plays.iter().all(|facts| facts.small_request_ok),
            emsgsize: sum(|facts| facts.emsgsize),
            checksum_errors: pod + outside,
            retransmits: retransmits_outside + sum(|facts| facts.retransmits_pod),
            checksum_errors_pod: pod,
            checksum_errors_outside: outside,
            retransmits_outside,
            truncated: sum(|facts| facts.truncated),
            connected: plays.iter().all(|facts| facts.connected),
            samples: rates,
            setting: stage.setting(),
            explanation: stage.explanation(),
        }
    }
}

/// Plays the stages in a lab that is gone afterwards. Progress goes to standard error.
///
/// # Errors
/// An unknown stage, or anything that could not be set up or measured.
pub fn run(options: &BlindOptions) -> Result<BlindReport> {
    let stages = Stage::select(&options.stages)?;
    if options.rounds == 0 || options.seconds == 0 {
        let text = "at least one round of at least one second is needed";
        return Err(LabError::Usage(text.into()));
    }
    if let Engine::Suricata { root } = &options.engine {
        suricata::Suricata::check(root)?;
    }
    let progress = Progress::new();
    progress.step("making the lab: pod, node with gateway and engine ports, external host");
    let lab = lab::up(&UpOptions {
        name: options.lab.clone(),
        outside: options.outside,
        big_bytes: BIG_BYTES,
        ..UpOptions::default()
    })?;
    let results = play(&lab, options, &stages, &progress);
    progress.step("taking the lab down");
    let down = lab.down();
    let stages = results?;
    down?;
    Ok(BlindReport { stages })
}

fn play(
    lab: &Lab,
    options: &BlindOptions,
    stages: &[Stage],
    progress: &Progress,
) -> Result<Vec<StageResult>> {
    let large = lab.names.www().join(LARGE_PATH);
    File::create(&large)
        .and_then(|file| file.set_len(LARGE_BYTES))
        .doing("making", large)?;
    path::build(lab)?;
    let theatre = Theatre {
        lab,
        options,
        progress,
    };
    let mut plays = vec![Vec::new(); stages.len()];
    for _ in 0..options.rounds {
        for (stage, plays) in stages.iter().zip(&mut plays) {
            let facts = theatre.play(*stage)?;
            progress.note(&line(*stage, &facts));
            plays.push(facts);
        }
    }
    let results = stages.iter().zip(&plays);
    Ok(results
        .map(|(s, plays)| StageResult::of(*s, plays))
        .collect())
}

/// What came of one play, for people who watch.
fn line(stage: Stage, facts: &Facts) -> String {
    let small = if facts.small_request_ok {
        "ok"
    } else {
        "fails"
    };
    let checksums = facts.checksum_errors_pod + facts.checksum_errors_outside;
    format!(
        "{:<22} {:>8} Gbit/s, small request {small}, {} EMSGSIZE, {checksums} wrong checksums, {} \
         retransmits",
        stage.name(),
        gbits(facts.gbit_per_s),
        facts.emsgsize,
        facts.retransmits_pod + facts.retransmits_outside,
    )
}

/// A rate with as many digits as mean something; the smallest are the point here.
fn gbits(rate: f64) -> String {
    match rate {
        r if r >= 0.1 => format!("{r:.2}"),
        0.0 => "0".into(),
        r => format!("{r:.5}"),
    }
}

impl BlindReport {
    /// Header of [`rows`](Self::rows).
    pub const HEADER: [&'static str; 6] = [
        "STAGE",
        "GBIT/S",
        "SMALL-REQUEST",
        "EMSGSIZE",
        "CHECKSUM-ERRORS",
        "RETRANSMITS",
    ];

    /// The results as cells for a table.
    pub fn rows(&self) -> impl Iterator<Item = [String; 6]> + '_ {
        self.stages.iter().map(|stage| {
            let small = if stage.small_request_ok {
                "ok"
            } else {
                "fails"
            };
            [
                stage.name.name().to_owned(),
                gbits(stage.gbit_per_s),
                small.to_owned(),
                stage.emsgsize.to_string(),
                stage.checksum_errors.to_string(),
                stage.retransmits.to_string(),
            ]
        })
    }

    /// What each stage is, and why it goes as it goes, for below the table.
    pub fn legend(&self) -> String {
        let entry = |stage: &StageResult| {
            format!(
                "{}: {}\n  {}",
                stage.name.name(),
                stage.setting,
                stage.explanation
            )
        };
        let entries: Vec<String> = self.stages.iter().map(entry).collect();
        entries.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(rate: f64, ok: bool) -> Facts {
        Facts {
            gbit_per_s: rate,
            small_request_ok: ok,
            connected: true,
            emsgsize: 2,
            truncated: 2,
            checksum_errors_pod: 3,
            checksum_errors_outside: 4,
            retransmits_outside: 5,
            retransmits_pod: 6,
        }
    }

    #[test]
    fn rates_are_medians_and_counters_sums() {
        let plays = [facts(1.0, true), facts(9.0, true), facts(2.0, false)];
        let result = StageResult::of(Stage::BlindPodTxOff, &plays);
        assert_eq!(result.gbit_per_s, 2.0);
        assert_eq!(result.samples, [1.0, 9.0, 2.0]);
        assert!(!result.small_request_ok && result.connected);
        assert_eq!((result.emsgsize, result.checksum_errors), (6, 21));
        assert_eq!((result.retransmits, result.retransmits_outside), (33, 15));
    }

    #[test]
    fn json_has_the_documented_shape() {
        let result = StageResult::of(Stage::Tollgate, &[facts(6.5, true)]);
        let report = BlindReport {
            stages: vec![result],
        };
        let text = serde_json::to_string(&report).unwrap();
        let begin = "{\"stages\":[{\"name\":\"tollgate\",\"gbit_per_s\":6.5,\
             \"small_request_ok\":true,\"emsgsize\":2,\"checksum_errors\":7,\"retransmits\":11,";
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn small_rates_keep_their_digits() {
        assert_eq!(gbits(6.543), "6.54");
        assert_eq!(gbits(0.00123), "0.00123");
        assert_eq!(gbits(0.0), "0");
    }
}
