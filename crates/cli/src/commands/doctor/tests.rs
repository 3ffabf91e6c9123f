//! The command with a judge of one rule, over a real namespace that is really repaired.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use tollgate_doctor::action::Action;
use tollgate_doctor::case::{
    Case, Direction, Hop, Path as Way, ProbeKind, ProbeOutcome, ProbeResult, Transport, Via,
};
use tollgate_doctor::finding::{Evidence, Finding, Number, Severity};
use tollgate_doctor::model::{Feature, Link, LinkRef, Netns, NetnsId, Snapshot};

use super::parts::{Declarations, Judgement, Sources};
use super::{Args, Doctor, run_to};
use crate::exit::{Code, Failure};
use crate::output::Style;

const FEATURE: &str = "tx-checksum-ip-generic";
const AT: LinkRef = LinkRef {
    netns: NetnsId(1),
    ifindex: 1,
};

/// Reads one feature with `ethtool` and finds it wrong when on.
struct OneRule {
    netns: String,
    rounds: Cell<u32>,
    blind: bool,
}

impl OneRule {
    fn new(tag: &str) -> Self {
        let netns = format!("tg-rep-cli-{tag}-{}", std::process::id());
        sh(&format!("ip netns add {netns}"));
        let rule = Self {
            netns,
            rounds: Cell::new(0),
            blind: false,
        };
        sh(&format!(
            "ip -n {} link add v0 type veth peer name v1",
            rule.netns
        ));
        rule
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    fn features(&self) -> String {
        sh(&format!("ip netns exec {} ethtool -k v0", self.netns))
    }
}

impl Drop for OneRule {
    fn drop(&mut self) {
        let delete = ["netns", "del", &self.netns];
        let _ = Command::new("ip").args(delete).status();
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

impl Doctor for OneRule {
    fn snapshot(&self) -> Result<Snapshot, String> {
        if self.blind {
            return Err("no".into());
        }
        let active = self.features().contains(&format!("{FEATURE}: on"));
        let link = Link {
            ifindex: 1,
            name: "v0".into(),
            mtu: 1500,
            features: vec![Feature {
                name: FEATURE.into(),
                active,
                wanted: active,
                fixed: false,
            }],
            ..Link::default()
        };
        let netns = serde_json::json!({
            "id": 1, "name": self.netns, "path": self.path(), "links": [link], "routes": [],
            "sysctls": {}, "counters": {}, "packet_sockets": [], "filter": {},
        });
        let netns: Netns = serde_json::from_value(netns).map_err(|error| error.to_string())?;
        Ok(Snapshot {
            namespaces: vec![netns],
            ..Snapshot::default()
        })
    }

    fn path(&self, _: &Snapshot, endpoint: &str, to: Option<&str>) -> Result<Option<Way>, String> {
        if endpoint != self.netns {
            return Err(format!("there is no endpoint {endpoint}"));
        }
        let hop = Hop {
            at: AT,
            via: Via::Start,
            overhead: 0,
        };
        Ok(to.map(|to| Way {
            from: endpoint.into(),
            to: to.into(),
            hops: vec![hop],
            ends: String::new(),
        }))
    }

    fn draw(&self, _: &Case, path: &Way, _: &[Finding], ascii: bool) -> String {
        format!("drawing of {} ascii={ascii}", path.to)
    }

    fn width(&self) -> usize {
        100
    }

    fn probe(&self, _: &Snapshot, _: &Way, _: &str) -> Result<Vec<ProbeResult>, String> {
        Ok(vec![ProbeResult {
            kind: ProbeKind::Small,
            transport: Transport::Tcp,
            ipv6: false,
            direction: Direction::Outbound,
            outcome: ProbeOutcome::Passed,
            sent: 1,
            received: 1,
            millis: 1,
            receiver: Default::default(),
            sender: Default::default(),
        }])
    }

    fn declared(&self, _: Sources<'_>) -> Result<Declarations, String> {
        Ok(Declarations::default())
    }

    fn judge(&self, case: &Case) -> Judgement {
        let mut judgement = Judgement::default();
        if case.now.link(AT).is_some_and(|link| link.has(FEATURE)) {
            judgement.findings.push(Finding {
                number: Number(1001),
                severity: Severity::Error,
                sentence: "v0 leaves checksums out".into(),
                at: Some(AT),
                evidence: vec![Evidence::new("ethtool -k v0", "on")],
                fix: "switch it off".into(),
                cost: "speed".into(),
                actions: vec![Action::Feature {
                    netns: case.now.netns(AT.netns).map(|netns| netns.path.clone()),
                    ifname: "v0".into(),
                    feature: FEATURE.into(),
                    on: false,
                }],
            });
        }
        judgement
    }

    fn catalogue(&self) -> Vec<(Number, String)> {
        vec![(Number(1001), "checksums left out".into())]
    }

    fn explain(&self, number: Number) -> Option<String> {
        (number == Number(1001)).then(|| "because".into())
    }

    fn pause(&self, _: u32) -> bool {
        let round = self.rounds.get();
        self.rounds.set(round + 1);
        let state = if round == 0 { "off" } else { "on" };
        sh(&format!(
            "ip netns exec {} ethtool -K v0 {FEATURE} {state}",
            self.netns
        ));
        round < 2
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn call(doctor: &OneRule, line: &[&str]) -> (Result<Code, Failure>, String) {
    let args = Line::try_parse_from(["doctor"].iter().chain(line))
        .unwrap()
        .args;
    let mut out = Vec::new();
    let code = run_to(&mut out, &args, Style::plain(), doctor);
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn looking_changes_nothing_and_fixing_says_what_is_left() {
    let doctor = OneRule::new("fix");
    let state = tempfile::tempdir().unwrap();
    let state = ["--state-dir", state.path().to_str().unwrap()];
    let before = doctor.features();
    let name = doctor.netns.clone();
    let command = format!("ip netns exec {name} ethtool -K v0 {FEATURE} off");

    let (code, text) = call(&doctor, &[&name, "--to", "203.0.113.7", "--ascii"]);
    assert_eq!(code.unwrap(), Code::Finding);
    assert!(
        text.starts_with("drawing of 203.0.113.7 ascii=true\n\nTG1001  error  "),
        "{text}"
    );
    assert!(text.ends_with("1 error, 0 warnings\n"));

    let (code, text) = call(&doctor, &["--fix", state[0], state[1]]);
    assert_eq!(code.unwrap(), Code::Finding);
    assert!(
        text.ends_with(&format!("\n--fix --yes would run:\n    {command}\n")),
        "{text}"
    );
    assert_eq!(doctor.features(), before);

    let line = [
        &name,
        "--to",
        "203.0.113.7",
        "--probe",
        "--fix",
        "--yes",
        "-o",
        "json",
        state[0],
        state[1],
    ];
    let (code, text) = call(&doctor, &line);
    assert_eq!(code.unwrap(), Code::Ok);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["healthy"], true);
    assert_eq!(value["applied"][0]["command"], command);
    assert_eq!(value["applied"][0]["word"], "done");
    assert_eq!(value["probes"][0]["outcome"]["result"], "passed");
    assert_ne!(doctor.features(), before);

    let (code, text) = call(&doctor, &["--undo", state[0], state[1]]);
    assert_eq!(code.unwrap(), Code::Ok);
    assert_eq!(text, format!("taken back  {command}\n"));
    assert_eq!(doctor.features(), before);
    let (code, text) = call(&doctor, &["--undo", state[0], state[1]]);
    assert_eq!(
        (code.unwrap(), text.as_str()),
        (Code::Ok, "nothing to take back\n")
    );
}

#[test]
fn a_recording_is_judged_like_the_machine() {
    let doctor = OneRule::new("rec");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("machine.json");
    let file = file.to_str().unwrap();
    let page = dir.path().join("page.html");
    let (_, live) = call(&doctor, &["-o", "json", "--record", file]);
    let (code, replayed) = call(
        &doctor,
        &[
            "-o",
            "json",
            "--from",
            file,
            "--html",
            page.to_str().unwrap(),
        ],
    );
    assert_eq!(code.unwrap(), Code::Finding);
    assert_eq!(live, replayed);
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("TG1001 error")
    );
    std::fs::write(file, "[]").unwrap();
    assert_eq!(
        call(&doctor, &["--from", file]).0.unwrap_err().code(),
        Code::Usage
    );
}

#[test]
fn what_comes_and_goes_is_shown() {
    let doctor = OneRule::new("watch");
    let (code, text) = call(&doctor, &["--watch"]);
    assert_eq!(code.unwrap(), Code::Finding);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "+ TG1001  error  v0 leaves checksums out",
            "- TG1001  v0 leaves checksums out",
            "+ TG1001  error  v0 leaves checksums out",
        ]
    );
}

#[test]
fn repairs_are_kept_by_the_agent() {
    let doctor = OneRule::new("keep");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.yaml");
    std::fs::write(&config, "tap: a\n").unwrap();
    let config = config.to_str().unwrap();
    let state = dir.path().to_str().unwrap();
    let (_, text) = call(
        &doctor,
        &[
            "--persist",
            "agent",
            "--config",
            config,
            "--state-dir",
            state,
        ],
    );
    assert!(
        text.contains("to be written: ") && text.contains("    place: endpoints\n"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(config).unwrap(), "tap: a\n");
    let (_, text) = call(
        &doctor,
        &[
            "--persist",
            "agent",
            "--config",
            config,
            "--state-dir",
            state,
            "--yes",
        ],
    );
    assert!(text.contains("\nwritten: "), "{text}");
    let written = std::fs::read_to_string(config).unwrap();
    assert!(written.starts_with("tap: a\noffloads:\n") && written.contains(FEATURE));
    let (_, text) = call(&doctor, &["--persist", "systemd", "--state-dir", state]);
    assert!(
        text.contains("not kept") && text.contains("--persist agent"),
        "{text}"
    );
}

#[test]
fn exit_codes_and_mistakes() {
    let mut doctor = OneRule::new("code");
    assert_eq!(
        call(&doctor, &["nobody"]).0.unwrap_err().code(),
        Code::Usage
    );
    let (code, text) = call(&doctor, &["--list"]);
    assert_eq!(code.unwrap(), Code::Ok);
    assert_eq!(text, "CODE    FINDING\nTG1001  checksums left out\n");
    assert_eq!(call(&doctor, &["--explain", "tg1001"]).1, "because\n");
    assert_eq!(
        call(&doctor, &["--explain", "TG9"]).0.unwrap_err().code(),
        Code::Usage
    );
    doctor.blind = true;
    assert_eq!(call(&doctor, &[]).0.unwrap_err().code(), Code::Other(3));
    for bad in [
        &["--probe"][..],
        &["--to", "x"],
        &["--from", "x", "--fix"],
        &["--watch", "--fix"],
        &["--undo", "--fix"],
    ] {
        assert!(
            Line::try_parse_from(["doctor"].iter().chain(bad)).is_err(),
            "{bad:?}"
        );
    }
}
