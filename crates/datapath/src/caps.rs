//! Giving up privileges.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::Error;

/// What attaching to new endpoints and writing maps needs.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF);

/// Gives up all capabilities but `CAP_NET_ADMIN` and `CAP_BPF`, for good. Acts on the calling
/// thread and on the threads that it starts afterwards: call it before starting any.
pub fn drop_unneeded() -> Result<(), Error> {
    let fail = || Error::os("giving up", "capabilities");
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know, or a process that never had them.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(fail()(io::Error::from(e))),
        }
    }
    let sets = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
        .map_err(io::Error::from)
        .map_err(fail())?;
    set_no_new_privs(true)
        .map_err(io::Error::from)
        .map_err(fail())
}

/// What keeping offload features in other network namespaces needs: switch them, enter the
/// namespaces, and look up those that only a process of another user leads to.
const FOR_OFFLOADS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// Keeps, of what the calling thread has, what is needed to keep offload features; for good. The
/// threads that it starts afterwards have no more either.
pub fn limit_to_offloads() -> io::Result<()> {
    let permitted = capabilities(None)?.permitted & FOR_OFFLOADS;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(set_no_new_privs(true)?)
}
