//! The command that a person would type.

use std::path::Path;

use crate::action::Action;
use crate::repair::{mss, sysctl};

/// Directories of namespaces that `ip netns` knows by name; one is the other.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The action as a shell command, quoted.
pub fn command_line(action: &Action) -> String {
    let words = words(action);
    let joined: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let netns = action.netns();
    let enter = match action {
        // `ip netns exec` mounts another /sys, in which there is nowhere to pin a program.
        Action::GenericXdp { .. } => netns.map_or_else(String::new, enter_by_path),
        _ => netns.map_or_else(String::new, enter),
    };
    format!("{enter}{}", joined.join(" "))
}

/// The command's words, without entering a namespace.
pub fn words(action: &Action) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match action {
        Action::Feature {
            ifname,
            feature,
            on,
            ..
        } => words(&["ethtool", "-K", ifname, feature, on_off(*on)]),
        Action::Mtu { ifname, mtu, .. } => {
            words(&["ip", "link", "set", "dev", ifname, "mtu", &mtu.to_string()])
        }
        Action::Sizes { ifname, sizes, .. } => {
            let mut all: Vec<String> = words(&["ip", "link", "set", "dev", ifname]);
            for (name, bytes) in sizes {
                all.extend([name.clone(), bytes.to_string()]);
            }
            all
        }
        Action::Sysctl { key, value, .. } => {
            words(&["sysctl", "-w", &format!("{}={value}", sysctl::dotted(key))])
        }
        Action::ClampMss { ifname, .. } => words(&["nft", &mss::script(ifname)]),
        Action::Ovs {
            table,
            record,
            column,
            value,
        } => words(&[
            "ovs-vsctl",
            "set",
            table,
            record,
            &format!("{column}={value}"),
        ]),
        Action::GenericXdp { ifname, .. } => words(&["sh", "-c", &xdp_script(ifname)]),
    }
}

/// Takes the program out of the driver and attaches the same one after it.
fn xdp_script(ifname: &str) -> String {
    let dev = quote(ifname);
    let pin = "/sys/fs/bpf/tollgate-doctor-xdp-$id";
    format!(
        "id=$(ip -d link show dev {dev} | sed -n 's/.*prog\\/xdp id \\([0-9]*\\).*/\\1/p') && \
         bpftool prog pin id $id {pin} && ip link set dev {dev} xdp off && \
         ip link set dev {dev} xdpgeneric pinned {pin}"
    )
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What stands before the command to run it in the namespace.
fn enter(path: &Path) -> String {
    let named = path
        .parent()
        .is_some_and(|dir| NAMED.map(Path::new).contains(&dir));
    match path.file_name().filter(|_| named) {
        Some(name) => format!("ip netns exec {} ", quote(&name.to_string_lossy())),
        None => enter_by_path(path),
    }
}

fn enter_by_path(path: &Path) -> String {
    format!("nsenter {} ", quote(&format!("--net={}", path.display())))
}

/// A word as a POSIX shell reads it back.
pub fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn commands_are_what_a_person_types() {
        let blue = Some("/run/netns/blue".into());
        let pod = Some("/proc/123/ns/net".into());
        let cases = [
            (
                Action::Feature {
                    netns: blue.clone(),
                    ifname: "eth0".into(),
                    feature: "tx-checksum-ip-generic".into(),
                    on: false,
                },
                "ip netns exec blue ethtool -K eth0 tx-checksum-ip-generic off",
            ),
            (
                Action::Mtu {
                    netns: pod,
                    ifname: "a b;c".into(),
                    mtu: 1450,
                },
                "nsenter --net=/proc/123/ns/net ip link set dev 'a b;c' mtu 1450",
            ),
            (
                Action::Sizes {
                    netns: None,
                    ifname: "eth0".into(),
                    sizes: vec![("gso_max_size".into(), 65536), ("gro_max_size".into(), 1)],
                },
                "ip link set dev eth0 gso_max_size 65536 gro_max_size 1",
            ),
            (
                Action::Sysctl {
                    netns: blue,
                    key: "net.ipv4.ip_local_port_range".into(),
                    value: "1 2".into(),
                },
                "ip netns exec blue sysctl -w 'net.ipv4.ip_local_port_range=1 2'",
            ),
            (
                Action::Ovs {
                    table: "Interface".into(),
                    record: "gw0".into(),
                    column: "mtu_request".into(),
                    value: "1450".into(),
                },
                "ovs-vsctl set Interface gw0 mtu_request=1450",
            ),
        ];
        for (action, line) in cases {
            assert_eq!(command_line(&action), line);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "",
            "a",
            "it's",
            "$(reboot)",
            "`x`",
            "a b",
            "\\",
            "\"",
            "x;y&z|>*?",
            "-n",
        ] {
            let script = format!("printf '%s|' {}", quote(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!("{word}|")
            );
        }
    }
}
