//! The kernel programs: loading, adopting, attaching, removing.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, MapData, MapInfo};
use aya::programs::SocketFilter;
use aya::{Ebpf, EbpfLoader};
use tollgate_wire::tag::EndpointId;

use crate::abi::{self, ABI_VERSION, CONFIG_INDEX, Config, FLOWS_MAX, map};
use crate::endpoints::{Endpoints, open};
use crate::flows::FlowMap;
use crate::hook::{FROM_ENDPOINT, FROM_TAP, HOOKS, Hook, TO_ENDPOINT};
use crate::{Error, bpffs, links, tap};

pub use crate::hook::Mechanism;

/// Built by `cargo xtask bpf` from `bpf/tollgate.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../bpf/tollgate.bpf.o"
));

/// The usual place of the pins.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/tollgate";

const STEERING: &str = "tg_steer";
/// Every map with the sizes of its key and value (0: a ring buffer has none).
const MAPS: [(&str, usize, usize); 6] = [
    (map::CONFIG, size_of::<u32>(), size_of::<Config>()),
    (map::ENDPOINTS, size_of::<u32>(), size_of::<abi::Endpoint>()),
    (map::IFINDEX, size_of::<u32>(), size_of::<u32>()),
    (map::FLOWS, size_of::<abi::Key>(), size_of::<abi::Flow>()),
    (map::CLOSED, 0, 0),
    (map::COUNTERS, size_of::<u32>(), size_of::<u64>()),
];

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of the flow cache, allocated at once (about 200 bytes each). Has no effect on a
    /// cache that is adopted.
    pub flow_entries: u32,
    /// How to attach; `None`: tcx if the kernel has it.
    pub mechanism: Option<Mechanism>,
    /// Throw pinned maps of another layout away instead of failing; decided flows are then judged
    /// anew, and endpoints have to be set again.
    pub recreate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flow_entries: FLOWS_MAX,
            mechanism: None,
            recreate: false,
        }
    }
}

/// The loaded programs. Dropping this detaches nothing.
pub struct Programs {
    ebpf: Ebpf,
    dir: PathBuf,
    mechanism: Mechanism,
    adopted: bool,
}

impl Programs {
    /// Loads the programs over the maps pinned in `dir`, which are made if they are not there, and
    /// puts them, one by one and atomically, in the place of those that are attached already. A
    /// bpffs is mounted if there is none.
    ///
    /// # Errors
    /// [`Error::Layout`] if the maps are another version's and `settings.recreate` is not set.
    pub fn load_or_adopt(dir: &Path, settings: &Settings) -> Result<Self, Error> {
        bpffs::prepare(dir)?;
        // The maps that are recreated are the ones that tell where classifiers are.
        let places = classifier_places(dir);
        let adopted = adoptable(dir, settings.recreate)?;
        let places = match places {
            Err(error) if adopted => return Err(error),
            places => places.unwrap_or_default(),
        };
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(dir)
            .map_max_entries(map::FLOWS, settings.flow_entries)
            .load(OBJECT)
            .map_err(Box::new)?;
        for hook in HOOKS {
            hook.load(&mut ebpf)?;
        }
        load_steering(&mut ebpf)?;
        let mechanism = settings.mechanism.unwrap_or_else(best_mechanism);
        let mut programs = Self {
            ebpf,
            dir: dir.to_owned(),
            mechanism,
            adopted,
        };
        let tap_ifindex = if adopted {
            programs.config()?.tap_ifindex
        } else {
            0
        };
        programs.set_config(Config {
            abi_version: ABI_VERSION,
            tap_ifindex,
        })?;
        programs.replace_attached(places)?;
        Ok(programs)
    }

    /// Were maps with their content found?
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// How programs are attached.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Attaches to an endpoint's host-side interface, or renews what is attached. List the endpoint
    /// in [`Endpoints`] first: until then its packets are dropped.
    pub fn attach(&mut self, ifname: &str) -> Result<(), Error> {
        if !links::by_name(ifname)?.ethernet {
            return Err(Error::NotEthernet(ifname.to_owned()));
        }
        // What goes to it first: nothing can be diverted on its way out and then miss the gate on
        // the way in.
        for hook in [TO_ENDPOINT, FROM_ENDPOINT] {
            hook.attach(&mut self.ebpf, &self.dir, ifname, self.mechanism)?;
        }
        Ok(())
    }

