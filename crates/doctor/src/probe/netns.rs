//! Work inside a network namespace, in a thread that enters it and ends.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use nix::net::if_::InterfaceFlags;
use tollgate_datapath::netns;

use super::{Listening, ProbeError};

/// The discard port (RFC 863); a UDP socket that is connected to it sends nothing.
const DISCARD: u16 = 9;

/// Does something inside a namespace; see [`netns::within`].
///
/// # Errors
/// The file cannot be opened or is none of a network namespace, or `CAP_SYS_ADMIN` is missing.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, ProbeError> {
    let fail = |source| ProbeError::Enter {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    netns::within(&file, work).map_err(fail)
}

/// Addresses of the other side, at most one of each family: the given one, or of its own the first
/// to which the endpoint has a route.
pub fn addresses(endpoint: &Path, other: &Listening) -> Result<Vec<IpAddr>, ProbeError> {
    let own = within(&other.netns, own_addresses)?.map_err(|errno| ProbeError::Inside {
        doing: "listing addresses",
        path: other.netns.clone(),
        source: errno.into(),
    })?;
    let given = [other.v4.map(IpAddr::V4), other.v6.map(IpAddr::V6)];
    let mut found = Vec::new();
    for (ipv6, given) in [false, true].into_iter().zip(given) {
        let own: Vec<IpAddr> = own
            .iter()
            .copied()
            .filter(|a| a.is_ipv6() == ipv6)
            .collect();
        found.extend(match given {
            Some(address) => Some(address),
            None => reachable(endpoint, &own)?,
        });
    }
    Ok(found)
}

/// The first address that the endpoint has a route to; the first one if it has none to any, so that
/// the probes tell it.
fn reachable(endpoint: &Path, addresses: &[IpAddr]) -> Result<Option<IpAddr>, ProbeError> {
    let found = within(endpoint, || {
        addresses
            .iter()
            .copied()
            .find(|&address| routed(address).is_ok())
    })?;
    Ok(found.or_else(|| addresses.first().copied()))
}

fn routed(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(super::udp::any(address))?;
    socket.connect(SocketAddr::new(address, DISCARD))
}

/// Addresses of interfaces that are up, without loopback and link-local ones.
fn own_addresses() -> nix::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let usable = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let addresses = usable.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    Ok(addresses.filter(|a| !is_link_local(*a)).collect())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let error = within(Path::new("/run/netns/tg-no-such"), || ()).unwrap_err();
        assert!(
            error.to_string().contains("/run/netns/tg-no-such"),
            "{error}"
        );
    }
}
