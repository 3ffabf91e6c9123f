//! The thread that writes events, so that no packet waits for a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::Kind;
use crate::config::{EveOutput, Sink};
use crate::counters::Counters;
use crate::log;

/// Events that may wait for the writer; one more is lost and counted.
const QUEUE: usize = 4096;
/// Events written at once at most.
const BATCH: usize = 256;
/// How often it is looked whether a file is still where it should be, and whether its name is due for
/// a change.
const LOOK: Duration = Duration::from_secs(1);
/// Pause between two tries to reach whoever listens on a socket.
const RECONNECT: Duration = Duration::from_secs(1);
/// What Suricata gives its logs.
const MODE: u32 = 0o644;

/// An event log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("opening event log {path}: {source}")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

struct Line {
    kind: Kind,
    text: String,
}

/// Where packet threads put their events.
#[derive(Clone)]
pub struct EventLog {
    sender: SyncSender<Line>,
    counters: Arc<Counters>,
    wanted: [bool; 3],
    packet: bool,
}

impl EventLog {
    /// Opens all outputs and starts the thread.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn start(outputs: &[EveOutput], counters: &Arc<Counters>) -> Result<Self, LogError> {
        let opened: Result<Vec<_>, _> = outputs.iter().map(Output::open).collect();
        let mut writer = Writer {
            outputs: opened?,
            counters: Arc::clone(counters),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let spawned = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || writer.run(&receiver));
        spawned.map_err(|source| LogError {
            path: PathBuf::new(),
            source,
        })?;
        Ok(Self {
            sender,
            counters: Arc::clone(counters),
            wanted: [Kind::Alert, Kind::Http, Kind::Tls]
                .map(|kind| outputs.iter().any(|output| wants(output, kind))),
            packet: outputs.iter().any(|output| output.alert && output.packet),
        })
    }

    /// Whether anybody wants such events.
    pub fn wants(&self, kind: Kind) -> bool {
        let [alert, http, tls] = self.wanted;
        match kind {
            Kind::Alert => alert,
            Kind::Http => http,
            Kind::Tls => tls,
        }
    }

    /// Whether alerts show their packet.
    pub fn wants_packets(&self) -> bool {
        self.packet
    }

    /// Hands an event over; never waits.
    pub fn put(&self, kind: Kind, event: Map<String, Value>) {
        let text = Value::Object(event).to_string();
        if self.sender.try_send(Line { kind, text }).is_err() {
            self.counters.events_lost.inc();
        }
    }
}

fn wants(output: &EveOutput, kind: Kind) -> bool {
    match kind {
        Kind::Alert => output.alert,
        Kind::Http => output.http,
        Kind::Tls => output.tls,
    }
}

struct Writer {
    outputs: Vec<Output>,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(&mut self, lines: &Receiver<Line>) {
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(first) => {
                    let more = std::iter::from_fn(|| lines.try_recv().ok()).take(BATCH);
                    let batch: Vec<_> = std::iter::once(first).chain(more).collect();
                    self.write(&batch);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.outputs.iter_mut().for_each(Output::look);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, batch: &[Line]) {
        for output in &mut self.outputs {
            let mut text = String::new();
            let mut count = 0;
            for line in batch.iter().filter(|line| wants(&output.what, line.kind)) {
                text.push_str(&line.text);
                text.push('\n');
                count += 1;
            }
            if count == 0 {
                continue;
            }
            match output.write(text.as_bytes()) {
                Ok(()) => self.counters.events.add(count),
                Err(_) => self.counters.events_lost.add(count),
            }
        }
    }
}

/// One output, open.
struct Output {
    what: EveOutput,
    looked: Instant,
    target: Target,
}

enum Target {
    File {
        path: PathBuf,
        file: Option<File>,
        failing: bool,
    },
    Stream {
        stream: Option<UnixStream>,
        tried: Option<Instant>,
    },
}

impl Output {
    fn open(what: &EveOutput) -> Result<Self, LogError> {
        let target = match &what.sink {
            Sink::File(pattern) => {
                let path = named(pattern);
                let file = append(&path);
                let file = file.map_err(|source| LogError {
                    path: path.clone(),
                    source,
                })?;
                Target::File {
                    path,
                    file: Some(file),
                    failing: false,
                }
            }
            Sink::Stream(_) => Target::Stream {
                stream: None,
                tried: None,
            },
        };
        let mut output = Self {
            what: what.clone(),
            looked: Instant::now(),
            target,
        };
        output.connect();
        Ok(output)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look();
        }
        match &mut self.target {
            Target::File { file, .. } => {
                let file = file.as_mut().ok_or(io::ErrorKind::NotFound)?;
                // The end is found anew with every write: whoever cuts the file off is no trouble.
                file.write_all(text)
            }
            Target::Stream { stream, .. } => {
                let Some(open) = stream else {
                    return Err(io::ErrorKind::NotConnected.into());
                };
                match open.write_all(text) {
                    Ok(()) => Ok(()),
                    // Half a line may be out: the reader starts afresh.
                    Err(error) => {
                        *stream = None;
                        Err(error)
                    }
                }
            }
        }
    }

