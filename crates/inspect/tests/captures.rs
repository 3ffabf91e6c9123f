//! Captures in every form they come in, and in none.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use tollgate_engine::event::{Event, EventKind, L7Facts, VerdictWord};
use tollgate_inspect::capture::{CaptureError, Captured, Reader};
use tollgate_inspect::write::PcapngWriter;
use tollgate_inspect::{Replay, Report, Setup, SetupError, Sink};
use tollgate_l7::dns::Answer;
use tollgate_policy::{CompileOptions, Side, SourceFile, compile};
use tollgate_wire::packet::{self, Packet};

const HTTP: &[u8] = include_bytes!("../../cli/tests/captures/http-keep-alive.pcap");
const COOKED: &[u8] = include_bytes!("../../cli/tests/captures/cooked.pcap");

/// Length of a pcap file's header, and of a packet's.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

fn read(bytes: &[u8]) -> (Vec<Captured>, Option<CaptureError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut packets = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn whole(bytes: &[u8]) -> Vec<Captured> {
    let (packets, error) = read(bytes);
    assert_eq!(error, None);
    packets
}

#[derive(Default, PartialEq, Debug)]
struct Seen {
    events: Vec<(Duration, Event)>,
    frames: Vec<(Duration, Vec<u8>)>,
    answers: Vec<(IpAddr, IpAddr, Answer)>,
}

impl Sink for Seen {
    fn event(&mut self, time: Duration, event: Event) {
        self.events.push((time, event));
    }

    fn answer(&mut self, _: Duration, to: IpAddr, resolver: IpAddr, answer: Answer) {
        self.answers.push((to, resolver, answer));
    }

    fn frame(&mut self, time: Duration, ethernet: &[u8]) {
        self.frames.push((time, ethernet.to_vec()));
    }
}

fn replay(packets: &[Captured]) -> (Seen, Report) {
    let mut seen = Seen::default();
    let mut replay = Replay::new(Setup::reading(&[]).unwrap());
    for packet in packets {
        replay.packet(packet, &mut seen);
    }
    let (report, _) = replay.finish(&mut seen);
    (seen, report)
}

/// The same file in the other byte order.
fn swapped(file: &[u8]) -> Vec<u8> {
    let mut out = file.to_vec();
    let words = |out: &mut [u8], at: usize, count: usize, size: usize| {
        for field in out[at..at + count * size].chunks_exact_mut(size) {
            field.reverse();
        }
    };
    words(&mut out, 0, 1, 4);
    words(&mut out, 4, 2, 2);
    words(&mut out, 8, 4, 4);
    let mut at = FILE_HEADER;
    while at < out.len() {
        let kept = u32::from_le_bytes(out[at + 8..at + 12].try_into().unwrap()) as usize;
        words(&mut out, at, 4, 4);
        at += PACKET_HEADER + kept;
    }
    out
}

/// The same file with nanoseconds.
fn nanoseconds(file: &[u8]) -> Vec<u8> {
    let mut out = file.to_vec();
    out[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
    let mut at = FILE_HEADER;
    while at < out.len() {
        let field = |from: usize| u32::from_le_bytes(out[from..from + 4].try_into().unwrap());
        let (micros, kept) = (field(at + 4), field(at + 8) as usize);
        out[at + 4..at + 8].copy_from_slice(&(micros * 1000).to_le_bytes());
        at += PACKET_HEADER + kept;
    }
    out
}

/// A pcapng block in big endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let len = u32::try_from(body.len() + padding.len() + 12)
        .unwrap()
        .to_be_bytes();
    [&kind.to_be_bytes()[..], &len, body, &padding, &len].concat()
}

fn interface(link_type: u16, options: &[u8]) -> Vec<u8> {
    block(
        1,
        &[&link_type.to_be_bytes()[..], &[0; 6], options].concat(),
    )
}

fn enhanced(interface: u32, ticks: u64, data: &[u8], original: usize) -> Vec<u8> {
    let original = u32::try_from(original).unwrap();
    let kept = u32::try_from(data.len()).unwrap();
    let mut body = interface.to_be_bytes().to_vec();
    body.extend(ticks.to_be_bytes());
    body.extend(kept.to_be_bytes());
    body.extend(original.to_be_bytes());
    body.extend(data);
    block(6, &body)
}

fn section() -> Vec<u8> {
    let mut body = 0x1a2b_3c4d_u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0]);
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, &body)
}

