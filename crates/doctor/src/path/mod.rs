//! The way of a packet through the machine: from an endpoint's namespace to a remote address, by the
//! routes, pairs, bridges, switches and tunnels of a snapshot. A pure function of it.
//!
//! What the snapshot does not say is not guessed: a path ends there, in words ([`Path::ends`]).

mod graph;
mod walk;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::case::Path;
use crate::model::{Link, LinkKind, LinkRef, Netns, Snapshot};

/// The fewest characters of a container's identifier that are taken for one; as many as tools print.
const SHORT_ID: usize = 12;

/// How [`Path::ends`] begins where the rest of the path is somewhere else.
const LEAVES: &str = "leaves this machine by";

/// Where a path begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A namespace by its name.
    Netns(String),
    /// A namespace by a path.
    NetnsPath(PathBuf),
    /// The namespace of a process.
    Pid(u32),
    /// An interface on the node. Of a pair whose other end is in another namespace: that namespace.
    Interface(String),
    /// A pod.
    Pod {
        /// Its Kubernetes namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A container, or a pod by its UID: an identifier, or its beginning.
    Container(String),
    /// Any of these, whichever there is: a namespace, a container, an interface on the node.
    Named(String),
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the user said it, e.g. a host's name.
    pub said: String,
    /// Its address.
    pub address: IpAddr,
}

/// There is no path to speak of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing of that name.
    #[error(
        "there is no namespace, container or interface {0} here; `ip netns` lists namespaces, and pid:N names that of a process"
    )]
    Unknown(String),
    /// Several of that name.
    #[error("{what} names several namespaces: {names}; give one of these")]
    Ambiguous {
        /// What was given.
        what: String,
        /// What it may mean.
        names: String,
    },
    /// Pods are known to the kernel by their UID only.
    #[error(
        "which namespace pod {0} has cannot be told on this machine; give container:ID, its UID (`kubectl get pod -o jsonpath={{.metadata.uid}}`), or pid:N of a process in it"
    )]
    Pod(String),
    /// The namespace is there but nothing in it.
    #[error("namespace {0} has no interface that could be read; is this run as root?")]
    Empty(String),
}

impl FromStr for Endpoint {
    type Err = std::convert::Infallible;

    /// `netns:NAME`, `pid:N`, `dev:NAME`, `container:ID`, `pod:NS/NAME`, a path, or a bare name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        Ok(match kind {
            "netns" => Self::Netns(rest.to_owned()),
            "dev" => Self::Interface(rest.to_owned()),
            "container" => Self::Container(rest.to_owned()),
            "pid" => match rest.parse() {
                Ok(pid) => Self::Pid(pid),
                Err(_) => Self::Named(text.to_owned()),
            },
            "pod" => {
                let (namespace, name) = rest.split_once('/').unwrap_or(("default", rest));
                Self::Pod {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }
            }
            _ if text.starts_with('/') => Self::NetnsPath(PathBuf::from(text)),
            _ => Self::Named(text.to_owned()),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(name) | Self::Named(name) => f.write_str(name),
            Self::NetnsPath(path) => path.display().fmt(f),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Interface(name) => write!(f, "dev:{name}"),
            Self::Pod { namespace, name } => write!(f, "pod:{namespace}/{name}"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Self {
        Self {
            said: address.to_string(),
            address,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

/// Follows a packet from an endpoint to an address.
///
/// # Errors
/// The endpoint is not in the snapshot. That a packet gets nowhere is no error: the path says so.
pub fn resolve(snapshot: &Snapshot, from: &Endpoint, to: &Target) -> Result<Path, PathError> {
    let begin = begin(snapshot, from)?;
    let (hops, ends) = walk::follow(snapshot, begin, to.address);
    Ok(Path {
        from: from.to_string(),
        to: to.to_string(),
        hops,
        ends,
    })
}

/// Why a path could not be followed to its end: neither to the remote side nor out of the machine.
pub fn lost(path: &Path) -> Option<&str> {
    let ends = path.ends.as_str();
    (!ends.is_empty() && !ends.starts_with(LEAVES)).then_some(ends)
}

/// The namespace that an endpoint means.
///
/// # Errors
/// There is none, or several.
pub fn namespace<'a>(snapshot: &'a Snapshot, from: &Endpoint) -> Result<&'a Netns, PathError> {
    let at = match begin(snapshot, from)? {
        Begin::Netns(netns) => return Ok(netns),
        Begin::Behind(at) => at,
    };
    snapshot
        .netns(at.netns)
        .ok_or_else(|| PathError::Unknown(from.to_string()))
}

/// Where packets come from.
#[derive(Clone, Copy, Debug)]
enum Begin<'a> {
    /// Sent by a namespace.
    Netns(&'a Netns),
    /// Received by an interface: who sends is not in the snapshot (a VM, another machine).
    Behind(LinkRef),
}

fn begin<'a>(snapshot: &'a Snapshot, from: &Endpoint) -> Result<Begin<'a>, PathError> {
    let unknown = || PathError::Unknown(from.to_string());
    let netns = match from {
        Endpoint::Netns(name) => named(snapshot, name)?.ok_or_else(unknown)?,
        Endpoint::Pid(pid) => {
            let has = |netns: &&Netns| netns.pids.contains(pid);
            snapshot.namespaces.iter().find(has).ok_or_else(unknown)?
        }
        Endpoint::NetnsPath(path) => by_path(snapshot, path).ok_or_else(unknown)?,
        Endpoint::Interface(name) => {
            return interface(snapshot, name).ok_or_else(unknown);
        }
        Endpoint::Pod { namespace, name } => {
            let name = format!("{namespace}/{name}");
            named(snapshot, &name)?.ok_or(PathError::Pod(name))?
        }
        Endpoint::Container(id) => container(snapshot, id)?.ok_or_else(unknown)?,
        Endpoint::Named(name) => match named(snapshot, name)?.or(container(snapshot, name)?) {
            Some(netns) => netns,
            None => return interface(snapshot, name).ok_or_else(unknown),
        },
    };
    if netns.links.is_empty() {
        return Err(PathError::Empty(netns.name.clone()));
    }
    Ok(Begin::Netns(netns))
}

