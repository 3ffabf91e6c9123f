//! The way to a running agent.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tollgate_agent::api::Failure as Refusal;
use tollgate_agent::config::{DEFAULT_RUN_DIR, socket_path};

use crate::exit::{Code, Failure};

/// Which agent.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// Run directory of the agent (its `runDir`)
    #[arg(long, value_name = "DIR", env = "TOLLGATE_RUN_DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Of the agent that the arguments name.
    pub fn new(args: &AgentArgs) -> Self {
        Self {
            socket: socket_path(&args.run_dir),
        }
    }

    /// Of the agent behind a socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Fetches one JSON document.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = self.open(path, query).await?.into_body();
        let bytes = body
            .collect()
            .await
            .map_err(|error| self.broken(&error))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    /// Fetches a stream of lines and hands over each, without its line break, until the end or
    /// until `each` has had enough.
    pub async fn lines(
        &self,
        path: &str,
        query: &impl Serialize,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut body = self.open(path, query).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            rest.extend_from_slice(&data);
            let mut start = 0;
            while let Some(len) = rest[start..].iter().position(|&b| b == b'\n') {
                each(&rest[start..start + len])?;
                start += len + 1;
            }
            rest.drain(..start);
        }
        Ok(())
    }

    async fn open(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Its errors show in the answer.
        tokio::spawn(connection);
        let request = Request::get(format!("{path}{}", encode(query)?))
            .header(hyper::header::HOST, "tollgate")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(refused(status, response).await),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "the admin socket is open to the agent's user alone: run this as root".to_owned()
            }
            _ => format!(
                "is the agent running? Start it with `tollgate agent`; if it uses another run \
                 directory than {}, name it with --run-dir",
                self.socket.parent().unwrap_or(Path::new("/")).display()
            ),
        };
        let message = format!(
            "cannot reach the agent at {}: {error}",
            self.socket.display()
        );
        Failure::new(Code::Unreachable, message).hint(hint)
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        let socket = self.socket.display();
        let message = format!("the conversation with the agent at {socket} broke off: {error}");
        Failure::new(Code::Unreachable, message)
            .hint("did the agent stop, or is it of another version? See `tollgate status`")
    }
}

async fn refused(status: StatusCode, response: Response<Incoming>) -> Failure {
    let body = response
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let reason = match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => refusal.error,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    match status {
        StatusCode::BAD_REQUEST => Failure::usage(reason),
        _ => Failure::new(
            Code::Failed,
            format!("the agent answers {status}: {reason}"),
        ),
    }
}

/// The fields of a flat structure as a query; nothing if there are none.
fn encode(query: &impl Serialize) -> Result<String, Failure> {
    let serde_json::Value::Object(fields) = serde_json::to_value(query)? else {
        return Ok(String::new());
    };
    let mut text = String::new();
    for (name, value) in fields {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(value) => value,
            other => other.to_string(),
        };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(&name);
        text.push('=');
        percent_encode(&value, &mut text);
    }
    Ok(text)
}

/// All but RFC 3986's unreserved characters.
fn percent_encode(value: &str, text: &mut String) {
    for &byte in value.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let query = serde_json::json!({"a": "x y&=%", "b": null, "c": true, "d": 5, "e": "ü"});
        assert_eq!(
            encode(&query).unwrap(),
            "?a=x%20y%26%3D%25&c=true&d=5&e=%C3%BC"
        );
        assert_eq!(encode(&()).unwrap(), "");
    }
}
