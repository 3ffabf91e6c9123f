//! What the policy allows gets through, what it does not allow does not, and what is decided stays in the
//! switch.

use crate::bed::{BIG, Bed, Options, POLICY, same, until};

const API: &str = "-H 'Host: api.example.com'";
/// The outside's and pod b's addresses, as curl wants them.
const OUTSIDE: [&str; 2] = ["192.0.2.10", "[2001:db8:2::10]"];
const POD_B: [&str; 2] = ["10.20.0.3", "[fd20::3]"];
const POD_C: [&str; 2] = ["10.20.0.4", "[fd20::4]"];

#[test]
fn the_policy_holds_on_the_bridge() {
    let bed = Bed::new("pol");
    http_to_the_outside(&bed);
    tls_to_the_outside(&bed);
    between_pods(&bed);
    whole_connections(&bed);
    same("checksum errors", bed.checksum_errors(), vec![]);
}

fn http_to_the_outside(bed: &Bed) {
    for host in OUTSIDE {
        let allowed = bed.curl("a", &format!("{API} http://{host}/v2/status"));
        same("an allowed request", allowed, (0, "200".to_owned()));
        let denied = bed.curl("a", &format!("{API} http://{host}/v1/status"));
        same("a denied path", denied, (0, "403".to_owned()));
        let denied = bed.curl(
            "a",
            &format!("-H 'Host: evil.example.net' http://{host}/v2/status"),
        );
        same("a denied host", denied, (0, "403".to_owned()));
        let second = bed.curl(
            "a",
            &format!("{API} http://{host}/v2/status http://{host}/v1/status -o /dev/null"),
        );
        same(
            "the second of a connection",
            second,
            (0, "200 403".to_owned()),
        );
        let (code, _) = bed.curl("a", &format!("--max-time 5 http://{host}:8080/v2/status"));
        same("a port that no rule names is rejected", code, 7);
    }
}

fn tls_to_the_outside(bed: &Bed) {
    for host in OUTSIDE {
        let to = |name: &str| format!("--connect-to ::{host}: https://{name}/v2/status");
        let allowed = bed.curl("a", &to("api.example.com"));
        same("an allowed server name", allowed, (0, "200".to_owned()));
        let (code, _) = bed.curl("a", &to("evil.example.net"));
        same("a denied server name: an alert", code, 35);
    }
}

fn between_pods(bed: &Bed) {
    for (b, c) in POD_B.into_iter().zip(POD_C) {
        // c is not governed, b's ingress is.
        let get = |place: &str, host: &str, path: &str| {
            bed.curl(place, &format!("{API} http://{host}{path}"))
        };
        same(
            "ingress, allowed",
            get("c", b, "/v2/public/x"),
            (0, "200".to_owned()),
        );
        same(
            "ingress, denied",
            get("c", b, "/v2/secret/x"),
            (0, "403".to_owned()),
        );
        // Both gates, one after the other.
        same(
            "both allow",
            get("a", b, "/v2/public/x"),
            (0, "200".to_owned()),
        );
        same(
            "the server's denies",
            get("a", b, "/v2/secret/x"),
            (0, "403".to_owned()),
        );
        same(
            "the client's denies",
            get("a", b, "/v1/x"),
            (0, "403".to_owned()),
        );
        same(
            "only the client's",
            get("a", c, "/v2/status"),
            (0, "200".to_owned()),
        );
        same(
            "only the client's, denied",
            get("a", c, "/v1/x"),
            (0, "403".to_owned()),
        );
        // What b itself begins is not restricted.
        same(
            "the other way round",
            get("b", c, "/v1/x"),
            (0, "404".to_owned()),
        );
    }
}

