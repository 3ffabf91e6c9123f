//! Suricata as the engine: AF_PACKET in inline copy mode, out of a directory tree of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::path::{ENGINE_PORTS, VLAN};
use crate::error::{IoContext, LabError, Result};
use crate::interrupt;
use crate::lab::{Lab, Place};
use crate::names::API_HOST;
use crate::procs;
use crate::run::{Cmd, kill_group, shorten};

/// Where Debian's package has the program.
const PROGRAM: &str = "usr/bin/suricata";
/// What its log says once every thread captures.
const STARTED: &str = "Engine started";
/// What that of the drop-in says.
const READY: &str = "Notice: ready";
/// How long its start may take, rings included, and ten thousand rules on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long its end may take: it gives up its flows first.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of its log that an error shows.
const SHOWN: usize = 1500;
/// Its counters of frames that it could not send, and of frames that its ring has cut off.
const SEND_ERRORS: &str = "capture.afpacket.send_errors";
const TRUNCATED: &str = "decoder.event.afpacket.trunc_pkt";

/// The drop-in's command socket in its directory, and the number of its only tenant.
const SOCKET: &str = "command.socket";
const TENANT: u32 = 1;
/// How much of a connection it looks at, as Debian's configuration has it. Without these lines it would
/// reassemble every connection to its end.
const STREAM: &str = "stream:\n  memcap: 64mb\n  inline: auto\n  reassembly:\n    \
    {memcap: 256mb, depth: 1mb, toserver-chunk-size: 2560, toclient-chunk-size: 2560, \
    randomize-chunk-size: yes}\n";
/// The same for bodies of HTTP.
const BODIES: &str = "libhtp: {default-config: {personality: IDS, request-body-limit: 100kb, \
    response-body-limit: 100kb, request-body-minimal-inspect-size: 32kb, \
    request-body-inspect-window: 4kb, response-body-minimal-inspect-size: 40kb, \
    response-body-inspect-window: 16kb}}";

/// Who plays Suricata.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// Itself, out of a directory with a system that has it, e.g. of `scripts/suricata-chroot.sh`.
    Chroot(&'a Path),
    /// This `tollgate`, called by its name.
    DropIn(&'a Path),
}

impl Program<'_> {
    fn name(self) -> &'static str {
        match self {
            Program::Chroot(_) => "suricata",
            Program::DropIn(_) => "dropin",
        }
    }

    fn started(self) -> &'static str {
        match self {
            Program::Chroot(_) => STARTED,
            Program::DropIn(_) => READY,
        }
    }

    /// Its directory as it sees it and as the lab sees it, and how it is called.
    fn places(self, lab: &Lab) -> (PathBuf, PathBuf, Cmd) {
        match self {
            Program::Chroot(root) => {
                let inside = PathBuf::from("/run/tollgate-lab").join(&lab.info.name);
                let dir = root.join(inside.strip_prefix("/").unwrap_or(&inside));
                let cmd = Cmd::new("chroot").arg(root).arg("/usr/bin/suricata");
                (inside, dir, cmd)
            }
            Program::DropIn(tollgate) => {
                let dir = lab.names.dir().join("engine").join("dropin");
                (dir.clone(), dir, Cmd::new(tollgate).arg("suricata"))
            }
        }
    }
}

/// A running Suricata; dropping it kills it.
#[derive(Debug)]
pub struct Suricata {
    child: Child,
    dir: PathBuf,
}

/// What Suricata has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuricataCounters {
    /// Frames that it could not send. It does not tell reasons apart; in its log the first of each
    /// port is "Message too long" where super-packets are the matter.
    pub send_errors: u64,
    /// Frames that its capture ring cut off.
    pub truncated: u64,
}

impl Suricata {
    /// Looks whether a directory has what is needed.
    ///
    /// # Errors
    /// [`LabError::Usage`]: it has not.
    pub fn check(root: &Path) -> Result<()> {
        if root.join(PROGRAM).is_file() {
            return Ok(());
        }
        let root = root.display();
        Err(LabError::Usage(format!(
            "{root}: there is no {PROGRAM}; `scripts/suricata-chroot.sh {root}` puts it there"
        )))
    }

