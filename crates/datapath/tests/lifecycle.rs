//! Loading, restarting, upgrading, cleaning up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use aya::programs::{SchedClassifier, TcAttachType};
use common::bench::{Bench, key, outbound};
use common::{POD_LINK, TAP, endpoint, eventually, inside, run};
use futures_util::StreamExt as _;
use tollgate_datapath::bpf::{self, Mechanism, Programs, Settings};
use tollgate_datapath::endpoints::{EndpointEntry, Endpoints};
use tollgate_datapath::links::{self, LinkEvent};
use tollgate_datapath::tap::{Offloads, Tap};
use tollgate_datapath::{Error, caps, features};
use tollgate_engine::cache::{CacheEntry, Steer};
use tollgate_wire::tag::{Direction, EndpointId};

const ACK: u8 = 0x10;

fn pass() -> CacheEntry {
    CacheEntry {
        outbound: Steer::Pass,
        inbound: Steer::Pass,
    }
}

/// Those that the running kernel has.
fn mechanisms() -> impl Iterator<Item = Mechanism> {
    Mechanism::ALL.into_iter().filter(|it| it.is_known_here())
}

fn settings(mechanism: Mechanism) -> Settings {
    Settings {
        mechanism: Some(mechanism),
        ..Settings::default()
    }
}

/// The programs at a place: identifiers of tcx programs, and how many classifiers of ours.
fn attached(netns: &str, ifname: &str, egress: bool) -> (Vec<u32>, usize) {
    let (kind, word) = match egress {
        true => (TcAttachType::Egress, "egress"),
        false => (TcAttachType::Ingress, "ingress"),
    };
    let (_, programs) = SchedClassifier::query_tcx(ifname, kind).unwrap();
    let arguments = ["-n", netns, "filter", "show", "dev", ifname, word];
    let shown = Command::new("tc").args(arguments).output().unwrap();
    let classifiers = String::from_utf8_lossy(&shown.stdout)
        .matches(" direct-action ")
        .count();
    (
        programs.iter().map(|program| program.id()).collect(),
        classifiers,
    )
}

/// How many queues the gate's TAP has open. Another test that starts a process at the moment holds
/// copies of closed ones until it executes.
fn tap_queues(netns: &str) -> String {
    let shown = Command::new("ip")
        .args(["-n", netns, "-d", "link", "show", TAP])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "multi_queue")
        .skip(1);
    assert_eq!(words.next(), Some("numqueues"), "{text}");
    words.next().unwrap().to_owned()
}

#[test]
fn a_restart_adopts_maps_and_replaces_programs_in_place() {
    for mechanism in mechanisms() {
        let name = format!("restart-{mechanism:?}").to_lowercase();
        let mut bench = Bench::with(&name, 2, Some(mechanism));
        let flow = key(6, ("10.0.0.2", 40_000), ("192.0.2.1", 443));
        bench.put(&flow, pass());
        let frame = outbound(flow).tcp(ACK, 1, 1, b"x");
        let other = outbound(key(6, ("10.0.0.2", 40_001), ("192.0.2.1", 443)));
        let undecided = other.tcp(ACK, 1, 1, b"x");
        assert_eq!(bench.send(Direction::Outbound, &frame).word(), "pass");
        let before = attached(&bench.netns, "vm0", false);
        let tap_ifindex = bench.gate.ifindex;

        // The old agent goes first; nothing is between it and the new one.
        drop(bench.programs.take());
        assert_eq!(bench.send(Direction::Outbound, &frame).word(), "pass");
        let programs = Programs::load_or_adopt(&bench.pins, &settings(mechanism)).unwrap();
        assert!(programs.adopted());
        bench.programs = Some(programs);
        assert_eq!(bench.send(Direction::Outbound, &frame).word(), "pass");
        assert_eq!(bench.progress(&flow).outbound.packets, 3);
        bench.gate = Tap::open(TAP, 2, Offloads::ALL).unwrap();
        assert_eq!(bench.gate.ifindex, tap_ifindex);
        eventually("only the new queues", || tap_queues(&bench.netns) == "2");
        let fate = bench.send(Direction::Outbound, &undecided);
        assert_eq!(fate.word(), "divert");
        assert_eq!(bench.give_back(&fate).word(), "pass");

        // What an agent does at its start changes nothing more.
        let programs = bench.programs.as_mut().unwrap();
        programs.attach_tap(TAP).unwrap();
        programs.attach("vm0").unwrap();
        for (ifname, egress) in [("vm0", false), ("vm0", true), (TAP, false)] {
            let (tcx, classifiers) = attached(&bench.netns, ifname, egress);
            let expected = if mechanism == Mechanism::Tcx {
                (1, 0)
            } else {
                (0, 1)
            };
            assert_eq!((tcx.len(), classifiers), expected, "{ifname} {egress}");
        }
        let after = attached(&bench.netns, "vm0", false);
        assert!(
            mechanism == Mechanism::Clsact || before != after,
            "the old program is still there"
        );
        let listed = Endpoints::open(&bench.pins).unwrap().list().unwrap();
        let expected = EndpointEntry {
            id: endpoint(),
            ifindex: bench.vm.ifindex,
            governed: true,
        };
        assert_eq!(listed, [expected]);
    }
}

