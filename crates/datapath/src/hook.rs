//! Programs at interfaces: tcx links where the kernel has them (6.6), else a classifier on clsact.
//!
//! A tcx link is pinned and outlives the agent; putting another program into it is atomic. A
//! classifier belongs to the interface; it is found again by priority and handle.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, TcError};
use aya::util::KernelVersion;

use crate::{Error, bpffs, links, sys};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A pinned tcx link (Linux 6.6 and later).
    Tcx,
    /// A classifier on the clsact qdisc.
    Clsact,
}

/// The first kernel with tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

impl Mechanism {
    /// Both, the better one first.
    pub const ALL: [Self; 2] = [Self::Tcx, Self::Clsact];

    /// Does the running kernel have it?
    pub fn is_known_here(self) -> bool {
        match self {
            Self::Tcx => KernelVersion::current().is_ok_and(|kernel| kernel >= TCX_SINCE),
            Self::Clsact => true,
        }
    }
}

/// The first to run. With it and the handle the kernel finds our classifier again; without them
/// every attachment would add another.
const PRIORITY: u16 = 1;
/// "toll"; others at the same priority have other handles.
const HANDLE: TcHandle = TcHandle::new(0x746f, 0x6c6c);

/// A program and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name in the object.
    pub program: &'static str,
    egress: bool,
    /// Ends the pin's name.
    suffix: &'static str,
}

/// At an endpoint: what leaves it.
pub const FROM_ENDPOINT: Hook = Hook {
    program: "tg_from_endpoint",
    egress: false,
    suffix: "from_endpoint",
};
/// At an endpoint: what goes to it.
pub const TO_ENDPOINT: Hook = Hook {
    program: "tg_to_endpoint",
    egress: true,
    suffix: "to_endpoint",
};
/// At the TAP: what the engine wrote.
pub const FROM_TAP: Hook = Hook {
    program: "tg_from_tap",
    egress: false,
    suffix: "from_tap",
};
/// All of them.
pub const HOOKS: [Hook; 3] = [FROM_ENDPOINT, TO_ENDPOINT, FROM_TAP];

impl Hook {
    fn attach_type(self) -> TcAttachType {
        if self.egress {
            TcAttachType::Egress
        } else {
            TcAttachType::Ingress
        }
    }

    /// Where its link at an interface is pinned. By index: an interface that comes again under the
    /// same name is another one. bpffs allows no dots.
    pub fn pin(self, dir: &Path, ifindex: u32) -> PathBuf {
        dir.join(format!("link_{ifindex}_{}", self.suffix))
    }

    /// The reverse of [`Self::pin`].
    pub fn of_pin(path: &Path) -> Option<(Self, u32)> {
        let name = path.file_name()?.to_str()?.strip_prefix("link_")?;
        let (ifindex, suffix) = name.split_once('_')?;
        let hook = HOOKS.into_iter().find(|hook| hook.suffix == suffix)?;
        Some((hook, ifindex.parse().ok()?))
    }

    fn error(self, action: &'static str, object: &str, source: ProgramError) -> Error {
        let object = object.to_owned();
        Error::Program {
            action,
            program: self.program,
            object,
            source: Box::new(source),
        }
    }

