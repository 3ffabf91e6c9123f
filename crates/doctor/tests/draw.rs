//! A recorded machine is drawn as when somebody looked at it; see `the_recording_is_of_this_lab` in
//! `machine.rs`. Needs nothing of the machine that it runs on.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};

use tollgate_doctor::case::{Case, Path};
use tollgate_doctor::draw::{self, draw};
use tollgate_doctor::finding::{Finding, Number, Severity};
use tollgate_doctor::model::{LinkRef, Snapshot};
use tollgate_doctor::path::{self, Endpoint, Target};

fn file(name: &str) -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recorded")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).expect("the recording is there")
}

fn recorded() -> Snapshot {
    serde_json::from_str(&text("two-nodes.json")).expect("it is a snapshot")
}

fn way(snapshot: &Snapshot) -> Path {
    let to: IpAddr = "10.66.0.9".parse().expect("an address");
    let from = Endpoint::Netns("tg-dr-pod".to_owned());
    path::resolve(snapshot, &from, &Target::from(to)).expect("the endpoint is there")
}

fn finding(number: u16, at: LinkRef) -> Finding {
    Finding {
        number: Number(number),
        severity: Severity::Error,
        sentence: String::new(),
        at: Some(at),
        evidence: Vec::new(),
        fix: String::new(),
        cost: String::new(),
        actions: Vec::new(),
    }
}

/// The recording with some counters, and the same a little earlier.
fn case() -> Case {
    let mut now = recorded();
    let mut earlier = recorded();
    for (snapshot, count) in [(&mut now, 12), (&mut earlier, 9)] {
        for netns in &mut snapshot.namespaces {
            if netns.name == "tg-dr-srv" {
                netns.counters.insert("Udp:InCsumErrors".to_owned(), count);
            }
            for link in netns.links.iter_mut().filter(|link| link.name == "p0") {
                link.counters.insert("rx_dropped".to_owned(), count);
            }
        }
    }
    Case {
        now,
        earlier: Some(earlier),
        ..Case::default()
    }
}

fn golden(name: &str, drawn: &str) {
    if std::env::var_os("TOLLGATE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(file(name), drawn).expect("it can be written");
    }
    assert_eq!(drawn, text(name), "{name}");
}

#[test]
fn a_recording_comes_back_as_it_was() {
    let snapshot = recorded();
    let again = serde_json::to_string(&snapshot).expect("it can be written down") + "\n";
    assert_eq!(again, text("two-nodes.json"));
    assert_eq!(snapshot.namespaces.len(), 4);
}

#[test]
fn the_recorded_path_is_drawn_as_before() {
    let case = case();
    let path = way(&case.now);
    let findings: Vec<Finding> = path
        .hops
        .iter()
        .take(2)
        .zip([1, 14])
        .map(|(hop, number)| finding(number, hop.at))
        .collect();
    let options = |ascii| draw::Options {
        ascii,
        findings: &findings,
        ..draw::Options::default()
    };
    let boxes = draw(&case, &path, options(false));
    let ascii = draw(&case, &path, options(true));
    golden("two-nodes.txt", &boxes);
    golden("two-nodes.ascii.txt", &ascii);
    assert!(ascii.is_ascii());
    assert!(boxes.contains("TG0001") && boxes.contains("TG0014"));
    assert!(boxes.contains("rx_dropped 12 (+3)"));
}

#[test]
fn no_line_is_wider_than_the_terminal_and_nothing_is_obeyed_by_it() {
    let mut case = case();
    for netns in &mut case.now.namespaces {
        netns.name.push_str("\u{1b}[2J");
    }
    let mut path = way(&recorded());
    path.ends = "a reason that is longer than the terminal is wide ".repeat(4);
    for width in [0, 40, 61, 100] {
        let drawn = draw(
            &case,
            &path,
            draw::Options {
                width,
                ..draw::Options::default()
            },
        );
        let widest = drawn.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(width.max(40)), "{widest:?} for {width}");
        assert!(!drawn.contains('\u{1b}'));
    }
}
