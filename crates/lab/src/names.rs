//! Names, addresses and paths of a lab; everything that is made is named after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// Directory of all labs' state.
pub const STATE_ROOT: &str = "/run/tollgate-lab";
/// Name of a lab when none is given.
pub const DEFAULT_NAME: &str = "lab";
/// Longest lab name: keeps every derived name short enough to read.
const NAME_MAX: usize = 20;

/// Host-side interface of the pod, in the node's namespace: the governed endpoint.
pub const POD_HOST_IF: &str = "tgp0";
/// The node's interface towards the outside.
pub const UPLINK_IF: &str = "up0";
/// Name of the interface inside the pod and inside the outside namespace.
pub const INNER_IF: &str = "eth0";
/// Name of the agent's TAP in the node's namespace.
pub const TAP_IF: &str = "tollgate0";

/// The pod's addresses.
pub const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
/// The pod's IPv6 address.
pub const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 2);
/// The node's address towards the pod.
pub const NODE_POD_V4: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The node's IPv6 address towards the pod.
pub const NODE_POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 1);
/// The external host (RFC 5737 documentation range).
pub const OUT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The external host (RFC 3849 documentation range).
pub const OUT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10);
/// The node's address towards the outside.
pub const NODE_OUT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The node's IPv6 address towards the outside.
pub const NODE_OUT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// Server names that the external host answers to, and has certificates for.
pub const HOSTS: [&str; 5] = [
    "api.example.com",
    "www.example.com",
    "ext.example.org",
    "evil.example.net",
    "example.com",
];
/// The host that the example policy allows.
pub const API_HOST: &str = "api.example.com";

/// Address family of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The external host's address.
    pub fn outside(self) -> IpAddr {
        match self {
            Family::V4 => OUT_V4.into(),
            Family::V6 => OUT_V6.into(),
        }
    }

    /// `IPv4` or `IPv6`.
    pub fn word(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The names of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The lab's name.
    pub lab: String,
    /// Network namespace of the pod.
    pub pod: String,
    /// Network namespace of the node.
    pub node: String,
    /// Network namespace of the external host.
    pub out: String,
}

impl Names {
    /// Names for the lab `lab`.
    ///
    /// # Errors
    /// [`LabError::BadName`] unless it is 1 to 20 of `a-z0-9-`, starting with a letter.
    pub fn new(lab: &str) -> Result<Self> {
        let letters = lab
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let starts = lab.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !letters || !starts || lab.len() > NAME_MAX {
            return Err(LabError::BadName(lab.into()));
        }
        let ns = |role: &str| format!("tg-{lab}-{role}");
        Ok(Names {
            lab: lab.into(),
            pod: ns("pod"),
            node: ns("node"),
            out: ns("out"),
        })
    }

    /// The three namespaces.
    pub fn namespaces(&self) -> [&str; 3] {
        [&self.pod, &self.node, &self.out]
    }

    /// Directory of this lab's state; every path below lies in it.
    pub fn dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.lab)
    }

    /// Records of the processes that the lab started.
    pub fn procs(&self) -> PathBuf {
        self.dir().join("procs")
    }

    /// A tmpfs with what nginx serves and receives.
    pub fn www(&self) -> PathBuf {
        self.dir().join("www")
    }

    /// The lab's own bpf file system: what the agent pins goes with it.
    pub fn bpffs(&self) -> PathBuf {
        self.dir().join("bpf")
    }

    /// The agent's pin directory.
    pub fn pins(&self) -> PathBuf {
        self.bpffs().join("tollgate")
    }

    /// The agent's run directory.
    pub fn agent_run(&self) -> PathBuf {
        self.dir().join("agent")
    }

    /// CA certificate for clients in the pod.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("pki/ca.pem")
    }

    /// The server's certificate and key.
    pub fn server_pem(&self) -> (PathBuf, PathBuf) {
        (
            self.dir().join("pki/server.pem"),
            self.dir().join("pki/server.key"),
        )
    }

    /// Hosts file for commands in the pod.
    pub fn hosts_file(&self) -> PathBuf {
        self.dir().join("hosts")
    }

    /// Log file of a background process.
    pub fn log(&self, label: &str) -> PathBuf {
        self.dir().join(format!("{label}.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_lab() {
        let names = Names::new("lab").unwrap();
        assert_eq!(
            names.namespaces(),
            ["tg-lab-pod", "tg-lab-node", "tg-lab-out"]
        );
        assert_eq!(
            names.pins(),
            Path::new("/run/tollgate-lab/lab/bpf/tollgate")
        );
    }

    #[test]
    fn refuses_names_that_could_leave_the_directory() {
        let long = "a".repeat(21);
        for bad in ["", "..", "a/b", "A", "1a", "-a", "a b", "ä", long.as_str()] {
            assert!(Names::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "bench-2", "lab"] {
            assert!(Names::new(good).is_ok(), "{good:?}");
        }
    }
}
