//! The daemon's side.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::command::Command;
use super::{Messages, Reply, VERSIONS};

/// Clients at a time; one more is hung up on. Every policy worker of an agent may have one.
const CLIENTS_MAX: usize = 64;

/// A client that says nothing for so long is hung up on, so that dead ones do not use up the places.
const IDLE: Duration = Duration::from_secs(600);

/// Owner and group, as Suricata has it.
const SOCKET_MODE: u32 = 0o660;

/// Does what clients ask for.
pub trait Handler: Send + Sync + 'static {
    /// Does it; what is returned is the answer.
    fn handle(&self, command: Command) -> Reply;
}

/// A listening socket; its file goes with it.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens. A file that is there already is that of a daemon that died, unless somebody answers.
    ///
    /// # Errors
    /// Another daemon listens there, or the system refused.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another daemon listens there",
            ));
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves clients, each on a thread of its own; returns only when accepting fails for good.
    ///
    /// # Errors
    /// The socket is unusable.
    pub fn serve(&self, handler: &Arc<impl Handler>) -> io::Result<()> {
        let clients = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
                clients.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let place = Place(Arc::clone(&clients));
            let handler = Arc::clone(handler);
            // Without a thread the stream is dropped, which the client sees.
            let _ = thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || {
                    let _place = place;
                    // A client that goes away in the middle of an answer is no failure of ours.
                    let _ = converse(stream, &*handler);
                });
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One of [`CLIENTS_MAX`].
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn converse(stream: UnixStream, handler: &impl Handler) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut messages = Messages::new(stream);
    let Some(hello) = messages.next()? else {
        return Ok(());
    };
    if !speaks_our_version(&hello) {
        return messages.send(&serde_json::json!({ "return": "NOK" }));
    }
    messages.send(&serde_json::json!({ "return": "OK" }))?;
    while let Some(message) = messages.next()? {
        let reply = match Command::from_json(&message) {
            Ok(command) => handler.handle(command),
            Err(problem) => Reply::failed(problem),
        };
        messages.send(&reply.to_json())?;
    }
    Ok(())
}

fn speaks_our_version(hello: &Value) -> bool {
    let version = hello.get("version").and_then(Value::as_str);
    version.is_some_and(|version| VERSIONS.contains(&version))
}
