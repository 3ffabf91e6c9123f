//! The fixture by itself: with a copier in the engine's place, packets go the ways that they go on a
//! node of Antrea.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;

use tollgate_lab::run::Cmd;

use crate::bed::{
    Bed, CLIENT, EGRESS, NODE, OUTSIDE, Place, REMOTE, SERVER, here, in_url, kernel_datapath, pod,
};
use crate::net;
use crate::pipeline::{
    self, CLUSTER_IP, CLUSTER_IP_REMOTE, FAMILIES, Family, Match, VIRTUAL_MAC, Way, table,
};

const GW_MAC: &str = "02:0a:0a:00:00:01";
const CLIENT_MAC: &str = "02:0a:0a:00:00:02";
const SERVER_MAC: &str = "02:0a:0a:00:00:03";
/// Exit code of curl: too late.
const CURL_TIMEOUT: i32 = 28;
const SYN: &str = "0x02";
const SYN_ACK: &str = "0x12";

/// Starts the copier; returns its process.
fn copier(bed: &mut Bed, rewrite: &str) -> u32 {
    let cmd = Cmd::new("python3")
        .arg(here("plain.py"))
        .args(["antrea-l7-tap0", "antrea-l7-tap1"])
        .args(rewrite.split_whitespace());
    let pid = bed.start(Place::Node, cmd, "copier.log");
    bed.logged("copier.log", "ready");
    pid
}

