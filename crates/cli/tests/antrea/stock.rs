//! Suricata's own `suricatasc` drives the daemon.

use std::io::Write;
use std::path::Path;

use serde_json::Value;
use tollgate_lab::run::Cmd;

use crate::agent::{Agent, SOCKET, suricata_root, tenant_path};
use crate::bed::{Bed, Place, SERVER, pod};
use crate::more::{POLICY, ingress, path};
use crate::net;
use crate::pipeline::Family;

/// A command by the stock client; the reply, if it ended well.
fn ask(agent: &Agent, root: &Path, command: &str) -> Value {
    let cmd = Cmd::new("chroot").arg(root);
    let cmd = cmd.args(["suricatasc", "-c", command, SOCKET]);
    let output = agent.inside(cmd).output().unwrap();
    let reply: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|e| panic!("{command}: {e}: {}{}", output.stdout, output.stderr));
    let is_ok = reply["return"] == "OK";
    assert_eq!(output.status.success(), is_ok, "{command}: {reply}");
    reply
}

#[test]
fn stock_client() {
    let Some(root) = suricata_root() else {
        // Not by `println!`, which the harness keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "stock_client: skipped: TOLLGATE_SURICATA_ROOT names no Debian with Suricata \
             (scripts/suricata-chroot.sh makes one)"
        );
        return;
    };
    let mut agent = Agent::started(Bed::new("stock"));
    agent.mount_socket(&root);
    agent.serve(Place::Server, "server", "8080");
    // The agent's files and commands, then all is taken back and done again.
    agent.put_tenant(1, POLICY, &[path("/host*")]);
    agent.add_rule(&ingress(8080), 1, 101);
    let tenant = tenant_path(1);
    let ok = |command: &str, words: &str| {
        let reply = ask(&agent, &root, command);
        assert_eq!(reply["return"], "OK", "{command}: {reply}");
        assert_eq!(reply["message"], words, "{command}");
    };
    ok("unregister-tenant-handler 1 vlan 1", "handler removed");
    ok("unregister-tenant 1", "removing tenant succeeded");
    ok(
        &format!("register-tenant 1 {tenant}"),
        "adding tenant succeeded",
    );
    ok("register-tenant-handler 1 vlan 1", "handler added");
    ok(
        &format!("reload-tenant 1 {tenant}"),
        "reloading tenant succeeded",
    );
    let reply = ask(&agent, &root, "unregister-tenant 7");
    assert_eq!(reply["return"], "NOK", "{reply}");
    let list = ask(&agent, &root, "iface-list");
    assert_eq!(list["return"], "OK", "{list}");
    let mut tcp = agent.connect(Place::Client, pod(SERVER, Family::V4), 8080);
    assert_eq!(net::get(&mut tcp, "/hostname").unwrap(), 200);
    assert_eq!(net::get(&mut tcp, "/clientip").unwrap(), 403);
}
