//! Results: for people, programs and CI.

use std::collections::BTreeMap;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::{ConformanceError, Result};
use crate::suite::{Mtus, Suite};

/// What a case's outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passed, as expected.
    Passed,
    /// It failed.
    Failed,
    /// It failed, and was expected to.
    FailsAsExpected,
    /// It passed, and was expected to fail.
    PassesUnexpectedly,
    /// It could not be run; says nothing.
    NotRun,
}

impl Verdict {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::FailsAsExpected => "fails as expected",
            Self::PassesUnexpectedly => "PASSES UNEXPECTEDLY",
            Self::NotRun => "not run",
        }
    }

    /// Nothing to look into.
    pub fn as_expected(self) -> bool {
        matches!(self, Self::Passed | Self::FailsAsExpected)
    }
}

/// One case with its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseResult {
    /// What stood in the path.
    pub engine: Engine,
    /// Its suite.
    pub suite: Suite,
    /// Its name within the suite.
    pub case: String,
    /// MTUs of the endpoint's link and of the one to the outside; not told of given namespaces.
    pub mtus: Option<Mtus>,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it did not pass, in words.
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What grew meanwhile where connections are opened: the kernel's counters by name.
    pub counters_from: BTreeMap<String, u64>,
    /// What grew meanwhile where connections are accepted.
    pub counters_to: BTreeMap<String, u64>,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where it was run: the two namespaces.
    pub place: String,
    /// In the order in which they ran.
    pub cases: Vec<CaseResult>,
}

impl Report {
    /// Number of cases with a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|c| c.verdict == verdict).count()
    }

    /// Everything went as expected.
    pub fn as_expected(&self) -> bool {
        self.cases.iter().all(|c| c.verdict.as_expected())
    }

    /// The results as JUnit XML. Expected failures are skipped cases with a message: they are nothing that
    /// CI should stop for.
    ///
    /// # Errors
    /// The XML cannot be written, which is a fault of this program.
    pub fn junit(&self) -> Result<String> {
        let mut report = quick_junit::Report::new("tollgate conformance");
        let mut groups: Vec<(Engine, Suite)> = Vec::new();
        for case in &self.cases {
            if !groups.contains(&(case.engine, case.suite)) {
                groups.push((case.engine, case.suite));
            }
        }
        for (engine, suite) in groups {
            let of = |case: &&CaseResult| case.engine == engine && case.suite == suite;
            let mut tests = TestSuite::new(format!("{engine}.{suite}"));
            tests.add_property(("place", self.place.as_str()));
            tests.add_test_cases(self.cases.iter().filter(of).map(test_case));
            report.add_test_suite(tests);
        }
        let text = report.to_string();
        text.map_err(|e| ConformanceError::Junit(e.to_string()))
    }
}

fn test_case(case: &CaseResult) -> TestCase {
    let mut status = match case.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed | Verdict::PassesUnexpectedly => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Verdict::FailsAsExpected | Verdict::NotRun => TestCaseStatus::skipped(),
    };
    let why = case.why.as_deref().unwrap_or_default();
    status.set_message(format!("{}: {why}", case.verdict.word()));
    let mut test = TestCase::new(case.full_name(), status);
    test.set_classname(format!(
        "tollgate.conformance.{}.{}",
        case.engine, case.suite
    ));
    test.set_time(Duration::try_from_secs_f64(case.seconds).unwrap_or_default());
    for (side, counters) in [("from", &case.counters_from), ("to", &case.counters_to)] {
        for (name, grown) in counters {
            test.add_property((format!("{side} {name}"), grown.to_string()));
        }
    }
    test
}

impl CaseResult {
    /// Its name with the MTUs where they are part of it.
    pub fn full_name(&self) -> String {
        match self.mtus {
            Some([pod, out]) if self.suite == Suite::Mtu => format!("{}-{pod}-{out}", self.case),
            _ => self.case.clone(),
        }
    }

    /// What grew on both sides, for people.
    pub fn counters(&self) -> String {
        let both = [("from", &self.counters_from), ("to", &self.counters_to)];
        let words = both.into_iter().flat_map(|(side, counters)| {
            counters
                .iter()
                .map(move |(name, n)| format!("{side} {name} {n}"))
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(verdict: Verdict, name: &str) -> CaseResult {
        CaseResult {
            engine: Engine::None,
            suite: Suite::Mtu,
            case: name.to_owned(),
            mtus: Some([9000, 1500]),
            verdict,
            why: (verdict != Verdict::Passed).then(|| "a <reason> & \"more\"".to_owned()),
            seconds: 1.25,
            counters_from: BTreeMap::from([("Tcp:RetransSegs".to_owned(), 3)]),
            counters_to: BTreeMap::new(),
        }
    }

    #[test]
    fn junit_is_read_back_with_each_verdict_in_its_place() {
        let report = Report {
            place: "a to b".to_owned(),
            cases: vec![
                case(Verdict::Passed, "p"),
                case(Verdict::Failed, "f"),
                case(Verdict::FailsAsExpected, "x"),
                case(Verdict::NotRun, "n"),
            ],
        };
        let xml = report.junit().unwrap();
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (4, 1, 0));
        let suite = &read.test_suites[0];
        assert_eq!(suite.name.as_str(), "none.mtu");
        let skipped = suite.test_cases.iter().filter(
            |c| matches!(&c.status, TestCaseStatus::Skipped { message, .. } if message.is_some()),
        );
        assert_eq!(skipped.count(), 2);
        let failed = &suite.test_cases[1];
        assert_eq!(failed.name.as_str(), "f-9000-1500");
        match &failed.status {
            TestCaseStatus::NonSuccess { message, .. } => {
                let text = message.as_ref().unwrap().as_str();
                assert_eq!(text, "FAILED: a <reason> & \"more\"");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(failed.properties[0].name.as_str(), "from Tcp:RetransSegs");
        assert!(!report.as_expected());
        assert_eq!(report.count(Verdict::NotRun), 1);
    }
}
