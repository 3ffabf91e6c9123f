//! What passes, what does not, and what is written about it.

use serde_json::Value;
use tollgate_lab::blind::VLAN;
use tollgate_lab::lab::{Outside, Place};
use tollgate_lab::names::Family;
use tollgate_lab::run::Cmd;
use tollgate_lab::stats;

use crate::bed::{Daemon, eventually};

const API: &str = r#"http http.uri; content:"/v2/"; startswith; http.method; content:"GET"; http.host; content:"api.example.com"; startswith; endswith;"#;
const UPLOAD: &str =
    r#"http http.uri; content:"/upload/"; startswith; http.method; content:"PUT";"#;
const SNI: &str = r#"tls tls.sni; content:".example.com"; endswith;"#;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn target(family: Family) -> String {
    match family.outside() {
        std::net::IpAddr::V6(v6) => format!("::[{v6}]:"),
        std::net::IpAddr::V4(v4) => format!("::{v4}:"),
    }
}

impl Daemon {
    /// The status of a request.
    fn status(&self, family: Family, args: &[&str]) -> Result<String, i32> {
        let to = target(family);
        let more = ["-o", "/dev/null", "-w", "%{http_code}", "--connect-to", &to];
        self.curl(&[&more[..], args].concat())
    }

    /// Packets that either end dropped for their checksum.
    fn checksum_errors(&self) -> u64 {
        let at = |place| {
            let cmd = Cmd::line("cat /proc/net/snmp /proc/net/snmp6");
            let output = self.lab().at(place, cmd).run().unwrap();
            stats::checksum_errors(&output.stdout).unwrap()
        };
        at(Place::Pod) + at(Place::Out)
    }
}

#[test]
fn requests_and_hellos_are_judged_one_by_one() {
    let daemon = Daemon::start("di-rules", "");
    // Nobody's VLAN passes.
    let any = "http://evil.example.net/admin";
    assert_eq!(daemon.status(Family::V4, &[any]).unwrap(), "200");
    daemon.register(VLAN, &[API, UPLOAD, SNI]);
    for family in FAMILIES {
        let get = |args: &[&str]| daemon.status(family, args);
        assert_eq!(get(&["http://api.example.com/v2/status"]).unwrap(), "200");
        assert_eq!(get(&["http://API.example.COM/v2/items"]).unwrap(), "200");
        assert_eq!(get(&["http://api.example.com/v1/status"]).unwrap(), "403");
        assert_eq!(get(&["http://evil.example.net/v2/status"]).unwrap(), "403");
        let post = ["-d", "x", "http://api.example.com/v2/status"];
        assert_eq!(get(&post).unwrap(), "403");
        // The second request of a connection whose first was allowed.
        let two = [
            "http://api.example.com/v2/status",
            "-o",
            "/dev/null",
            "--next",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            " %{http_code} %{num_connects}",
            "--connect-to",
            &target(family),
            "http://api.example.com/v1/status",
        ];
        assert_eq!(get(&two).unwrap(), "200 403 0");
        // A head of several segments.
        let cookie = format!("Cookie: a={}", "x".repeat(3500));
        let long = ["-H", &cookie, "http://api.example.com/v2/status"];
        assert_eq!(get(&long).unwrap(), "200");
        // TLS: by name, in any case; the alert that refuses is 35 to curl.
        assert_eq!(get(&["https://www.example.com/v2/status"]).unwrap(), "200");
        assert_eq!(get(&["https://evil.example.net/v2/status"]), Err(35));
        assert_eq!(get(&["https://ext.example.org/v2/status"]), Err(35));
    }
    assert_eq!(daemon.checksum_errors(), 0);
    let counters = daemon.counters();
    assert_eq!(counters["capture"]["l7-p1"]["send_errors"], 0, "{counters}");
}

#[test]
fn what_is_no_http_is_reset_at_both_ends() {
    let daemon = Daemon::start("di-reset", "");
    daemon.register(VLAN, &[API]);
    let lab = daemon.lab();
    for family in FAMILIES {
        let address = family.outside();
        // Bytes that no protocol begins with: a client that only listens afterwards sees the reset.
        let script = format!(
            "import socket\ns = socket.create_connection(('{address}', 80), 5)\n\
             s.sendall(b'\\x00\\x1cDNS?')\ns.settimeout(5)\n\
             try:\n print('read', s.recv(1))\nexcept ConnectionResetError:\n print('reset')\n"
        );
        let python = Cmd::new("python3").args(["-c", &script]);
        let output = lab.at(Place::Pod, python).run().unwrap();
        assert_eq!(output.stdout.trim(), "reset", "{family:?}");
        let established = || {
            let ss = Cmd::line("ss -Htn state established sport = :80");
            lab.at(Place::Out, ss).run().unwrap().stdout
        };
        eventually("the server is reset too", || established().is_empty());
    }
    eventually("both are reported", || {
        let events = daemon.events();
        let alerts = events.iter().filter(|event| event["event_type"] == "alert");
        alerts.count() == 2
    });
}

#[test]
fn large_transfers_keep_every_byte_and_every_offload() {
    transfer_both_ways(&Daemon::towards(Outside::Veth, "di-bulk", ""));
}

#[test]
fn so_do_those_that_the_uplink_merges() {
    transfer_both_ways(&Daemon::towards(Outside::Wire, "di-wire", ""));
}