    /// Starts it between the engine's ports and waits until it captures. `rules` is the text of its only
    /// file of rules.
    ///
    /// # Errors
    /// It does not start; the error has the end of its log.
    pub fn start(lab: &Lab, program: &Program<'_>, rules: &str) -> Result<Suricata> {
        let (inside, dir, cmd) = program.places(lab);
        fs::create_dir_all(&dir).doing("creating", &dir)?;
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).doing("writing", path)
        };
        put("suricata.yaml", &config(&inside, program))?;
        put("lab.rules", rules)?;
        put("tenant.yaml", &rule_file(&inside))?;
        for old in ["suricata.log", "stats.log", "suricata.pid"] {
            let _ = fs::remove_file(dir.join(old));
        }
        let cmd = cmd
            .args(["--af-packet", "-c"])
            .arg(inside.join("suricata.yaml"))
            .arg("-l")
            .arg(&inside)
            .arg("--pidfile")
            .arg(inside.join("suricata.pid"));
        let said = lab.names.log(program.name());
        let child = lab.at(Place::Node, cmd).spawn(&said)?;
        let mut suricata = Suricata { child, dir };
        suricata.wait_started(program, &said)?;
        if let Program::DropIn(tollgate) = program {
            suricata.register(tollgate)?;
        }
        Ok(suricata)
    }

    /// Gives the drop-in its rules as those of the switch's VLAN, which is how it takes them.
    fn register(&self, tollgate: &Path) -> Result<()> {
        let tenant = self.dir.join("tenant.yaml");
        for line in [
            format!("register-tenant {TENANT} {}", tenant.display()),
            format!("register-tenant-handler {TENANT} vlan {VLAN}"),
        ] {
            let cmd = Cmd::new(tollgate).args(["suricatasc", "-c", &line]);
            cmd.arg(self.dir.join(SOCKET)).run()?;
        }
        Ok(())
    }

    fn wait_started(&mut self, program: &Program<'_>, said: &Path) -> Result<()> {
        let log = self.dir.join("suricata.log");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let text = [&log, said].map(|path| fs::read_to_string(path).unwrap_or_default());
            let text = text.concat();
            if text.contains(program.started()) {
                return Ok(());
            }
            if self.ended() || Instant::now() > deadline {
                let (name, said) = (program.name(), shorten(&text, SHOWN));
                return Err(LabError::NotReady(format!("{name} does not start: {said}")));
            }
            interrupt::sleep(POLL)?;
        }
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Processor seconds, user and system, that all its threads have used so far, and of the drop-in
    /// the engine that it started.
    pub fn cpu_seconds(&self) -> f64 {
        procs::family_cpu_seconds(i32::try_from(self.child.id()).unwrap_or(0))
    }

    /// Stops it; returns what it has counted.
    ///
    /// # Errors
    /// It had ended before, does not end, or has written no counters.
    pub fn stop(mut self) -> Result<SuricataCounters> {
        if self.ended() {
            return Err(LabError::NotReady("Suricata ended too early".into()));
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END_LIMIT;
        while !self.ended() {
            if Instant::now() > deadline {
                return Err(LabError::NotReady("Suricata does not end".into()));
            }
            std::thread::sleep(POLL);
        }
        let path = self.dir.join("stats.log");
        let text = fs::read_to_string(&path).doing("reading", path)?;
        Ok(SuricataCounters {
            send_errors: last(&text, SEND_ERRORS),
            truncated: last(&text, TRUNCATED),
        })
    }
}

impl Drop for Suricata {
    fn drop(&mut self) {
        kill_group(&mut self.child);
        let _ = fs::remove_dir_all(&self.dir);
        if let Some(parent) = self.dir.parent() {
            // Fails, rightly, while another lab uses it.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// The latest value of a counter in its log of them; 0 if it was never counted.
fn last(stats: &str, counter: &str) -> u64 {
    let value = |line: &str| {
        let mut cells = line.split('|').map(str::trim);
        (cells.next()? == counter).then_some(())?;
        cells.nth(1)?.parse().ok()
    };
    stats.lines().filter_map(value).next_back().unwrap_or(0)
}

/// The file of rules, as configurations name it.
fn rule_file(inside: &Path) -> String {
    format!(
        "default-rule-path: {}\nrule-files: [lab.rules]\n",
        inside.display()
    )
}

/// Inline copy mode between the two ports, one entry each way; everything else as Suricata has it.
fn config(inside: &Path, program: &Program<'_>) -> String {
    let rules = match program {
        Program::Chroot(_) => rule_file(inside),
        Program::DropIn(_) => format!(
            "multi-detect: {{enabled: yes, selector: vlan}}\n\
             unix-command: {{enabled: yes, filename: {}}}\n",
            inside.join(SOCKET).display()
        ),
    };
    let [first, second] = ENGINE_PORTS;
    let port = |from: &str, to: &str, cluster: u16| {
        format!(
            "  - interface: {from}\n    threads: auto\n    cluster-id: {cluster}\n    \
             cluster-type: cluster_flow\n    defrag: no\n    use-mmap: yes\n    tpacket-v2: yes\n    \
             checksum-checks: no\n    copy-mode: ips\n    copy-iface: {to}\n"
        )
    };
    format!(
        "%YAML 1.1\n---\nvars:\n  address-groups: {{HOME_NET: any, EXTERNAL_NET: any}}\n\
         stats: {{enabled: yes, interval: 1}}\n\
         logging:\n  default-log-level: notice\n  outputs:\n    \
         - file: {{enabled: yes, level: info, filename: suricata.log}}\n\
         outputs:\n  - stats: {{enabled: yes, filename: stats.log, append: yes, totals: yes, threads: no}}\n\
         af-packet:\n{}{}\
         classification-file: /etc/suricata/classification.config\n\
         reference-config-file: /etc/suricata/reference.config\n\
         {rules}\
         {STREAM}\
         app-layer:\n  protocols:\n    http: {{enabled: yes, {BODIES}}}\n    tls: {{enabled: yes}}\n",
        port(first, second, 80),
        port(second, first, 81),
    )
}

/// The usual pair for a tenant: its host passes, everything else that is established is refused.
pub fn rules() -> String {
    format!(
        "reject ip any any -> any any (msg: \"refused\"; flow: to_server, established; \
         sid: 1;)\n\
         pass http any any -> any any (msg: \"allowed\"; http.host; content:\"{API_HOST}\"; \
         startswith; endswith; sid: 2;)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_latest_counters() {
        let text = "Counter | TM Name | Value\n\
            capture.afpacket.send_errors                  | Total                     | 3\n\
            capture.afpacket.polls                        | Total                     | 9\n\
            capture.afpacket.send_errors                  | Total                     | 17\n";
        assert_eq!(last(text, SEND_ERRORS), 17);
        assert_eq!(last(text, TRUNCATED), 0);
    }

    #[test]
    fn the_configuration_copies_each_port_to_the_other() {
        let text = config(Path::new("/run/x"), &Program::Chroot(Path::new("/")));
        for (from, to) in [("l7-p0", "l7-p1"), ("l7-p1", "l7-p0")] {
            let begin = text.split(&format!("interface: {from}\n")).nth(1).unwrap();
            let own = begin.split("  - interface").next().unwrap();
            assert!(own.contains(&format!("copy-iface: {to}\n")), "{text}");
        }
    }
}
