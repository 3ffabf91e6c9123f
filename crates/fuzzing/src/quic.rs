//! QUIC: datagrams of one UDP flow. What is inside an Initial packet is sealed here, because no
//! fuzzer guesses an authentication tag.

use tollgate_l7::quic::BUFFERED_MAX;
use tollgate_l7::{QuicEvent, QuicReader, QuicVersion, is_long_header};

use crate::cut::record;
use crate::quic_build::Initial;

/// Most datagrams of one input: more repeat themselves, and each costs a key derivation.
const DATAGRAMS_MAX: usize = 48;
/// Payload of a sealed packet that is to make a datagram of more than 1200 bytes.
const FULL_PAYLOAD: usize = 1180;
/// Payload below which there is nothing to sample for header protection.
const LEAST_PAYLOAD: usize = 4;

/// How a record becomes a datagram, from the record's first byte.
#[derive(Clone, Copy)]
struct How(u8);

impl How {
    /// The bytes are the frames of an Initial packet; else they are the datagram.
    fn sealed(self) -> bool {
        self.0 & 1 != 0
    }
    fn version(self) -> QuicVersion {
        match self.0 & 2 {
            0 => QuicVersion::V1,
            _ => QuicVersion::V2,
        }
    }
    /// The policy says no to a hello in it.
    fn denied(self) -> bool {
        self.0 & 4 != 0
    }
    fn small(self) -> bool {
        self.0 & 8 != 0
    }
    fn connection(self) -> [u8; 8] {
        [self.0 >> 4; 8]
    }
}

/// Datagrams of one flow: records with two bytes of length, one byte of `How` and the content.
///
/// # Panics
/// If a promise of the reader is broken.
pub fn quic(data: &[u8]) {
    let datagrams = datagrams(data);
    let first = talk(&datagrams);
    assert_eq!(first, talk(&datagrams), "the same datagrams, other answers");
}

fn datagrams(data: &[u8]) -> Vec<(How, Vec<u8>)> {
    let mut rest = data;
    let mut out = Vec::new();
    while let Some(record) = record(&mut rest) {
        if out.len() == DATAGRAMS_MAX {
            break;
        }
        if let Some((how, body)) = record.split_first() {
            let how = How(*how);
            let number = out.len() as u64;
            out.push((how, datagram(how, number, body)));
        }
    }
    out
}

fn datagram(how: How, number: u64, body: &[u8]) -> Vec<u8> {
    if !how.sealed() {
        return body.to_vec();
    }
    let len = match how.small() {
        true => LEAST_PAYLOAD,
        false => FULL_PAYLOAD,
    };
    Initial::new(body)
        .of(&how.connection())
        .version(how.version())
        .number(number)
        .payload_len(len)
        .seal()
}

fn talk(datagrams: &[(How, Vec<u8>)]) -> Vec<QuicEvent> {
    let mut reader = QuicReader::new();
    let mut events = Vec::new();
    for (how, datagram) in datagrams {
        let event = reader.push(datagram);
        assert!(reader.buffered() <= BUFFERED_MAX, "{}", reader.buffered());
        if let QuicEvent::Hello(..) = event {
            assert!(is_long_header(datagram), "a hello needs an Initial packet");
            repeated(&mut reader, *how, datagram);
        }
        events.push(event);
    }
    events
}

/// What was judged is not judged again, and what was denied stays denied.
fn repeated(reader: &mut QuicReader, how: How, datagram: &[u8]) {
    if how.denied() {
        reader.deny();
    }
    match reader.push(datagram) {
        QuicEvent::Refused(_) => {}
        QuicEvent::Known => assert!(!how.denied(), "a denied hello got through"),
        other => assert_eq!(other, QuicEvent::Known, "the same hello again"),
    }
}
