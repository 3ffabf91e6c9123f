//! Runs external programs: in a namespace, with a time limit, with errors that say what was run.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{IoContext, LabError, Result};
use crate::interrupt;

/// Time a configuration command may take; all of them normally need milliseconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest and longest pause between two looks at a child. Short, since a bench cuts its time
/// into many short commands; bounded, since a look costs next to nothing.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Bytes of standard error that are worth showing.
const STDERR_SHOWN: usize = 2000;

/// A command line to run, in the style of [`std::process::Command`].
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Cmd {
    /// A command; `program` is looked for on `PATH` unless it has a slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            stdin: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// A command from a line of words without quoting, for fixed command lines.
    pub fn line(line: &str) -> Self {
        let mut words = line.split_whitespace();
        Cmd::new(words.next().unwrap_or_default()).args(words)
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// Bytes for its standard input (otherwise empty).
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Time limit (otherwise 30 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it inside a network namespace and nothing else of another namespace.
    ///
    /// `ip netns exec` would remount `/sys` and hide the pinned eBPF objects; `nsenter` does not,
    /// and replaces itself by the program, so the process id is the program's.
    pub fn in_netns(self, netns: &str) -> Self {
        let mut args: Vec<OsString> = vec![format!("--net={}", netns_path(netns).display()).into()];
        args.push("--".into());
        args.push(self.program);
        args.extend(self.args);
        Cmd {
            program: "nsenter".into(),
            args,
            ..self
        }
    }

    /// Makes it the tail of another command line, e.g. of a wrapper that ends in `exec "$@"`.
    pub fn wrapped_by(self, wrapper: Cmd) -> Self {
        let mut args = wrapper.args;
        args.push(self.program);
        args.extend(self.args);
        Cmd {
            program: wrapper.program,
            args,
            ..self
        }
    }

    /// The command line as shown in errors.
    pub fn display(&self) -> String {
        let mut text = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text
    }

    /// Runs it to its end; a non-zero exit is an error.
    ///
    /// # Errors
    /// See [`LabError`]: not found, failed, too slow, interrupted.
    pub fn run(&self) -> Result<Output> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self.failure(&output))
    }

    /// The error for an output that the caller cannot use.
    pub fn failure(&self, output: &Output) -> LabError {
        let said = if output.stderr.trim().is_empty() {
            &output.stdout
        } else {
            &output.stderr
        };
        LabError::Command {
            command: self.display(),
            status: status_words(output.status),
            stderr: shorten(said.trim(), STDERR_SHOWN),
        }
    }

    /// Runs it to its end, whatever its exit status.
    ///
    /// # Errors
    /// Not found, too slow, interrupted.
    pub fn output(&self) -> Result<Output> {
        interrupt::check()?;
        let stdin = if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut command = self.command();
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn_command(&mut command)?;
        let feeder = child.stdin.take().zip(self.stdin.clone());
        // Ends by itself: a child that does not read gets its pipe closed when it ends.
        let feeding = std::thread::spawn(move || {
            if let Some((mut pipe, bytes)) = feeder {
                let _ = pipe.write_all(&bytes);
            }
        });
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let waited = self.wait(&mut child);
        if waited.is_err() {
            kill_group(&mut child);
        }
        let _ = feeding.join();
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        Ok(Output {
            status: waited?,
            stdout,
            stderr,
        })
    }

    /// Runs a clean-up command, which an interrupt must not stop; true if it succeeded.
    pub fn run_even_if_interrupted(&self) -> bool {
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    }

    /// Starts it in the background with its output going to `log`.
    ///
    /// # Errors
    /// Not found, or the log cannot be made.
    pub fn spawn(&self, log: &Path) -> Result<Child> {
        interrupt::check()?;
        let out = File::create(log).doing("creating", log)?;
        let err = out.try_clone().doing("opening", log)?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        self.spawn_command(&mut command)
    }

    /// Starts it with piped standard output, for helpers that report while they run.
    ///
    /// # Errors
    /// Not found.
    pub fn spawn_piped(&self) -> Result<Child> {
        interrupt::check()?;
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.spawn_command(&mut command)
    }

    /// Runs it with the terminal of this process, for shells; no time limit.
    ///
    /// # Errors
    /// Not found.
    pub fn interactive(&self) -> Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().cloned());
        let mut child = self.spawn_command(&mut command)?;
        child.wait().map_err(|source| LabError::Spawn {
            command: self.display(),
            source,
        })
    }

    /// A process group of its own, so that a Ctrl-C on the terminal reaches this process first and
    /// the children are ended in order.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.envs.iter().cloned())
            .process_group(0);
        command
    }

    fn spawn_command(&self, command: &mut Command) -> Result<Child> {
        tracing::debug!(command = %self.display(), "run");
        command.spawn().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                let program = self.program.to_string_lossy().into_owned();
                let hint = package_hint(&program);
                return LabError::MissingProgram { program, hint };
            }
            LabError::Spawn {
                command: self.display(),
                source,
            }
        })
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let end = Instant::now() + self.timeout;
        let mut pause = POLL.0;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(source) => {
                    return Err(LabError::Spawn {
                        command: self.display(),
                        source,
                    });
                }
            }
            interrupt::check()?;
            if Instant::now() >= end {
                let seconds = self.timeout.as_secs();
                return Err(LabError::Timeout {
                    command: self.display(),
                    seconds,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL.1);
        }
    }
}

