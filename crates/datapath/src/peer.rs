//! The other ends of veth pairs: in which network namespace they are, and work there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::netlink::{self, Family, attribute, u32_at};
use crate::netns;

/// Length of `struct ifinfomsg`, and `IFLA_IFNAME`, `IFLA_LINK`, `IFLA_LINKINFO` with its kind,
/// `IFLA_LINK_NETNSID`, `IFLA_XDP` of
/// linux/if_link.h.
const IFINFO: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
/// `IFLA_XDP_PROG_ID`.
const IFLA_XDP_PROG_ID: u16 = 4;
/// `RTM_GETNSID`, `struct rtgenmsg` padded, and its attributes (linux/net_namespace.h).
const RTM_GETNSID: u16 = 90;
const RTGEN: usize = 4;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Where `ip netns` and container runtimes name namespaces.
const NAMED: &str = "/run/netns";

/// Where the other end of an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index, in its own namespace.
    pub ifindex: u32,
    /// The namespace's identifier as this one knows it; `None`: this one.
    pub nsid: Option<i32>,
}

fn link_attributes(ifname: &str) -> Result<Vec<u8>, Error> {
    let fail = || Error::os("reading the attributes of", ifname);
    let mut body = vec![0; IFINFO];
    let name: Vec<u8> = ifname.bytes().chain([0]).collect();
    netlink::push(&mut body, IFLA_IFNAME, &name);
    let answer = netlink::ask(Family::Route, libc::RTM_GETLINK, false, &body).map_err(fail())?;
    let first = answer.into_iter().next();
    let mut payload = first
        .ok_or_else(|| fail()(io::ErrorKind::UnexpectedEof.into()))?
        .payload;
    Ok(payload.split_off(IFINFO.min(payload.len())))
}

/// Kinds of interfaces that come in pairs. Of others (VLAN, macvlan) `IFLA_LINK` is the device below.
const PAIRS: [&str; 2] = ["veth", "netkit"];

/// The other end of an interface in the calling thread's namespace; `None` if it is no pair's.
pub fn peer(ifname: &str) -> Result<Option<Peer>, Error> {
    let attributes = link_attributes(ifname)?;
    let info = attribute(&attributes, IFLA_LINKINFO);
    let kind = info.and_then(|info| attribute(info, IFLA_INFO_KIND));
    if !PAIRS.contains(&kind.map(netlink::text).unwrap_or_default().as_str()) {
        return Ok(None);
    }
    let value = |kind| attribute(&attributes, kind).and_then(|value| u32_at(value, 0));
    let ifindex = value(IFLA_LINK).filter(|&index| index != 0);
    let nsid = value(IFLA_LINK_NETNSID).map(|id| id as i32);
    Ok(ifindex.map(|ifindex| Peer { ifindex, nsid }))
}

/// Number of the XDP program of an interface, if it has one.
pub fn xdp_program(ifname: &str) -> Result<Option<u32>, Error> {
    let attributes = link_attributes(ifname)?;
    let xdp = attribute(&attributes, IFLA_XDP);
    let id = xdp.and_then(|xdp| attribute(xdp, IFLA_XDP_PROG_ID));
    Ok(id.and_then(|value| u32_at(value, 0)).filter(|&id| id != 0))
}

/// The identifier that the calling thread's namespace has for another one; `None` if none.
fn nsid_of(namespace: &File) -> io::Result<Option<i32>> {
    let mut body = vec![0; RTGEN];
    let fd = namespace.as_raw_fd() as u32;
    netlink::push(&mut body, NETNSA_FD, &fd.to_ne_bytes());
    let answer = netlink::ask(Family::Route, RTM_GETNSID, false, &body)?;
    let id = answer.iter().find_map(|message| {
        attribute(message.payload.get(RTGEN..)?, NETNSA_NSID).and_then(|value| u32_at(value, 0))
    });
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(id.map(|id| id as i32).filter(|&id| id >= 0))
}

/// Finds namespaces by their identifiers. Remembers paths, never open files: those would keep a
/// pod's namespace, and its interfaces, alive after the pod.
#[derive(Debug, Default)]
pub struct Finder {
    known: HashMap<i32, PathBuf>,
}

impl Finder {
    /// Opens the namespace with an identifier, if a name in `/run/netns` or a process leads there.
    pub fn open(&mut self, nsid: i32) -> Option<(PathBuf, File)> {
        if let Some(path) = self.known.get(&nsid) {
            let found = File::open(path).ok();
            if let Some(file) = found.filter(|file| nsid_of(file).ok() == Some(Some(nsid))) {
                return Some((path.clone(), file));
            }
            self.known.remove(&nsid);
        }
        self.scan();
        let path = self.known.get(&nsid)?;
        Some((path.clone(), File::open(path).ok()?))
    }

    /// Looks at every namespace that has a name or a process.
    fn scan(&mut self) {
        let mut seen = HashSet::new();
        for path in candidates() {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let first = file.metadata().is_ok_and(|meta| seen.insert(meta.ino()));
            if first && let Ok(Some(nsid)) = nsid_of(&file) {
                self.known.insert(nsid, path);
            }
        }
    }
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let entries = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten();
    let is_process = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    let named = entries(NAMED).map(|entry| entry.path());
    let processes = entries("/proc")
        .map(|entry| entry.path())
        .filter(move |path| is_process(path))
        .map(|path| path.join("ns/net"));
    named.chain(processes)
}

/// Identity of a namespace: the inode of its file.
pub fn identity(namespace: &File) -> io::Result<u64> {
    Ok(namespace.metadata()?.ino())
}

/// The calling thread's own namespace.
pub fn own() -> Result<File, Error> {
    const PATH: &str = "/proc/thread-self/ns/net";
    File::open(PATH).map_err(Error::os("opening", PATH))
}

/// Does some work in a network namespace; see [`netns::within`].
pub fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    netns::within(namespace, work).map_err(Error::os("entering", "a network namespace"))?
}
