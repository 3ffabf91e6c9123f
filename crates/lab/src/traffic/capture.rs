//! Writes what passes some interfaces into one pcapng file: the beginning of each frame and its
//! true length, up to a number of bytes.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tollgate_datapath::packet::{Options, PacketSocket, Received, TAG_LEN};
use tollgate_inspect::write::PcapngWriter;

use super::args::Args;
use crate::error::{IoContext, LabError, Result};
use crate::interrupt;

/// Bytes of a frame that are written: every header, and the beginning of what was asked.
const SNAP_LEN: usize = 256;
/// Bytes of the file's own for each frame.
const BLOCK_LEN: u64 = 32;
/// Longest wait for a frame: how late an end asked for is noticed.
const WAIT: Duration = Duration::from_millis(50);
/// Bytes that may wait at one interface.
const RECEIVE_BUFFER: u32 = 8 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureResult {
    /// Frames in the file.
    pub frames: u64,
    /// The limit was reached: later frames are not in it.
    pub full: bool,
}

/// Captures `--interfaces A,B,...` into `--file` until SIGTERM or SIGINT, or until about `--limit`
/// bytes are written. Prints `{"ready":true}` once it runs, and its [`CaptureResult`] at the end.
pub fn run(args: &Args) -> Result<()> {
    interrupt::install();
    let names: String = args.need("interfaces")?;
    let path: PathBuf = args.need("file")?;
    let limit: u64 = args.need("limit")?;
    let names: Vec<&str> = names.split(',').collect();
    let options = Options {
        outgoing: true,
        receive_buffer: RECEIVE_BUFFER,
        ..Options::default()
    };
    let open = |name: &&str| PacketSocket::open(name, options);
    let mut sockets: Vec<PacketSocket> = names.iter().map(open).collect::<Result<_, _>>()?;
    let file = File::create(&path).doing("creating", &path)?;
    let mut writer =
        PcapngWriter::of_interfaces(BufWriter::new(file), &names).doing("writing", &path)?;
    super::print(&serde_json::json!({ "ready": true }))?;
    let (mut result, mut written) = (CaptureResult::default(), 0);
    let mut buffer = [0; TAG_LEN + SNAP_LEN];
    while !interrupt::requested() {
        wait(&sockets)?;
        for (number, socket) in (0..).zip(&sockets) {
            while let Some((frame, received)) = next(socket, &mut buffer)? {
                let time = SystemTime::now().duration_since(UNIX_EPOCH);
                let full_len = received.full_len + frame.len() - received.len;
                writer
                    .packet(number, time.unwrap_or_default(), frame, full_len)
                    .doing("writing", &path)?;
                result.frames += 1;
                written += BLOCK_LEN + frame.len() as u64;
                if written >= limit {
                    result.full = true;
                    break;
                }
            }
        }
        if result.full {
            // What is not read should not be kept for the reader either.
            sockets.clear();
        }
    }
    writer.finish().doing("writing", &path)?;
    super::print(&result)
}

fn wait(sockets: &[PacketSocket]) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|socket| PollFd::new(socket, PollFlags::IN))
        .collect();
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(WAIT.subsec_nanos()),
    };
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(LabError::Traffic(format!("waiting for frames: {e}"))),
    }
}

/// The beginning of the next frame, with its tag; `None` if there is none now.
fn next<'a>(
    socket: &PacketSocket,
    buffer: &'a mut [u8; TAG_LEN + SNAP_LEN],
) -> Result<Option<(&'a [u8], Received)>> {
    let Some(room) = buffer.get_mut(TAG_LEN..) else {
        return Ok(None);
    };
    let received = match socket.receive(room) {
        Ok(received) => received,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
        Err(e) => return Err(LabError::Traffic(format!("receiving a frame: {e}"))),
    };
    Ok(Some((received.whole(buffer, false), received)))
}
