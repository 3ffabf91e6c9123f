//! The command socket: a Unix stream socket on which a client and the daemon exchange JSON objects, as
//! Suricata's do (`src/unix-manager.c`, protocol 0.2).
//!
//! The client says its protocol's version, the daemon answers; then each command gets one answer. Objects
//! need not end with a newline; the daemon's do.

pub mod client;
pub mod command;
pub mod server;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// The socket's path unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/suricata/suricata-command.socket";

/// The protocol's version. Clients of 0.1 say the same without a newline.
pub const VERSION: &str = "0.2";
/// The versions that are understood.
pub const VERSIONS: [&str; 2] = ["0.1", VERSION];

/// A message of more bytes is none: commands are short, and `dump-counters` is the longest answer.
const MESSAGE_MAX: usize = 1 << 20;

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// It was done.
    pub ok: bool,
    /// What there is to say: words, or an object.
    pub message: Value,
}

impl Reply {
    /// Done.
    pub fn ok(message: impl Into<Value>) -> Self {
        Self {
            ok: true,
            message: message.into(),
        }
    }

    /// Not done.
    pub fn failed(message: impl Into<Value>) -> Self {
        Self {
            ok: false,
            message: message.into(),
        }
    }

    fn to_json(&self) -> Value {
        let word = if self.ok { "OK" } else { "NOK" };
        json!({ "message": self.message, "return": word })
    }

    fn from_json(value: &Value) -> Self {
        Self {
            ok: value.get("return").and_then(Value::as_str) == Some("OK"),
            message: value.get("message").cloned().unwrap_or(Value::Null),
        }
    }
}

/// A connection, cut into JSON objects.
struct Messages {
    stream: UnixStream,
    /// What was read and belongs to no object yet.
    buffer: Vec<u8>,
}

impl Messages {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The next object; `None` when the other side has closed the connection between two of them.
    fn next(&mut self) -> io::Result<Option<Value>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(value) = self.take()? {
                return Ok(Some(value));
            }
            if self.buffer.len() > MESSAGE_MAX {
                return Err(invalid("a message of more than a megabyte"));
            }
            let read = self.stream.read(&mut chunk)?;
            if read == 0 && self.buffer.iter().all(u8::is_ascii_whitespace) {
                return Ok(None);
            }
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer
                .extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }

    /// The first whole object of what was read.
    fn take(&mut self) -> io::Result<Option<Value>> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let used = values.byte_offset();
                self.buffer.drain(..used);
                Ok(Some(value))
            }
            Some(Err(error)) if !error.is_eof() => Err(invalid(&format!("no JSON: {error}"))),
            _ => Ok(None),
        }
    }

    fn send(&mut self, value: &Value) -> io::Result<()> {
        self.stream.write_all(format!("{value}\n").as_bytes())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
