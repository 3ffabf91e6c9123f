//! Runs the suites.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tollgate_doctor::case::ProbeOutcome;
use tollgate_doctor::probe::counters::{self, Counters};
use tollgate_lab::interrupt;
use tollgate_lab::lab::{self, Lab, UpOptions};
use tollgate_lab::progress::Progress;

use crate::engine::{Engine, Expected, HOST, OTHER_HOST, Running, without_offloads};
use crate::error::{ConformanceError, Result};
use crate::place::{Done, Sides};
use crate::report::{CaseResult, Report, Verdict};
use crate::suite::{Case, Mtus, Suite, cases, mtus};

/// Name of the lab.
pub const LAB_NAME: &str = "conf";
/// Size of the lab's object, which nothing here asks for.
const LAB_OBJECT: u64 = 1 << 20;
/// Counters that no healthy path lets grow.
const CHECKSUMS: [&str; 3] = ["Tcp:InCsumErrors", "Udp:InCsumErrors", "Udp6:InCsumErrors"];

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub place: Place,
    /// Suites; empty: all.
    pub suites: Vec<Suite>,
    /// Fewer and smaller cases.
    pub quick: bool,
}

/// Where to run.
#[derive(Clone, Debug)]
pub enum Place {
    /// Between two namespaces as they are, named by their files.
    Given {
        /// Where connections are opened.
        from: PathBuf,
        /// Where they are accepted.
        to: PathBuf,
    },
    /// In labs of its own.
    Lab {
        /// The `tollgate` binary.
        tollgate: PathBuf,
        /// What stands in the path, one after the other; empty: all.
        engines: Vec<Engine>,
        /// Name of the labs.
        name: String,
    },
}

/// Runs the suites; progress goes to standard error.
///
/// # Errors
/// Something around the cases failed: a lab, an engine, a namespace; or an interrupt.
pub fn run(options: &Options) -> Result<Report> {
    let suites = chosen(&options.suites, &Suite::ALL);
    let progress = Progress::new();
    match &options.place {
        Place::Given { from, to } => given(from, to, &suites, options.quick, &progress),
        Place::Lab {
            tollgate,
            engines,
            name,
        } => {
            let mut report = Report {
                place: format!("lab {name}"),
                cases: Vec::new(),
            };
            for engine in chosen(engines, &Engine::ALL) {
                for (mtus, suites) in rounds(&suites, options.quick) {
                    let round = Round {
                        engine,
                        mtus,
                        suites: &suites,
                        quick: options.quick,
                    };
                    report.cases.extend(round.play(name, tollgate, &progress)?);
                }
            }
            Ok(report)
        }
    }
}

/// Those that were asked for, once each in the usual order; all if none was.
fn chosen<T: Copy + PartialEq>(asked: &[T], all: &[T]) -> Vec<T> {
    let wanted = all.iter().copied();
    wanted
        .filter(|one| asked.is_empty() || asked.contains(one))
        .collect()
}

fn given(
    from: &Path,
    to: &Path,
    suites: &[Suite],
    quick: bool,
    progress: &Progress,
) -> Result<Report> {
    let sides = Sides::new(from, to)?;
    if !sides.has(false) && !sides.has(true) {
        return Err(ConformanceError::Usage(format!(
            "{} has no address that could be connected to",
            to.display()
        )));
    }
    let mut report = Report {
        place: format!("{} to {}", from.display(), to.display()),
        cases: Vec::new(),
    };
    for case in suites.iter().flat_map(|&suite| cases(suite, quick)) {
        // Without an address of the family there is nothing to test.
        if sides.has(case.ipv6) {
            report
                .cases
                .push(play(Engine::None, None, &sides, &case, progress)?);
        }
    }
    Ok(report)
}

/// Link sizes, each with the suites that run on them.
fn rounds(suites: &[Suite], quick: bool) -> Vec<(Mtus, Vec<Suite>)> {
    let mut rounds: Vec<(Mtus, Vec<Suite>)> = Vec::new();
    for &suite in suites {
        for &sizes in mtus(suite, quick) {
            match rounds.iter_mut().find(|(other, _)| *other == sizes) {
                Some((_, suites)) => suites.push(suite),
                None => rounds.push((sizes, vec![suite])),
            }
        }
    }
    rounds
}

/// One engine in one lab. A lab for each: what was learnt about the path's MTU stays with its lab.
struct Round<'a> {
    engine: Engine,
    mtus: Mtus,
    suites: &'a [Suite],
    quick: bool,
}

