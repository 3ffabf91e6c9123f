//! Brings a lab up and takes it down again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};

use crate::agent::AgentHandle;
use crate::content;
use crate::error::{IoContext, LabError, Result};
use crate::interrupt;
use crate::names::{
    DEFAULT_NAME, HOSTS, INNER_IF, Names, OUT_V4, OUT_V6, POD_V4, POD_V6, STATE_ROOT,
};
use crate::net::{self, Mtu};
use crate::nginx;
use crate::pki;
use crate::procs;
use crate::run::{Cmd, netns_path};

/// MTU of both links unless told otherwise.
pub const DEFAULT_MTU: u16 = 1500;
/// Smallest MTU that carries IPv6 (RFC 8200, section 5).
pub const MIN_MTU: u16 = 1280;
/// Largest MTU that the lab offers; veth takes a little more.
pub const MAX_MTU: u16 = 65_000;
/// Room on the lab's tmpfs beyond the large object: one upload of the same size and one spare.
const WWW_COPIES: u64 = 3;
/// Room for small files and nginx's buffers.
const WWW_SLACK: u64 = 64 << 20;
/// Record of the process that a lab lives and dies with.
const OWNER: &str = "owner";

/// How the outside hands packets to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outside {
    /// All offloads on: super-packets with partial checksums, as from anything on the same host.
    #[default]
    Veth,
    /// The outside's segmentation and checksum offloads off, GRO on the node's uplink: frames cross
    /// at MTU size with full checksums and are merged, as behind a network card.
    Wire,
}

impl std::str::FromStr for Outside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "veth" => Ok(Outside::Veth),
            "wire" => Ok(Outside::Wire),
            other => Err(format!("outside {other:?}: use veth or wire")),
        }
    }
}

impl std::fmt::Display for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Outside::Veth => "veth",
            Outside::Wire => "wire",
        })
    }
}

/// What lab to make.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Its name; see [`Names::new`].
    pub name: String,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// MTU of the pod's link in bytes, 1280 to 65000.
    pub pod_mtu: u16,
    /// MTU of the link to the outside in bytes, 1280 to 65000.
    pub out_mtu: u16,
    /// Size of the large object that nginx serves, in bytes.
    pub big_bytes: u64,
}

impl Default for UpOptions {
    fn default() -> Self {
        UpOptions {
            name: DEFAULT_NAME.into(),
            outside: Outside::Veth,
            pod_mtu: DEFAULT_MTU,
            out_mtu: DEFAULT_MTU,
            big_bytes: content::BIG_BYTES,
        }
    }
}

/// What is known about a lab after it was made; `state.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabInfo {
    /// Its name.
    pub name: String,
    /// How the outside hands packets to the node.
    pub outside: Outside,
    /// MTU of the pod's link.
    pub pod_mtu: u16,
    /// MTU of the link to the outside.
    pub out_mtu: u16,
    /// Size of the large object `/v2/data/big.bin`.
    pub big_bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub big_sha256: String,
}

/// Which namespace a command runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The governed endpoint.
    Pod,
    /// The node.
    Node,
    /// The external host.
    Out,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pod" => Ok(Place::Pod),
            "node" => Ok(Place::Node),
            "out" | "outside" => Ok(Place::Out),
            other => Err(format!("place {other:?}: use pod, node or out")),
        }
    }
}

/// A running lab; dropping it takes it down unless it was [kept](Lab::keep).
#[derive(Debug)]
pub struct Lab {
    /// Its names and paths.
    pub names: Names,
    /// What it is.
    pub info: LabInfo,
    kept: bool,
}

/// Makes a lab that lives as long as this process holds the value.
///
/// What an earlier lab of the same name left behind is removed first.
///
/// # Errors
/// Not root, a name in use, or anything that a step could not do; what was made is removed.
pub fn up(options: &UpOptions) -> Result<Lab> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let names = Names::new(&options.name)?;
    for mtu in [options.pod_mtu, options.out_mtu] {
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            return Err(LabError::Usage(format!(
                "MTU {mtu}: use {MIN_MTU} to {MAX_MTU}"
            )));
        }
    }
    interrupt::install();
    refuse_if_owned(&names)?;
    down(&options.name)?;
    let mut lab = Lab {
        info: LabInfo {
            name: options.name.clone(),
            outside: options.outside,
            pod_mtu: options.pod_mtu,
            out_mtu: options.out_mtu,
            big_bytes: options.big_bytes,
            big_sha256: String::new(),
        },
        names,
        kept: false,
    };
    lab.make(options)?;
    Ok(lab)
}