fn transfer_both_ways(daemon: &Daemon) {
    daemon.register(VLAN, &[API, UPLOAD, SNI]);
    let lab = daemon.lab();
    let file = lab.names.dir().join("received.bin");
    let path = file.display().to_string();
    let hash = || {
        let sum = Cmd::new("sha256sum").arg(&file);
        let output = lab.at(Place::Pod, sum).run().unwrap().stdout;
        output.split(' ').next().unwrap_or_default().to_owned()
    };
    for family in FAMILIES {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://api.example.com/v2/data/big.bin");
            daemon
                .curl(&["-o", &path, "--connect-to", &target(family), &url])
                .unwrap();
            assert_eq!(hash(), lab.info.big_sha256, "{family:?} {scheme}");
            // The same back: what the server then has is what it gave.
            let url = format!("{scheme}://api.example.com/upload/back.bin");
            let args = ["-f", "-T", &path, "--connect-to", &target(family), &url];
            daemon.curl(&args).unwrap();
            std::fs::copy(lab.names.www().join("upload/back.bin"), &file).unwrap();
            assert_eq!(hash(), lab.info.big_sha256, "{family:?} {scheme} back");
        }
    }
    assert_eq!(daemon.checksum_errors(), 0);
    let counters = daemon.counters();
    let (from, to) = (&counters["capture"]["l7-p0"], &counters["capture"]["l7-p1"]);
    assert_eq!(to["send_errors"], 0, "{counters}");
    assert_eq!(from["truncated"], 0, "{counters}");
    assert!(from["super_packets"].as_u64().unwrap() > 100, "{counters}");
}

#[test]
fn events_are_those_of_suricata() {
    let daemon = Daemon::start("di-eve", "");
    daemon.register(VLAN, &[API, SNI]);
    for family in FAMILIES {
        // The agent's own test does this in this order and looks for it in this order.
        let url = "http://api.example.com/v1/status";
        assert_eq!(daemon.status(family, &[url]).unwrap(), "403");
        let url = "http://api.example.com/v2/status";
        let agent = ["-A", "tester/1", url];
        assert_eq!(daemon.status(family, &agent).unwrap(), "200");
    }
    let tls = "https://www.example.com/v2/status";
    assert_eq!(daemon.status(Family::V4, &[tls]).unwrap(), "200");
    eventually("five events", || daemon.events().len() >= 5);
    let events = daemon.events();
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|e| e["event_type"].as_str())
        .collect();
    assert_eq!(kinds, ["alert", "http", "alert", "http", "tls"]);
    for (pair, family) in events.chunks(2).zip(FAMILIES) {
        let address = family.outside().to_string();
        let [alert, http] = pair else {
            panic!("{pair:?}")
        };
        for event in [alert, http] {
            assert_eq!(event["dest_ip"], address.as_str());
            assert_eq!(event["dest_port"], 80);
            assert_eq!(event["proto"], "TCP");
            assert_eq!(event["vlan"], serde_json::json!([VLAN]));
            assert_eq!(event["tenant_id"], VLAN);
            assert_eq!(event["in_iface"], "l7-p0");
            assert_eq!(event["pkt_src"], "wire/pcap");
            assert!(event["flow_id"].as_i64().is_some());
            assert!(is_stamp(&event["timestamp"]), "{event}");
        }
        is_alert(alert);
        is_http(http);
    }
    assert_eq!(events[4]["tls"]["sni"], "www.example.com");
    assert_eq!(events[4]["tls"]["version"], "TLS 1.3");
}

/// `2024-08-26T22:37:30.895673+0000`
fn is_stamp(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    shape.replace('-', "+") == "9999+99+99T99:99:99.999999+9999"
}

fn is_alert(event: &Value) {
    let alert = &event["alert"];
    assert_eq!(alert["action"], "blocked");
    assert_eq!(
        alert["signature"],
        format!("Reject by AntreaNetworkPolicy:ns/p{VLAN}")
    );
    for (field, number) in [("gid", 1), ("signature_id", 1), ("rev", 0), ("severity", 3)] {
        assert_eq!(alert[field], number, "{field}");
    }
    assert_eq!(alert["category"], "");
    assert_eq!(alert["tenant_id"], VLAN);
    assert_eq!(event["app_proto"], "http");
    assert_eq!(event["direction"], "to_server");
    assert_eq!(event["packet_info"]["linktype"], 1);
    assert!(event["flow"]["pkts_toserver"].as_u64().unwrap() >= 3);
    assert!(event["flow"]["pkts_toclient"].as_u64().unwrap() >= 1);
    assert!(is_stamp(&event["flow"]["start"]));
    // An Ethernet frame with the VLAN's tag and the request in it.
    let packet = decoded(event["packet"].as_str().unwrap());
    assert_eq!(packet[12..14], [0x81, 0]);
    assert_eq!(packet[14..16], VLAN.to_be_bytes());
    let text = String::from_utf8_lossy(&packet);
    assert!(text.contains("GET /v1/status HTTP/1.1"), "{text}");
    assert!(event.get("http").is_none());
}

fn is_http(event: &Value) {
    let http = &event["http"];
    let expected = [
        ("hostname", "api.example.com"),
        ("url", "/v2/status"),
        ("http_method", "GET"),
        ("protocol", "HTTP/1.1"),
        ("http_user_agent", "tester/1"),
    ];
    for (field, value) in expected {
        assert_eq!(http[field], value, "{field}");
    }
    assert_eq!(http["http_port"], 80);
    assert_eq!(http["status"], 200);
    assert!(http["length"].as_u64().unwrap() > 0);
    for absent in ["app_proto", "packet", "alert"] {
        assert!(event.get(absent).is_none(), "{absent}");
    }
}

/// Base 64, by coreutils.
fn decoded(text: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new("base64")
        .arg("-d")
        .arg(&file)
        .output();
    output.unwrap().stdout
}
