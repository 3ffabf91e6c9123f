//! The verdict log: one JSON object a line, appended, reopened by name on request (log rotation).

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tollgate_engine::event::{EventKind, VerdictWord};

use crate::config::LogSelection;
use crate::hub::Hub;
use crate::record::Stamped;

/// Readable by the owner and its group: the log names hosts and paths that people asked for.
const MODE: u32 = 0o640;

/// A batch of some hundred lines goes out in one write.
const BUFFER: usize = 64 << 10;

/// The open log file.
#[derive(Debug)]
pub struct VerdictLog {
    path: PathBuf,
    selection: LogSelection,
    file: Option<BufWriter<File>>,
}

impl VerdictLog {
    /// Opens or creates the file. An error here is told to the caller; later ones to the agent's
    /// own log, once each time that writing begins to fail.
    pub fn open(path: &Path, selection: LogSelection) -> std::io::Result<Self> {
        let file = Some(append_to(path)?);
        Ok(Self {
            path: path.to_owned(),
            selection,
            file,
        })
    }

    /// Closes the file and opens what now has its name.
    pub fn reopen(&mut self) {
        self.flush();
        self.try_open();
    }

    /// Appends what is selected of a batch and lets the system have it.
    pub fn write(&mut self, batch: &[Stamped], hub: &Hub) {
        if !batch.iter().any(|stamped| self.selects(stamped)) {
            return;
        }
        if self.file.is_none() {
            self.try_open();
        }
        for stamped in batch {
            if self.selects(stamped)
                && let Err(error) = self.line(stamped, hub)
            {
                self.failed("write to", &error);
                break;
            }
        }
        self.flush();
        hub.set_log_writable(self.file.is_some());
    }

    fn selects(&self, stamped: &Stamped) -> bool {
        let Some(event) = stamped.flow() else {
            return true;
        };
        match (&self.selection, &event.kind) {
            (LogSelection::All, _) => true,
            (LogSelection::Selected, EventKind::Verdict(v)) => {
                v.logged || v.word != VerdictWord::Allowed
            }
            (LogSelection::Selected, EventKind::Closed { .. }) => false,
        }
    }

    fn line(&mut self, stamped: &Stamped, hub: &Hub) -> std::io::Result<()> {
        let Some(file) = self.file.as_mut() else {
            return Ok(());
        };
        serde_json::to_writer(&mut *file, &hub.record(stamped))?;
        file.write_all(b"\n")
    }

    fn flush(&mut self) {
        if let Some(file) = self.file.as_mut()
            && let Err(error) = file.flush()
        {
            self.failed("write to", &error);
        }
    }

    fn try_open(&mut self) {
        match append_to(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.failed("open", &error),
        }
    }

    /// Gives the file up until the next batch; what the buffer holds is lost.
    fn failed(&mut self, what: &str, error: &std::io::Error) {
        if let Some(file) = self.file.take() {
            tracing::error!(path = %self.path.display(), %error, "cannot {what} the verdict log");
            // Dropping a BufWriter would try the same write again.
            let _ = file.into_parts();
        }
    }
}

fn append_to(path: &Path) -> std::io::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)?;
    Ok(BufWriter::with_capacity(BUFFER, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, samples};

    fn lines(path: &Path) -> Vec<Record> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn flows(path: &Path) -> Vec<String> {
        lines(path)
            .into_iter()
            .filter_map(|record| record.flow)
            .collect()
    }

    #[test]
    fn a_rotated_log_goes_on_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("v.jsonl"), dir.path().join("v.jsonl.1"));
        let hub = Hub::for_tests(10);
        let mut log = VerdictLog::open(&path, LogSelection::All).unwrap();
        log.write(&[samples::stamped(VerdictWord::Denied, 1)], &hub);
        std::fs::rename(&path, &rotated).unwrap();
        log.write(&[samples::stamped(VerdictWord::Denied, 2)], &hub);
        log.reopen();
        log.write(&[samples::stamped(VerdictWord::Denied, 3)], &hub);
        assert_eq!(flows(&rotated), ["1-1", "1-2"]);
        assert_eq!(flows(&path), ["1-3"]);
        drop(log);
        let mut log = VerdictLog::open(&path, LogSelection::All).unwrap();
        log.write(&[samples::stamped(VerdictWord::Denied, 4)], &hub);
        assert_eq!(flows(&path), ["1-3", "1-4"], "a restart appends");
    }

    #[test]
    fn the_selection_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.jsonl");
        let hub = Hub::for_tests(10);
        let mut log = VerdictLog::open(&path, LogSelection::Selected).unwrap();
        let mut logged = samples::stamped(VerdictWord::Allowed, 2);
        if let EventKind::Verdict(verdict) = &mut samples::event_of(&mut logged).kind {
            verdict.logged = true;
        }
        let mut closed = samples::stamped(VerdictWord::Allowed, 4);
        samples::event_of(&mut closed).kind = EventKind::Closed {
            bytes_out: 0,
            bytes_in: 0,
            packets_out: 0,
            packets_in: 0,
        };
        let batch = [
            samples::stamped(VerdictWord::Allowed, 1),
            logged,
            samples::stamped(VerdictWord::Audited, 3),
            closed,
        ];
        log.write(&batch, &hub);
        assert_eq!(flows(&path), ["1-2", "1-3"]);
    }

    #[test]
    fn a_log_that_cannot_be_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let path = sub.join("v.jsonl");
        let hub = Hub::for_tests(10);
        let mut log = VerdictLog::open(&path, LogSelection::All).unwrap();
        std::fs::remove_dir_all(&sub).unwrap();
        log.reopen();
        log.write(&[samples::stamped(VerdictWord::Denied, 1)], &hub);
        assert!(!hub.log_writable());
        std::fs::create_dir(&sub).unwrap();
        log.write(&[samples::stamped(VerdictWord::Denied, 2)], &hub);
        assert!(hub.log_writable());
        assert_eq!(flows(&path), ["1-2"]);
    }
}
