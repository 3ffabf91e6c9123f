//! What a denied connection leaves behind: nothing at the server, nothing that hangs at the client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use tollgate_lab::lab::Place;

use crate::bed::{Bed, FAMILIES, same, until};
use crate::net::{End, get, open, read_to_end, request};

/// Connections of each kind and family.
const EACH: usize = 10;

#[test]
fn leftovers() {
    Bed::new("leftovers").run(&[("sockets", a_denied_connection_leaves_no_socket)]);
}

/// The sockets of nginx that are not listening, nor only waiting out their time.
fn sockets(bed: &Bed) -> String {
    bed.sh(Place::Out, "ss -Htn '( sport = :80 or sport = :443 )'")
}

/// Clients keep their own ends open meanwhile, as idle browsers do.
fn a_denied_connection_leaves_no_socket(bed: &mut Bed) {
    let hello = denied_hello();
    let mut clients = Vec::new();
    for family in FAMILIES {
        for _ in 0..EACH {
            let mut first = open(bed, family, 80);
            first
                .write_all(request("GET", "/admin").as_bytes())
                .unwrap();
            let mut later = open(bed, family, 80);
            same("allowed", get(&mut later, "/v2/status").unwrap(), 200);
            later
                .write_all(request("GET", "/admin").as_bytes())
                .unwrap();
            let mut tls = open(bed, family, 443);
            tls.write_all(&hello).unwrap();
            clients.extend([first, later, tls]);
        }
    }
    for client in &mut clients {
        let (text, end) = read_to_end(client);
        assert!(end != End::Silent, "the client is told: {text}");
    }
    until("the server has no socket any more", || {
        sockets(bed).is_empty().then_some(())
    });
    let allowed: Vec<TcpStream> = FAMILIES.map(|family| open(bed, family, 80)).into();
    same(
        "sockets of others",
        sockets(bed).lines().count(),
        allowed.len(),
    );
    for mut client in clients {
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        let ended = matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset));
        assert!(ended, "the client's end: {end:?}");
    }
}

/// The recorded hello of a client of today, with a name that the policy forbids.
fn denied_hello() -> Vec<u8> {
    let (allowed, denied) = (b"api.example.com", b"ext.example.org");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../l7/tests/hellos/curl.hex");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> = lines.flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let mut hello: Vec<u8> = digits.chunks(2).map(byte).collect();
    let at = hello
        .windows(allowed.len())
        .position(|w| w == allowed)
        .unwrap();
    hello[at..at + denied.len()].copy_from_slice(denied);
    hello
}
