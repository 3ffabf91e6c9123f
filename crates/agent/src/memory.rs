//! What one agent leaves to the next: the L7 facts of flows that the kernel goes on passing. With
//! them the next agent can judge those flows against a policy that has changed meanwhile.
//!
//! The file is a cache: without it, or with one that does not fit, decided flows still go on, but
//! a changed policy cuts those that need L7 facts.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tollgate_engine::Remembered;
use tollgate_engine::key::FlowKey;

use crate::sources::PolicyFile;

/// Name of the file in the run directory.
pub const FILE: &str = "flows.json";

/// A larger file is not ours: a million flows of some 250 bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Tells two policies apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of the files a policy is compiled from and the version that compiles it.
    pub fn of(files: &[PolicyFile]) -> Self {
        let mut hasher = DefaultHasher::new();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        for file in files {
            (&file.name, &file.text).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

#[derive(Serialize, Deserialize)]
struct Contents {
    policy: Fingerprint,
    flows: Vec<Remembered>,
}

/// What was found. Each worker takes its flows out by key.
#[derive(Debug, Default)]
pub struct Memory {
    /// The policy is the one under which the flows were decided.
    pub unchanged: bool,
    flows: HashMap<(u16, u8, SocketAddr, SocketAddr), Remembered>,
}

impl Memory {
    /// Takes the file: it is read and removed, so that no later agent believes it again. Nothing
    /// there, or nothing usable: an empty memory of a changed policy.
    pub fn take(run_dir: &Path, policy: Fingerprint) -> Self {
        let path = run_dir.join(FILE);
        let read = read(&path);
        // What cannot be removed now is overwritten at the end.
        let _ = std::fs::remove_file(&path);
        match read {
            Ok(Some(contents)) => Self {
                unchanged: contents.policy == policy,
                flows: contents
                    .flows
                    .into_iter()
                    .map(|flow| (key(&flow), flow))
                    .collect(),
            },
            Ok(None) => Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read remembered flows");
                Self::default()
            }
        }
    }

    /// What is remembered of a flow.
    pub fn get(&self, flow: &FlowKey) -> Option<Remembered> {
        let key = (
            flow.endpoint.get(),
            flow.protocol,
            flow.local_addr(),
            flow.remote_addr(),
        );
        self.flows.get(&key).cloned()
    }

    /// Flows remembered.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

/// Leaves the flows to the next agent.
pub fn save(run_dir: &Path, policy: Fingerprint, flows: Vec<Remembered>) -> std::io::Result<()> {
    let (path, new) = (run_dir.join(FILE), run_dir.join(format!("{FILE}.new")));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, &Contents { policy, flows })?;
    writer.flush()?;
    std::fs::rename(new, path)
}

/// Removes what was left for the next agent.
pub fn forget(run_dir: &Path) {
    // Nothing there is as good; what cannot be removed could not have been written either.
    let _ = std::fs::remove_file(run_dir.join(FILE));
}

fn read(path: &Path) -> std::io::Result<Option<Contents>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if file.metadata()?.len() > MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "more than {MAX_BYTES} bytes"
        )));
    }
    Ok(Some(serde_json::from_reader(BufReader::new(file))?))
}

fn key(flow: &Remembered) -> (u16, u8, SocketAddr, SocketAddr) {
    (flow.endpoint, flow.protocol, flow.local, flow.remote)
}

#[cfg(test)]
mod tests {
    use tollgate_policy::Side;

    use super::*;
    use crate::record::samples;

    fn print(text: &str) -> Fingerprint {
        Fingerprint::of(&[PolicyFile {
            name: "a".into(),
            text: text.into(),
        }])
    }

    fn remembered() -> Remembered {
        let key = samples::key();
        Remembered {
            endpoint: key.endpoint.get(),
            protocol: key.protocol,
            local: key.local_addr(),
            remote: key.remote_addr(),
            side: Side::Egress,
            facts: None,
            names: vec!["www.example.com".into()],
        }
    }

    #[test]
    fn the_next_agent_finds_the_flows_once() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), print("1"), vec![remembered()]).unwrap();
        let memory = Memory::take(dir.path(), print("1"));
        assert!(memory.unchanged);
        assert_eq!(memory.get(&samples::key()), Some(remembered()));
        assert!(Memory::take(dir.path(), print("1")).is_empty());
    }

    #[test]
    fn another_policy_is_noticed_and_rubbish_is_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), print("1"), vec![remembered()]).unwrap();
        let memory = Memory::take(dir.path(), print("2"));
        assert_eq!((memory.unchanged, memory.len()), (false, 1));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let memory = Memory::take(dir.path(), print("1"));
        assert_eq!((memory.unchanged, memory.len()), (false, 0));
        assert!(!dir.path().join(FILE).exists());
    }
}
