//! Which interface is which endpoint.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use tollgate_wire::tag::EndpointId;

use crate::Error;
use crate::abi::{self, map};

/// One endpoint as the programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    /// The endpoint.
    pub id: EndpointId,
    /// Its host-side interface.
    pub ifindex: u32,
    /// A policy selects it; otherwise the programs pass everything.
    pub governed: bool,
}

/// The programs' list of endpoints.
pub struct Endpoints {
    by_ifindex: HashMap<MapData, u32, abi::Endpoint>,
    ifindex: Array<MapData, u32>,
}

impl Endpoints {
    /// Opens the maps pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let by_ifindex = open(pin_dir, map::ENDPOINTS)?;
        let ifindex = open(pin_dir, map::IFINDEX)?;
        Ok(Self {
            by_ifindex: HashMap::try_from(by_ifindex)
                .map_err(Error::map("opening", map::ENDPOINTS))?,
            ifindex: Array::try_from(ifindex).map_err(Error::map("opening", map::IFINDEX))?,
        })
    }

    /// Adds or changes an endpoint; an interface that it had before is unlisted. Attached programs drop what comes by an interface that is not
    /// listed, so list an endpoint before attaching to its interface.
    pub fn set(&mut self, entry: EndpointEntry) -> Result<(), Error> {
        let id = u32::from(entry.id.get());
        let flags = if entry.governed { abi::GOVERNED } else { 0 };
        let before = self
            .ifindex
            .get(&id, 0)
            .map_err(Error::map("reading", map::IFINDEX))?;
        if before != 0 && before != entry.ifindex {
            self.forget(before)?;
        }
        // The way back first: a diverted packet must find it.
        self.ifindex
            .set(id, entry.ifindex, 0)
            .map_err(Error::map("writing", map::IFINDEX))?;
        self.by_ifindex
            .insert(entry.ifindex, abi::Endpoint { id, flags }, 0)
            .map_err(Error::map("writing", map::ENDPOINTS))
    }

    /// Removes an endpoint; true if it was there. Detach from its interface first.
    pub fn remove(&mut self, id: EndpointId) -> Result<bool, Error> {
        let mut found = false;
        for entry in self.list()?.into_iter().filter(|e| e.id == id) {
            found |= self.forget(entry.ifindex)?;
        }
        self.ifindex
            .set(u32::from(id.get()), 0, 0)
            .map_err(Error::map("writing", map::IFINDEX))?;
        Ok(found)
    }

    fn forget(&mut self, ifindex: u32) -> Result<bool, Error> {
        match self.by_ifindex.remove(&ifindex) {
            Ok(()) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(Error::map("writing", map::ENDPOINTS)(e)),
        }
    }

    /// All endpoints, in no order.
    pub fn list(&self) -> Result<Vec<EndpointEntry>, Error> {
        let mut list = Vec::new();
        for item in self.by_ifindex.iter() {
            let (ifindex, raw) = item.map_err(Error::map("reading", map::ENDPOINTS))?;
            let id = u16::try_from(raw.id).ok().and_then(EndpointId::new);
            let governed = raw.flags & abi::GOVERNED != 0;
            list.extend(id.map(|id| EndpointEntry {
                id,
                ifindex,
                governed,
            }));
        }
        Ok(list)
    }
}

/// Opens a pinned map.
pub(crate) fn open(pin_dir: &Path, name: &'static str) -> Result<Map, Error> {
    MapData::from_pin(pin_dir.join(name))
        .and_then(Map::from_map_data)
        .map_err(Error::map("opening", name))
}

/// Does the error say that there is no such entry?
pub(crate) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || errno(error) == Some(libc::ENOENT)
}

/// What the kernel said, if it was the kernel.
pub(crate) fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(e) => e.io_error.raw_os_error(),
        _ => None,
    }
}
