//! The real data path.

use std::path::{Path, PathBuf};

use tollgate_datapath::bpf::{Programs, Settings};
use tollgate_datapath::closed::Closed;
use tollgate_datapath::counters::Counters;
use tollgate_datapath::endpoints::{EndpointEntry, Endpoints};
use tollgate_datapath::flows::FlowMap;
use tollgate_datapath::tap::{Offloads, Tap};
use tollgate_datapath::{Error, links};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::EndpointId;

use super::{Kernel, KernelCounter, KernelError, Place};
use crate::config::Config;

/// Loaded programs with their maps.
pub struct LiveKernel {
    programs: Programs,
    endpoints: Endpoints,
    flows: FlowMap,
    counters: Counters,
    closed: Closed,
}

impl LiveKernel {
    /// Loads the programs or takes over those of an earlier agent, and opens the TAP with a queue
    /// for each worker.
    pub fn open(config: &Config) -> Result<(Self, Tap), Error> {
        let settings = Settings {
            flow_entries: config.limits.flow_cache_entries,
            ..Settings::default()
        };
        let mut programs = Programs::load_or_adopt(&config.pin_dir, &settings)?;
        programs.reap()?;
        let tap = Tap::open(&config.tap, config.workers, Offloads::ALL)?;
        tap.set_steering(programs.steering()?)?;
        programs.attach_tap(&config.tap)?;
        Ok((Self::over(programs, &config.pin_dir)?, tap))
    }

    /// Whether maps of an earlier agent were found.
    pub fn adopted(&self) -> bool {
        self.programs.adopted()
    }

    fn over(programs: Programs, pin_dir: &Path) -> Result<Self, Error> {
        let dir: PathBuf = pin_dir.to_owned();
        Ok(Self {
            programs,
            endpoints: Endpoints::open(&dir)?,
            flows: FlowMap::open(&dir)?,
            counters: Counters::open(&dir)?,
            closed: Closed::open(&dir)?,
        })
    }
}

fn entry(place: &Place<'_>) -> EndpointEntry {
    EndpointEntry {
        id: place.id,
        ifindex: place.index,
        governed: place.governed,
    }
}

impl Kernel for LiveKernel {
    fn interface_index(&self, name: &str) -> Option<u32> {
        links::index(name).ok()
    }

    fn known(&mut self) -> Result<Vec<(u32, EndpointId)>, KernelError> {
        Ok(self
            .endpoints
            .list()?
            .into_iter()
            .map(|e| (e.ifindex, e.id))
            .collect())
    }

    fn attach(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
        // Named first: attached programs drop what comes by an interface that has no name.
        self.endpoints.set(entry(place))?;
        Ok(self.programs.attach(place.interface)?)
    }

    fn update(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
        Ok(self.endpoints.set(entry(place))?)
    }

    fn detach(&mut self, index: u32, id: EndpointId) -> Result<(), KernelError> {
        match links::name(index) {
            Some(name) => self.programs.detach(&name)?,
            None => drop(self.programs.reap()?),
        }
        self.endpoints.remove(id)?;
        self.flows.delete_endpoint(id);
        Ok(())
    }

    fn counters(&mut self) -> Result<Vec<KernelCounter>, KernelError> {
        let counters = self.counters.read()?;
        let convert = |c: tollgate_datapath::counters::Counter| KernelCounter {
            name: c.name,
            direction: c.direction,
            value: c.value,
        };
        Ok(counters.into_iter().map(convert).collect())
    }

    fn closed(&mut self) -> Result<Vec<FlowKey>, KernelError> {
        Ok(self.closed.drain())
    }
}