fn seen(bed: &Bed) -> Vec<String> {
    let text = fs::read_to_string(bed.path("copier.log")).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// The one distinct way in which frames with these flags came by: VLAN, MACs, addresses and TTL.
fn way(bed: &Bed, flags: &str, from: &str, to: &str) -> String {
    let found: Vec<_> = seen(bed)
        .into_iter()
        .filter(|l| l.contains(&format!("flags={flags}")))
        .filter(|l| l.contains(&format!(" {from} ")) && l.contains(&format!(" {to} ")))
        .collect();
    let first = found.first().unwrap_or_else(|| {
        panic!(
            "no frame {flags} from {from} to {to} among\n{}",
            seen(bed).join("\n")
        )
    });
    let words: Vec<_> = first.split(' ').collect();
    format!("{} {} {}", words[0], words[1], words[8])
}

fn get(bed: &Bed, place: Place, address: &str, port: u16, path: &str) -> Option<String> {
    let url = format!("http://{}:{port}{path}", in_url(address));
    let output = bed.output(place, &format!("curl -s -g -m 10 {url}"));
    output.status.success().then_some(output.stdout)
}

/// Whether a request meets silence.
fn lost(bed: &Bed, address: &str) -> bool {
    let url = format!("http://{}:8080/hostname", in_url(address));
    let output = bed.output(Place::Client, &format!("curl -s -g -m 1 {url}"));
    output.status.code() == Some(CURL_TIMEOUT)
}

fn egress(port: u16) -> Match {
    Match {
        way: Way::Egress,
        pod: CLIENT,
        peer: None,
        port: Some(port),
        priority: 14900,
    }
}

fn ingress(port: u16) -> Match {
    Match {
        way: Way::Ingress,
        pod: SERVER,
        peer: None,
        port: Some(port),
        priority: 14900,
    }
}

#[test]
fn pods_reach_each_other_without_a_rule() {
    let mut bed = Bed::new("plain");
    bed.serve(Place::Server, "server", "8080");
    bed.serve(Place::Out, "remote", "8080");
    for family in FAMILIES {
        let at = family.index();
        for (address, name) in [
            (pod(SERVER, family), "server"),
            (CLUSTER_IP[at], "server"),
            (REMOTE[at], "remote"),
            (CLUSTER_IP_REMOTE[at], "remote"),
            (OUTSIDE[at], "remote"),
        ] {
            let answer = get(&bed, Place::Client, address, 8080, "/hostname");
            assert_eq!(answer.as_deref(), Some(name), "{address}");
        }
        let seen_as = get(&bed, Place::Client, OUTSIDE[at], 8080, "/clientip").unwrap();
        assert!(seen_as.contains(NODE[at]), "masqueraded: {seen_as}");
        let from_remote = get(&bed, Place::Out, pod(SERVER, family), 8080, "/hostname");
        assert_eq!(from_remote.as_deref(), Some("server"));
    }
}

/// Redirected flows between pods of one node: both directions, after translation, in one VLAN.
#[test]
fn same_node_walks() {
    let mut bed = Bed::new("same");
    bed.serve(Place::Server, "server", "8080");
    copier(&mut bed, "");
    bed.add_rule(&ingress(8080), 2, 7);
    for family in FAMILIES {
        let (client, server) = (pod(CLIENT, family), pod(SERVER, family));
        let answer = get(&bed, Place::Client, server, 8080, "/hostname");
        assert_eq!(answer.as_deref(), Some("server"));
        let request = format!("vlan=2 {CLIENT_MAC}>{SERVER_MAC} ttl=64");
        assert_eq!(way(&bed, SYN, client, server), request);
        let reply = format!("vlan=2 {SERVER_MAC}>{CLIENT_MAC} ttl=64");
        assert_eq!(way(&bed, SYN_ACK, server, client), reply);
    }
    let before = seen(&bed).len();
    for family in FAMILIES {
        let address = CLUSTER_IP[family.index()];
        let answer = get(&bed, Place::Client, address, 8080, "/hostname");
        assert_eq!(answer.as_deref(), Some("server"), "{address}");
    }
    let through = seen(&bed);
    let through = &through[before..];
    assert!(
        through.iter().any(|l| l.contains("10.10.0.3 8080 ")),
        "{through:#?}"
    );
    // The engine sees endpoints, never the Service.
    assert!(
        !through
            .iter()
            .any(|l| l.contains(" 10.96.") || l.contains(" fd96:")),
        "{through:#?}"
    );
    // Routed to the Service: the gateway's MAC as source, and one hop less.
    let routed = format!("vlan=2 {GW_MAC}>{SERVER_MAC} ");
    let routed = through.iter().find(|l| l.starts_with(&routed)).unwrap();
    assert!(routed.contains("ttl=63"), "{routed}");
}

/// Flows to the outside, by the gateway and masquerade; replies come untranslated.
#[test]
fn outside_walks() {
    let mut bed = Bed::new("out");
    bed.serve(Place::Out, "outside", "8080");
    copier(&mut bed, "");
    bed.add_rule(&egress(8080), 3, 8);
    for family in FAMILIES {
        let (client, outside) = (pod(CLIENT, family), OUTSIDE[family.index()]);
        let answer = get(&bed, Place::Client, outside, 8080, "/clientip").unwrap();
        assert!(answer.contains(NODE[family.index()]), "{answer}");
        let request = format!("vlan=3 {CLIENT_MAC}>{GW_MAC} ttl=64");
        assert_eq!(way(&bed, SYN, client, outside), request);
        let reply = format!("vlan=3 {GW_MAC}>{CLIENT_MAC} ttl=63");
        assert_eq!(way(&bed, SYN_ACK, outside, client), reply);
    }
}

/// A rule at the client's node and a server on another: the replies come to the engine before their
/// MAC is rewritten, and a copier's way back ends in the tunnel they came by.
#[test]
fn cross_node_walks() {
    let mut bed = Bed::new("cross");
    bed.serve(Place::Out, "remote", "8080");
    bed.serve(Place::Server, "server", "8080");
    let blind = copier(&mut bed, "");
    bed.add_rule(&egress(8080), 4, 9);
    bed.add_rule(&ingress(8080), 5, 10);
    for family in FAMILIES {
        let (at, client, server) = (family.index(), pod(CLIENT, family), pod(SERVER, family));
        // Into the node: works, and the answer goes back through the tunnel.
        let answer = get(&bed, Place::Out, server, 8080, "/hostname");
        assert_eq!(answer.as_deref(), Some("server"));
        assert!(way(&bed, SYN, REMOTE[at], server).starts_with("vlan=5 "));
        // Out of the node: the SYN-ACK never comes.
        assert!(lost(&bed, REMOTE[at]));
        let reply = way(&bed, SYN_ACK, REMOTE[at], client);
        assert!(
            reply.starts_with(&format!("vlan=4 {VIRTUAL_MAC}>{VIRTUAL_MAC} ")),
            "{reply}"
        );
    }
    bed.end(blind);
    let mut known = String::new();
    for family in FAMILIES {
        known.push_str(&format!("{}={CLIENT_MAC} ", pod(CLIENT, family)));
    }
    copier(&mut bed, &known);
    for family in FAMILIES {
        for address in [REMOTE[family.index()], CLUSTER_IP_REMOTE[family.index()]] {
            let answer = get(&bed, Place::Client, address, 8080, "/hostname");
            assert_eq!(answer.as_deref(), Some("remote"), "{address}");
        }
    }
}

/// Without an engine, redirected flows end at its port; others go on.
#[test]
fn nobody_at_the_ports() {
    let mut bed = Bed::new("none");
    bed.serve(Place::Server, "server", "8080 8081");
    bed.add_rule(&ingress(8080), 2, 7);
    let server = pod(SERVER, Family::V4);
    assert!(lost(&bed, server));
    let other = get(&bed, Place::Client, server, 8081, "/hostname");
    assert_eq!(other.as_deref(), Some("server"));
}

/// What comes from the engine without a tag, or at its first port, is nobody's.
#[test]
fn only_tagged_frames_at_the_second_port_return() {
    let bed = Bed::new("trace");
    bed.add_rule(&ingress(8080), 2, 7);
    let frame = format!(
        "tcp,dl_src={CLIENT_MAC},dl_dst={SERVER_MAC},nw_src=10.10.0.2,nw_dst=10.10.0.3,tp_dst=8080"
    );
    for (extra, expected) in [
        ("in_port=11,dl_vlan=2,", "resume"),
        ("in_port=11,", "drop"),
        ("in_port=10,dl_vlan=2,", "drop"),
    ] {
        let trace = bed.appctl(&format!("ofproto/trace br-int '{extra}{frame}'"));
        let actions = trace.lines().filter(|l| l.starts_with("Datapath actions"));
        let dropped = actions.clone().next().unwrap().ends_with("drop");
        assert_eq!(dropped, expected == "drop", "{extra}: {trace}");
    }
    let new = bed.appctl(&format!(
        "ofproto/trace br-int 'in_port=3,{frame}' --ct-next trk,new --ct-next trk,new --ct-next trk,new"
    ));
    let output = format!("{}. ct_mark=0x80/0x80", table("Output"));
    assert!(new.contains(&output), "{new}");
}

/// A connection has one VLAN: the rule at the server overwrites that of the rule at the client. What
/// is under way keeps its VLAN when the rule has gone.
#[test]
fn one_vlan_a_connection() {
    let mut bed = Bed::new("vlan");
    bed.serve(Place::Server, "server", "8080");
    copier(&mut bed, "");
    bed.add_rule(&egress(8080), 6, 11);
    bed.add_rule(&ingress(8080), 7, 12);
    let mut tcp = bed.connect(Place::Client, pod(SERVER, Family::V4), 8080);
    assert_eq!(ask(&mut tcp), 200);
    let vlans = |lines: &[String]| -> BTreeSet<String> {
        let vlan = |line: &String| line.split(' ').next().unwrap().to_owned();
        lines.iter().map(vlan).collect()
    };
    assert_eq!(vlans(&seen(&bed)), BTreeSet::from(["vlan=7".to_owned()]));
    bed.delete_rule(&ingress(8080));
    bed.delete_rule(&egress(8080));
    let before = seen(&bed).len();
    assert_eq!(ask(&mut tcp), 200);
    let later = &seen(&bed)[before..];
    assert_eq!(vlans(later), BTreeSet::from(["vlan=7".to_owned()]));
    // A new one is not redirected.
    let before = seen(&bed).len();
    drop(tcp);
    let answer = get(
        &bed,
        Place::Client,
        pod(SERVER, Family::V6),
        8080,
        "/hostname",
    );
    assert_eq!(answer.as_deref(), Some("server"));
    let later = &seen(&bed)[before..];
    assert!(
        !later.iter().any(|line| line.contains("fd10::3")),
        "{later:#?}"
    );
}

/// An Egress address of this node: the first pass through the tables marks the packet, and the mark does
/// not come back from the engine. The node's own address is what the outside sees.
#[test]
fn egress_address_is_lost_on_the_way() {
    let mut bed = Bed::new("snat");
    bed.serve(Place::Out, "outside", "8080");
    copier(&mut bed, "");
    bed.add_flows(&pipeline::egress_mark(CLIENT, &bed.ports));
    for family in FAMILIES {
        let (at, outside) = (family.index(), OUTSIDE[family.index()]);
        let direct = get(&bed, Place::Client, outside, 8080, "/clientip").unwrap();
        // The datapath in user space has no way to hand a mark to the host.
        let expected = if kernel_datapath() { EGRESS } else { NODE };
        assert!(direct.contains(expected[at]), "{direct}");
    }
    bed.add_rule(&egress(8080), 3, 8);
    for family in FAMILIES {
        let (at, outside) = (family.index(), OUTSIDE[family.index()]);
        let redirected = get(&bed, Place::Client, outside, 8080, "/clientip").unwrap();
        assert!(redirected.contains(NODE[at]), "{redirected}");
    }
}

fn ask(tcp: &mut TcpStream) -> u16 {
    net::get(tcp, "/hostname").unwrap()
}
