//! What passes, what does not, and how the client is told.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{API, Bed, FAMILIES, same, until};
use crate::net::{End, get, open, outside, ping, read_to_end, request, udp, within};
use crate::servers::{Echo, Recorder};

/// A refusal is told at once: far below any retransmission's time-out.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn policy() {
    Bed::new("policy").run(&[
        ("host, path and method", host_path_and_method),
        ("403 names the policy", the_403_names_the_policy),
        ("HEAD", a_denied_head_gets_no_body),
        ("keep-alive", a_later_request_is_denied),
        ("pipelining", a_pipelined_denied_request_is_not_delivered),
        ("first of a pipeline", nothing_follows_a_denied_request),
        ("TLS server name", tls_server_name),
        ("not HTTP, not TLS", another_protocol_is_reset),
        ("plain rule", a_rule_without_l7_lets_anything_pass),
        ("no rule", what_no_rule_allows_is_refused_at_once),
        ("Drop", drop_stays_silent),
        ("UDP", udp_echo_and_refusal),
        ("ICMP", icmp_echo),
    ]);
}

fn url(scheme: &str, host: &str, path: &str) -> String {
    format!("{scheme}://{host}{path}")
}

fn host_path_and_method(bed: &mut Bed) {
    let cases: [(&str, &str, &str, &str); 10] = [
        ("GET", API, "/v2/status", "200"),
        ("GET", "API.Example.COM.:80", "/v2/status", "200"),
        ("GET", API, "/v2/nothing-there", "404"),
        ("GET", API, "/v1/status", "403"),
        ("GET", API, "/admin", "403"),
        ("GET", API, "/V2/status", "403"),
        ("GET", "www.example.com", "/v2/status", "403"),
        (
            "GET",
            "api.example.com.evil.example.net",
            "/v2/status",
            "403",
        ),
        ("DELETE", API, "/v2/status", "403"),
        ("get", API, "/v2/status", "403"),
    ];
    for family in FAMILIES {
        for (method, host, path, expected) in cases {
            let found = bed.seen(family, &["-X", method, &url("http", host, path)]);
            let what = format!("{} {method} {host} {path}", family.word());
            same(&what, found, (0, expected.to_owned()));
        }
    }
}

fn the_403_names_the_policy(bed: &mut Bed) {
    for family in FAMILIES {
        let output = bed.curl(family, &["-i", &url("http", API, "/admin")]);
        let text = output.stdout;
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
        for word in [
            "ClusterNetworkPolicy/web",
            "\"api\"",
            "http-no-rule-matches",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

fn a_denied_head_gets_no_body(bed: &mut Bed) {
    let allowed = bed.seen(Family::V4, &["-I", &url("http", API, "/v2/status")]);
    same("allowed HEAD", allowed, (0, "200".into()));
    let mut tcp = open(bed, Family::V4, 80);
    tcp.write_all(request("HEAD", "/admin").as_bytes()).unwrap();
    let (text, end) = read_to_end(&mut tcp);
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "a body after HEAD: {text}");
    same("end", end, End::Closed);
}

fn a_later_request_is_denied(bed: &mut Bed) {
    for family in FAMILIES {
        let (first, second) = (url("http", API, "/v2/status"), url("http", API, "/admin"));
        let output = bed.curl(
            family,
            &[
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}/%{num_connects} ",
                &first,
                &second,
            ],
        );
        same("codes and connects", output.stdout.trim(), "200/1 403/0");
    }
}

/// A denied request behind an allowed one in the same segment. The server must not see a byte of
/// its last part, so it cannot act on it.
fn a_pipelined_denied_request_is_not_delivered(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 8080);
    for family in FAMILIES {
        let mut tcp = open(bed, family, 8080);
        let both = request("GET", "/v2/a") + &request("GET", "/admin");
        tcp.write_all(both.as_bytes()).unwrap();
        let (text, end) = read_to_end(&mut tcp);
        assert!(end != End::Silent, "the client is told: {text}");
        assert!(text.matches("HTTP/1.1 200").count() <= 1, "{text}");
    }
    let mut alone = open(bed, Family::V4, 8080);
    same("alone", get(&mut alone, "/v2/alone").unwrap(), 200);
    let all = recorder.all();
    assert!(
        all.contains("/v2/alone") && !all.contains("/admin"),
        "{all}"
    );
}

fn nothing_follows_a_denied_request(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 8080);
    for pieces in [1, 7, 1000] {
        let mut tcp = open(bed, Family::V4, 8080);
        let both = request("GET", "/admin") + &request("GET", "/v2/b");
        for piece in both.as_bytes().chunks(both.len().div_ceil(pieces)) {
            // Once the denial has come, the rest cannot be sent.
            if tcp.write_all(piece).is_err() {
                break;
            }
        }
        let (text, end) = read_to_end(&mut tcp);
        assert!(end != End::Silent, "the client is told: {text}");
        assert!(!text.contains("HTTP/1.1 200"), "{text}");
    }
    let all = recorder.all();
    // Parts of an incomplete head may be delivered; never its end, nor anything behind it.
    assert!(!all.contains("\r\n\r\n") && !all.contains("/v2/b"), "{all}");
}

