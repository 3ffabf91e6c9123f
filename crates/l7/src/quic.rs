//! QUIC: the ClientHello in the Initial packets that a client sends over one UDP flow (RFC 9000,
//! RFC 9001; version 2: RFC 9369).

mod connection;
mod crypto_stream;
mod frames;
mod header;
mod keys;

use std::fmt;

use crate::refusal::{
    QUIC_AMBIGUOUS, QUIC_COALESCED, QUIC_CONNECTION_DENIED, QUIC_CONNECTION_FORGOTTEN,
    QUIC_CONNECTION_ID, QUIC_DATAGRAM_TOO_SMALL, QUIC_FIXED_BIT, QUIC_MALFORMED,
    QUIC_PACKET_NUMBER, QUIC_TOO_MANY_CONNECTIONS, QUIC_TOO_MANY_PACKETS, QUIC_UNDECRYPTABLE,
    Refusal,
};
use crate::tls::ClientHello;
use connection::{Connection, fingerprint};
use crypto_stream::CryptoStream;
use header::{Initial, Kind, Packet};
use keys::{Keys, Opened};

/// Largest CRYPTO stream of a connection's Initial packets, in bytes: its ClientHello, and the
/// second one if the server asked for it. Hellos with post-quantum key shares take 2 to 4 KiB, and
/// each kilobyte more costs the client a datagram before it hears from the server.
pub const CRYPTO_MAX: usize = 16 * 1024;
/// Connections of a flow that are held. A client with one socket may have many, but only those
/// that are being set up send Initial packets.
pub const CONNECTIONS_MAX: usize = 4;
/// Connections of a flow that were held once and whose IDs are remembered. One that comes back
/// cannot be judged, as its bytes are gone; a flow that has had so many takes no more.
pub const FORGOTTEN_MAX: usize = 1024;
/// Connections of a flow that were given up before their hello was complete, because newer ones needed
/// the room. Their keys are held, so that nothing they open goes by; a flow that has had so many takes
/// no more. A client whose first datagrams were lost as often has long given up itself.
pub const GIVEN_UP_MAX: usize = 16;
/// Most packets in one datagram. A client has at most an Initial, a 0-RTT, a Handshake and a 1-RTT
/// packet to send, and may repeat some; the bound keeps the number of decryptions small.
pub const PACKETS_MAX: usize = 8;
/// Smallest datagram with an Initial packet of a connection whose server has not answered, in
/// bytes (RFC 9000 section 14.1).
pub const DATAGRAM_MIN: usize = 1200;
/// The most memory a [`QuicReader`] holds, in bytes: for each connection its stream, one bit for
/// each byte of it and its keys, the keys of those given up, and the IDs of forgotten connections.
pub const BUFFERED_MAX: usize = CONNECTIONS_MAX
    * (CRYPTO_MAX + CRYPTO_MAX / 8 + size_of::<Connection>())
    + GIVEN_UP_MAX * size_of::<Connection>()
    + FORGOTTEN_MAX * size_of::<u64>();

/// Shortest destination connection ID that a client may make up (RFC 9000 section 7.2).
const OWN_ID_MIN: usize = 8;

/// A version of QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuicVersion {
    /// RFC 9000, 0x00000001.
    V1,
    /// RFC 9369, 0x6b3343cf.
    V2,
}

impl QuicVersion {
    /// `1` or `2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
        }
    }
}

impl fmt::Display for QuicVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a datagram amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuicEvent {
    /// It carries a part of a hello that is not complete. It may be forwarded: the server cannot
    /// act on a part.
    NeedMore,
    /// It completes a hello, which has to be judged before the datagram is forwarded. The version
    /// is the one the connection started with. After a HelloRetryRequest or a Retry a connection
    /// has another hello, which is to be judged like the first. If the verdict is no, call
    /// [`QuicReader::deny`].
    Hello(ClientHello, QuicVersion),
    /// It belongs to a connection whose hello was handed out and is consistent with it.
    Known,
    /// It carries 0-RTT, Handshake or 1-RTT packets of a connection whose hello is not complete.
    /// It has to be held back.
    Early,
    /// It must not be forwarded. The datagrams after it are judged on their own.
    Refused(Refusal),
}

/// Whether the datagram starts with a long header, as the first one of every connection does.
pub fn is_long_header(datagram: &[u8]) -> bool {
    datagram
        .first()
        .is_some_and(|first| first & header::LONG_FORM != 0)
}

