//! Which endpoint has which identifier, and whether its interface is governed yet.
//!
//! An endpoint keeps its identifier while the agent runs, also when its interface goes and comes
//! back, and over a restart of the agent while the interface stays (the kernel's endpoints map
//! remembers it): decided flows in the flow cache carry it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use tollgate_wire::tag::EndpointId;

use crate::api::EndpointState;
use crate::kernel::{Kernel, KernelError, Place};

/// An endpoint that the policy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, e.g. `shop/web-0`.
    pub name: String,
    /// Its interface on the host.
    pub interface: String,
    /// A policy selects it.
    pub governed: bool,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
struct Slot {
    interface: String,
    id: Option<EndpointId>,
    governed: bool,
    addresses: Vec<IpAddr>,
    /// The addresses are others than the kernel was told.
    moved: bool,
    /// What the kernel was told last: interface index and whether it is governed.
    attached: Option<(u32, bool)>,
    failure: String,
}

/// What became of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its name.
    pub name: String,
    /// Its interface on the host.
    pub interface: String,
    /// Its identifier; `None` if there was none left.
    pub id: Option<EndpointId>,
    /// Whether it is governed.
    pub state: EndpointState,
    /// Why not.
    pub detail: String,
}

/// The endpoints of this node.
#[derive(Debug, Default)]
pub struct Endpoints {
    slots: BTreeMap<String, Slot>,
    /// What an earlier agent left in the kernel and nobody has claimed yet.
    inherited: HashMap<u32, EndpointId>,
    last_id: u16,
}

