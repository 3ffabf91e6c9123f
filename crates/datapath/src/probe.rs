//! What this kernel can do, found out by doing it where nobody is disturbed, and who else has
//! programs at an interface.

use std::io;
use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::bpf::{Mechanism, Programs, Settings};
use crate::netlink::{self, Family, attribute, attributes, text, u32_at};
use crate::tap::{self, Offloads, Tap};
use crate::{Error, links, peer};

/// Name of the throw-away TAP, in a namespace of its own.
const TAP: &str = "tg-check0";
/// A second one, which plays an endpoint.
const ENDPOINT: &str = "tg-check1";
/// Where a bpffs is mounted, in a mount namespace of its own; every kernel with BPF has the place.
const BPFFS: &str = "/sys/fs/bpf";
/// Enough to allocate the flow cache's map; its size is no question of what the kernel can do.
const FLOWS: u32 = 1024;
/// Queues that show whether there can be several.
const QUEUES: usize = 2;

/// One thing that was tried. `Err`: what the kernel said.
pub type Tried<T> = Result<T, String>;

/// What became of the trial.
#[derive(Debug)]
pub struct Trial {
    /// A bpffs could be mounted.
    pub bpffs: Tried<()>,
    /// The verifier took every program.
    pub load: Tried<()>,
    /// A TAP with virtio-net headers could be opened: its offload flags, and whether each is taken.
    pub tun: Tried<Vec<(&'static str, bool)>>,
    /// It could have several queues.
    pub queues: Tried<()>,
    /// Programs could be attached: how.
    pub attach: Tried<Mechanism>,
}

/// Tries all of it in a network and a mount namespace that end with the trial. `Err`: such
/// namespaces could not be made.
pub fn trial() -> Result<Trial, Error> {
    let fail = || Error::os("making", "a network and a mount namespace to try things in");
    let thread = std::thread::Builder::new()
        .name("tg-check".to_owned())
        .spawn(|| {
            seclude().map_err(Error::os(
                "making",
                "a network and a mount namespace to try things in",
            ))?;
            Ok(try_all())
        })
        .map_err(fail())?;
    thread
        .join()
        .unwrap_or_else(|_| Err(fail()(io::Error::other("the trial ended badly"))))
}

/// Takes the calling thread to namespaces of its own.
fn seclude() -> io::Result<()> {
    // SAFETY: descriptors stay shared (no FILES); what no longer is shared are mounts, working
    // directory and network, on which no other thread's memory safety rests.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS)? };
    // Nothing mounted from here on is seen by others.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

fn try_all() -> Trial {
    let bpffs = mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)
        .map_err(|error| io::Error::from(error).to_string());
    let dir = Path::new(BPFFS).join("tg-check");
    let settings = Settings {
        flow_entries: FLOWS,
        ..Settings::default()
    };
    let programs = match &bpffs {
        Ok(()) => Programs::load_or_adopt(&dir, &settings).map_err(|error| chain(&error)),
        Err(error) => Err(format!("no bpffs to pin maps in: {error}")),
    };
    let tun = tap::offload_flags(TAP).map_err(|error| error.to_string());
    let tap = Tap::open(TAP, QUEUES, Offloads::ALL).map_err(|error| error.to_string());
    let (load, attach) = match programs {
        Ok(programs) => (Ok(()), attach(programs, &tap)),
        Err(error) => (Err(error), Err("no program is loaded".to_owned())),
    };
    Trial {
        bpffs,
        load,
        tun,
        queues: tap.map(drop),
        attach,
    }
}

fn attach(mut programs: Programs, tap: &Tried<Tap>) -> Tried<Mechanism> {
    let words = |error: Error| chain(&error);
    let tap = tap.as_ref().map_err(|_| "there is no TAP".to_owned())?;
    let steering = programs.steering().map_err(words)?;
    tap.set_steering(steering).map_err(words)?;
    programs.attach_tap(TAP).map_err(words)?;
    let _endpoint = Tap::open(ENDPOINT, 1, Offloads::ALL).map_err(words)?;
    programs.attach(ENDPOINT).map_err(words)?;
    let result = Ok(programs.mechanism());
    // The devices are persistent, but their namespace is not.
    programs.detach(ENDPOINT).map_err(words)?;
    result
}

/// An error with its causes, on one line, without the verifier's long log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// A program or filter at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// `tcx`, `clsact` or `xdp`.
    pub hook: &'static str,
    /// Which way the packets go that it sees: into the interface from outside, or out of it.
    pub ingress: bool,
    /// The program's name as the kernel has it, or the kind of filter; empty if it has none.
    pub name: String,
}

impl Attached {
    /// One of our own programs.
    pub fn ours(&self) -> bool {
        self.name.starts_with("tg_")
    }
}

