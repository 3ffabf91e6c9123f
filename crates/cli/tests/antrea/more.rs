//! What Antrea's own cases leave out: other nodes, large heads and hellos, second requests, IPv6, and
//! where two features meet.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::agent::{Agent, Http, L7};
use crate::bed::{
    Bed, CLIENT, EGRESS, NODE, OUTSIDE, Place, REMOTE, SERVER, in_url, kernel_datapath, pod, until,
};
use crate::net::{self, End};
use crate::pipeline::{self, CLUSTER_IP_REMOTE, FAMILIES, Family, Match, Way};

pub const POLICY: &str = "AntreaNetworkPolicy:test/more";
/// A denied connection is told at once; silence would last as long.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// A datagram that has not come by then does not come.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Datagrams sent one way.
const DATAGRAMS: usize = 3;
/// Bytes of an upload that is many windows long.
const LARGE: usize = 8 << 20;

pub fn egress(port: u16) -> Match {
    Match {
        way: Way::Egress,
        pod: CLIENT,
        peer: None,
        port: Some(port),
        priority: 14_900,
    }
}

pub fn ingress(port: u16) -> Match {
    Match {
        way: Way::Ingress,
        pod: SERVER,
        peer: None,
        port: Some(port),
        priority: 14_900,
    }
}

pub fn path(path: &'static str) -> L7 {
    L7::Http(Http {
        path,
        ..Http::default()
    })
}

/// Status of a GET by curl; 0 without an answer.
fn status(agent: &Agent, from: Place, address: &str, path: &str) -> u16 {
    let url = format!("http://{}:8080{path}", in_url(address));
    let line = format!("curl -s -g -m 10 -o /dev/null -w '%{{http_code}}' {url}");
    agent.output(from, &line).stdout.parse().unwrap()
}

/// Rule at the client, server on another node in encap mode: the replies come to the engine with the
/// placeholder as address, and reach the pod.
#[test]
fn egress_across_nodes() {
    let mut agent = Agent::started(Bed::new("enc"));
    agent.serve(Place::Out, "remote", "8080");
    agent.add_l7(&egress(8080), 1, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        for address in [REMOTE[family.index()], CLUSTER_IP_REMOTE[family.index()]] {
            assert_eq!(
                status(&agent, Place::Client, address, "/hostname"),
                200,
                "{address}"
            );
            assert_eq!(
                status(&agent, Place::Client, address, "/clientip"),
                403,
                "{address}"
            );
        }
        let reset = reset(&agent, REMOTE[family.index()]);
        assert_eq!(
            reset,
            End::Reset,
            "what is no HTTP is reset across nodes too"
        );
    }
}

/// Says something that is no HTTP; how the connection ends for the client.
fn reset(agent: &Agent, address: &str) -> End {
    let mut tcp = agent.connect(Place::Client, address, 8080);
    tcp.set_read_timeout(Some(TOLD_WITHIN)).unwrap();
    tcp.write_all(b"\x00\x1d\x12\x34\x01\x00\x00\x01 no HTTP")
        .unwrap();
    net::read_to_end(&mut tcp).1
}

