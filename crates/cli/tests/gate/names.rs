//! Peers by name: a resolver in the outside namespace, and connections right behind its answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, ResourceRecord, TYPE};
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{Bed, options};
use crate::net::{STUCK, spawn, within};
use crate::servers::Recorder;

/// Where the server listens that may be reached by name.
const PORT: u16 = 8080;
/// Last part of the first address that a name leads to: `n100.example.com` is 192.0.2.100.
const FIRST: u8 = 100;
/// So many names are looked up, each followed at once by the first connection to its address.
const ROUNDS: u8 = 100;
/// A resolver that is not in the agent's configuration.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
/// How often a server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(10);
/// TTL of every record, seconds; longer than the test.
const TTL: u32 = 300;

const NAMED: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
    - name: dns
      action: Allow
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    - name: named
      action: Allow
      to: [{fqdn: '*.example.com'}]
      ports: [{protocol: TCP, port: 8080}]
    - {name: rest, action: Reject}
";

#[test]
fn names() {
    let mut bed = Bed::without_agent(&options("names"));
    bed.replace("policy.yaml", NAMED);
    let add = format!(
        "for n in $(seq 99 {}); do ip addr add 192.0.2.$n/32 dev eth0; done; \
         ip addr add 2001:db8:2::100/128 dev eth0 nodad",
        FIRST + ROUNDS
    );
    bed.sh(Place::Out, &add);
    let _servers = (
        Recorder::start(&bed, PORT),
        Resolver::start(&bed, Family::V4.outside()),
        Resolver::start(&bed, STRANGER.into()),
    );
    bed.start();
    bed.run(&[
        ("race", the_first_connection_never_loses),
        ("TCP, alias, IPv6", tcp_aliases_and_ipv6),
        ("strangers", others_teach_nothing),
        ("restart", names_outlive_a_restart),
    ]);
}

/// What the resolver says of a name.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn connects(bed: &Bed, to: IpAddr) -> bool {
    let tcp = within(bed, Place::Pod, || {
        TcpStream::connect_timeout(&(to, PORT).into(), STUCK)
    });
    match tcp {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{to}: {error}"),
    }
}

fn question(name: &str, qtype: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    let (name, class) = (Name::new(name).unwrap(), QCLASS::CLASS(CLASS::IN));
    let question = simple_dns::Question::new(name, QTYPE::TYPE(qtype), class, false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

/// Asks from the pod over UDP and waits for the answer.
fn look_up(socket: &UdpSocket, resolver: IpAddr, name: &str, qtype: TYPE) {
    socket
        .send_to(&question(name, qtype), (resolver, 53))
        .unwrap();
    let (length, _) = socket.recv_from(&mut [0; 1500]).unwrap();
    assert!(length > 12);
}

fn stub(bed: &Bed) -> UdpSocket {
    let socket = within(bed, Place::Pod, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(STUCK)).unwrap();
    socket
}

fn the_first_connection_never_loses(bed: &mut Bed) {
    assert!(!connects(bed, address(FIRST)), "before it is known");
    within(bed, Place::Pod, || {
        for round in 0..ROUNDS {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(STUCK)).unwrap();
            let number = FIRST + round;
            let name = format!("n{number}.example.com");
            look_up(&socket, Family::V4.outside(), &name, TYPE::A);
            let to = SocketAddr::new(address(number), PORT);
            TcpStream::connect_timeout(&to, STUCK).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    });
    assert_eq!(bed.counter("dns_learnt"), u64::from(ROUNDS));
}

fn tcp_aliases_and_ipv6(bed: &mut Bed) {
    let last = FIRST + ROUNDS;
    assert!(!connects(bed, address(last)));
    let name = format!("alias-n{last}.example.com");
    within(bed, Place::Pod, || {
        let mut tcp = TcpStream::connect((Family::V4.outside(), 53)).unwrap();
        tcp.set_read_timeout(Some(STUCK)).unwrap();
        let asked = question(&name, TYPE::A);
        let framed = [&(asked.len() as u16).to_be_bytes()[..], &asked].concat();
        // In two segments.
        tcp.set_nodelay(true).unwrap();
        tcp.write_all(&framed[..9]).unwrap();
        std::thread::sleep(LOOK);
        tcp.write_all(&framed[9..]).unwrap();
        let mut length = [0; 2];
        tcp.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        tcp.read_exact(&mut answer).unwrap();
    });
    assert!(connects(bed, address(last)));
    let v6: IpAddr = "2001:db8:2::100".parse().unwrap();
    assert!(!connects(bed, v6));
    let resolver = Family::V4.outside();
    look_up(&stub(bed), resolver, "n100.example.com", TYPE::AAAA);
    assert!(connects(bed, v6));
}

fn others_teach_nothing(bed: &mut Bed) {
    look_up(&stub(bed), STRANGER.into(), "n99.example.com", TYPE::A);
    look_up(&stub(bed), Family::V4.outside(), "n99.example.net", TYPE::A);
    assert!(!connects(bed, STRANGER.into()));
}

fn names_outlive_a_restart(bed: &mut Bed) {
    bed.stop(Signal::TERM);
    bed.start();
    assert!(connects(bed, address(FIRST)));
    assert!(!connects(bed, STRANGER.into()));
}

/// Answers `nN.` and `alias-nN.` with 192.0.2.N and 2001:db8:2::N, over UDP and TCP.
struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    fn start(bed: &Bed, at: IpAddr) -> Self {
        let sockets = spawn(bed, Place::Out, move || {
            (
                UdpSocket::bind((at, 53)).unwrap(),
                TcpListener::bind((at, 53)).unwrap(),
            )
        });
        let (udp, tcp) = sockets.join().unwrap();
        udp.set_read_timeout(Some(LOOK)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut asked = [0; 1500];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut asked) {
                    udp.send_to(&answer(&asked[..length]), from).unwrap();
                }
                if let Ok((stream, _)) = tcp.accept() {
                    serve(stream);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One question over TCP.
fn serve(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut asked = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut asked).unwrap();
    let answer = answer(&asked);
    let length = (answer.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &answer].concat()).unwrap();
}

fn answer(asked: &[u8]) -> Vec<u8> {
    let asked = Packet::parse(asked).unwrap();
    let question = asked.questions[0].clone();
    let name = question.qname.to_string();
    let plain = name.trim_start_matches("alias-").to_owned();
    let number: String = plain.chars().filter(char::is_ascii_digit).collect();
    let data = match question.qtype {
        QTYPE::TYPE(TYPE::AAAA) => {
            let address = format!("2001:db8:2::{number}").parse::<std::net::Ipv6Addr>();
            RData::AAAA(AAAA {
                address: address.unwrap().into(),
            })
        }
        _ => {
            let address = format!("192.0.2.{number}").parse::<Ipv4Addr>();
            RData::A(A {
                address: address.unwrap().into(),
            })
        }
    };
    let mut packet = asked.into_reply();
    let record = |owner: &str, data| {
        let owner = Name::new(owner).unwrap().into_owned();
        ResourceRecord::new(owner, CLASS::IN, TTL, data)
    };
    if name != plain {
        let target = CNAME(Name::new(&plain).unwrap().into_owned());
        packet.answers.push(record(&name, RData::CNAME(target)));
    }
    packet.answers.push(record(&plain, data));
    packet.build_bytes_vec_compressed().unwrap()
}
