//! The daemon's life: start, death, tenants, what others do to its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use tollgate_lab::blind::VLAN;
use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;
use tollgate_lab::run::Cmd;

use crate::bed::{Daemon, eventually};

const API: &str = r#"http http.uri; content:"/v2/"; startswith;"#;
const OLD: &str = r#"http http.uri; content:"/v1/"; startswith;"#;

/// The engine's process: the supervisor's only child.
fn engine(daemon: &Daemon) -> Option<u32> {
    let pid = fs::read_to_string(daemon.path("pid")).ok()?;
    let pid = pid.trim();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Daemon {
    fn get(&self, path: &str) -> Result<String, i32> {
        let address = Family::V4.outside();
        let url = format!("http://{address}{path}");
        self.curl(&["-o", "/dev/null", "-w", "%{http_code}", &url])
    }
}

#[test]
fn tenants_come_change_and_go() {
    let daemon = Daemon::start("di-tenants", "");
    let yaml = daemon.write_tenant(7, &[API]);
    daemon.ok(
        &format!("register-tenant 7 {yaml}"),
        "adding tenant succeeded",
    );
    // The same again is the same.
    daemon.ok(
        &format!("register-tenant 7 {yaml}"),
        "adding tenant succeeded",
    );
    let handler = format!("register-tenant-handler 7 vlan {VLAN}");
    daemon.ok(&handler, "handler added");
    daemon.ok(&handler, "handler added");
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    // The same rules in another order, with other numbers: nothing changes.
    daemon.write_tenant(7, &[API, API]);
    daemon.ok(
        &format!("reload-tenant 7 {yaml}"),
        "reloading tenant succeeded",
    );
    // Others: in force when the answer comes.
    for round in 0..10 {
        let (rule, good, bad) = match round % 2 {
            0 => (OLD, "/v1/status", "/v2/status"),
            _ => (API, "/v2/status", "/v1/status"),
        };
        daemon.write_tenant(7, &[rule]);
        daemon.ok(
            &format!("reload-tenant 7 {yaml}"),
            "reloading tenant succeeded",
        );
        assert_eq!(daemon.get(good).unwrap(), "200", "{round}");
        assert_eq!(daemon.get(bad).unwrap(), "403", "{round}");
    }
    // A pass rule that is not understood lets nothing through; the others do.
    daemon.write_tenant(
        7,
        &[
            API,
            "http http.cookie; content:\"x\";",
            "http http.host; content:\"*\"; startswith;",
        ],
    );
    daemon.ok(
        &format!("reload-tenant 7 {yaml}"),
        "reloading tenant succeeded",
    );
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    assert_eq!(daemon.log().matches("a pass rule is left out").count(), 2);
    // Another rule that is not understood changes nothing.
    let file = daemon.path("antrea-l7-networkpolicy-7.rules");
    fs::write(&file, "drop dns any any -> any any (sid: 1;)\n").unwrap();
    daemon.nok(
        &format!("reload-tenant 7 {yaml}"),
        "reload tenant failed: line 1",
    );
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    daemon.nok("register-tenant 8 /nonexistent.yaml", "file does not exist");
    daemon.nok("reload-tenant 9 /nonexistent.yaml", "reload tenant failed");
    daemon.nok("unregister-tenant 9", "tenant detect engine not found");
    daemon.nok(
        &format!("register-tenant-handler 8 vlan {VLAN}"),
        "handler setup failure",
    );
    daemon.nok(
        "unregister-tenant-handler 7 vlan 9",
        "handler unregister failure",
    );
    daemon.nok("frobnicate", "unknown command");
    // The agent's workers do not wait for each other.
    std::thread::scope(|scope| {
        for id in 200..216 {
            let daemon = &daemon;
            scope.spawn(move || {
                let yaml = daemon.write_tenant(id, &[API]);
                let line = format!("register-tenant {id} {yaml}");
                daemon.ok(&line, "adding tenant succeeded");
                let line = format!("register-tenant-handler {id} vlan {id}");
                daemon.ok(&line, "handler added");
            });
        }
    });
    let (_, stats) = daemon.ask("ruleset-stats");
    assert_eq!(stats["message"][0]["rules_loaded"], 17 * 2, "{stats}");
    let handler = format!("unregister-tenant-handler 7 vlan {VLAN}");
    daemon.ok(&handler, "handler removed");
    daemon.ok("unregister-tenant 7", "removing tenant succeeded");
    assert_eq!(daemon.get("/v1/status").unwrap(), "200");
}

#[test]
fn a_number_that_is_used_again_does_not_judge_old_connections() {
    let daemon = Daemon::start("di-recycle", "");
    daemon.register(VLAN, &[API]);
    let lab = daemon.lab();
    let address = Family::V4.outside();
    // A client that asks twice over one connection; what it asks second is told it in a file.
    let (gate, answers) = (daemon.path("gate"), daemon.path("answers"));
    let script = format!(
        "import http.client, os, time\nc = http.client.HTTPConnection('{address}', 80, timeout=20)\n\
         out = open('{answers}', 'w', buffering=1)\n\
         def ask(path):\n c.request('GET', path)\n r = c.getresponse()\n r.read()\n print(r.status, file=out)\n\
         ask('/v2/status')\nwhile not os.path.exists('{gate}'): time.sleep(0.01)\n\
         ask('/v2/status')\nask('/v1/status')\n",
        answers = answers.display(),
        gate = gate.display(),
    );
    let python = Cmd::new("python3").args(["-c", &script]);
    let log = daemon.path("client.log");
    let mut client = lab.at(Place::Pod, python).spawn(&log).unwrap();
    let answered = || fs::read_to_string(&answers).unwrap_or_default();
    eventually("the first answer", || answered() == "200\n");
    daemon.ok(
        &format!("unregister-tenant-handler {VLAN} vlan {VLAN}"),
        "handler removed",
    );
    daemon.ok(
        &format!("unregister-tenant {VLAN}"),
        "removing tenant succeeded",
    );
    daemon.register(VLAN, &[OLD]);
    fs::write(&gate, "").unwrap();
    client.wait().unwrap();
    // The old connection by the old rules, a new one by the new.
    assert_eq!(answered(), "200\n200\n403\n");
    assert_eq!(daemon.get("/v1/status").unwrap(), "200");
    assert_eq!(daemon.get("/v2/status").unwrap(), "403");
}

/// Asks for what is forbidden, over and over, until a file is there; each status is a line.
fn probe_the_forbidden(daemon: &Daemon, done: &Path, seen: &Path) -> Child {
    let script = format!(
        "import http.client, os\nout = open('{seen}', 'w', buffering=1)\n\
         while not os.path.exists('{done}'):\n try:\n  \
         c = http.client.HTTPConnection('{address}', 80, timeout=0.05)\n  \
         c.request('GET', '/v1/status')\n  print(c.getresponse().status, file=out)\n \
         except OSError:\n  print('failed', file=out)\n",
        seen = seen.display(),
        done = done.display(),
        address = Family::V4.outside(),
    );
    let python = Cmd::new("python3").args(["-c", &script]);
    let log = daemon.path("prober.log");
    daemon.lab().at(Place::Pod, python).spawn(&log).unwrap()
}

#[test]
fn connections_that_outlive_their_engine_are_reset_at_once() {
    for (own, expected) in [
        ("", "200\nreset\n"),
        ("tollgate:\n  midstream: pass\n", "200\n200\n"),
    ] {
        let daemon = Daemon::start("di-midstream", own);
        daemon.register(VLAN, &[API]);
        let (gate, answers) = (daemon.path("gate"), daemon.path("answers"));
        let script = format!(
            "import http.client, os, time\nout = open('{answers}', 'w', buffering=1)\n\
             c = http.client.HTTPConnection('{address}', 80, timeout=20)\n\
             def ask():\n c.request('GET', '/v2/status')\n r = c.getresponse()\n r.read()\n \
             print(r.status, file=out)\n\
             ask()\nwhile not os.path.exists('{gate}'): time.sleep(0.01)\n\
             try:\n ask()\nexcept ConnectionResetError:\n print('reset', file=out)\n",
            answers = answers.display(),
            gate = gate.display(),
            address = Family::V4.outside(),
        );
        let python = Cmd::new("python3").args(["-c", &script]);
        let lab = daemon.lab();
        let log = daemon.path("client.log");
        let mut client = lab.at(Place::Pod, python).spawn(&log).unwrap();
        let answered = || fs::read_to_string(&answers).unwrap_or_default();
        eventually("the first answer", || answered() == "200\n");
        let old = engine(&daemon).unwrap();
        let killed = Command::new("kill").args(["-9", &old.to_string()]).status();
        assert!(killed.unwrap().success());
        eventually("another engine", || {
            engine(&daemon).is_some_and(|new| new != old) && daemon.is_listening()
        });
        fs::write(&gate, "").unwrap();
        client.wait().unwrap();
        assert_eq!(answered(), expected);
    }
}

#[test]
fn an_engine_that_dies_is_started_again_with_its_tenants() {
    let daemon = Daemon::start("di-death", "");
    daemon.register(VLAN, &[API]);
    let rules = daemon.path(&format!("antrea-l7-networkpolicy-{VLAN}.rules"));
    // What is in force is what was read, whatever became of the file.
    fs::write(&rules, "").unwrap();
    let (done, seen) = (daemon.path("done"), daemon.path("seen"));
    let mut prober = probe_the_forbidden(&daemon, &done, &seen);
    for _ in 0..5 {
        let old = engine(&daemon).unwrap();
        let killed = Command::new("kill").args(["-9", &old.to_string()]).status();
        assert!(killed.unwrap().success());
        eventually("another engine", || {
            engine(&daemon).is_some_and(|new| new != old) && daemon.is_listening()
        });
        assert_eq!(daemon.get("/v2/status").unwrap(), "200");
        assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    }
    assert!(
        daemon.log().contains("it is started again"),
        "{}",
        daemon.log()
    );
    fs::write(&done, "").unwrap();
    prober.wait().unwrap();
    // Between death and tenants nothing passed that may not.
    let seen = fs::read_to_string(&seen).unwrap();
    let statuses: BTreeSet<&str> = seen.lines().filter(|line| *line != "failed").collect();
    assert_eq!(statuses, BTreeSet::from(["403"]), "{seen}");
    assert!(seen.lines().count() > 10, "{seen}");
    // A second daemon is refused, and the first does not mind.
    let second = daemon.run_suricata(&["-D"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another daemon listens"), "{said}");
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    // Told to end, it ends, and leaves no socket; a new one begins without tenants.
    daemon.ok("shutdown", "Closing Suricata");
    eventually("the end", || !daemon.path("pid").exists());
    assert!(!daemon.socket().exists());
    fs::write(daemon.socket(), "stale").unwrap();
    let output = daemon.run_suricata(&["-D"]);
    assert!(output.status.success(), "{output:?}");
    assert!(daemon.is_listening());
    assert_eq!(daemon.get("/v1/status").unwrap(), "200");
}

#[test]
fn the_event_log_survives_what_others_do_to_it() {
    let daemon = Daemon::start("di-file", "");
    assert_eq!(fs::read(daemon.eve()).unwrap(), b"", "there from the start");
    daemon.register(VLAN, &[API]);
    assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    eventually("an event", || daemon.events().len() == 1);
    let truncated = Command::new("truncate")
        .args(["-s", "0"])
        .arg(daemon.eve())
        .status();
    assert!(truncated.unwrap().success());
    assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    eventually("one event, at the file's start", || {
        fs::read(daemon.eve()).unwrap().starts_with(b"{") && daemon.events().len() == 1
    });
}

#[test]
fn a_vlan_without_rules_is_dropped_if_asked_for() {
    let daemon = Daemon::start("di-strict", "tollgate:\n  unknown-vlan: drop\n");
    let url = format!("http://{}/v2/status", Family::V4.outside());
    let quick = ["--connect-timeout", "1", &url];
    assert_eq!(daemon.curl(&quick), Err(28));
    daemon.register(VLAN, &[API]);
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    let dropped = &daemon.counters()["tollgate"]["unknown_vlan_dropped"];
    assert!(dropped.as_u64().unwrap() > 0);
}

#[test]
fn what_cannot_start_says_why() {
    let daemon = Daemon::start("di-usage", "");
    let refused = |args: &[&str], words: &str| {
        let output = daemon.run_suricata(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{args:?}: {said}");
    };
    refused(&["--pcap"], "option --pcap is not known here");
    refused(
        &["-T", "--set", "tollgate.midstream=maybe"],
        "midstream is reset or pass",
    );
    refused(&["-T", "-S", "/nonexistent.rules"], "/nonexistent.rules");
    let test = daemon.run_suricata(&["-T", "-v", "--set", "stats.enabled=no"]);
    assert!(test.status.success(), "{test:?}");
    // A port that is not there: the launcher waits for the engine's word.
    let text = fs::read_to_string(daemon.path("antrea.yaml")).unwrap();
    fs::write(daemon.path("antrea.yaml"), text.replace("l7-p1", "l7-p9")).unwrap();
    let socket = daemon.path("run/other.socket").display().to_string();
    let set = format!("unix-command.filename={socket}");
    refused(&["-D", "--set", &set], "l7-p9");
    let version = Command::new(daemon.path("suricata"))
        .arg("-V")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains("Tollgate"));
    let hidden = Command::new(crate::TOLLGATE)
        .args(["suricata", "-V"])
        .output();
    assert_eq!(hidden.unwrap().stdout, version.stdout);
    // The client without a daemon: one object, exit code 1.
    let output = Command::new(daemon.path("suricatasc"))
        .args(["-c", "version", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["return"], "NOK");
    assert!(output.stderr.is_empty());
}

impl Daemon {
    fn is_listening(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }
}

#[test]
fn one_file_may_have_the_rules_of_all_vlans() {
    let daemon = Daemon::start("di-onefile", "");
    daemon.ok("shutdown", "Closing Suricata");
    eventually("the end", || !daemon.path("pid").exists());
    let file = daemon.path("all.rules");
    let write = |path: &str| {
        let text = format!(
            "alert ip any any -> any any (msg: \"bit\"; vlan.id: {VLAN}; flowbits: set, vlan{VLAN}; \
             noalert; sid: 1;)\n\
             reject ip any any -> any any (msg: \"Reject by all\"; flow: to_server, established; \
             flowbits: isset, vlan{VLAN}; sid: 2;)\n\
             pass http any any -> any any (msg: \"Allow\"; flowbits: isset, vlan{VLAN}; \
             http.uri; content:\"{path}\"; startswith; sid: 3;)\n"
        );
        fs::write(&file, text).unwrap();
    };
    let more = ["-D", "--set", "multi-detect.enabled=no", "-S"];
    let more = [&more[..], &[file.to_str().unwrap()]].concat();
    // A rule that is not understood: it does not start, and says where.
    fs::write(&file, "drop dns any any -> any any (sid: 1;)\n").unwrap();
    let refused = daemon.run_suricata(&more);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("line 1"), "{said}");
    write("/v2/");
    let output = daemon.run_suricata(&more);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(daemon.get("/v2/status").unwrap(), "200");
    assert_eq!(daemon.get("/v1/status").unwrap(), "403");
    write("/v1/");
    daemon.ok("ruleset-reload-rules", "done");
    assert_eq!(daemon.get("/v1/status").unwrap(), "200");
    assert_eq!(daemon.get("/v2/status").unwrap(), "403");
    fs::write(&file, "nonsense\n").unwrap();
    daemon.nok("ruleset-reload-rules", "reload failed");
    assert_eq!(daemon.get("/v1/status").unwrap(), "200");
    // As agents write it that need no tenants: refused in parts, and everything else as well.
    let bit = format!("flowbits: isset,antrea_l7_{VLAN};");
    let reject = |sid: u8, protocol: &str, options: &str| {
        format!(
            "reject {protocol} any any -> any any (msg: \"Reject by AntreaNetworkPolicy:ns/a\"; {bit} \
             {options} sid: {sid};)\n"
        )
    };
    let established = "flow: to_server, established;";
    let others = format!(
        "reject ip any any -> any any (msg: \"belongs to no rule\"; {established} \
         flowbits: isnotset,antrea_l7; sid: 1;)\n"
    );
    let parts = [
        others.clone(),
        format!(
            "alert ip any any -> any any (vlan.id: {VLAN}; flowbits: set,antrea_l7_{VLAN}; \
             flowbits: set,antrea_l7; flowbits: noalert; sid: 2;)\n"
        ),
        reject(
            3,
            "ip",
            &format!("{established} app-layer-protocol: !http;"),
        ),
        reject(
            4,
            "ip",
            &format!("{established} app-layer-protocol: failed;"),
        ),
        reject(
            5,
            "ip",
            &format!(
                "flowbits: isnotset,antrea_l7_allowed; {established} flow.bytes_toserver: >65536;"
            ),
        ),
        reject(
            6,
            "ip",
            &format!("flowbits: isnotset,antrea_l7_allowed; {established} flow.age: >5;"),
        ),
        reject(7, "http1:request_headers", ""),
        format!(
            "pass http any any -> any any (msg: \"Allow http by AntreaNetworkPolicy:ns/a\"; {bit} \
             flowbits: set,antrea_l7_allowed; http.uri; content:\"/v2/\"; startswith; sid: 8;)\n"
        ),
    ];
    fs::write(&file, parts.concat()).unwrap();
    daemon.ok("ruleset-reload-rules", "done");
    let v6 = Family::V6.outside();
    for (path, status) in [("/v1/status", "403"), ("/v2/status", "200")] {
        assert_eq!(daemon.get(path).unwrap(), status);
        let url = format!("http://[{v6}]{path}");
        let got = daemon.curl(&["-g", "-o", "/dev/null", "-w", "%{http_code}", &url]);
        assert_eq!(got.unwrap(), status);
    }
    // The alert names the request here; an address of IPv6 has no brackets.
    let url_and_host = |event: &serde_json::Value| {
        let http = &event["http"];
        let text = |field: &str| http[field].as_str().unwrap_or_default().to_owned();
        (text("url"), text("hostname"))
    };
    for (kind, path) in [("alert", "/v1/status"), ("http", "/v2/status")] {
        eventually("events that name the request", || {
            let events = daemon.events();
            let of_kind = events.iter().filter(|event| event["event_type"] == kind);
            of_kind
                .map(url_and_host)
                .any(|found| found == (path.to_owned(), v6.to_string()))
        });
    }
    // No rule left: whatever comes belongs to none, and is refused.
    fs::write(&file, others).unwrap();
    daemon.ok("ruleset-reload-rules", "done");
    let url = format!("http://{}/v2/status", Family::V4.outside());
    assert_eq!(daemon.curl(&["--connect-timeout", "1", &url]), Err(28));
}
