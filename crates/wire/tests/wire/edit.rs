//! Edited frames must equal, byte for byte, frames that etherparse builds from the result.

use proptest::prelude::*;
use tollgate_wire::edit::{self, EditError};
use tollgate_wire::packet::TcpFlags;
use tollgate_wire::vnet::{
    DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, VNET_HDR_LEN, VnetHdr,
};
use tollgate_wire::{ChecksumState, verify};

use crate::sample::{
    Extensions, IpSample, L4Sample, Sample, layout_of, ported_sample, sample, tcp_sample, tcp_v4,
    tcp_v6,
};

/// How the frame under test carries its checksum.
#[derive(Clone, Copy, Debug)]
enum Carry {
    Full,
    Partial,
}

fn frame_of(sample: &Sample, carry: Carry) -> Vec<u8> {
    match carry {
        Carry::Full => sample.full_frame(),
        Carry::Partial => sample.partial_frame(GSO_NONE, 0),
    }
}

/// `sample` after an edit: without padding, with `change` applied to its TCP numbers.
fn edited(
    sample: &Sample,
    payload: &[u8],
    change: impl FnOnce(&mut u32, &mut u8, &mut u16),
) -> Sample {
    let mut sample = Sample {
        payload: payload.to_vec(),
        padding: 0,
        ..sample.clone()
    };
    if let L4Sample::Tcp {
        seq, flags, urgent, ..
    } = &mut sample.l4
    {
        change(seq, flags, urgent);
    }
    sample
}

/// The expected frame, with the `hdr_len` that the edit has to leave.
fn expected(sample: &Sample, carry: Carry, hdr_len: u16) -> Vec<u8> {
    let mut frame = frame_of(sample, carry);
    let mut header = VnetHdr::parse(&frame).unwrap();
    header.hdr_len = hdr_len;
    header.write(&mut frame).unwrap();
    frame
}

fn hdr_len(frame: &[u8]) -> u16 {
    VnetHdr::parse(frame).unwrap().hdr_len
}

fn carry() -> impl Strategy<Value = Carry> {
    prop_oneof![Just(Carry::Full), Just(Carry::Partial)]
}

