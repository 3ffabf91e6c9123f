//! A deliberately blind inline engine: copies frames between two ports by AF_PACKET as engines do
//! whose capture knows only bytes.
//!
//! It asks for no virtio-net header, so it neither learns that a frame is still to be segmented nor
//! that its checksum is still to be filled in; its buffer has room for a frame of MTU size; it sends
//! with plain send(2). The 802.1Q tag, which the kernel takes out of a frame, is put back. Every
//! failure is counted and nothing is tried again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tollgate_datapath::packet::{Options, PacketSocket, TAG_LEN};
use tollgate_datapath::{features, links};

use super::args::Args;
use crate::error::{IoContext, LabError, Result};
use crate::interrupt;

/// What inline engines switch off at their ports, so that nothing be merged there: by the kernel's
/// names, TSO, GSO, scatter-gather, GRO and LRO. Not checksums.
const OFF: [(&str, bool); 8] = [
    ("tx-tcp-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-generic-segmentation", false),
    ("tx-scatter-gather", false),
    ("rx-gro", false),
    ("rx-lro", false),
];
/// Room for a frame beyond the MTU, in bytes: Ethernet header, tag, and the rest of a slot of 1534
/// bytes at MTU 1500, which is what an inline engine's capture ring has at that MTU.
pub const ROOM_BEYOND_MTU: usize = 34;
/// An Ethernet header with a tag.
const HEADER_LEN: usize = 18;
/// Frames taken from one port before the other is looked at.
const BATCH: usize = 64;
/// Longest wait for a frame: how late an end asked for is noticed.
const WAIT: Duration = Duration::from_millis(50);
/// Pause between two writings of the counters' file.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Bytes that may wait at a port: a full TCP window of super-packets and some.
const RECEIVE_BUFFER: u32 = 16 << 20;

/// What a copier has seen and done so far, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopierCounters {
    /// Frames received.
    pub frames: u64,
    /// Their bytes, before anything was cut off.
    pub bytes: u64,
    /// Frames longer than the MTU allows: super-packets.
    pub oversized: u64,
    /// Frames cut off because they did not fit the buffer.
    pub truncated: u64,
    /// Frames whose checksum was still to be filled in.
    pub partial_checksums: u64,
    /// Frames that the kernel refused as too long (`EMSGSIZE`, "Message too long").
    pub emsgsize: u64,
    /// Frames that could not be sent for another reason.
    pub other_errors: u64,
}

/// One of the two ports.
struct Port {
    socket: PacketSocket,
    mtu: usize,
}

impl Port {
    fn open(name: &str) -> Result<Port> {
        let options = Options {
            receive_buffer: RECEIVE_BUFFER,
            ..Options::default()
        };
        features::set(name, &OFF)?;
        let mtu = links::by_name(name)?.mtu;
        Ok(Port {
            socket: PacketSocket::open(name, options)?,
            mtu: usize::try_from(mtu).unwrap_or(usize::MAX),
        })
    }
}

/// Copies between `--port-a` and `--port-b` until SIGTERM or SIGINT. Prints `{"ready":true}` once it
/// runs and its [`CopierCounters`] at the end; with `--counters FILE` they are also in that file,
/// renewed several times a second as a whole.
pub fn run(args: &Args) -> Result<()> {
    interrupt::install();
    let (a, b): (String, String) = (args.need("port-a")?, args.need("port-b")?);
    let file: Option<PathBuf> = args.get("counters")?;
    let ports = [Port::open(&a)?, Port::open(&b)?];
    let [first, second] = &ports;
    let mut counters = CopierCounters::default();
    let mut buffer = vec![0; first.mtu.max(second.mtu).saturating_add(ROOM_BEYOND_MTU)];
    let mut reported = Instant::now();
    super::print(&serde_json::json!({ "ready": true }))?;
    while !interrupt::requested() {
        wait(&ports)?;
        copy(first, second, &mut buffer, &mut counters)?;
        copy(second, first, &mut buffer, &mut counters)?;
        if let Some(file) = file
            .as_deref()
            .filter(|_| reported.elapsed() >= REPORT_EVERY)
        {
            write(file, &counters)?;
            reported = Instant::now();
        }
    }
    if let Some(file) = &file {
        write(file, &counters)?;
    }
    super::print(&counters)
}

fn wait(ports: &[Port; 2]) -> Result<()> {
    let [a, b] = ports;
    let mut fds = [&a.socket, &b.socket].map(|socket| PollFd::new(socket, PollFlags::IN));
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(WAIT.subsec_nanos()),
    };
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(LabError::Traffic(format!("waiting for frames: {e}"))),
    }
}

/// Copies what waits at one port, some frames at most.
fn copy(from: &Port, to: &Port, buffer: &mut [u8], counters: &mut CopierCounters) -> Result<()> {
    for _ in 0..BATCH {
        let Some((_, room)) = buffer.split_at_mut_checked(TAG_LEN) else {
            return Ok(());
        };
        let received = match from.socket.receive(room) {
            Ok(received) => received,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(LabError::Traffic(format!("receiving a frame: {e}"))),
        };
        let tag_len = if received.vlan.is_some() { TAG_LEN } else { 0 };
        counters.frames += 1;
        counters.bytes += received.full_len as u64;
        counters.oversized += u64::from(received.full_len + tag_len > from.mtu + HEADER_LEN);
        counters.truncated += u64::from(received.full_len > received.len);
        counters.partial_checksums += u64::from(received.partial_checksum);
        let frame = received.whole(buffer, false);
        match to.socket.send(frame) {
            Ok(()) => {}
            Err(e) if is_too_long(&e) => counters.emsgsize += 1,
            Err(_) => counters.other_errors += 1,
        }
    }
    Ok(())
}

fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Replaces the file: a reader sees all of the old counters or all of the new ones.
fn write(path: &Path, counters: &CopierCounters) -> Result<()> {
    let text = serde_json::to_string(counters).map_err(|e| LabError::Traffic(e.to_string()))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).doing("writing", &fresh)?;
    std::fs::rename(&fresh, path).doing("renaming to", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counters.json");
        let counters = CopierCounters {
            frames: 3,
            ..CopierCounters::default()
        };
        write(&path, &counters).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            serde_json::from_str::<CopierCounters>(&text).unwrap(),
            counters
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
