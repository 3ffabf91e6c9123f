//! The client's side: what `suricatasc` does.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::{Messages, Reply, VERSION, command};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("unable to connect to socket {path}: {source}; is the daemon running?")]
    Connect {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection failed.
    #[error("talking to the daemon: {0}")]
    Talk(#[from] io::Error),
    /// The daemon does not take this client.
    #[error("the daemon refused protocol version {VERSION}")]
    Version,
    /// The connection ended before the answer.
    #[error("the daemon closed the connection without an answer")]
    Closed,
    /// What was typed is no command.
    #[error("{0}")]
    Command(String),
}

/// A connection to the daemon.
pub struct Client {
    messages: Messages,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or the daemon does not take this client.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.display().to_string(),
            source,
        })?;
        let mut client = Self {
            messages: Messages::new(stream),
        };
        match client.exchange(&json!({ "version": VERSION }))? {
            Reply { ok: true, .. } => Ok(client),
            Reply { ok: false, .. } => Err(ClientError::Version),
        }
    }

    /// Asks for what was typed.
    ///
    /// # Errors
    /// It is no command, or there is no answer.
    pub fn ask(&mut self, line: &str) -> Result<Reply, ClientError> {
        let message = command::from_line(line).map_err(ClientError::Command)?;
        self.exchange(&message)
    }

    fn exchange(&mut self, message: &Value) -> Result<Reply, ClientError> {
        self.messages.send(message)?;
        let answer = self.messages.next()?.ok_or(ClientError::Closed)?;
        Ok(Reply::from_json(&answer))
    }
}

/// The answer as `suricatasc -c` prints it: one object in one line.
pub fn printed(reply: &Reply) -> String {
    reply.to_json().to_string()
}
