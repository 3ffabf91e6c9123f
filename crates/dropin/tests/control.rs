//! The command socket with our client, with a bare one, and with clients that misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tollgate_dropin::control::Reply;
use tollgate_dropin::control::client::{Client, printed};
use tollgate_dropin::control::command::{self, Command, Handler as VlanHandler, Tenant};
use tollgate_dropin::control::server::{Handler, Server};

/// Remembers what it was asked for.
#[derive(Default)]
struct Recorder(Mutex<Vec<Command>>);

impl Handler for Recorder {
    fn handle(&self, command: Command) -> Reply {
        let reply = match &command {
            Command::UnregisterTenant(_) => Reply::failed("tenant detect engine not found"),
            Command::CommandList => {
                let names: Vec<_> = command::names().collect();
                Reply::ok(json!({ "count": names.len(), "commands": names }))
            }
            _ => Reply::ok("adding tenant succeeded"),
        };
        self.0.lock().unwrap().push(command);
        reply
    }
}

struct Daemon {
    path: PathBuf,
    recorder: Arc<Recorder>,
    _directory: tempfile::TempDir,
}

fn daemon() -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/suricata-command.socket");
    let recorder = Arc::new(Recorder::default());
    let server = Server::bind(&path).unwrap();
    let handler = Arc::clone(&recorder);
    thread::spawn(move || server.serve(&handler));
    Daemon {
        path,
        recorder,
        _directory: directory,
    }
}

#[test]
fn the_commands_of_an_agent_arrive() {
    let daemon = daemon();
    let mut client = Client::connect(&daemon.path).unwrap();
    let file = "/etc/suricata/antrea-tenant-1.yaml";
    let tenant = Tenant {
        id: 1,
        filename: Some(file.into()),
    };
    let handler = VlanHandler { id: 1, vlan: 1 };
    let lines = [
        (
            format!("register-tenant 1 {file}"),
            Command::RegisterTenant(tenant.clone()),
        ),
        (
            "register-tenant-handler 1 vlan 1".to_owned(),
            Command::RegisterTenantHandler(handler),
        ),
        (
            format!("reload-tenant 1 {file}"),
            Command::ReloadTenant(tenant),
        ),
        (
            "unregister-tenant-handler 1 vlan 1".to_owned(),
            Command::UnregisterTenantHandler(handler),
        ),
        (
            "unregister-tenant 1".to_owned(),
            Command::UnregisterTenant(1),
        ),
    ];
    for (line, expected) in lines {
        let reply = client.ask(&line).unwrap();
        let asked = daemon.recorder.0.lock().unwrap().pop().unwrap();
        assert_eq!(asked, expected);
        // Whoever reads this expects one object with two strings.
        let printed: Value = serde_json::from_str(&printed(&reply)).unwrap();
        assert!(printed["message"].is_string(), "{printed}");
        let word = if line.starts_with("unregister-tenant ") {
            "NOK"
        } else {
            "OK"
        };
        assert_eq!(printed["return"], word, "{line}");
    }
}

#[test]
fn what_is_typed_wrong_is_not_sent() {
    let cases = [
        ("", "no command"),
        ("frob", "unknown command frob"),
        ("register-tenant 1", "missing argument filename"),
        ("register-tenant one /x", "id must be a number"),
        ("unregister-tenant 1 2", "too many arguments"),
    ];
    for (line, expected) in cases {
        let error = command::from_line(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

/// Speaks the protocol by hand, as an old client does.
fn raw(daemon: &Daemon, says: &[&str]) -> String {
    let mut stream = UnixStream::connect(&daemon.path).unwrap();
    for part in says {
        stream.write_all(part.as_bytes()).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers);
    answers
}

#[test]
fn objects_need_no_newlines_and_may_come_in_pieces() {
    let daemon = daemon();
    let answers = raw(
        &daemon,
        &[
            "{\"version\": \"0.1\"}",
            "{\"command\":\"unregister-te",
            "nant\",\"arguments\":{\"id\":3}}",
            "{\"command\":\"frob\"}\n{\"command\":\"register-tenant-handler\",\"arguments\":{\"id\":3,\"htype\":\"vlan\",\"hargs\":4095}}",
        ],
    );
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers[0], json!({ "return": "OK" }));
    assert_eq!(answers[1]["message"], "tenant detect engine not found");
    assert_eq!(
        answers[2],
        json!({ "message": "Unknown command", "return": "NOK" })
    );
    assert_eq!(answers[3]["message"], "hargs is no number of a VLAN");
    assert_eq!(answers.len(), 4);
}

#[test]
fn a_client_that_misbehaves_harms_nobody() {
    let daemon = daemon();
    assert_eq!(
        raw(&daemon, &["{\"version\": \"9\"}"]),
        "{\"return\":\"NOK\"}\n"
    );
    assert_eq!(raw(&daemon, &["garbage"]), "");
    assert_eq!(raw(&daemon, &["{\"version\": "]), "");
    assert_eq!(raw(&daemon, &[]), "");
    let mut client = Client::connect(&daemon.path).unwrap();
    let reply = client.ask("command-list").unwrap();
    assert!(reply.ok);
    assert_eq!(reply.message["count"], command::names().count());
}

#[test]
fn a_dead_daemons_socket_is_taken_over_and_a_living_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    std::fs::write(&path, "").unwrap();
    let server = Server::bind(&path).unwrap();
    let error = Server::bind(&path).err().unwrap();
    assert!(error.to_string().contains("another daemon"), "{error}");
    drop(server);
    assert!(!path.exists());
    let error = Client::connect(&path).err().unwrap().to_string();
    assert!(error.contains("is the daemon running?"), "{error}");
}