    /// Detaches from an endpoint's interface: its traffic passes ungoverned from then on. No
    /// program there is no error; no such interface is.
    pub fn detach(&mut self, ifname: &str) -> Result<(), Error> {
        FROM_ENDPOINT.detach(&self.dir, ifname)?;
        TO_ENDPOINT.detach(&self.dir, ifname)?;
        Ok(())
    }

    /// Attaches to the TAP and tells the other programs of it.
    pub fn attach_tap(&mut self, ifname: &str) -> Result<(), Error> {
        let tap_ifindex = links::index(ifname)?;
        FROM_TAP.attach(&mut self.ebpf, &self.dir, ifname, self.mechanism)?;
        self.set_config(Config {
            abi_version: ABI_VERSION,
            tap_ifindex,
        })
    }

    /// The program for [`tap::Tap::set_steering`].
    pub fn steering(&self) -> Result<BorrowedFd<'_>, Error> {
        let program: Option<&SocketFilter> = self
            .ebpf
            .program(STEERING)
            .and_then(|program| program.try_into().ok());
        let fd = program.and_then(|program| program.fd().ok());
        fd.map(AsFd::as_fd).ok_or(Error::Missing(STEERING))
    }

    /// Removes what belongs to interfaces that are gone: endpoints, their cached flows, pins.
    /// Returns the endpoints that were removed.
    pub fn reap(&mut self) -> Result<Vec<EndpointId>, Error> {
        for (hook, ifindex) in pinned_links(&self.dir)? {
            if !links::exists(ifindex) {
                hook.detach_tcx(&self.dir, ifindex)?;
            }
        }
        let mut endpoints = Endpoints::open(&self.dir)?;
        let mut flows = FlowMap::open(&self.dir)?;
        let mut gone = Vec::new();
        for entry in endpoints.list()? {
            if !links::exists(entry.ifindex) {
                endpoints.remove(entry.id)?;
                flows.delete_endpoint(entry.id);
                gone.push(entry.id);
            }
        }
        Ok(gone)
    }

    fn config(&self) -> Result<Config, Error> {
        read_config(&self.dir)
    }

    fn set_config(&mut self, config: Config) -> Result<(), Error> {
        let mut map = open_config(&self.dir)?;
        map.set(CONFIG_INDEX, config, 0)
            .map_err(Error::map("writing", map::CONFIG))
    }

    /// Puts the new programs in the place of the attached ones.
    fn replace_attached(&mut self, classifiers: Vec<(Hook, String)>) -> Result<(), Error> {
        for (hook, ifindex) in pinned_links(&self.dir)? {
            hook.replace_pinned(&mut self.ebpf, &self.dir, ifindex)?;
        }
        for (hook, ifname) in classifiers {
            hook.replace_classifier(&mut self.ebpf, &ifname)?;
        }
        Ok(())
    }
}

fn best_mechanism() -> Mechanism {
    if Mechanism::Tcx.is_known_here() {
        Mechanism::Tcx
    } else {
        Mechanism::Clsact
    }
}

fn load_steering(ebpf: &mut Ebpf) -> Result<(), Error> {
    let program: Option<&mut SocketFilter> = ebpf
        .program_mut(STEERING)
        .and_then(|program| program.try_into().ok());
    let fail = |source| Error::Program {
        action: "loading",
        program: STEERING,
        object: String::new(),
        source: Box::new(source),
    };
    program
        .ok_or(Error::Missing(STEERING))?
        .load()
        .map_err(fail)
}

fn open_config(dir: &Path) -> Result<Array<MapData, Config>, Error> {
    let raw = open(dir, map::CONFIG)?;
    Array::try_from(raw).map_err(Error::map("opening", map::CONFIG))
}

fn read_config(dir: &Path) -> Result<Config, Error> {
    open_config(dir)?
        .get(&CONFIG_INDEX, 0)
        .map_err(Error::map("reading", map::CONFIG))
}

/// Are there maps to adopt? Those of another layout are an error, or are removed.
fn adoptable(dir: &Path, recreate: bool) -> Result<bool, Error> {
    let Some(found) = other_layout(dir)? else {
        return Ok(dir.join(map::CONFIG).exists());
    };
    if !recreate {
        let dir = dir.to_owned();
        return Err(Error::Layout {
            dir,
            found,
            expected: ABI_VERSION,
        });
    }
    for (name, ..) in MAPS {
        bpffs::remove(&dir.join(name))?;
    }
    Ok(false)
}

