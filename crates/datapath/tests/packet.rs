//! Packet sockets on a veth pair: what is kept of a frame, and what is lost without being asked for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, inside, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tollgate_datapath::packet::{
    Options, PacketSocket, Received, TAG_LEN, VNET_HEADER_LEN, VlanTag,
};

const MTU: usize = 1500;
const ETHERNET: usize = 14;
/// Ethertype for local experiments (IEEE 802): nobody else speaks it here.
const LOCAL: [u8; 2] = [0x88, 0xb5];
const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x64];
/// Room for a super-packet.
const ROOM: usize = 70_000;

/// A namespace with a veth pair `va`, `vb`, that goes when this goes.
struct Pair {
    netns: String,
}

impl Pair {
    fn new(name: &str) -> Self {
        let netns = format!("tg-dp-packet-{name}");
        let pair = Self { netns };
        pair.remove();
        let netns = &pair.netns;
        run(&format!("ip netns add {netns}"));
        run(&format!("ip -n {netns} link add va type veth peer name vb"));
        let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        inside(netns, quiet).join().unwrap().unwrap();
        for end in ["va", "vb"] {
            run(&format!("ip -n {netns} link set {end} up"));
        }
        // Until the kernel has noticed the carrier, it drops what is sent ("qdisc noop").
        let deadline = Instant::now() + PATIENCE;
        while ["va", "vb"].iter().any(|end| !pair.ready(end)) {
            assert!(Instant::now() < deadline, "the links do not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        pair
    }

    fn ready(&self, end: &str) -> bool {
        let output = std::process::Command::new("ip")
            .args(["-n", &self.netns, "-o", "link", "show", end])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains("qdisc noqueue state UP")
    }

    fn open(&self, end: &'static str, options: Options) -> PacketSocket {
        let open = move || PacketSocket::open(end, options);
        inside(&self.netns, open).join().unwrap().unwrap()
    }

    fn remove(&self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.netns])
            .output();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.remove();
    }
}

const PLAIN: Options = Options {
    vnet_header: false,
    outgoing: false,
    send_only: false,
    receive_buffer: 0,
};
const WITH_HEADER: Options = Options {
    vnet_header: true,
    ..PLAIN
};

/// A frame of so many bytes behind the Ethernet header.
fn frame(payload: usize) -> Vec<u8> {
    let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let body = (0..payload).map(|i| i as u8);
    addresses.into_iter().chain(LOCAL).chain(body).collect()
}

/// The same frame with a tag.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &TAG[..], &frame[12..]].concat()
}

/// An IPv4 TCP super-packet with its virtio-net header.
fn super_packet(payload: usize) -> Vec<u8> {
    let mut header = vec![1, 1]; // NEEDS_CSUM, TCPV4
    for word in [54u16, 1448, 34, 16] {
        header.extend(word.to_ne_bytes());
    }
    let len = u16::try_from(40 + payload).unwrap().to_be_bytes();
    let ip = [
        0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let tcp = [
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ];
    let mut ethernet = frame(0);
    ethernet.truncate(12);
    let parts = [header, ethernet, vec![8, 0], ip.into(), tcp.into()];
    [parts.concat(), vec![7; payload]].concat()
}

/// Waits for a frame, which is written behind room for a tag.
fn receive(socket: &PacketSocket, buffer: &mut [u8]) -> Received {
    let time = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&time)).unwrap(), 1, "no frame came");
    socket.receive(&mut buffer[TAG_LEN..]).unwrap()
}

