//! What names a flow.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tollgate_wire::packet::{L4, Layout};
use tollgate_wire::tag::{Direction, EndpointId, Tag};

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
    /// The flow of a packet that came with `tag`. A fragment without ports has 0 for them.
    pub fn of(tag: Tag, layout: &Layout) -> Self {
        let (src_port, dst_port) = match layout.l4 {
            L4::Tcp(tcp) => (tcp.src_port, tcp.dst_port),
            L4::Udp { src_port, dst_port } | L4::Sctp { src_port, dst_port } => {
                (src_port, dst_port)
            }
            L4::Fragment(fragment) => fragment.ports.unwrap_or((0, 0)),
            L4::Icmp(_) | L4::Other => (0, 0),
        };
        let source = (layout.src, src_port);
        let destination = (layout.dst, dst_port);
        let ((local, mut local_port), (remote, remote_port)) = match tag.direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        if let L4::Icmp(icmp) = layout.l4 {
            local_port = icmp.identifier.unwrap_or(0);
        }
        Self {
            endpoint: tag.endpoint,
            protocol: layout.protocol,
            local,
            local_port,
            remote,
            remote_port,
        }
    }

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
