//! The admin socket from outside: what it answers, to whom, and how a stream behaves.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tollgate_agent::admin::{self, Admin};
use tollgate_agent::config::{Config, Overrides};
use tollgate_agent::events::Events;
use tollgate_agent::hub::Hub;
use tollgate_agent::metrics::{EventMetrics, registry};
use tollgate_agent::record::{Recorder, Stamped, What};
use tollgate_agent::state::State;
use tollgate_engine::event::{Event, EventKind, Verdict, VerdictWord};
use tollgate_engine::key::FlowKey;
use tollgate_policy::Side;
use tollgate_wire::tag::EndpointId;

/// Far above what a loaded machine needs.
const LONG: Duration = Duration::from_secs(20);

fn event(word: VerdictWord, flow_id: u64) -> Stamped {
    let key = FlowKey {
        endpoint: EndpointId::new(1).expect("in range"),
        protocol: 6,
        local: "10.0.0.2".parse().expect("an address"),
        local_port: 40_000,
        remote: "203.0.113.7".parse().expect("an address"),
        remote_port: 443,
    };
    let verdict = Verdict {
        word,
        l7: None,
        policy: Some("ClusterNetworkPolicy/web".into()),
        rule: None,
        reason: "rule",
        detail: String::new(),
        logged: false,
    };
    let event = Event {
        flow_id,
        key,
        side: Side::Egress,
        kind: EventKind::Verdict(verdict),
    };
    Stamped {
        time: jiff::Timestamp::now(),
        what: What::Flow { worker: 0, event },
    }
}

/// An agent's admin socket with nothing behind it.
fn serve(dir: &Path) -> Arc<Hub> {
    let recorder = Recorder {
        node: "n1".into(),
        keep_queries: false,
    };
    let metrics = EventMetrics::default();
    let hub = Hub::new(recorder, 100, false, metrics.clone());
    let config = Config::parse(Path::new("t"), "", Overrides::default()).expect("defaults");
    let state = State::new(config, Arc::clone(&hub), Events::new(8));
    let registry = Arc::new(registry(&metrics, Arc::clone(&state)));
    let listener = admin::bind(&dir.join("agent.sock")).expect("bound");
    tokio::spawn(axum::serve(listener, admin::router(Admin { state, registry })).into_future());
    hub
}

async fn connect(dir: &Path, path: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(dir.join("agent.sock"))
        .await
        .expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    BufReader::new(stream)
}

async fn get(dir: &Path, path: &str) -> String {
    let mut text = String::new();
    connect(dir, path)
        .await
        .read_to_string(&mut text)
        .await
        .expect("read");
    text
}

/// The next line that holds a JSON object; chunk sizes and heads are passed over.
async fn next_event(reader: &mut BufReader<UnixStream>) -> serde_json::Value {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(LONG, reader.read_line(&mut line));
        assert_ne!(
            read.await.expect("in time").expect("read"),
            0,
            "the stream ended"
        );
        if line.starts_with('{') {
            return serde_json::from_str(&line).expect("JSON");
        }
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_replaces_a_dead_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.sock");
    drop(admin::bind(&path).expect("bound"));
    assert!(path.exists(), "a dead agent leaves its socket");
    let _listener = admin::bind(&path).expect("bound again");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn every_path_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let hub = serve(dir.path());
    hub.publish(&mut vec![
        event(VerdictWord::Denied, 1),
        event(VerdictWord::Allowed, 2),
    ]);
    for (path, status, part) in [
        ("/v1/status", 200, "\"health\":\"starting\""),
        ("/v1/flows", 200, "[]"),
        ("/v1/policy", 200, "\"policies\":[]"),
        ("/v1/metrics", 200, "tollgate_verdicts_total"),
        ("/v1/observe", 200, "\"verdict\":\"DENIED\""),
        ("/v1/observe?last=0", 200, ""),
        ("/v1/observe?since=never", 400, "since: "),
        (
            "/v1/observe?filter=%7B%22tow%22%3A1%7D",
            400,
            "unknown field `tow`",
        ),
        ("/v1/flows?limit=x", 400, ""),
        ("/v1/nothing", 404, "no such path"),
    ] {
        let answer = get(dir.path(), path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(part), "{path}: {answer}");
    }
    let filter = "/v1/observe?filter=%7B%22verdict%22%3A%22allowed%22%7D";
    let answer = get(dir.path(), filter).await;
    assert!(
        answer.contains("\"flow\":\"0-2\"") && !answer.contains("0-1"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_follower_gets_the_past_then_what_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let hub = serve(dir.path());
    hub.publish(&mut vec![
        event(VerdictWord::Denied, 1),
        event(VerdictWord::Denied, 2),
    ]);
    let mut reader = connect(dir.path(), "/v1/observe?follow=true&last=1").await;
    assert_eq!(next_event(&mut reader).await["flow"], "0-2");
    assert!(hub.wants_all().load(std::sync::atomic::Ordering::Relaxed));
    hub.publish(&mut vec![event(VerdictWord::Allowed, 3)]);
    assert_eq!(next_event(&mut reader).await["flow"], "0-3");
}
