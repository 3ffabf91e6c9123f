//! Finds the first rule that matches a flow without trying them all.
//!
//! Every rule is entered under pairs of an *atom* of its peers and a *block* of its destination
//! ports. Atoms are: any address; a class of single addresses that the same peer sets contain; a
//! CIDR. Blocks are aligned power-of-two ranges, written as a prefix like a CIDR's: a single port
//! has a prefix of 16 bits, all ports one of 0. An address belongs to few atoms, a port to at most
//! 17 blocks, of which only those lengths are asked for that occur under the atom; so a lookup is a
//! handful of hash probes, whatever the number of rules.
//!
//! What atom and block do not say (exceptions of a CIDR, source ports, ICMP types, named ports)
//! makes an entry conditional: the rule itself is asked. Behind an unconditional entry nothing can
//! be first, so a list ends there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::chain::{Peers, Ports, Rule, ServiceMatch};
use crate::names::Asked;

/// Set in an entry if the rule itself must be asked.
const CONDITIONAL: u32 = 1 << 31;
/// The atom of rules without peers.
const ANYONE: u32 = 0;
/// Stands for "any protocol" where a block's prefix length is expected.
const ANY_PROTOCOL: u8 = 31;
/// Bits of a port number.
const PORT_BITS: u8 = 16;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct FlowIndex {
    addresses: HashMap<IpAddr, u32>,
    v4: Blocks<u32>,
    v6: Blocks<u128>,
    /// Per atom: the block lengths that occur, one bit each.
    lengths: Vec<u32>,
    /// Atom and block to a range of `entries`.
    lists: HashMap<u64, (u32, u32)>,
    entries: Vec<u32>,
}

/// CIDRs of one family by prefix length and network.
#[derive(Debug)]
struct Blocks<N> {
    lengths: Vec<u8>,
    atoms: HashMap<(u8, N), u32>,
}

impl<N> Default for Blocks<N> {
    fn default() -> Self {
        Self {
            lengths: Vec::new(),
            atoms: HashMap::new(),
        }
    }
}

impl FlowIndex {
    pub(crate) fn new(rules: &[Arc<Rule>]) -> Self {
        let mut builder = Builder::default();
        builder.add_all(rules);
        builder.finish()
    }

    /// The first of the rules that matches. They must be those that the index was built from.
    pub(crate) fn first<'r>(&self, rules: &'r [Arc<Rule>], asked: Asked<'_>) -> Option<&'r Rule> {
        let query = asked.query;
        if self.entries.is_empty() {
            return None;
        }
        let mut best = rules.len() as u32;
        self.search(ANYONE, rules, asked, &mut best);
        if let Some(atom) = self.addresses.get(&query.remote) {
            self.search(*atom, rules, asked, &mut best);
        }
        match query.remote {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                for length in &self.v4.lengths {
                    let network = bits & mask_v4(*length);
                    if let Some(atom) = self.v4.atoms.get(&(*length, network)) {
                        self.search(*atom, rules, asked, &mut best);
                    }
                }
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                for length in &self.v6.lengths {
                    let network = bits & mask_v6(*length);
                    if let Some(atom) = self.v6.atoms.get(&(*length, network)) {
                        self.search(*atom, rules, asked, &mut best);
                    }
                }
            }
        }
        rules.get(best as usize).map(|rule| &**rule)
    }

    fn search(&self, atom: u32, rules: &[Arc<Rule>], asked: Asked<'_>, best: &mut u32) {
        let query = asked.query;
        let mut lengths = self.lengths.get(atom as usize).copied().unwrap_or_default();
        while lengths != 0 {
            let length = lengths.trailing_zeros() as u8;
            lengths &= lengths - 1;
            let (protocol, prefix) = match length {
                ANY_PROTOCOL => (0, 0),
                length => (query.protocol, prefix(query.destination_port(), length)),
            };
            if let Some((start, end)) = self.lists.get(&key(atom, protocol, length, prefix)) {
                let list = self
                    .entries
                    .get(*start as usize..*end as usize)
                    .unwrap_or_default();
                search_list(list, rules, asked, best);
            }
        }
    }
}

