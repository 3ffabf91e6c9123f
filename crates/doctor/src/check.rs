//! What a check before or after installation found: sections of lines, each with its result, and
//! what the whole comes to. Pure; who finds out fills it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for everything.
    Warn,
    /// It could not be told.
    Unknown,
    /// It does not work.
    Fail,
}

impl Outcome {
    /// A word of at most four letters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Unknown => "?",
            Self::Fail => "fail",
        }
    }

    /// One character for a terminal.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Ok => "√",
            Self::Warn => "‼",
            Self::Unknown => "?",
            Self::Fail => "×",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// A stable name for scripts, in kebab case.
    pub id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, in words.
    pub text: String,
    /// What to do about it; empty if nothing needs doing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Checks that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Its checks, in the order in which they were made.
    pub lines: Vec<Line>,
}

impl Section {
    /// An empty section.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            lines: Vec::new(),
        }
    }

    /// Adds a check that went well.
    pub fn ok(&mut self, id: &str, text: impl fmt::Display) {
        self.add(id, Outcome::Ok, text, "");
    }

    /// Adds a check.
    pub fn add(&mut self, id: &str, outcome: Outcome, text: impl fmt::Display, hint: &str) {
        self.lines.push(Line {
            id: id.to_owned(),
            outcome,
            text: text.to_string(),
            hint: hint.to_owned(),
        });
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The sections.
    pub sections: Vec<Section>,
    /// How often there was each result.
    pub summary: Summary,
}

/// How often there was each result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// As it should be.
    pub ok: usize,
    /// Works, but.
    pub warn: usize,
    /// Could not be told.
    pub unknown: usize,
    /// Does not work.
    pub fail: usize,
}

impl Report {
    /// Sums up.
    pub fn new(sections: Vec<Section>) -> Self {
        let mut summary = Summary::default();
        for line in sections.iter().flat_map(|section| &section.lines) {
            *match line.outcome {
                Outcome::Ok => &mut summary.ok,
                Outcome::Warn => &mut summary.warn,
                Outcome::Unknown => &mut summary.unknown,
                Outcome::Fail => &mut summary.fail,
            } += 1;
        }
        Self { sections, summary }
    }

    /// The whole in one result: a failure wins over what could not be told, that over a warning.
    pub fn outcome(&self) -> Outcome {
        let lines = self.sections.iter().flat_map(|section| &section.lines);
        lines.map(|line| line.outcome).max().unwrap_or(Outcome::Ok)
    }

    /// A check by its name.
    pub fn line(&self, id: &str) -> Option<&Line> {
        let mut lines = self.sections.iter().flat_map(|section| &section.lines);
        lines.find(|line| line.id == id)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ok, {} to look at, {} failed",
            self.ok, self.warn, self.fail
        )?;
        match self.unknown {
            0 => Ok(()),
            count => write!(f, ", {count} could not be told"),
        }
    }
}

/// Smaller and larger MTUs on one node: an endpoint's interface must not be larger than the
/// interfaces that its packets leave by, or every full packet has to be cut or refused on the way.
/// Returns a sentence for each endpoint interface that is.
pub fn mtu_conflicts(endpoints: &[(String, u32)], uplinks: &[(String, u32)]) -> Vec<String> {
    let Some((smallest, limit)) = uplinks.iter().min_by_key(|(_, mtu)| *mtu) else {
        return Vec::new();
    };
    endpoints
        .iter()
        .filter(|(_, mtu)| mtu > limit)
        .map(|(name, mtu)| format!("{name} has MTU {mtu}, {smallest} only {limit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_result_counts() {
        let mut section = Section::new("s");
        assert_eq!(Report::new(vec![section.clone()]).outcome(), Outcome::Ok);
        for outcome in [Outcome::Ok, Outcome::Warn, Outcome::Unknown, Outcome::Fail] {
            section.add(outcome.word(), outcome, "t", "");
            assert_eq!(Report::new(vec![section.clone()]).outcome(), outcome);
        }
        let report = Report::new(vec![section]);
        assert_eq!(
            report.summary.to_string(),
            "1 ok, 1 to look at, 1 failed, 1 could not be told"
        );
        assert_eq!(
            report.line("warn").map(|line| line.outcome),
            Some(Outcome::Warn)
        );
        assert_eq!(report.line("none"), None);
    }

    #[test]
    fn only_larger_endpoints_conflict() {
        let list = |items: &[(&str, u32)]| -> Vec<(String, u32)> {
            items.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect()
        };
        let uplinks = list(&[("eth0", 1500), ("eth1", 9000)]);
        assert!(mtu_conflicts(&list(&[("a", 1450), ("b", 1500)]), &uplinks).is_empty());
        assert_eq!(
            mtu_conflicts(&list(&[("a", 9000)]), &uplinks),
            ["a has MTU 9000, eth0 only 1500"]
        );
        assert!(mtu_conflicts(&list(&[("a", 9000)]), &[]).is_empty());
    }
}
