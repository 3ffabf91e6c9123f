//! The test bed's switch: sends what passes between an endpoint and the node's gateway through two
//! ports, as a switch does that hands traffic to an inline engine. No part of the gate: see
//! `bpf/detour.bpf.c`.

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{SchedClassifier, TcAttachType, TcError, tc};

use crate::{Error, links};

/// Built by `cargo xtask bpf` from `bpf/detour.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../bpf/detour.bpf.o"
));

const IN: &str = "detour_in";
const OUT: &str = "detour_out";
const CONFIG: &str = "detour_config";

/// Where the detour leads, by names of interfaces in the calling thread's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The endpoint's host-side interface: what comes in here goes to the engine.
    pub endpoint: &'a str,
    /// The switch's end of the gateway's link: what comes in here goes to the engine too.
    pub gateway: &'a str,
    /// Ethernet address of the gateway; frames for it go there, all others to the endpoint.
    pub gateway_mac: [u8; 6],
    /// The port by which frames go to the engine.
    pub to_engine: &'a str,
    /// The port by which they come back.
    pub from_engine: &'a str,
    /// Number of the VLAN that the engine sees, 1 to 4094.
    pub vlan: u16,
}

/// `struct detour` of the program.
#[derive(Clone, Copy)]
#[repr(C)]
struct Config {
    to_engine: u32,
    endpoint: u32,
    gateway: u32,
    vlan: u16,
    gateway_mac: [u8; 6],
}

const _: () = assert!(size_of::<Config>() == 20, "no padding");

// SAFETY: plain integers and an array of them without padding (see the size above): every bit
// pattern is a value, and no byte is uninitialised.
unsafe impl aya::Pod for Config {}

/// A detour in force. Dropping it ends it: frames take their usual way again.
pub struct Detour {
    _ebpf: Ebpf,
}

impl Detour {
    /// Puts the programs at the interfaces. IP frames take the detour, ARP and neighbour discovery
    /// do not.
    ///
    /// # Errors
    /// An interface is not there, or the kernel refuses a program.
    pub fn start(route: Route<'_>) -> Result<Self, Error> {
        let mut ebpf = Ebpf::load(OBJECT).map_err(Box::new)?;
        let config = Config {
            to_engine: links::index(route.to_engine)?,
            endpoint: links::index(route.endpoint)?,
            gateway: links::index(route.gateway)?,
            vlan: route.vlan,
            gateway_mac: route.gateway_mac,
        };
        let map = ebpf.map_mut(CONFIG).ok_or(Error::Missing(CONFIG))?;
        let mut map: Array<_, Config> = map.try_into().map_err(Error::map("opening", CONFIG))?;
        map.set(0, config, 0)
            .map_err(Error::map("writing", CONFIG))?;
        attach(&mut ebpf, OUT, &[route.from_engine])?;
        attach(&mut ebpf, IN, &[route.endpoint, route.gateway])?;
        Ok(Self { _ebpf: ebpf })
    }
}

fn attach(ebpf: &mut Ebpf, name: &'static str, interfaces: &[&str]) -> Result<(), Error> {
    let program: Option<&mut SchedClassifier> = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok());
    let program = program.ok_or(Error::Missing(name))?;
    let fail = |action, object: &str, source| Error::Program {
        action,
        program: name,
        object: object.to_owned(),
        source: Box::new(source),
    };
    program.load().map_err(|e| fail("loading", "", e))?;
    for interface in interfaces {
        // Kernels before 6.6 attach classifiers to this discipline; later ones do not need it.
        match tc::qdisc_add_clsact(interface) {
            Ok(()) | Err(TcError::AlreadyAttached) => {}
            Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
            Err(e) => return Err(fail("adding clsact for", interface, e.into())),
        }
        program
            .attach(interface, TcAttachType::Ingress)
            .map_err(|e| fail("attaching", interface, e))?;
    }
    Ok(())
}
