//! The bridge as the control plane sees it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tollgate_datapath::Error;
use tollgate_datapath::ovs::OvsError;
use tollgate_datapath::ovs::flows::{self, EndpointPort, Mac, Plan};
use tollgate_datapath::ovs::switch::{Kind, Life, Port, Switch};
use tollgate_datapath::ovs::tools::Tools;
use tollgate_datapath::tap::{self, Offloads, Tap};
use tollgate_engine::key::FlowKey;
use tollgate_wire::tag::{Direction, EndpointId};

use super::saved::{Saved, SavedPort};
use crate::config::Config;
use crate::kernel::{Kernel, KernelCounter, KernelError, Place};

/// How long a list of ports is good for: one round over all endpoints.
const PORTS_AGE: Duration = Duration::from_millis(200);

/// How often the stations behind the ports are looked at again.
const STATIONS_INTERVAL: Duration = Duration::from_secs(10);

/// How long everything comes by the workers before another policy does: a packet of either direction tells
/// where a connection stands, and with what numbers it can be reset.
const TAKING_BACK: Duration = Duration::from_millis(100);

/// How often the flows are counted: whoever else uses the bridge may remove them all.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

/// One queue is written by one worker, so that frames of a flow keep their order through the switch.
pub const WORKERS: usize = 1;

/// An endpoint on the bridge.
#[derive(Clone, Debug)]
struct Placed {
    interface: String,
    port: EndpointPort,
    governed: bool,
}

impl Placed {
    fn save(&self) -> SavedPort {
        SavedPort {
            number: self.port.port,
            id: self.port.id.get(),
            interface: self.interface.clone(),
            mac: self.port.mac.to_string(),
            addresses: self.port.addresses.clone(),
            governed: self.governed,
        }
    }

    fn restore(saved: &SavedPort) -> Option<(u32, Self)> {
        let port = EndpointPort {
            port: saved.number,
            mac: Mac::parse(&saved.mac)?,
            id: EndpointId::new(saved.id)?,
            addresses: saved.addresses.clone(),
        };
        let placed = Self {
            interface: saved.interface.clone(),
            port,
            governed: saved.governed,
        };
        Some((saved.number.into(), placed))
    }
}

/// Ports by interface name, when they were read.
#[derive(Debug, Default)]
struct Ports {
    read: Option<Instant>,
    by_name: BTreeMap<String, Port>,
}

/// Tables that count, and what.
const COUNTED: [(u8, &str, Direction); 4] = [
    (flows::SEEN_FROM, "seen", Direction::Outbound),
    (flows::DIVERTED_FROM, "diverted", Direction::Outbound),
    (flows::SEEN_TO, "seen", Direction::Inbound),
    (flows::DIVERTED_TO, "diverted", Direction::Inbound),
];

/// What the agent has on the bridge.
#[derive(Debug)]
pub struct LiveOvs {
    switch: Switch,
    run_dir: PathBuf,
    saved: Saved,
    adopted: bool,
    tap: u16,
    ports: RefCell<Ports>,
    /// By port number.
    placed: BTreeMap<u32, Placed>,
    /// The policy generation that the workers say decisions under.
    policy: Option<u64>,
    /// Nothing has been decided under this generation yet.
    is_void: bool,
    /// The flows on the bridge are not those that should be.
    stale: bool,
    /// How many flows that are.
    flows: usize,
    verified: Instant,
    /// The switch was started anew, and the TAP's port has not been looked at since.
    restarted: bool,
    /// The switch is not there.
    is_gone: bool,
    stations_read: Instant,
    /// Counts of flows that were replaced since.
    counted: HashMap<u8, u64>,
}

impl LiveOvs {
    /// Opens the TAP and makes it a port of the bridge. Nothing is diverted yet; what an agent before this
    /// one left goes on.
    ///
    /// # Errors
    /// The switch, its bridge or the TAP cannot be used.
    pub fn open(config: &Config) -> Result<(Self, Tap), Error> {
        let ovs = &config.ovs;
        let left = Saved::read(&config.run_dir);
        let left = match left {
            Some(left) if left.config != *ovs || left.tap != config.tap => {
                tracing::info!(bridge = left.config.bridge, "leaving the former bridge");
                super::cleanup(&config.run_dir)?;
                None
            }
            other => other,
        };
        let (mut switch, kind) = Switch::open(Tools::new(&ovs.run_dir, &ovs.bridge))?;
        let tap = Tap::open(&config.tap, WORKERS, offloads(kind))?;
        let adopted = left.is_some();
        let saved = left.unwrap_or_else(|| Saved {
            config: ovs.clone(),
            tap: config.tap.clone(),
            generation: first_generation(),
            ports: Vec::new(),
        });
        // They stay governed until it is known what became of them.
        let placed = saved.ports.iter().filter_map(Placed::restore).collect();
        // Before anything is changed: what is there must be found again.
        write(&saved, &config.run_dir)?;
        let number = switch.add_tap(&config.tap)?;
        if kind.userspace_tso
            && let Some(mtu) = switch.mtu(&config.tap)?
        {
            // It cuts super-packets to the MTU of the port that it sends them to.
            tap::set_mtu(&config.tap, mtu)?;
        }
        // From now on it tells of restarts.
        switch.life();
        let live = Self {
            switch,
            run_dir: config.run_dir.clone(),
            saved,
            adopted,
            tap: number,
            ports: RefCell::default(),
            placed,
            policy: None,
            is_void: false,
            stale: false,
            flows: 0,
            verified: Instant::now(),
            restarted: false,
            is_gone: false,
            stations_read: Instant::now(),
            counted: HashMap::new(),
        };
        Ok((live, tap))
    }