fn search_list(list: &[u32], rules: &[Arc<Rule>], asked: Asked<'_>, best: &mut u32) {
    for entry in list {
        let number = entry & !CONDITIONAL;
        if number >= *best {
            return;
        }
        let sure = entry & CONDITIONAL == 0;
        if sure
            || rules
                .get(number as usize)
                .is_some_and(|rule| rule.matches(asked))
        {
            *best = number;
            return;
        }
    }
}

fn key(atom: u32, protocol: u8, length: u8, prefix: u16) -> u64 {
    u64::from(atom) << 32 | u64::from(protocol) << 24 | u64::from(length) << 16 | u64::from(prefix)
}

fn prefix(port: u16, length: u8) -> u16 {
    port.checked_shr(u32::from(PORT_BITS - length.min(PORT_BITS)))
        .unwrap_or(0)
}

fn mask_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Aligned power-of-two blocks that make up a range: prefix length and prefix, at most 30.
fn blocks(low: u16, high: u16) -> Vec<(u8, u16)> {
    let mut found = Vec::new();
    let (mut at, end) = (u32::from(low), u32::from(high) + 1);
    while at < end {
        let aligned = if at == 0 {
            16
        } else {
            at.trailing_zeros().min(16)
        };
        let fits = (end - at).ilog2();
        let bits = aligned.min(fits);
        found.push((PORT_BITS - bits as u8, (at >> bits) as u16));
        at += 1 << bits;
    }
    found
}

/// Blocks of a rule with the mark of conditional entries, without the atom.
type Slots = Vec<(u8, u8, u16, bool)>;

#[derive(Default)]
struct Builder {
    index: FlowIndex,
    raw: Vec<(u64, u32)>,
    /// Peer set (by its place in memory) to its number.
    sets: HashMap<usize, u32>,
    /// By set: the rules that have it.
    users: Vec<Vec<u32>>,
    /// The sets that contain each address.
    memberships: BTreeMap<IpAddr, Vec<u32>>,
}

impl Builder {
    fn add_all(&mut self, rules: &[Arc<Rule>]) {
        self.index.lengths.push(0);
        let slots: Vec<Slots> = rules.iter().map(|rule| slots(rule)).collect();
        for ((number, rule), slots) in (0u32..).zip(rules).zip(&slots) {
            match &rule.peers {
                Peers::Any => self.enter(ANYONE, number, slots, false),
                Peers::Set(set) => {
                    let address = Arc::as_ptr(set) as usize;
                    let next = self.users.len() as u32;
                    let id = *self.sets.entry(address).or_insert(next);
                    if id == next {
                        self.users.push(Vec::new());
                        for member in &set.addresses {
                            self.memberships.entry(*member).or_default().push(id);
                        }
                    }
                    if let Some(users) = self.users.get_mut(id as usize) {
                        users.push(number);
                    }
                    // Which addresses a name stands for is known when the rule is asked.
                    if !set.names.is_empty() {
                        self.enter(ANYONE, number, slots, true);
                    }
                    for block in &set.blocks {
                        let atom = self.block_atom(&block.cidr);
                        self.enter(atom, number, slots, !block.except.is_empty());
                    }
                }
            }
        }
        self.enter_classes(&slots);
    }

    /// Addresses with the same memberships are one atom.
    fn enter_classes(&mut self, slots: &[Slots]) {
        let mut classes: HashMap<Vec<u32>, u32> = HashMap::new();
        for (address, sets) in std::mem::take(&mut self.memberships) {
            let atom = match classes.get(&sets) {
                Some(atom) => *atom,
                None => {
                    let atom = self.new_atom();
                    let users = sets.iter().filter_map(|id| self.users.get(*id as usize));
                    let users: Vec<u32> = users.flatten().copied().collect();
                    for number in users {
                        if let Some(slots) = slots.get(number as usize) {
                            self.enter(atom, number, slots, false);
                        }
                    }
                    classes.insert(sets, atom);
                    atom
                }
            };
            self.index.addresses.insert(address, atom);
        }
    }