proptest! {
    #[test]
    fn truncation(sample in tcp_sample(), carry in carry(), to in any::<prop::sample::Index>()) {
        let mut frame = frame_of(&sample, carry);
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let to = to.index(sample.payload.len() + 1);
        edit::truncate_payload(&mut frame, &layout, to).unwrap();
        let fin = TcpFlags::FIN.0;
        let result = edited(&sample, &sample.payload[..to], |_, flags, _| *flags &= !fin);
        prop_assert_eq!(&frame, &expected(&result, carry, hdr_len(&frame)));
    }

    #[test]
    fn trimming(sample in tcp_sample(), carry in carry(), n in any::<prop::sample::Index>()) {
        let mut frame = frame_of(&sample, carry);
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let n = n.index(sample.payload.len() + 1);
        let before = frame.clone();
        let outcome = edit::trim_payload_front(&mut frame, &layout, n);
        if layout.tcp().unwrap().flags.syn() {
            prop_assert_eq!(outcome, Err(EditError::Syn));
            prop_assert_eq!(frame, before);
            return Ok(());
        }
        outcome.unwrap();
        let result = edited(&sample, &sample.payload[n..], |seq, flags, urgent| {
            *seq = seq.wrapping_add(n as u32);
            if *flags & TcpFlags::URG.0 != 0 {
                *urgent = urgent.saturating_sub(n as u16);
                if *urgent == 0 {
                    *flags &= !TcpFlags::URG.0;
                }
            }
        });
        prop_assert_eq!(&frame, &expected(&result, carry, hdr_len(&frame)));
    }

    #[test]
    fn clearing_the_urgent_pointer(sample in tcp_sample(), carry in carry()) {
        let mut frame = frame_of(&sample, carry);
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        edit::clear_urgent(&mut frame, &layout).unwrap();
        let result = edited(&sample, &sample.payload, |_, flags, urgent| {
            *flags &= !TcpFlags::URG.0;
            *urgent = 0;
        });
        // What is behind the packet stays.
        prop_assert!(frame.starts_with(&frame_of(&result, carry)));
    }

    #[test]
    fn replacement(
        sample in ported_sample(),
        carry in carry(),
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = &bytes[..bytes.len().min(sample.payload.len())];
        let mut frame = frame_of(&sample, carry);
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let at = at.index(sample.payload.len() - bytes.len() + 1);
        edit::replace_payload(&mut frame, &layout, at, bytes).unwrap();
        let mut result = sample.clone();
        result.payload[at..at + bytes.len()].copy_from_slice(bytes);
        prop_assert_eq!(frame, frame_of(&result, carry));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(sample in tcp_sample(), wrong in 1..0xffffu16) {
        let mut frame = sample.full_frame();
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let field = VNET_HDR_LEN + layout.l4_offset + 16;
        frame[field] ^= (wrong >> 8) as u8;
        frame[field + 1] ^= wrong as u8;
        prop_assume!(verify(&frame) == ChecksumState::Bad);
        let half = sample.payload.len() / 2;
        edit::replace_payload(&mut frame, &layout, half, &sample.payload[..half.min(1)]).unwrap();
        prop_assert_eq!(verify(&frame), ChecksumState::Bad);
        edit::truncate_payload(&mut frame, &layout, half).unwrap();
        prop_assert_eq!(verify(&frame), ChecksumState::Bad);
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        if !layout.tcp().unwrap().flags.syn() {
            edit::trim_payload_front(&mut frame, &layout, half / 2).unwrap();
            prop_assert_eq!(verify(&frame), ChecksumState::Bad);
        }
    }

    #[test]
    fn tags(mut sample in sample(), tci in any::<u16>()) {
        let mut frame = sample.full_frame();
        let before = frame.clone();
        let outcome = edit::set_vlan(&mut frame, tci);
        if sample.vlan.is_none() {
            prop_assert_eq!(outcome, Err(EditError::NoTag));
            prop_assert_eq!(frame, before);
        } else {
            sample.vlan = Some(tci);
            prop_assert_eq!(frame, sample.full_frame());
        }
    }
}

/// A segment between a gateway's two limits: more than one MTU, less than an IP packet.
const SUPER_PAYLOAD: usize = 60_001;
const MSS: u16 = 1448;

fn super_packets() -> [(Sample, u8); 2] {
    let payload: Vec<u8> = (0..SUPER_PAYLOAD).map(|i| (i * 7 % 253) as u8).collect();
    [
        (tcp_v4(&payload), GSO_TCPV4),
        (tcp_v6(&payload), GSO_TCPV6 | GSO_ECN),
    ]
}

#[test]
fn super_packets_become_ordinary_when_they_fit_one_segment() {
    let mss = usize::from(MSS);
    for (sample, gso_type) in super_packets() {
        for (left, still_gso) in [
            (mss * 3 + 1, true),
            (mss + 1, true),
            (mss, false),
            (0, false),
        ] {
            for front in [false, true] {
                let mut frame = sample.partial_frame(gso_type, MSS);
                let layout = layout_of(&frame[VNET_HDR_LEN..]);
                let expected = if front {
                    let cut = SUPER_PAYLOAD - left;
                    edit::trim_payload_front(&mut frame, &layout, cut).unwrap();
                    edited(&sample, &sample.payload[cut..], |seq, _, _| {
                        *seq = seq.wrapping_add(cut as u32);
                    })
                } else {
                    edit::truncate_payload(&mut frame, &layout, left).unwrap();
                    edited(&sample, &sample.payload[..left], |_, _, _| {})
                };
                let header = VnetHdr::parse(&frame).unwrap();
                let gso = if still_gso {
                    (gso_type, MSS)
                } else {
                    (GSO_NONE, 0)
                };
                assert_eq!((header.gso_type, header.gso_size), gso, "{left} left");
                assert_eq!(verify(&frame), ChecksumState::Partial);
                let expected = expected.partial_frame(gso_type, MSS);
                assert_eq!(
                    frame[VNET_HDR_LEN..],
                    expected[VNET_HDR_LEN..],
                    "{left} left"
                );
            }
        }
    }
}

#[test]
fn hdr_len_never_exceeds_the_frame() {
    let mut frame = tcp_v4(&[7; 5000]).partial_frame(GSO_TCPV4, 100);
    let layout = layout_of(&frame[VNET_HDR_LEN..]);
    // The kernel states how much was linear, which may be more than the headers.
    let mut header = VnetHdr::parse(&frame).unwrap();
    header.hdr_len = 3000;
    header.write(&mut frame).unwrap();
    edit::truncate_payload(&mut frame, &layout, 500).unwrap();
    let header = VnetHdr::parse(&frame).unwrap();
    assert_eq!(usize::from(header.hdr_len), frame.len() - VNET_HDR_LEN);
    assert_eq!(header.gso_type, GSO_TCPV4);
}

#[test]
fn other_header_flags_are_kept() {
    let mut frame = tcp_v4(b"hello world").full_frame();
    frame[0] = DATA_VALID | 0x40;
    let layout = layout_of(&frame[VNET_HDR_LEN..]);
    edit::truncate_payload(&mut frame, &layout, 5).unwrap();
    assert_eq!(VnetHdr::parse(&frame).unwrap().flags, DATA_VALID | 0x40);
}

/// A BIG TCP super-packet: its length field says 0.
fn big_tcp(is_v4: bool) -> Vec<u8> {
    let mut frame = if is_v4 {
        tcp_v4(&[9; 1000])
    } else {
        tcp_v6(&[9; 1000])
    }
    .partial_frame(if is_v4 { GSO_TCPV4 } else { GSO_TCPV6 }, MSS);
    let length = VNET_HDR_LEN + 14 + if is_v4 { 2 } else { 4 };
    frame[length..length + 2].copy_from_slice(&[0, 0]);
    frame.resize(100_000, 9);
    let layout = layout_of(&frame[VNET_HDR_LEN..]);
    let field = VNET_HDR_LEN + layout.l4_offset + 16;
    frame[field..field + 2]
        .copy_from_slice(&crate::sample::plain_pseudo_sum(&layout).to_be_bytes());
    if is_v4 {
        let header = &mut frame[VNET_HDR_LEN + 14..VNET_HDR_LEN + 34];
        header[10..12].copy_from_slice(&[0, 0]);
        let check = tollgate_wire::checksum::checksum(header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
    frame
}

#[test]
fn big_tcp_can_be_cut_to_any_length() {
    for is_v4 in [true, false] {
        for left in [90_000, 70_000, 60_000, 100, 0] {
            let mut frame = big_tcp(is_v4);
            assert_eq!(verify(&frame), ChecksumState::Partial);
            let layout = layout_of(&frame[VNET_HDR_LEN..]);
            assert_eq!(layout.end, frame.len() - VNET_HDR_LEN);
            edit::truncate_payload(&mut frame, &layout, left).unwrap();
            assert_eq!(verify(&frame), ChecksumState::Partial, "{left} left");
            assert_eq!(layout_of(&frame[VNET_HDR_LEN..]).payload_len(), left);
        }
    }
}

#[test]
fn refusals_leave_the_frame_alone() {
    let tcp = tcp_v4(b"hello");
    let udp = Sample {
        l4: L4Sample::Udp { ports: (1, 2) },
        ..tcp.clone()
    };
    let echo = Sample {
        l4: L4Sample::Echo { id: 1, seq: 2 },
        ..tcp.clone()
    };
    let other = tcp_v6(b"hello");
    let layout = |sample: &Sample| layout_of(&sample.eth_frame());
    let out_of_range = |wanted| EditError::OutOfRange {
        wanted,
        payload_len: 5,
    };
    let mut foreign = tcp.partial_frame(GSO_NONE, 0);
    foreign[6] += 1;
    let cases = [
        ("longer", tcp.full_frame(), layout(&tcp), 6, out_of_range(6)),
        (
            "UDP",
            udp.full_frame(),
            layout(&udp),
            1,
            EditError::WrongProtocol { protocol: 17 },
        ),
        (
            "ICMP",
            echo.full_frame(),
            layout(&echo),
            1,
            EditError::WrongProtocol { protocol: 1 },
        ),
        (
            "other frame",
            tcp.full_frame(),
            layout(&other),
            1,
            EditError::LayoutMismatch,
        ),
        (
            "cut frame",
            tcp.full_frame()[..70].to_vec(),
            layout(&tcp),
            1,
            EditError::LayoutMismatch,
        ),
        (
            "partial elsewhere",
            foreign,
            layout(&tcp),
            1,
            EditError::ForeignPartial,
        ),
    ];
    for (name, frame, layout, n, error) in cases {
        let mut changed = frame.clone();
        assert_eq!(
            edit::truncate_payload(&mut changed, &layout, n),
            Err(error),
            "{name}"
        );
        assert_eq!(changed, frame, "{name}");
        assert_eq!(
            edit::trim_payload_front(&mut changed, &layout, n),
            Err(error),
            "{name}"
        );
        assert_eq!(changed, frame, "{name}");
    }
    let mut frame = tcp.full_frame();
    let outcome = edit::replace_payload(&mut frame, &layout(&tcp), 3, b"abc");
    assert_eq!(outcome, Err(out_of_range(6)));
    assert_eq!(frame, tcp.full_frame());
    assert_eq!(
        edit::set_vlan(&mut frame[..11], 1).unwrap_err().reason(),
        "vnet-truncated"
    );
}

#[test]
fn jumbograms_keep_their_length() {
    let mut sample = tcp_v6(&[1; 1000]);
    if let IpSample::V6 { extensions, .. } = &mut sample.ip {
        *extensions = Extensions {
            hop_by_hop: true,
            ..Extensions::default()
        };
    }
    let mut frame = sample.partial_frame(GSO_TCPV6, MSS);
    frame[VNET_HDR_LEN + 18..VNET_HDR_LEN + 20].copy_from_slice(&[0, 0]);
    frame.resize(80_000, 1);
    let layout = layout_of(&frame[VNET_HDR_LEN..]);
    let before = frame.clone();
    assert_eq!(
        edit::truncate_payload(&mut frame, &layout, 5),
        Err(EditError::Jumbogram)
    );
    assert_eq!(frame, before);
    edit::replace_payload(&mut frame, &layout, 5, b"new").unwrap();
    assert_eq!(
        layout_of(&frame[VNET_HDR_LEN..]).payload_len(),
        layout.payload_len()
    );
}

#[test]
fn udp_checksums_stay_none_or_nonzero() {
    let udp = Sample {
        l4: L4Sample::Udp { ports: (1, 2) },
        ..tcp_v4(b"hello")
    };
    let mut frame = udp.full_frame();
    let layout = layout_of(&frame[VNET_HDR_LEN..]);
    let field = VNET_HDR_LEN + layout.l4_offset + 6;
    // A payload word that makes the sum 0xffff, so that the plain checksum would be 0.
    let check = u16::from_be_bytes([frame[field], frame[field + 1]]);
    let word = u64::from(u16::from_be_bytes(*b"he"));
    let filler = tollgate_wire::checksum::fold(word + u64::from(check));
    edit::replace_payload(&mut frame, &layout, 0, &filler.to_be_bytes()).unwrap();
    assert_eq!(frame[field..field + 2], [0xff, 0xff]);
    assert_eq!(verify(&frame), ChecksumState::Good);

    frame[field..field + 2].copy_from_slice(&[0, 0]);
    edit::replace_payload(&mut frame, &layout, 0, b"HELLO").unwrap();
    assert_eq!(frame[field..field + 2], [0, 0]);
}
