//! IP fragments. Only a packet's first fragment has ports; the others share its fate, by address
//! pair and identification (RFC 791, RFC 8200 section 4.5). A fragment that comes before the
//! first one is dropped, and so is fragmented TCP under a rule set: no TCP stack makes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;
use tollgate_wire::tag::Tag;

/// How long a first fragment's verdict is remembered: what Linux waits for a packet's fragments
/// (`net.ipv4.ipfrag_time`).
const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    pub tag: Tag,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub id: u32,
}

/// The packets whose first fragment was let through.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    allowed: HashMap<FragmentKey, Duration, foldhash::fast::RandomState>,
    /// In order of arrival, for expiry.
    order: VecDeque<(Duration, FragmentKey)>,
}

impl Fragments {
    /// Remembers a first fragment that was let through. False: too many are remembered.
    pub(crate) fn allow(&mut self, key: FragmentKey, now: Duration, limit: usize) -> bool {
        self.expire(now);
        if self.order.len() >= limit {
            return false;
        }
        self.allowed.insert(key, now);
        self.order.push_back((now, key));
        true
    }

    /// A first fragment was not let through: those behind it are not either.
    pub(crate) fn deny(&mut self, key: &FragmentKey) {
        self.allowed.remove(key);
    }

    pub(crate) fn is_allowed(&mut self, key: &FragmentKey, now: Duration) -> bool {
        self.expire(now);
        self.allowed.contains_key(key)
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.allowed.allocation_size()
            + self.order.capacity() * size_of::<(Duration, FragmentKey)>()
    }

    fn expire(&mut self, now: Duration) {
        while let Some((since, key)) = self.order.front() {
            if now.saturating_sub(*since) < LIFETIME {
                return;
            }
            if self.allowed.get(key) == Some(since) {
                self.allowed.remove(key);
            }
            self.order.pop_front();
        }
    }
}