#[test]
fn the_form_of_a_file_does_not_matter() {
    let packets = whole(HTTP);
    assert_eq!(packets.len(), 12);
    assert_eq!(whole(&swapped(HTTP)), packets);
    assert_eq!(whole(&nanoseconds(HTTP)), packets);
    assert_eq!(whole(&swapped(&nanoseconds(HTTP))), packets);

    let mut writer = PcapngWriter::new(Vec::new()).unwrap();
    for packet in &packets {
        writer.frame(packet.time, &packet.data).unwrap();
    }
    assert_eq!(whole(&writer.finish().unwrap()), packets);
}

#[test]
fn several_interfaces_and_the_true_length_are_written() {
    let names = ["pod", "in"];
    let mut writer = PcapngWriter::of_interfaces(Vec::new(), &names).unwrap();
    let time = Duration::from_millis(1);
    writer.packet(1, time, b"begin", 9000).unwrap();
    writer.packet(0, time, b"all", 3).unwrap();
    let file = writer.finish().unwrap();
    let found = |what: &[u8]| file.windows(what.len()).any(|w| w == what);
    assert!(found(b"\x02\x00\x03\x00pod\x00") && found(b"\x02\x00\x02\x00in\x00\x00"));
    assert!(found(&[1, 0, 0, 0]) && found(&9000u32.to_le_bytes()));
    let packets = whole(&file);
    let read: Vec<_> = packets.iter().map(|p| (&p.data[..], p.whole)).collect();
    assert_eq!(read, [(&b"begin"[..], false), (b"all", true)]);
}

