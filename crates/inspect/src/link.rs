//! Link types: whatever the capture's frames begin with becomes an Ethernet header. Numbers are
//! those of <https://www.tcpdump.org/linktypes.html>.

/// BSD loopback: four bytes of address family in the byte order of the host that captured.
const NULL: i32 = 0;
/// Ethernet.
const ETHERNET: i32 = 1;
/// Raw IP, as some systems number it.
const RAW_BSD: i32 = 12;
/// Raw IP, as OpenBSD numbers it.
const RAW_OPENBSD: i32 = 14;
/// Raw IP.
const RAW: i32 = 101;
/// OpenBSD loopback: the family in network byte order.
const LOOP: i32 = 108;
/// Linux "cooked" capture.
const LINUX_SLL: i32 = 113;
/// Raw IPv4.
const IPV4: i32 = 228;
/// Raw IPv6.
const IPV6: i32 = 229;
/// Linux "cooked" capture, second version.
const LINUX_SLL2: i32 = 276;

/// Length of the family before a loopback packet.
const FAMILY_LEN: usize = 4;
/// Length of the header of [`LINUX_SLL`]; its last two bytes are an EtherType.
const SLL_LEN: usize = 16;
/// Length of the header of [`LINUX_SLL2`]; its first two bytes are an EtherType.
const SLL2_LEN: usize = 20;
/// Both addresses of an Ethernet header.
const MACS_LEN: usize = 12;
/// An EtherType.
const ETHERTYPE_LEN: usize = 2;
/// An 802.1Q tag: its EtherType and the TCI.
const VLAN_LEN: usize = 4;

/// Addresses where the capture has none: locally administered (IEEE 802, 8.2), so nobody's.
const NO_MACS: [u8; MACS_LEN] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Why a packet has no Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link type is none that is known.
    #[error("link type {0} is not known")]
    Unknown(i32),
    /// The packet is shorter than its link header, or is no IP packet where it must be one.
    #[error("the packet is shorter than its link header, or not IP")]
    Malformed,
}

/// An Ethernet frame in parts, without the VLAN tags that the capture had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// Destination and source address.
    pub macs: [u8; MACS_LEN],
    /// EtherType behind the last tag.
    pub ethertype: [u8; 2],
    /// What follows it.
    pub payload: &'a [u8],
    /// Tags that were taken off.
    pub tags: u32,
}

/// Reads a captured packet as an Ethernet frame.
///
/// # Errors
/// [`LinkError`]: the packet is to be skipped.
pub fn to_ethernet(link_type: i32, data: &[u8]) -> Result<Ethernet<'_>, LinkError> {
    let frame = match link_type {
        ETHERNET => {
            let (macs, rest) = data
                .split_first_chunk::<MACS_LEN>()
                .ok_or(LinkError::Malformed)?;
            let (ethertype, payload) = ethertype(rest)?;
            frame(*macs, ethertype, payload)
        }
        NULL | LOOP => ip(data.get(FAMILY_LEN..).unwrap_or_default())?,
        RAW | RAW_BSD | RAW_OPENBSD | IPV4 | IPV6 => ip(data)?,
        LINUX_SLL => {
            let behind = data
                .get(SLL_LEN - ETHERTYPE_LEN..)
                .ok_or(LinkError::Malformed)?;
            let (ethertype, payload) = ethertype(behind)?;
            frame(NO_MACS, ethertype, payload)
        }
        LINUX_SLL2 => {
            let (ethertype, _) = ethertype(data)?;
            let payload = data.get(SLL2_LEN..).ok_or(LinkError::Malformed)?;
            frame(NO_MACS, ethertype, payload)
        }
        other => return Err(LinkError::Unknown(other)),
    };
    untag(frame)
}

fn frame(macs: [u8; MACS_LEN], ethertype: [u8; 2], payload: &[u8]) -> Ethernet<'_> {
    Ethernet {
        macs,
        ethertype,
        payload,
        tags: 0,
    }
}

/// An IP packet says itself what it is.
fn ip(packet: &[u8]) -> Result<Ethernet<'_>, LinkError> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => Ok(frame(NO_MACS, ETHERTYPE_IPV4, packet)),
        Some(6) => Ok(frame(NO_MACS, ETHERTYPE_IPV6, packet)),
        _ => Err(LinkError::Malformed),
    }
}

fn ethertype(bytes: &[u8]) -> Result<([u8; 2], &[u8]), LinkError> {
    let (ethertype, rest) = bytes
        .split_first_chunk::<ETHERTYPE_LEN>()
        .ok_or(LinkError::Malformed)?;
    Ok((*ethertype, rest))
}

/// Takes every VLAN tag off: the engine's own has its place.
fn untag(mut frame: Ethernet<'_>) -> Result<Ethernet<'_>, LinkError> {
    // 802.1Q, 802.1ad, and what was there before 802.1ad.
    while matches!(frame.ethertype, [0x81 | 0x91, 0x00] | [0x88, 0xa8]) {
        let behind = frame
            .payload
            .get(VLAN_LEN - ETHERTYPE_LEN..)
            .ok_or(LinkError::Malformed)?;
        (frame.ethertype, frame.payload) = ethertype(behind)?;
        frame.tags += 1;
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP4: [u8; 4] = [0x45, 1, 2, 3];

    #[test]
    fn every_link_type_leads_to_the_ip_packet() {
        let mut sll = [0u8; SLL_LEN];
        sll[SLL_LEN - 2..].copy_from_slice(&ETHERTYPE_IPV4);
        let mut sll2 = [0u8; SLL2_LEN];
        sll2[..2].copy_from_slice(&ETHERTYPE_IPV4);
        let ethernet = [&NO_MACS[..], &ETHERTYPE_IPV4].concat();
        for (link_type, header) in [
            (ETHERNET, &ethernet[..]),
            (NULL, &[2, 0, 0, 0]),
            (LOOP, &[0, 0, 0, 2]),
            (RAW, &[]),
            (IPV4, &[]),
            (LINUX_SLL, &sll),
            (LINUX_SLL2, &sll2),
        ] {
            let data = [header, &IP4].concat();
            let frame = to_ethernet(link_type, &data).unwrap();
            assert_eq!(frame.payload, IP4, "link type {link_type}");
            assert_eq!(frame.ethertype, ETHERTYPE_IPV4, "link type {link_type}");
            for len in 0..header.len() {
                assert!(
                    to_ethernet(link_type, &data[..len]).is_err(),
                    "{link_type} {len}"
                );
            }
        }
        assert_eq!(to_ethernet(147, &IP4), Err(LinkError::Unknown(147)));
        assert_eq!(to_ethernet(RAW, b"x"), Err(LinkError::Malformed));
    }

    #[test]
    fn tags_are_taken_off() {
        let data = [
            &NO_MACS[..],
            &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7],
            &ETHERTYPE_IPV6,
            &[0x60],
        ]
        .concat();
        let frame = to_ethernet(ETHERNET, &data).unwrap();
        assert_eq!((frame.tags, frame.payload), (2, &[0x60][..]));
        assert!(to_ethernet(ETHERNET, &data[..17]).is_err());
    }
}