/// A rule without L7: nothing but the opening and the end comes to the TAP.
fn whole_connections(bed: &Bed) {
    /// SYN, SYN-ACK, the first packets of either side, FINs; twice, since b has a gate too.
    const FEW: u64 = 40;
    let counters = bed.counters();
    for host in [OUTSIDE[0], OUTSIDE[1], POD_B[0], POD_B[1]] {
        let before = bed.tap_frames();
        let line = format!("curl -sS --max-time 60 http://{host}:9000/v2/big.bin | sha256sum");
        same("the object", bed.sh("a", &line), sha(bed));
        let frames = bed.tap_frames() - before;
        assert!(
            frames < FEW,
            "{host}: {frames} of a decided connection came to the TAP"
        );
    }
    // New flows take the place of the counting ones; the count goes on.
    bed.sh("node", "ovs-appctl revalidator/wait");
    let renamed = POLICY.replace("name: plain", "name: whole");
    bed.change("policy.yaml", &renamed);
    let now = bed.counters();
    let more = |name: &str| now[name] - counters.get(name).copied().unwrap_or(0);
    let seen = more("seen inbound");
    // A super-packet of the kernel's data path is one.
    assert!(
        seen > 4 * BIG as u64 / 65_536,
        "{seen} of four objects were counted"
    );
    let diverted = more("diverted inbound");
    assert!(diverted < 4 * FEW, "{diverted} to the engine");
    let shown = bed.tollgate(&["status"]).stdout;
    assert!(shown.contains("bridge br0"), "{shown}");
    let check = bed.tollgate(&["check", "--post"]);
    assert!(
        !check.stdout.contains("fail ") && check.stdout.contains("the data path is bridge br0"),
        "{}{}",
        check.stdout,
        check.stderr
    );
}

fn sha(bed: &Bed) -> String {
    let file = bed.path("www/v2/big.bin").display().to_string();
    bed.sh("node", &format!("sha256sum < {file}"))
}

/// What is decided of a connection and what is not changes with what it carries.
#[test]
fn a_connection_may_go_back_and_forth() {
    /// More heads than the engine remembers of one flow without hearing of acknowledgements.
    const REQUESTS: usize = 60;
    let mut bed = Bed::new("turn");
    for host in OUTSIDE {
        let head = "x".repeat(7_000);
        let urls = format!("http://{host}/v2/status ").repeat(REQUESTS);
        let line = format!(
            "curl -sS -w '%{{num_connects}} ' --max-time 60 -H 'Filler: {head}' {API} {urls} | tr -d '\\n'"
        );
        let said = bed.sh("a", &line);
        same("answers", said.matches("ok").count(), REQUESTS);
        same("connections", said.matches('1').count(), 1);
    }
    bed.spawn("out", &format!("python3 -c '{SWITCHING}'"), "switching");
    until("the server is there", || {
        let text = std::fs::read_to_string(bed.path("switching")).unwrap_or_default();
        text.contains("ready").then_some(())
    });
    // Its port is 81, as a policy that reads it has it.
    let policy = POLICY.replace("{protocol: TCP, port: 443}", "{protocol: TCP, port: 81}");
    bed.change("policy.yaml", &policy);
    for host in ["::ffff:192.0.2.10", "2001:db8:2::10"] {
        let line = format!("python3 -c '{UPGRADING}' {host}");
        same("what came", bed.sh("a", &line), "200 101 echo".to_owned());
    }
}

/// A server that answers a request, then agrees to an upgrade, then sends back what it gets.
const SWITCHING: &str = r#"
import socket, threading
def head(s):
    b = b""
    while not b.endswith(b"\r\n\r\n"):
        c = s.recv(1)
        if not c: return None
        b += c
    return b
def serve(s):
    while True:
        h = head(s)
        if h is None: return
        if b"Upgrade" in h: break
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000)
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
    while True:
        b = s.recv(65536)
        if not b: return
        s.sendall(b)
l = socket.create_server(("::", 81), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    s, _ = l.accept()
    threading.Thread(target=serve, args=(s,), daemon=True).start()
"#;

/// A client of it.
const UPGRADING: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET6); s.settimeout(10); s.connect((sys.argv[1], 81))
def exactly(n):
    b = b""
    while len(b) < n:
        c = s.recv(n - len(b))
        if not c: raise EOFError(b)
        b += c
    return b
def head():
    b = b""
    while not b.endswith(b"\r\n\r\n"): b += exactly(1)
    return b.split()[1].decode()
ask = "GET /v2/x HTTP/1.1\r\nHost: api.example.com\r\n"
s.sendall((ask + "\r\n").encode()); one = head(); exactly(100000)
s.sendall((ask + "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n").encode()); two = head()
for n in range(200):
    b = bytes([n]) * 3000
    s.sendall(b)
    assert exactly(3000) == b