#[test]
fn interfaces_and_sections_have_their_own_clocks() {
    // 10^-3, 2^-10, and an hour added.
    let milli = interface(101, &[0, 9, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0]);
    let binary = interface(1, &[0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 0, 0, 0]);
    let hour = [0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 0, 0];
    let file = [
        section(),
        milli,
        binary,
        enhanced(0, 1500, b"a", 1),
        enhanced(1, 1536, b"bcd", 4),
        section(),
        interface(276, &hour),
        enhanced(0, 2_000_000, b"", 0),
        // A simple packet: no stamp of its own.
        block(3, &[0, 0, 0, 2, b'x', b'y']),
        // Of a kind that does not exist yet.
        block(0x0bad, b"later"),
    ]
    .concat();
    let packets = whole(&file);
    let facts: Vec<_> = packets
        .iter()
        .map(|p| {
            (
                p.number,
                p.time.as_millis(),
                p.link_type,
                p.data.len(),
                p.whole,
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            (1, 1500, 101, 1, true),
            (2, 1500, 1, 3, false),
            (3, 3_602_000, 276, 0, true),
            (4, 3_602_000, 276, 2, true),
        ]
    );
}

#[test]
fn a_time_beyond_all_bounds_is_the_last_one() {
    let seconds = interface(1, &[0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let file = [
        section(),
        seconds,
        enhanced(0, u64::MAX, b"", 0),
        enhanced(0, 1, b"", 0),
    ]
    .concat();
    let packets = whole(&file);
    assert_eq!(packets[0].time.as_secs(), 253_402_207_200);
    let (_, report) = replay(&packets);
    assert_eq!((report.out_of_order, report.malformed), (1, 2));
}

#[test]
fn damage_is_named_with_its_place() {
    let missing = [section(), interface(1, &[]), enhanced(7, 0, b"", 0)].concat();
    let nowhere = CaptureError::NoInterface {
        packet: 1,
        interface: 7,
    };
    assert_eq!(read(&missing), (Vec::new(), Some(nowhere)));
    assert_eq!(read(b"").1, Some(CaptureError::NotACapture));
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n\r\n").1,
        Some(CaptureError::NotACapture)
    );

    let mut huge = HTTP[..FILE_HEADER + PACKET_HEADER].to_vec();
    huge[FILE_HEADER + 8..FILE_HEADER + 12].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    huge.resize(20 << 20, 0);
    assert_eq!(read(&huge).1, Some(CaptureError::TooLarge { packet: 0 }));
}

#[test]
fn every_prefix_gives_the_packets_that_it_has() {
    let packets = whole(HTTP);
    let mut ends = vec![FILE_HEADER];
    for packet in &packets {
        ends.push(ends[ends.len() - 1] + PACKET_HEADER + packet.data.len());
    }
    for len in FILE_HEADER..=HTTP.len() {
        let (got, error) = read(&HTTP[..len]);
        let complete = ends.iter().filter(|&&end| end <= len).count() - 1;
        assert_eq!(got, packets[..complete], "{len}");
        let expected = match ends.contains(&len) {
            true => None,
            false => Some(CaptureError::Truncated {
                packet: complete as u64,
            }),
        };
        assert_eq!(error, expected, "{len}");
    }
}

fn requests(seen: &Seen) -> Vec<(VerdictWord, String)> {
    let facts = seen
        .events
        .iter()
        .filter_map(|(_, event)| match &event.kind {
            EventKind::Verdict(verdict) => match &verdict.l7 {
                Some(L7Facts::Http { target, .. }) => Some((verdict.word, target.clone())),
                _ => None,
            },
            EventKind::Closed { .. } => None,
        });
    facts.collect()
}

#[test]
fn link_types_and_tags_do_not_matter_to_the_engine() {
    let ethernet = whole(HTTP);
    let expected = requests(&replay(&ethernet).0);
    assert_eq!(expected.len(), 2);
    type Change = fn(&Captured) -> (i32, Vec<u8>);
    let changes: [Change; 5] = [
        |p| (101, p.data[14..].to_vec()),
        |p| (0, [&[2, 0, 0, 0], &p.data[14..]].concat()),
        |p| (113, [&[0; 14], &p.data[12..]].concat()),
        |p| (1, [&p.data[..12], &[0x81, 0, 0, 5], &p.data[12..]].concat()),
        |p| {
            let tags = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6];
            (1, [&p.data[..12], &tags, &p.data[12..]].concat())
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let changed: Vec<_> = ethernet
            .iter()
            .map(|packet| {
                let (link_type, data) = change(packet);
                Captured {
                    link_type,
                    data,
                    ..packet.clone()
                }
            })
            .collect();
        let (seen, report) = replay(&changed);
        assert_eq!(requests(&seen), expected, "change {number}");
        let tagged = if number >= 3 { 12 } else { 0 };
        assert_eq!(report.tagged, tagged, "change {number}");
    }
    assert_eq!(requests(&replay(&whole(COOKED)).0).len(), 1);
}

#[test]
fn everything_that_is_readable_arrives_as_it_was() {
    let packets = whole(HTTP);
    let (seen, report) = replay(&packets);
    let came: Vec<_> = packets.iter().map(|p| (p.time, p.data.clone())).collect();
    assert_eq!(seen.frames, came);
    assert_eq!(report.packets, 12);
    assert_eq!(replay(&packets).0, seen);
}

#[test]
fn a_capture_without_the_beginning_says_so() {
    let packets = whole(HTTP);
    let (seen, report) = replay(&packets[3..]);
    assert_eq!(requests(&seen), []);
    assert!(report.engine.unknown_flow > 0);
    assert!(matches!(
        &seen.events[0].1.kind,
        EventKind::Verdict(verdict) if verdict.word == VerdictWord::Denied
    ));
}

#[test]
fn two_flows_between_the_same_ports_are_two() {
    // The same connection again, an hour later: what was remembered of the first is not in the way.
    let first = whole(HTTP);
    for pause in [0, 3600] {
        let mut packets = first.clone();
        let later = Duration::from_secs(pause);
        packets.extend(first.iter().map(|packet| Captured {
            time: packet.time + later,
            data: renumbered(&packet.data),
            ..packet.clone()
        }));
        let (seen, _) = replay(&packets);
        assert_eq!(requests(&seen).len(), 4, "pause {pause}");
    }
}

/// The frame with other sequence numbers, as a new connection has.
fn renumbered(frame: &[u8]) -> Vec<u8> {
    const SEQ: usize = 14 + 20 + 4;
    let mut frame = frame.to_vec();
    let is_first_syn = frame[SEQ + 9] & 0x10 == 0;
    for at in [SEQ, SEQ + 4] {
        if at > SEQ && is_first_syn {
            continue;
        }
        let number = u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        frame[at..at + 4].copy_from_slice(&number.wrapping_add(77_777).to_be_bytes());
    }
    frame
}

const BOTH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {interface: c, addresses: [10.77.0.2]}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: server, namespace: a, labels: {app: server}}
spec: {interface: s, addresses: [10.77.0.1]}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: server}
spec:
  priority: 1
  appliedTo: [{podSelector: {matchLabels: {app: server}}}]
  ingress:
    - {name: none, action: Reject}
