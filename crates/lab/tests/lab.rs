//! A whole lab without policy: made, used, taken down, nothing left. Needs root.

#![allow(clippy::unwrap_used, clippy::panic)] // A failed step is a failed test.

use std::time::Duration;

use tollgate_lab::lab::{self, Lab, Outside, Place, UpOptions};
use tollgate_lab::names::{Family, Names};
use tollgate_lab::run::Cmd;
use tollgate_lab::stats::checksum_errors;
use tollgate_lab::{LabError, content};

/// Enough for super-packets and window growth, little enough for a debug build's hash.
const BYTES: u64 = 24 << 20;

fn options(name: &str) -> UpOptions {
    UpOptions {
        name: name.into(),
        big_bytes: BYTES,
        ..UpOptions::default()
    }
}

fn curl(lab: &Lab, family: Family, args: &[&str]) -> String {
    let address = match family {
        Family::V4 => family.outside().to_string(),
        Family::V6 => format!("[{}]", family.outside()),
    };
    let cmd = Cmd::new("curl").args(["-sSf", "-q", "--noproxy", "*", "--max-time", "20"]);
    let cmd = cmd.arg("--cacert").arg(lab.names.ca());
    let cmd = cmd
        .arg("--connect-to")
        .arg(format!("::{address}:"))
        .args(args);
    lab.at(Place::Pod, cmd.timeout(Duration::from_secs(30)))
        .run()
        .unwrap()
        .stdout
}

fn counters(lab: &Lab, place: Place) -> u64 {
    let cat = Cmd::line("cat /proc/net/snmp /proc/net/snmp6");
    checksum_errors(&lab.at(place, cat).run().unwrap().stdout).unwrap()
}

fn fetch_everything(lab: &Lab) {
    let saved = lab.names.www().join("saved");
    let saved = saved.to_str().unwrap();
    let sent = lab.names.www().join("v2/data/big.bin");
    for family in [Family::V4, Family::V6] {
        for scheme in ["http", "https"] {
            let site = format!("{scheme}://api.example.com");
            assert!(curl(lab, family, &[&format!("{site}/v2/status")]).contains("ok"));

            curl(
                lab,
                family,
                &["-o", saved, &format!("{site}/v2/data/big.bin")],
            );
            let hash = content::hash_file(saved.as_ref()).unwrap();
            assert_eq!(hash, lab.info.big_sha256, "download, {scheme}, {family:?}");

            let url = format!("{site}/upload/{scheme}");
            curl(lab, family, &["-T", sent.to_str().unwrap(), &url]);
            let arrived = lab.names.www().join("upload").join(scheme);
            let hash = content::hash_file(&arrived).unwrap();
            assert_eq!(hash, lab.info.big_sha256, "upload, {scheme}, {family:?}");
        }
    }
    for place in [Place::Pod, Place::Out] {
        assert_eq!(counters(lab, place), 0, "checksum errors at {place:?}");
    }
}

#[test]
fn a_lab_serves_and_leaves_nothing_behind() {
    for (name, outside) in [("t-veth", Outside::Veth), ("t-wire", Outside::Wire)] {
        let lab = lab::up(&UpOptions {
            outside,
            ..options(name)
        })
        .unwrap();
        assert!(lab::list().iter().any(|l| l.name == name));
        fetch_everything(&lab);
        lab.down().unwrap();
        assert_eq!(
            lab::remains(&Names::new(name).unwrap()),
            Vec::<String>::new()
        );
        assert!(!lab::list().iter().any(|l| l.name == name));
    }
}

