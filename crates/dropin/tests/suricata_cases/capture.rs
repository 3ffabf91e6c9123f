//! Conversations, packet by packet, and files of packets.

use std::net::SocketAddr;
use std::ops::Range;

use tollgate_wire::build::{self, DEFAULT_HOP_LIMIT, Datagram, L2, Segment};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::vnet::VNET_HDR_LEN;

/// The segment size of a connection over a tunnel: 1450 bytes of MTU, without timestamps.
pub const MSS: usize = 1410;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
const CLIENT_START: u32 = 1_000;
const SERVER_START: u32 = 9_000;
const WINDOW: u16 = 64_000;

/// What a client sends in one go, and what comes back.
#[derive(Clone, Default)]
pub struct Burst {
    /// Each is told apart in the verdict.
    pub requests: Vec<Vec<u8>>,
    /// Where segments end before they are full, in bytes of the burst.
    pub cuts: Vec<usize>,
    /// What the server says to it.
    pub reply: Vec<u8>,
}

/// How packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A conversation.
#[derive(Clone)]
pub struct Talk {
    pub transport: Transport,
    pub port: u16,
    pub is_v6: bool,
    /// The server speaks first.
    pub greeting: Vec<u8>,
    /// The idle connection is probed first (RFC 9293, 3.8.4).
    pub probe: bool,
    /// The client's end of the connection follows.
    pub close: bool,
    pub bursts: Vec<Burst>,
}

/// A packet of a conversation.
pub struct Frame {
    pub from_client: bool,
    /// Bytes of the client's that it carries, counted over all bursts.
    pub bytes: Range<usize>,
    pub is_fin: bool,
    /// Virtio-net header and Ethernet.
    pub data: Vec<u8>,
}

impl Talk {
    /// All packets; `number` makes the client's port, `vlan` the tag.
    pub fn frames(&self, number: u16, vlan: u16) -> Vec<Frame> {
        let (client, server) = if self.is_v6 {
            ("fd10::2", "fd10::3")
        } else {
            ("10.10.0.2", "10.10.0.3")
        };
        let mut line = Line {
            client: SocketAddr::new(client.parse().unwrap(), 20_000 + number),
            server: SocketAddr::new(server.parse().unwrap(), self.port),
            vlan,
            sent: 0,
            received: 0,
            frames: Vec::new(),
        };
        match self.transport {
            Transport::Tcp => self.tcp(&mut line),
            Transport::Udp => self.udp(&mut line),
        }
        line.frames
    }

    /// Where each request lies in the client's bytes.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        let mut at = 0;
        let requests = self.bursts.iter().flat_map(|burst| &burst.requests);
        requests
            .map(|request| {
                let range = at..at + request.len();
                at = range.end;
                range
            })
            .collect()
    }

    fn tcp(&self, line: &mut Line) {
        line.handshake();
        if !self.greeting.is_empty() {
            line.reply(&self.greeting);
        }
        if self.probe {
            line.segment(true, CLIENT_START, TcpFlags::ACK, &[], 0..0);
            line.ack(false);
        }
        for burst in &self.bursts {
            let bytes = burst.requests.concat();
            for range in segments(bytes.len(), &burst.cuts) {
                line.client(&bytes[range]);
                line.ack(false);
            }
            if !burst.reply.is_empty() {
                line.reply(&burst.reply);
            }
        }
        if self.close {
            line.fin();
        }
    }

    fn udp(&self, line: &mut Line) {
        for burst in &self.bursts {
            for request in &burst.requests {
                line.datagram(true, request);
            }
            if !burst.reply.is_empty() {
                line.datagram(false, &burst.reply);
            }
        }
    }
}

fn segments(len: usize, cuts: &[usize]) -> Vec<Range<usize>> {
    let mut ends: Vec<usize> = cuts.iter().copied().filter(|cut| *cut < len).collect();
    ends.push(len);
    let mut found = Vec::new();
    let mut at = 0;
    for end in ends {
        while at < end {
            let next = end.min(at + MSS);
            found.push(at..next);
            at = next;
        }
    }
    found
}

struct Line {
    client: SocketAddr,
    server: SocketAddr,
    vlan: u16,
    sent: usize,
    received: usize,
    frames: Vec<Frame>,
}

