//! The daemon in an engine's place, started and asked as its user does it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tollgate_lab::blind::{ENGINE_PORTS, EngineBed, VLAN};
use tollgate_lab::lab::{Lab, Outside, Place, UpOptions};
use tollgate_lab::run::Cmd;

use crate::TOLLGATE;

/// The file that the image has.
const SHIPPED: &str = include_str!("../../../../packaging/antrea/suricata.yaml");

/// Longer than anything here takes; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent adds to the configuration, word for word but for the ports' names.
const ADDED: &str = concat!(
    include_str!("../shared/antrea-added.yaml"),
    include_str!("../shared/antrea-tenants.yaml"),
);

/// A daemon that has been told nothing yet, in a lab or elsewhere. Everything goes when it goes.
pub struct Daemon {
    bed: Option<EngineBed>,
    netns: String,
    pub dir: TempDir,
}

impl Daemon {
    /// Makes the lab and starts the daemon; `own` is added to its configuration.
    pub fn start(lab: &str, own: &str) -> Daemon {
        Self::towards(Outside::Veth, lab, own)
    }

    /// The same with another kind of outside.
    pub fn towards(outside: Outside, lab: &str, own: &str) -> Daemon {
        let options = UpOptions {
            name: lab.to_owned(),
            outside,
            big_bytes: 64 << 20,
            ..UpOptions::default()
        };
        let bed = EngineBed::up(TOLLGATE.as_ref(), &options).unwrap();
        let netns = bed.lab.names.node.clone();
        Self::run(Some(bed), netns, ENGINE_PORTS, own)
    }

    /// Starts the daemon between two ports of a namespace.
    pub fn between(netns: &str, ports: [&str; 2], own: &str) -> Daemon {
        Self::run(None, netns.to_owned(), ports, own)
    }

