//! The bench's traffic with other enforcers in the path: each value as a ratio to the same run's
//! without policy.
//!
//! All of it runs in one lab, whose node has a gateway interface and a switch with two ports for an
//! inline engine, as [`crate::blind`] builds them; without an engine the switch is a Linux bridge. Each
//! enforcer has the bench's policy in its own words, and before it is measured it has to show that it
//! refuses what the policy refuses. In each round every enforcer has its turn, and the order turns round
//! with each round, so that what else the machine does hits all alike. An enforcer that does not start or
//! does not enforce, a transfer or a request that fails: that ends its turns in that case, and the result
//! says why.

mod peer;
mod place;
mod plot;
mod proxy;
mod report;

use std::path::PathBuf;

pub use peer::Peer;
pub use report::{CompareReport, PeerResult};

use super::{Case, RUNS, RUNS_QUICK, Samples, TIME, TIME_QUICK};
use crate::blind::path;
use crate::content::BIG_BYTES;
use crate::error::{LabError, Result};
use crate::lab::{self, Lab, Outside, UpOptions};
use crate::progress::Progress;
use place::Place;

/// Name of the comparison's lab.
pub const LAB_NAME: &str = "compare";

/// Length of the large object with `--quick`: it is asked for more often.
const BIG_BYTES_QUICK: u64 = 64 << 20;

/// What to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The `tollgate` binary: agent and helpers.
    pub tollgate: PathBuf,
    /// Whom to compare; Tollgate is always among them.
    pub peers: Vec<Peer>,
    /// Directory with a system that has Suricata, for [`Peer::Suricata`].
    pub suricata_root: Option<PathBuf>,
    /// Names of cases; empty: all that someone takes. See [`Case`].
    pub cases: Vec<String>,
    /// One short run of each.
    pub quick: bool,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// Rounds of each case; `None`: 5, or 1 with `quick`.
    pub runs: Option<usize>,
    /// Name of the lab.
    pub lab: String,
}

impl CompareOptions {
    /// Tollgate with these, by this binary.
    pub fn new(tollgate: impl Into<PathBuf>, peers: &[Peer]) -> Self {
        CompareOptions {
            tollgate: tollgate.into(),
            peers: peers.to_vec(),
            suricata_root: None,
            cases: Vec::new(),
            quick: false,
            outside: Outside::Wire,
            runs: None,
            lab: LAB_NAME.into(),
        }
    }

    /// The peers in the order of reports, each once, Tollgate first.
    fn chosen(&self) -> Vec<Peer> {
        let wanted = |peer: &Peer| *peer == Peer::Tollgate || self.peers.contains(peer);
        Peer::ALL.into_iter().filter(wanted).collect()
    }
}

/// Runs the comparison in a lab of its own, which is gone afterwards. Progress goes to standard error.
///
/// # Errors
/// An unknown case, an enforcer that is not installed, a lab that cannot be made, or a failure without
/// policy.
pub fn run(options: &CompareOptions) -> Result<CompareReport> {
    let cases = Case::select(&options.cases)?;
    let usual = if options.quick { RUNS_QUICK } else { RUNS };
    let runs = options.runs.unwrap_or(usual);
    if runs == 0 {
        return Err(LabError::Usage(
            "a comparison needs at least one run".into(),
        ));
    }
    let peers = options.chosen();
    for peer in &peers {
        peer.check(options.suricata_root.as_deref())?;
    }
    let load = report::load();
    let progress = Progress::new();
    progress.step("making the lab: pod, node with gateway and engine ports, external host");
    let lab = lab::up(&UpOptions {
        name: options.lab.clone(),
        outside: options.outside,
        big_bytes: if options.quick {
            BIG_BYTES_QUICK
        } else {
            BIG_BYTES
        },
        ..UpOptions::default()
    })?;
    let results = measure_all(&lab, options, &peers, &cases, runs, &progress);
    progress.step("taking the lab down");
    let down = lab.down();
    let cases = results?;
    down?;
    Ok(CompareReport::new(options, &peers, cases, load))
}

/// One enforcer's values in one case so far.
struct Turns {
    peer: Peer,
    values: Vec<f64>,
    failure: Option<String>,
}

fn measure_all(
    lab: &Lab,
    options: &CompareOptions,
    peers: &[Peer],
    cases: &[Case],
    runs: usize,
    progress: &Progress,
) -> Result<Vec<PeerResult>> {
    path::build(lab)?;
    let time = if options.quick { TIME_QUICK } else { TIME };
    let mut place = Place::new(lab, options, time)?;
    let mut results = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let label = format!("[{}/{}] {}", index + 1, cases.len(), case.name());
        let takers: Vec<Peer> = peers.iter().copied().filter(|p| p.takes(*case)).collect();
        results.extend(measure_case(&mut place, *case, &takers, runs, &|what| {
            progress.step(format!("{label}, {what}"));
        })?);
    }
    place.clear()?;
    Ok(results)
}

fn measure_case(
    place: &mut Place<'_>,
    case: Case,
    peers: &[Peer],
    runs: usize,
    tell: &dyn Fn(&str),
) -> Result<Vec<PeerResult>> {
    let mut without = Vec::new();
    let mut turns: Vec<Turns> = peers
        .iter()
        .map(|peer| Turns {
            peer: *peer,
            values: Vec::new(),
            failure: None,
        })
        .collect();
    for run in 0..runs {
        // a, b, c; c, b, a; ...: whoever was last stays in the path, which saves a start.
        let mut order: Vec<Option<usize>> = std::iter::once(None)
            .chain((0..turns.len()).map(Some))
            .collect();
        if run % 2 == 1 {
            order.reverse();
        }
        for turn in order {
            match turn.and_then(|index| turns.get_mut(index)) {
                None => {
                    tell(&format!("run {}, no policy", run + 1));
                    place.put(None, 0)?;
                    without.push(place.measure(case)?);
                }
                Some(turn) if turn.failure.is_some() => {}
                Some(turn) => {
                    tell(&format!("run {}, {}", run + 1, turn.peer));
                    place.take_turn(case, turn)?;
                }
            }
        }
    }
    let result = |turn: Turns| {
        let samples = Samples {
            without: without.clone(),
            with: turn.values,
        };
        PeerResult::new(case, turn.peer, samples, turn.failure)
    };
    Ok(turns.into_iter().map(result).collect())
}

impl Place<'_> {
    fn take_turn(&mut self, case: Case, turn: &mut Turns) -> Result<()> {
        let put = self.put(Some(turn.peer), case.rules());
        match put.and_then(|()| self.measure(case)) {
            Ok(value) => turn.values.push(value),
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            Err(error) => {
                turn.failure = Some(error.to_string());
                // It may be in any state now.
                self.clear()?;
            }
        }
        Ok(())
    }
}