impl Lab {
    fn make(&mut self, options: &UpOptions) -> Result<()> {
        let names = &self.names;
        create_state_dir(&names.procs())?;
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        procs::record(&names.procs(), OWNER, me)?;
        mount_at(
            &names.www(),
            c"tmpfs",
            options.big_bytes * WWW_COPIES + WWW_SLACK,
        )?;
        mount_at(&names.bpffs(), c"bpf", 0)?;
        let (www, big_bytes) = (names.www(), options.big_bytes);
        // Takes longest, needs nothing else: made beside the network.
        let content = std::thread::spawn(move || content::populate(&www, big_bytes));
        let mtu = Mtu {
            pod: options.pod_mtu,
            out: options.out_mtu,
        };
        let network = net::create(names, mtu, options.outside).and_then(|()| pki::create(names));
        let content = content
            .join()
            .unwrap_or(Err(LabError::NotReady("content maker died".into())));
        network?;
        self.info.big_sha256 = content?;
        self.write_hosts()?;
        nginx::start(names)?;
        let text = serde_json::to_string_pretty(&self.info).map_err(std::io::Error::from);
        let path = self.names.dir().join("state.json");
        fs::write(&path, text.doing("writing", &path)?).doing("writing", path)
    }

    fn write_hosts(&self) -> Result<()> {
        let hosts = HOSTS.join(" ");
        let text = format!(
            "127.0.0.1 localhost\n::1 localhost\n{OUT_V4} {hosts}\n{OUT_V6} v6.example.com\n"
        );
        let path = self.names.hosts_file();
        fs::write(&path, text).doing("writing", path)
    }

    /// Lets it live after this process.
    pub fn keep(mut self) {
        procs::forget(&self.names.procs(), OWNER);
        self.kept = true;
    }

    /// A command in a namespace of the lab.
    pub fn at(&self, place: Place, cmd: Cmd) -> Cmd {
        cmd.in_netns(self.netns(place))
    }

    /// A command in the pod that finds the lab's servers by name, through `/etc/hosts`.
    pub fn pod_by_name(&self, cmd: Cmd) -> Cmd {
        by_name(&self.names, cmd)
    }

    /// Name of a namespace.
    pub fn netns(&self, place: Place) -> &str {
        netns(&self.names, place)
    }

    /// Takes it down and tells what could not be removed.
    ///
    /// # Errors
    /// Something is still there; see [`down`].
    pub fn down(mut self) -> Result<()> {
        self.kept = true;
        remove(&self.names)
    }
}

/// Creates a lab's directory. Another lab that ends at this moment removes the common root if that is
/// empty, perhaps between two steps of this: then it is made again.
fn create_state_dir(path: &Path) -> Result<()> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        match fs::create_dir_all(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            done => return done.doing("creating", path),
        }
    }
    fs::create_dir_all(path).doing("creating", path)
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(e) = remove(&self.names) {
            tracing::error!("{e}");
        }
    }
}

/// Removes a lab: processes, pins, namespaces, mounts and files. A lab that is not there is no
/// error.
///
/// # Errors
/// A bad name, or something could not be removed (named).
pub fn down(name: &str) -> Result<()> {
    remove(&Names::new(name)?)
}

fn refuse_if_owned(names: &Names) -> Result<()> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    match procs::recorded(&names.procs(), OWNER) {
        Some(id) if id.alive() && id.pid != me => Err(LabError::InUse {
            name: names.lab.clone(),
            pid: id.pid,
        }),
        _ => Ok(()),
    }
}

