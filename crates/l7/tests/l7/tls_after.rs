//! What comes behind the first hello.

use proptest::prelude::*;
use tollgate_l7::refusal::*;
use tollgate_l7::tls::{EARLY_DATA_MAX, HELLO_MAX};
use tollgate_l7::{AfterHello, AfterHelloReader, Refusal};

use crate::drive::cut;
use crate::tls_build::*;

/// The answer, and that it stays.
fn after(early_data: bool, pieces: &[&[u8]]) -> AfterHello {
    let mut reader = AfterHelloReader::new(early_data);
    for piece in pieces {
        let answer = reader.push(piece);
        assert!(reader.buffered() <= HELLO_MAX + 4, "{}", reader.buffered());
        if answer != AfterHello::NeedMore {
            let later = match answer {
                AfterHello::Refused(_) => answer.clone(),
                _ => AfterHello::Settled,
            };
            assert_eq!(reader.push(&records(&hello(&sni(b"z")), 99)), later);
            assert_eq!(reader.buffered(), 0);
            return answer;
        }
    }
    AfterHello::NeedMore
}

/// The same answer for every way of cutting.
fn answer(early_data: bool, stream: &[u8]) -> AfterHello {
    let whole = after(early_data, &[stream]);
    for sizes in [&[1][..], &[2], &[5], &[3, 7, 64]] {
        assert_eq!(after(early_data, &cut(stream, sizes)), whole, "{sizes:?}");
    }
    whole
}

fn second(name: &[u8]) -> Vec<u8> {
    records(&hello(&sni(name)), 16384)
}

fn ccs() -> Vec<u8> {
    record(20, &[1])
}

