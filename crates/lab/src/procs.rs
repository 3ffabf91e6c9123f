//! The processes of a lab: recorded when started, ended when the lab goes, never mistaken for
//! another process that got the same id later.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::{IoContext, Result};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two looks at a process that was asked to end.
const POLL: Duration = Duration::from_millis(10);
/// Kernel clock ticks per second in `/proc/PID/stat` (`USER_HZ`, 100 on every Linux port that
/// Rust's standard library supports).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, safe against reuse of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks after boot.
    pub started: u64,
}

/// The fields of `/proc/PID/stat` that the lab reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// State letter; `Z` has ended and waits to be reaped.
    pub state: u8,
    /// Process id of its parent.
    pub parent: i32,
    /// User plus system time of all threads, in clock ticks.
    pub cpu_ticks: u64,
    /// Start time in clock ticks after boot.
    pub started: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`.
    pub fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses its text. The program name, in parentheses, may hold anything, so fields are counted
    /// from the last parenthesis (proc_pid_stat(5): state is 3, ppid 4, utime 14, stime 15, starttime 22).
    pub fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text
            .get(text.rfind(')')? + 1..)?
            .split_whitespace()
            .collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            state: *fields.first()?.as_bytes().first()?,
            parent: i32::try_from(number(4)?).ok()?,
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            started: number(22)?,
        })
    }

    /// User plus system time of all threads, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_ticks as f64 / TICKS_PER_SECOND
    }
}

impl Identity {
    /// The process with this id, if it runs.
    pub fn of(pid: i32) -> Option<Identity> {
        Stat::of(pid).map(|s| Identity {
            pid,
            started: s.started,
        })
    }

    /// Whether it is still the same process, and runs.
    pub fn alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|s| s.started == self.started && s.state != b'Z')
    }

    /// Ends it and its process group: SIGTERM, and SIGKILL after five seconds.
    pub fn end(self) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        if !self.alive() {
            return;
        }
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.alive() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        if self.alive() {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
            while self.alive() && Instant::now() < deadline + GRACE {
                std::thread::sleep(POLL);
            }
        }
    }

    fn parse(text: &str) -> Option<Identity> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Identity {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }
}

/// Records a process under a label in `dir`.
///
/// # Errors
/// The record cannot be written.
pub fn record(dir: &Path, label: &str, pid: i32) -> Result<Option<Identity>> {
    let Some(id) = Identity::of(pid) else {
        return Ok(None);
    };
    let path = dir.join(label);
    fs::write(&path, format!("{} {}\n", id.pid, id.started)).doing("writing", path)?;
    Ok(Some(id))
}

/// Reads one record.
pub fn recorded(dir: &Path, label: &str) -> Option<Identity> {
    Identity::parse(&fs::read_to_string(dir.join(label)).ok()?)
}

/// Forgets one record.
pub fn forget(dir: &Path, label: &str) {
    let _ = fs::remove_file(dir.join(label));
}

/// All records, with their labels, in order of label.
pub fn all_recorded(dir: &Path) -> Vec<(String, Identity)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut all: Vec<_> = names
        .filter_map(|n| recorded(dir, &n).map(|id| (n, id)))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// User plus system time of a process and of its children that run, in seconds.
pub fn family_cpu_seconds(pid: i32) -> f64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|id| Stat::of(id).map(|stat| (id, stat)))
        .filter(|(id, stat)| *id == pid || stat.parent == pid)
        .map(|(_, stat)| stat.cpu_seconds())
        .sum()
}

/// The processes whose network namespace is one of these files': whatever was started inside a lab
/// and not recorded, such as a helper whose parent was killed, or a shell.
pub fn inside(netns_files: &[PathBuf]) -> Vec<Identity> {
    use std::os::linux::fs::MetadataExt;
    let inodes: Vec<(u64, u64)> = netns_files
        .iter()
        .filter_map(|f| fs::metadata(f).ok())
        .map(|m| (m.st_dev(), m.st_ino()))
        .collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|m| inodes.contains(&(m.st_dev(), m.st_ino())))
    })
    .filter_map(Identity::of)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_stat_whatever_the_program_is_called() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 777 1 2 3";
        for name in ["nginx", "a b", "x) Z 9", "("] {
            let stat = Stat::parse(&format!("42 ({name}) {tail}")).unwrap();
            assert_eq!(
                stat,
                Stat {
                    state: b'S',
                    parent: 1,
                    cpu_ticks: 300,
                    started: 777
                },
                "{name}"
            );
            assert!((stat.cpu_seconds() - 3.0).abs() < f64::EPSILON);
        }
        for bad in ["", "42 (x", "42 (x) S 1 2", "42 (x) S a b c"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(
            !Identity {
                started: me.started + 1,
                ..me
            }
            .alive()
        );
    }

    #[test]
    fn records_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let id = record(dir.path(), "self", me).unwrap().unwrap();
        fs::write(dir.path().join("broken"), "x").unwrap();
        assert_eq!(all_recorded(dir.path()), [("self".to_owned(), id)]);
        forget(dir.path(), "self");
        assert_eq!(recorded(dir.path(), "self"), None);
    }

    #[test]
    fn a_family_has_used_what_its_children_have() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let pid = |process: u32| i32::try_from(process).unwrap();
        let used = || Stat::of(pid(child.id())).map_or(0.0, |stat| stat.cpu_seconds());
        let deadline = Instant::now() + Duration::from_secs(30);
        while used() < 0.2 && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let of_child = used();
        let of_family = family_cpu_seconds(pid(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child >= 0.2 && of_family >= of_child, "{of_family}");
    }

    #[test]
    fn ends_a_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        id.end();
        assert!(!id.alive());
        child.wait().unwrap();
    }
}
