//! What is wrong with the input, and where.

use std::fmt;

use serde::Serialize;

/// One fault in the policy files.
///
/// Displayed as `file.yaml:12:5: ClusterNetworkPolicy/web: spec.egress[0].ports[1].endPort: message`;
/// parts that are not known are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Name of the file, as given in [`SourceFile`](crate::SourceFile).
    pub file: String,
    /// Line, counted from 1.
    pub line: Option<u32>,
    /// Column in characters, counted from 1.
    pub column: Option<u32>,
    /// The object, `Kind/name` or `Kind/namespace/name`, if it is known.
    pub object: Option<String>,
    /// Path of the field inside the document, e.g. `spec.egress[0].ports[1].endPort`; empty if the
    /// fault is with the document as a whole.
    pub field: String,
    /// What is wrong, one sentence.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        f.write_str(": ")?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// A place in a file, both counted from 1; line 0 stands for "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Pos {
    pub(crate) fn line(self) -> Option<u32> {
        (self.line > 0).then_some(self.line)
    }

    pub(crate) fn column(self) -> Option<u32> {
        (self.line > 0).then_some(self.column)
    }
}

/// A place in one of the files of a compilation: enough to write a [`Diagnostic`] later, when the
/// document itself is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Index among the files given to `compile`.
    pub(crate) file: u32,
    pub(crate) pos: Pos,
}
