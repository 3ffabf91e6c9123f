//! Rules that change and engines that end, under connections that go on.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use crate::agent::{ALL_RULES, Agent, L7, tenant_path};
use crate::bed::{Bed, Place, SERVER, pod, until};
use crate::more::{POLICY, ingress, path};
use crate::net::{self, End};
use crate::pipeline::{FAMILIES, Family};

/// Reloads under a live connection.
const RELOADS: usize = 20;

fn connect(agent: &Agent) -> TcpStream {
    agent.connect(Place::Client, pod(SERVER, Family::V4), 8080)
}

fn started(name: &'static str, items: &[L7]) -> Agent {
    let mut agent = Agent::started(Bed::new(name));
    agent.serve(Place::Server, "server", "8080");
    agent.add_l7(&ingress(8080), 1, POLICY, items);
    agent
}

/// A tenant comes again with the same rules in another order whenever pods come and go: connections
/// go on. If it comes with others, open connections are judged by them.
#[test]
fn reloads_under_live_connections() {
    let items = [path("/host*"), path("/client*")];
    let agent = started("churn", &items);
    let mut first = connect(&agent);
    assert_eq!(net::get(&mut first, "/hostname").unwrap(), 200);
    for round in 0..RELOADS {
        let mut order = items;
        order.rotate_left(round % 2);
        agent.put_tenant(1, POLICY, &order);
        assert_eq!(
            net::get(&mut first, "/clientip").unwrap(),
            200,
            "round {round}"
        );
    }
    // Other rules come and go beside it.
    for vlan in 2..6 {
        agent.put_tenant(vlan, POLICY, &[path("/nothing")]);
        assert_eq!(
            net::get(&mut first, "/hostname").unwrap(),
            200,
            "vlan {vlan}"
        );
    }
    for vlan in 2..6 {
        agent.delete_tenant(vlan);
        assert_eq!(
            net::get(&mut first, "/hostname").unwrap(),
            200,
            "vlan {vlan}"
        );
    }
    agent.put_tenant(1, POLICY, &[path("/host*")]);
    let denied = net::get(&mut first, "/clientip");
    assert!(!matches!(denied, Ok(200)), "{denied:?}");
    let mut second = connect(&agent);
    assert_eq!(net::get(&mut second, "/hostname").unwrap(), 200);
}

/// A VLAN is given to another rule at once: connections of the first go on under its rules, new ones
/// are judged by the second's.
#[test]
fn recycled_vlan() {
    let agent = started("vlan2", &[path("/host*")]);
    let mut old = connect(&agent);
    assert_eq!(net::get(&mut old, "/hostname").unwrap(), 200);
    agent.delete_l7(&ingress(8080), 1);
    agent.add_l7(
        &ingress(8080),
        1,
        "AntreaNetworkPolicy:test/second",
        &[path("/client*")],
    );
    assert_eq!(net::get(&mut old, "/hostname").unwrap(), 200);
    let mut new = connect(&agent);
    assert_eq!(net::get(&mut new, "/clientip").unwrap(), 200);
    assert_eq!(net::get(&mut new, "/hostname").unwrap(), 403);
    let denied = net::get(&mut old, "/clientip");
    assert!(!matches!(denied, Ok(200)), "{denied:?}");
}

/// The process that has the packets: the youngest of the container.
fn engine(agent: &Agent) -> u32 {
    let started = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        // Field 22, the start's time; two fields come before the rest.
        let start: u64 = rest.split(' ').nth(19).unwrap_or("0").parse().unwrap();
        start
    };
    let all = agent.engine_processes();
    all.into_iter()
        .max_by_key(|pid| (started(*pid), *pid))
        .unwrap()
}

/// The engine is killed: it is there again with its tenants, nothing that is denied gets through in between,
/// and open connections do not hang.
#[test]
fn killed_engine() {
    let agent = started("kill", &[path("/host*")]);
    let mut open = connect(&agent);
    assert_eq!(net::get(&mut open, "/hostname").unwrap(), 200);
    let pid = engine(&agent);
    agent.kill(&[pid]);
    let denied = |family: Family| {
        let line = format!(
            "curl -s -g -m 1 http://{}:8080/clientip",
            crate::bed::in_url(pod(SERVER, family))
        );
        agent.output(Place::Client, &line).stdout
    };
    until("new connections get through", || {
        for family in FAMILIES {
            let said = denied(family);
            assert!(
                !said.contains(pod(crate::bed::CLIENT, family)),
                "it got through: {said}"
            );
        }
        let line = format!(
            "curl -s -m 1 http://{}:8080/hostname",
            pod(SERVER, Family::V4)
        );
        let said = agent.output(Place::Client, &line).stdout;
        (said == "server").then_some(())
    });
    assert_ne!(engine(&agent), pid);
    open.write_all(b"GET /hostname HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    let (_, end) = net::read_to_end(&mut open);
    assert_eq!(end, End::Reset, "its beginning was not seen");
}

/// The whole daemon is killed, and the agent starts anew with the same rule: files of the old one are in
/// the way of nothing.
#[test]
fn daemon_started_anew() {
    let agent = started("anew", &[path("/host*")]);
    let all = agent.engine_processes();
    agent.kill(&all);
    agent.start_engine();
    assert!(
        agent
            .contained(&format!("rm {}", tenant_path(1)))
            .status
            .success()
    );
    agent.put_tenant(1, POLICY, &[path("/host*")]);
    let mut tcp = connect(&agent);
    assert_eq!(net::get(&mut tcp, "/hostname").unwrap(), 200);
    assert_eq!(net::get(&mut tcp, "/clientip").unwrap(), 403);
}

/// Without tenants: one file, in which a rule with `vlan.id` sets a bit that the others ask for.
#[test]
fn one_file_for_all_vlans() {
    let mut agent = Agent::new(Bed::new("file"));
    agent.start_engine_with_one_file();
    agent.serve(Place::Server, "server", "8080");
    let rules = |vlan: u16, path: &str| {
        format!(
            "alert ip any any -> any any (msg: \"vlan\"; vlan.id: {vlan}; flowbits: set,v{vlan}; noalert; \
             sid: {vlan}0;)\n\
             pass http any any -> any any (msg: \"Allow\"; flowbits: isset,v{vlan}; http.uri; \
             content:\"{path}\"; startswith; sid: {vlan}1;)\n\
             reject ip any any -> any any (msg: \"Reject by {POLICY}\"; flow: to_server, established; \
             flowbits: isset,v{vlan}; sid: {vlan}2;)\n"
        )
    };
    agent.write(ALL_RULES, &(rules(1, "/host") + &rules(2, "/client")));
    agent.command("reload-rules");
    agent.add_rule(&ingress(8080), 1, 101);
    let mut first = connect(&agent);
    assert_eq!(net::get(&mut first, "/hostname").unwrap(), 200);
    assert_eq!(net::get(&mut first, "/clientip").unwrap(), 403);
    agent.delete_rule(&ingress(8080));
    agent.add_rule(&ingress(8080), 2, 102);
    let mut second = connect(&agent);
    assert_eq!(net::get(&mut second, "/clientip").unwrap(), 200);
    // The rules of one change under its connection.
    agent.write(ALL_RULES, &(rules(1, "/host") + &rules(2, "/nothing")));
    agent.command("reload-rules");
    let denied = net::get(&mut second, "/clientip");
    assert!(!matches!(denied, Ok(200)), "{denied:?}");
}
