//! Readers in other languages: a script gets every stream, behind its length in four bytes, and
//! answers with a line of JSON for each.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::seen::Seen;

/// Debian's `python3`, whatever else is in the path.
const PYTHON: &str = "/usr/bin/python3";
/// Debian's `nodejs`.
const NODE: &str = "/usr/bin/node";

/// What Python's `http.server` makes of the streams.
pub fn python(streams: &[&[u8]]) -> Vec<Seen> {
    run(PYTHON, "python_peer.py", streams)
}

/// What Node's `http` makes of the streams.
pub fn node(streams: &[&[u8]]) -> Vec<Seen> {
    run(NODE, "node_peer.js", streams)
}

fn run(program: &str, script: &str, streams: &[&[u8]]) -> Vec<Seen> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/differential")
        .join(script);
    let mut child = Command::new(program)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program} (see scripts/packages.sh) does not start: {error}")
        });
    let mut stdin = child.stdin.take().unwrap();
    let mut answer = String::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for bytes in streams {
                let length = u32::try_from(bytes.len()).unwrap();
                stdin.write_all(&length.to_be_bytes()).unwrap();
                stdin.write_all(bytes).unwrap();
            }
        });
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut answer)
            .unwrap();
    });
    let status = child.wait().unwrap();
    assert!(status.success(), "{script}: {status}");
    let seen: Vec<_> = answer
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{script}: {e}: {line}")))
        .collect();
    assert_eq!(seen.len(), streams.len(), "{script}");
    seen
}