#[test]
fn every_end_uses_cubic_and_large_packets() {
    let lab = lab::up(&options("t-cubic")).unwrap();
    for family in [Family::V4, Family::V6] {
        // Slow enough to be looked at while it runs.
        let get = Cmd::new("curl").args(["-sSg", "-o", "/dev/null", "--limit-rate", "8M"]);
        let url = match family {
            Family::V4 => format!("http://{}/v2/data/big.bin", family.outside()),
            Family::V6 => format!("http://[{}]/v2/data/big.bin", family.outside()),
        };
        let mut client = lab.at(Place::Pod, get.arg(url)).spawn_piped().unwrap();
        let seen = |place: Place| {
            let ss = Cmd::line("ss -Htin state established");
            lab.at(place, ss).run().unwrap().stdout
        };
        let both = |word: &str| {
            [Place::Pod, Place::Out]
                .into_iter()
                .all(|p| seen(p).contains(word))
        };
        let appeared = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            both("cubic")
        });
        assert!(appeared, "{} {}", seen(Place::Pod), seen(Place::Out));
        assert!(!seen(Place::Out).contains("bbr"));
        client.kill().unwrap();
        client.wait().unwrap();
    }
    for (place, dev) in [
        (Place::Pod, "eth0"),
        (Place::Node, "tgp0"),
        (Place::Out, "eth0"),
    ] {
        let ethtool = Cmd::line(&format!("ethtool -k {dev}"));
        let features = lab.at(place, ethtool).run().unwrap().stdout;
        assert!(
            features.contains("tcp-segmentation-offload: on"),
            "{place:?} {dev}"
        );
    }
}

#[test]
fn links_of_unequal_size_carry_large_transfers() {
    for (pod_mtu, out_mtu) in [(1280, 9000), (9000, 1400)] {
        let lab = lab::up(&UpOptions {
            pod_mtu,
            out_mtu,
            ..options("t-mtu")
        })
        .unwrap();
        fetch_everything(&lab);
    }
}

#[test]
fn dropping_a_lab_and_making_it_again_leave_nothing() {
    let names = Names::new("t-drop").unwrap();
    drop(lab::up(&options("t-drop")).unwrap());
    assert_eq!(lab::remains(&names), Vec::<String>::new());

    // As after a kill -9: everything is there, and nobody owns it.
    lab::up(&options("t-drop")).unwrap().keep();
    assert!(!lab::remains(&names).is_empty());
    let again = lab::up(&options("t-drop")).unwrap();
    curl(&again, Family::V4, &["http://api.example.com/v2/status"]);
    again.down().unwrap();
    assert_eq!(lab::remains(&names), Vec::<String>::new());
}

#[test]
fn a_panic_takes_the_lab_down() {
    let names = Names::new("t-panic").unwrap();
    let died = std::panic::catch_unwind(|| {
        let _lab = lab::up(&options("t-panic")).unwrap();
        panic!("as a failed assertion would");
    });
    assert!(died.is_err());
    assert_eq!(lab::remains(&names), Vec::<String>::new());
}

#[test]
fn what_runs_inside_ends_with_the_lab() {
    let lab = lab::up(&options("t-inside")).unwrap();
    let mut stray = lab
        .at(Place::Pod, Cmd::line("sleep 300"))
        .spawn_piped()
        .unwrap();
    let status = lab
        .pod_by_name(Cmd::line("getent hosts api.example.com"))
        .run()
        .unwrap();
    assert!(status.stdout.contains("192.0.2.10"), "{}", status.stdout);
    lab.down().unwrap();
    let ended = stray.wait().unwrap();
    assert!(!ended.success());
    assert_eq!(
        lab::remains(&Names::new("t-inside").unwrap()),
        Vec::<String>::new()
    );
}

#[test]
fn wrong_use_is_told() {
    for (options, part) in [
        (
            UpOptions {
                name: "../x".into(),
                ..UpOptions::default()
            },
            "lab name",
        ),
        (
            UpOptions {
                pod_mtu: 576,
                ..options("t-bad")
            },
            "MTU 576",
        ),
    ] {
        let error = lab::up(&options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    let error = lab::exec("t-none", Place::Pod, &[]).unwrap_err();
    assert!(matches!(error, LabError::NoSuchLab(_)), "{error}");
    lab::down("t-none").unwrap();
}
