//! Heads that are large, slow, or in many pieces.

use std::io::Write;
use std::time::Duration;

use tollgate_lab::lab::Place;
use tollgate_lab::names::{Family, INNER_IF, NODE_OUT_V4};
use tollgate_lab::run::Cmd;

use crate::bed::{API, Bed, FAMILIES, same, until};
use crate::net::{End, open, read_response, read_to_end, request};
use crate::servers::Recorder;

/// Pause between the pieces of a slow head: longer than any timer that could put them together.
const PAUSE: Duration = Duration::from_millis(300);

#[test]
fn heads() {
    Bed::new("heads").run(&[
        ("20 KiB", twenty_kib),
        ("above the limit", above_the_limit_is_refused),
        ("byte by byte", byte_by_byte),
        ("slow", slow),
        ("large hello", a_large_hello_in_many_segments),
        ("slow hello", a_hello_in_pieces),
    ]);
}

fn twenty_kib(bed: &mut Bed) {
    let field = format!("X-Long: {}", "a".repeat(20 << 10));
    for family in FAMILIES {
        for (path, expected) in [("/v2/status", "200"), ("/v1/status", "403")] {
            let found = bed.seen(family, &["-H", &field, &format!("http://{API}{path}")]);
            same(path, found, (0, expected.to_owned()));
        }
    }
}

fn above_the_limit_is_refused(bed: &mut Bed) {
    let recorder = Recorder::start(bed, 8080);
    let mut tcp = open(bed, Family::V4, 8080);
    let line = format!("X-Long: {}\r\n", "a".repeat(8000));
    let head = "GET /v2/x HTTP/1.1\r\nHost: api.example.com\r\n".to_owned() + &line.repeat(10);
    // It may be refused while it is still being sent.
    let _ = tcp.write_all((head + "\r\n").as_bytes());
    let (text, end) = read_to_end(&mut tcp);
    assert!(end != End::Silent, "the client is told");
    assert!(!text.contains("200 OK"), "{text}");
    assert!(
        !recorder.all().contains("\r\n\r\n"),
        "the head's end was delivered"
    );
    // Events go through a thread of their own.
    until("the denial is reported", || {
        let events = bed.tollgate(&["observe", "--to", "8080", "-o", "json"]);
        events.stdout.contains("http-head-too-large").then_some(())
    });
}

fn byte_by_byte(bed: &mut Bed) {
    for family in FAMILIES {
        for (path, expected) in [("/v2/status", 200), ("/admin", 403)] {
            let mut tcp = open(bed, family, 80);
            for byte in request("GET", path).as_bytes() {
                tcp.write_all(&[*byte]).unwrap();
            }
            same(path, read_response(&mut tcp).unwrap(), expected);
        }
    }
}

fn slow(bed: &mut Bed) {
    for (path, expected) in [("/v2/status", 200), ("/admin", 403)] {
        let mut tcp = open(bed, Family::V4, 80);
        let head = request("GET", path);
        for piece in head.as_bytes().chunks(head.len().div_ceil(6)) {
            tcp.write_all(piece).unwrap();
            std::thread::sleep(PAUSE);
        }
        same(path, read_response(&mut tcp).unwrap(), expected);
    }
}

/// Segments of 536 bytes, each a frame of its own: a hello of over 3 kB comes in seven.
fn a_large_hello_in_many_segments(bed: &mut Bed) {
    let route = format!("ip route replace {NODE_OUT_V4}/32 dev {INNER_IF}");
    bed.sh(Place::Out, &format!("{route} advmss 536"));
    for offload in ["on", "off"] {
        bed.sh(
            Place::Pod,
            &format!("ethtool -K {INNER_IF} tso {offload} gso {offload}"),
        );
        let before = bed.counter("frames_in");
        assert!(
            hello(bed, API).contains("Verify return code: 0"),
            "{offload}"
        );
        let frames = bed.counter("frames_in") - before;
        assert!(
            offload == "on" || frames >= 7,
            "only {frames} frames came up"
        );
        let denied = hello(bed, "ext.example.org");
        assert!(denied.contains("alert access denied"), "{denied}");
    }
    bed.sh(Place::Pod, &format!("ethtool -K {INNER_IF} tso on gso on"));
    bed.sh(
        Place::Out,
        &format!("ip route del {NODE_OUT_V4}/32 dev {INNER_IF}"),
    );
}

/// What openssl says about a connection whose hello offers over 3 kB of protocols.
fn hello(bed: &Bed, name: &str) -> String {
    let filler: Vec<String> = (0..14)
        .map(|i| format!("x-{i:02}-{}", "x".repeat(240)))
        .collect();
    let ca = bed.lab.names.ca();
    let address = format!("{}:443", Family::V4.outside());
    let protocols = format!("http/1.1,{}", filler.join(","));
    assert!(protocols.len() > 3000);
    let cmd = Cmd::new("openssl").args(["s_client", "-connect", &address, "-servername", name]);
    let cmd = cmd.args(["-alpn", &protocols, "-CAfile"]).arg(ca);
    let output = bed.lab.at(Place::Pod, cmd).output().unwrap();
    output.stdout + &output.stderr
}

/// The lab's own client sends one hello in many writes.
fn a_hello_in_pieces(bed: &mut Bed) {
    for pieces in ["1", "2", "40"] {
        for (host, expected) in [(API, Some(200)), ("ext.example.org", None)] {
            let address = format!("{}:443", Family::V4.outside());
            let ca = bed.lab.names.ca().display().to_string();
            let cmd = Cmd::new(crate::bed::TOLLGATE).args([
                "lab",
                "traffic",
                "hello",
                "--addr",
                &address,
                "--host",
                host,
                "--path",
                "/v2/status",
                "--ca",
                &ca,
                "--size",
                "3200",
                "--pieces",
                pieces,
            ]);
            let output = bed.lab.at(Place::Pod, cmd).run().unwrap();
            let result: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
            assert!(result["hello_bytes"].as_u64().unwrap() > 3000, "{result}");
            same(
                &format!("{host} in {pieces}"),
                result["status"].as_u64(),
                expected,
            );
        }
    }
}