    fn run(bed: Option<EngineBed>, netns: String, ports: [&str; 2], own: &str) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        for name in ["suricata", "suricatasc"] {
            symlink(TOLLGATE, dir.path().join(name)).unwrap();
        }
        let daemon = Daemon { bed, netns, dir };
        daemon.write_config(ports, own);
        let output = daemon.run_suricata(&["-D"]);
        assert!(output.status.success(), "{output:?}");
        daemon
    }

    /// The lab that it is in.
    pub fn lab(&self) -> &Lab {
        &self.bed.as_ref().unwrap().lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/suricata-command.socket")
    }

    fn write_config(&self, ports: [&str; 2], own: &str) {
        let added = ADDED.replace("PORT0", ports[0]).replace("PORT1", ports[1]);
        fs::write(self.path("antrea.yaml"), added).unwrap();
        // The agent appends the line again whenever it tries again.
        let base = format!(
            "{SHIPPED}\nvars:\n  address-groups:\n    HOME_NET: \"[10.0.0.0/8]\"\n\
             outputs:\n  - fast:\n      enabled: yes\nstats:\n  enabled: yes\n\
             unix-command:\n  enabled: auto\n  filename: {}\n{own}\
             include: {added}\ninclude: {added}\n",
            self.socket().display(),
            added = self.path("antrea.yaml").display(),
        );
        fs::write(self.path("suricata.yaml"), base).unwrap();
    }

    /// Runs `suricata` as the agent does, in the node's namespace.
    pub fn run_suricata(&self, more: &[&str]) -> Output {
        let cmd = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(self.path("suricata"))
            .env("OVS_RUNDIR", self.path("ovs"))
            .arg("-c")
            .arg(self.path("suricata.yaml"))
            .args(["--af-packet", "-l"])
            .arg(self.path("log"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(more)
            .output();
        cmd.unwrap()
    }

    /// `suricatasc -c LINE`: exit code and what it printed, on both streams together.
    pub fn ask(&self, line: &str) -> (i32, Value) {
        let output = Command::new(self.path("suricatasc"))
            .args(["-c", line])
            .arg(self.socket())
            .output()
            .unwrap();
        let both = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(both).unwrap();
        let answer = serde_json::from_str(&text);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {text}"));
        (output.status.code().unwrap(), answer)
    }

    /// Expects `OK`, with these words.
    pub fn ok(&self, line: &str, words: &str) {
        let (code, answer) = self.ask(line);
        assert_eq!(answer["return"], "OK", "{line}: {answer}");
        assert_eq!(answer["message"], words, "{line}");
        assert_eq!(code, 0);
    }

    /// Expects `NOK`, with words that begin so.
    pub fn nok(&self, line: &str, words: &str) {
        let (code, answer) = self.ask(line);
        assert_eq!(answer["return"], "NOK", "{line}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(words), "{line}: {message}");
        assert_eq!(code, 1);
    }

    /// Writes a tenant's files as the agent does; the path of its configuration.
    pub fn write_tenant(&self, id: u16, rules: &[&str]) -> String {
        let reject = format!(
            "reject ip any any -> any any (msg: \"Reject by AntreaNetworkPolicy:ns/p{id}\"; \
             flow: to_server, established; sid: 1;)"
        );
        let mut text = reject + "\n";
        for (number, rule) in rules.iter().enumerate() {
            let (protocol, keywords) = rule.split_once(' ').unwrap_or((rule, ""));
            text += &format!(
                "pass {protocol} any any -> any any (msg: \"Allow {protocol} by \
                 AntreaNetworkPolicy:ns/p{id}\"; {keywords} sid: {};)\n",
                number + 2
            );
        }
        let file = self.path(&format!("antrea-l7-networkpolicy-{id}.rules"));
        fs::write(&file, text).unwrap();
        let yaml = self.path(&format!("antrea-tenant-{id}.yaml"));
        let text = format!(
            "%YAML 1.1\n\n---\ndefault-rule-path: {}\nrule-files:\n  - {}\n",
            self.dir.path().display(),
            file.display()
        );
        fs::write(&yaml, text).unwrap();
        yaml.display().to_string()
    }

    /// Registers a tenant of the lab's VLAN.
    pub fn register(&self, id: u16, rules: &[&str]) {
        let yaml = self.write_tenant(id, rules);
        let line = format!("register-tenant {id} {yaml}");
        self.ok(&line, "adding tenant succeeded");
        let line = format!("register-tenant-handler {id} vlan {VLAN}");
        self.ok(&line, "handler added");
    }

    /// curl in the pod; its output, or its exit code if it fails.
    pub fn curl(&self, args: &[&str]) -> Result<String, i32> {
        let lab = self.lab();
        let cmd = Cmd::new("curl")
            .args(["-sS", "-q", "--noproxy", "*", "--cacert"])
            .arg(lab.names.ca())
            .args(["--connect-timeout", "5", "--max-time", "60"])
            .args(args)
            .timeout(Duration::from_secs(90));
        let output = lab.at(Place::Pod, cmd).output().unwrap();
        match output.status.code() {
            Some(0) => Ok(output.stdout),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// All counters of the daemon.
    pub fn counters(&self) -> Value {
        let (_, answer) = self.ask("dump-counters");
        answer["message"].clone()
    }

    /// Today's event log.
    pub fn eve(&self) -> PathBuf {
        let now = Command::new("date").arg("+%Y-%m-%d").output().unwrap();
        let day = String::from_utf8(now.stdout).unwrap();
        self.path(&format!("log/eve-{}.json", day.trim()))
    }

    /// Its events of TCP; the pod's kernel speaks of multicast groups now and then.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.eve()).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["proto"] == "TCP")
            .collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log/suricata.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let Ok(pid) = fs::read_to_string(self.path("pid")) else {
            return;
        };
        let _ = Command::new("kill").arg(pid.trim()).status();
        let end = Instant::now() + PATIENCE;
        while self.path("pid").exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
