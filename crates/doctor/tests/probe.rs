//! Probes between real network namespaces, healthy ones and such that are broken on purpose.
//!
//! Needs root, and fails without it. Every namespace is named `tg-prb-*` and goes away with its test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tollgate_doctor::case::{Direction, ProbeKind, ProbeOutcome, ProbeResult, Transport};
use tollgate_doctor::probe::{Limits, OtherSide, ProbePlan, Trust, Web, run};

use Direction::{Inbound, Outbound};
use ProbeKind::{Checksum, Gso, Mtu, MtuPlusOne, Small, UdpGso};
use Transport::{Tcp, Udp};

/// Broken ways use up the time of a probe: shorter than the default, longer than a standstill.
const EACH: Duration = Duration::from_secs(2);

/// Copies frames between two interfaces as software does that does not know of virtio-net headers:
/// what the kernel has not filled in is never filled in.
const COPIER: &str = "
import socket, select
def open_on(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
    s.bind((name, 0))
    return s
a, b = open_on('p0'), open_on('o0')
print('ready', flush=True)
while True:
    for s in select.select([a, b], [], [])[0]:
        frame = s.recv(1 << 17)
        try:
            (b if s is a else a).send(frame)
        except OSError:
            pass  # too long: lost
";

/// Three namespaces in a row.
struct Bed {
    name: String,
    children: Vec<Child>,
}

impl Bed {
    /// A pod and an outside with a router between them.
    fn routed(name: &str) -> Bed {
        let bed = Bed::links(name);
        bed.sh("ip -n $pod addr add 10.77.0.2/24 dev eth0
             ip -n $pod addr add fd77::2/64 dev eth0 nodad
             ip -n $mid addr add 10.77.0.1/24 dev p0
             ip -n $mid addr add fd77::1/64 dev p0 nodad
             ip -n $mid addr add 192.0.2.1/24 dev o0
             ip -n $mid addr add 2001:db8:2::1/64 dev o0 nodad
             ip -n $out addr add 192.0.2.10/24 dev eth0
             ip -n $out addr add 2001:db8:2::10/64 dev eth0 nodad
             ip -n $pod route add default via 10.77.0.1
             ip -n $pod -6 route add default via fd77::1
             ip -n $out route add default via 192.0.2.1
             ip -n $out -6 route add default via 2001:db8:2::1
             ip netns exec $mid sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        bed
    }

    /// A pod and an outside with a blind copier between them.
    fn copied(name: &str) -> Bed {
        let mut bed = Bed::links(name);
        bed.sh("ip -n $pod addr add 192.0.2.2/24 dev eth0
             ip -n $pod addr add 2001:db8:2::2/64 dev eth0 nodad
             ip -n $out addr add 192.0.2.10/24 dev eth0
             ip -n $out addr add 2001:db8:2::10/64 dev eth0 nodad
             ip -n $mid link set p0 promisc on
             ip -n $mid link set o0 promisc on");
        bed.background("mid", &["python3", "-u", "-c", COPIER]);
        bed
    }

    fn links(name: &str) -> Bed {
        let bed = Bed {
            name: name.to_owned(),
            children: Vec::new(),
        };
        bed.remove();
        bed.sh(
            "for n in $pod $mid $out; do
                 ip netns add $n
                 ip -n $n link set lo up
                 ip netns exec $n sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
             done
             ip -n $mid link add p0 type veth peer name eth0 netns $pod
             ip -n $mid link add o0 type veth peer name eth0 netns $out
             ip -n $pod link set eth0 up
             ip -n $out link set eth0 up
             ip -n $mid link set p0 up
             ip -n $mid link set o0 up",
        );
        bed
    }

    fn netns(&self, role: &str) -> String {
        format!("tg-prb-{}-{role}", self.name)
    }

    fn path(&self, role: &str) -> PathBuf {
        format!("/run/netns/{}", self.netns(role)).into()
    }

    /// Runs a script with the namespaces' names in variables.
    fn sh(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-ec", script]);
        for role in ["pod", "mid", "out"] {
            command.env(role, self.netns(role));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said} (needs root)");
    }

    /// Rules of the packet filter in the middle.
    fn filter(&self, hook: &str, rules: &str) {
        self.sh(&format!(
            "ip netns exec $mid nft -f - <<'X'\n\
             table inet t {{ chain c {{ type filter hook {hook} priority 0; {rules} }}; }}\nX"
        ));
    }

    /// Starts a program that prints a line when it is ready, and runs until the bed goes.
    fn background(&mut self, role: &str, command: &[&str]) {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.path(role).display()))
            .arg("--")
            .args(command)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        self.children.push(child);
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{command:?} ended at once");
    }

    fn plan(&self) -> ProbePlan {
        ProbePlan {
            limits: Limits {
                each: EACH,
                ..Limits::default()
            },
            ..ProbePlan::between(self.path("pod"), self.path("out"))
        }
    }

    fn remove(&self) {
        for role in ["pod", "mid", "out"] {
            if self.path(role).exists() {
                self.sh(&format!("ip netns del {}", self.netns(role)));
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            self.remove();
            return;
        }
        // A second panic would hide the first.
        for role in ["pod", "mid", "out"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.netns(role)])
                .status();
        }
    }
}

