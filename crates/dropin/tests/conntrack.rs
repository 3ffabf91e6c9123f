//! The redirecting bit against the kernel's own conntrack, in zones as a switch uses them.
//!
//! Needs root and nft. The namespace goes away with the test, also when it fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tollgate_datapath::netlink::{self, Family};
use tollgate_dropin::conntrack::{REDIRECT_BIT, ZONE_V4, ZONE_V6, release};

const NAMESPACE: &str = "tg-di-ct";
/// Another bit of the mark, which must stay.
const OTHER_BITS: u32 = 0x1003;
/// IP protocol number of TCP.
const TCP: u8 = 6;
/// `IPCTNL_MSG_CT_GET` of ctnetlink.
const GET: u16 = 1 << 8 | 1;

struct Namespace;

impl Namespace {
    fn new() -> Self {
        let namespace = Self;
        namespace.remove();
        run("ip", &["netns", "add", NAMESPACE], "");
        run("ip", &["-n", NAMESPACE, "link", "set", "lo", "up"], "");
        let mark = REDIRECT_BIT | OTHER_BITS;
        let rules = format!(
            "table inet t {{\n chain zones {{ type filter hook output priority raw; \
             meta l4proto tcp meta nfproto ipv4 ct zone set {ZONE_V4}; \
             meta l4proto tcp meta nfproto ipv6 ct zone set {ZONE_V6}; }}\n\
             chain zones_in {{ type filter hook prerouting priority raw; \
             meta l4proto tcp meta nfproto ipv4 ct zone set {ZONE_V4}; \
             meta l4proto tcp meta nfproto ipv6 ct zone set {ZONE_V6}; }}\n\
             chain marks {{ type filter hook output priority 0; \
             ct state new ct mark set {mark}; }}\n}}\n"
        );
        run(
            "ip",
            &["netns", "exec", NAMESPACE, "nft", "-f", "-"],
            &rules,
        );
        namespace
    }

    fn remove(&self) {
        let _ = Command::new("ip")
            .args(["netns", "del", NAMESPACE])
            .output();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn run(program: &str, args: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// The marks of all connections to a port in a zone.
fn marks(address: IpAddr, zone: u16, port: u16) -> Vec<u32> {
    let family = if address.is_ipv4() { 2 } else { 10 };
    let answer = netlink::ask(Family::Netfilter, GET, true, &[family, 0, 0, 0]).unwrap();
    let mark = |payload: &[u8]| {
        let attributes = payload.get(4..)?;
        let number = |kind| netlink::attribute(attributes, kind);
        let found_zone = u16::from_be_bytes(number(18)?.try_into().ok()?);
        let original = netlink::attribute(attributes, 1)?;
        let ports = netlink::attribute(original, 2)?;
        let to = u16::from_be_bytes(netlink::attribute(ports, 3)?.try_into().ok()?);
        let mark = u32::from_be_bytes(number(8)?.try_into().ok()?);
        (found_zone == zone && to == port).then_some(mark)
    };
    answer
        .iter()
        .filter_map(|message| mark(&message.payload))
        .collect()
}

fn in_the_namespace() {
    let file = File::open(format!("/run/netns/{NAMESPACE}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    for (address, zone) in [("127.0.0.1", ZONE_V4), ("::1", ZONE_V6)] {
        let address: IpAddr = address.parse().unwrap();
        let listener = TcpListener::bind(SocketAddr::new(address, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let stream = TcpStream::connect(server).unwrap();
        let client = stream.local_addr().unwrap();
        let marked = marks(address, zone, server.port());
        assert_eq!(marked, [REDIRECT_BIT | OTHER_BITS]);
        release(TCP, client, server).unwrap();
        assert_eq!(marks(address, zone, server.port()), [OTHER_BITS]);
        // Again is no harm; of another connection there is nothing to change, nor is one made.
        release(TCP, client, server).unwrap();
        let mut nobody = client;
        nobody.set_port(1);
        let error = release(TCP, nobody, server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        assert_eq!(marks(address, zone, server.port()), [OTHER_BITS]);
    }
}

#[test]
fn only_the_redirecting_bit_of_only_that_connection_goes() {
    let _namespace = Namespace::new();
    // A thread of its own: the namespace is the thread's.
    std::thread::spawn(in_the_namespace).join().unwrap();
}
