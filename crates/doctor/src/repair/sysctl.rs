//! Settings below `/proc/sys/net`, which are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::repair::RepairError;

/// Where the settings lie.
const ROOT: &str = "/proc/sys";

/// The key as `sysctl` prints it: dots between parts, a dot within a part (`eth0.100`) as a slash.
pub fn dotted(key: &str) -> String {
    match separator(key) {
        '/' => swap(key),
        _ => key.to_owned(),
    }
}

/// The setting's file. Only keys of the network are known.
fn file(key: &str) -> Result<PathBuf, RepairError> {
    let path = match separator(key) {
        '/' => key.to_owned(),
        _ => swap(key),
    };
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if !path.starts_with("net/") || path.split('/').any(odd) {
        return Err(RepairError::Unfit(format!(
            "{key:?} is no setting of the network (net.*)"
        )));
    }
    Ok(Path::new(ROOT).join(path))
}

/// The first separator decides how the key is written, as for sysctl(8).
fn separator(key: &str) -> char {
    key.chars().find(|c| matches!(c, '.' | '/')).unwrap_or('.')
}

fn swap(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// The value; `None` if there is no such setting (any more).
pub fn read(key: &str) -> Result<Option<String>, RepairError> {
    let path = file(key)?;
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RepairError::file("reading", &path)(error)),
    }
}

/// Sets the value.
pub fn write(key: &str, value: &str) -> Result<(), RepairError> {
    let path = file(key)?;
    fs::write(&path, value).map_err(RepairError::file("writing", &path))
}

/// The same value, however its columns are spaced.
pub fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_sysctl() {
        let path = |key| file(key).unwrap();
        let root = Path::new("/proc/sys/net/ipv4");
        assert_eq!(
            path("net.ipv4.tcp_mtu_probing"),
            root.join("tcp_mtu_probing")
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/100.forwarding"),
            root.join("conf/eth0.100/forwarding")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.100/forwarding"),
            root.join("conf/eth0.100/forwarding")
        );
        assert_eq!(
            dotted("net/ipv4/conf/eth0.100/x"),
            "net.ipv4.conf.eth0/100.x"
        );
        for bad in [
            "kernel.panic",
            "net/../kernel/panic",
            "net",
            "net..x",
            "/etc/passwd",
            "",
        ] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}
