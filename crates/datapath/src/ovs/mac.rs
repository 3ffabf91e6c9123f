//! The MAC address at the other end of a veth pair, wherever that is.

use super::flows::Mac;
use crate::netlink::{self, Family, attribute};
use crate::peer;

/// `struct ifinfomsg`: family, padding, type, index at byte 4, flags, change (linux/rtnetlink.h).
const IFINFO: usize = 16;
const INDEX: usize = 4;
/// `IFLA_ADDRESS` and `IFLA_TARGET_NETNSID` of linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_TARGET_NETNSID: u16 = 46;

/// The address of the other end of `ifname`; `None` if that is no veth, or cannot be seen from here.
pub(super) fn of_peer(ifname: &str) -> Option<Mac> {
    let peer = peer::peer(ifname).ok()??;
    let mut body = vec![0; IFINFO];
    body.get_mut(INDEX..INDEX + 4)?
        .copy_from_slice(&peer.ifindex.to_ne_bytes());
    if let Some(nsid) = peer.nsid {
        netlink::push(&mut body, IFLA_TARGET_NETNSID, &nsid.to_ne_bytes());
    }
    let answer = netlink::ask(Family::Route, libc::RTM_GETLINK, false, &body).ok()?;
    let link = answer.first()?.payload.get(IFINFO..)?;
    let octets: [u8; 6] = attribute(link, IFLA_ADDRESS)?.try_into().ok()?;
    Mac::parse(&Mac(octets).to_string())
}
