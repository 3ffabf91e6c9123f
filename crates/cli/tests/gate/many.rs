//! Many connections at once.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{Bed, options, same, until_in};
use crate::net::{STUCK, outside, read_response, request, spawn};
use crate::transfer::unharmed;

/// Connections open at the same time.
const CONNECTIONS: usize = 200;
/// Denied flows are remembered for ten seconds, so that their stragglers are answered.
const DRAINED: Duration = Duration::from_secs(30);

#[test]
fn many_connections_at_once() {
    let bed = Bed::of(&tollgate_lab::lab::UpOptions {
        big_bytes: 1 << 20,
        ..options("many")
    });
    let all = std::sync::Arc::new(Barrier::new(CONNECTIONS));
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|i| {
            let all = std::sync::Arc::clone(&all);
            spawn(&bed, Place::Pod, move || one(i, &all))
        })
        .collect();
    let outcomes: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let expected = if is_allowed(i) { 200 } else { 403 };
        same(
            &format!("connection {i}"),
            outcome.map_err(|e| e.to_string()),
            Ok(expected),
        );
    }
    same(
        "denials counted",
        bed.counter("denied"),
        CONNECTIONS as u64 / 2,
    );
    until_in(DRAINED, "the flow table drains", || {
        let flows = bed.json(&["flows"]);
        flows.as_array().unwrap().is_empty().then_some(())
    });
    same("flows", bed.status()["datapath"]["flows"].as_u64(), Some(0));
    same("cache", cache_entries(&bed), 0);
    unharmed(&bed);
}

/// Every second one asks for what the policy allows.
fn is_allowed(i: usize) -> bool {
    i.is_multiple_of(2)
}

fn one(i: usize, all: &Barrier) -> std::io::Result<u16> {
    let family = if i % 4 < 2 { Family::V4 } else { Family::V6 };
    let tcp = TcpStream::connect_timeout(&outside(family, 80), STUCK);
    // Also without a connection, or the others would wait for ever.
    all.wait();
    let mut tcp = tcp?;
    tcp.set_read_timeout(Some(STUCK))?;
    let path = if is_allowed(i) {
        "/v2/status"
    } else {
        "/v1/status"
    };
    tcp.write_all(request("GET", path).as_bytes())?;
    read_response(&mut tcp)
}

/// Entries of the kernel's flow cache.
fn cache_entries(bed: &Bed) -> usize {
    let path = bed.lab.names.pins().join("tg_flows");
    let flows = tollgate_datapath::flows::FlowMap::open(path.parent().unwrap()).unwrap();
    flows.iter().count()
}
