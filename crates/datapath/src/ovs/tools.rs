//! The programs of Open vSwitch, run with a time limit.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::OvsError;

/// Where `ovs-vswitchd` and `ovsdb-server` have their sockets unless they were told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/var/run/openvswitch";

/// Seconds that a program may wait for the switch. Its answers take milliseconds; a switch that is being
/// restarted must not hold the control plane up.
const TIMEOUT: &str = "--timeout=5";

/// What the bridge may speak: bundles need 1.3, and some controllers allow only one of these.
const VERSIONS: &str = "OpenFlow13,OpenFlow14,OpenFlow15";

/// Bytes of a program's complaint that are worth showing.
const COMPLAINT: usize = 400;

/// Runs the programs towards one switch.
#[derive(Clone, Debug)]
pub struct Tools {
    run_dir: PathBuf,
    bridge: String,
}

impl Tools {
    /// For a bridge of the switch whose sockets lie in `run_dir`.
    pub fn new(run_dir: &Path, bridge: &str) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            bridge: bridge.to_owned(),
        }
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The bridge's OpenFlow socket.
    pub fn openflow_socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.mgmt", self.bridge))
    }

    /// `ovs-vsctl` with these arguments; what it printed.
    pub fn vsctl(&self, args: &[&str]) -> Result<String, OvsError> {
        let db = format!("--db=unix:{}", self.run_dir.join("db.sock").display());
        let mut all = vec![TIMEOUT, db.as_str()];
        all.extend(args);
        self.run("ovs-vsctl", &all, "")
    }

    /// Changes flows in one step: lines as `ovs-ofctl add-flows` reads them.
    pub fn change_flows(&self, script: &str) -> Result<(), OvsError> {
        let target = self.target();
        let args = [
            TIMEOUT,
            "-O",
            VERSIONS,
            "--bundle",
            "add-flows",
            &target,
            "-",
        ];
        self.run("ovs-ofctl", &args, script).map(drop)
    }

    /// The flows that match, a line each, without what changes by itself.
    pub fn flows(&self, matches: &str) -> Result<Vec<String>, OvsError> {
        let target = self.target();
        let args = [
            TIMEOUT,
            "-O",
            VERSIONS,
            "--no-stats",
            "dump-flows",
            &target,
            matches,
        ];
        let text = self.run("ovs-ofctl", &args, "")?;
        let is_flow = |line: &&str| line.trim_start().starts_with("cookie=");
        Ok(text
            .lines()
            .filter(is_flow)
            .map(|line| line.trim().to_owned())
            .collect())
    }

    /// How many flows match.
    pub fn count(&self, matches: &str) -> Result<usize, OvsError> {
        let target = self.target();
        let args = [TIMEOUT, "-O", VERSIONS, "dump-aggregate", &target, matches];
        let text = self.run("ovs-ofctl", &args, "")?;
        Ok(flow_count(&text).unwrap_or(0))
    }

    /// Packets of the flows that match, by table: (table, packets).
    pub fn packets(&self, matches: &str) -> Result<Vec<(u8, u64)>, OvsError> {
        let target = self.target();
        let args = [TIMEOUT, "-O", VERSIONS, "dump-flows", &target, matches];
        let text = self.run("ovs-ofctl", &args, "")?;
        Ok(text.lines().filter_map(counted).collect())
    }

    /// Changes how the bridge treats a port, e.g. `no-flood`: OpenFlow 1.0, the only one that has this word.
    pub fn mod_port(&self, port: &str, setting: &str) -> Result<(), OvsError> {
        let target = self.target();
        let args = [
            TIMEOUT,
            "-O",
            "OpenFlow10",
            "mod-port",
            &target,
            port,
            setting,
        ];
        self.run("ovs-ofctl", &args, "").map(drop)
    }

    /// Asks `ovs-vswitchd` itself.
    pub fn appctl(&self, args: &[&str]) -> Result<String, OvsError> {
        let mut all = vec![TIMEOUT];
        all.extend(args);
        self.run("ovs-appctl", &all, "")
    }

    fn target(&self) -> String {
        format!("unix:{}", self.openflow_socket().display())
    }

    fn run(&self, program: &'static str, args: &[&str], input: &str) -> Result<String, OvsError> {
        let start = |source| OvsError::Start { program, source };
        let mut child = Command::new(program)
            .args(args)
            .env("OVS_RUNDIR", &self.run_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        // It reads all of its input before it prints anything. One that ends before says why itself.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(start)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(OvsError::Refused {
            program,
            what: what(args),
            said: said.trim().chars().take(COMPLAINT).collect(),
        })
    }
}

/// The arguments that say what was wanted.
fn what(args: &[&str]) -> String {
    let is_option = |arg: &&&str| arg.starts_with('-') || arg.starts_with("OpenFlow1");
    let words: Vec<&str> = args.iter().filter(|arg| !is_option(arg)).copied().collect();
    words.join(" ")
}

fn flow_count(text: &str) -> Option<usize> {
    let count = text.split("flow_count=").nth(1)?;
    count.split_whitespace().next()?.parse().ok()
}

/// Table and packet count of a flow as it is printed.
fn counted(line: &str) -> Option<(u8, u64)> {
    let field = |name: &str| {
        let value = line.split(name).nth(1)?;
        value.split(',').next()
    };
    let table = field(" table=").map_or(Some(0), |table| table.parse().ok())?;
    Some((table, field("n_packets=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let line =
            " cookie=0x1, duration=0.007s, table=210, n_packets=12, n_bytes=0, ip actions=drop";
        assert_eq!(counted(line), Some((210, 12)));
        let sum = "NXST_AGGREGATE reply (xid=0x4): packet_count=0 byte_count=0 flow_count=83\n";
        assert_eq!(flow_count(sum), Some(83));
        assert_eq!(counted("OFPST_FLOW reply (OF1.5) (xid=0x2):"), None);
    }

    #[test]
    fn errors_name_what_was_wanted() {
        let tools = Tools::new(Path::new("/nonexistent"), "br9");
        let error = tools.vsctl(&["get", "Bridge", "br9", "name"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("ovs-vsctl") && text.contains("get Bridge br9 name"),
            "{text}"
        );
    }
}