#[test]
fn another_mechanism_takes_the_place_of_the_first() {
    let mut bench = Bench::with("switch", 1, mechanisms().next());
    let ways = [(Mechanism::Clsact, (0, 1)), (Mechanism::Tcx, (1, 0))];
    for (mechanism, expected) in ways.into_iter().filter(|(it, _)| it.is_known_here()) {
        let mut programs = Programs::load_or_adopt(&bench.pins, &settings(mechanism)).unwrap();
        programs.attach("vm0").unwrap();
        programs.attach_tap(TAP).unwrap();
        bench.programs = Some(programs);
        for (ifname, egress) in [("vm0", false), ("vm0", true), (TAP, false)] {
            let (tcx, classifiers) = attached(&bench.netns, ifname, egress);
            assert_eq!((tcx.len(), classifiers), expected, "{ifname} {egress}");
        }
    }
    bench.programs.as_mut().unwrap().detach("vm0").unwrap();
    assert_eq!(attached(&bench.netns, "vm0", false), (vec![], 0));
    let frame = outbound(key(6, ("10.0.0.2", 1), ("192.0.2.1", 2))).tcp(ACK, 1, 1, b"x");
    assert_eq!(bench.send(Direction::Outbound, &frame).word(), "pass");
}

#[test]
fn maps_of_another_layout_are_refused_or_recreated() {
    for mechanism in mechanisms() {
        another_layout(mechanism);
    }
}

fn another_layout(mechanism: Mechanism) {
    let name = format!("layout-{mechanism:?}").to_lowercase();
    let bench = Bench::with(&name, 1, Some(mechanism));
    let raw = MapData::from_pin(bench.pins.join("tg_config")).unwrap();
    let mut config: Array<_, u64> = Array::try_from(Map::from_map_data(raw).unwrap()).unwrap();
    // Version 99 in the low half, the TAP's index in the high half.
    config
        .set(0, 99 | u64::from(bench.gate.ifindex) << 32, 0)
        .unwrap();

    let refused = Programs::load_or_adopt(&bench.pins, &settings(mechanism))
        .err()
        .unwrap();
    assert_eq!(refused.reason(), "bpf-map-layout");
    let Error::Layout {
        found, expected, ..
    } = &refused
    else {
        panic!("{refused}")
    };
    assert_eq!((found.as_str(), *expected), ("99", 4));
    assert!(
        refused.to_string().contains("tollgate cleanup"),
        "{refused}"
    );

    let recreate = Settings {
        recreate: true,
        ..settings(mechanism)
    };
    let mut programs = Programs::load_or_adopt(&bench.pins, &recreate).unwrap();
    assert!(!programs.adopted());
    let frame = outbound(key(6, ("10.0.0.2", 1), ("192.0.2.1", 2))).tcp(ACK, 1, 1, b"x");
    assert_eq!(bench.send(Direction::Outbound, &frame).word(), "drop");
    let entry = EndpointEntry {
        id: endpoint(),
        ifindex: bench.vm.ifindex,
        governed: true,
    };
    Endpoints::open(&bench.pins).unwrap().set(entry).unwrap();
    let counted = bench.counted(Direction::Outbound, || {
        assert_eq!(bench.send(Direction::Outbound, &frame).word(), "drop");
    });
    assert_eq!(counted, ["drop-no-tap"]);
    programs.attach_tap(TAP).unwrap();
    assert_eq!(bench.send(Direction::Outbound, &frame).word(), "divert");
}

