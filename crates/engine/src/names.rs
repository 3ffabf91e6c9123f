//! Which names stand for which addresses, as each endpoint was told by its resolvers.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tollgate_wire::tag::EndpointId;

/// Names that one endpoint may know at a time. Only those that its policy asks for are kept, and a
/// pod that talks to thousands of such names is not one that a policy by name was written for.
pub const NAMES_MAX: usize = 4096;

/// Addresses of one name of one endpoint; beyond it the oldest goes. Resolvers hand out a few of a
/// large pool each time.
pub const ADDRESSES_MAX: usize = 256;

/// Names of one address of one endpoint; beyond it the oldest goes. Flows remember them, and a
/// client connects to the name that it has just asked for.
pub const NAMES_PER_ADDRESS_MAX: usize = 64;

/// Pairs of name and address of one endpoint: some 3 MB.
pub const PAIRS_MAX: usize = 32_768;

/// How often one endpoint's table is searched for what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// So that workers rarely wait for each other.
const SHARDS: usize = 16;

/// Whose answers teach names, and for how long at least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Addresses of the resolvers as endpoints see them. None: nothing is ever learnt.
    pub addresses: Vec<IpAddr>,
    /// Floor of the TTLs: clients hold on to an address for a while after it was looked up.
    pub min_ttl: Duration,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Pairs of name and address that were added or prolonged.
    pub pairs: u64,
    /// Older pairs that had to go.
    pub replaced: u64,
    /// Addresses left out because the endpoint's table is full.
    pub refused: u64,
}

/// The names of all endpoints, shared by all workers. Time is the workers' clock.
#[derive(Debug, Default)]
pub struct NameTable {
    resolvers: Resolvers,
    shards: [Mutex<HashMap<EndpointId, Names>>; SHARDS],
}

impl NameTable {
    /// An empty table.
    pub fn new(resolvers: Resolvers) -> Self {
        Self {
            resolvers,
            shards: Default::default(),
        }
    }

    /// Whether answers from this address teach anything.
    pub fn is_resolver(&self, address: &IpAddr) -> bool {
        self.resolvers.addresses.contains(address)
    }

    /// Takes in what an endpoint was told: the addresses of a name (lower case, no trailing dot) with
    /// their TTLs in seconds.
    pub fn learn(
        &self,
        endpoint: EndpointId,
        name: &str,
        addresses: &[(IpAddr, u32)],
        now: Duration,
    ) -> Learnt {
        let mut shard = self.shard(endpoint);
        let names = shard.entry(endpoint).or_default();
        names.sweep(now);
        let mut learnt = Learnt::default();
        for (address, ttl) in addresses {
            let lifetime = Duration::from_secs((*ttl).into()).max(self.resolvers.min_ttl);
            names.learn(name, *address, now.saturating_add(lifetime), &mut learnt);
        }
        learnt
    }

    /// The names for which the endpoint was told this address, if they still count. At most
    /// [`NAMES_PER_ADDRESS_MAX`].
    pub fn names_for(
        &self,
        endpoint: EndpointId,
        address: &IpAddr,
        now: Duration,
    ) -> Vec<Arc<str>> {
        let shard = self.shard(endpoint);
        let known = shard
            .get(&endpoint)
            .and_then(|names| names.by_address.get(address));
        let Some(known) = known else {
            return Vec::new();
        };
        let valid = known.iter().filter(|known| known.expires > now);
        valid.map(|known| known.name.clone()).collect()
    }

    /// Everything that an endpoint knows at `now`, with the time until which it counts; the oldest of
    /// each address first.
    pub fn known(&self, endpoint: EndpointId, now: Duration) -> Vec<(Arc<str>, IpAddr, Duration)> {
        let shard = self.shard(endpoint);
        let Some(names) = shard.get(&endpoint) else {
            return Vec::new();
        };
        let all = names.by_address.iter();
        let all = all.flat_map(|(address, all)| all.iter().map(|known| (*address, known)));
        let valid = all.filter(|(_, known)| known.expires > now);
        valid
            .map(|(address, known)| (known.name.clone(), address, known.expires))
            .collect()
    }