/// What is different about the maps pinned in `dir`, if anything is.
fn other_layout(dir: &Path) -> Result<Option<String>, Error> {
    for (name, key, value) in MAPS {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(Error::map("reading", name))?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes != (key, value) {
            return Ok(Some(format!("{name} with key and value sizes {sizes:?}")));
        }
    }
    if !dir.join(map::CONFIG).exists() {
        return Ok(None);
    }
    let version = read_config(dir)?.abi_version;
    // 0: an agent died between making the maps and writing the version; they are empty.
    Ok((version != ABI_VERSION && version != 0).then(|| version.to_string()))
}

/// What lies in a directory of pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Nothing: it is not there, or empty.
    None,
    /// Maps of this version's layout.
    Ours,
    /// Maps of another version: which.
    OtherLayout(String),
    /// Something that is not ours: its names.
    Foreign(Vec<String>),
}

/// Whose pins lie in a directory.
pub fn pins(dir: &Path) -> Result<Pins, Error> {
    let fail = || Error::os("reading", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Pins::None),
        Err(error) => return Err(fail()(error)),
    };
    let (mut foreign, mut ours) = (Vec::new(), false);
    for entry in entries {
        let path = entry.map_err(fail())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if MAPS.iter().any(|(map, ..)| *map == name) || Hook::of_pin(&path).is_some() {
            ours = true;
        } else {
            foreign.push(name.into_owned());
        }
    }
    foreign.sort();
    Ok(match (foreign.is_empty(), ours) {
        (false, _) => Pins::Foreign(foreign),
        (true, false) => Pins::None,
        (true, true) => other_layout(dir)?.map_or(Pins::Ours, Pins::OtherLayout),
    })
}

/// The pinned links in `dir`.
fn pinned_links(dir: &Path) -> Result<Vec<(Hook, u32)>, Error> {
    let fail = || Error::os("reading", dir.display());
    let mut links = Vec::new();
    for item in fs::read_dir(dir).map_err(fail())? {
        links.extend(Hook::of_pin(&item.map_err(fail())?.path()));
    }
    Ok(links)
}

/// Where classifiers of ours may be: at the endpoints and the TAP that the maps name.
fn classifier_places(dir: &Path) -> Result<Vec<(Hook, String)>, Error> {
    let mut places = Vec::new();
    if dir.join(map::ENDPOINTS).exists() {
        for entry in Endpoints::open(dir)?.list()? {
            let Some(ifname) = links::name(entry.ifindex) else {
                continue;
            };
            places.push((FROM_ENDPOINT, ifname.clone()));
            places.push((TO_ENDPOINT, ifname));
        }
    }
    if dir.join(map::CONFIG).exists() {
        let tap = links::name(read_config(dir)?.tap_ifindex);
        places.extend(tap.map(|tap| (FROM_TAP, tap)));
    }
    Ok(places)
}

/// Detaches and removes everything: programs, links, the TAP, maps. Traffic passes ungoverned from
/// then on. What is not there is no error; returns what was, for people. A clsact qdisc that was
/// added stays: others may use it.
pub fn cleanup(dir: &Path, tap: &str) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if dir.exists() {
        detach_all(dir, &mut removed)?;
    }
    if tap::remove(tap)? {
        removed.push(format!("TAP {tap}"));
    }
    for (name, ..) in MAPS {
        if bpffs::remove(&dir.join(name))? {
            removed.push(format!("map {name}"));
        }
    }
    if dir.exists() {
        fs::remove_dir(dir).map_err(Error::os("removing", dir.display()))?;
        removed.push(format!("directory {}", dir.display()));
    }
    Ok(removed)
}

fn detach_all(dir: &Path, removed: &mut Vec<String>) -> Result<(), Error> {
    for (hook, ifname) in classifier_places(dir)? {
        removed.extend(hook.detach(dir, &ifname)?);
    }
    // Links at interfaces that the maps do not name, or that are gone.
    for (hook, ifindex) in pinned_links(dir)? {
        if hook.detach_tcx(dir, ifindex)? {
            removed.push(format!("program {} at interface {ifindex}", hook.program));
        }
    }
    Ok(())
}
