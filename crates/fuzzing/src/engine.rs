//! The engine between a client and a server, with the kernel's flow cache around it.
//!
//! One TCP connection is watched: its server is honest (it acknowledges what it read and nothing
//! else), its client is not, and what the server reads must never be a request that the policy
//! forbids. Beside it frames of any kind go through the same engine.

mod gate;
mod repair;
mod server;

use tollgate_wire::packet::TcpFlags;
use tollgate_wire::tag::Direction;

use crate::cut::record;
use gate::{Gate, link_up};
use server::{Server, Wins};

/// Most records of one input: more repeat themselves.
const RECORDS_MAX: usize = 200;
/// First bytes of an input: which service the watched connection is opened to.
const PORTS: [u16; 3] = [80, 443, 80];

/// Sequence number of the client's first byte, close to where the numbers start over.
const CLIENT_FIRST: u32 = 0xffff_fff0;
/// Sequence number of the server's first byte.
const SERVER_FIRST: u32 = 5000;

/// A conversation: one byte that chooses the service, then records with two bytes of length. The
/// first byte of a record is its kind (`kind`).
///
/// It takes place twice, with a server that keeps the earlier of two versions of a byte that came
/// too early, and with one that keeps the later.
///
/// # Panics
/// If a promise of the engine is broken.
pub fn engine(data: &[u8]) {
    let Some((service, conversation)) = data.split_first() else {
        return;
    };
    let port = PORTS
        .get(usize::from(*service) % PORTS.len())
        .copied()
        .unwrap_or(80);
    for wins in [Wins::First, Wins::Last] {
        Talk::new(port, wins).run(conversation);
    }
}

/// Kinds of records, by the lower three bits of the first byte.
pub(crate) mod kind {
    /// A segment of the client: flags, two bytes of offset in its stream, payload.
    pub const CLIENT: u8 = 0;
    /// A segment of the server: flags, payload. It acknowledges what the server has read.
    pub const SERVER: u8 = 1;
    /// So many seconds pass (next byte).
    pub const WAIT: u8 = 2;
    /// A frame leaves the endpoint: virtio-net header and Ethernet. Its checksums are made right.
    pub const FRAME_OUT: u8 = 3;
    /// A frame for the endpoint.
    pub const FRAME_IN: u8 = 4;
    /// A frame leaves the endpoint just as it is.
    pub const FRAME_AS_IS: u8 = 5;
    /// The policy is replaced by an equal one.
    pub const POLICY: u8 = 6;
    /// The next bytes of the client's stream, in order: payload.
    pub const CLIENT_NEXT: u8 = 7;
}

struct Talk {
    gate: Gate,
    server: Server,
    port: u16,
    /// Where the client's stream goes on, as an offset.
    client_next: u32,
    server_next: u32,
}

impl Talk {
    fn new(port: u16, wins: Wins) -> Self {
        let mut talk = Self {
            gate: Gate::new(),
            server: Server::new(wins, CLIENT_FIRST, port),
            port,
            client_next: 0,
            server_next: SERVER_FIRST,
        };
        let before = CLIENT_FIRST.wrapping_sub(1);
        talk.client(TcpFlags::SYN, before, 0, b"");
        let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
        talk.server(syn_ack, SERVER_FIRST.wrapping_sub(1), CLIENT_FIRST, b"");
        talk.client(TcpFlags::ACK, CLIENT_FIRST, SERVER_FIRST, b"");
        talk
    }

    fn run(&mut self, conversation: &[u8]) {
        let mut rest = conversation;
        for _ in 0..RECORDS_MAX {
            let Some(record) = record(&mut rest) else {
                break;
            };
            if let Some((kind, body)) = record.split_first() {
                self.record(kind & 7, body);
            }
        }
        self.server.check();
    }

