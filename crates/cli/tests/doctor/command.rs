//! The command as a person uses it.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tollgate_lab::lab::{self, Outside, UpOptions};
use tollgate_lab::run::{Cmd, Output};

use super::bed::{Bed, Between, Examined, TOLLGATE, write};

/// Longest wait for a line of `--watch`, which looks every second.
const SOON: Duration = Duration::from_secs(30);
/// Size of what a lab's server has to offer, of which nothing is fetched here.
const LITTLE: u64 = 1 << 16;

fn doctor(args: &[&str]) -> Output {
    let cmd = Cmd::new(TOLLGATE).arg("doctor").args(args);
    cmd.env("TOLLGATE_CONFIG", "/nonexistent").output().unwrap()
}

#[test]
fn a_healthy_lab_has_no_findings() {
    for outside in [Outside::Veth, Outside::Wire] {
        let options = UpOptions {
            name: format!("dr-{outside}"),
            outside,
            big_bytes: LITTLE,
            ..UpOptions::default()
        };
        let lab = lab::up(&options).unwrap();
        let pod = lab.names.pod.clone();
        // What the outside does with its own offloads is its own affair.
        for to in ["192.0.2.10", "http://192.0.2.10/", "2001:db8:2::10"] {
            let args = [&pod, "--to", to, "--probe", "-o", "json"];
            let found = Examined::of(&doctor(&args));
            assert_eq!(found.code, 0, "{outside} {to}: {:#}", found.json);
            assert!(found.codes().is_empty(), "{outside} {to}: {:#}", found.json);
            assert_eq!(found.failed_probes(), [""; 0], "{outside} {to}");
            assert_eq!(found.json["path"]["hops"].as_array().unwrap().len(), 4);
        }
        lab.down().unwrap();
    }
}

#[test]
fn exit_codes() {
    let bed = Bed::new("codes", Between::Routed);
    let pod = bed.netns("pod");
    let code = |args: &[&str]| bed.doctor(args).status.code();
    assert_eq!(code(&[&pod, "--to", "10.88.1.2"]), Some(0));
    // Nobody there, no address, no recording.
    assert_eq!(code(&["tg-dr-nobody", "--to", "10.88.1.2"]), Some(2));
    assert_eq!(code(&[&pod, "--to", "no such host"]), Some(2));
    assert_eq!(code(&["--from", "/dev/null"]), Some(2));
    // Packets get nowhere: whether that way is healthy cannot be told.
    let lost = bed.doctor(&[&pod, "--to", "203.0.113.9"]);
    assert_eq!(lost.status.code(), Some(3), "{lost:?}");
    assert!(
        lost.stdout.contains("has no route to 203.0.113.9"),
        "{lost:?}"
    );
    bed.sh("pod", "ethtool -K eth0 tx off");
    assert_eq!(code(&[&pod, "--to", "10.88.1.2"]), Some(1));
    // The other side's own offloads are not this one's fault.
    bed.sh("pod", "ethtool -K eth0 tx on");
    bed.sh("out", "ethtool -K eth0 tx off");
    assert_eq!(code(&[&pod, "--to", "10.88.1.2"]), Some(0));
    write(&bed, "agent.yaml", "offloads: [\n");
    let broken = bed.doctor(&[&pod]);
    assert_eq!(broken.status.code(), Some(2), "{broken:?}");
    assert!(broken.stderr.contains("agent.yaml"), "{broken:?}");
}