fn named<'a>(snapshot: &'a Snapshot, name: &str) -> Result<Option<&'a Netns>, PathError> {
    if let Some(netns) = snapshot.netns_named(name) {
        return Ok(Some(netns));
    }
    only(snapshot, name, |alias| alias == name)
}

fn container<'a>(snapshot: &'a Snapshot, id: &str) -> Result<Option<&'a Netns>, PathError> {
    // "containerd://..." is what Kubernetes calls it.
    let id = id.rsplit('/').next().unwrap_or(id);
    only(snapshot, id, |alias| {
        alias == id || id.len() >= SHORT_ID && alias.starts_with(id)
    })
}

fn only<'a>(
    snapshot: &'a Snapshot,
    what: &str,
    is: impl Fn(&str) -> bool,
) -> Result<Option<&'a Netns>, PathError> {
    let has = |netns: &&Netns| netns.aliases.iter().any(|alias| is(alias));
    let found: Vec<&Netns> = snapshot.namespaces.iter().filter(has).collect();
    match found.as_slice() {
        [] => Ok(None),
        [netns] => Ok(Some(netns)),
        several => {
            let names: Vec<&str> = several.iter().map(|netns| netns.name.as_str()).collect();
            Err(PathError::Ambiguous {
                what: what.to_owned(),
                names: names.join(", "),
            })
        }
    }
}

fn by_path<'a>(snapshot: &'a Snapshot, path: &std::path::Path) -> Option<&'a Netns> {
    let pid = || {
        let rest = path.to_str()?.strip_prefix("/proc/")?;
        rest.strip_suffix("/ns/net")?.parse::<u32>().ok()
    };
    let name = path.file_name().and_then(|name| name.to_str());
    snapshot.namespaces.iter().find(|netns| {
        netns.path == path
            || pid().is_some_and(|pid| netns.pids.contains(&pid))
            || pid().is_none() && name.is_some_and(|name| netns.aliases.iter().any(|a| a == name))
    })
}

/// An interface on the node.
fn interface<'a>(snapshot: &'a Snapshot, name: &str) -> Option<Begin<'a>> {
    let host = snapshot.namespaces.first()?;
    let link = host.link_named(name)?;
    let elsewhere = |link: &Link| {
        let peer = link.link.filter(|peer| peer.netns != host.id)?;
        snapshot.netns(peer.netns)
    };
    if link.kind == LinkKind::Veth
        && let Some(netns) = elsewhere(link)
    {
        return Some(Begin::Netns(netns));
    }
    Some(Begin::Behind(host.at(link)))
}
