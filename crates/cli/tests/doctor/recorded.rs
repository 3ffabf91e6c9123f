//! Faults of hardware and kernels that are not here: recordings, judged with `--from`. Where this
//! machine has all but the card or the kernel, the recording is made here and that one fact is set
//! to what such a card or kernel shows.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::bed::{Bed, Between, Examined, NEAR, reader};
use super::faults::NO_ICMP;

/// Recordings that are kept with the doctor.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../doctor/tests/recorded");

/// What `--record` wrote of a bed, without other namespaces of the machine.
fn recorded(bed: &Bed) -> Value {
    let file = bed.path("recorded.json");
    bed.doctor(&["-o", "json", "--record", file.to_str().unwrap()]);
    let mut machine: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let own = bed.netns("");
    let of_bed = |netns: &Value| netns["name"].as_str().unwrap().starts_with(&own);
    let namespaces = machine["namespaces"].as_array_mut().unwrap();
    namespaces.retain(of_bed);
    assert_eq!(namespaces.len(), 3);
    machine["ovs"] = Value::Null;
    machine["unreadable"] = json!([]);
    machine
}

/// An interface of a recording.
fn link<'a>(machine: &'a mut Value, bed: &Bed, place: &str, name: &str) -> &'a mut Value {
    let netns = bed.netns(place);
    let mut namespaces = machine["namespaces"].as_array_mut().unwrap().iter_mut();
    let netns = namespaces.find(|one| one["name"] == netns).unwrap();
    let mut links = netns["links"].as_array_mut().unwrap().iter_mut();
    links.find(|link| link["name"] == name).unwrap()
}

/// As a card shows itself.
fn card(link: &mut Value) {
    link["kind"] = json!("physical");
    link["link"] = Value::Null;
}

/// Judges a recording; whatever is wrong there, `beside` is all else that is said.
fn judged(machine: &Value, args: &[&str], code: &str, beside: &[&str]) -> Examined {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("machine.json");
    fs::write(&file, serde_json::to_vec(machine).unwrap()).unwrap();
    judged_file(&file, args, code, beside)
}

fn judged_file(file: &Path, args: &[&str], code: &str, beside: &[&str]) -> Examined {
    let output = tollgate_lab::run::Cmd::new(super::bed::TOLLGATE)
        .arg("doctor")
        .args(args)
        .args(["-o", "json", "--config", "/nonexistent", "--from"])
        .arg(file)
        .output()
        .unwrap();
    let found = Examined::of(&output);
    let mut codes = found.codes();
    assert!(codes.iter().any(|one| one == code), "{:#}", found.json);
    codes.retain(|one| one != code && !beside.contains(&one.as_str()));
    assert!(codes.is_empty(), "{:#}", found.json);
    found
}

/// A recording that is kept.
fn kept(name: &str, code: &str) {
    let text = fs::read_to_string(format!("{KEPT}/{name}")).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    let found = judged(&case["now"], &[], code, &[]);
    assert_eq!(found.code, 1, "{:#}", found.json);
}

#[test]
fn tg1004_a_virtio_card() {
    let mut bed = Bed::new("tg1004", Between::Copied);
    // Two cards and what reads them.
    bed.python("node", &reader(2048, false));
    let mut machine = recorded(&bed);
    for name in ["p0", "p1"] {
        let link = link(&mut machine, &bed, "node", name);
        card(link);
        link["driver"] = json!("virtio_net");
    }
    judged(&machine, &[], "TG1004", &[]);
}

#[test]
fn tg1006_a_card_with_many_queues() {
    kept("multiqueue-i40e.json", "TG1006");
}

#[test]
fn tg1009_a_tap_without_the_header() {
    let mut bed = Bed::new("tg1009", Between::Copied);
    bed.python("node", &reader(2048, true));
    let mut machine = recorded(&bed);
    let tap = link(&mut machine, &bed, "node", "p0");
    tap["kind"] = json!({"tun": {"tap": true, "vnet_hdr": false}});
    tap["features"] = json!([]);
    let found = judged(&machine, &[&bed.netns("pod"), "--to", NEAR], "TG1009", &[]);
    assert_eq!(found.code, 0, "worth knowing is healthy: {:#}", found.json);
}