#[test]
fn who_is_not_root_is_told_so_once() {
    let cmd = Cmd::line("setpriv --reuid=65534 --clear-groups").arg(TOLLGATE);
    let output = cmd.arg("doctor").output().unwrap();
    let asked = output.stdout.matches("is this run as root?").count();
    assert!((1..=2).contains(&asked), "{output:?}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn no_line_is_longer_than_the_terminal_but_commands() {
    let bed = Bed::new("lines", Between::Routed);
    bed.sh("pod", "ethtool -K eth0 tx off");
    let text = bed.doctor(&[&bed.netns("pod"), "--to", "10.88.1.2"]).stdout;
    assert!(text.contains("TG1003  warning  TX checksum offload of eth0"));
    for line in text.lines().filter(|line| !line.contains("ip netns exec")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    // What is about an interface stands in its box.
    let title = text.lines().find(|line| line.contains("10.88.0.2/24"));
    assert!(title.unwrap().contains("TG1003 │"), "{text}");
    let ascii = bed
        .doctor(&[&bed.netns("pod"), "--to", "10.88.1.2", "--ascii"])
        .stdout;
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn every_finding_is_described() {
    let list = doctor(&["--list"]).stdout;
    let codes: Vec<&str> = list.lines().skip(1).map(|line| &line[..6]).collect();
    assert!(codes.len() > 30, "{list}");
    for code in codes {
        let page = doctor(&["--explain", code]).stdout;
        assert!(page.starts_with(&format!("# {code}: ")), "{page}");
    }
}

#[test]
fn the_switch_of_antrea_is_read_with_what_it_leaves_out() {
    let mut bed = Bed::new("antrea", Between::Routed);
    bed.on_node = true;
    let conf = write(
        &bed,
        "antrea-agent.conf",
        "disableTXChecksumOffload: true\n",
    );
    let conf = conf.to_str().unwrap();
    let found = bed.examine(&["--antrea-conf", conf]);
    assert_eq!(found.codes(), ["TG1305"], "{:#}", found.json);
    let left = found.json["not_covered"].as_array().unwrap();
    assert!(left.len() > 2, "{left:?}");
    assert!(left[0]["source"].as_str().unwrap().contains(conf));
    let text = bed
        .doctor(&[&bed.netns("pod"), "--antrea-conf", conf])
        .stdout;
    assert!(
        text.contains("not covered by") && text.contains("uplink"),
        "{text}"
    );
    // As declared, it is no needless workaround.
    for place in ["pod", "out"] {
        bed.sh(place, "ethtool -K eth0 tx off");
    }
    let found = bed.examine(&["--antrea-conf", conf]);
    assert_eq!(found.code, 0, "{:#}", found.json);
}

#[test]
fn probes_and_findings_go_together() {
    let mut bed = Bed::new("probe", Between::Copied);
    bed.copy();
    let found = bed.examine(&["--probe"]);
    // The cause, and not what probes lose by it.
    assert_eq!(found.codes(), ["TG1001", "TG1002"], "{:#}", found.json);
    assert!(!found.failed_probes().is_empty());
    let fixed = bed.examine(&["--probe", "--fix", "--yes"]);
    assert_eq!(fixed.code, 0, "{:#}", fixed.json);
    assert_eq!(fixed.failed_probes(), [""; 0]);
    assert_eq!(fixed.json["applied"].as_array().unwrap().len(), 2);
}

#[test]
fn probes_that_nothing_explains_are_not_healthy() {
    let bed = Bed::new("unknown", Between::Routed);
    bed.sh(
        "node",
        "nft add table ip no; nft add chain ip no f '{ type filter hook forward priority 0; }'; \
         nft add rule ip no f ip protocol udp drop",
    );
    let found = bed.examine(&["--probe"]);
    assert_eq!(found.code, 3, "{:#}", found.json);
    assert!(found.codes().is_empty(), "{:#}", found.json);
    let untold = found.json["untold"][0].as_str().unwrap();
    assert!(
        untold.starts_with("why ") && untold.contains("probes failed"),
        "{untold}"
    );
}

#[test]
fn a_page_is_written() {
    let bed = Bed::new("page", Between::Routed);
    bed.sh("pod", "ethtool -K eth0 tx off");
    let stages =
        r#"{"stages":[{"name":"blind","gbit_per_s":0.1},{"name":"tollgate","gbit_per_s":9.5}]}"#;
    let stages = write(&bed, "stages.json", stages);
    let page = bed.path("page.html");
    let args = [
        "--html",
        page.to_str().unwrap(),
        "--stages",
        stages.to_str().unwrap(),
    ];
    let found = bed.examine(&args);
    assert_eq!(found.code, 1);
    let page = fs::read_to_string(page).unwrap();
    for part in ["TG1003", "eth0", "9.500 Gbit/s", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn watch_tells_what_comes_goes_and_grows() {
    let bed = Bed::new("watch", Between::Routed);
    let mut watch = Watch::start(&bed, &[]);
    bed.sh("pod", "ethtool -K eth0 tx off");
    watch.wait_for(|line| line.starts_with("+ TG1003  warning  TX checksum offload of eth0"));
    // Datagrams whose sum is wrong on arrival.
    bed.sh(
        "node",
        "nft add table ip bad; nft add chain ip bad f '{ type filter hook forward priority 0; }'; \
         nft add rule ip bad f udp dport 7 udp checksum set 0x4242",
    );
    bed.sh(
        "pod",
        "for i in 1 2 3; do echo x > /dev/udp/10.88.1.2/7; done",
    );
    let out = bed.netns("out");
    watch.wait_for(|line| {
        line.trim_start()
            .starts_with(&format!("{out}  Udp:InCsumErrors +"))
    });
    bed.sh("pod", "ethtool -K eth0 tx on");
    watch.wait_for(|line| line.starts_with("- TG1003  "));
    assert!(watch.child.try_wait().unwrap().is_none(), "it goes on");
}

#[test]
fn watch_as_json_has_an_object_a_line() {
    let bed = Bed::new("watchj", Between::Routed);
    let watch = Watch::start(&bed, &["-o", "json"]);
    bed.sh("pod", "ethtool -K eth0 tx off");
    let line = watch.wait_for(|line| line.contains("TG1003"));
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "found");
    assert_eq!(event["at"]["interface"], "eth0");
}

/// A running `--watch`.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(bed: &Bed, more: &[&str]) -> Self {
        let mut child = Command::new(TOLLGATE)
            .args(["doctor", &bed.netns("pod"), "--to", bed.to()])
            .args(["--watch", "--every", "1", "--config", "/nonexistent"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out: Lines<BufReader<ChildStdout>> =
            BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn wait_for(&self, is: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON).expect("a line in time");
            if is(&line) {
                return line;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
