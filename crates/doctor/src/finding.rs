//! What is wrong, and how we know.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::model::LinkRef;

/// Number of a finding: stable, never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub u16);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TG{:04}", self.0)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong. Does not make the machine unhealthy.
    Info,
    /// Slower or more fragile than need be.
    Warning,
    /// Traffic is lost or broken.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its number in the catalogue.
    pub number: Number,
    /// How bad.
    pub severity: Severity,
    /// One sentence that says what is wrong, with the names of what it is about.
    pub sentence: String,
    /// Where, if it is about one interface.
    pub at: Option<LinkRef>,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What to do, in words.
    pub fix: String,
    /// What the fix costs, in words.
    pub cost: String,
    /// What `--fix` would do; empty where a person has to.
    pub actions: Vec<Action>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Where it was read: a command that shows it to the user.
    pub source: String,
    /// What it says.
    pub value: String,
}

impl Evidence {
    /// A fact and the command that shows it.
    pub fn new(source: impl Into<String>, value: impl fmt::Display) -> Self {
        Self {
            source: source.into(),
            value: value.to_string(),
        }
    }
}