impl Endpoints {
    /// Begins with what the kernel's map holds.
    pub fn new(known: Vec<(u32, EndpointId)>) -> Self {
        Self {
            inherited: known.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Gives every wanted endpoint an identifier and forgets the others, whose programs are taken
    /// away. Nothing is attached yet: the workers have to know the policy first.
    pub fn assign(&mut self, wanted: &[Wanted], kernel: &mut dyn Kernel) {
        let kept: HashSet<(&str, &str)> = wanted
            .iter()
            .map(|w| (w.name.as_str(), w.interface.as_str()))
            .collect();
        self.slots.retain(|name, slot| {
            let keep = kept.contains(&(name.as_str(), slot.interface.as_str()));
            if !keep && let (Some((index, _)), Some(id)) = (slot.attached, slot.id) {
                detached(kernel.detach(index, id), &slot.interface);
            }
            keep
        });
        for endpoint in wanted {
            if let Some(slot) = self.slots.get_mut(&endpoint.name) {
                slot.governed = endpoint.governed;
                if slot.addresses != endpoint.addresses {
                    slot.addresses.clone_from(&endpoint.addresses);
                    slot.moved = true;
                }
                continue;
            }
            let slot = Slot {
                interface: endpoint.interface.clone(),
                id: self.identify(&endpoint.interface, kernel),
                governed: endpoint.governed,
                addresses: endpoint.addresses.clone(),
                moved: false,
                attached: None,
                failure: String::new(),
            };
            self.slots.insert(endpoint.name.clone(), slot);
        }
        self.drop_inherited(kernel);
    }

    /// Puts the programs on every interface that is there, and notes which are not.
    pub fn attach(&mut self, kernel: &mut dyn Kernel) {
        for slot in self.slots.values_mut() {
            slot.attach(kernel);
        }
    }

    /// What became of each endpoint, by name.
    pub fn placements(&self) -> Vec<Placement> {
        let placement = |(name, slot): (&String, &Slot)| Placement {
            name: name.clone(),
            interface: slot.interface.clone(),
            id: slot.id,
            state: slot.state(),
            detail: slot.failure.clone(),
        };
        self.slots.iter().map(placement).collect()
    }

    /// The identifier that the interface had under an earlier agent, else a free one.
    fn identify(&mut self, interface: &str, kernel: &dyn Kernel) -> Option<EndpointId> {
        let index = kernel.interface_index(interface);
        if let Some(id) = index.and_then(|index| self.inherited.remove(&index))
            && !self.slots.values().any(|slot| slot.id == Some(id))
        {
            return Some(id);
        }
        self.free_id()
    }

    /// The next identifier in a circle, so that one is used again as late as possible: flows of
    /// its last owner may still be in the flow cache.
    fn free_id(&mut self) -> Option<EndpointId> {
        let used: HashSet<u16> = self
            .slots
            .values()
            .filter_map(|slot| slot.id)
            .chain(self.inherited.values().copied())
            .map(EndpointId::get)
            .collect();
        let circle = (self.last_id + 1..=EndpointId::MAX).chain(EndpointId::MIN..=self.last_id);
        let id = circle.into_iter().find(|id| !used.contains(id))?;
        self.last_id = id;
        EndpointId::new(id)
    }

    /// What no policy names any more since an earlier agent is released.
    fn drop_inherited(&mut self, kernel: &mut dyn Kernel) {
        for (index, id) in self.inherited.drain() {
            detached(kernel.detach(index, id), "of an earlier agent");
        }
    }
}

impl Slot {
    fn attach(&mut self, kernel: &mut dyn Kernel) {
        let Some(id) = self.id else {
            self.failure = format!("all {} endpoint identifiers are in use", EndpointId::MAX);
            return;
        };
        let now = kernel.interface_index(&self.interface);
        if let Some((gone, _)) = self.attached.take_if(|(index, _)| Some(*index) != now) {
            detached(kernel.detach(gone, id), &self.interface);
        }
        self.failure.clear();
        let Some(index) = now else { return };
        let (interface, governed) = (self.interface.as_str(), self.governed);
        let place = Place {
            interface,
            index,
            id,
            governed,
            addresses: &self.addresses,
        };
        let done = match self.attached {
            Some((_, told)) if told == governed && !self.moved => return,
            Some(_) => kernel.update(&place),
            None => kernel.attach(&place),
        };
        match done {
            Ok(()) => {
                tracing::info!(interface, id = id.get(), governed, "endpoint attached");
                self.attached = Some((index, governed));
                self.moved = false;
            }
            Err(error) => {
                tracing::error!(interface, %error, "cannot attach an endpoint");
                self.failure = error.to_string();
            }
        }
    }

    fn state(&self) -> EndpointState {
        match (self.attached, self.failure.is_empty()) {
            (Some(_), _) => EndpointState::Attached,
            (None, true) => EndpointState::Waiting,
            (None, false) => EndpointState::Failed,
        }
    }
}

fn detached(result: Result<(), KernelError>, interface: &str) {
    match result {
        Ok(()) => tracing::info!(interface, "endpoint detached"),
        Err(error) => tracing::warn!(interface, %error, "cannot detach an endpoint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeKernel;

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        names
            .iter()
            .map(|name| Wanted {
                name: format!("ns/{name}"),
                interface: format!("veth-{name}"),
                governed: true,
                addresses: vec![],
            })
            .collect()
    }

    fn kernel(interfaces: &[(&str, u32)]) -> FakeKernel {
        let interfaces = interfaces
            .iter()
            .map(|&(n, i)| (format!("veth-{n}"), i))
            .collect();
        FakeKernel {
            interfaces,
            ..FakeKernel::default()
        }
    }

    fn reconcile(endpoints: &mut Endpoints, names: &[&str], kernel: &mut FakeKernel) {
        endpoints.assign(&wanted(names), kernel);
        endpoints.attach(kernel);
    }

    fn id_of(endpoints: &Endpoints, name: &str) -> u16 {
        let placements = endpoints.placements();
        let found = placements
            .iter()
            .find(|p| p.name == format!("ns/{name}"))
            .unwrap();
        found.id.unwrap().get()
    }

    #[test]
    fn an_interface_may_come_later_and_come_back() {
        let mut kernel = kernel(&[("a", 5)]);
        let mut endpoints = Endpoints::default();
        reconcile(&mut endpoints, &["a", "b"], &mut kernel);
        let states: Vec<_> = endpoints.placements().iter().map(|p| p.state).collect();
        assert_eq!(states, [EndpointState::Attached, EndpointState::Waiting]);
        let (a, b) = (id_of(&endpoints, "a"), id_of(&endpoints, "b"));
        assert_ne!(a, b);

        kernel.interfaces.insert("veth-b".into(), 6);
        kernel.interfaces.insert("veth-a".into(), 7);
        endpoints.attach(&mut kernel);
        assert_eq!(
            kernel.map,
            [(6, b), (7, a)].into(),
            "a was re-created and kept its id"
        );
    }

    #[test]
    fn an_identifier_survives_a_restart_and_strangers_are_released() {
        let mut kernel = kernel(&[("a", 5), ("b", 6)]);
        kernel.map = [(6, 1), (9, 2)].into();
        let mut endpoints = Endpoints::new(kernel.known().unwrap());
        reconcile(&mut endpoints, &["a", "b"], &mut kernel);
        assert_eq!(id_of(&endpoints, "b"), 1);
        assert_eq!(
            kernel.map.len(),
            2,
            "ifindex 9 is nobody's: {:?}",
            kernel.map
        );
        assert!(id_of(&endpoints, "a") > 2, "2 was in use when a needed one");
    }

    #[test]
    fn an_endpoint_that_leaves_the_policy_is_released_and_its_id_rests() {
        let mut kernel = kernel(&[("a", 5), ("b", 6)]);
        let mut endpoints = Endpoints::default();
        reconcile(&mut endpoints, &["a"], &mut kernel);
        let a = id_of(&endpoints, "a");
        reconcile(&mut endpoints, &["b"], &mut kernel);
        assert_eq!(kernel.map.keys().collect::<Vec<_>>(), [&6]);
        assert_ne!(id_of(&endpoints, "b"), a);
    }

    #[test]
    fn a_failure_is_told_and_tried_again() {
        let mut kernel = kernel(&[("a", 5)]);
        kernel.refuse = true;
        let mut endpoints = Endpoints::default();
        reconcile(&mut endpoints, &["a"], &mut kernel);
        let placement = &endpoints.placements()[0];
        assert_eq!(
            (placement.state, placement.detail.as_str()),
            (EndpointState::Failed, "refused")
        );
        kernel.refuse = false;
        endpoints.attach(&mut kernel);
        assert_eq!(endpoints.placements()[0].state, EndpointState::Attached);
        assert_eq!(endpoints.placements()[0].detail, "");
    }

    #[test]
    fn the_kernel_learns_who_is_governed() {
        let mut kernel = kernel(&[("a", 5)]);
        let mut endpoints = Endpoints::default();
        for governed in [true, false, true] {
            let wanted: Vec<_> = wanted(&["a"])
                .into_iter()
                .map(|w| Wanted { governed, ..w })
                .collect();
            endpoints.assign(&wanted, &mut kernel);
            endpoints.attach(&mut kernel);
            assert_eq!(kernel.governed.contains(&5), governed);
        }
    }

    #[test]
    fn identifiers_run_out_without_harm() {
        let names: Vec<String> = (0..=EndpointId::MAX).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut kernel = FakeKernel::default();
        let mut endpoints = Endpoints::default();
        reconcile(&mut endpoints, &names, &mut kernel);
        let placements = endpoints.placements();
        let failed: Vec<_> = placements
            .iter()
            .filter(|p| p.state == EndpointState::Failed)
            .collect();
        assert_eq!(failed.len(), 1);
        assert!(
            failed[0].detail.contains("identifiers"),
            "{}",
            failed[0].detail
        );
        reconcile(&mut endpoints, &names[..10], &mut kernel);
        reconcile(&mut endpoints, &names[..20], &mut kernel);
        assert!(endpoints.placements().iter().all(|p| p.id.is_some()));
    }
}