    fn program_of(self, ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Error> {
        ebpf.program_mut(self.program)
            .and_then(|program| program.try_into().ok())
            .ok_or(Error::Missing(self.program))
    }

    /// Loads the program into the kernel.
    pub fn load(self, ebpf: &mut Ebpf) -> Result<(), Error> {
        self.program_of(ebpf)?
            .load()
            .map_err(|e| self.error("loading", "", e))
    }

    /// Attaches the program, or puts it in the place of an older one.
    pub fn attach(
        self,
        ebpf: &mut Ebpf,
        dir: &Path,
        ifname: &str,
        mechanism: Mechanism,
    ) -> Result<(), Error> {
        let ifindex = links::index(ifname)?;
        let program = self.program_of(ebpf)?;
        match mechanism {
            Mechanism::Tcx => {
                if !self.replace_tcx(program, dir, ifindex)? {
                    self.attach_tcx(program, dir, ifname, ifindex)?;
                }
                // Only one of the two may see a packet: the first clears the mark by which the
                // second would know that the engine has had it.
                self.detach_clsact(ifname);
            }
            Mechanism::Clsact => {
                self.attach_clsact(program, ifname)?;
                self.detach_tcx(dir, ifindex)?;
            }
        }
        Ok(())
    }

    /// Puts the program into an existing pinned link; false if there is none that is still good.
    pub fn replace_pinned(self, ebpf: &mut Ebpf, dir: &Path, ifindex: u32) -> Result<bool, Error> {
        self.replace_tcx(self.program_of(ebpf)?, dir, ifindex)
    }

    /// Puts the program in the place of an existing classifier; false if there is none.
    pub fn replace_classifier(self, ebpf: &mut Ebpf, ifname: &str) -> Result<bool, Error> {
        Ok(self.replace_clsact(self.program_of(ebpf)?, ifname).is_ok())
    }

    fn replace_tcx(
        self,
        program: &mut SchedClassifier,
        dir: &Path,
        ifindex: u32,
    ) -> Result<bool, Error> {
        let pin = self.pin(dir, ifindex);
        let old = match PinnedLink::from_pin(&pin) {
            Ok(old) => old,
            Err(LinkError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(e) => return Err(self.error("finding", &pin.display().to_string(), link(e))),
        };
        let fail = |e| self.error("replacing", &pin.display().to_string(), e);
        let old = SchedClassifierLink::try_from(FdLink::from(old)).map_err(|e| fail(link(e)))?;
        match program.attach_to_link(old) {
            // Our handle on the link goes, the pin stays.
            Ok(id) => program.take_link(id).map(drop).map(|()| true).map_err(fail),
            // Its interface is gone; the index may have gone to another one.
            Err(ProgramError::SyscallError(e))
                if e.io_error.raw_os_error() == Some(libc::ENOLINK) =>
            {
                bpffs::remove(&pin).map(|_| false)
            }
            Err(e) => Err(fail(e)),
        }
    }

    fn attach_tcx(
        self,
        program: &mut SchedClassifier,
        dir: &Path,
        ifname: &str,
        ifindex: u32,
    ) -> Result<(), Error> {
        let fail = |e| self.error("attaching", ifname, e);
        // First, lest another program pass or redirect a packet that was never judged.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program
            .attach_with_options(ifname, self.attach_type(), order)
            .map_err(fail)?;
        let attached = program.take_link(id).map_err(fail)?;
        let attached = FdLink::try_from(attached).map_err(|e| fail(link(e)))?;
        let pin = self.pin(dir, ifindex);
        let pinned = attached.pin(&pin).map_err(|e| match e {
            aya::pin::PinError::SyscallError(e) => {
                Error::os("pinning a link at", pin.display())(e.io_error)
            }
            e => Error::os("pinning a link at", pin.display())(io::Error::other(e)),
        })?;
        drop(pinned);
        Ok(())
    }

    fn attach_clsact(self, program: &mut SchedClassifier, ifname: &str) -> Result<(), Error> {
        match tc::qdisc_add_clsact(ifname) {
            Ok(()) | Err(TcError::AlreadyAttached) => {}
            Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
            Err(e) => {
                return Err(self.error("adding clsact for", ifname, ProgramError::TcError(e)));
            }
        }
        if self.replace_clsact(program, ifname).is_ok() {
            return Ok(());
        }
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        let options = TcAttachOptions::Netlink(options);
        let fail = |e| self.error("attaching", ifname, e);
        let id = program
            .attach_with_options(ifname, self.attach_type(), options)
            .map_err(fail)?;
        // Dropping it would detach it.
        std::mem::forget(program.take_link(id).map_err(fail)?);
        Ok(())
    }

    fn replace_clsact(
        self,
        program: &mut SchedClassifier,
        ifname: &str,
    ) -> Result<(), ProgramError> {
        let old = self
            .classifier(ifname)
            .map_err(|e| ProgramError::TcError(TcError::IoError(e)))?;
        let id = program.attach_to_link(old)?;
        // Dropping it would detach it.
        std::mem::forget(program.take_link(id)?);
        Ok(())
    }

    fn classifier(self, ifname: &str) -> io::Result<SchedClassifierLink> {
        SchedClassifierLink::attached(ifname, self.attach_type(), PRIORITY, HANDLE, None)
    }

    fn detach_clsact(self, ifname: &str) -> bool {
        self.classifier(ifname)
            .is_ok_and(|old| old.detach().is_ok())
    }

    /// Detaches the pinned link, if there is one, and removes the pin.
    pub fn detach_tcx(self, dir: &Path, ifindex: u32) -> Result<bool, Error> {
        let pin = self.pin(dir, ifindex);
        match sys::obj_get(&pin).and_then(|link| sys::link_detach(link.as_fd())) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::os("detaching", pin.display())(e)),
        }
        bpffs::remove(&pin)
    }

    /// Detaches from an interface; returns what was there, for people.
    pub fn detach(self, dir: &Path, ifname: &str) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        if self.detach_tcx(dir, links::index(ifname)?)? {
            removed.push(format!("program {} at {ifname} (tcx)", self.program));
        }
        if self.detach_clsact(ifname) {
            removed.push(format!("program {} at {ifname} (clsact)", self.program));
        }
        Ok(removed)
    }
}

/// Links' errors as programs'.
fn link(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(e) => ProgramError::SyscallError(e),
        e => ProgramError::IOError(io::Error::other(e)),
    }
}
