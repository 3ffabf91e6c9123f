//! The blind engine by itself, as other tests may use it.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_lab::blind::BlindEngine;

use crate::TOLLGATE;

/// Longer than anything here takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time in which a datagram that is lost does not come.
const LOST: Duration = Duration::from_millis(500);

/// Two hosts that only the engine between their links connects; goes when this goes.
struct Bed;

const HOSTS: [(&str, &str, &str); 2] = [
    ("tg-bl-one", "p0", "10.7.0.1"),
    ("tg-bl-two", "p1", "10.7.0.2"),
];
const MIDDLE: &str = "tg-bl-mid";

impl Bed {
    fn new() -> Bed {
        let bed = Bed;
        bed.remove();
        ip(&format!("netns add {MIDDLE}"));
        for (host, port, address) in HOSTS {
            ip(&format!("netns add {host}"));
            ip(&format!(
                "-n {MIDDLE} link add {port} type veth peer name eth0 netns {host}"
            ));
            ip(&format!("-n {MIDDLE} link set {port} up"));
            ip(&format!("-n {host} addr add {address}/24 dev eth0"));
            ip(&format!("-n {host} link set eth0 up"));
        }
        bed
    }

    fn checksums(&self, word: &str) {
        for (host, _, _) in HOSTS {
            let file = format!("--net=/run/netns/{host}");
            let ethtool = Command::new("nsenter")
                .args([&file, "ethtool", "-K", "eth0", "tx", word])
                .output()
                .unwrap();
            assert!(ethtool.status.success(), "{ethtool:?}");
        }
    }

    fn remove(&self) {
        for netns in [HOSTS[0].0, HOSTS[1].0, MIDDLE] {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}

/// A socket in a host's namespace.
fn socket(host: usize, timeout: Duration) -> UdpSocket {
    let (netns, _, address) = HOSTS[host];
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    let open = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        UdpSocket::bind((address, 7000)).unwrap()
    };
    let socket = std::thread::spawn(open).join().unwrap();
    socket.set_read_timeout(Some(timeout)).unwrap();
    socket
}

#[test]
fn it_copies_both_ways_and_counts() {
    let bed = Bed::new();
    let dir = tempfile::tempdir().unwrap();
    let start = |dir: &Path| BlindEngine::start(Path::new(TOLLGATE), MIDDLE, "p0", "p1", dir);
    let mut engine = start(dir.path()).unwrap();
    assert!(engine.alive());
    let mut buffer = [0; 16];

    // Complete frames pass, and the answer too.
    bed.checksums("off");
    let (one, two) = (socket(0, PATIENCE), socket(1, PATIENCE));
    one.send_to(b"there", (HOSTS[1].2, 7000)).unwrap();
    let (len, from) = two.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"there");
    two.send_to(b"back", from).unwrap();
    assert_eq!(one.recv(&mut buffer).unwrap(), 4);
    let deadline = Instant::now() + PATIENCE;
    while !engine.counters().is_ok_and(|counted| counted.frames >= 4) {
        assert!(Instant::now() < deadline, "{:?}", engine.counters());
        std::thread::sleep(Duration::from_millis(20));
    }

    // One whose checksum is still to be filled in passes the engine, and nobody takes it.
    bed.checksums("on");
    two.set_read_timeout(Some(LOST)).unwrap();
    one.send_to(b"lost", (HOSTS[1].2, 7000)).unwrap();
    assert!(two.recv(&mut buffer).is_err());
    let counters = engine.stop().unwrap();
    assert_eq!(counters.partial_checksums, 1, "{counters:?}");
    assert_eq!((counters.emsgsize, counters.other_errors), (0, 0));

    // A port that is not there is said.
    let error = BlindEngine::start(Path::new(TOLLGATE), MIDDLE, "p0", "p9", dir.path());
    assert!(error.unwrap_err().to_string().contains("p9"));
}