fn tls_server_name(bed: &mut Bed) {
    const DENIED: i32 = 35;
    for family in FAMILIES {
        for version in [&["--tlsv1.3"][..], &["--tlsv1.2", "--tls-max", "1.2"]] {
            let mut allowed = version.to_vec();
            let good = url("https", "www.example.com", "/v1/status");
            allowed.push(&good);
            same(
                "allowed name",
                bed.seen(family, &allowed),
                (0, "200".into()),
            );
            let mut denied = version.to_vec();
            let bad = url("https", "ext.example.org", "/v2/status");
            denied.push(&bad);
            let output = bed.curl(family, &denied);
            same("denied name", output.status.code(), Some(DENIED));
            assert!(output.stderr.contains("alert"), "{}", output.stderr);
        }
        // curl sends no server name for an address.
        let address = match family {
            Family::V4 => family.outside().to_string(),
            Family::V6 => format!("[{}]", family.outside()),
        };
        let (code, _) = bed.seen(family, &[&url("https", &address, "/v2/status")]);
        same("no name", code, DENIED);
    }
}

fn another_protocol_is_reset(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 8080);
    for hello in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\u{1}\u{2}binary",
        "EHLO me\r\nMAIL FROM:<a@b.example>\r\n",
    ] {
        let mut tcp = open(bed, Family::V4, 8080);
        tcp.write_all(hello.as_bytes()).unwrap();
        let (text, end) = read_to_end(&mut tcp);
        assert!(end != End::Silent, "{hello:?}: {text}");
        assert!(!text.contains("200"), "{hello:?}: {text}");
    }
    assert!(!recorder.all().contains("OpenSSH"), "{}", recorder.all());
}

fn a_rule_without_l7_lets_anything_pass(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 9000);
    for family in FAMILIES {
        let mut tcp = open(bed, family, 9000);
        tcp.write_all(b"SSH-2.0-x\r\n").unwrap();
        same("an answer", get(&mut tcp, "/anything").unwrap(), 200);
    }
    assert!(recorder.all().contains("SSH-2.0-x"));
}

fn what_no_rule_allows_is_refused_at_once(bed: &mut Bed) {
    let _listens = Recorder::start(bed, 9005);
    for family in FAMILIES {
        let begin = Instant::now();
        let found = bed.seen(
            family,
            &[&url("http", &format!("{API}:9005"), "/v2/status")],
        );
        same("curl", found, (7, "000".into()));
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}

fn drop_stays_silent(bed: &mut Bed) {
    let (tcp, udp_server) = (Recorder::start(bed, 9010), Echo::start(bed, 7010));
    for family in FAMILIES {
        let connected = within(bed, Place::Pod, || {
            TcpStream::connect_timeout(&outside(family, 9010), Duration::from_millis(1500))
        });
        same("TCP", connected.unwrap_err().kind(), ErrorKind::TimedOut);
        let socket = udp(bed, family, 7010, Duration::from_millis(300));
        socket.send(b"hello").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        same("UDP", error.kind(), ErrorKind::WouldBlock);
    }
    same(
        "arrived",
        (tcp.received().len(), udp_server.received()),
        (0, 0),
    );
}

fn udp_echo_and_refusal(bed: &mut Bed) {
    let (allowed, denied) = (Echo::start(bed, 7000), Echo::start(bed, 7005));
    for family in FAMILIES {
        let socket = udp(bed, family, 7000, Duration::from_secs(5));
        for round in 0..3u8 {
            socket.send(&[round; 100]).unwrap();
            let mut answer = [0; 200];
            let n = socket.recv(&mut answer).unwrap();
            same("echo", &answer[..n], &[round; 100][..]);
        }
        let begin = Instant::now();
        let socket = udp(bed, family, 7005, Duration::from_secs(5));
        socket.send(b"hello").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err().raw_os_error();
        let told =
            [Errno::HOSTUNREACH, Errno::ACCESS, Errno::CONNREFUSED].map(|e| e.raw_os_error());
        assert!(
            told.contains(&error.unwrap()),
            "{}: {error:?}",
            family.word()
        );
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
    same("arrived", (allowed.received(), denied.received()), (6, 0));
}

fn icmp_echo(bed: &mut Bed) {
    bed.sh(Place::Pod, "sysctl -qw net.ipv4.ping_group_range='0 0'");
    same("IPv4 echo", ping(bed, Family::V4, 56), Ok(()));
    // The rule names ICMP's type 8; ICMPv6's echo request is another type.
    let refused = ping(bed, Family::V6, 56);
    assert!(refused.is_err(), "{refused:?}");
    until("the denial is logged", || {
        let events = bed.tollgate(&["observe", "--protocol", "icmpv6", "-o", "json"]);
        events.stdout.contains("DENIED").then_some(())
    });
}