/// RST to both ends, in both families.
#[test]
fn resets_reach_both_ends() {
    let mut agent = Agent::started(Bed::new("rst"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&ingress(8080), 1, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        assert_eq!(reset(&agent, pod(SERVER, family)), End::Reset, "{family:?}");
    }
    until("the server has no connection left", || {
        let left = agent.run(Place::Server, "ss -Htn state established sport = :8080");
        left.trim().is_empty().then_some(())
    });
}

/// Heads that do not fit a segment.
#[test]
fn heads_over_several_segments() {
    let mut agent = Agent::started(Bed::new("head"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&ingress(8080), 1, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        let address = in_url(pod(SERVER, family));
        for (path, expected) in [("/hostname", "200"), ("/clientip", "403")] {
            let line = format!(
                "curl -s -g -m 10 -o /dev/null -w '%{{http_code}}' -H \"Cookie: $(head -c 5000 \
                 /dev/zero | tr '\\0' c)\" http://{address}:8080{path}"
            );
            assert_eq!(agent.run(Place::Client, &line), expected, "{path}");
        }
    }
    // Byte by byte.
    let mut tcp = agent.connect(Place::Client, pod(SERVER, Family::V4), 8080);
    for byte in b"GET /hostname HTTP/1.1\r\nHost: a.test\r\n\r\n" {
        tcp.write_all(&[*byte]).unwrap();
    }
    assert_eq!(net::read_response(&mut tcp).unwrap(), 200);
}

/// A ClientHello of more than 4000 bytes.
#[test]
fn hellos_over_several_segments() {
    let mut agent = Agent::started(Bed::new("hello"));
    agent.serve(Place::Server, "server", "443/tls");
    agent.add_l7(&egress(443), 1, POLICY, &[L7::Tls("*.alfa.test")]);
    let alpn: Vec<_> = (0..200)
        .map(|n| format!("protocol-of-no-use-{n}"))
        .collect();
    for family in FAMILIES {
        let address = in_url(pod(SERVER, family));
        for (name, expected) in [("www.alfa.test", true), ("www.bravo.test", false)] {
            let line = format!(
                "timeout 10 openssl s_client -connect {address}:443 -servername {name} -alpn {} \
                 </dev/null 2>&1",
                alpn.join(",")
            );
            let said = agent.output(Place::Client, &line).stdout;
            assert_eq!(
                said.contains("BEGIN CERTIFICATE"),
                expected,
                "{name}: {said}"
            );
            // Alert 49, `access_denied`.
            assert_eq!(
                said.contains("alert access denied"),
                !expected,
                "{name}: {said}"
            );
        }
    }
}

/// The second request of a connection is judged as the first was.
#[test]
fn second_request_denied() {
    let mut agent = Agent::started(Bed::new("keep"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&ingress(8080), 1, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        let mut tcp = agent.connect(Place::Client, pod(SERVER, family), 8080);
        assert_eq!(net::get(&mut tcp, "/hostname").unwrap(), 200);
        assert_eq!(net::get(&mut tcp, "/hostname?again").unwrap(), 200);
        assert_eq!(net::get(&mut tcp, "/clientip").unwrap(), 403);
        let (rest, end) = net::read_to_end(&mut tcp);
        assert_ne!(end, End::Silent, "{rest}");
    }
}

/// Rules at both ends on one node: the switch keeps one VLAN a connection, that of the server's rule.
/// The client's rule is not enforced; nothing that an engine could do about it.
#[test]
fn rules_at_both_ends() {
    let mut agent = Agent::started(Bed::new("both"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&egress(8080), 1, POLICY, &[path("/shell*")]);
    agent.add_l7(&ingress(8080), 2, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        let address = pod(SERVER, family);
        assert_eq!(status(&agent, Place::Client, address, "/hostname"), 200);
        assert_eq!(status(&agent, Place::Client, address, "/shell"), 403);
    }
}

/// An Egress address and a rule: the rule is enforced, and the node's own address is what the outside
/// sees, as with any engine at these ports.
#[test]
fn egress_address_and_rule() {
    let mut agent = Agent::started(Bed::new("cr"));
    agent.serve(Place::Out, "outside", "8080");
    agent.add_flows(&pipeline::egress_mark(CLIENT, &agent.ports));
    let seen_as = |agent: &Agent, address: &str| {
        let url = format!("http://{}:8080/clientip", in_url(address));
        agent.run(Place::Client, &format!("curl -s -g -m 10 {url}"))
    };
    if kernel_datapath() {
        for family in FAMILIES {
            let address = OUTSIDE[family.index()];
            assert!(seen_as(&agent, address).contains(EGRESS[family.index()]));
        }
    }
    agent.add_l7(&egress(8080), 1, POLICY, &[path("/client*")]);
    for family in FAMILIES {
        let address = OUTSIDE[family.index()];
        assert!(seen_as(&agent, address).contains(NODE[family.index()]));
        assert_eq!(status(&agent, Place::Client, address, "/hostname"), 403);
    }
}

/// Uploads from another node, through the tunnel: what the node's receive offload merges there comes to
/// the engine as super-packets, with the kernel's datapath.
#[test]
fn large_upload_through_the_tunnel() {
    let mut agent = Agent::started(Bed::new("up"));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&ingress(8080), 1, POLICY, &[path("/shell*")]);
    let file = agent.path("large");
    std::fs::write(&file, vec![b'x'; LARGE]).unwrap();
    for family in FAMILIES {
        let address = in_url(pod(SERVER, family));
        let line = format!(
            "curl -s -g -m 30 -H Expect: -H 'Content-Type: text/plain' --data-binary @{} \
             http://{address}:8080/shell",
            file.display()
        );
        assert_eq!(agent.run(Place::Out, &line), format!("got {LARGE}"));
    }
    let (_, counters) = agent.ask("dump-counters");
    let ports = &counters["capture"];
    let super_packets = ports["antrea-l7-tap0"]["super_packets"].as_u64();
    assert_eq!(super_packets.unwrap() > 0, kernel_datapath(), "{counters}");
    for counter in ["send_errors", "truncated"] {
        assert_eq!(ports["antrea-l7-tap0"][counter], 0, "{counters}");
        assert_eq!(ports["antrea-l7-tap1"][counter], 0, "{counters}");
    }
}

/// A rule without ports redirects all of IP: what is neither HTTP nor TLS and comes to the
/// engine does not pass, not even once.
#[test]
fn rule_without_ports() {
    let mut agent = Agent::started(Bed::new("any"));
    agent.serve(Place::Server, "server", "8080");
    assert_eq!(
        FAMILIES.map(|family| datagrams(&agent, family)),
        [DATAGRAMS; 2]
    );
    let rule = Match {
        port: None,
        ..ingress(8080)
    };
    agent.add_l7(&rule, 1, POLICY, &[path("/host*")]);
    for family in FAMILIES {
        let address = pod(SERVER, family);
        let before = frames(&agent);
        let passed = datagrams(&agent, family);
        let came = frames(&agent) - before;
        assert_eq!(
            passed + came,
            DATAGRAMS,
            "{family:?}: what comes to the engine is denied"
        );
        // In a burst, the kernel's datapath may deliver datagrams behind the first by itself: those
        // the engine does not see.
        assert!(
            came == DATAGRAMS || came > 0 && kernel_datapath(),
            "{family:?}: {came}"
        );
        assert_eq!(status(&agent, Place::Client, address, "/hostname"), 200);
        assert_eq!(status(&agent, Place::Client, address, "/clientip"), 403);
    }
}

/// Frames that came to the engine.
fn frames(agent: &Agent) -> usize {
    let (_, counters) = agent.ask("dump-counters");
    let frames = counters["capture"]["antrea-l7-tap0"]["pkts"].as_u64();
    usize::try_from(frames.unwrap()).unwrap()
}

/// Sends datagrams one way; how many the server gets.
fn datagrams(agent: &Agent, family: Family) -> usize {
    let address = pod(SERVER, family);
    let bind = |place, address: &str| {
        let to = (address.parse::<IpAddr>().unwrap(), 0);
        agent.within(place, || UdpSocket::bind(to)).unwrap()
    };
    let server = bind(Place::Server, address);
    let client = bind(Place::Client, pod(CLIENT, family));
    for _ in 0..DATAGRAMS {
        client
            .send_to(b"datagram", server.local_addr().unwrap())
            .unwrap();
    }
    server.set_read_timeout(Some(LOST_AFTER)).unwrap();
    let received = (0..DATAGRAMS).take_while(|_| server.recv(&mut [0; 16]).is_ok());
    received.count()
}
