//! Frames: reading, checking, changing and answering them.

use tollgate_wire::build::{self, L2};
use tollgate_wire::packet::{Layout, Packet, icmp_quoted, parse};
use tollgate_wire::tag::Tag;
use tollgate_wire::vnet::VNET_HDR_LEN;
use tollgate_wire::{ChecksumState, edit, verify};

/// Most bytes of an ICMP error behind the Ethernet header (the smallest MTU of IPv6).
const ICMP_MAX: usize = 1280;
/// Ethernet header with a tag.
const TAGGED: usize = 18;

/// A frame: virtio-net header and Ethernet. It is read, its checksums are checked, and whatever
/// makes or changes frames is run on it.
///
/// # Panics
/// If a promise of the crate is broken.
pub fn wire(frame: &[u8]) {
    let state = verify(frame);
    let eth_frame = frame.get(VNET_HDR_LEN..).unwrap_or_default();
    let mut changed = frame.to_vec();
    if edit::set_vlan(&mut changed, 5).is_err() {
        assert_eq!(changed, frame);
    }
    let Ok(Packet::Ip(layout)) = parse(eth_frame) else {
        assert_eq!(state, ChecksumState::NotApplicable);
        return;
    };
    in_bounds(&layout, eth_frame);
    assert!(layout.tcp_options(eth_frame).count() <= 40);
    icmp_quoted(eth_frame, &layout);
    layout.eth.vlan.and_then(Tag::from_vlan_id);
    answers(eth_frame, &layout);
    edits(frame, &layout, state);
}

fn in_bounds(layout: &Layout, eth_frame: &[u8]) {
    assert_eq!(layout.eth.header_len, layout.ip_offset);
    assert!(layout.ip_offset + 20 <= layout.l4_offset);
    assert!(layout.l4_offset <= layout.payload_offset);
    assert!(layout.payload_offset <= layout.end);
    assert!(layout.end <= eth_frame.len());
    assert_eq!(layout.payload(eth_frame).len(), layout.payload_len());
    assert_eq!(layout.src.is_ipv4(), layout.dst.is_ipv4());
}

fn answers(eth_frame: &[u8], layout: &Layout) {
    let l2 = L2::back(&layout.eth);
    let mut out = Vec::new();
    for built in [build::rst_reply, build::rst_instead] {
        out.clear();
        if built(&mut out, &l2, layout).is_ok() {
            assert_eq!(verify(&out), ChecksumState::Good);
        }
    }
    out.clear();
    let built = build::icmp_admin_prohibited(&mut out, &l2, eth_frame, layout, layout.dst);
    if built.is_ok() {
        assert_eq!(verify(&out), ChecksumState::Good);
        assert!(out.len() <= VNET_HDR_LEN + TAGGED + ICMP_MAX);
    }
}

/// A change keeps right checksums right and wrong ones wrong, or does not take place.
fn edits(frame: &[u8], layout: &Layout, state: ChecksumState) {
    let check = |changed: &[u8], result: Result<(), edit::EditError>| match result {
        Ok(()) => assert_eq!(verify(changed), state, "{layout:?}"),
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
    let result = edit::clear_urgent(&mut changed, layout);
    check(&changed, result);
}
