//! Verification, against checksums that etherparse computed.

use proptest::prelude::*;
use tollgate_wire::vnet::{NEEDS_CSUM, VNET_HDR_LEN, VnetHdr};
use tollgate_wire::{ChecksumState, verify};

use crate::sample::{L4Sample, layout_of, ported_sample, sample, tcp_v4, tcp_v6};

proptest! {
    #[test]
    fn frames_of_etherparse_are_good(sample in sample()) {
        prop_assert_eq!(verify(&sample.full_frame()), ChecksumState::Good);
    }

    #[test]
    fn one_changed_bit_is_bad(sample in sample(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut frame = sample.full_frame();
        let layout = layout_of(&frame[VNET_HDR_LEN..]);
        let at = VNET_HDR_LEN + layout.l4_offset + at.index(layout.end - layout.l4_offset);
        frame[at] ^= 1 << bit;
        // A changed length may make the packet unreadable, a UDP checksum may become "none".
        prop_assert_ne!(verify(&frame), ChecksumState::Good);
    }

    #[test]
    fn partial_checksums_cover_the_pseudo_header_alone(sample in ported_sample(), flip in any::<u8>()) {
        let mut frame = sample.partial_frame(0, 0);
        if let Some(last) = frame.last_mut() {
            *last ^= flip & u8::from(!sample.payload.is_empty() || sample.padding > 0);
        }
        prop_assert_eq!(verify(&frame), ChecksumState::Partial);
    }
}

#[test]
fn table() {
    use ChecksumState::{Bad, Good, NotApplicable, Partial};
    let v4 = || tcp_v4(b"hello").full_frame();
    let udp = |is_v4: bool| {
        let mut sample = if is_v4 {
            tcp_v4(b"hello")
        } else {
            tcp_v6(b"hello")
        };
        sample.l4 = L4Sample::Udp { ports: (53, 53) };
        sample.full_frame()
    };
    let with = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[VNET_HDR_LEN + at..VNET_HDR_LEN + at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let partial = |csum_start, csum_offset| {
        let mut frame = v4();
        let header = VnetHdr {
            flags: NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..VnetHdr::default()
        };
        header.write(&mut frame).unwrap();
        frame
    };
    let cases = [
        ("whole", v4(), Good),
        ("no virtio-net header", vec![0; 11], NotApplicable),
        ("no Ethernet header", vec![0; 20], NotApplicable),
        ("ARP", with(v4(), 12, &[8, 6]), NotApplicable),
        ("wrong IPv4 header", with(v4(), 24, &[0, 0]), Bad),
        ("wrong TTL", with(v4(), 22, &[1]), Bad),
        (
            "IPv4 UDP without checksum",
            with(udp(true), 40, &[0, 0]),
            NotApplicable,
        ),
        (
            "IPv6 UDP without checksum",
            with(udp(false), 60, &[0, 0]),
            Bad,
        ),
        ("partial", tcp_v4(b"hello").partial_frame(1, 2), Partial),
        (
            "IPv6 partial",
            tcp_v6(b"hello").partial_frame(4, 2),
            Partial,
        ),
        ("full where it should be partial", partial(34, 16), Bad),
        ("partial checksum in the IP header", partial(14, 10), Bad),
        ("partial checksum outside", partial(34, 500), Bad),
        (
            "partial checksum of an inner packet",
            partial(50, 6),
            NotApplicable,
        ),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(verify(&frame), expected, "{name}");
    }
}