print(one, two, "echo")
"#;

/// Datagrams larger than the MTU, and the ICMP error of a port where nobody is.
#[test]
fn datagrams_come_whole_however_large() {
    let mut bed = Bed::new("udp");
    bed.spawn(
        "out",
        "python3 -c 'import socket; s=socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); \
         s.bind((\"::\", 7000)); print(\"ready\", flush=True); \
         [s.sendto(*s.recvfrom(65535)) for _ in iter(int, 1)]'",
        "echo",
    );
    until("the echo server is there", || {
        let text = std::fs::read_to_string(bed.path("echo")).unwrap_or_default();
        text.contains("ready").then_some(())
    });
    for host in ["::ffff:192.0.2.10", "2001:db8:2::10"] {
        for size in [100, 1_400, 5_000, 20_000] {
            let line = format!(
                "python3 -c 'import socket, os; s=socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); \
                 s.settimeout(10); s.connect((\"{host}\", 7000)); b=os.urandom({size}); \
                 [(s.send(b), print(s.recv(65535) == b)) for _ in range(5)]'"
            );
            same("echoes", bed.sh("a", &line), ["True"; 5].join("\n"));
        }
    }
    same("checksum errors", bed.checksum_errors(), vec![]);
}

/// The userspace data path with super-packets: they come to the TAP cut.
#[test]
fn super_packets_of_the_userspace_data_path_reach_the_engine() {
    if Bed::datapath_type() != "netdev" {
        return;
    }
    let options = Options {
        userspace_tso: true,
    };
    let mut bed = Bed::without_agent("tso", options);
    bed.start();
    let expected = sha(&bed);
    let big = bed.path("www/v2/big.bin").display().to_string();
    for host in POD_B {
        let line = format!("curl -sS --max-time 60 {API} http://{host}/v2/big.bin | sha256sum");
        same("between pods", bed.sh("a", &line), expected.clone());
    }
    // An upload that the engine has to see whole.
    let c = POD_C[0];
    let up = format!(
        "curl -skS --max-time 60 -o /dev/null -w '%{{http_code}}' -T {big} \
         --connect-to ::{c}: https://api.example.com/upload/up"
    );
    same("an upload", bed.sh("a", &up), "201".to_owned());
    let file = bed.path("nginx-c/upload/up").display().to_string();
    same(
        "what was uploaded",
        bed.sh("node", &format!("sha256sum < {file}")),
        expected,
    );
    same("checksum errors", bed.checksum_errors(), vec![]);
}

#[test]
fn large_objects_arrive_as_they_were_sent() {
    let bed = Bed::new("big");
    let expected = sha(&bed);
    let big = bed.path("www/v2/big.bin").display().to_string();
    for host in OUTSIDE.into_iter().chain(POD_B) {
        let before = bed.tap_frames();
        let line = format!("curl -sS --max-time 60 {API} http://{host}/v2/big.bin | sha256sum");
        same("over HTTP", bed.sh("a", &line), expected.clone());
        let frames = bed.tap_frames() - before;
        // The server's half is decided; what comes up is the client's acknowledgements.
        let whole = BIG as u64 / 1448;
        assert!(frames < whole, "{host}: {frames} of {whole} segments");
    }
    for host in OUTSIDE {
        let line = format!(
            "curl -skS --max-time 60 --connect-to ::{host}: https://api.example.com/v2/big.bin | sha256sum"
        );
        same("over TLS", bed.sh("a", &line), expected.clone());
        let up = format!(
            "curl -skS --max-time 60 -o /dev/null -w '%{{http_code}}' -T {big} --connect-to ::{host}: \
             https://api.example.com/upload/{}",
            if host.starts_with('[') { "six" } else { "four" }
        );
        same("an upload", bed.sh("a", &up), "201".to_owned());
    }
    for name in ["six", "four"] {
        let file = bed
            .path(&format!("nginx-out/upload/{name}"))
            .display()
            .to_string();
        same(
            "what was uploaded",
            bed.sh("node", &format!("sha256sum < {file}")),
            expected.clone(),
        );
    }
    same("checksum errors", bed.checksum_errors(), vec![]);
}
