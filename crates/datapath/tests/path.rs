//! Frames' way up to an engine and back, between real hosts.

mod common;

use common::{Echo, Lab, OUT_V4, OUT_V6, POD_V4, POD_V6, snmp, transfer};
use tollgate_wire::tag::Direction;

/// Enough for the windows to open and super-packets to form.
const BULK: usize = 8 << 20;

#[test]
fn every_packet_goes_up_and_comes_back_whole() {
    let lab = Lab::new("path");
    let mut programs = lab.load();
    let echo = Echo::start(lab.gate(&mut programs, 2));
    for upload in [true, false] {
        transfer(&lab.pod, &lab.out, OUT_V4, 8000, BULK, upload);
        transfer(&lab.pod, &lab.out, OUT_V6, 8000, BULK, upload);
        transfer(&lab.out, &lab.pod, POD_V4, 8000, BULK, upload);
        transfer(&lab.out, &lab.pod, POD_V6, 8000, BULK, upload);
    }

    let seen = echo.seen();
    for direction in [Direction::Outbound, Direction::Inbound] {
        let frames: Vec<_> = seen
            .iter()
            .filter(|f| f.tag().direction == direction)
            .collect();
        assert!(
            frames
                .iter()
                .all(|f| f.tag().endpoint == common::endpoint())
        );
        assert!(
            frames.iter().any(|f| f.gso_size() > 0 && f.len > 16_000),
            "no super-packets"
        );
        assert!(
            frames.iter().any(|f| f.needs_checksum()),
            "no partial checksums"
        );
        // No loop: what went up came back once, and nothing passed beside.
        assert_eq!(
            lab.count("diverted", direction),
            lab.count("returned", direction)
        );
        assert!(lab.count("diverted", direction) > 0);
    }
    for netns in [&lab.pod, &lab.out] {
        assert_eq!(snmp(netns, "Tcp", "InCsumErrors"), 0);
    }
}
