//! The agent's part: a container with Suricata's files, the engine's start, and tenants by commands.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_lab::run::{Cmd, Output};

use crate::bed::{Bed, Place, until};
use crate::pipeline::Match;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Where the engine's logs go.
pub const LOG_DIR: &str = "/var/log/antrea/networkpolicy/l7engine";
const CONFIG: &str = "/etc/suricata/suricata.yaml";
pub const SOCKET: &str = "/var/run/suricata/suricata-command.socket";

/// The base configuration, as it is shipped; the agent adds a line to it.
const SHIPPED: &str = include_str!("../../../../packaging/antrea/suricata.yaml");

/// What the agent adds, but for the order of keys that nobody reads.
const ADDED: &str = include_str!("../shared/antrea-added.yaml");

/// Rules come by tenants.
const BY_TENANTS: &str = include_str!("../shared/antrea-tenants.yaml");

/// The file with the rules of all VLANs.
pub const ALL_RULES: &str = "/etc/suricata/rules/antrea-l7.rules";

/// The container's own file systems: `/etc` with changes of its own, and nothing in `/run` and
/// `/var/log`. The switch's database is where it is mounted in the agent's container.
const CONTAINER: &str = "set -e
mkdir $1/container; mount -t tmpfs none $1/container; mkdir $1/container/upper $1/container/work
mount -t overlay none -o lowerdir=/etc,upperdir=$1/container/upper,workdir=$1/container/work /etc
mount -t tmpfs none /run; mount -t tmpfs none /var/log
mkdir -p /run/openvswitch /run/suricata /etc/suricata/rules
ln -s $1/db.sock /run/openvswitch/db.sock
echo ready
exec sleep infinity";

/// What an item of `l7Protocols` says; patterns may begin and end with a star.
#[derive(Clone, Copy, Default)]
pub struct Http {
    pub host: &'static str,
    pub method: &'static str,
    pub path: &'static str,
}