fn all_passed(results: &[ProbeResult]) {
    for result in results {
        assert_eq!(result.outcome, ProbeOutcome::Passed, "{result:#?}");
    }
}

/// Why a probe of this sort failed; every one of them must have.
fn failures(results: &[ProbeResult], kind: ProbeKind, transport: Transport) -> Vec<String> {
    let these = results
        .iter()
        .filter(|r| r.kind == kind && r.transport == transport);
    let why = these.map(|result| match &result.outcome {
        ProbeOutcome::Failed(why) => why.clone(),
        _ => panic!("did not fail: {result:#?}"),
    });
    let why: Vec<String> = why.collect();
    assert!(!why.is_empty(), "{kind:?} over {transport:?} was not sent");
    why
}

#[test]
fn a_healthy_way_passes_everything() {
    let bed = Bed::routed("ok");
    let results = run(&bed.plan()).unwrap();
    assert_eq!(results.len(), 40);
    all_passed(&results);
    let burst = results.iter().find(|r| r.kind == Gso).unwrap();
    assert_eq!((burst.sent, burst.received), (4 << 20, 4 << 20));
    let small = results
        .iter()
        .find(|r| r.kind == Small && r.transport == Udp);
    assert_eq!(small.unwrap().received, 64);
}

#[test]
fn a_healthy_way_with_jumbo_frames_passes_everything() {
    let bed = Bed::routed("jumbo");
    bed.sh(
        "ip -n $pod link set eth0 mtu 9000; ip -n $mid link set p0 mtu 9000
         ip -n $mid link set o0 mtu 9000; ip -n $out link set eth0 mtu 9000",
    );
    all_passed(&run(&bed.plan()).unwrap());
}

/// Narrower in the middle than at both ends: only a router's word can tell.
fn narrow(name: &str) -> Bed {
    let bed = Bed::routed(name);
    bed.sh("ip -n $mid link set o0 mtu 1400");
    bed
}

#[test]
fn a_narrow_way_that_says_so_passes() {
    let bed = narrow("narrow");
    let plan = ProbePlan {
        directions: vec![Outbound],
        ..bed.plan()
    };
    all_passed(&run(&plan).unwrap());
}

#[test]
fn a_black_hole_fails_what_is_large_and_passes_what_is_small() {
    let bed = narrow("hole");
    bed.filter(
        "output",
        "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop;",
    );
    let plan = ProbePlan {
        directions: vec![Outbound],
        kinds: vec![Small, Mtu, MtuPlusOne, Gso],
        ..bed.plan()
    };
    let results = run(&plan).unwrap();
    for transport in [Tcp, Udp] {
        let small = results
            .iter()
            .filter(|r| r.kind == Small && r.transport == transport);
        all_passed(&small.cloned().collect::<Vec<_>>());
    }
    for why in failures(&results, Mtu, Udp) {
        assert!(
            why.contains("a packet of 1500 bytes") && why.contains("no router"),
            "{why}"
        );
    }
    for why in failures(&results, Mtu, Tcp)
        .into_iter()
        .chain(failures(&results, Gso, Tcp))
    {
        assert!(why.contains("retransmissions"), "{why}");
    }
    let burst = results.iter().find(|r| r.kind == Gso).unwrap();
    assert!(burst.sender["TcpExt:TCPTimeouts"] > 0, "{burst:#?}");
    assert!(burst.received < 1 << 20, "{burst:#?}");
}