    /// Takes in what [`NameTable::known`] told an engine before this one.
    pub fn restore(&self, endpoint: EndpointId, name: &str, address: IpAddr, expires: Duration) {
        let mut shard = self.shard(endpoint);
        let names = shard.entry(endpoint).or_default();
        names.learn(name, address, expires, &mut Learnt::default());
    }

    /// The endpoint is gone; its id may be another's next.
    pub fn forget(&self, endpoint: EndpointId) {
        self.shard(endpoint).remove(&endpoint);
    }

    fn shard(&self, endpoint: EndpointId) -> MutexGuard<'_, HashMap<EndpointId, Names>> {
        let [first, ..] = &self.shards;
        let shard = self.shards.get(usize::from(endpoint.get()) % SHARDS);
        // Nothing here panics with a lock held; if it did, the table would still be a table.
        shard
            .unwrap_or(first)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name of an address.
#[derive(Debug)]
struct Known {
    name: Arc<str>,
    expires: Duration,
}

/// What one endpoint was told. Every pair is in both maps.
#[derive(Debug, Default)]
struct Names {
    /// Names, the one told longest ago first.
    by_address: HashMap<IpAddr, VecDeque<Known>>,
    /// Addresses, the one told longest ago first.
    by_name: HashMap<Arc<str>, VecDeque<IpAddr>>,
    pairs: usize,
    swept: Duration,
}

impl Names {
    fn learn(&mut self, name: &str, address: IpAddr, expires: Duration, learnt: &mut Learnt) {
        if let Some(before) = self.remove(name, &address) {
            self.push(name, address, expires.max(before));
            learnt.pairs += 1;
            return;
        }
        let of_name = self.by_name.get(name);
        if of_name.is_none() && self.by_name.len() >= NAMES_MAX {
            learnt.refused += 1;
            return;
        }
        let oldest = of_name.filter(|all| all.len() >= ADDRESSES_MAX);
        if let Some(oldest) = oldest.and_then(|all| all.front()).copied() {
            self.remove(name, &oldest);
            learnt.replaced += 1;
        }
        let of_address = self.by_address.get(&address);
        let oldest = of_address.filter(|all| all.len() >= NAMES_PER_ADDRESS_MAX);
        let oldest = oldest.and_then(|all| all.front());
        if let Some(oldest) = oldest.map(|known| known.name.clone()) {
            self.remove(&oldest, &address);
            learnt.replaced += 1;
        }
        if self.pairs >= PAIRS_MAX {
            learnt.refused += 1;
            return;
        }
        self.push(name, address, expires);
        learnt.pairs += 1;
    }

    fn push(&mut self, name: &str, address: IpAddr, expires: Duration) {
        let name: Arc<str> = match self.by_name.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let of_name = self.by_name.entry(name.clone()).or_default();
        of_name.push_back(address);
        let known = Known { name, expires };
        self.by_address.entry(address).or_default().push_back(known);
        self.pairs += 1;
    }

    /// Takes a pair out of both maps; returns when it would have expired.
    fn remove(&mut self, name: &str, address: &IpAddr) -> Option<Duration> {
        let of_address = self.by_address.get_mut(address)?;
        let at = of_address.iter().position(|known| *known.name == *name)?;
        let known = of_address.remove(at)?;
        if of_address.is_empty() {
            self.by_address.remove(address);
        }
        if let Some(of_name) = self.by_name.get_mut(name) {
            of_name.retain(|other| other != address);
            if of_name.is_empty() {
                self.by_name.remove(name);
            }
        }
        self.pairs -= 1;
        Some(known.expires)
    }