#[test]
fn cleanup_removes_everything_and_may_be_repeated() {
    for mechanism in mechanisms() {
        let name = format!("cleanup-{mechanism:?}").to_lowercase();
        let mut bench = Bench::with(&name, 1, Some(mechanism));
        drop(bench.programs.take());
        // The agent's end: no queue of the gate's TAP is open any more.
        bench.gate.queues.clear();
        eventually("no queue", || tap_queues(&bench.netns) == "0");
        let removed = bpf::cleanup(&bench.pins, TAP).unwrap();
        for what in [
            "tg_from_endpoint at vm0",
            "tg_to_endpoint at vm0",
            "TAP tg0",
            "map tg_flows",
        ] {
            assert!(
                removed.iter().any(|r| r.contains(what)),
                "{what}: {removed:?}"
            );
        }
        assert!(!fs::exists(&bench.pins).unwrap());
        eventually("the TAP's end", || {
            links::index(TAP).is_err_and(|e| e.is_gone())
        });
        assert_eq!(attached(&bench.netns, "vm0", false), (vec![], 0));
        assert_eq!(attached(&bench.netns, "vm0", true), (vec![], 0));
        let frame = outbound(key(6, ("10.0.0.2", 1), ("192.0.2.1", 2))).tcp(ACK, 1, 1, b"x");
        assert_eq!(bench.send(Direction::Outbound, &frame).word(), "pass");
        assert_eq!(
            bpf::cleanup(&bench.pins, TAP).unwrap(),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_vanished_interface_takes_its_entries_along() {
    let mut bench = Bench::new("vanish");
    run(&format!(
        "ip -n {} link add {POD_LINK} type veth peer name pod1",
        bench.netns
    ));
    let second = EndpointId::new(8).unwrap();
    let ifindex = links::index(POD_LINK).unwrap();
    let entry = EndpointEntry {
        id: second,
        ifindex,
        governed: true,
    };
    Endpoints::open(&bench.pins).unwrap().set(entry).unwrap();
    let programs = bench.programs.as_mut().unwrap();
    programs.attach(POD_LINK).unwrap();
    assert_eq!(programs.reap().unwrap(), []);
    let mut flow = key(6, ("10.0.0.3", 1), ("192.0.2.1", 2));
    flow.endpoint = second;
    bench.put(&flow, pass());
    bench.put(&key(6, ("10.0.0.2", 1), ("192.0.2.1", 2)), pass());
    run(&format!("ip -n {} link del {POD_LINK}", bench.netns));
    assert_eq!(bench.programs.as_mut().unwrap().reap().unwrap(), [second]);
    assert_eq!(bench.flows.iter().count(), 1);
    let listed = Endpoints::open(&bench.pins).unwrap().list().unwrap();
    assert!(listed.iter().all(|e| e.id == endpoint()) && listed.len() == 1);
    let pins = fs::read_dir(&bench.pins).unwrap();
    let stale = format!("link_{ifindex}_");
    assert!(
        pins.map(|p| p.unwrap().file_name())
            .all(|p| !p.to_string_lossy().starts_with(&stale))
    );
    assert!(
        bench
            .programs
            .as_mut()
            .unwrap()
            .attach(POD_LINK)
            .is_err_and(|e| e.is_gone())
    );
}

#[test]
fn a_full_flow_cache_says_so() {
    const ENTRIES: u32 = 64;
    let settings = Settings {
        flow_entries: ENTRIES,
        ..Settings::default()
    };
    let mut bench = Bench::loaded("full", 1, &settings);
    let mut flow = key(17, ("10.0.0.2", 0), ("192.0.2.1", 53));
    let mut put = 0;
    while bench.flows.put(&flow, &pass()).is_ok() {
        put += 1;
        flow.local_port += 1;
    }
    assert_eq!(put, ENTRIES);
    // Those that are there can be changed and removed.
    flow.local_port = 0;
    bench.put(&flow, CacheEntry::default());
    assert!(bench.flows.delete(&flow));
    bench.put(&flow, pass());
}

#[test]
fn links_are_watched_and_described() {
    let bench = Bench::new("watch");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut events = links::watch().unwrap();
        run(&format!(
            "ip -n {} link add {POD_LINK} mtu 1400 type veth peer name pod1",
            bench.netns
        ));
        let link = links::by_name(POD_LINK).unwrap();
        assert_eq!((link.mtu, link.up, link.ethernet), (1400, false, true));
        assert_eq!(links::name(link.ifindex).as_deref(), Some(POD_LINK));
        let wait = |wanted: fn(&LinkEvent) -> bool| wanted;
        let is_present = wait(|e| matches!(e, LinkEvent::Present { name, .. } if name == POD_LINK));
        let is_gone = wait(|e| matches!(e, LinkEvent::Gone { name, .. } if name == POD_LINK));
        for wanted in [is_present, is_gone] {
            let found = async { while !wanted(&events.next().await.unwrap()) {} };
            tokio::time::timeout(Duration::from_secs(10), found)
                .await
                .unwrap();
            let _ = Command::new("ip")
                .args(["-n", &bench.netns, "link", "del", POD_LINK])
                .output();
        }
    });
    assert!(links::by_name(POD_LINK).is_err_and(|e| e.is_gone()));
    assert!(matches!(
        links::index("no/name"),
        Err(Error::InterfaceName(_))
    ));
    assert!(matches!(
        links::index("sixteen-bytes-it"),
        Err(Error::InterfaceName(_))
    ));
    assert_eq!(links::by_name("lo").map(|l| l.ethernet).ok(), Some(false));
}

#[test]
fn features_are_read_and_switched() {
    const CHECKSUM: &str = "tx-checksum-ip-generic";
    let bench = Bench::new("features");
    run(&format!(
        "ip -n {} link add {POD_LINK} type veth peer name pod1",
        bench.netns
    ));
    let read = || {
        let all = features::read(POD_LINK).unwrap();
        all.into_iter().find(|f| f.name == CHECKSUM).unwrap()
    };
    assert!(read().active && read().changeable);
    features::set(POD_LINK, &[(CHECKSUM, false)]).unwrap();
    assert!(!read().active);
    features::set(POD_LINK, &[(CHECKSUM, true), ("no-such-feature", true)]).unwrap();
    assert!(read().active);
    assert!(features::read("nothere").is_err_and(|e| e.is_gone()));
}

#[test]
fn the_data_path_works_without_the_capabilities_that_go() {
    let mut bench = Bench::new("caps");
    run(&format!(
        "ip -n {} link add {POD_LINK} type veth peer name pod1",
        bench.netns
    ));
    let netns = bench.netns.clone();
    let mut programs = bench.programs.take().unwrap();
    let pins = bench.pins.clone();
    let worker = inside(&netns, move || {
        caps::drop_unneeded().unwrap();
        let id = EndpointId::new(8).unwrap();
        let ifindex = links::index(POD_LINK).unwrap();
        let mut endpoints = Endpoints::open(&pins).unwrap();
        endpoints
            .set(EndpointEntry {
                id,
                ifindex,
                governed: true,
            })
            .unwrap();
        programs.attach(POD_LINK).unwrap();
        let denied = rustix::process::chroot("/");
        assert_eq!(denied, Err(rustix::io::Errno::PERM));
        programs.reap().unwrap()
    });
    assert_eq!(worker.join().unwrap(), []);
    let flow = key(6, ("10.0.0.2", 1), ("192.0.2.1", 2));
    bench.put(&flow, pass());
}
