//! The 802.1Q tag that names endpoint and direction on the way to the engine and back.

/// Which way a packet goes, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The packet leaves the endpoint.
    Outbound,
    /// The packet goes to the endpoint.
    Inbound,
}

impl Direction {
    /// The other way.
    pub fn reverse(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }
}

/// Names an endpoint on this node. Fits in eleven bits, because it travels in a VLAN id beside
/// the direction bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(u16);

impl EndpointId {
    /// Lowest identifier: 0 would make VLAN id 0, which means "no VLAN".
    pub const MIN: u16 = 1;
    /// Highest identifier: 2047 would make VLAN id 4095, which 802.1Q reserves.
    pub const MAX: u16 = 2046;

    /// An identifier, if it lies in the allowed range.
    pub fn new(id: u16) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&id).then_some(Self(id))
    }

    /// The number itself.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Endpoint and direction of a diverted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Whose traffic it is.
    pub endpoint: EndpointId,
    /// Which way it goes.
    pub direction: Direction,
}

impl Tag {
    /// The 802.1Q VLAN id: `endpoint << 1 | direction` with 0 outbound and 1 inbound.
    /// `bpf/tollgate.h` has the same formula.
    pub fn vlan_id(self) -> u16 {
        self.endpoint.0 << 1 | u16::from(self.direction == Direction::Inbound)
    }

    /// Reads a tag back from a VLAN id (the low twelve bits of the TCI count).
    pub fn from_vlan_id(tci: u16) -> Option<Self> {
        let vid = tci & 0x0fff;
        let direction = if vid & 1 == 1 {
            Direction::Inbound
        } else {
            Direction::Outbound
        };
        EndpointId::new(vid >> 1).map(|endpoint| Self {
            endpoint,
            direction,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_survives_the_vlan_id() {
        for id in EndpointId::MIN..=EndpointId::MAX {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let tag = Tag {
                    endpoint: EndpointId::new(id).unwrap(),
                    direction,
                };
                assert_eq!(Tag::from_vlan_id(tag.vlan_id()), Some(tag));
            }
        }
        assert_eq!(Tag::from_vlan_id(0), None);
        assert_eq!(Tag::from_vlan_id(4095), None);
    }
}