    /// Forgets what has expired, once in a while.
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let all = self.by_address.iter();
        let expired: Vec<_> = all
            .flat_map(|(address, all)| all.iter().map(move |known| (address, known)))
            .filter(|(_, known)| known.expires <= now)
            .map(|(address, known)| (known.name.clone(), *address))
            .collect();
        for (name, address) in expired {
            self.remove(&name, &address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn table() -> (NameTable, EndpointId) {
        let resolvers = Resolvers {
            addresses: vec![],
            min_ttl: Duration::from_secs(60),
        };
        (NameTable::new(resolvers), EndpointId::new(1).unwrap())
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn later(seconds: u64) -> Duration {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn a_pair_counts_for_its_ttl_and_at_least_for_the_floor() {
        let (table, id) = table();
        table.learn(id, "a.b", &[(v4(1), 5), (v4(2), 300)], NOW);
        let known = |address, now| table.names_for(id, &address, now).len();
        assert_eq!((known(v4(1), later(59)), known(v4(1), later(60))), (1, 0));
        assert_eq!((known(v4(2), later(299)), known(v4(2), later(300))), (1, 0));
        table.learn(id, "a.b", &[(v4(2), 0)], later(10));
        assert_eq!(known(v4(2), later(299)), 1, "never shortened");
        assert!(
            table
                .names_for(EndpointId::new(17).unwrap(), &v4(1), NOW)
                .is_empty()
        );
        table.forget(id);
        assert_eq!(known(v4(2), NOW), 0);
    }

    #[test]
    fn the_oldest_address_of_a_name_goes_first() {
        let (table, id) = table();
        let all: Vec<_> = (0..ADDRESSES_MAX as u32).map(|n| (v4(n), 100)).collect();
        assert_eq!(table.learn(id, "a.b", &all, NOW).replaced, 0);
        table.learn(id, "a.b", &[(v4(0), 100)], NOW);
        assert_eq!(table.learn(id, "a.b", &[(v4(9999), 100)], NOW).replaced, 1);
        let known = |n| !table.names_for(id, &v4(n), NOW).is_empty();
        assert!(known(0) && known(9999) && known(2) && !known(1));
    }

    #[test]
    fn names_are_bounded_in_all_ways_and_expired_ones_make_room() {
        let (table, id) = table();
        for n in 0..NAMES_MAX as u32 {
            let name = format!("n{n}.b");
            assert_eq!(table.learn(id, &name, &[(v4(n), 100)], NOW).refused, 0);
        }
        let more = |now| table.learn(id, "more.b", &[(v4(7), 100)], now);
        assert_eq!(more(NOW).refused, 1);
        assert_eq!(
            more(later(100)),
            Learnt {
                pairs: 1,
                ..Learnt::default()
            }
        );
        for n in 0..NAMES_PER_ADDRESS_MAX {
            table.learn(id, &format!("m{n}.b"), &[(v4(7), 100)], later(100));
        }
        let names = table.names_for(id, &v4(7), later(100));
        assert_eq!(names.len(), NAMES_PER_ADDRESS_MAX);
        assert!(!names.iter().any(|name| **name == *"more.b"));
    }

    #[test]
    fn what_is_known_can_be_handed_on() {
        let (before, id) = table();
        before.learn(id, "a.b", &[(v4(1), 5), (v4(2), 300)], NOW);
        let after = table().0;
        for (name, address, expires) in before.known(id, later(60)) {
            after.restore(id, &name, address, expires);
        }
        let known = |address, now| after.names_for(id, &address, now).len();
        assert_eq!((known(v4(1), NOW), known(v4(2), later(299))), (0, 1));
        assert_eq!(known(v4(2), later(300)), 0);
    }

    #[test]
    fn pairs_are_bounded() {
        let (table, id) = table();
        let mut refused = 0;
        for name in 0..(PAIRS_MAX / ADDRESSES_MAX + 1) as u32 {
            let addresses = (0..ADDRESSES_MAX as u32).map(|n| (v4(name * 1000 + n), 100));
            let all: Vec<_> = addresses.collect();
            refused += table.learn(id, &format!("n{name}.b"), &all, NOW).refused;
        }
        assert_eq!(refused, ADDRESSES_MAX as u64);
    }
}