#[test]
fn a_blind_copier_breaks_checksums_and_the_receiver_counts_them() {
    let bed = Bed::copied("copy");
    let plan = ProbePlan {
        kinds: vec![Checksum],
        ..bed.plan()
    };
    let results = run(&plan).unwrap();
    for why in failures(&results, Checksum, Tcp) {
        assert!(why.contains("wrong checksum"), "{why}");
    }
    for result in results.iter().filter(|r| r.transport == Tcp) {
        // The endpoint's SYN is the first to be wrong; the far side gets it whichever way the payload goes.
        let far = match result.direction {
            Outbound => &result.receiver,
            Inbound => &result.sender,
        };
        assert!(far["Tcp:InCsumErrors"] > 0, "{result:#?}");
    }
    let udp = |ipv6| {
        let found = results
            .iter()
            .find(|r| r.transport == Udp && r.ipv6 == ipv6 && r.direction == Outbound);
        found.unwrap()
    };
    assert!(udp(false).receiver["Udp:InCsumErrors"] > 0);
    assert!(udp(true).receiver["Udp6:InCsumErrors"] > 0);
    for ipv6 in [false, true] {
        assert!(
            matches!(&udp(ipv6).outcome, ProbeOutcome::Failed(why) if why.contains("wrong checksum"))
        );
    }

    // The same copier passes what comes with its checksum.
    bed.sh("ip netns exec $pod ethtool -K eth0 tx off >/dev/null
         ip netns exec $out ethtool -K eth0 tx off >/dev/null");
    let small = ProbePlan {
        kinds: vec![Small, Checksum],
        ..bed.plan()
    };
    all_passed(&run(&small).unwrap());
}

#[test]
fn bursts_of_datagrams_without_checksum_offload_pass_or_name_the_cause() {
    let bed = Bed::routed("ugso");
    bed.sh("ip netns exec $pod ethtool -K eth0 tx off >/dev/null");
    let plan = ProbePlan {
        kinds: vec![UdpGso],
        directions: vec![Outbound],
        ..bed.plan()
    };
    for result in run(&plan).unwrap() {
        match &result.outcome {
            // The kernel cuts the burst itself, since Linux 6.11.
            ProbeOutcome::Passed => assert_eq!(result.sent, result.received),
            ProbeOutcome::Failed(why) => {
                assert!(
                    why.contains("EIO") && why.contains("tx-checksumming"),
                    "{why}"
                );
            }
            ProbeOutcome::NotRun(_) => panic!("{result:#?}"),
        }
    }
}

#[test]
fn one_family_alone_may_be_broken() {
    let bed = Bed::routed("six");
    bed.filter(
        "forward",
        "meta nfproto ipv6 meta l4proto { tcp, udp } drop;",
    );
    let plan = ProbePlan {
        kinds: vec![Small, Mtu],
        ..bed.plan()
    };
    let (six, four): (Vec<_>, Vec<_>) = run(&plan).unwrap().into_iter().partition(|r| r.ipv6);
    all_passed(&four);
    assert_eq!((four.len(), six.len()), (8, 8));
    let (six, larger): (Vec<_>, Vec<_>) = six.into_iter().partition(|r| r.kind == Small);
    for result in larger {
        let skipped =
            matches!(&result.outcome, ProbeOutcome::NotRun(why) if why.contains("not even"));
        assert!(skipped, "{result:#?}");
    }
    assert!(failures(&six, Small, Tcp)[0].contains("no connection within 2 s"));
    for result in &six {
        match (result.transport, result.direction, &result.outcome) {
            // It could not even be asked for.
            (Udp, Inbound, ProbeOutcome::NotRun(_)) | (_, _, ProbeOutcome::Failed(_)) => {}
            _ => panic!("{result:#?}"),
        }
    }
}

#[test]
fn one_direction_alone_may_be_broken() {
    let bed = Bed::routed("dir");
    bed.filter("forward", "iifname o0 meta length > 1000 drop;");
    let plan = ProbePlan {
        kinds: vec![Small, Mtu, Gso, UdpGso],
        ..bed.plan()
    };
    let (inbound, outbound): (Vec<_>, Vec<_>) = run(&plan)
        .unwrap()
        .into_iter()
        .partition(|r| r.direction == Inbound);
    all_passed(&outbound);
    for (kind, transport) in [(Mtu, Tcp), (Mtu, Udp), (Gso, Tcp)] {
        failures(&inbound, kind, transport);
    }
    assert!(failures(&inbound, UdpGso, Udp)[0].contains("0 of "));
}

#[test]
fn what_a_packet_filter_refuses_says_nothing_about_the_way() {
    let bed = Bed::routed("deny");
    bed.filter("forward", "ip protocol tcp reject with tcp reset;");
    let plan = ProbePlan {
        kinds: vec![Small],
        transports: vec![Tcp],
        ipv6: vec![false],
        ..bed.plan()
    };
    for result in run(&plan).unwrap() {
        let refused =
            matches!(&result.outcome, ProbeOutcome::NotRun(why) if why.contains("refused"));
        assert!(refused, "{result:#?}");
    }
}

/// A web server that knows nothing of ranges: the probe has to stop reading by itself.
const SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def head(self):
        self.send_response(200)
        self.send_header('Content-Length', str(64 << 20))
        self.end_headers()
    do_HEAD = head
    def do_GET(self):
        self.head()
        try:
            for _ in range(64):
                self.wfile.write(bytes(1 << 20))
        except OSError:
            pass
    def do_PUT(self):
        left = int(self.headers['Content-Length'])
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 16)))
        self.send_response(405)
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(('192.0.2.10', 8080), Handler)
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print('ready', flush=True)
server.serve_forever()
";

