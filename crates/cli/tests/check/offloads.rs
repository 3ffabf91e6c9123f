//! Declared offload state is kept: in pods that are there and that come, against others, from
//! Antrea's file too.

use tollgate_lab::run::Cmd;

use crate::bed::{Bed, until};

const FEATURE: &str = "tx-checksum-ip-generic";
/// `CAP_NET_ADMIN` and `CAP_BPF`, as `/proc/PID/status` shows sets.
const CONTROL_CAPABILITIES: &str = "0000008000001000";

fn becomes(bed: &Bed, pod: u8, ifname: &str, feature: &str, state: &str) {
    until(
        &format!("{feature} of {ifname} of {pod} is {state}"),
        || (bed.feature(pod, ifname, feature) == state).then_some(()),
    );
}

/// Events of the kind `offload`, oldest first.
fn events(bed: &Bed) -> Vec<serde_json::Value> {
    let output = bed.tollgate(&["observe", "-o", "json"]);
    let events = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["event"] == "offload").collect()
}

#[test]
fn state_is_kept_on_the_node_and_inside_pods() {
    let mut bed = Bed::new("keep");
    assert_eq!(bed.feature(1, "eth0", FEATURE), "on", "the case needs it");
    bed.start(
        "offloads:\n  disableTxChecksum: true\n  interfaces:\n    \
         - {match: 'up*', mtu: 1400, features: {tx-scatter-gather: false}}\n    \
         - {match: up0, features: {no-such-feature: true, loopback: true}}\n",
    );
    becomes(&bed, 1, "eth0", FEATURE, "off");
    becomes(&bed, 0, "up0", "tx-scatter-gather", "off");
    assert_eq!(
        bed.feature(0, "tgv1", FEATURE),
        "on",
        "the node's end is not meant"
    );
    assert!(bed.on_node("ip link show up0").contains("mtu 1400"));

    // One that comes later, without being made again.
    bed.add_pod(2);
    becomes(&bed, 2, "eth0", FEATURE, "off");

    // Somebody else's hand, inside a pod and on the node.
    let refused = |event: &serde_json::Value| event["offload"]["restored"] == false;
    let before = events(&bed).iter().filter(|event| !refused(event)).count();
    assert_eq!(before, 0, "setting it the first time is no drift");
    bed.in_pod(2, &format!("ethtool -K eth0 {FEATURE} on"));
    becomes(&bed, 2, "eth0", FEATURE, "off");
    let event = until("the event", || {
        events(&bed)
            .into_iter()
            .find(|event| event["offload"]["restored"] == true)
    });
    assert_eq!(event["endpoint"], "shop/web-2", "{event}");
    assert_eq!(event["offload"]["feature"], FEATURE, "{event}");
    assert_eq!(event["offload"]["found"], "on", "{event}");
    bed.on_node("ip link set up0 mtu 1500");
    until("the MTU is back", || {
        bed.on_node("ip link show up0")
            .contains("mtu 1400")
            .then_some(())
    });
    let metrics = bed.on_node(&format!(
        "curl -s --unix-socket {} http://x/v1/metrics",
        bed.path("run/agent.sock").display()
    ));
    assert!(
        metrics.contains("tollgate_offload_drift_total 2\n"),
        "{metrics}"
    );

    // What cannot be had is told once, and stays in the status.
    let told = events(&bed).iter().filter(|event| refused(event)).count();
    assert_eq!(told, 2, "{:?}", events(&bed));
    let status = bed.status();
    assert_eq!(status["health"], "degraded");
    let problems = status["offloads"]["problems"].to_string();
    assert!(
        problems.contains("no-such-feature: this kernel knows no"),
        "{problems}"
    );
    assert!(
        problems.contains("does not let it be switched"),
        "{problems}"
    );
    let text = bed.tollgate(&["observe"]).stdout;
    assert!(text.contains("RESTORED: was on, is off again"), "{text}");

    // The right to enter namespaces is that one thread's.
    let pid = bed.agent_pid();
    let main = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        main.contains(&format!("CapEff:\t{CONTROL_CAPABILITIES}")),
        "{main}"
    );

    bed.stop();
    assert_eq!(bed.feature(1, "eth0", FEATURE), "off", "it stays as it is");
}

#[test]
fn antreas_switch_means_the_same() {
    let mut bed = Bed::new("antrea");
    let conf = bed.path("antrea-agent.conf");
    let write = |on: bool| {
        let text =
            format!("featureGates:\n  L7NetworkPolicy: true\ndisableTXChecksumOffload: {on}\n");
        std::fs::write(&conf, text).unwrap();
    };
    write(true);
    bed.start(&format!(
        "offloads: {{antreaAgentConf: {}}}\n",
        conf.display()
    ));
    becomes(&bed, 1, "eth0", FEATURE, "off");
    // Off: nobody minds any more.
    write(false);
    until("the switch is seen", || {
        bed.log()
            .contains("disableTXChecksumOffload is false")
            .then_some(())
    });
    bed.in_pod(1, &format!("ethtool -K eth0 {FEATURE} on"));
    let pid = bed.add_nameless_pod(2);
    write(true);
    becomes(&bed, 1, "eth0", FEATURE, "off");
    until("the nameless pod has it too", || {
        let cmd = Cmd::line(&format!("nsenter -t {pid} -n ethtool -k eth0"));
        let text = cmd.run().unwrap().stdout;
        text.contains(&format!("{FEATURE}: off")).then_some(())
    });
    std::fs::remove_file(&conf).unwrap();
    until("a missing file is told", || {
        let problems = bed.status()["offloads"]["problems"].to_string();
        problems.contains("cannot read").then_some(())
    });
    assert_eq!(bed.status()["health"], "degraded");
}
