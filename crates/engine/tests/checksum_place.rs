//! Where the kernel is told to fill in a checksum.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod sim;

use sim::{Conn, Gate, SERVER, delivered, usual};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction::Outbound;
use tollgate_wire::vnet::{NEEDS_CSUM, VnetHdr};

const GOOD: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
/// Ethernet header with a tag, IPv4 header.
const TCP_AT: u16 = 18 + 20;

/// What comes out for a request whose checksum is to be filled in at this place.
fn sent_with(csum_start: u16, csum_offset: u16) -> String {
    let mut gate = Gate::new(&usual());
    let mut conn = Conn::egress(SERVER);
    conn.open(&mut gate);
    let flags = TcpFlags::ACK | TcpFlags::PSH;
    let mut frame = conn.frame(true, flags, conn.client_seq, conn.server_seq, GOOD);
    // The sum of the pseudo header stands in the field while the rest is still to be added.
    let sum = {
        use tollgate_wire::checksum::{fold, pseudo};
        let len = GOOD.len() as u32 + 20;
        fold(pseudo(conn.client.ip(), conn.server.ip(), 6, len))
    };
    sim::patch_tcp(&mut frame, 16, 0);
    let field = 12 + usize::from(TCP_AT) + 16;
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let header = VnetHdr {
        flags: NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..VnetHdr::default()
    };
    header.write(&mut frame).unwrap();
    delivered(&gate.arrives(Outbound, &frame), Outbound)
}

#[test]
fn a_checksum_in_its_place_is_left_to_the_kernel() {
    assert_eq!(sent_with(TCP_AT, 16).as_bytes(), GOOD);
}

/// Raw sockets let a pod choose. The checksum would overwrite two bytes of the path behind the
/// verdict.
#[test]
fn a_checksum_in_the_payload_is_refused() {
    assert_eq!(sent_with(TCP_AT + 20, 4), "");
    assert_eq!(sent_with(TCP_AT, 20 + 8), "");
    assert_eq!(sent_with(0, 0), "");
}