/// `struct tcmsg` and its attributes (linux/rtnetlink.h, linux/pkt_cls.h).
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`, and of egress.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// Everything at an interface of the calling thread's namespace that sees its packets.
pub fn attached(ifname: &str) -> Result<Vec<Attached>, Error> {
    let mut found = tcx(ifname);
    for (parent, ingress) in [(CLSACT_INGRESS, true), (CLSACT_EGRESS, false)] {
        found.extend(filters(ifname, parent, ingress)?);
    }
    if let Some(id) = peer::xdp_program(ifname)? {
        found.push(Attached {
            hook: "xdp",
            ingress: true,
            name: format!("program {id}"),
        });
    }
    Ok(found)
}

/// Programs at tcx; none where the kernel has no tcx.
fn tcx(ifname: &str) -> Vec<Attached> {
    let mut found = Vec::new();
    for (kind, ingress) in [(TcAttachType::Ingress, true), (TcAttachType::Egress, false)] {
        let Ok((_, programs)) = SchedClassifier::query_tcx(ifname, kind) else {
            continue;
        };
        found.extend(programs.iter().map(|program| Attached {
            hook: "tcx",
            ingress,
            name: program.name_as_str().unwrap_or_default().to_owned(),
        }));
    }
    found
}

fn filters(ifname: &str, parent: u32, ingress: bool) -> Result<Vec<Attached>, Error> {
    let fail = || Error::os("listing the filters of", ifname);
    let ifindex = links::index(ifname)?;
    let mut body = vec![0; 4]; // AF_UNSPEC and padding
    body.extend(ifindex.to_ne_bytes());
    body.extend([0; 4]); // handle
    body.extend(parent.to_ne_bytes());
    body.extend([0; 4]); // info
    let answer = match netlink::ask(Family::Route, libc::RTM_GETTFILTER, true, &body) {
        Ok(answer) => answer,
        // No such qdisc there, or no traffic control at all.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP)
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail()(error)),
    };
    // A chain is announced by its kind before each of its filters is, with options.
    let filter = |payload: &[u8]| {
        let all = payload.get(TCMSG..)?;
        let options = attribute(all, TCA_OPTIONS)?;
        let kind = attribute(all, TCA_KIND).map(text).unwrap_or_default();
        let handle = u32_at(payload, 8)?;
        let name = attribute(options, TCA_BPF_NAME).map_or(kind, text);
        (handle != 0).then_some(Attached {
            hook: "clsact",
            ingress,
            name,
        })
    };
    let mut found: Vec<_> = answer
        .iter()
        .filter_map(|message| filter(&message.payload))
        .collect();
    // One filter of a kind with tables (u32) has several entries.
    found.dedup();
    Ok(found)
}

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETFLOWTABLE`, `struct nfgenmsg`, and the attributes of
/// linux/netfilter/nf_tables.h.
const GET_FLOWTABLE: u16 = 10 << 8 | 23;
const NFGEN: usize = 4;
const FLOWTABLE_TABLE: u16 = 1;
const FLOWTABLE_NAME: u16 = 2;
const FLOWTABLE_HOOK: u16 = 3;
const HOOK_DEVS: u16 = 3;

/// A flow table of nftables: established flows between its devices go by the shortest way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTable {
    /// Table and name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<String>,
}

/// The flow tables of the calling thread's namespace; none if the kernel has no nftables.
pub fn flow_tables() -> Result<Vec<FlowTable>, Error> {
    let body = [0; NFGEN]; // NFPROTO_UNSPEC: of all families
    let answer = match netlink::ask(Family::Netfilter, GET_FLOWTABLE, true, &body) {
        Ok(answer) => answer,
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::os("listing", "flow tables")(error)),
    };
    Ok(answer
        .iter()
        .filter_map(|message| flow_table(&message.payload))
        .collect())
}

fn flow_table(payload: &[u8]) -> Option<FlowTable> {
    let all = payload.get(NFGEN..)?;
    let name = |kind| attribute(all, kind).map(text);
    let devices = attribute(all, FLOWTABLE_HOOK)
        .and_then(|hook| attribute(hook, HOOK_DEVS))
        .map(|devices| attributes(devices).map(|(_, name)| text(name)).collect());
    Some(FlowTable {
        name: format!("{} {}", name(FLOWTABLE_TABLE)?, name(FLOWTABLE_NAME)?),
        devices: devices.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::netlink::push;

    #[test]
    fn a_flow_table_is_read_with_its_devices() {
        // As `nft` and the kernel lay it out: the nested types carry NLA_F_NESTED.
        let (mut devices, mut hook, mut message) = (Vec::new(), Vec::new(), vec![0; NFGEN]);
        push(&mut devices, 1, b"eth0\0");
        push(&mut devices, 1, b"veth1\0");
        push(&mut hook, 1, &0u32.to_be_bytes());
        push(&mut hook, HOOK_DEVS | 0x8000, &devices);
        push(&mut message, FLOWTABLE_TABLE, b"filter\0");
        assert_eq!(flow_table(&message), None, "a table of no name");
        push(&mut message, FLOWTABLE_NAME, b"fast\0");
        push(&mut message, FLOWTABLE_HOOK | 0x8000, &hook);
        let table = flow_table(&message).unwrap();
        assert_eq!(table.name, "filter fast");
        assert_eq!(table.devices, ["eth0", "veth1"]);
    }

    #[test]
    fn causes_are_told_on_one_line() {
        let error = Error::os("doing", "this")(io::Error::other("first\nsecond"));
        assert_eq!(chain(&error), "doing this: first");
    }
}
