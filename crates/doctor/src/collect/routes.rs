//! Routes of the main table, by rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::Route;
use tollgate_datapath::netlink::{
    Socket, address, attributes, attributes_after, u8_of, u16_at, u32_at, u32_of,
};

// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Bytes of `struct rtmsg` and of `struct rtnexthop`.
const RTMSG: usize = 12;
const NEXT_HOP: usize = 8;
const TABLE_MAIN: u32 = 254;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RTM_F_CLONED`: a cached exception, no route.
const CLONED: u32 = 0x200;
const AF_INET6: u8 = 10;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
/// More are not kept: a router with the Internet's table is not what is diagnosed here.
const MAX_ROUTES: usize = 65_536;

/// All routes, both families, each next hop of a multipath route for itself.
///
/// # Errors
/// The kernel's answer, or there are more routes than are kept.
pub fn read(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut room = MAX_ROUTES;
    let found = socket.dump(RTM_GETROUTE, &[0; RTMSG], |kind, body| {
        if kind != RTM_NEWROUTE || room == 0 {
            return None;
        }
        let routes = routes(body)?;
        room = room.saturating_sub(routes.len());
        Some(routes)
    })?;
    if room == 0 {
        return Err(io::Error::other(format!("more than {MAX_ROUTES} routes")));
    }
    Ok(found.into_iter().flatten().collect())
}

fn routes(body: &[u8]) -> Option<Vec<Route>> {
    let header = body.first_chunk::<RTMSG>()?;
    let [family, prefix, _, _, table, _, _, kind, ..] = *header;
    if kind != UNICAST || u32_at(body, 8)? & CLONED != 0 {
        return None;
    }
    let mut table = u32::from(table);
    let mut to = match family {
        AF_INET6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let mut hop = NextHop::default();
    let mut hops = Vec::new();
    let (mut metric, mut mtu, mut advmss) = (0, None, None);
    for (kind, value) in attributes_after(body, RTMSG) {
        match kind {
            RTA_DST => to = address(value)?,
            RTA_PRIORITY => metric = u32_of(value),
            RTA_TABLE => table = u32_of(value),
            RTA_MULTIPATH => hops = multipath(value),
            RTA_METRICS => {
                for (kind, value) in attributes(value) {
                    match kind {
                        RTAX_MTU => mtu = Some(u32_of(value)),
                        RTAX_ADVMSS => advmss = Some(u32_of(value)),
                        _ => {}
                    }
                }
            }
            _ => hop.take(kind, value),
        }
    }
    if table != TABLE_MAIN {
        return None;
    }
    if hop.ifindex != 0 {
        hops.insert(0, hop);
    }
    let to = IpNet::new(to, prefix).ok()?;
    let route = |hop: NextHop| Route {
        to,
        via: hop.via,
        ifindex: hop.ifindex,
        mtu,
        advmss,
        metric,
    };
    Some(hops.into_iter().map(route).collect())
}

#[derive(Clone, Copy, Default)]
struct NextHop {
    ifindex: u32,
    via: Option<IpAddr>,
}

impl NextHop {
    fn take(&mut self, kind: u16, value: &[u8]) {
        match kind {
            RTA_OIF => self.ifindex = u32_of(value),
            RTA_GATEWAY => self.via = address(value),
            // struct rtvia: a family, then the address.
            RTA_VIA => self.via = value.get(2..).and_then(address),
            _ => {}
        }
    }
}

fn multipath(value: &[u8]) -> Vec<NextHop> {
    let mut hops = Vec::new();
    let mut rest = value;
    // struct rtnexthop: length, flags, hops, interface.
    while let (Some(len), Some(ifindex)) = (u16_at(rest, 0), u32_at(rest, 4)) {
        let len = usize::from(len);
        let Some(attributes_of_hop) = rest.get(NEXT_HOP..len) else {
            break;
        };
        let mut hop = NextHop { ifindex, via: None };
        for (kind, value) in attributes(attributes_of_hop) {
            hop.take(kind, value);
        }
        hops.push(hop);
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// Number that the asking namespace has for the one open as `fd`; `None` if it has none.
pub fn netns_number(
    socket: &mut Socket,
    fd: std::os::fd::BorrowedFd<'_>,
) -> io::Result<Option<u32>> {
    use std::os::fd::AsRawFd as _;
    const RTM_GETNSID: u16 = 90;
    const NETNSA_NSID: u16 = 1;
    const NETNSA_FD: u16 = 3;
    let mut body = vec![0; 4]; // struct rtgenmsg, padded
    tollgate_datapath::netlink::push(&mut body, NETNSA_FD, &fd.as_raw_fd().to_ne_bytes());
    let answer = socket.ask(RTM_GETNSID, &body)?;
    let number = answer
        .iter()
        .flat_map(|message| attributes_after(&message.payload, 4))
        .find(|(kind, _)| *kind == NETNSA_NSID);
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(number
        .map(|(_, value)| u32_of(value))
        .filter(|&number| number != u32::MAX))
}

/// The tables of nftables: is there any? By `NFT_MSG_GETTABLE`.
pub fn has_nft_tables(socket: &mut Socket) -> io::Result<bool> {
    const SUBSYSTEM: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
    const NEW_TABLE: u16 = SUBSYSTEM;
    const GET_TABLE: u16 = SUBSYSTEM | 1;
    // struct nfgenmsg: family, version, resource.
    let tables = socket.dump(GET_TABLE, &[0; 4], |kind, body| {
        (kind == NEW_TABLE).then(|| u8_of(body))
    })?;
    Ok(!tables.is_empty())
}
