//! Frames' way up to an engine and back, between real hosts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use common::{
    Echo, Lab, OUT_V4, OUT_V6, PATIENCE, POD_V4, POD_V6, eventually, inside, run, snmp, transfer,
};
use std::fs;
use std::net::UdpSocket;
use std::sync::{Mutex, mpsc};

use tollgate_datapath::closed::Closed;
use tollgate_datapath::flows::FlowMap;
use tollgate_engine::cache::{CacheEntry, Steer};
use tollgate_wire::tag::Direction;

/// Enough for the windows to open and super-packets to form.
const BULK: usize = 8 << 20;

#[test]
fn every_packet_goes_up_and_comes_back_whole() {
    let lab = Lab::new("path");
    let mut programs = lab.load();
    // A mark that is still on a packet behind the gate would be its end.
    for family in ["-4", "-6"] {
        run(&format!(
            "ip {family} -n {} rule add fwmark 0x746f6c6c blackhole",
            lab.node
        ));
    }
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
        // What went up came back; the last acknowledgements may still be on their way.
        eventually("the return of the last frame", || {
            lab.count("diverted", direction) == lab.count("returned", direction)
        });
        assert!(lab.count("diverted", direction) > 0);
    }
    for netns in [&lab.pod, &lab.out] {
        assert_eq!(snmp(netns, "Tcp", "InCsumErrors"), 0);
    }
}

#[test]
fn a_flow_decided_at_its_first_packet_never_comes_up_again() {
    let lab = Lab::new("silent");
    let mut programs = lab.load();
    let flows = Mutex::new(FlowMap::open(&lab.pins).unwrap());
    let pass = CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    };
    let echo = Echo::judging(lab.gate(&mut programs, 2), move |frame| {
        flows.lock().unwrap().put(&frame.tcp_key(), &pass).unwrap();
        true
    });
    let flows = FlowMap::open(&lab.pins).unwrap();
    let mut closed = Closed::open(&lab.pins).unwrap();
    for (addr, upload) in [
        (OUT_V4, true),
        (OUT_V4, false),
        (OUT_V6, true),
        (OUT_V6, false),
    ] {
        echo.forget();
        let client = transfer(&lab.pod, &lab.out, addr, 8000, BULK, upload);
        let seen = echo.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        let key = seen[0].tcp_key();
        assert_eq!((key.local_addr(), key.remote_port), (client, 8000));

        let mut ended = Vec::new();
        eventually("the end of the flow", || {
            ended.extend(closed.drain());
            !ended.is_empty()
        });
        assert_eq!(ended, [key]);
        let progress = flows.progress(&key).unwrap();
        let (bulk, thin) = match upload {
            true => (progress.outbound, progress.inbound),
            false => (progress.inbound, progress.outbound),
        };
        assert!(
            bulk.bytes > BULK as u64 && thin.bytes < BULK as u64,
            "{addr} {upload} {progress:?}"
        );
        assert!(bulk.fin && thin.fin);
        // Each has seen all that the other had: both FINs are acknowledged.
        let acked = thin.max_ack.unwrap();
        assert!(
            acked.wrapping_sub(bulk.max_seq.unwrap()) as i32 <= 0,
            "{addr} {upload} {progress:?}"
        );
    }
    for netns in [&lab.pod, &lab.out] {
        assert_eq!(snmp(netns, "Tcp", "InCsumErrors"), 0);
    }
}

#[test]
fn without_an_agent_nothing_undecided_passes() {
    let lab = Lab::new("noagent");
    let mut programs = lab.load();
    // The device stays, its queues go: the agent is dead.
    drop(lab.gate(&mut programs, 2));
    drop(programs);
    let (arrived, arrivals) = mpsc::channel();
    let (ready, started) = mpsc::channel();
    let receiver = inside(&lab.out, move || {
        let socket = UdpSocket::bind((OUT_V4, 9000)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).unwrap();
        arrived.send(buffer[..len].to_vec()).unwrap();
    });
    started.recv_timeout(PATIENCE).unwrap();
    let say = |what: &'static [u8]| {
        let send = move || {
            UdpSocket::bind((POD_V4, 0))
                .unwrap()
                .send_to(what, (OUT_V4, 9000))
        };
        inside(&lab.pod, send).join().unwrap().unwrap();
    };
    say(b"undecided");
    eventually("a diverted packet", || {
        lab.count("diverted", Direction::Outbound) > 0
    });
    lab.govern(false);
    // It comes by the same way and so cannot overtake the first one.
    say(b"ungoverned");
    assert_eq!(arrivals.recv_timeout(PATIENCE).unwrap(), b"ungoverned");
    receiver.join().unwrap();
    assert_eq!(lab.count("returned", Direction::Outbound), 0);
    assert!(fs::exists(&lab.pins).unwrap());
}