#[test]
fn tg1106_a_narrow_uplink() {
    let bed = Bed::new("tg1106", Between::Routed);
    bed.sh("out", "ip link set eth0 mtu 1400");
    bed.sh(
        "node",
        "ip link set up0 mtu 1400; ip route add default via 10.88.1.2",
    );
    let mut machine = recorded(&bed);
    card(link(&mut machine, &bed, "node", "up0"));
    judged(&machine, &[], "TG1106", &[]);
}

#[test]
fn tg1107_jumbo_frames_to_the_world() {
    let bed = Bed::new("tg1107", Between::Routed);
    for place in ["pod", "out"] {
        bed.sh(place, "ip link set eth0 mtu 9001");
    }
    bed.sh(
        "node",
        "for i in tgp0 up0; do ip link set $i mtu 9001; done; ip route add default via 10.88.1.2",
    );
    bed.sh("node", NO_ICMP);
    let mut machine = recorded(&bed);
    card(link(&mut machine, &bed, "node", "up0"));
    judged(&machine, &[], "TG1107", &[]);
}

#[test]
fn tg1201_an_old_kernel() {
    let bed = Bed::new("tg1201", Between::Tunnelled);
    bed.sh(
        "node",
        "nft add table ip n; nft add chain ip n p '{ type nat hook postrouting priority 100; }'; \
         nft add rule ip n p masquerade",
    );
    let mut machine = recorded(&bed);
    machine["kernel"] = json!("5.4.0-42-generic");
    judged(&machine, &[], "TG1201", &[]);
}

#[test]
fn tg1202_a_vmxnet3_card() {
    kept("vmxnet3-vxlan.json", "TG1202");
}

#[test]
fn tg1204_an_older_kernel() {
    let bed = Bed::new("tg1204", Between::Routed);
    bed.sh("pod", "ethtool -K eth0 tx off");
    let mut machine = recorded(&bed);
    machine["kernel"] = json!("6.1.0-18-amd64");
    judged(&machine, &[], "TG1204", &["TG1003"]);
}

#[test]
fn tg1205_an_older_kernel_with_nat() {
    let mut bed = Bed::new("tg1205", Between::Copied);
    bed.python("node", &reader(2048, true));
    bed.sh("pod", "ip addr add fd88::2/64 dev eth0 nodad");
    bed.sh(
        "node",
        "nft add table inet n; nft add chain inet n p '{ type nat hook postrouting priority 100; }'; \
         nft add rule inet n p masquerade",
    );
    let mut machine = recorded(&bed);
    machine["kernel"] = json!("6.1.0-18-amd64");
    let pod = bed.netns("pod");
    judged(&machine, &[&pod, "--to", NEAR], "TG1205", &[]);
}

#[test]
fn tg1301_a_card_with_lro() {
    kept("lro-ixgbe-bridge.json", "TG1301");
}

#[test]
fn tg1303_a_device_that_takes_little() {
    let bed = Bed::new("tg1303", Between::Routed);
    let mut machine = recorded(&bed);
    // The kernel refuses such sizes now; older ones kept what was set before the device shrank.
    link(&mut machine, &bed, "pod", "eth0")["sizes"]["tso_max"] = json!(32_768);
    judged(&machine, &[], "TG1303", &[]);
}

#[test]
fn tg1306_a_card_that_does_not_want_to() {
    let bed = Bed::new("tg1306", Between::Routed);
    let mut machine = recorded(&bed);
    let up0 = link(&mut machine, &bed, "node", "up0");
    card(up0);
    let mut features = up0["features"].as_array_mut().unwrap().iter_mut();
    let feature = features.find(|one| one["name"] == "tx-udp-segmentation");
    feature.unwrap()["active"] = json!(false);
    let found = judged(&machine, &[], "TG1306", &[]);
    assert_eq!(found.code, 0, "worth knowing is healthy: {:#}", found.json);
}