    /// Opens what is closed, gone, or due for another name.
    fn look(&mut self) {
        self.looked = Instant::now();
        self.connect();
        let (
            Sink::File(pattern),
            Target::File {
                path,
                file,
                failing,
            },
        ) = (&self.what.sink, &mut self.target)
        else {
            return;
        };
        let due = named(pattern);
        let is_there = file.as_ref().is_some_and(|file| is_at(file, &due));
        if is_there {
            return;
        }
        match append(&due) {
            Ok(new) => {
                *file = Some(new);
                *path = due;
                *failing = false;
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    log::error(format_args!("opening event log {}: {error}", due.display()));
                }
            }
        }
    }

    fn connect(&mut self) {
        let (Sink::Stream(path), Target::Stream { stream, tried }) =
            (&self.what.sink, &mut self.target)
        else {
            return;
        };
        let is_time = tried.is_none_or(|tried| tried.elapsed() >= RECONNECT);
        if stream.is_some() || !is_time {
            return;
        }
        *tried = Some(Instant::now());
        // Nobody listens yet, or any more: it is tried again.
        let connected = UnixStream::connect(path).and_then(|stream| {
            // A reader that does not read loses events rather than hold up the other outputs.
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        *stream = connected.ok();
    }
}

/// A file's name at this time.
fn named(pattern: &Path) -> PathBuf {
    let Some(name) = pattern.file_name().and_then(|name| name.to_str()) else {
        return pattern.to_owned();
    };
    let now = jiff::Zoned::now();
    match jiff::fmt::strtime::format(name, &now) {
        Ok(name) => pattern.with_file_name(name),
        Err(_) => pattern.to_owned(),
    }
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).open(path)
}

/// Whether a path leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    fn output(sink: Sink) -> EveOutput {
        EveOutput {
            sink,
            alert: true,
            packet: false,
            http: true,
            tls: false,
        }
    }

    fn event(number: u64) -> Map<String, Value> {
        let value = json!({ "number": number });
        value.as_object().cloned().unwrap_or_default()
    }

    /// Waits until a file has that many lines.
    fn lines(path: &Path, count: usize) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let text = fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count || Instant::now() > end {
                return text.lines().map(str::to_owned).collect();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_file_is_there_from_the_start_and_survives_what_others_do_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let today = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
        let path = dir.path().join(format!("eve-{today}.json"));
        let counters = Arc::new(Counters::default());
        let sink = Sink::File(dir.path().join("eve-%Y-%m-%d.json"));
        let log = EventLog::start(&[output(sink)], &counters).unwrap();
        assert!(path.exists());
        log.put(Kind::Alert, event(1));
        log.put(Kind::Tls, event(2));
        log.put(Kind::Http, event(3));
        assert_eq!(lines(&path, 2), [r#"{"number":1}"#, r#"{"number":3}"#]);
        // Cut off by somebody: the next line is the first, without a hole.
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        log.put(Kind::Http, event(4));
        assert_eq!(lines(&path, 1), [r#"{"number":4}"#]);
        // Moved away by somebody: a new one is made.
        fs::rename(&path, dir.path().join("old")).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !path.exists() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        log.put(Kind::Http, event(5));
        assert_eq!(lines(&path, 1), [r#"{"number":5}"#]);
        assert_eq!(counters.events.get(), 4);
    }

    #[test]
    fn a_name_that_is_due_for_a_change_changes() {
        let dir = tempfile::tempdir().unwrap();
        // By the second, since nobody waits for midnight.
        let sink = Sink::File(dir.path().join("eve-%S.json"));
        let log = EventLog::start(&[output(sink)], &Arc::default()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let mut number = 0;
        loop {
            number += 1;
            log.put(Kind::Http, event(number));
            let files = fs::read_dir(dir.path()).unwrap().flatten();
            let texts: Vec<_> = files
                .map(|file| fs::read_to_string(file.path()).unwrap())
                .filter(|text| !text.is_empty())
                .collect();
            if texts.len() >= 2 {
                break;
            }
            assert!(Instant::now() < end, "{texts:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn a_listener_may_come_late_and_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let counters = Arc::new(Counters::default());
        let log = EventLog::start(&[output(Sink::Stream(path.clone()))], &counters).unwrap();
        log.put(Kind::Http, event(1));
        for round in 0..2 {
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            // The first round's connection is found broken by writing to it.
            listener.set_nonblocking(true).unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            let stream = loop {
                log.put(Kind::Http, event(2));
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
                assert!(Instant::now() < end, "round {round}");
            };
            stream.set_nonblocking(false).unwrap();
            log.put(Kind::Http, event(3));
            let found = BufReader::new(stream)
                .lines()
                .map_while(Result::ok)
                .any(|line| line == r#"{"number":3}"#);
            assert!(found);
        }
        assert!(counters.events_lost.get() > 0);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_said() {
        let sink = Sink::File("/proc/none/eve.json".into());
        let error = EventLog::start(&[output(sink)], &Arc::default());
        let error = error.err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("/proc/none/eve.json")));
    }
}
