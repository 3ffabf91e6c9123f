//! The network namespaces of the machine, and what people call them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::model::NetnsId;

/// Where names of namespaces are: `ip netns`, and Docker's.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];
/// What the machine's own is called.
pub const HOST: &str = "host";
/// Hexadecimal digits of a container's identifier.
const CONTAINER_ID: usize = 64;
/// Processes that are looked at for names of containers, in each namespace. The first ones of a pod
/// are its pause container and its entry points.
const MAX_LOOKED_AT: usize = 64;

/// A namespace that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its identity.
    pub id: NetnsId,
    /// What people call it.
    pub name: String,
    /// A path that names it.
    pub path: PathBuf,
    /// Processes in it.
    pub pids: Vec<u32>,
    /// Other names.
    pub aliases: Vec<String>,
}

/// The one that the doctor runs in.
pub fn own() -> std::io::Result<NetnsId> {
    fs::metadata("/proc/self/ns/net").map(|file| NetnsId(file.ino()))
}

/// All of them, the machine's own first.
pub fn find(unreadable: &mut Vec<String>) -> std::io::Result<Vec<Found>> {
    let own = fs::metadata("/proc/self/ns/net")?;
    let device = own.dev();
    // Without the right to look at process 1 the doctor's own stands for it.
    let (host, host_path) = match fs::metadata("/proc/1/ns/net") {
        Ok(first) => (first.ino(), "/proc/1/ns/net"),
        Err(_) => (own.ino(), "/proc/self/ns/net"),
    };
    let mut found = BTreeMap::new();
    processes(&mut found, unreadable);
    for directory in NAMED {
        names(Path::new(directory), device, &mut found);
    }
    let mut host = found.remove(&host).unwrap_or_else(|| empty(host));
    host.name = HOST.to_owned();
    host.path = PathBuf::from(host_path);
    let mut all = vec![host];
    all.extend(found.into_values().map(named));
    Ok(all)
}

fn empty(inode: u64) -> Found {
    Found {
        id: NetnsId(inode),
        name: String::new(),
        path: PathBuf::new(),
        pids: Vec::new(),
        aliases: Vec::new(),
    }
}

/// Namespaces of processes.
fn processes(found: &mut BTreeMap<u64, Found>, unreadable: &mut Vec<String>) {
    let mut refused = 0;
    for pid in pids() {
        match fs::metadata(format!("/proc/{pid}/ns/net")) {
            Ok(file) => {
                let netns = found.entry(file.ino()).or_insert_with(|| empty(file.ino()));
                netns.pids.push(pid);
            }
            // The doctor's own stands for it.
            Err(_) if pid == 1 => {}
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => refused += 1,
            Err(_) => {} // it ended
        }
    }
    if refused > 0 {
        unreadable.push(format!(
            "in which network namespaces {refused} processes are: /proc/PID/ns/net, permission \
             denied; is this run as root?"
        ));
    }
}

/// Numbers of all processes.
pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Namespaces with a name.
fn names(directory: &Path, device: u64, found: &mut BTreeMap<u64, Found>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // What is no mount of a namespace was left behind by one.
        let Ok(file) = fs::metadata(entry.path()) else {
            continue;
        };
        if file.dev() != device {
            continue;
        }
        let netns = found.entry(file.ino()).or_insert_with(|| empty(file.ino()));
        let name = entry.file_name().to_string_lossy().into_owned();
        if netns.name.is_empty() {
            netns.name = name;
            netns.path = entry.path();
        } else {
            netns.aliases.push(name);
        }
    }
}

/// Gives one without a name in a directory that of its first process, and all of them the names of
/// their containers.
fn named(mut netns: Found) -> Found {
    netns.pids.sort_unstable();
    if let (true, Some(pid)) = (netns.name.is_empty(), netns.pids.first()) {
        netns.name = format!("pid:{pid}");
        netns.path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    }
    for pid in netns.pids.iter().take(MAX_LOOKED_AT) {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        netns.aliases.extend(containers(&groups));
    }
    netns.aliases.sort_unstable();
    netns.aliases.dedup();
    netns
}

/// Identifiers of containers, and of pods, in a process's control groups. Runtimes put them into the
/// path: `.../kubepods-burstable-pod3a1f..._....slice/cri-containerd-<64 digits>.scope`.
fn containers(groups: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in groups.lines().flat_map(|line| line.split('/')) {
        let part = part
            .strip_suffix(".scope")
            .or(part.strip_suffix(".slice"))
            .unwrap_or(part);
        let last = part.rsplit(['-', ':']).next().unwrap_or(part);
        if last.len() == CONTAINER_ID && last.bytes().all(|b| b.is_ascii_hexdigit()) {
            names.push(last.to_owned());
        }
        if let Some((_, uid)) = part.rsplit_once("pod")
            && uid.len() == "01234567-0123-0123-0123-0123456789ab".len()
        {
            names.push(uid.replace('_', "-"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_pods_are_named_by_their_control_groups() {
        let id = "0123456789abcdef".repeat(4);
        let systemd = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3a1f8c2e_0000_4000_8000_00000000000a.slice/cri-containerd-{id}.scope\n"
        );
        assert_eq!(
            containers(&systemd),
            [
                "3a1f8c2e-0000-4000-8000-00000000000a".to_owned(),
                id.clone()
            ]
        );
        assert_eq!(containers(&format!("0::/docker/{id}\n")), [id]);
        assert!(containers("0::/user.slice/user-0.slice/session-3.scope\n").is_empty());
    }
}