    /// Whether an agent before this one was on the bridge.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    fn plan(&self) -> Plan {
        let governed = self.placed.values().filter(|placed| placed.governed);
        Plan {
            place: self.saved.config.place(),
            tap: self.tap,
            generation: self.saved.generation,
            // Until the workers apply a policy, nobody decides anything.
            code: self.policy.map_or(0, flows::code),
            endpoints: governed.map(|placed| placed.port.clone()).collect(),
        }
    }

    /// Writes down what should be there, then brings it about.
    fn apply(&mut self) -> Result<(), KernelError> {
        self.stale = true;
        self.saved.ports = self.placed.values().map(Placed::save).collect();
        write(&self.saved, &self.run_dir)?;
        self.keep_counts();
        self.flows = self.switch.install(&self.plan())?;
        self.stale = false;
        Ok(())
    }

    /// New flows count from 0.
    fn keep_counts(&mut self) {
        for (table, packets) in self.table_packets().unwrap_or_default() {
            *self.counted.entry(table).or_default() += packets;
        }
    }

    /// Packets by table, counted from the gate's first one.
    fn table_packets(&self) -> Result<HashMap<u8, u64>, OvsError> {
        let place = self.saved.config.place();
        let matches = format!("cookie={:#x}/-1", place.cookie);
        let mut sums = HashMap::new();
        for (table, packets) in self.switch.tools().packets(&matches)? {
            if let Some(table) = table.checked_sub(place.first_table) {
                *sums.entry(table).or_default() += packets;
            }
        }
        Ok(sums)
    }

    /// Reads the ports again if the list is old. While the switch cannot be asked, the old one stands: an
    /// endpoint must not be given up because the switch is being restarted.
    fn refresh(&self) {
        let mut ports = self.ports.borrow_mut();
        if ports.read.is_some_and(|read| read.elapsed() < PORTS_AGE) {
            return;
        }
        match self.switch.ports() {
            Ok(now) => {
                let before = std::mem::take(&mut ports.by_name);
                ports.by_name = now
                    .into_iter()
                    .filter_map(|(name, port)| {
                        let port = port.or_else(|| before.get(&name).cloned())?;
                        Some((name, port))
                    })
                    .collect();
                ports.read = Some(Instant::now());
            }
            Err(error) => tracing::warn!(%error, "cannot list the ports of the bridge"),
        }
    }

    fn port(&self, interface: &str) -> Option<Port> {
        self.refresh();
        self.ports.borrow().by_name.get(interface).cloned()
    }

    fn put(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
        let Some(port) = self.port(place.interface) else {
            return Err(format!("{} is no port of the bridge", place.interface).into());
        };
        let known = self.placed.get(&place.index).map(|placed| placed.port.mac);
        let mac = port
            .mac
            .or(known)
            .ok_or_else(|| OvsError::NoMac(place.interface.to_owned()))?;
        let placed = Placed {
            interface: place.interface.to_owned(),
            port: EndpointPort {
                port: port.number,
                mac,
                id: place.id,
                addresses: place.addresses.to_vec(),
            },
            governed: place.governed,
        };
        self.placed.insert(place.index, placed);
        self.apply()
    }

    /// Puts everything back after a restart of the switch, and whatever could not be done before.
    fn repair(&mut self) -> Result<(), KernelError> {
        match self.switch.life() {
            Life::Same => {}
            // Nothing is forwarded, and its programs would wait for it in vain.
            Life::Gone => return self.gone(),
            Life::Anew => {
                self.restarted = true;
                self.is_gone = false;
            }
        }
        if self.restarted {
            tracing::warn!("the switch was restarted: the flows are put back");
            // Ports keep their numbers; what follows takes longer.
            self.apply()?;
            let tap = self.switch.add_tap(&self.saved.tap)?;
            self.stale |= std::mem::replace(&mut self.tap, tap) != tap;
            self.restarted = false;
        }
        if self.flows > 0 && self.verified.elapsed() >= VERIFY_INTERVAL {
            self.verify()?;
        }
        if self.stations_read.elapsed() >= STATIONS_INTERVAL {
            self.stations_read = Instant::now();
            self.stale |= self.follow_stations();
            if !self.ports.borrow().by_name.contains_key(&self.saved.tap) {
                tracing::warn!("somebody removed the TAP's port: it is put back");
                self.restarted = true;
            }
        }
        match self.stale {
            true => self.apply(),
            false => Ok(()),
        }
    }

    /// What was decided is not decided any more.
    fn void(&mut self) {
        self.saved.generation = self.saved.generation.wrapping_add(1);
        self.is_void = true;
    }

    fn verify(&mut self) -> Result<(), KernelError> {
        self.verified = Instant::now();
        let found = self.switch.installed(&self.saved.config.place())?;
        if found != self.flows {
            let expected = self.flows;
            tracing::warn!(found, expected, "somebody removed flows: they are put back");
            self.stale = true;
        }
        Ok(())
    }

    fn gone(&mut self) -> Result<(), KernelError> {
        if !std::mem::replace(&mut self.is_gone, true) {
            tracing::warn!(bridge = self.saved.config.bridge, "the switch is not there");
        }
        Ok(())
    }

    /// True if an endpoint has another MAC address than before.
    fn follow_stations(&mut self) -> bool {
        self.refresh();
        let ports = self.ports.borrow();
        let mut changed = false;
        for placed in self.placed.values_mut() {
            let now = ports.by_name.get(&placed.interface);
            if let Some(mac) = now.and_then(|port| port.mac)
                && mac != placed.port.mac
            {
                tracing::info!(interface = placed.interface, %mac, "another MAC address");
                placed.port.mac = mac;
                changed = true;
            }
        }
        changed
    }
}

