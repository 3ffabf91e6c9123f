//! Frames out of the ordinary: fragments, VLAN tags, other protocols.

use std::time::Duration;

use tollgate_datapath::tap::{Offloads, Tap, VNET_HEADER_LEN};
use tollgate_lab::lab::Place;
use tollgate_lab::names::{Family, INNER_IF, POD_HOST_IF};

use crate::bed::{API, Bed, FAMILIES, same, until};
use crate::net::{checksum_errors, udp, within};
use crate::servers::Echo;

#[test]
fn frames() {
    Bed::new("frames").run(&[
        ("fragments", fragments_of_an_allowed_datagram_pass),
        (
            "denied fragments",
            fragments_of_a_denied_datagram_do_not_pass,
        ),
        ("foreign source", a_foreign_source_address_is_governed),
        ("VLAN", a_tagged_frame_is_dropped_and_counted),
    ]);
}

fn fragments_of_an_allowed_datagram_pass(bed: &mut Bed) {
    let echo = Echo::start(bed, 7000);
    for family in FAMILIES {
        let socket = udp(bed, family, 7000, Duration::from_secs(5));
        for size in [4000usize, 1473, 20_000] {
            let datagram: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            socket.send(&datagram).unwrap();
            let mut answer = vec![0; 64 << 10];
            let n = socket.recv(&mut answer).unwrap_or_else(|e| {
                panic!("{} {size}: {e}; {} arrived", family.word(), echo.received())
            });
            assert!(
                answer[..n] == datagram,
                "{} {size}: other bytes",
                family.word()
            );
        }
    }
    assert!(
        checksum_errors(bed).is_empty(),
        "{:?}",
        checksum_errors(bed)
    );
}

fn fragments_of_a_denied_datagram_do_not_pass(bed: &mut Bed) {
    let echo = Echo::start(bed, 7005);
    for family in FAMILIES {
        let socket = udp(bed, family, 7005, Duration::from_secs(2));
        socket.send(&[7; 4000]).unwrap();
        assert!(socket.recv(&mut [0; 16]).is_err());
    }
    same("arrived", echo.received(), 0);
}

/// The pod sends frames with a tag of its own, as a TAP behind a bridge lets it: the gate uses tags
/// itself and must not take the pod's for its own.
fn a_tagged_frame_is_dropped_and_counted(bed: &mut Bed) {
    const FRAMES: u64 = 3;
    let line = format!("ip -o link show {POD_HOST_IF} | grep -o 'ether [^ ]*'");
    let address = bed.sh(Place::Node, &line);
    let digits = address.trim_start_matches("ether ").split(':');
    let gateway: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
    let tap = within(bed, Place::Pod, || {
        Tap::open("tagged0", 1, Offloads::NONE).unwrap()
    });
    bed.sh(
        Place::Pod,
        &format!(
            "ip link add br0 type bridge && ip link set tagged0 master br0 up && \
             ip link set {INNER_IF} master br0 && ip link set br0 up"
        ),
    );
    let before = bed.counter("drop-vlan outbound");
    for tag in [1, 77, 4094] {
        tap.queues[0].write(&tagged(&gateway, tag)).unwrap();
    }
    until("the drops are counted", || {
        (bed.counter("drop-vlan outbound") == before + FRAMES).then_some(())
    });
    same("bad tags", bed.counter("bad_tag"), 0);
    bed.sh(
        Place::Pod,
        &format!("ip link set {INNER_IF} nomaster && ip link del br0"),
    );
    drop(tap);
}

/// A UDP datagram to the echo port, which a rule allows, with an 802.1Q tag.
fn tagged(gateway: &[u8], tag: u16) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame.extend_from_slice(gateway);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 7, 0x81, 0]);
    frame.extend_from_slice(&tag.to_be_bytes());
    frame.extend_from_slice(&[8, 0]);
    let ip = [
        0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 10, 0, 2, 192, 0, 2, 10,
    ];
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&[0x9c, 0x40, 0x1b, 0x58, 0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

/// The interface is the endpoint: another address behind it is governed in the same way.
fn a_foreign_source_address_is_governed(bed: &mut Bed) {
    bed.sh(
        Place::Pod,
        &format!("ip addr add 10.10.0.66/24 dev {INNER_IF}"),
    );
    let seen = |path: &str| {
        let url = format!("http://{API}{path}");
        bed.seen(Family::V4, &["--interface", "10.10.0.66", &url])
    };
    let found = (seen("/v2/status"), seen("/admin"));
    bed.sh(
        Place::Pod,
        &format!("ip addr del 10.10.0.66/24 dev {INNER_IF}"),
    );
    same("answers", found, ((0, "200".into()), (0, "403".into())));
}