impl Round<'_> {
    fn play(&self, name: &str, tollgate: &Path, progress: &Progress) -> Result<Vec<CaseResult>> {
        let [pod_mtu, out_mtu] = self.mtus;
        progress.step(format!(
            "{}: a lab with MTU {pod_mtu} and {out_mtu}",
            self.engine
        ));
        let lab = lab::up(&UpOptions {
            name: name.to_owned(),
            pod_mtu,
            out_mtu,
            big_bytes: LAB_OBJECT,
            ..UpOptions::default()
        })?;
        let running = Running::start(self.engine, &lab, tollgate)?;
        let results = self.cases(&lab, progress);
        drop(running);
        lab.down()?;
        results
    }

    fn cases(&self, lab: &Lab, progress: &Progress) -> Result<Vec<CaseResult>> {
        let path = |netns: &str| Path::new("/run/netns").join(netns);
        let mut sides = Sides::new(&path(&lab.names.pod), &path(&lab.names.out))?;
        sides.doomed = self.engine.expected() != Expected::Pass;
        self.in_path(lab, &sides)?;
        let cases = self.suites.iter().flat_map(|&s| cases(s, self.quick));
        cases
            .map(|case| play(self.engine, Some(self.mtus), &sides, &case, progress))
            .collect()
    }

    /// Controls: an engine that is not there would look like none, and one that does not work at all
    /// like a blind one.
    fn in_path(&self, lab: &Lab, sides: &Sides) -> Result<()> {
        let why = match self.engine {
            Engine::None => return Ok(()),
            Engine::Tollgate => match sides.small(OTHER_HOST)? {
                ProbeOutcome::Passed => "a request that its policy refuses was answered".to_owned(),
                _ => return Ok(()),
            },
            Engine::Blind => match without_offloads(lab, || sides.small(HOST))? {
                ProbeOutcome::Passed => return Ok(()),
                ProbeOutcome::Failed(why) | ProbeOutcome::NotRun(why) => {
                    format!("without offloads it should let a small exchange through, but {why}")
                }
            },
        };
        Err(ConformanceError::NotInPath {
            engine: self.engine.name(),
            why,
        })
    }
}

fn play(
    engine: Engine,
    mtus: Option<Mtus>,
    sides: &Sides,
    case: &Case,
    progress: &Progress,
) -> Result<CaseResult> {
    interrupt::check()?;
    progress.step(format!("{engine}: {} {}", case.suite, case.name));
    let begin = Instant::now();
    let Done { outcome, from, to } = sides.run(case)?;
    // In a lab nobody else sends: every wrong checksum is the case's.
    let outcome = match mtus {
        Some(_) => with_checksums(outcome, [&from, &to]),
        None => outcome,
    };
    let (verdict, why) = judge(engine.expected(), outcome);
    Ok(CaseResult {
        engine,
        suite: case.suite,
        case: case.name.clone(),
        mtus,
        verdict,
        why,
        seconds: begin.elapsed().as_secs_f64(),
        counters_from: from,
        counters_to: to,
    })
}

fn with_checksums(outcome: ProbeOutcome, sides: [&Counters; 2]) -> ProbeOutcome {
    let each = CHECKSUMS
        .iter()
        .flat_map(|name| sides.map(|side| counters::of(side, name)));
    let wrong: u64 = each.sum();
    match outcome {
        ProbeOutcome::Passed if wrong > 0 => ProbeOutcome::Failed(format!(
            "everything arrived, but {wrong} packets came with a wrong checksum"
        )),
        ProbeOutcome::Failed(why) if wrong > 0 && !why.contains("checksum") => {
            ProbeOutcome::Failed(format!("{why}; {wrong} packets came with a wrong checksum"))
        }
        other => other,
    }
}

fn judge(expected: Expected, outcome: ProbeOutcome) -> (Verdict, Option<String>) {
    match (expected, outcome) {
        (Expected::Pass, ProbeOutcome::Passed) => (Verdict::Passed, None),
        (Expected::Pass, ProbeOutcome::Failed(why)) => (Verdict::Failed, Some(why)),
        (Expected::Fail(_), ProbeOutcome::Failed(why)) => (Verdict::FailsAsExpected, Some(why)),
        (Expected::Fail(reason), ProbeOutcome::Passed) => (
            Verdict::PassesUnexpectedly,
            Some(format!("expected to fail: {reason}")),
        ),
        (_, ProbeOutcome::NotRun(why)) => (Verdict::NotRun, Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_make_verdicts() {
        let failed = || ProbeOutcome::Failed("x".to_owned());
        let fail = Expected::Fail("y");
        for (expected, outcome, verdict) in [
            (Expected::Pass, ProbeOutcome::Passed, Verdict::Passed),
            (Expected::Pass, failed(), Verdict::Failed),
            (fail, failed(), Verdict::FailsAsExpected),
            (fail, ProbeOutcome::Passed, Verdict::PassesUnexpectedly),
            (fail, ProbeOutcome::NotRun(String::new()), Verdict::NotRun),
        ] {
            assert_eq!(judge(expected, outcome).0, verdict);
        }
    }

    #[test]
    fn suites_share_the_labs_of_their_sizes() {
        let rounds = rounds(&Suite::ALL, false);
        assert_eq!(rounds.len(), 7);
        assert_eq!(rounds[0].1, Suite::ALL);
        assert!(
            rounds[1..]
                .iter()
                .all(|(_, suites)| suites == &[Suite::Mtu])
        );
    }
}