    fn record(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (kind::CLIENT, [flags, high, low, payload @ ..]) => {
                let offset = u32::from(u16::from_be_bytes([*high, *low]));
                self.client_at(*flags, offset, payload);
            }
            (kind::CLIENT_NEXT, payload) => {
                let at = self.client_next;
                let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                self.client_next = at.wrapping_add(len);
                self.client_at(TcpFlags::PSH.0, at, payload);
            }
            (kind::SERVER, [flags, payload @ ..]) => self.server_says(*flags, payload),
            (kind::WAIT, [seconds, ..]) => self.gate.wait(u64::from(*seconds)),
            (kind::FRAME_OUT, frame) => self.frame(Direction::Outbound, frame, true),
            (kind::FRAME_IN, frame) => self.frame(Direction::Inbound, frame, true),
            (kind::FRAME_AS_IS, frame) => self.frame(Direction::Outbound, frame, false),
            (kind::POLICY, _) => {
                self.gate.renew_policy();
                self.take();
            }
            _ => {}
        }
    }

    /// Not a SYN: it would open another connection, which the server here does not know.
    fn client_at(&mut self, flags: u8, offset: u32, payload: &[u8]) {
        let flags = (TcpFlags(flags) | TcpFlags::ACK).without(TcpFlags::SYN);
        let seq = CLIENT_FIRST.wrapping_add(offset);
        self.client(flags, seq, self.server_next, payload);
    }

    fn server_says(&mut self, flags: u8, payload: &[u8]) {
        if !self.server.is_alive() {
            return;
        }
        let flags = (TcpFlags(flags) | TcpFlags::ACK)
            .without(TcpFlags::SYN)
            .without(TcpFlags::RST);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.server.speaks(payload);
        self.server(flags, self.server_next, self.server.ack(), payload);
        self.server_next = self
            .server_next
            .wrapping_add(len)
            .wrapping_add(u32::from(flags.fin()));
    }

    fn client(&mut self, flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) {
        let frame = gate::segment(Direction::Outbound, self.port, flags, seq, ack, payload);
        self.gate.arrives(Direction::Outbound, &frame);
        self.take();
    }

    fn server(&mut self, flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) {
        let frame = gate::segment(Direction::Inbound, self.port, flags, seq, ack, payload);
        self.gate.arrives(Direction::Inbound, &frame);
        self.take();
    }

    fn frame(&mut self, direction: Direction, frame: &[u8], repaired: bool) {
        let mut frame = frame.to_vec();
        link_up(&mut frame, direction);
        if repaired {
            repair::checksums(&mut frame);
        }
        // The watched connection has records of its own, and its server is honest.
        if gate::is_watched(&frame) {
            return;
        }
        self.gate.arrives(direction, &frame);
        self.take();
    }

    fn take(&mut self) {
        for frame in self.gate.take_out() {
            self.server.take(&frame, self.port);
        }
        self.gate.within_bounds();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n";
    const BAD: &[u8] = b"GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n";

    /// The connection is open and reaches the server, or nothing would be tested at all.
    #[test]
    fn what_is_allowed_is_delivered_and_nothing_else() {
        let mut talk = Talk::new(80, Wins::First);
        talk.record(kind::CLIENT_NEXT, GOOD);
        talk.record(
            kind::SERVER,
            b"\x10HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        );
        talk.record(kind::CLIENT_NEXT, GOOD);
        assert_eq!(talk.server.read, [GOOD, GOOD].concat());
        talk.record(kind::CLIENT_NEXT, BAD);
        assert_eq!(talk.server.read, [GOOD, GOOD].concat());
        assert!(!talk.server.is_alive(), "the engine resets the connection");
        talk.server.check();
    }

    #[test]
    #[should_panic(expected = "GET /forbidden was delivered")]
    fn a_forbidden_request_behind_the_gate_is_noticed() {
        let mut talk = Talk::new(80, Wins::First);
        let push = TcpFlags::ACK | TcpFlags::PSH;
        let frame = gate::segment(Direction::Outbound, 80, push, CLIENT_FIRST, 0, BAD);
        talk.server.take(&frame, 80);
        talk.server.check();
    }

    #[test]
    fn frames_of_other_flows_reach_the_engine_with_right_checksums() {
        let mut talk = Talk::new(80, Wins::First);
        let mut frame = gate::segment(Direction::Outbound, 22, TcpFlags::SYN, 1, 0, b"");
        let source_port = 12 + 18 + 20;
        frame[source_port..source_port + 2].copy_from_slice(&[1, 1]);
        link_up(&mut frame, Direction::Outbound);
        repair::checksums(&mut frame);
        assert_eq!(
            tollgate_wire::verify(&frame),
            tollgate_wire::ChecksumState::Good
        );
        talk.gate.arrives(Direction::Outbound, &frame);
        assert_eq!(talk.gate.take_out(), [frame]);
    }
}
