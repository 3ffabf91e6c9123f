//! Every failure that can be made is found, and nothing is found where there is none.

use std::path::Path;

use serde_json::Value;
use tollgate_lab::agent::AgentHandle;
use tollgate_lab::lab::{self, Place, UpOptions};
use tollgate_lab::run::Cmd;

use crate::bed::{Bed, TAP, TOLLGATE};

/// Exit code, and every line that is not ok: name and result.
fn check(bed: &Bed, wrapper: &[&str], more: &[&str]) -> (i32, Vec<(String, String)>, Value) {
    let mut line: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    line.extend([TOLLGATE.to_owned(), "check".to_owned()]);
    line.extend(bed.flags());
    line.extend(["-o", "json"].map(str::to_owned));
    line.extend(more.iter().map(|word| (*word).to_owned()));
    let cmd = Cmd::new(&line[0])
        .args(&line[1..])
        .env("TOLLGATE_CONFIG", bed.path("empty.yaml"));
    let output = cmd.in_netns(&bed.node()).output().unwrap();
    let report: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
    let sections = report["sections"].as_array().unwrap().iter();
    let lines = sections.flat_map(|section| section["lines"].as_array().unwrap());
    let word = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let odd = lines
        .filter(|line| line["outcome"] != "ok")
        .map(|line| (word(line, "id"), word(line, "outcome")))
        .collect();
    (output.status.code().unwrap(), odd, report)
}

fn expect(bed: &Bed, wrapper: &[&str], more: &[&str], code: i32, odd: &[(&str, &str)]) {
    let (found_code, found, report) = check(bed, wrapper, more);
    for (id, outcome) in odd {
        let there = found.iter().any(|(i, o)| i == id && o == outcome);
        assert!(there, "{id} {outcome} is not among {found:?}\n{report:#}");
    }
    let known = |id: &String| odd.iter().any(|(name, _)| name == id);
    let others: Vec<_> = found.iter().filter(|(id, _)| !known(id)).collect();
    assert!(others.is_empty(), "{others:?}\n{report:#}");
    assert_eq!(found_code, code, "{report:#}");
}

fn new_bed(name: &str) -> Bed {
    let bed = Bed::new(name);
    std::fs::write(bed.path("empty.yaml"), "").unwrap();
    bed
}

#[test]
fn before_installation() {
    let bed = new_bed("pre");
    let pre = |code, odd: &[(&str, &str)]| expect(&bed, &[], &["--pre"], code, odd);
    // Healthy: every line ok.
    pre(0, &[]);

    let no_tun = [
        "unshare",
        "-m",
        "bash",
        "-c",
        "mount -t tmpfs none /dev && exec \"$@\"",
        "-",
    ];
    expect(
        &bed,
        &no_tun,
        &["--pre"],
        1,
        &[
            ("tun", "fail"),
            ("tun-queues", "fail"),
            ("bpf-attach", "fail"),
        ],
    );

    bed.on_node(
        "tc qdisc add dev tgv1 clsact && tc filter add dev tgv1 ingress bpf bytecode '1,6 0 0 0' flowid 1:1",
    );
    pre(1, &[("conflicts", "fail")]);
    bed.on_node("tc qdisc del dev tgv1 clsact");
    pre(0, &[]);

    bed.on_node("ip link set tgv1 mtu 1400");
    pre(1, &[("pair-mtu", "fail")]);
    bed.on_node("ip link set tgv1 mtu 9000");
    bed.in_pod(1, "ip link set eth0 mtu 9000");
    pre(0, &[("mtu", "warn")]);
    bed.on_node("ip link set up0 mtu 9000");
    pre(0, &[]);

    bed.policy("kind: Nonsense\n");
    pre(1, &[("policy", "fail")]);
    bed.good_policy();

    // Not in every kernel; where it is, it has to be seen.
    let table = "table inet tgck { flowtable f { hook ingress priority 0; devices = { tgv1 }; }; }";
    let nft = Cmd::new("nft").arg(table).in_netns(&bed.node());
    if nft.output().unwrap().status.success() {
        pre(0, &[("flow-tables", "warn")]);
        bed.on_node("nft delete table inet tgck");
    }

    std::fs::create_dir_all(format!("{}/stranger", bed.pins())).unwrap();
    pre(1, &[("pin-dir", "fail")]);
    std::fs::remove_dir(format!("{}/stranger", bed.pins())).unwrap();

    std::fs::write(bed.path("run"), "no directory").unwrap();
    pre(1, &[("run-dir", "fail")]);
}

