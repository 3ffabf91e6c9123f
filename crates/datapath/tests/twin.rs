//! The kernel program and its twin in user space, [`tollgate_steer`], meet the same packets: they
//! must do the same with each and note the same of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]
#![allow(dead_code, reason = "the common helpers serve other tests as well")]

mod common;

use std::time::Duration;

use common::bench::{Bench, Talk, inbound, key, outbound};
use tollgate_datapath::closed::Closed;
use tollgate_engine::cache::{CacheEntry, Progress, Steer};
use tollgate_engine::key::FlowKey;
use tollgate_steer::{Fate, FlowCache, Packet};
use tollgate_wire::packet;
use tollgate_wire::tag::Tag;

/// Packets of each flow; a few seconds in all.
const PACKETS: usize = 1500;
/// Entries are changed this often.
const ENTRY_EVERY: usize = 16;

/// A small generator (xorshift, Marsaglia 2003): the same packets in every run.
struct Dice(u32);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u32) as usize]
    }

    fn steer(&mut self) -> Steer {
        let start = self.number();
        match self.roll(6) {
            0 => Steer::Divert,
            1 => Steer::Pass,
            2 => Steer::Drop,
            3 => Steer::Quic,
            _ => Steer::Window {
                start,
                end: start.wrapping_add(self.pick(&[0, 1, 700, 1 << 20])),
            },
        }
    }

    /// Sequence numbers around the place where they wrap.
    fn number(&mut self) -> u32 {
        let base: u32 = self.pick(&[0xffff_fe00, 0xffff_fe00, 0xffff_fe00, 0x7fff_ff00]);
        base.wrapping_add(self.roll(1024))
    }

    fn tcp(&mut self, talk: &Talk) -> Vec<u8> {
        // FIN, SYN, RST, ACK, URG in the mixtures that are seen, and some that are not.
        let flags = self.pick(&[
            0x10, 0x10, 0x10, 0x10, 0x18, 0x11, 0x01, 0x02, 0x12, 0x04, 0x14, 0x30, 0x00, 0x13,
            0x15,
        ]);
        let payload = vec![b'x'; self.pick(&[0, 0, 1, 100, 700, 1000])];
        talk.tcp(flags, self.number(), self.number(), &payload)
    }

    fn udp(&mut self, talk: &Talk) -> Vec<u8> {
        let mut payload = vec![0x40; self.pick(&[0, 1, 40, 900])];
        if let Some(first) = payload.first_mut() {
            *first = self.pick(&[0x40, 0x00, 0xc0, 0x80]);
        }
        talk.udp(&payload)
    }
}

/// What the twin does with a frame, in the words of the bench.
fn twin(cache: &mut FlowCache, tag: Tag, frame: &[u8]) -> &'static str {
    let packet::Packet::Ip(layout) = packet::parse(frame).unwrap() else {
        panic!("no IP packet")
    };
    let packet = Packet {
        tag,
        layout: &layout,
        ethernet: frame,
        gso_size: 0,
    };
    match cache.fate(Duration::from_secs(1), &packet) {
        Fate::Pass { .. } => "pass",
        Fate::Divert => "divert",
        Fate::Drop => "drop",
    }
}

/// What was noted, without the time.
fn noted(progress: Progress) -> Progress {
    Progress {
        last_seen_ns: 0,
        ..progress
    }
}

fn compare(bench: &mut Bench, key: FlowKey, dice: &mut Dice) {
    let mut cache = FlowCache::new(1);
    for at in 0..PACKETS {
        if at % ENTRY_EVERY == 0 {
            let entry = CacheEntry {
                outbound: dice.steer(),
                inbound: dice.steer(),
            };
            if dice.roll(4) == 0 {
                bench.flows.delete(&key);
                cache.delete(&key);
            }
            bench.put(&key, entry);
            cache.put(&key, &entry).unwrap();
        }
        let talk = dice.pick(&[outbound(key), inbound(key)]);
        let frame = if key.protocol == 6 {
            dice.tcp(&talk)
        } else {
            dice.udp(&talk)
        };
        let tag = Tag {
            endpoint: key.endpoint,
            direction: talk.direction,
        };
        let kernel = bench.send(talk.direction, &frame).word();
        let (entry, before) = cache.get(&key).unwrap();
        let ours = twin(&mut cache, tag, &frame);
        assert_eq!(
            ours, kernel,
            "packet {at} {frame:02x?} under {entry:?} after {before:?}"
        );
        let (_, after) = cache.get(&key).unwrap();
        assert_eq!(
            noted(after),
            noted(bench.progress(&key)),
            "packet {at} {frame:02x?}"
        );
    }
}

#[test]
fn user_space_steers_as_the_kernel_does() {
    let mut bench = Bench::new("twin");
    let mut dice = Dice(0x746f_6c6c);
    for key in [
        key(6, ("10.0.0.2", 40_000), ("192.0.2.1", 443)),
        key(6, ("fd00::2", 40_000), ("2001:db8::1", 443)),
        key(17, ("10.0.0.2", 40_000), ("192.0.2.1", 443)),
        key(17, ("fd00::2", 40_000), ("2001:db8::1", 443)),
    ] {
        compare(&mut bench, key, &mut dice);
    }
}

#[test]
fn both_tell_the_same_ends_once() {
    let mut bench = Bench::new("twin-ends");
    let mut closed = Closed::open(&bench.pins).unwrap();
    let pass = CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    };
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x01;
    const RST: u8 = 0x04;
    let ends: [&[(bool, u8, u32, u32)]; 4] = [
        &[
            (true, ACK | FIN, 1, 1),
            (false, ACK | FIN, 1, 2),
            (true, ACK, 2, 2),
        ],
        &[(true, ACK, 1, 1), (false, RST, 1, 0)],
        // Far outside of what its receiver expects.
        &[(true, ACK, 1, 1), (false, RST, 0x4000_0000, 0)],
        &[(true, ACK | FIN, 1, 1)],
    ];
    for (port, packets) in (40_001..).zip(ends) {
        let key = key(6, ("10.0.0.2", port), ("192.0.2.1", 443));
        let mut cache = FlowCache::new(1);
        bench.put(&key, pass);
        cache.put(&key, &pass).unwrap();
        for &(out, flags, seq, ack) in packets {
            let talk = if out { outbound(key) } else { inbound(key) };
            let frame = talk.tcp(flags, seq, ack, b"");
            bench.send(talk.direction, &frame);
            let tag = Tag {
                endpoint: key.endpoint,
                direction: talk.direction,
            };
            twin(&mut cache, tag, &frame);
        }
        assert_eq!(cache.take_closed(), closed.drain(), "flow from port {port}");
        assert!(cache.take_closed().is_empty());
    }
}