fn remove(names: &Names) -> Result<()> {
    AgentHandle::end_recorded(names);
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    for (_, process) in procs::all_recorded(&names.procs()) {
        if process.pid != me {
            process.end();
        }
    }
    let files: Vec<PathBuf> = names.namespaces().into_iter().map(netns_path).collect();
    for process in procs::inside(&files) {
        if process.pid != me {
            process.end();
        }
    }
    let mut left: Vec<String> = net::remove(names);
    for dir in [names.bpffs(), names.www()] {
        while is_mount(&dir) {
            if unmount(&dir, UnmountFlags::DETACH).is_err() {
                left.push(dir.display().to_string());
                break;
            }
        }
    }
    // With a mount left in place, removing the directory would reach into it.
    if left.is_empty() && names.dir().exists() && fs::remove_dir_all(names.dir()).is_err() {
        left.push(names.dir().display().to_string());
    }
    // Fails, rightly, while another lab is there.
    let _ = fs::remove_dir(STATE_ROOT);
    if left.is_empty() {
        return Ok(());
    }
    Err(LabError::NotReady(format!(
        "could not remove {}",
        left.join(", ")
    )))
}

/// Everything of a lab that still exists, for proofs that nothing is left behind.
pub fn remains(names: &Names) -> Vec<String> {
    let namespaces = names.namespaces().into_iter().map(netns_path);
    let paths = namespaces.chain([names.dir()]).filter(|p| p.exists());
    let mut left: Vec<String> = paths.map(|p| p.display().to_string()).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = names.dir().display().to_string();
    left.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&dir))
            .map(ToOwned::to_owned),
    );
    left
}

/// Labs that are up, in order of name.
pub fn list() -> Vec<LabInfo> {
    let entries = fs::read_dir(STATE_ROOT).into_iter().flatten().flatten();
    let mut labs: Vec<LabInfo> = entries.filter_map(|e| read_info(&e.path())).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

fn read_info(dir: &Path) -> Option<LabInfo> {
    serde_json::from_str(&fs::read_to_string(dir.join("state.json")).ok()?).ok()
}

/// Runs a command, or a shell if it is empty, in a lab's namespace, on this terminal.
///
/// In the pod, the lab's servers have names and curl and openssl trust the lab's CA.
///
/// # Errors
/// No such lab, or the command cannot be run.
pub fn exec(name: &str, place: Place, command: &[String]) -> Result<ExitStatus> {
    let names = Names::new(name)?;
    if read_info(&names.dir()).is_none() {
        return Err(LabError::NoSuchLab(name.into()));
    }
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let cmd = match command.split_first() {
        Some((program, args)) => Cmd::new(program).args(args),
        None => Cmd::new(shell),
    };
    let cmd = match place {
        Place::Pod => by_name(&names, cmd),
        _ => cmd.in_netns(netns(&names, place)),
    };
    let ca = names.ca();
    cmd.env("CURL_CA_BUNDLE", &ca)
        .env("SSL_CERT_FILE", &ca)
        .interactive()
}

fn netns(names: &Names, place: Place) -> &str {
    match place {
        Place::Pod => &names.pod,
        Place::Node => &names.node,
        Place::Out => &names.out,
    }
}

fn by_name(names: &Names, cmd: Cmd) -> Cmd {
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let hosts = names.hosts_file();
    let wrapped = Cmd::line("unshare --mount -- sh -c").arg(script).arg(hosts);
    cmd.wrapped_by(wrapped).in_netns(&names.pod)
}

fn is_mount(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.display().to_string();
    mounts
        .lines()
        .any(|l| l.split(' ').nth(1) == Some(dir.as_str()))
}

fn mount_at(dir: &Path, kind: &std::ffi::CStr, size: u64) -> Result<()> {
    fs::create_dir_all(dir).doing("creating", dir)?;
    let options = if size > 0 {
        format!("size={size},mode=755")
    } else {
        "mode=700".into()
    };
    let options = std::ffi::CString::new(options).map_err(std::io::Error::from);
    let options = options.doing("mounting", dir)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"tollgate-lab", dir, kind, flags, options.as_c_str()).doing("mounting", dir)
}

/// One line about what the pod is, for people.
pub fn describe(info: &LabInfo) -> String {
    format!(
        "{}: outside {}, MTU {} and {}, pod {INNER_IF} {POD_V4} {POD_V6}, outside {OUT_V4} {OUT_V6}",
        info.name, info.outside, info.pod_mtu, info.out_mtu
    )
}