impl Line {
    fn handshake(&mut self) {
        self.segment(true, CLIENT_START, TcpFlags::SYN, &[], 0..0);
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        self.segment(false, SERVER_START, flags, &[], 0..0);
        self.ack(true);
    }

    fn seq(&self, from_client: bool) -> u32 {
        let (start, sent) = if from_client {
            (CLIENT_START, self.sent)
        } else {
            (SERVER_START, self.received)
        };
        start + 1 + u32::try_from(sent).unwrap()
    }

    fn ack(&mut self, from_client: bool) {
        let seq = self.seq(from_client);
        self.segment(from_client, seq, TcpFlags::ACK, &[], 0..0);
    }

    fn client(&mut self, bytes: &[u8]) {
        let range = self.sent..self.sent + bytes.len();
        let seq = self.seq(true);
        self.sent = range.end;
        self.segment(true, seq, TcpFlags::PSH | TcpFlags::ACK, bytes, range);
    }

    fn reply(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(MSS) {
            let seq = self.seq(false);
            self.received += part.len();
            self.segment(false, seq, TcpFlags::PSH | TcpFlags::ACK, part, 0..0);
            self.ack(true);
        }
    }

    fn fin(&mut self) {
        let flags = TcpFlags::FIN | TcpFlags::ACK;
        let seq = self.seq(true);
        self.segment(true, seq, flags, &[], 0..0);
        self.sent += 1;
        let seq = self.seq(false);
        self.segment(false, seq, flags, &[], 0..0);
        self.received += 1;
        self.ack(true);
    }

    fn segment(
        &mut self,
        from_client: bool,
        seq: u32,
        flags: TcpFlags,
        bytes: &[u8],
        range: Range<usize>,
    ) {
        let (src, dst) = self.ends(from_client);
        let is_syn = flags == TcpFlags::SYN;
        let segment = Segment {
            src,
            dst,
            seq,
            ack: if is_syn { 0 } else { self.seq(!from_client) },
            flags,
            window: WINDOW,
            payload: bytes,
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut data = Vec::new();
        build::tcp(&mut data, &self.l2(from_client), &segment).unwrap();
        self.frames.push(Frame {
            from_client,
            bytes: range,
            is_fin: flags.fin(),
            data,
        });
    }

    fn datagram(&mut self, from_client: bool, bytes: &[u8]) {
        let (src, dst) = self.ends(from_client);
        let datagram = Datagram {
            src,
            dst,
            payload: bytes,
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut data = Vec::new();
        build::udp(&mut data, &self.l2(from_client), &datagram).unwrap();
        let mut range = 0..0;
        if from_client {
            range = self.sent..self.sent + bytes.len();
            self.sent = range.end;
        }
        self.frames.push(Frame {
            from_client,
            bytes: range,
            is_fin: false,
            data,
        });
    }

    fn ends(&self, from_client: bool) -> (SocketAddr, SocketAddr) {
        if from_client {
            (self.client, self.server)
        } else {
            (self.server, self.client)
        }
    }

    fn l2(&self, from_client: bool) -> L2 {
        let (src, dst) = if from_client {
            (CLIENT_MAC, SERVER_MAC)
        } else {
            (SERVER_MAC, CLIENT_MAC)
        };
        L2 {
            src,
            dst,
            vlan: Some(self.vlan),
        }
    }
}

/// A file of packets, a millisecond apart.
pub fn pcap<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<u8> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    const BEGINNING: u32 = 1_700_000_000;
    let mut file = Vec::new();
    file.extend(MAGIC.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend((1u32 << 16).to_le_bytes());
    file.extend(ETHERNET.to_le_bytes());
    for (number, frame) in (0u32..).zip(frames) {
        let ethernet = &frame.data[VNET_HDR_LEN..];
        let len = u32::try_from(ethernet.len()).unwrap().to_le_bytes();
        file.extend((BEGINNING + number / 1000).to_le_bytes());
        file.extend((number % 1000 * 1000).to_le_bytes());
        file.extend(len);
        file.extend(len);
        file.extend(ethernet);
    }
    file
}
