//! Changes of the policy, restarts of agent and switch, and the end.

use std::fs;

use rustix::process::Signal;

use crate::bed::{BIG, Bed, Options, POLICY, TAP, same, until};

const API: &str = "-H 'Host: api.example.com'";
/// Slow enough that the transfer is under way for as long as the test needs, bytes per second.
const SLOW: &str = "--limit-rate 200k";

/// A transfer under way: waits until its first bytes are there.
fn transfer(bed: &mut Bed, place: &str, name: &str, args: &str) -> usize {
    let file = bed.path(name).display().to_string();
    let process = bed.spawn(
        place,
        &format!("curl -sSk --max-time 300 -o {file} {args}"),
        &format!("{name}.log"),
    );
    until("the transfer is under way", || {
        let size = fs::metadata(&file).map_or(0, |meta| meta.len());
        (size > 100_000).then_some(())
    });
    process
}

/// Fails unless the transfer ended well and brought the whole object.
fn whole(bed: &mut Bed, process: usize, name: &str) {
    let (good, said) = bed.finish(process, &format!("{name}.log"));
    assert!(good, "{name}: {said}\n{}", bed.agent_log());
    let sum = |file: &str| {
        let file = bed.path(file).display().to_string();
        bed.sh("node", &format!("sha256sum < {file}"))
    };
    same(name, sum(name), sum("www/v2/big.bin"));
}

#[test]
fn a_new_policy_reaches_connections_that_the_switch_has_alone() {
    let mut bed = Bed::new("chg");
    let plain = "--limit-rate 4M http://192.0.2.10:9000/v2/big.bin";
    let stays = transfer(&mut bed, "a", "stays", plain);
    // Nothing that concerns it.
    bed.change(
        "policy.yaml",
        &POLICY.replace("'*.example.com'", "'*.example.org'"),
    );
    whole(&mut bed, stays, "stays");

    let cut = transfer(
        &mut bed,
        "a",
        "cut",
        &format!("{SLOW} http://192.0.2.10:9000/v2/big.bin"),
    );
    let six = transfer(
        &mut bed,
        "a",
        "six",
        &format!("{SLOW} http://[2001:db8:2::10]:9000/v2/big.bin"),
    );
    let ingress = transfer(
        &mut bed,
        "c",
        "in",
        &format!("{SLOW} http://10.20.0.3:9000/v2/big.bin"),
    );
    let http = format!("{SLOW} {API} http://192.0.2.10/v2/big.bin");
    let l7 = transfer(&mut bed, "a", "l7", &http);
    let narrow = POLICY
        .replace("port: 9000", "port: 9001")
        .replace("path: /v2/*}\n", "path: /v2/status}\n");
    bed.change("policy.yaml", &narrow);
    for (process, name) in [(cut, "cut"), (six, "six"), (ingress, "in"), (l7, "l7")] {
        let (good, said) = bed.finish(process, &format!("{name}.log"));
        assert!(!good, "{name} went on: {said}");
        // Told so, not left to wait.
        assert!(said.contains("reset"), "{name}: {said}");
        let size = fs::metadata(bed.path(name)).unwrap().len();
        assert!(size < BIG as u64, "{name}: all of it came");
    }
}

#[test]
fn connections_outlive_the_agent_and_nothing_new_begins_without_it() {
    let mut bed = Bed::new("rst");
    let rate = "--limit-rate 4M";
    let tls = format!("{rate} --connect-to ::192.0.2.10: https://api.example.com/v2/big.bin");
    let http = format!("{rate} {API} http://192.0.2.10/v2/big.bin");
    let plain = format!("{rate} http://[2001:db8:2::10]:9000/v2/big.bin");
    for signal in [Signal::TERM, Signal::KILL] {
        let mut transfers = vec![("plain", transfer(&mut bed, "a", "plain", &plain))];
        if signal == Signal::TERM {
            // Their client's half is the worker's; a killed one leaves no word of it.
            transfers.push(("tls", transfer(&mut bed, "a", "tls", &tls)));
            transfers.push(("http", transfer(&mut bed, "a", "http", &http)));
        }
        bed.stop(signal);
        let (code, _) = bed.curl(
            "a",
            &format!("--max-time 2 {API} http://192.0.2.10/v2/status"),
        );
        same("nothing new without the agent", code, 28);
        let (code, _) = bed.curl("c", "--max-time 2 http://10.20.0.3/v2/public/x");
        same("nothing new to b without the agent", code, 28);
        same(
            "who is not governed needs no agent",
            bed.curl("c", "http://192.0.2.10/v1/x"),
            (0, "404".to_owned()),
        );
        let watch = bed.spawn(
            "node",
            "bash -c 'while :; do ovs-ofctl dump-flows br0 table=0 | grep -c priority=65001; done'",
            "doors",
        );
        bed.start();
        bed.end(watch);
        let doors = fs::read_to_string(bed.path("doors")).unwrap();
        assert!(doors.lines().count() > 5, "{doors}");
        assert!(
            doors.lines().all(|count| count == "2"),
            "a door stood open: {doors}"
        );
        assert!(bed.status()["datapath"]["adopted"].as_bool().unwrap());
        for (name, process) in transfers {
            whole(&mut bed, process, name);
        }
        let allowed = bed.curl("a", &format!("{API} http://192.0.2.10/v2/status"));
        same("the next agent", allowed, (0, "200".to_owned()));
        let denied = bed.curl("a", &format!("{API} http://192.0.2.10/v1/x"));
        same("the next agent", denied, (0, "403".to_owned()));
    }
    same("checksum errors", bed.checksum_errors(), vec![]);
}