fn found(answer: AfterHello) -> Option<String> {
    match answer {
        AfterHello::Second(hello) => hello.sni,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_hello_is_found_behind_what_servers_ignore() {
    let warning = record(21, &[1, 0]);
    let canceled = record(21, &[2, 90]);
    let early = record(23, &[7; 1000]);
    for (early_data, before) in [
        (false, vec![]),
        (false, ccs()),
        (false, [ccs(), ccs()].concat()),
        (false, [warning, ccs(), canceled].concat()),
        (true, ccs()),
        (true, early.clone()),
        (
            true,
            [ccs(), early.clone(), early, record(23, &[]), ccs()].concat(),
        ),
    ] {
        let stream = [before, second(b"b.example")].concat();
        assert_eq!(
            found(answer(early_data, &stream)).as_deref(),
            Some("b.example")
        );
        for len in 0..stream.len() {
            assert_eq!(after(early_data, &[&stream[..len]]), AfterHello::NeedMore);
        }
        let more = [stream, record(23, b"x")].concat();
        assert_eq!(
            found(answer(early_data, &more)).as_deref(),
            Some("b.example")
        );
    }
}

#[test]
fn a_second_hello_may_come_in_many_records() {
    let message = hello(&[extension(21, &vec![0; 40_000]), sni(b"b")].concat());
    for size in [100, 5000, 16384] {
        let stream = [ccs(), records(&message, size)].concat();
        assert_eq!(found(answer(false, &stream)).as_deref(), Some("b"));
    }
}

#[test]
fn no_second_hello_comes_behind_other_messages() {
    // The start of a Finished that looks like a ClientHello by chance, as far as a record goes.
    let finished = |start: &[u8]| record(22, &[start, &[0x55; 36]].concat());
    let too_large = [ccs(), finished(&[1, 0xff, 0, 0])].concat();
    let plausible = [ccs(), finished(&[1, 0, 9, 9])].concat();
    let data = record(23, b"data");
    for (early_data, stream) in [
        // ClientKeyExchange, Certificate, encrypted Finished.
        (false, record(22, &message(16, &[1; 70]))),
        (false, record(22, &message(11, &[0, 0, 0]))),
        (false, [ccs(), finished(&[0x99])].concat()),
        (false, [too_large.clone(), data.clone()].concat()),
        (false, [plausible.clone(), data.clone()].concat()),
        (false, [plausible, record(21, &[0; 32])].concat()),
        (false, data.clone()),
        (false, [ccs(), data].concat()),
        (false, record(21, &[2, 48])),
        (false, record(21, &[0; 26])),
        (true, record(21, &[2, 48])),
        (
            true,
            record(23, &[0; 16000]).repeat(EARLY_DATA_MAX / 16000 + 1),
        ),
    ] {
        assert_eq!(answer(early_data, &stream), AfterHello::Settled);
    }
    assert_eq!(answer(false, &too_large), AfterHello::NeedMore);
}

fn refusals() -> Vec<(Refusal, bool, Vec<u8>)> {
    let message = hello(&sni(b"b"));
    let part = record(22, &message[..30]);
    let too_large = record(22, &[1, 1, 0, 1, 3, 3]);
    let with = |tail: Vec<u8>| [part.clone(), tail].concat();
    vec![
        (TLS_RECORD_TYPE, false, b"\x18".to_vec()),
        (TLS_RECORD_TYPE, false, [ccs(), b"G".to_vec()].concat()),
        (TLS_RECORD_VERSION, false, b"\x16\x02".to_vec()),
        (TLS_RECORD_VERSION, true, b"\x17\x00".to_vec()),
        (TLS_RECORD_LENGTH, false, b"\x16\x03\x03\x40\x01".to_vec()),
        (TLS_RECORD_LENGTH, false, b"\x17\x03\x03\x48\x01".to_vec()),
        (TLS_RECORD_LENGTH, false, b"\x15\x03\x03\x48\x01".to_vec()),
        (TLS_EMPTY_RECORD, false, record(22, &[])),
        (TLS_CHANGE_CIPHER_SPEC, false, record(20, &[])),
        (TLS_CHANGE_CIPHER_SPEC, false, record(20, &[2])),
        (TLS_CHANGE_CIPHER_SPEC, false, record(20, &[1, 1])),
        (TLS_TOO_MANY_RECORDS, false, ccs().repeat(3)),
        (TLS_TOO_MANY_RECORDS, false, record(21, &[1, 90]).repeat(5)),
        (TLS_SPLIT_HELLO, false, with(ccs())),
        (TLS_SPLIT_HELLO, false, with(record(21, &[1, 90]))),
        (TLS_SPLIT_HELLO, true, with(record(23, &[0; 40]))),
        (TLS_SPLIT_HELLO, false, [too_large.clone(), ccs()].concat()),
        (TLS_HELLO_TOO_LARGE, false, too_large.repeat(2)),
        (
            TLS_TRAILING_DATA,
            false,
            record(22, &[&message[..], b"x"].concat()),
        ),
        (TLS_MALFORMED, false, record(22, &[1, 0, 0, 0])),
        (TLS_SNI_EMPTY, false, second(b"")),
    ]
}

#[test]
fn what_a_server_could_read_otherwise_is_refused() {
    for (want, early_data, stream) in refusals() {
        let shown = stream.escape_ascii();
        assert_eq!(
            answer(early_data, &stream),
            AfterHello::Refused(want),
            "{shown}"
        );
    }
}

proptest! {
    #[test]
    fn any_records_give_the_same_answer_however_they_are_cut(
        early_data in any::<bool>(),
        parts in prop::collection::vec((0usize..8, any::<u8>()), 0..8),
        change in prop::option::of((any::<usize>(), any::<u8>())),
        sizes in prop::collection::vec(1usize..60, 0..8),
    ) {
        let part = |(kind, byte): (usize, u8)| match kind {
            0 => ccs(),
            1 => record(21, &[byte % 3, byte]),
            2 => record(23, &vec![byte; usize::from(byte)]),
            3 => second(b"b"),
            4 => records(&hello(&sni(b"b")), usize::from(byte) + 1),
            5 => record(22, &[1, byte % 2, byte, 0, 3]),
            6 => record(22, &[byte; 40]),
            _ => vec![byte],
        };
        let mut stream: Vec<u8> = parts.into_iter().flat_map(part).collect();
        if let Some((at, byte)) = change && !stream.is_empty() {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let whole = after(early_data, &[&stream]);
        prop_assert_eq!(after(early_data, &cut(&stream, &sizes)), whole.clone());
        prop_assert_eq!(after(early_data, &cut(&stream, &[1])), whole);
    }
}