/// An item of `l7Protocols`.
#[derive(Clone, Copy)]
pub enum L7 {
    Http(Http),
    Tls(&'static str),
}

/// The node's agent and its engine.
pub struct Agent {
    bed: Bed,
    container: u32,
}

impl std::ops::Deref for Agent {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl std::ops::DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Bed {
        &mut self.bed
    }
}

/// What the agent adds, with how rules come.
fn added(rules: &str) -> String {
    let ports = ADDED
        .replace("PORT0", "antrea-l7-tap0")
        .replace("PORT1", "antrea-l7-tap1");
    ports + rules
}

impl Agent {
    /// A node with an agent that has not started the engine.
    pub fn new(mut bed: Bed) -> Self {
        let dir = bed.path("");
        let cmd = Cmd::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "bash",
                "-c",
                CONTAINER,
                "bash",
            ])
            .arg(dir.to_str().unwrap().trim_end_matches('/'));
        let container = bed.start(Place::Node, cmd, "container.log");
        bed.logged("container.log", "ready");
        let bin = bed.path("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["suricata", "suricatasc"] {
            std::os::unix::fs::symlink(TOLLGATE, bin.join(name)).unwrap();
        }
        let agent = Self { bed, container };
        agent.write(CONFIG, SHIPPED);
        agent
    }

    /// A node with a running engine.
    pub fn started(bed: Bed) -> Self {
        let agent = Self::new(bed);
        agent.start_engine();
        agent
    }

    /// A command in the container.
    pub fn inside(&self, cmd: Cmd) -> Cmd {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.path("bin");
        let enter = Cmd::new("nsenter").arg(format!("--mount=/proc/{}/ns/mnt", self.container));
        let cmd = cmd.wrapped_by(enter.arg("--"));
        let cmd = cmd.in_netns(&self.netns(Place::Node));
        cmd.env("PATH", format!("{}:{path}", bin.display()))
    }

    /// Runs a shell line in the container, whatever comes of it.
    pub fn contained(&self, line: &str) -> Output {
        self.inside(Cmd::new("bash").args(["-c", line]))
            .output()
            .unwrap()
    }

    /// Writes a file in the container.
    pub fn write(&self, path: &str, text: &str) {
        let cmd = Cmd::new("tee").arg(path).stdin(text);
        self.inside(cmd).run().unwrap();
    }

    /// Reads a file in the container; empty if there is none.
    pub fn read(&self, path: &str) -> String {
        self.contained(&format!("cat {path} 2>/dev/null")).stdout
    }

    /// As at the first layer-7 rule after the agent's start: configuration, logs, the engine, its
    /// socket.
    pub fn start_engine(&self) {
        self.start_engine_with(&added(BY_TENANTS));
    }

    /// The same without tenants: one file has the rules of all VLANs.
    pub fn start_engine_with_one_file(&self) {
        self.write(ALL_RULES, "");
        self.start_engine_with(&added(&format!("rule-files:\n  - {ALL_RULES}\n")));
    }

    fn start_engine_with(&self, added: &str) {
        self.write("/etc/suricata/antrea.yaml", added);
        let include = format!("echo 'include: /etc/suricata/antrea.yaml' >>{CONFIG}");
        assert!(self.contained(&include).status.success());
        self.contained(&format!("mkdir -p {LOG_DIR}"));
        let start = format!("suricata -c {CONFIG} --af-packet -D -l {LOG_DIR}");
        let output = self.contained(&start);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.status.success(), "{said}\n{}", self.engine_log());
        // The agent waits five seconds for it.
        until("the socket is there", || {
            let there = self.contained(&format!("test -S {SOCKET}"));
            there.status.success().then_some(())
        });
    }

    pub fn engine_log(&self) -> String {
        self.read(&format!("{LOG_DIR}/*.log"))
    }

    /// Asks the engine as the agent does: what is printed, on whatever stream, is one object.
    pub fn ask(&self, command: &str) -> (bool, Value) {
        let output = self.contained(&format!("suricatasc -c '{command}' 2>&1"));
        let reply = serde_json::from_str(&output.stdout);
        let reply: Value = reply.unwrap_or_else(|e| panic!("{command}: {e}: {}", output.stdout));
        let is_ok = reply["return"] == "OK";
        assert_eq!(output.status.success(), is_ok, "{command}: {reply}");
        (is_ok, reply["message"].clone())
    }

    /// The same; it must be taken, with a text as message.
    pub fn command(&self, command: &str) -> String {
        let (is_ok, message) = self.ask(command);
        assert!(is_ok, "{command}: {message}\n{}", self.engine_log());
        message.as_str().expect("the message is a text").to_owned()
    }

    /// A rule's tenant, new or known, and nothing else.
    pub fn put_tenant(&self, vlan: u16, policy: &str, items: &[L7]) {
        self.write(&rules_path(vlan), &rules_text(policy, items));
        let tenant = tenant_path(vlan);
        if self
            .contained(&format!("test -e {tenant}"))
            .status
            .success()
        {
            self.command(&format!("reload-tenant {vlan} {tenant}"));
            return;
        }
        let text = format!(
            "%YAML 1.1\n\n---\ndefault-rule-path: /etc/suricata/rules\nrule-files:\n  - {}\n",
            rules_path(vlan)
        );
        self.write(&tenant, &text);
        self.command(&format!("register-tenant {vlan} {tenant}"));
        self.command(&format!("register-tenant-handler {vlan} vlan {vlan}"));
    }

    /// A rule: its tenant first, its flows then.
    pub fn add_l7(&self, rule: &Match, vlan: u16, policy: &str, items: &[L7]) {
        self.put_tenant(vlan, policy, items);
        self.add_rule(rule, vlan, u32::from(vlan) + 100);
    }

    /// Takes a rule away: its flows first, its tenant then.
    pub fn delete_l7(&self, rule: &Match, vlan: u16) {
        self.delete_rule(rule);
        self.delete_tenant(vlan);
    }

    /// Takes a rule's tenant away.
    pub fn delete_tenant(&self, vlan: u16) {
        self.command(&format!("unregister-tenant-handler {vlan} vlan {vlan}"));
        self.command(&format!("unregister-tenant {vlan}"));
        let files = format!("rm {} {}", tenant_path(vlan), rules_path(vlan));
        assert!(self.contained(&files).status.success());
    }

    /// The event log of today.
    pub fn events(&self) -> Vec<Value> {
        let text = self.read(&format!("{LOG_DIR}/eve-*.json"));
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    /// Mounts the directory of the engine's socket into another root; where the socket is there.
    pub fn mount_socket(&self, root: &Path) {
        let line = format!(
            "mkdir -p {0}/run/suricata && mount --bind /run/suricata {0}/run/suricata",
            root.display()
        );
        let output = self.contained(&line);
        assert!(output.status.success(), "{}", output.stderr);
    }

    /// Processes of the container, but for that which holds it.
    pub fn engine_processes(&self) -> Vec<u32> {
        let holder = self.container;
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(holder);
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != holder && own.is_some() && namespace(*pid) == own)
            .collect()
    }

    /// Ends processes at once, and waits until they are gone.
    pub fn kill(&self, pids: &[u32]) {
        for pid in pids {
            let _ = Cmd::line(&format!("kill -9 {pid}")).output();
        }
        until("the processes are gone", || {
            let gone = |pid: &u32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            };
            pids.iter().all(gone).then_some(())
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the engine's log:\n{}", self.engine_log());
            eprintln!(
                "its last events:\n{}",
                self.read(&format!("{LOG_DIR}/eve-*.json"))
            );
        }
        let pids = self.engine_processes();
        for pid in pids {
            let _ = Cmd::line(&format!("kill -9 {pid}")).output();
        }
    }
}

