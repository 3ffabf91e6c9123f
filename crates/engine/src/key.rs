//! What names a flow.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tollgate_wire::tag::EndpointId;

/// (endpoint, protocol, local address and port, remote address and port). One flow for both
/// packet directions. Protocols without ports have 0 there; ICMP echo has its identifier as the
/// local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The endpoint whose policy governs the flow.
    pub endpoint: EndpointId,
    /// IP protocol number.
    pub protocol: u8,
    /// The endpoint's side.
    pub local: IpAddr,
    /// Port on the endpoint's side, host byte order.
    pub local_port: u16,
    /// The other side.
    pub remote: IpAddr,
    /// Port on the other side, host byte order.
    pub remote_port: u16,
}

impl FlowKey {
    /// The endpoint's address and port.
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(self.local, self.local_port)
    }

    /// The other side's address and port.
    pub fn remote_addr(&self) -> SocketAddr {
        SocketAddr::new(self.remote, self.remote_port)
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} <-> {} proto {}",
            self.local_addr(),
            self.remote_addr(),
            self.protocol
        )
    }
}