#[test]
fn without_capabilities() {
    let bed = new_bed("caps");
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    expect(
        &bed,
        &bare,
        &["--pre"],
        1,
        &[
            ("cap-net-admin", "fail"),
            ("cap-bpf", "fail"),
            ("cap-perfmon", "fail"),
            ("cap-sys-admin", "warn"),
            ("cap-net-raw", "warn"),
            ("bpf-load", "unknown"),
            ("tun", "unknown"),
            ("flow-tables", "unknown"),
        ],
    );
}

#[test]
fn after_installation() {
    let mut bed = new_bed("post");
    expect(&bed, &[], &["--post"], 1, &[("agent", "fail")]);
    bed.start("");
    bed.in_pod(1, "echo > /dev/udp/10.20.1.1/9");
    // The second endpoint has no interface yet, and that is all.
    expect(&bed, &[], &["--post"], 0, &[("endpoint", "warn")]);
    bed.add_pod(2);
    crate::bed::until("both are attached", || {
        let status = bed.status();
        let endpoints = status["endpoints"].as_array()?;
        endpoints
            .iter()
            .all(|e| e["state"] == "attached")
            .then_some(())
    });
    expect(&bed, &[], &["--post"], 0, &[]);
    // Without a flag it sees by itself that an agent is installed.
    expect(&bed, &[], &[], 0, &[]);

    bed.on_node(&format!("ethtool -K {TAP} tx-tcp-segmentation off"));
    expect(&bed, &[], &["--post"], 1, &[("tap-offloads", "fail")]);
    bed.on_node(&format!("ethtool -K {TAP} tx-tcp-segmentation on"));

    let index =
        bed.on_node("cat /proc/net/dev_mcast >/dev/null; ip -o link show tgv1 | cut -d: -f1");
    let pin = format!("{}/link_{}_from_endpoint", bed.pins(), index.trim());
    std::fs::remove_file(pin).unwrap();
    crate::bed::until("the program is gone", || {
        let (code, odd, _) = check(&bed, &[], &["--post"]);
        (code == 1 && odd == [("endpoint".to_owned(), "fail".to_owned())]).then_some(())
    });
}

#[test]
fn what_people_see() {
    let bed = new_bed("words");
    let flags = bed.flags();
    let mut args = vec!["check", "--pre"];
    args.extend(flags.iter().map(String::as_str));
    let run = |args: &[&str], config: &str| {
        let cmd = Cmd::new(TOLLGATE).args(args);
        let cmd = cmd.env("TOLLGATE_CONFIG", bed.path(config));
        cmd.in_netns(&bed.node()).output().unwrap()
    };
    let plain = run(&args, "empty.yaml");
    assert_eq!(plain.status.code(), Some(0), "{}", plain.stdout);
    assert!(
        plain.stdout.starts_with("Privileges\n  ok   CAP_NET_ADMIN"),
        "{}",
        plain.stdout
    );
    let last = plain.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("ok   ") && last.ends_with(" 0 failed"),
        "{last}"
    );
    args.extend(["--color", "always"]);
    let marks = run(&args, "empty.yaml").stdout;
    assert!(marks.contains('√') && !marks.contains("  ok "), "{marks}");
    args.push("--post");
    assert_eq!(
        run(&args, "empty.yaml").status.code(),
        Some(2),
        "one or the other"
    );
    let missing = run(&["check", "--pre"], "none.yaml");
    assert_eq!(missing.status.code(), Some(2), "{}", missing.stderr);
}

#[test]
fn a_lab_with_an_agent_is_in_order() {
    let options = UpOptions {
        name: "ck-lab".into(),
        big_bytes: 1 << 20,
        ..UpOptions::default()
    };
    let lab = lab::up(&options).unwrap();
    let policy = lab.names.dir().join("policy");
    std::fs::create_dir(&policy).unwrap();
    std::fs::write(
        policy.join("all.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
         apiVersion: policy.tollgate.dev/v1alpha1\nkind: Endpoint\n\
         metadata: {name: web, namespace: shop}\n\
         spec: {interface: tgp0, addresses: [10.10.0.2, 'fd10::2']}\n",
    )
    .unwrap();
    let agent = AgentHandle::start(&lab, Path::new(TOLLGATE), &policy).unwrap();
    let curl = Cmd::line("curl -s -o /dev/null http://192.0.2.10/");
    lab.at(Place::Pod, curl).run().unwrap();
    let check = Cmd::new(TOLLGATE).args(["check", "--post", "--run-dir"]);
    let check = check.arg(lab.names.agent_run());
    let output = lab.at(Place::Node, check).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.stdout);
    let last = output.stdout.lines().last().unwrap();
    assert!(
        last.ends_with(" ok, 0 to look at, 0 failed"),
        "{}",
        output.stdout
    );
    agent.stop();
}
