//! A unit for each interface of the host, bound to its device: the repair is made again whenever the
//! device appears. Settings that belong to no interface go to a file of `sysctl.d`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::action::Action;
use crate::persist::{Left, PersistError, replace};
use crate::repair::command::words;

/// Where units of the administrator lie.
pub const UNIT_DIR: &str = "/etc/systemd/system";
/// The settings' file.
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-tollgate-doctor.conf";
/// Where programs are looked for: systemd knows no search path of the user's.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// First line of what is written here.
const HEAD: &str = "# Written by tollgate doctor.";
/// Everybody may read what the administrator configured.
const MODE: u32 = 0o644;

/// What keeps the repairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files with what is to be in them.
    pub files: Vec<(PathBuf, String)>,
    /// Commands that put them in force, a word each.
    pub commands: Vec<Vec<String>>,
    /// Commands that take them back.
    pub back: Vec<Vec<String>>,
    /// What is not kept this way.
    pub left: Vec<Left>,
}

/// Plans; writes nothing.
pub fn plan(actions: &[Action]) -> Plan {
    let mut plan = Plan::default();
    let mut devices: BTreeMap<&str, Vec<&Action>> = BTreeMap::new();
    let mut settings = Vec::new();
    for action in actions {
        match action {
            _ if action.netns().is_some() => plan.left.push(Left::new(
                action,
                "it is in another network namespace, which systemd does not start; keep it with --persist agent",
            )),
            Action::Feature { ifname, .. }
            | Action::Mtu { ifname, .. }
            | Action::Sizes { ifname, .. }
            | Action::ClampMss { ifname, .. } => devices.entry(ifname).or_default().push(action),
            Action::Sysctl { .. } => settings.push(action),
            Action::Ovs { .. } => plan.left.push(Left::new(
                action,
                "Open vSwitch keeps it in its database",
            )),
            Action::GenericXdp { .. } => plan.left.push(Left::new(
                action,
                "whoever attaches the program has to be told to attach it after the driver",
            )),
        }
    }
    for (ifname, actions) in devices {
        plan.add_unit(ifname, &actions);
    }
    plan.add_settings(&settings);
    if !plan.files.is_empty() {
        let reload = command(&["systemctl", "daemon-reload"]);
        plan.commands.insert(0, reload.clone());
        plan.back.push(reload);
    }
    plan
}

impl Plan {
    fn add_unit(&mut self, ifname: &str, actions: &[&Action]) {
        let name = unit_name(ifname);
        let path = Path::new(UNIT_DIR).join(&name);
        let shown = path.display().to_string();
        self.commands
            .push(command(&["systemctl", "enable", "--now", &name]));
        self.back
            .push(command(&["systemctl", "disable", "--now", &name]));
        self.back.push(command(&["rm", &shown]));
        self.files.push((path, unit(ifname, actions)));
    }

    fn add_settings(&mut self, actions: &[&Action]) {
        if actions.is_empty() {
            return;
        }
        let mut text = format!("{HEAD}\n");
        for action in actions {
            if let Some(setting) = words(action).pop() {
                text += &format!("{setting}\n");
            }
        }
        self.commands.push(command(&["sysctl", "-p", SYSCTL_FILE]));
        self.back.push(command(&["rm", SYSCTL_FILE]));
        self.files.push((SYSCTL_FILE.into(), text));
    }