#[test]
fn a_url_is_probed_within_bounds() {
    let mut bed = Bed::routed("url");
    bed.background("out", &["python3", "-u", "-c", SERVER]);
    let web = Web {
        url: "http://192.0.2.10:8080/big".to_owned(),
        trust: Trust::System,
        upload: false,
    };
    let plan = ProbePlan {
        other: OtherSide::Web(web),
        ..bed.plan()
    };
    let (six, four): (Vec<_>, Vec<_>) = run(&plan).unwrap().into_iter().partition(|r| r.ipv6);
    all_passed(&four);
    let kinds: Vec<_> = four
        .iter()
        .map(|r| (r.kind, r.transport, r.direction))
        .collect();
    assert_eq!(kinds, [(Small, Tcp, Inbound), (Gso, Tcp, Inbound)]);
    let burst = four[1].received;
    assert!((4 << 20..5 << 20).contains(&burst), "{burst}");
    for result in six {
        assert!(
            matches!(result.outcome, ProbeOutcome::NotRun(_)),
            "{result:#?}"
        );
    }

    bed.filter("forward", "iifname o0 meta length > 1000 drop;");
    let results = run(&ProbePlan {
        ipv6: vec![false],
        ..plan
    })
    .unwrap();
    assert_eq!(results[0].outcome, ProbeOutcome::Passed);
    assert!(failures(&results, Gso, Tcp)[0].contains("nothing moved"));
}

#[test]
fn a_url_with_tls_is_probed_by_whose_certificates_are_believed() {
    let mut bed = Bed::routed("tls");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    bed.sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=probe \
         -addext subjectAltName=IP:192.0.2.10 -addext basicConstraints=critical,CA:FALSE \
         -keyout {key} -out {cert} 2>/dev/null"
    ));
    bed.background("out", &["python3", "-u", "-c", SERVER, &cert, &key]);
    let with = |trust, upload| {
        let url = "https://192.0.2.10:8080/big".to_owned();
        let other = OtherSide::Web(Web { url, trust, upload });
        let plan = ProbePlan {
            other,
            ipv6: vec![false],
            ..bed.plan()
        };
        run(&plan).unwrap()
    };
    // Uploads only where they are allowed; the server's 405 says that they arrived.
    let results = with(Trust::Authority(cert.clone().into()), true);
    all_passed(&results);
    assert_eq!(results.len(), 4);
    let sent = results
        .iter()
        .find(|r| r.kind == Gso && r.direction == Outbound);
    assert_eq!(sent.unwrap().sent, 4 << 20);
    let results = with(Trust::Anyone, false);
    all_passed(&results);
    assert_eq!(results.len(), 2);
    for result in with(Trust::System, false) {
        let stranger =
            matches!(&result.outcome, ProbeOutcome::NotRun(why) if why.starts_with("TLS: "));
        assert!(stranger, "{result:#?}");
    }
}
