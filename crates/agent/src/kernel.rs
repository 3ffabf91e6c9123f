//! What the control plane needs of the data path's kernel side; an interface, so that everything
//! above it can be tested without privileges.

pub mod live;

use std::net::IpAddr;
use std::time::Duration;

use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::{Direction, EndpointId};

/// What the data path said when something failed.
pub type KernelError = Box<dyn std::error::Error + Send + Sync>;

/// An endpoint's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of its interface.
    pub interface: &'a str,
    /// Index of its interface.
    pub index: u32,
    /// Its identifier.
    pub id: EndpointId,
    /// A policy selects it; otherwise the programs pass everything.
    pub governed: bool,
    /// Its IP addresses.
    pub addresses: &'a [IpAddr],
}

/// A number that the programs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCounter {
    /// What is counted, a stable word.
    pub name: &'static str,
    /// Of which direction.
    pub direction: Direction,
    /// Since the maps were made.
    pub value: u64,
}

/// Programs, links and maps.
pub trait Kernel: Send {
    /// The interface's index, if it is there.
    fn interface_index(&self, name: &str) -> Option<u32>;

    /// Interfaces that the endpoints map knows, those of an earlier agent too.
    fn known(&mut self) -> Result<Vec<(u32, EndpointId)>, KernelError>;

    /// Names the interface's endpoint and puts the programs on it; doing it again is no error.
    fn attach(&mut self, place: &Place<'_>) -> Result<(), KernelError>;

    /// Tells the programs anew whether the endpoint is governed.
    fn update(&mut self, place: &Place<'_>) -> Result<(), KernelError>;

    /// Takes programs, name and flow-cache entries away. The interface may be gone already.
    fn detach(&mut self, index: u32, id: EndpointId) -> Result<(), KernelError>;

    /// Packets by what the programs did with them.
    fn counters(&mut self) -> Result<Vec<KernelCounter>, KernelError>;

    /// Flows whose end the programs saw since the last call.
    fn closed(&mut self) -> Result<Vec<FlowKey>, KernelError>;

    /// What is not as it should be, in words.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The workers are about to be given another policy. Returns how long they should go on under the old
    /// one: what they have to know of the flows that will be cut comes by meanwhile.
    fn policy_changing(&mut self) -> Result<Option<Duration>, KernelError> {
        Ok(None)
    }

    /// Every worker has judged its flows under this policy generation. `unchanged`: it is the policy
    /// under which everything was decided before.
    fn policy_applied(&mut self, _generation: u64, _unchanged: bool) -> Result<(), KernelError> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A kernel made of two maps.
    #[derive(Default)]
    pub(crate) struct FakeKernel {
        pub(crate) interfaces: BTreeMap<String, u32>,
        pub(crate) map: BTreeMap<u32, u16>,
        pub(crate) governed: BTreeSet<u32>,
        pub(crate) refuse: bool,
    }

    impl Kernel for FakeKernel {
        fn interface_index(&self, name: &str) -> Option<u32> {
            self.interfaces.get(name).copied()
        }

        fn known(&mut self) -> Result<Vec<(u32, EndpointId)>, KernelError> {
            Ok(self
                .map
                .iter()
                .filter_map(|(&i, &id)| Some((i, EndpointId::new(id)?)))
                .collect())
        }

        fn attach(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
            if self.refuse {
                return Err("refused".into());
            }
            self.update(place)
        }

        fn update(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
            self.map.insert(place.index, place.id.get());
            match place.governed {
                true => self.governed.insert(place.index),
                false => self.governed.remove(&place.index),
            };
            Ok(())
        }

        fn detach(&mut self, index: u32, _: EndpointId) -> Result<(), KernelError> {
            self.map.remove(&index);
            self.governed.remove(&index);
            Ok(())
        }

        fn counters(&mut self) -> Result<Vec<KernelCounter>, KernelError> {
            let direction = Direction::Inbound;
            Ok(vec![KernelCounter {
                name: "passed",
                direction,
                value: 3,
            }])
        }

        fn closed(&mut self) -> Result<Vec<FlowKey>, KernelError> {
            Ok(Vec::new())
        }
    }
}
