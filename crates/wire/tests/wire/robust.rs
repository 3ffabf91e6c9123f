//! Nothing that comes from the wire makes the crate panic, and offsets stay in bounds.

use std::net::IpAddr;

use proptest::prelude::*;
use tollgate_wire::build::{self, L2};
use tollgate_wire::packet::{Layout, Packet, icmp_quoted, parse};
use tollgate_wire::tcp_options::TcpOptions;
use tollgate_wire::vnet::VNET_HDR_LEN;
use tollgate_wire::{ChecksumState, edit, verify};

use crate::sample::{Sample, ported_sample, sample};

/// Frames of `samples` with some bytes changed, cut off or added.
pub fn mutated(samples: impl Strategy<Value = Sample>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    // Most of what decides lies in the first bytes.
    let early = prop::collection::vec((12..80usize, any::<u8>()), 0..4);
    (samples, changes, early, -40..40isize).prop_map(|(sample, changes, early, grow)| {
        let mut frame = sample.eth_frame();
        for (index, value) in changes {
            let index = index.index(frame.len());
            frame[index] = value;
        }
        for (index, value) in early {
            if let Some(byte) = frame.get_mut(index) {
                *byte = value;
            }
        }
        // Mostly the frame keeps its length.
        if grow % 2 == 0 {
            frame.resize(frame.len().saturating_add_signed(grow / 2), 0x55);
        }
        frame
    })
}

/// Runs everything that takes a frame; `other` is a layout that need not be that of the frame.
fn run_all(frame: &[u8], other: Option<&Layout>) {
    verify(frame);
    let eth_frame = frame.get(VNET_HDR_LEN..).unwrap_or_default();
    let own = match parse(eth_frame) {
        Ok(Packet::Ip(layout)) => Some(layout),
        Ok(Packet::NonIp(_)) | Err(_) => None,
    };
    if let Some(layout) = &own {
        in_bounds(layout, eth_frame);
    }
    let state = own.map(|_| verify(frame));
    for layout in [own.as_ref(), other].into_iter().flatten() {
        layout.tcp_options(eth_frame).for_each(drop);
        layout.payload(eth_frame);
        icmp_quoted(eth_frame, layout);
        answers(eth_frame, layout);
        edits(frame, layout, state);
    }
}

fn in_bounds(layout: &Layout, eth_frame: &[u8]) {
    assert!(layout.eth.header_len == layout.ip_offset);
    assert!(layout.ip_offset + 20 <= layout.l4_offset);
    assert!(layout.l4_offset <= layout.payload_offset);
    assert!(layout.payload_offset <= layout.end);
    assert!(layout.end <= eth_frame.len());
    assert_eq!(layout.payload(eth_frame).len(), layout.payload_len());
    assert_eq!(layout.src.is_ipv4(), layout.dst.is_ipv4());
}

fn answers(eth_frame: &[u8], layout: &Layout) {
    let mut out = Vec::new();
    let l2 = L2::back(&layout.eth);
    let from: IpAddr = layout.dst;
    let built = [
        build::rst_reply(&mut out, &l2, layout),
        build::rst_instead(&mut out, &l2, layout),
        build::icmp_admin_prohibited(&mut out, &l2, eth_frame, layout, from),
    ];
    if built[2].is_ok() {
        assert_eq!(verify(&out), ChecksumState::Good);
        assert!(out.len() <= VNET_HDR_LEN + 18 + 1280);
    } else {
        assert!(out.is_empty());
    }
}

fn edits(frame: &[u8], layout: &Layout, state: Option<ChecksumState>) {
    let check = |changed: &[u8], result: Result<(), edit::EditError>| match result {
        // A fragment header's or a UDP length's contradiction may be older than the change.
        Ok(()) => assert_eq!(Some(verify(changed)), state, "{layout:?}"),
        Err(_) => assert_eq!(changed, frame),
    };
    for len in [0, 1, 7, layout.payload_len(), usize::MAX] {
        let mut changed = frame.to_vec();
        let result = edit::truncate_payload(&mut changed, layout, len);
        check(&changed, result);
        let mut changed = frame.to_vec();
        let result = edit::trim_payload_front(&mut changed, layout, len);
        check(&changed, result);
        let mut changed = frame.to_vec();
        let result = edit::replace_payload(&mut changed, layout, len, b"abc");
        check(&changed, result);
    }
    let mut changed = frame.to_vec();
    assert_eq!(
        edit::set_vlan(&mut changed, 5).is_err(),
        changed == frame && !tagged(frame, 5)
    );
}

fn tagged(frame: &[u8], tci: u16) -> bool {
    matches!(frame.get(24..28), Some([0x81, 0, ..] | [0x88, 0xa8, ..]))
        && frame.get(26..28) == Some(&tci.to_be_bytes())
}

proptest! {
    #[test]
    fn random_bytes(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        run_all(&frame, None);
    }

    #[test]
    fn random_packets(
        ethertype in prop::sample::select(vec![[8u8, 0], [0x86, 0xdd]]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 60, 132]),
        mut body in prop::collection::vec(any::<u8>(), 40..200),
    ) {
        let len = body.len() as u16;
        if ethertype == [8, 0] {
            body[0] = 0x40 | (5 + body[0] % 4);
            body[2..4].copy_from_slice(&len.to_be_bytes());
            body[9] = protocol;
        } else {
            body[0] = 0x60;
            body[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            body[6] = protocol;
        }
        let frame = [&[0; VNET_HDR_LEN + 12][..], &ethertype, &body].concat();
        run_all(&frame, None);
    }

    #[test]
    fn mutated_frames(
        vnet in any::<[u8; VNET_HDR_LEN]>(),
        is_plain in any::<bool>(),
        frame in mutated(sample()),
        other in sample(),
    ) {
        let vnet = if is_plain { [0; VNET_HDR_LEN] } else { vnet };
        let Packet::Ip(other) = parse(&other.eth_frame()).unwrap() else { panic!("not IP") };
        run_all(&[&vnet[..], &frame].concat(), Some(&other));
    }

    #[test]
    fn partial_frames_with_a_foreign_layout(sample in ported_sample(), other in sample()) {
        let Packet::Ip(other) = parse(&other.eth_frame()).unwrap() else { panic!("not IP") };
        run_all(&sample.partial_frame(1, 50), Some(&other));
    }

    #[test]
    fn random_tcp_options(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let count = TcpOptions::new(&bytes).count();
        prop_assert!(count <= bytes.len());
    }
}
