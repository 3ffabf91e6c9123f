//! Reads the machine into a [`Snapshot`].
//!
//! Every network namespace is entered by a worker thread of ours and read there by netlink, ethtool
//! and `/proc`; no thread of the caller changes its namespace. Commands are run only where the
//! kernel says that there is something to list: `nft` and `iptables-save` in namespaces with rules,
//! `ovs-vsctl` if its database is there. What cannot be read is said in [`Snapshot::unreadable`] and
//! does not stop the rest.

mod counters;
mod filter;
mod links;
mod namespaces;
mod ovs;
mod routes;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::net::netlink::SOCK_DIAG;
use tollgate_datapath::netns;
use tollgate_datapath::{ethtool, features};

use crate::model::{
    Feature, Link, LinkKind, LinkRef, Netns, NetnsId, PacketSocket, Process, Snapshot,
};
use links::RawLink;
use namespaces::Found;
use tollgate_datapath::netlink::Socket;

/// More threads gain nothing: dumps take turns at the kernel's lock.
const MAX_WORKERS: usize = 4;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rules of the packet filter, by running `nft` or `iptables-save` in namespaces with rules.
    pub filter: bool,
    /// Open vSwitch, by running `ovs-vsctl`.
    pub ovs: bool,
    /// Socket of Open vSwitch's database, if it is not at the usual place.
    pub ovs_database: Option<PathBuf>,
    /// Who holds packet sockets, by looking at the descriptors of every process.
    pub owners: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: true,
            ovs: true,
            ovs_database: None,
            owners: true,
        }
    }
}

/// Nothing could be read at all.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Not even our own namespace is known.
    #[error("reading /proc/self/ns/net: {0}; is /proc mounted?")]
    Own(#[source] io::Error),
    /// No thread for the reading.
    #[error("starting a thread to read network namespaces: {0}")]
    Thread(#[source] io::Error),
}

/// Reads everything.
///
/// # Errors
/// `/proc` is not there, or there are no threads. Everything else is in [`Snapshot::unreadable`].
pub fn snapshot() -> Result<Snapshot, CollectError> {
    snapshot_with(&Options::default())
}

/// Reads what is asked for.
///
/// # Errors
/// As [`snapshot`].
pub fn snapshot_with(options: &Options) -> Result<Snapshot, CollectError> {
    let mut unreadable = Vec::new();
    let found = namespaces::find(&mut unreadable).map_err(CollectError::Own)?;
    let mut read = read_all(&found, options)?;
    read.sort_by_key(|(position, _)| *position);
    let mut sockets = BTreeSet::new();
    for (_, one) in &read {
        sockets.extend(one.sockets.iter().map(|(inode, _)| *inode));
    }
    let owners = match options.owners && !sockets.is_empty() {
        true => sockets::owners(&sockets),
        false => BTreeMap::new(),
    };
    let refused = read.iter().filter(|(_, one)| one.refused);
    let refused: Vec<&str> = refused.map(|(_, one)| one.netns.name.as_str()).collect();
    if let [first, ..] = refused.as_slice() {
        unreadable.push(match refused.len() {
            1 => format!("the namespace {first}: permission denied; is this run as root?"),
            count => format!(
                "{count} namespaces, {first} among them: permission denied; is this run as root?"
            ),
        });
    }
    let mut namespaces = Vec::with_capacity(read.len());
    for (_, one) in read {
        let name = &one.netns.name;
        unreadable.extend(one.unreadable.iter().map(|what| format!("{name}: {what}")));
        namespaces.push(one.owned_by(&owners));
    }
    let database = options.ovs_database.as_deref();
    let ovs = options
        .ovs
        .then(|| ovs::read(database, &mut unreadable))
        .flatten();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Snapshot {
        own: namespaces::own().ok(),
        kernel: kernel.trim().to_owned(),
        namespaces,
        ovs,
        unreadable,
    })
}

/// One namespace as a worker read it.
struct Read {
    netns: Netns,
    sockets: Vec<(u64, PacketSocket)>,
    unreadable: Vec<String>,
    /// It may not be entered.
    refused: bool,
}

impl Read {
    fn owned_by(mut self, owners: &BTreeMap<u64, Process>) -> Netns {
        let sockets = self.sockets.into_iter().map(|(inode, mut socket)| {
            socket.process = owners.get(&inode).cloned();
            socket
        });
        self.netns.packet_sockets = sockets.collect();
        self.netns
    }
}

/// Has workers read the namespaces, each by the position in `found`.
fn read_all(found: &[Found], options: &Options) -> Result<Vec<(usize, Read)>, CollectError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(found.len()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.min(MAX_WORKERS).min(found.len().max(1));
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let work = || {
                while let Some((position, one)) = next_of(found, &next) {
                    if let Some(read) = read_one(one, found, options) {
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.push((position, read));
                    }
                }
            };
            let name = format!("netns-{worker}");
            let builder = std::thread::Builder::new().name(name);
            builder
                .spawn_scoped(scope, work)
                .map_err(CollectError::Thread)?;
        }
        Ok(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn next_of<'a>(found: &'a [Found], next: &AtomicUsize) -> Option<(usize, &'a Found)> {
    let position = next.fetch_add(1, Ordering::Relaxed);
    Some((position, found.get(position)?))
}

