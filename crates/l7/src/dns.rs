//! DNS messages (RFC 1035): what was asked, and which addresses an answer gives the asked name.
//!
//! Only what is plain counts: one question, class IN, a host name. Whatever else a message holds, or
//! anything in it that cannot be read, makes the whole message say nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
};

use crate::name::host_name;

/// Most addresses taken from one answer. A response over UDP has room for fewer than a hundred with
/// the usual buffer of 1232 bytes; what is beyond is left out.
pub const ADDRESSES_MAX: usize = 256;

/// Most aliases followed from the asked name. Resolvers give up at about as many.
pub const ALIASES_MAX: usize = 16;

/// Fixed part of every message (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// Smallest question: root name, type and class.
const QUESTION_MIN: usize = 5;
/// Smallest record: root name, type, class, TTL and length.
const RECORD_MIN: usize = 11;

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Identifier that the answer repeats.
    pub id: u16,
    /// The asked name, lower case, without trailing dot.
    pub name: String,
    /// The asked record type, as on the wire: 1 for A, 28 for AAAA.
    pub qtype: u16,
}

/// A complete answer without error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question that it answers.
    pub question: Question,
    /// Addresses of the asked name, with the seconds for which they may be used: the shortest TTL on
    /// the way to them. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Reads a query. `None`: not a standard query with exactly one question for a host name.
pub fn question(payload: &[u8]) -> Option<Question> {
    let packet = read(payload)?;
    if packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    asked(&packet)
}

/// Reads a response. `None`: unreadable, an error, truncated, or not the answer to one question for a
/// host name. Records count if their owner is the asked name or an alias of it (CNAME).
pub fn answer(payload: &[u8]) -> Option<Answer> {
    let packet = read(payload)?;
    if !packet.has_flags(PacketFlag::RESPONSE)
        || packet.has_flags(PacketFlag::TRUNCATION)
        || packet.rcode() != RCODE::NoError
    {
        return None;
    }
    let question = asked(&packet)?;
    let addresses = addresses(&packet.answers, &question);
    Some(Answer {
        question,
        addresses,
    })
}

/// The parser makes room for as many records as the header announces: those must fit the message.
fn read(payload: &[u8]) -> Option<Packet<'_>> {
    let counts = payload.get(4..HEADER_LEN)?;
    let mut counts = counts
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
    let questions = counts.next()? * QUESTION_MIN;
    let records = counts.sum::<usize>() * RECORD_MIN;
    if HEADER_LEN + questions + records > payload.len() {
        return None;
    }
    Packet::parse(payload).ok()
}

fn asked(packet: &Packet<'_>) -> Option<Question> {
    let [question] = &*packet.questions else {
        return None;
    };
    if packet.opcode() != OPCODE::StandardQuery || question.qclass != QCLASS::CLASS(CLASS::IN) {
        return None;
    }
    Some(Question {
        id: packet.id(),
        name: text(&question.qname)?,
        qtype: question.qtype.into(),
    })
}

/// A name as text. A label with anything but letters, digits, `-` and `_` shows in it and is refused.
fn text(name: &Name<'_>) -> Option<String> {
    host_name(name.to_string().as_bytes())
}

fn addresses(records: &[ResourceRecord<'_>], question: &Question) -> Vec<(IpAddr, u32)> {
    let records: Vec<_> = records
        .iter()
        .filter(|record| record.class == CLASS::IN)
        .filter_map(|record| Some((text(&record.name)?, record)))
        .collect();
    let mut found = Vec::new();
    let mut name = question.name.clone();
    let mut shortest = u32::MAX;
    // One more round than aliases; a loop of aliases ends with the rounds.
    for _ in 0..=ALIASES_MAX {
        let own = records.iter().filter(|(owner, _)| *owner == name);
        let mut alias = None;
        for (_, record) in own {
            match &record.rdata {
                RData::CNAME(target) if alias.is_none() => alias = Some((&target.0, record.ttl)),
                data => found
                    .extend(address(data, question.qtype).map(|a| (a, record.ttl.min(shortest)))),
            }
        }
        found.truncate(ADDRESSES_MAX);
        let Some((next, ttl)) = alias.and_then(|(target, ttl)| Some((text(target)?, ttl))) else {
            break;
        };
        shortest = shortest.min(ttl);
        name = next;
    }
    found
}

/// The address in a record of the asked type.
fn address(data: &RData<'_>, qtype: u16) -> Option<IpAddr> {
    let wants = |kind: TYPE| qtype == u16::from(kind) || qtype == u16::from(QTYPE::ANY);
    match data {
        RData::A(a) if wants(TYPE::A) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(a) if wants(TYPE::AAAA) => Some(Ipv6Addr::from(a.address).into()),
        _ => None,
    }
}

/// Cuts one direction of a TCP stream into messages, each behind two bytes of length (RFC 1035
/// section 4.2.2). Holds at most one incomplete message: 64 KiB.
#[derive(Debug, Default)]
pub struct Framer {
    /// Length and message, as far as they have come.
    held: Vec<u8>,
}

impl Framer {
    /// Bytes of the length in front of a message.
    const PREFIX: usize = 2;

    /// Reads the next piece of the stream and shows each message that it completes.
    pub fn push(&mut self, mut piece: &[u8], mut message: impl FnMut(&[u8])) {
        while let Some(missing) = self.missing() {
            if piece.is_empty() {
                return;
            }
            let (now, rest) = piece.split_at(missing.min(piece.len()));
            self.held.extend_from_slice(now);
            piece = rest;
            if self.missing() == Some(0) {
                message(self.held.get(Self::PREFIX..).unwrap_or_default());
                self.held.clear();
            }
        }
    }

    /// Bytes until the length is complete, or else until the message is.
    fn missing(&self) -> Option<usize> {
        match *self.held.as_slice() {
            [] => Some(Self::PREFIX),
            [_] => Some(1),
            [high, low, ref have @ ..] => {
                usize::from(u16::from_be_bytes([high, low])).checked_sub(have.len())
            }
        }
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}