fn rules_path(vlan: u16) -> String {
    format!("/etc/suricata/rules/antrea-l7-networkpolicy-{vlan}.rules")
}

pub fn tenant_path(vlan: u16) -> String {
    format!("/etc/suricata/antrea-tenant-{vlan}.yaml")
}

/// A rule file as the agent writes it.
fn rules_text(policy: &str, items: &[L7]) -> String {
    let mut text = format!(
        "reject ip any any -> any any (msg: \"Reject by {policy}\"; flow: to_server, established; \
         sid: 1;)\n"
    );
    for (sid, item) in (2..).zip(items) {
        let (protocol, keywords) = match item {
            L7::Http(http) => ("http", http_keywords(http)),
            L7::Tls("") => ("tls", String::new()),
            L7::Tls(sni) => ("tls", format!(" tls.sni; {}", content(sni))),
        };
        text.push_str(&format!(
            "pass {protocol} any any -> any any (msg: \"Allow {protocol} by {policy}\";{keywords} \
             sid: {sid};)\n"
        ));
    }
    text
}

fn http_keywords(http: &Http) -> String {
    let mut keywords = String::new();
    if !http.path.is_empty() {
        keywords.push_str(&format!(" http.uri; {}", content(http.path)));
    }
    if !http.method.is_empty() {
        keywords.push_str(&format!(" http.method; content:\"{}\";", http.method));
    }
    if !http.host.is_empty() {
        keywords.push_str(&format!(" http.host; {}", content(http.host)));
    }
    keywords
}

/// A pattern as Suricata's content.
fn content(pattern: &str) -> String {
    let text = pattern.strip_prefix('*').unwrap_or(pattern);
    let starts = text.len() == pattern.len();
    let inner = text.strip_suffix('*').unwrap_or(text);
    let ends = inner.len() == text.len();
    format!(
        "content:\"{inner}\";{}{}",
        if starts { " startswith;" } else { "" },
        if ends { " endswith;" } else { "" }
    )
}

/// The root of a Debian with Suricata, if there is one for tests.
pub fn suricata_root() -> Option<PathBuf> {
    let root = std::env::var_os("TOLLGATE_SURICATA_ROOT").map(PathBuf::from)?;
    let has = |name: &str| Path::new(&root).join(name).exists();
    assert!(
        has("usr/bin/suricatasc"),
        "TOLLGATE_SURICATA_ROOT: no Suricata in {}; scripts/suricata-chroot.sh puts it there",
        root.display()
    );
    Some(root)
}