    /// Writes the files below a root, `/` but for tests. The commands are the caller's.
    pub fn write(&self, root: &Path) -> Result<(), PersistError> {
        for (path, text) in &self.files {
            let path = root.join(path.strip_prefix("/").unwrap_or(path));
            replace(&path, text, MODE)?;
        }
        Ok(())
    }
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Name of the unit for an interface.
pub fn unit_name(ifname: &str) -> String {
    format!("tollgate-doctor-{}.service", escape(ifname))
}

/// Name of the interface's device unit, which systemd makes when udev has seen the device.
pub fn device_unit(ifname: &str) -> String {
    format!("sys-subsystem-net-devices-{}.device", escape(ifname))
}

/// As `systemd-escape` does with a part of a name (systemd.unit(5), "String escaping for inclusion in
/// unit names"). The device's name is part of a path, in which a leading dot is escaped only at
/// the very beginning; a unit of ours has a prefix too.
fn escape(name: &str) -> String {
    let mut out = String::new();
    for b in name.bytes() {
        match b {
            b'/' => out.push('-'),
            b':' | b'_' | b'.' => out.push(char::from(b)),
            b if b.is_ascii_alphanumeric() => out.push(char::from(b)),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

/// The unit. `RemainAfterExit` and `BindsTo` together start it once for each time that the device
/// appears: it stops with the device, and the device wants it.
fn unit(ifname: &str, actions: &[&Action]) -> String {
    let device = device_unit(ifname);
    let shown = specifiers(ifname);
    let mut text = format!(
        "{HEAD}\n[Unit]\nDescription=Repairs of tollgate doctor for {shown}\nBindsTo={device}\n\
         After={device}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    );
    for action in actions {
        text += &format!("ExecStart={}\n", exec(&words(action)));
    }
    text + &format!("\n[Install]\nWantedBy={device}\n")
}

/// A command as systemd reads it: an absolute path, and no word that it would expand.
fn exec(words: &[String]) -> String {
    let words = words.iter().enumerate().map(|(i, word)| match i {
        0 => program(word),
        _ => argument(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn program(name: &str) -> String {
    let found = PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    let path = found.unwrap_or_else(|| Path::new("/usr/sbin").join(name));
    path.display().to_string()
}

/// Quoted as systemd.service(5), "Command lines", has it.
fn argument(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' => out.push_str("$$"),
            c if c.is_control() && c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => out,
        false => format!("\"{out}\""),
    }
}

/// Text of a field in which `%` means something.
fn specifiers(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    clean.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// Names that the kernel takes and systemd has to be told carefully.
    const AWKWARD: [&str; 12] = [
        "eth0",
        "eth0.100",
        "br-int",
        "veth@x",
        "a--b",
        "-lead",
        ".dot",
        "100%",
        "$HOME",
        "q\"uote",
        "back\\slash",
        "ünï",
    ];

    fn actions(ifname: &str) -> Vec<Action> {
        let ifname = ifname.to_owned();
        vec![
            Action::Feature {
                netns: None,
                ifname: ifname.clone(),
                feature: "tx-checksum-ip-generic".into(),
                on: false,
            },
            Action::Mtu {
                netns: None,
                ifname: ifname.clone(),
                mtu: 1450,
            },
            Action::ClampMss {
                netns: None,
                ifname,
            },
        ]
    }

    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {error}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
            + &error
    }

    #[test]
    fn names_are_those_of_systemd_escape() {
        for name in AWKWARD {
            let path = format!("/sys/subsystem/net/devices/{name}");
            let mut escape = Command::new("systemd-escape");
            escape.args(["--path", "--suffix=device", &path]);
            assert_eq!(device_unit(name), output(&mut escape), "{name}");
            // And back.
            let mut back = Command::new("systemd-escape");
            back.args([
                "--unescape",
                "--path",
                "--",
                device_unit(name).trim_end_matches(".device"),
            ]);
            assert_eq!(output(&mut back), path);
            // A template's instance begins with the name, so a leading dot differs there.
            if !name.starts_with('.') {
                let mut instance = Command::new("systemd-escape");
                instance.args(["--template=tollgate-doctor@.service", "--", name]);
                let ours = unit_name(name).replacen("doctor-", "doctor@", 1);
                assert_eq!(ours, output(&mut instance), "{name}");
            }
        }
    }

    #[test]
    fn units_are_verified_by_systemd() {
        let root = tempfile::tempdir().unwrap();
        let all: Vec<Action> = AWKWARD.iter().flat_map(|name| actions(name)).collect();
        let plan = plan(&all);
        assert_eq!(plan.files.len(), AWKWARD.len());
        plan.write(root.path()).unwrap();
        for (path, _) in &plan.files {
            let path = root.path().join(path.strip_prefix("/").unwrap());
            let mut verify = Command::new("systemd-analyze");
            verify
                .args(["verify", "--man=no", "--generators=no"])
                .arg(&path);
            assert_eq!(output(&mut verify), "", "{path:?}");
        }
    }

    #[test]
    fn a_broken_unit_would_be_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("broken.service");
        fs::write(
            &path,
            "[Service]\nType=oneshot\nExecStart=ethtool-not-here -K\n",
        )
        .unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no", "--generators=no"])
            .arg(&path);
        assert!(!verify.output().unwrap().status.success());
    }

    #[test]
    fn a_unit_is_bound_to_its_device() {
        let plan = plan(&actions("br-int"));
        let (path, text) = &plan.files[0];
        let name = r"/etc/systemd/system/tollgate-doctor-br\x2dint.service";
        assert_eq!(path, Path::new(name));
        let device = r"sys-subsystem-net-devices-br\x2dint.device";
        for line in [
            &format!("BindsTo={device}"),
            &format!("After={device}"),
            &format!("WantedBy={device}"),
            "Type=oneshot",
            "RemainAfterExit=yes",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let starts: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart="))
            .collect();
        assert!(starts[0].starts_with('/'));
        assert!(starts[0].ends_with("/ethtool -K br-int tx-checksum-ip-generic off"));
        assert!(starts[1].ends_with("/ip link set dev br-int mtu 1450"));
        assert!(starts[2].contains("/nft \"add table") && starts[2].contains("\\\"br-int\\\""));
    }

    #[test]
    fn what_is_not_the_hosts_is_left_and_said() {
        let pod = Action::Mtu {
            netns: Some("/proc/5/ns/net".into()),
            ifname: "eth0".into(),
            mtu: 1450,
        };
        let setting = Action::Sysctl {
            netns: None,
            key: "net.ipv4.tcp_mtu_probing".into(),
            value: "1".into(),
        };
        let plan = plan(&[pod, setting]);
        assert_eq!(plan.left.len(), 1);
        assert!(plan.left[0].command.starts_with("nsenter "));
        assert_eq!(plan.files.len(), 1);
        assert_eq!(
            plan.files[0].1,
            "# Written by tollgate doctor.\nnet.ipv4.tcp_mtu_probing=1\n"
        );
    }
}