impl Kernel for LiveOvs {
    fn interface_index(&self, name: &str) -> Option<u32> {
        self.port(name).map(|port| port.number.into())
    }

    fn known(&mut self) -> Result<Vec<(u32, EndpointId)>, KernelError> {
        let known = self.placed.iter();
        Ok(known
            .map(|(&index, placed)| (index, placed.port.id))
            .collect())
    }

    fn attach(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
        self.put(place)
    }

    fn update(&mut self, place: &Place<'_>) -> Result<(), KernelError> {
        self.put(place)
    }

    fn detach(&mut self, index: u32, _: EndpointId) -> Result<(), KernelError> {
        if self.placed.remove(&index).is_some() {
            self.apply()?;
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<Vec<KernelCounter>, KernelError> {
        let now = self.table_packets()?;
        let value = |table| {
            let count = |counts: &HashMap<u8, u64>| counts.get(&table).copied().unwrap_or(0);
            count(&now) + count(&self.counted)
        };
        let counter = |(table, name, direction)| KernelCounter {
            name,
            direction,
            value: value(table),
        };
        Ok(COUNTED.map(counter).to_vec())
    }

    fn closed(&mut self) -> Result<Vec<FlowKey>, KernelError> {
        // Ends of flows come to the workers with the segments that bring them; this is the place that is
        // visited often.
        self.repair()?;
        Ok(Vec::new())
    }

    fn trouble(&self) -> Option<String> {
        let bridge = &self.saved.config.bridge;
        match (self.is_gone, self.stale) {
            (true, _) => Some(format!("the switch with bridge {bridge} is not there")),
            (_, true) => Some(format!(
                "the flows on bridge {bridge} are not as they should be; see the log"
            )),
            _ => None,
        }
    }

    fn policy_changing(&mut self) -> Result<Option<Duration>, KernelError> {
        self.void();
        self.policy = None;
        self.apply()?;
        Ok(Some(TAKING_BACK))
    }

    fn policy_applied(&mut self, generation: u64, unchanged: bool) -> Result<(), KernelError> {
        if !unchanged && !self.is_void {
            self.void();
        }
        self.is_void = false;
        self.policy = Some(generation);
        self.apply()
    }
}

/// What the bridge can carry to the TAP and back. The userspace data path takes frames from it as they
/// are: whole checksums, and no larger than the MTU of the port that they go to.
fn offloads(kind: Kind) -> Offloads {
    match kind.userspace {
        true => Offloads::NONE,
        false => Offloads::ALL,
    }
}

/// Seconds since 1970, cut to 32 bits: no generation of an agent whose notes are lost, as long as policies
/// change less than once a second.
fn first_generation() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() as u32
}

fn write(saved: &Saved, run_dir: &std::path::Path) -> Result<(), Error> {
    saved.write(run_dir).map_err(|source| Error::Os {
        action: "noting what is on the bridge in",
        object: run_dir.display().to_string(),
        source,
    })
}