    fn new_atom(&mut self) -> u32 {
        self.index.lengths.push(0);
        (self.index.lengths.len() - 1) as u32
    }

    fn block_atom(&mut self, net: &ipnet::IpNet) -> u32 {
        let length = net.prefix_len();
        let next = self.index.lengths.len() as u32;
        let atom = match net.network() {
            IpAddr::V4(network) => {
                let key = (length, network.to_bits());
                *self.index.v4.atoms.entry(key).or_insert(next)
            }
            IpAddr::V6(network) => {
                let key = (length, network.to_bits());
                *self.index.v6.atoms.entry(key).or_insert(next)
            }
        };
        if atom == next {
            self.new_atom();
        }
        atom
    }

    fn enter(&mut self, atom: u32, number: u32, slots: &Slots, conditional: bool) {
        for (protocol, length, prefix, unsure) in slots {
            let mark = if conditional || *unsure {
                CONDITIONAL
            } else {
                0
            };
            self.raw
                .push((key(atom, *protocol, *length, *prefix), number | mark));
            if let Some(lengths) = self.index.lengths.get_mut(atom as usize) {
                *lengths |= 1 << length;
            }
        }
    }

    fn finish(mut self) -> FlowIndex {
        self.index.v4.lengths = lengths_of(self.index.v4.atoms.keys().map(|key| key.0));
        self.index.v6.lengths = lengths_of(self.index.v6.atoms.keys().map(|key| key.0));
        // Of a rule's two entries under one key the unconditional comes first.
        self.raw
            .sort_unstable_by_key(|(key, entry)| (*key, entry & !CONDITIONAL, *entry));
        let index = &mut self.index;
        for list in self.raw.chunk_by(|a, b| a.0 == b.0) {
            let start = index.entries.len() as u32;
            let mut last = None;
            for (_, entry) in list {
                let number = entry & !CONDITIONAL;
                if last != Some(number) {
                    index.entries.push(*entry);
                }
                last = Some(number);
                if entry & CONDITIONAL == 0 {
                    break;
                }
            }
            if let Some((key, _)) = list.first() {
                index
                    .lists
                    .insert(*key, (start, index.entries.len() as u32));
            }
        }
        self.index
    }
}

fn lengths_of(lengths: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut lengths: Vec<u8> = lengths.collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

fn slots(rule: &Rule) -> Slots {
    if rule.services.is_empty() {
        return vec![(0, ANY_PROTOCOL, 0, false)];
    }
    let mut slots = Slots::new();
    for service in &*rule.services {
        match service {
            ServiceMatch::Ports {
                protocol,
                destination: Ports::Range(low, high),
                source,
            } => {
                let found = blocks(*low, *high).into_iter();
                slots.extend(
                    found.map(|(length, prefix)| (*protocol, length, prefix, source.is_some())),
                );
            }
            ServiceMatch::Ports {
                protocol,
                destination: Ports::Named(places),
                ..
            } => {
                let mut ports: Vec<u16> = places.iter().map(|(_, port)| *port).collect();
                ports.sort_unstable();
                ports.dedup();
                slots.extend(
                    ports
                        .into_iter()
                        .map(|port| (*protocol, PORT_BITS, port, true)),
                );
            }
            ServiceMatch::Message {
                protocols,
                kind,
                code,
            } => {
                let unsure = kind.is_some() || code.is_some();
                slots.extend(protocols.iter().map(|protocol| (*protocol, 0, 0, unsure)));
            }
        }
    }
    slots
}
