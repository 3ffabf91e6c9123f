//! Start, end, restart and removal of the agent while traffic flows.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tollgate_lab::lab::Place;
use tollgate_lab::names::{Family, TAP_IF};

use crate::bed::{API, Bed, FAMILIES, options, same, success};
use crate::download::Download;
use crate::net::{STUCK, get, open, outside, read_to_end, request, spawn, within};
use crate::servers::Recorder;

/// A flow that goes on shows no longer pause than this, on a busy machine; one that is stopped
/// until the next agent comes shows some seconds.
const GAP: Duration = Duration::from_millis(900);

#[test]
fn life_cycle() {
    Bed::without_agent(&options("life")).run(&[
        ("first start", connections_older_than_the_agent),
        ("SIGTERM", |bed| restart(bed, Signal::TERM)),
        ("SIGKILL", |bed| restart(bed, Signal::KILL)),
        ("denied meanwhile", a_restart_lets_no_denied_request_through),
        ("second agent", a_second_agent_is_refused),
        ("clean-up", cleanup_removes_everything),
        ("again", |bed| {
            bed.start();
            governed(bed);
        }),
    ]);
}

fn connections_older_than_the_agent(bed: &mut Bed) {
    let _plain = Recorder::start(bed, 9000);
    let mut judged = FAMILIES.map(|family| open(bed, family, 80));
    let mut plain = FAMILIES.map(|family| open(bed, family, 9000));
    for tcp in judged.iter_mut().chain(&mut plain) {
        same("ungoverned", get(tcp, "/v2/status").unwrap(), 200);
    }
    bed.start();
    for tcp in &mut plain {
        same("plain rule", get(tcp, "/v2/status").unwrap(), 200);
    }
    for tcp in &mut judged {
        let error = get(tcp, "/v2/status").unwrap_err();
        same("L7 rule", error.kind(), ErrorKind::ConnectionReset);
    }
    governed(bed);
}

/// New connections are judged.
fn governed(bed: &Bed) {
    for family in FAMILIES {
        for (path, code) in [("/v2/status", "200"), ("/admin", "403")] {
            let url = format!("http://{API}{path}");
            same(path, bed.seen(family, &[&url]), (0, code.to_owned()));
        }
    }
}

/// Ends the agent in the middle of transfers, looks at the time without it, and starts it again.
fn restart(bed: &mut Bed, signal: Signal) {
    let _plain = Recorder::start(bed, 9000);
    let ticker = Ticker::start(bed);
    let mut download = Download::start(bed, API, "7M");
    let mut keep_alive = open(bed, Family::V4, 80);
    let mut plain = open(bed, Family::V6, 9000);
    same(
        "keep-alive",
        get(&mut keep_alive, "/v2/status").unwrap(),
        200,
    );
    same("plain", get(&mut plain, "/x").unwrap(), 200);

    bed.stop(signal);
    for family in FAMILIES {
        for port in [80, 9000] {
            let limit = Duration::from_millis(700);
            let target = outside(family, port);
            let connected = within(bed, Place::Pod, || {
                TcpStream::connect_timeout(&target, limit)
            });
            same(
                "without agent",
                connected.unwrap_err().kind(),
                ErrorKind::TimedOut,
            );
        }
    }
    same("plain, without agent", get(&mut plain, "/x").unwrap(), 200);
    download.grows();
    assert!(download.runs(), "the download was too short");

    bed.start();
    same(
        "adopted",
        bed.status()["datapath"]["adopted"].as_bool(),
        Some(true),
    );
    same("plain, restarted", get(&mut plain, "/x").unwrap(), 200);
    let reset = get(&mut keep_alive, "/v2/status");
    same(
        "next request",
        reset.map_err(|e| e.kind()),
        Err(ErrorKind::ConnectionReset),
    );
    governed(bed);
    download.finishes(bed);
    let gap = ticker.end();
    eprintln!("{signal:?}: longest pause {gap:.1?}");
    assert!(gap < GAP, "a pause of {gap:?}");
}

