//! Exit codes and the errors that lead to them. The codes are part of the product's interface and
//! documented in `docs/cli.md`.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// What a command's outcome means to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done; nothing found; allowed.
    Ok,
    /// Done, and something was found: faults in policies, a denial, a degraded agent.
    Finding,
    /// The command line or the configuration file is wrong.
    Usage,
    /// The agent cannot be reached, or is not ready.
    Unreachable,
    /// The system refused something.
    Failed,
    /// It cannot be told: the answer depends on something that was not given.
    Undecided,
    /// Of a command that was run on the user's behalf, or 128 and the signal that ended it.
    Other(u8),
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Ok => 0,
            Code::Finding => 1,
            Code::Usage => 2,
            Code::Unreachable => 3,
            Code::Failed => 4,
            Code::Undecided => 5,
            Code::Other(code) => code,
        })
    }
}

/// Why a command could not do its work, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with an exit code.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            hint: None,
        }
    }

    /// A mistake on the command line.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The exit code.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What a command returns.
pub type Outcome = Result<Code, Failure>;

impl From<io::Error> for Failure {
    /// Writing to standard output failed. A reader that has seen enough (`| head`) is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Code::Ok, ""),
            _ => Self::new(Code::Failed, format!("writing the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => io::Error::from(kind).into(),
            None => Self::new(Code::Failed, format!("writing JSON: {error}")),
        }
    }
}

/// Says on standard error what went wrong; returns the exit code.
pub fn report(failure: &Failure) -> ExitCode {
    if failure.code != Code::Ok {
        eprintln!("error: {failure}");
    }
    failure.code.into()
}