/// Reads what a client sends over one UDP flow, datagram by datagram, and finds the hello of each
/// of its connections.
///
/// What was judged is what is delivered: every byte of a connection's hello is held, and a byte
/// that comes twice has to be the same both times. The bytes of refused datagrams count as seen. A
/// packet that more than one connection's keys open is refused, as the server may take it for the
/// other's.
///
/// Holds at most [`BUFFERED_MAX`] bytes. When a flow has [`CONNECTIONS_MAX`] connections, the least
/// recently used one whose hello was handed out makes room for the next, and its Initial packets
/// are refused from then on: a client soon has no more use for them. What a forgotten connection's keys
/// open is not known any more, so a packet made for it and for a new one at the same time goes for the
/// new one's.
///
/// If there is no such connection, the least recently used one without a hello is given up: the server
/// may hold a part of its hello, and the rest must never reach it. Its bytes are dropped and its keys
/// are held, so that what they open is refused, whatever else opens it. There may be
/// [`GIVEN_UP_MAX`] of them.
///
/// Work for a datagram is linear in its length: each Initial packet is tried with the keys of every
/// connection that is held or given up and with its own.
#[derive(Default)]
pub struct QuicReader {
    /// Least recently used first.
    connections: Vec<Connection>,
    /// Those whose hello must not be completed.
    given_up: Vec<Connection>,
    /// What is left of those that had to make room.
    forgotten: Vec<u64>,
    /// A hello was handed out and not denied.
    judged: bool,
}

impl fmt::Debug for QuicReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicReader")
            .field("connections", &self.connections.len())
            .field("given_up", &self.given_up.len())
            .field("forgotten", &self.forgotten.len())
            .field("judged", &self.judged)
            .finish_non_exhaustive()
    }
}

/// What the packets of a datagram have shown so far.
#[derive(Default)]
struct Walk<'a> {
    dcid: Option<&'a [u8]>,
    /// An Initial packet was opened; its connection is the most recently used one.
    initial: bool,
    /// There were packets other than Initial ones.
    others: bool,
}

impl QuicReader {
    /// A reader of a flow from which nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory held.
    pub fn buffered(&self) -> usize {
        let streams: usize = self.connections.iter().map(|c| c.stream.buffered()).sum();
        streams
            + (self.connections.capacity() + self.given_up.capacity()) * size_of::<Connection>()
            + self.forgotten.capacity() * size_of::<u64>()
    }

    /// Reads the payload of the next UDP datagram of the client.
    pub fn push(&mut self, datagram: &[u8]) -> QuicEvent {
        self.read(datagram).unwrap_or_else(QuicEvent::Refused)
    }

    /// The hello that `push` has just handed out must not reach the server. Without this, the
    /// datagrams with which the client repeats it are `Known`. From now on they are refused. Only to
    /// be called when the last event was `Hello`.
    pub fn deny(&mut self) {
        if let Some(connection) = self.connections.last_mut() {
            connection.denied = true;
        }
        self.judged = !self.forgotten.is_empty()
            || self
                .connections
                .iter()
                .any(|connection| connection.stream.judged() && !connection.denied);
    }

    fn read(&mut self, datagram: &[u8]) -> Result<QuicEvent, Refusal> {
        if datagram.is_empty() {
            return Err(QUIC_MALFORMED);
        }
        let mut walk = Walk::default();
        let mut rest = datagram;
        for _ in 0..PACKETS_MAX {
            let (packet, tail) = header::split(rest)?;
            self.packet(&packet, datagram.len(), &mut walk)?;
            // Some clients fill the datagram up with zeros, which no server takes for a packet.
            if tail.iter().all(|&byte| byte == 0) {
                return self.answer(&walk);
            }
            rest = tail;
        }
        Err(QUIC_TOO_MANY_PACKETS)
    }

