//! What can go wrong, and with what.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// An operation of the data path that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call.
    #[error("{action} {object}: {source}")]
    Os {
        /// What was being done, e.g. `opening`.
        action: &'static str,
        /// To what, e.g. an interface or a path.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Loading the object.
    #[error("loading the BPF object: {0}")]
    Load(#[from] Box<EbpfError>),
    /// A program of the object.
    #[error("{action} program {program} {object}: {source}")]
    Program {
        /// What was being done, e.g. `attaching`.
        action: &'static str,
        /// The program.
        program: &'static str,
        /// Where, e.g. an interface.
        object: String,
        /// What was wrong.
        source: Box<ProgramError>,
    },
    /// The object lacks something; the object and this crate do not belong together.
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
    /// A map operation.
    #[error("{action} map {map}: {source}")]
    Map {
        /// What was being done, e.g. `reading`.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// What was wrong.
        source: Box<MapError>,
    },
    /// The pinned maps were written by another version.
    #[error(
        "the maps pinned in {} have layout {found}, this version needs {expected}; run `tollgate cleanup`, or allow the agent to recreate them (decided flows are judged anew)",
        .dir.display()
    )]
    Layout {
        /// Where the maps are pinned.
        dir: PathBuf,
        /// What is there: a version, or the map that has other sizes.
        found: String,
        /// The version of this crate.
        expected: u32,
    },
    /// An interface that carries no Ethernet frames.
    #[error("interface {0} is not an Ethernet interface")]
    NotEthernet(String),
    /// The queue of a TAP was needed after all had been given away.
    #[error("TAP {0} has no open queue here")]
    NoQueue(String),
    /// An interface name that the kernel would not take.
    #[error("{0:?} is no interface name (1 to 15 bytes, no slash or white space)")]
    InterfaceName(String),
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] crate::ovs::OvsError),
}

impl Error {
    /// A stable word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Os { .. } => "system-call",
            Self::Load(_) => "bpf-load",
            Self::Program { .. } => "bpf-program",
            Self::Missing(_) => "bpf-object",
            Self::Map { .. } => "bpf-map",
            Self::Layout { .. } => "bpf-map-layout",
            Self::NotEthernet(_) => "not-ethernet",
            Self::NoQueue(_) => "no-tap-queue",
            Self::InterfaceName(_) => "interface-name",
            Self::Ovs(_) => "open-vswitch",
        }
    }

    /// True if the interface in question does not exist (any more).
    pub fn is_gone(&self) -> bool {
        let gone = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
        match self {
            Self::Os { source, .. } => gone(source),
            Self::Program { source, .. } => match source.as_ref() {
                ProgramError::SyscallError(e) => gone(&e.io_error),
                _ => false,
            },
            _ => false,
        }
    }

    pub(crate) fn os(
        action: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(io::Error) -> Self {
        let object = object.to_string();
        move |source| Self::Os {
            action,
            object,
            source,
        }
    }

    pub(crate) fn map(action: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            action,
            map,
            source: Box::new(source),
        }
    }
}