/// Clients ask for what is denied all the time, over new connections and over one that is open, while
/// the agent ends and starts: the server never gets a whole request of theirs.
fn a_restart_lets_no_denied_request_through(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 8080);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let clients = FAMILIES.map(|family| {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        spawn(bed, Place::Pod, move || {
            while !stop.load(Ordering::Relaxed) {
                asked.fetch_add(u64::from(ask_denied(family)), Ordering::Relaxed);
            }
        })
    });
    for signal in [Signal::TERM, Signal::KILL, Signal::KILL] {
        let mut opened = FAMILIES.map(|family| open(bed, family, 8080));
        for tcp in &mut opened {
            same("open", get(tcp, "/v2/open").unwrap(), 200);
        }
        bed.stop(signal);
        for tcp in &mut opened {
            tcp.write_all(request("GET", "/admin/open").as_bytes())
                .unwrap();
        }
        bed.start();
        // A client that was held up has asked again by the time that the agent serves.
        let before = asked.load(Ordering::Relaxed);
        crate::bed::until("denied requests go on", || {
            (asked.load(Ordering::Relaxed) > before + 20).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let all = recorder.all();
    assert!(all.contains("/v2/open") && !all.contains("/admin"), "{all}");
}

/// Asks over a new connection; tells whether it could be made. Without an agent it cannot.
fn ask_denied(family: Family) -> bool {
    let limit = Duration::from_millis(300);
    let Ok(mut tcp) = TcpStream::connect_timeout(&outside(family, 8080), limit) else {
        return false;
    };
    tcp.set_read_timeout(Some(limit)).unwrap();
    let _ = tcp.write_all(request("GET", "/admin").as_bytes());
    let _ = read_to_end(&mut tcp);
    true
}

/// A response that comes in small pieces all the time, and the longest pause between two.
struct Ticker {
    stop: Arc<AtomicBool>,
    gap: Arc<AtomicU64>,
    server: JoinHandle<()>,
    client: JoinHandle<()>,
}

impl Ticker {
    fn start(bed: &Bed) -> Ticker {
        let stop = Arc::new(AtomicBool::new(false));
        let gap = Arc::new(AtomicU64::new(0));
        let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
        let listener = spawn(bed, Place::Out, bind).join().unwrap();
        let server = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || tick(&listener, &stop)
        });
        let mut tcp = open(bed, Family::V4, 8080);
        tcp.write_all(request("GET", "/v2/ticks").as_bytes())
            .unwrap();
        tcp.read_exact(&mut [0]).unwrap();
        let client = std::thread::spawn({
            let gap = Arc::clone(&gap);
            move || measure(&mut tcp, &gap)
        });
        Ticker {
            stop,
            gap,
            server,
            client,
        }
    }

    /// The longest pause so far; the ticks must still have come.
    fn end(self) -> Duration {
        assert!(!self.client.is_finished(), "the response was cut");
        let gap = Duration::from_micros(self.gap.load(Ordering::Relaxed));
        self.stop.store(true, Ordering::Relaxed);
        self.server.join().unwrap();
        self.client.join().unwrap();
        gap
    }
}

fn tick(listener: &TcpListener, stop: &AtomicBool) {
    let (mut tcp, _) = listener.accept().unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.set_write_timeout(Some(STUCK)).unwrap();
    tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .unwrap();
    while !stop.load(Ordering::Relaxed) && tcp.write_all(&[b'.'; 100]).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn measure(tcp: &mut TcpStream, longest: &AtomicU64) {
    let mut last = Instant::now();
    let mut buffer = [0; 4096];
    while let Ok(1..) = tcp.read(&mut buffer) {
        let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
        longest.fetch_max(gap, Ordering::Relaxed);
        last = Instant::now();
    }
}

fn a_second_agent_is_refused(bed: &mut Bed) {
    let config = bed.lab.names.dir().join("gate.yaml").display().to_string();
    let second = bed.tollgate(&["agent", "--config", &config]);
    same("exit", second.status.code(), Some(4));
    assert!(second.stderr.contains("another agent"), "{}", second.stderr);
    let refused = bed.cleanup();
    same("clean-up under an agent", refused.status.code(), Some(4));
    assert!(bed.agent.as_mut().unwrap().alive());
    governed(bed);
}

fn cleanup_removes_everything(bed: &mut Bed) {
    let mut held = open(bed, Family::V4, 80);
    same("before", get(&mut held, "/v2/status").unwrap(), 200);
    bed.stop(Signal::TERM);
    assert!(bed.lab.names.pins().exists(), "decided flows need the pins");
    assert!(bed.sh(Place::Node, "ip -o link").contains(TAP_IF));
    let removed = bed.cleanup();
    assert!(success(&removed).contains("removed "), "{}", removed.stdout);
    assert!(!bed.lab.names.pins().exists());
    assert!(!bed.sh(Place::Node, "ip -o link").contains(TAP_IF));
    let left = bed.sh(
        Place::Node,
        "tc qdisc show; tc filter show dev tgp0 ingress 2>&1 || true",
    );
    assert!(!left.contains("bpf"), "{left}");
    // Without programs everything passes, and what was open goes on.
    for family in FAMILIES {
        let url = format!("http://{API}/admin");
        same("ungoverned", bed.seen(family, &[&url]), (0, "200".into()));
    }
    same("open connection", get(&mut held, "/admin").unwrap(), 200);
    drop(held);
    let again = bed.cleanup();
    assert!(
        success(&again).contains("nothing to remove"),
        "{}",
        again.stdout
    );
    let mut free = open(bed, Family::V4, 80);
    free.write_all(b"GET /admin HTTP/1.0\r\n\r\n").unwrap();
    assert!(read_to_end(&mut free).0.contains("secret"));
}
