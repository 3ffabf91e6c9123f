//! The record of what was, on disk: one JSON document a line, only ever appended to. A line that
//! was cut by a crash is taken off; its change had not been made, because a line is on the disk
//! (`fsync`) before its change is begun.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::repair::RepairError;
use crate::repair::namespace::Mark;
use crate::repair::run::Before;

/// The record's file in its directory.
pub const FILE: &str = "undo.json";
/// The lock's.
const LOCK: &str = "lock";
/// How long another doctor is waited for: as long as the programs that it runs may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(10);

/// Moments between which a doctor may be killed. Tests stop it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The state before the change was read.
    Read,
    /// Half of the record's line is in its file.
    HalfWritten,
    /// The record's line is in its file.
    Written,
    /// It is on the disk.
    Recorded,
    /// A change that takes two parts is half made.
    Halfway,
    /// The change is made.
    Changed,
    /// A change is taken back.
    Restored,
    /// The record says so.
    Marked,
    /// The record is removed.
    Removed,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, in order.
    pub number: u64,
    /// Which start of the machine it belongs to: the next one forgets what the kernel was told.
    pub boot: String,
    /// The namespace; `None` for what is in no namespace.
    pub netns: Option<Mark>,
    /// The interface's index, if it is about one.
    pub ifindex: Option<u32>,
    /// What was to be changed.
    pub action: Action,
    /// What it was.
    pub before: Before,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Entry(Box<Entry>),
    Undone(u64),
}

/// The record, locked.
pub struct Journal {
    dir: PathBuf,
    path: PathBuf,
    file: Option<File>,
    entries: Vec<Entry>,
    next: u64,
    /// Held for as long as this lives.
    lock: File,
}

impl Drop for Journal {
    /// A program that some other thread is just starting may still have the file open.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Journal {
    /// Locks the record of a directory, which is made if it is missing, and reads it.
    pub fn open(dir: &Path) -> Result<Self, RepairError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(RepairError::file("making the directory", dir))?;
        let lock = lock(&dir.join(LOCK))?;
        let mut journal = Self {
            dir: dir.to_owned(),
            path: dir.join(FILE),
            file: None,
            entries: Vec::new(),
            next: 0,
            lock,
        };
        if journal.path.exists() {
            journal.read()?;
        }
        Ok(journal)
    }

    /// What is not taken back yet, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    fn read(&mut self) -> Result<(), RepairError> {
        let mut text = String::new();
        let file = self.file()?;
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut text));
        read.map_err(RepairError::file("reading", &self.path))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (lines, torn) = text.split_at(whole);
        for (i, line) in lines.lines().enumerate() {
            self.take(line).map_err(|error| RepairError::Record {
                path: self.path.clone(),
                line: i + 1,
                why: error.to_string(),
            })?;
        }
        if !torn.is_empty() {
            let path = self.path.clone();
            let file = self.file()?;
            file.set_len(whole as u64)
                .and_then(|()| file.sync_all())
                .map_err(RepairError::file("cutting", &path))?;
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<(), serde_json::Error> {
        match serde_json::from_str(line)? {
            Line::Entry(entry) => {
                self.next = self.next.max(entry.number + 1);
                self.entries.push(*entry);
            }
            Line::Undone(number) => self.entries.retain(|entry| entry.number != number),
        }
        Ok(())
    }

    /// Records what is about to be changed.
    pub fn record(&mut self, entry: Entry, step: &dyn Fn(Step)) -> Result<(), RepairError> {
        self.append(&Line::Entry(Box::new(entry.clone())), step)?;
        self.next = entry.number + 1;
        self.entries.push(entry);
        step(Step::Recorded);
        Ok(())
    }

    /// Records that an entry needs nothing more.
    pub fn mark(&mut self, number: u64, step: &dyn Fn(Step)) -> Result<(), RepairError> {
        self.append(&Line::Undone(number), step)?;
        self.entries.retain(|entry| entry.number != number);
        step(Step::Marked);
        Ok(())
    }

    /// Removes the record if everything is taken back.
    pub fn finish(&mut self, step: &dyn Fn(Step)) -> Result<(), RepairError> {
        if !self.entries.is_empty() || !self.path.exists() {
            return Ok(());
        }
        self.file = None;
        fs::remove_file(&self.path).map_err(RepairError::file("removing", &self.path))?;
        self.sync_dir()?;
        step(Step::Removed);
        Ok(())
    }

    fn append(&mut self, line: &Line, step: &dyn Fn(Step)) -> Result<(), RepairError> {
        let path = self.path.clone();
        let failed = RepairError::file("writing", &path);
        let mut text = match serde_json::to_string(line) {
            Ok(text) => text,
            Err(error) => return Err(failed(error.into())),
        };
        text.push('\n');
        let new = !path.exists();
        let file = self.file()?;
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let written = (|| {
            file.write_all(first)?;
            step(Step::HalfWritten);
            file.write_all(second)?;
            step(Step::Written);
            file.sync_all()
        })();
        written.map_err(failed)?;
        if new {
            self.sync_dir()?;
        }
        Ok(())
    }

    fn file(&mut self) -> Result<&mut File, RepairError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)
                .map_err(RepairError::file("opening", &self.path))?,
        };
        Ok(self.file.insert(file))
    }

    /// A file's name is on the disk only once its directory is.
    fn sync_dir(&self) -> Result<(), RepairError> {
        let dirs = [Some(self.dir.as_path()), self.dir.parent()];
        for dir in dirs
            .into_iter()
            .flatten()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(RepairError::file("syncing", dir))?;
        }
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, RepairError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(RepairError::file("opening", path))?;
    // Programs that a doctor runs inherit the lock: killed in the middle of a change, it leaves one
    // behind that still makes it, and nobody may take the change back before.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())
        .map_err(|error| RepairError::file("locking", path)(error.into()))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => return Err(RepairError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => {
                return Err(RepairError::file("locking", path)(error));
            }
        }
    }
}
