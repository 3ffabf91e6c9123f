//! What Suricata says: one run over one capture, each set of rules a tenant with a VLAN of its own.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::capture::{Frame, Talk, Transport, pcap};
use crate::cases::{Case, RuleSet, verdicts};

/// Where the run's files lie, inside the root.
const DIR: &str = "/tmp/tollgate-cases";

const CONFIG: &str = "%YAML 1.1
---
include: /etc/suricata/suricata.yaml
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types:
        - alert
        - drop: {alerts: yes, flows: all}
multi-detect:
  enabled: yes
  selector: vlan
  loaders: 1
  tenants:
";

/// Runs Suricata in a Debian 13 at `root`; the verdicts of each case.
pub fn judge(root: &Path, sets: &[RuleSet], cases: &[Case], frames: &[Vec<Frame>]) -> Vec<String> {
    let dir = root.join(DIR.trim_start_matches('/'));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let mut config = CONFIG.to_owned();
    let mut mappings = "  mappings:\n".to_owned();
    for (number, set) in (1..).zip(sets) {
        fs::write(
            dir.join(format!("{number}.rules")),
            set.rules.join("\n") + "\n",
        )
        .unwrap();
        let tenant = format!(
            "%YAML 1.1\n---\ndefault-rule-path: {DIR}\nrule-files:\n  - {DIR}/{number}.rules\n"
        );
        fs::write(dir.join(format!("{number}.yaml")), tenant).unwrap();
        writeln!(config, "    - {{id: {number}, yaml: {DIR}/{number}.yaml}}").unwrap();
        writeln!(mappings, "    - {{vlan-id: {number}, tenant-id: {number}}}").unwrap();
    }
    config.push_str(&mappings);
    fs::write(dir.join("suricata.yaml"), config).unwrap();
    fs::write(dir.join("cases.pcap"), pcap(frames.iter().flatten())).unwrap();
    // Without a network: a reject in a capture would send real packets.
    let status = Command::new("unshare")
        .args(["--net", "--", "chroot"])
        .arg(root)
        .args(["suricata", "--simulate-ips", "--runmode", "single"])
        .args(["-c", &format!("{DIR}/suricata.yaml")])
        .args(["-r", &format!("{DIR}/cases.pcap"), "-l", DIR])
        .status()
        .unwrap();
    assert!(status.success(), "suricata: {status}");
    let dropped = dropped(&fs::read_to_string(dir.join("eve.json")).unwrap());
    let mut number = 0;
    cases
        .iter()
        .zip(frames)
        .map(|(case, frames)| {
            let first = number + 1;
            number += frames.len();
            verdict(&case.talk, frames, first, &dropped)
        })
        .collect()
}

/// Numbers of the packets that were dropped, from 1.
fn dropped(eve: &str) -> HashSet<usize> {
    eve.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["event_type"] == "drop")
        .filter_map(|event| event["pcap_cnt"].as_u64())
        .map(|number| usize::try_from(number).unwrap())
        .collect()
}

/// A reject resets the client, which ends the connection: what the capture has of it afterwards would
/// not have been sent.
fn verdict(talk: &Talk, frames: &[Frame], first: usize, dropped: &HashSet<usize>) -> String {
    let total = talk.ranges().last().map_or(0, |range| range.end);
    let mut delivered = vec![true; total];
    let mut has_fin = true;
    let mut is_reset = false;
    for (number, frame) in (first..).zip(frames) {
        let is_dropped = dropped.contains(&number);
        is_reset |= is_dropped && talk.transport == Transport::Tcp;
        if !frame.from_client || !(is_dropped || is_reset) {
            continue;
        }
        frame.bytes.clone().for_each(|byte| delivered[byte] = false);
        has_fin &= !frame.is_fin;
    }
    verdicts(talk, has_fin, |byte| delivered[byte])
}