#[test]
fn a_policy_that_changed_while_no_agent_ran_reaches_open_connections() {
    let mut bed = Bed::new("gap");
    let cut = transfer(
        &mut bed,
        "a",
        "cut",
        "--limit-rate 1M http://192.0.2.10:9000/v2/big.bin",
    );
    bed.stop(Signal::TERM);
    bed.replace("policy.yaml", &POLICY.replace("port: 9000", "port: 9001"));
    bed.start();
    let (good, said) = bed.finish(cut, "cut.log");
    assert!(!good, "it went on: {said}");
}

#[test]
fn the_gate_is_back_after_a_restart_of_the_switch() {
    let mut bed = Bed::new("sw");
    let allowed = format!("{API} http://192.0.2.10/v2/status");
    same("before", bed.curl("a", &allowed), (0, "200".to_owned()));
    bed.stop_switch();
    until("the agent complains", || {
        let warnings = bed.status()["warnings"].to_string();
        warnings.contains("is not there").then_some(())
    });
    bed.restart_switch();
    bed.settled();
    until("requests get through again", || {
        (bed.curl("a", &format!("--max-time 2 {allowed}")).1 == "200").then_some(())
    });
    let denied = bed.curl("a", &format!("{API} http://192.0.2.10/v1/x"));
    same("after", denied, (0, "403".to_owned()));
    let denied = bed.curl("c", "http://10.20.0.3/v2/secret/x");
    same("ingress after", denied, (0, "403".to_owned()));
    let before = bed.tap_frames();
    bed.sh(
        "a",
        "curl -sS -o /dev/null http://192.0.2.10:9000/v2/big.bin",
    );
    let frames = bed.tap_frames() - before;
    assert!(
        frames < 40,
        "{frames} of a decided connection came to the TAP"
    );
    assert!(bed.sh("node", "ovs-ofctl show br0").contains("NO_FLOOD"));

    // A controller that clears the bridge when it comes.
    bed.sh(
        "node",
        "ovs-ofctl del-flows br0 && ovs-ofctl add-flow br0 actions=NORMAL",
    );
    until("the flows are back", || {
        let flows = bed.sh("node", "ovs-ofctl dump-flows br0");
        flows.contains("priority=65002").then_some(())
    });
    let denied = bed.curl("a", &format!("{API} http://192.0.2.10/v1/x"));
    same("after a controller came", denied, (0, "403".to_owned()));
    let text = bed.agent_log();
    assert!(text.contains("somebody removed flows"), "{text}");
}

#[test]
fn nothing_is_left_behind() {
    let mut bed = Bed::without_agent("end", Options::default());
    bed.sh(
        "node",
        "ovs-ofctl add-flow br0 'cookie=0x7,table=30,priority=9,tcp,actions=drop'",
    );
    bed.sh(
        "node",
        "ovs-vsctl set Bridge br0 external_ids:owner=somebody",
    );
    let before = bed.bridge();
    bed.start();
    same(
        "it works",
        bed.curl("a", &format!("{API} http://192.0.2.10/v2/status")),
        (0, "200".to_owned()),
    );
    assert_ne!(bed.bridge(), before);
    let tracked = "ovs-appctl dpctl/dump-conntrack zone=64999 | wc -l";
    assert_ne!(bed.sh("node", tracked), "0");
    bed.stop(Signal::TERM);
    let said = bed.cleanup();
    for word in [
        "flows on bridge br0",
        "port tgovs0 of bridge br0",
        "TAP tgovs0",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let after = bed.bridge();
    same("flows", after.0, before.0);
    same("configuration", after.1, before.1);
    same("tracked connections", bed.sh("node", tracked).as_str(), "0");
    assert!(
        !bed.try_sh("node", &format!("ip link show {TAP}"))
            .status
            .success()
    );
    let left: Vec<_> = fs::read_dir(bed.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "verdicts.jsonl")
        .collect();
    same("files", left, vec![]);
    same(
        "traffic is free",
        bed.curl("a", "http://192.0.2.10/v1/x"),
        (0, "404".to_owned()),
    );
    assert!(bed.cleanup().contains("nothing to remove"));
}

#[test]
fn another_place_on_the_bridge_leaves_nothing_in_the_former_one() {
    let mut bed = Bed::new("mov");
    bed.stop(Signal::TERM);
    bed.start_at(", firstTable: 100, cookie: 4096, zone: 77, register: 3");
    let flows = bed.bridge().0.concat();
    assert!(!flows.contains("cookie=0x746f6c6c"), "{flows}");
    assert!(
        !flows.contains("table=200") && flows.contains("table=100"),
        "{flows}"
    );
    same(
        "it works there",
        bed.curl(
            "a",
            &format!("{API} http://192.0.2.10/v2/status http://192.0.2.10/v1/x -o /dev/null"),
        ),
        (0, "200 403".to_owned()),
    );
    let tracked = |zone: u16| format!("ovs-appctl dpctl/dump-conntrack zone={zone} | wc -l");
    same(
        "the former zone",
        bed.sh("node", &tracked(64_999)).as_str(),
        "0",
    );
    assert_ne!(bed.sh("node", &tracked(77)), "0");
}