/// Enters a namespace and reads it; `None` if it went away meanwhile. The calling thread stays there.
fn read_one(found: &Found, all: &[Found], options: &Options) -> Option<Read> {
    let mut read = Read {
        netns: Netns {
            id: found.id,
            name: found.name.clone(),
            path: found.path.clone(),
            pids: found.pids.clone(),
            aliases: found.aliases.clone(),
            links: Vec::new(),
            routes: Vec::new(),
            sysctls: BTreeMap::new(),
            counters: BTreeMap::new(),
            packet_sockets: Vec::new(),
            filter: crate::model::Filter::default(),
        },
        sockets: Vec::new(),
        unreadable: Vec::new(),
        refused: false,
    };
    match enter(found) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            read.refused = true;
            return Some(read);
        }
        Err(e) => {
            let path = found.path.display();
            read.unreadable.push(format!("entering {path}: {e}"));
            return Some(read);
        }
    }
    match Socket::open(None) {
        Ok(mut socket) => read_routing(&mut read, &mut socket, all),
        Err(e) => read
            .unreadable
            .push(format!("opening a netlink socket: {e}")),
    }
    for link in &mut read.netns.links {
        ask_driver(link, &mut read.unreadable);
    }
    read.netns.sysctls = counters::sysctls();
    match counters::read() {
        Ok(counters) => read.netns.counters = counters,
        Err(e) => read.unreadable.push(format!("counters: {e}")),
    }
    match Socket::open(Some(SOCK_DIAG)).and_then(|mut socket| sockets::read(&mut socket)) {
        Ok(sockets) => read.sockets = sockets,
        Err(e) => read.unreadable.push(format!(
            "packet sockets: {e}; the kernel's packet_diag module shows them"
        )),
    }
    if options.filter {
        read.netns.filter = filter::read(&read.netns.links, &mut read.unreadable);
    }
    Some(read)
}

/// Moves the calling thread into a namespace, if it is not there already: that needs no right. False
/// if what was found under its path is gone.
fn enter(found: &Found) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let here = fs::metadata("/proc/thread-self/ns/net")?;
    if here.ino() == found.id.0 {
        return Ok(true);
    }
    // The process that the path is about may have ended, and left others there.
    let others = found
        .pids
        .iter()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    for path in std::iter::once(found.path.clone()).chain(others) {
        let file = match fs::File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        if file.metadata()?.ino() == found.id.0 {
            netns::enter(&file)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Links, addresses, routes; and what the links' numbers of other namespaces mean.
fn read_routing(read: &mut Read, socket: &mut Socket, all: &[Found]) {
    match links::read(socket) {
        Ok(links) => read.netns.links = resolved(links, read.netns.id, socket, all),
        Err(e) => read.unreadable.push(format!("interfaces: {e}")),
    }
    match routes::read(socket) {
        Ok(routes) => read.netns.routes = routes,
        Err(e) => read.unreadable.push(format!("routes: {e}")),
    }
}

/// Replaces the numbers that a namespace has for others by their identities. The kernel answers only
/// the other way round, so that every namespace is asked for until all numbers are known; the
/// machine's own, which most of them are about, is the first.
fn resolved(raw: Vec<RawLink>, own: NetnsId, socket: &mut Socket, all: &[Found]) -> Vec<Link> {
    let mut wanted: Vec<u32> = raw.iter().filter_map(|raw| raw.other_netns).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut known = BTreeMap::new();
    for found in all {
        if known.len() == wanted.len() {
            break;
        }
        let Ok(file) = fs::File::open(&found.path) else {
            continue;
        };
        if let Ok(Some(number)) = routes::netns_number(socket, file.as_fd())
            && wanted.binary_search(&number).is_ok()
        {
            known.insert(number, found.id);
        }
    }
    let resolve = |mut raw: RawLink| {
        let netns = match raw.other_netns {
            None => Some(own),
            Some(number) => known.get(&number).copied(),
        };
        raw.link.link = netns
            .zip(raw.other)
            .map(|(netns, ifindex)| LinkRef { netns, ifindex });
        raw.link
    };
    raw.into_iter().map(resolve).collect()
}

/// What only the driver knows.
fn ask_driver(link: &mut Link, unreadable: &mut Vec<String>) {
    match features::read(&link.name) {
        Ok(features) => link.features = features.into_iter().map(feature).collect(),
        Err(e) if e.is_gone() => return,
        Err(e) => unreadable.push(e.to_string()),
    }
    // The others' drivers have nothing to say here that is not read already.
    link.driver = ethtool::driver(&link.name).unwrap_or_default();
    if let Ok((rx, tx)) = ethtool::queues(&link.name) {
        (link.queues.rx, link.queues.tx) = (rx, tx);
    }
    if link.kind != LinkKind::Physical {
        return;
    }
    link.queues.symmetric_hash = ethtool::symmetric_hash(&link.name).ok().flatten();
    let statistics = ethtool::statistics(&link.name).unwrap_or_default();
    let statistics = statistics.into_iter().filter(|(_, value)| *value != 0);
    link.counters
        .extend(statistics.map(|(name, value)| (format!("hw:{}", name.trim()), value)));
}

fn feature(feature: features::Feature) -> Feature {
    Feature {
        name: feature.name,
        active: feature.active,
        wanted: feature.wanted,
        fixed: !feature.changeable,
    }
}
