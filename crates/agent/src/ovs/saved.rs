//! What the agent leaves in its run directory, so that the next one, and `tollgate cleanup`, know what is
//! on the bridge; and the flow cache of an agent that was told to end.

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tollgate_engine::cache::{CacheEntry, DirectionProgress, Progress, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::EndpointId;

use super::config::Ovs;

/// Names of the files in the run directory.
const FILE: &str = "ovs.json";
const CACHE: &str = "ovs-flows.json";

/// A larger file is not ours: half a million flows of some 500 bytes.
const MAX_BYTES: u64 = 256 << 20;

/// A flow of the flow cache.
pub type CachedFlow = (FlowKey, CacheEntry, Progress);

/// An endpoint's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// Its OpenFlow number.
    pub number: u16,
    /// The endpoint's identifier.
    pub id: u16,
    /// Name of its interface.
    pub interface: String,
    /// The endpoint's MAC address.
    pub mac: String,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// A policy selects it.
    pub governed: bool,
}

/// What is on the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where.
    pub config: Ovs,
    /// Name of the TAP.
    pub tap: String,
    /// What is decided carries this number.
    pub generation: u32,
    /// The endpoints.
    pub ports: Vec<SavedPort>,
}

impl Saved {
    /// What an agent left; `None`: nothing, or nothing that can be read.
    pub fn read(run_dir: &Path) -> Option<Self> {
        read(run_dir, FILE)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, run_dir: &Path) -> io::Result<()> {
        write(run_dir, FILE, self)
    }
}

/// Removes both files.
pub fn forget(run_dir: &Path) {
    for name in [FILE, CACHE] {
        // What is not there needs no removing.
        let _ = fs::remove_file(run_dir.join(name));
    }
}

/// Takes the flow cache of the agent before this one; it is removed, so that no later agent believes it
/// again.
pub fn take_flows(run_dir: &Path) -> Vec<CachedFlow> {
    let flows: Option<Vec<Flow>> = read(run_dir, CACHE);
    let _ = fs::remove_file(run_dir.join(CACHE));
    let flows = flows.unwrap_or_default();
    flows.iter().filter_map(Flow::restore).collect()
}

/// Leaves the flow cache to the next agent.
///
/// # Errors
/// The directory cannot be written.
pub fn save_flows(run_dir: &Path, flows: &[CachedFlow]) -> io::Result<()> {
    let flows: Vec<Flow> = flows.iter().map(Flow::of).collect();
    write(run_dir, CACHE, &flows)
}

fn read<T: DeserializeOwned>(run_dir: &Path, name: &str) -> Option<T> {
    let path = run_dir.join(name);
    let file = fs::File::open(&path).ok()?;
    if file.metadata().ok()?.len() > MAX_BYTES {
        return None;
    }
    let contents = serde_json::from_reader(BufReader::new(file));
    contents
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot read"))
        .ok()
}

fn write<T: Serialize>(run_dir: &Path, name: &str, contents: &T) -> io::Result<()> {
    let (path, new) = (run_dir.join(name), run_dir.join(format!("{name}.new")));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, contents)?;
    writer.flush()?;
    fs::rename(new, path)
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Way {
    Divert,
    Pass,
    Drop,
    Window(u32, u32),
    Quic,
}

impl From<Steer> for Way {
    fn from(steer: Steer) -> Self {
        match steer {
            Steer::Divert => Self::Divert,
            Steer::Pass => Self::Pass,
            Steer::Drop => Self::Drop,
            Steer::Window { start, end } => Self::Window(start, end),
            Steer::Quic => Self::Quic,
        }
    }
}

impl From<Way> for Steer {
    fn from(way: Way) -> Self {
        match way {
            Way::Divert => Self::Divert,
            Way::Pass => Self::Pass,
            Way::Drop => Self::Drop,
            Way::Window(start, end) => Self::Window { start, end },
            Way::Quic => Self::Quic,
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Seen {
    way: Way,
    packets: u64,
    bytes: u64,
    max_ack: Option<u32>,
    max_seq: Option<u32>,
    syn_ack: Option<u32>,
    fin: bool,
    rst: bool,
}

impl Seen {
    fn of(steer: Steer, progress: &DirectionProgress) -> Self {
        Self {
            way: steer.into(),
            packets: progress.packets,
            bytes: progress.bytes,
            max_ack: progress.max_ack,
            max_seq: progress.max_seq,
            syn_ack: progress.syn_ack,
            fin: progress.fin,
            rst: progress.rst,
        }
    }

    fn progress(&self) -> DirectionProgress {
        DirectionProgress {
            packets: self.packets,
            bytes: self.bytes,
            max_ack: self.max_ack,
            max_seq: self.max_seq,
            syn_ack: self.syn_ack,
            fin: self.fin,
            rst: self.rst,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Flow {
    endpoint: u16,
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
    outbound: Seen,
    inbound: Seen,
    last_seen_ns: u64,
}

impl Flow {
    fn of((key, entry, progress): &CachedFlow) -> Self {
        Self {
            endpoint: key.endpoint.get(),
            protocol: key.protocol,
            local: key.local_addr(),
            remote: key.remote_addr(),
            outbound: Seen::of(entry.outbound, &progress.outbound),
            inbound: Seen::of(entry.inbound, &progress.inbound),
            last_seen_ns: progress.last_seen_ns,
        }
    }

    fn restore(&self) -> Option<CachedFlow> {
        let key = FlowKey {
            endpoint: EndpointId::new(self.endpoint)?,
            protocol: self.protocol,
            local: self.local.ip(),
            local_port: self.local.port(),
            remote: self.remote.ip(),
            remote_port: self.remote.port(),
        };
        let entry = CacheEntry {
            outbound: self.outbound.way.into(),
            inbound: self.inbound.way.into(),
        };
        let progress = Progress {
            outbound: self.outbound.progress(),
            inbound: self.inbound.progress(),
            last_seen_ns: self.last_seen_ns,
        };
        Some((key, entry, progress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Saved::read(dir.path()), None);
        let saved = Saved {
            config: Ovs::default(),
            tap: "tap9".to_owned(),
            generation: 7,
            ports: vec![SavedPort {
                number: 3,
                id: 1,
                interface: "va".to_owned(),
                mac: "02:00:00:00:00:01".to_owned(),
                addresses: vec![[10, 0, 0, 1].into()],
                governed: true,
            }],
        };
        saved.write(dir.path()).unwrap();
        assert_eq!(Saved::read(dir.path()), Some(saved));

        let key = FlowKey {
            endpoint: EndpointId::new(2).unwrap(),
            protocol: 6,
            local: [10, 0, 0, 1].into(),
            local_port: 4000,
            remote: "fd00::1".parse().unwrap(),
            remote_port: 80,
        };
        let steers = [
            Steer::Divert,
            Steer::Pass,
            Steer::Drop,
            Steer::Window { start: 5, end: 9 },
            Steer::Quic,
        ];
        let flows: Vec<CachedFlow> = steers
            .into_iter()
            .map(|steer| {
                let entry = CacheEntry {
                    outbound: steer,
                    inbound: Steer::Pass,
                };
                let mut progress = Progress::default();
                progress.inbound.max_ack = Some(77);
                (key, entry, progress)
            })
            .collect();
        save_flows(dir.path(), &flows).unwrap();
        assert_eq!(take_flows(dir.path()), flows);
        assert!(take_flows(dir.path()).is_empty());
        forget(dir.path());
        assert_eq!(Saved::read(dir.path()), None);
    }
}