#[test]
fn frames_come_as_they_were_sent_and_not_back_to_the_sender() {
    let pair = Pair::new("plain");
    let (a, b) = (pair.open("va", PLAIN), pair.open("vb", PLAIN));
    let all = Options {
        outgoing: true,
        ..PLAIN
    };
    let watcher = pair.open("va", all);
    let sent = frame(100);
    a.send(&sent).unwrap();
    let mut buffer = vec![0; ROOM];
    for socket in [&b, &watcher] {
        let received = receive(socket, &mut buffer);
        assert_eq!((received.len, received.full_len), (sent.len(), sent.len()));
        assert_eq!(received.vlan, None);
        assert_eq!(received.whole(&mut buffer, false), sent);
    }
    let none = a.receive(&mut buffer).unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_tag_is_taken_out_and_put_back() {
    let pair = Pair::new("tag");
    let (a, b) = (pair.open("va", PLAIN), pair.open("vb", PLAIN));
    let sent = tagged(&frame(MTU));
    a.send(&sent).unwrap();
    let mut buffer = vec![0; ROOM];
    let received = receive(&b, &mut buffer);
    assert_eq!(received.full_len, sent.len() - TAG_LEN);
    let tag = VlanTag {
        tpid: 0x8100,
        tci: 100,
    };
    assert_eq!(received.vlan, Some(tag));
    assert_eq!(received.whole(&mut buffer, false), sent);
}

#[test]
fn what_is_longer_than_the_mtu_is_refused() {
    let pair = Pair::new("long");
    let a = pair.open("va", PLAIN);
    a.send(&frame(MTU)).unwrap();
    for long in [frame(MTU + 1), frame(9000), tagged(&frame(MTU + 1))] {
        let error = a.send(&long).unwrap_err();
        let too_long = rustix::io::Errno::MSGSIZE.raw_os_error();
        assert_eq!(error.raw_os_error(), Some(too_long), "{error}");
    }
}

#[test]
fn without_the_header_a_super_packet_is_cut_off_and_cannot_be_sent() {
    let pair = Pair::new("blind");
    let (a, b) = (pair.open("va", WITH_HEADER), pair.open("vb", PLAIN));
    let sent = super_packet(4000);
    a.send(&sent).unwrap();
    let mut buffer = vec![0; TAG_LEN + ETHERNET + MTU];
    let received = receive(&b, &mut buffer);
    assert_eq!(received.full_len, sent.len() - VNET_HEADER_LEN);
    assert_eq!(received.len, ETHERNET + MTU);
    assert!(received.partial_checksum);
    // With a buffer that has room for all of it.
    let mut buffer = vec![0; ROOM];
    a.send(&sent).unwrap();
    let received = receive(&b, &mut buffer);
    assert_eq!(received.len, received.full_len);
    let error = b.send(received.whole(&mut buffer, false)).unwrap_err();
    let too_long = rustix::io::Errno::MSGSIZE.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(too_long), "{error}");
}

#[test]
fn with_the_header_a_tagged_super_packet_goes_on_as_it_was() {
    let pair = Pair::new("kept");
    let (a, b) = (pair.open("va", WITH_HEADER), pair.open("vb", WITH_HEADER));
    let sent = super_packet(4000);
    let mut buffer = vec![0; ROOM];
    buffer[TAG_LEN..TAG_LEN + sent.len()].copy_from_slice(&sent);
    let tag = VlanTag {
        tpid: 0x8100,
        tci: 100,
    };
    let untagged = Received {
        len: sent.len(),
        full_len: sent.len(),
        vlan: Some(tag),
        partial_checksum: true,
    };
    let with_tag = untagged.whole(&mut buffer, true).to_vec();
    a.send(&with_tag).unwrap();
    // There and back: what came is what is sent on, and what comes again.
    for socket in [&b, &a] {
        let received = receive(socket, &mut buffer);
        assert_eq!(received.full_len, sent.len());
        assert_eq!(received.vlan, Some(tag));
        assert!(received.partial_checksum);
        let whole = received.whole(&mut buffer, true);
        assert_eq!(whole[VNET_HEADER_LEN..], with_tag[VNET_HEADER_LEN..]);
        assert_eq!(
            whole[4..10],
            with_tag[4..10],
            "GSO size and checksum's place"
        );
        socket.send(whole).unwrap();
    }
}

#[test]
fn a_socket_that_only_sends_receives_nothing() {
    let pair = Pair::new("sendonly");
    let only = Options {
        send_only: true,
        ..PLAIN
    };
    let (sender, receiver) = (pair.open("va", only), pair.open("vb", PLAIN));
    // Towards it first: by the time the other frame has come, this one would have.
    receiver.send(&frame(50)).unwrap();
    sender.send(&frame(40)).unwrap();
    let mut buffer = vec![0; ROOM];
    let mut fds = [PollFd::new(&receiver, PollFlags::IN)];
    let time = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&time)), Ok(1));
    let received = receiver.receive(&mut buffer).unwrap();
    assert_eq!(buffer[..received.len], frame(40));
    let error = sender.receive(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