    fn packet<'a>(
        &mut self,
        packet: &Packet<'a>,
        datagram_len: usize,
        walk: &mut Walk<'a>,
    ) -> Result<(), Refusal> {
        // A client may clear it once it knows that the server does not care (RFC 9287 section 3.1).
        if !packet.fixed_bit && !self.judged {
            return Err(QUIC_FIXED_BIT);
        }
        if let Some(dcid) = packet.dcid {
            if walk.dcid.is_some_and(|first| first != dcid) {
                return Err(QUIC_COALESCED);
            }
            walk.dcid = Some(dcid);
        }
        match &packet.kind {
            Kind::Initial(initial) => {
                self.initial(initial, datagram_len, walk.initial)?;
                walk.initial = true;
            }
            Kind::Long | Kind::Short => walk.others = true,
        }
        Ok(())
    }

    /// Opens an Initial packet and takes what is in it. `again`: it is not the first one in its
    /// datagram, so its connection is known.
    fn initial(
        &mut self,
        initial: &Initial<'_>,
        datagram_len: usize,
        again: bool,
    ) -> Result<(), Refusal> {
        let (owner, opened) = self.open(initial)?;
        if !opened.reserved_clear {
            return Err(QUIC_MALFORMED);
        }
        // The server may have seen fewer packets and so read another number, under which other
        // bytes come out.
        if !opened.number_whole {
            return Err(QUIC_PACKET_NUMBER);
        }
        if again && owner.is_none_or(|at| at + 1 != self.connections.len()) {
            return Err(QUIC_COALESCED);
        }
        let judged = owner
            .and_then(|at| self.connections.get(at))
            .is_some_and(|connection| connection.stream.judged());
        if !judged && datagram_len < DATAGRAM_MIN {
            return Err(QUIC_DATAGRAM_TOO_SMALL);
        }
        match owner {
            Some(at) => self.connections[at..].rotate_left(1),
            None => self.admit(initial)?,
        }
        let connection = self.connections.last_mut().ok_or(QUIC_UNDECRYPTABLE)?;
        connection.take(&opened)
    }

    /// Opens a packet with the keys of the connections that are known and with the keys that
    /// belong to its own connection ID. Gives the place of the connection if it is known.
    fn open(&mut self, initial: &Initial<'_>) -> Result<(Option<usize>, Opened), Refusal> {
        let mut found = None;
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if let Some(opened) = connection.open(initial)
                && found.replace((Some(at), opened)).is_some()
            {
                return Err(QUIC_AMBIGUOUS);
            }
        }
        if self.is_of_given_up(initial) {
            return Err(match found {
                Some(_) => QUIC_AMBIGUOUS,
                None => QUIC_CONNECTION_FORGOTTEN,
            });
        }
        let long_enough = initial.dcid.len() >= OWN_ID_MIN;
        if long_enough && !self.connections.iter().any(|c| c.is(initial.dcid)) {
            let keys = Keys::new(initial.version, initial.dcid).ok_or(QUIC_UNDECRYPTABLE)?;
            if let Some(opened) = keys.open(initial, 0)
                && found.replace((None, opened)).is_some()
            {
                return Err(QUIC_AMBIGUOUS);
            }
        }
        found.ok_or(if long_enough {
            QUIC_UNDECRYPTABLE
        } else {
            QUIC_CONNECTION_ID
        })
    }

    /// Whether the packet is to a connection that was given up, or its keys open it.
    fn is_of_given_up(&mut self, initial: &Initial<'_>) -> bool {
        let mut given_up = self.given_up.iter_mut();
        given_up.any(|connection| connection.is(initial.dcid) || connection.open(initial).is_some())
    }

    /// Makes room for a new connection and adds it.
    fn admit(&mut self, initial: &Initial<'_>) -> Result<(), Refusal> {
        if self.forgotten.contains(&fingerprint(initial.dcid)) {
            return Err(QUIC_CONNECTION_FORGOTTEN);
        }
        let connection = Connection::new(initial.version, initial.dcid);
        if self.connections.len() >= CONNECTIONS_MAX {
            match self.connections.iter().position(Connection::settled) {
                Some(at) => self.forget(at)?,
                None => self.give_up()?,
            }
        }
        self.connections.push(connection);
        Ok(())
    }

    fn forget(&mut self, at: usize) -> Result<(), Refusal> {
        if self.forgotten.len() >= FORGOTTEN_MAX {
            return Err(QUIC_TOO_MANY_CONNECTIONS);
        }
        let old = self.connections.remove(at);
        self.forgotten.push(old.fingerprint());
        Ok(())
    }

    /// One whose hello is only in part there must not be forgotten: the server may hold that part, and
    /// the rest would come unjudged. One with a second hello under way is in use, and stays.
    fn give_up(&mut self) -> Result<(), Refusal> {
        let mut connections = self.connections.iter();
        let at = connections.position(|connection| !connection.stream.judged());
        let at = at.ok_or(QUIC_TOO_MANY_CONNECTIONS)?;
        if self.given_up.len() >= GIVEN_UP_MAX {
            return Err(QUIC_TOO_MANY_CONNECTIONS);
        }
        let mut old = self.connections.remove(at);
        old.stream = CryptoStream::default();
        self.given_up.push(old);
        Ok(())
    }

    fn answer(&mut self, walk: &Walk<'_>) -> Result<QuicEvent, Refusal> {
        if !walk.initial {
            return self.without_initial(walk.dcid);
        }
        let connection = self.connections.last_mut().ok_or(QUIC_UNDECRYPTABLE)?;
        if let Some(hello) = connection.stream.next()? {
            connection.stream.hand_out();
            self.judged = true;
            return Ok(QuicEvent::Hello(hello, connection.version));
        }
        Ok(if connection.settled() {
            QuicEvent::Known
        } else if walk.others && !connection.stream.judged() {
            QuicEvent::Early
        } else {
            QuicEvent::NeedMore
        })
    }

    /// 0-RTT, Handshake and 1-RTT packets are of use to the server only after a hello. Those of a
    /// connection under its first ID are told apart; behind other IDs can be any connection.
    fn without_initial(&self, dcid: Option<&[u8]>) -> Result<QuicEvent, Refusal> {
        if dcid.is_some_and(|dcid| self.given_up.iter().any(|c| c.is(dcid))) {
            return Err(QUIC_CONNECTION_FORGOTTEN);
        }
        let named = dcid.and_then(|dcid| self.connections.iter().find(|c| c.is(dcid)));
        if named.is_some_and(|connection| connection.denied) {
            return Err(QUIC_CONNECTION_DENIED);
        }
        let judged = named.map_or(self.judged, |connection| connection.stream.judged());
        Ok(if judged {
            QuicEvent::Known
        } else {
            QuicEvent::Early
        })
    }
}