";

#[test]
fn between_two_endpoints_both_gates_must_open() {
    let file = SourceFile {
        name: "both.yaml",
        text: BOTH,
    };
    let set = compile(&[file], &CompileOptions::default()).unwrap();
    let mut replay = Replay::new(Setup::by_policy(&set, &[]).unwrap());
    let mut seen = Seen::default();
    replay.packet(&whole(HTTP)[0], &mut seen);
    let verdicts: Vec<_> = seen
        .events
        .iter()
        .filter_map(|(_, event)| match &event.kind {
            EventKind::Verdict(verdict) => Some((event.side, verdict.word)),
            EventKind::Closed { .. } => None,
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            (Side::Egress, VerdictWord::Allowed),
            (Side::Ingress, VerdictWord::Denied)
        ]
    );
    // The SYN did not arrive; its answer, made at the server's gate, came in at the client's.
    let [(_, frame)] = &seen.frames[..] else {
        panic!("one frame, not {}", seen.frames.len())
    };
    let Ok(Packet::Ip(layout)) = packet::parse(frame) else {
        panic!("IP")
    };
    assert_eq!(layout.dst.to_string(), "10.77.0.2");
    assert!(layout.tcp().is_some_and(|tcp| tcp.flags.rst()));
    assert!(matches!(
        Setup::by_policy(&set, &["10.9.9.9".parse().unwrap()]),
        Err(SetupError::NoSuchEndpoint(_))
    ));
}

proptest! {
    #[test]
    fn random_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes);
    }

    #[test]
    fn random_damage_is_no_danger(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        form in 0..3,
    ) {
        let mut file = match form {
            0 => HTTP.to_vec(),
            1 => swapped(HTTP),
            _ => {
                let mut writer = PcapngWriter::new(Vec::new()).unwrap();
                for packet in whole(HTTP) {
                    writer.frame(packet.time, &packet.data).unwrap();
                }
                writer.finish().unwrap()
            }
        };
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let (packets, _) = read(&file);
        let once = replay(&packets);
        prop_assert_eq!(&once.0, &replay(&packets).0);
    }

    #[test]
    fn random_packets_are_no_danger(
        packets in prop::collection::vec(
            (any::<u32>(), prop::sample::select(vec![0, 1, 101, 113, 276, 999]),
             prop::collection::vec(any::<u8>(), 0..120)),
            0..20,
        ),
    ) {
        let packets: Vec<_> = (1..).zip(packets).map(|(number, (secs, link_type, data))| Captured {
            number,
            time: Duration::from_secs(secs.into()),
            link_type,
            data,
            whole: true,
        }).collect();
        let (_, report) = replay(&packets);
        prop_assert_eq!(report.packets, packets.len() as u64);
    }
}