/// The file that names a network namespace.
pub(crate) fn netns_path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Kills a child and what it started in its process group, and reaps it.
pub(crate) fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

type Drain = Option<std::thread::JoinHandle<Vec<u8>>>;

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> Drain {
    pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn collect(drain: Drain) -> String {
    let bytes = drain.and_then(|d| d.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// At most `limit` bytes of a text, cut at a character.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

fn package_hint(program: &str) -> &'static str {
    match program {
        "ip" | "ss" => "on Debian: apt-get install iproute2",
        "nft" => "on Debian: apt-get install nftables",
        "ethtool" => "on Debian: apt-get install ethtool",
        "nginx" => "on Debian: apt-get install nginx-light",
        "haproxy" => "on Debian: apt-get install haproxy",
        "wrk" => "on Debian: apt-get install wrk",
        "curl" => "on Debian: apt-get install curl",
        "openssl" => "on Debian: apt-get install openssl",
        "nsenter" | "unshare" => "on Debian: apt-get install util-linux",
        "sysctl" => "on Debian: apt-get install procps",
        _ => "install it or check PATH",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_run_and_why_it_failed() {
        let error = Cmd::new("sh")
            .args(["-c", "echo broken >&2; exit 3"])
            .run()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c echo broken >&2; exit 3` failed (exit 3): broken"
        );
    }

    #[test]
    fn names_the_package_of_a_missing_program() {
        assert!(package_hint("nft").contains("nftables"));
        let error = Cmd::new("tollgate-no-such-program").run().unwrap_err();
        assert!(matches!(error, LabError::MissingProgram { .. }), "{error}");
    }

    #[test]
    fn kills_what_takes_too_long_with_its_children() {
        let command = Cmd::new("sh").args(["-c", "sleep 60 & sleep 60"]);
        let error = command
            .timeout(Duration::from_millis(100))
            .run()
            .unwrap_err();
        assert!(matches!(error, LabError::Timeout { .. }), "{error}");
    }

    #[test]
    fn passes_standard_input() {
        let output = Cmd::new("cat").stdin("hello").run().unwrap();
        assert_eq!(output.stdout, "hello");
    }

    #[test]
    fn enters_a_namespace_without_remounting_sys() {
        let shown = Cmd::line("ip link").in_netns("tg-x-pod").display();
        assert_eq!(shown, "nsenter --net=/run/netns/tg-x-pod -- ip link");
    }

    #[test]
    fn shortens_at_characters() {
        assert_eq!(shorten("äöü", 3), "ä...");
        assert_eq!(shorten("abc", 3), "abc");
    }
}
