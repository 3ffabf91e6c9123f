//! Rows that were run, what servers acted on, and what follows from both.

use std::fmt;

use serde_json::Value;

/// The only host that the policy allows.
const HOST: &str = "api.example.com";
/// The only paths that the policy allows begin so.
const PREFIX: &str = "/v2/";

/// One run of a row against one server.
#[derive(Debug)]
pub struct Row {
    family: String,
    name: String,
    server: String,
    ip: u64,
    port: u64,
    control: bool,
    outcome: String,
}

impl Row {
    /// Reads a line that a table wrote.
    pub fn parse(line: &str) -> Row {
        let value: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| value[field].as_str().unwrap().to_owned();
        Row {
            family: text("family"),
            name: text("name"),
            server: text("server"),
            ip: value["ip"].as_u64().unwrap(),
            port: value["port"].as_u64().unwrap(),
            control: value["control"].as_bool().unwrap(),
            outcome: text("outcome"),
        }
    }

    /// Whether an honest client got what it came for.
    pub fn is_served(&self) -> bool {
        self.outcome == "ok"
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            family,
            name,
            server,
            ip,
            outcome,
            ..
        } = self;
        write!(f, "{family} \"{name}\" IPv{ip} {server} ({outcome})")
    }
}

/// A request that a server acted on.
#[derive(Debug)]
pub struct Record {
    port: u64,
    method: String,
    hosts: Vec<String>,
    paths: Vec<String>,
}

impl Record {
    /// Reads a line that a server wrote.
    pub fn parse(line: &str) -> Record {
        let value: Value = serde_json::from_str(line).unwrap();
        let texts = |field: &str| {
            let list = value[field].as_array().unwrap().iter();
            list.map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        Record {
            port: value["port"].as_u64().unwrap(),
            method: value["method"].as_str().unwrap().to_owned(),
            hosts: texts("hosts"),
            paths: texts("paths"),
        }
    }

    /// Whether the policy allows it under every reading that the server knows.
    fn is_allowed(&self) -> bool {
        let known = match self.method.as_str() {
            "GET" => !self.paths.is_empty(),
            "TLS" => self.paths.is_empty(),
            // To a port that any datagram may be sent to.
            "UDP" => return self.paths.iter().all(|p| p.starts_with("allowed")),
            _ => false,
        };
        known
            && !self.hosts.is_empty()
            && self.hosts.iter().all(|h| bare(h) == HOST)
            && self.paths.iter().all(|p| p.starts_with(PREFIX))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.method, self.hosts, self.paths)
    }
}

/// A host without port and trailing dot, in lower case.
fn bare(host: &str) -> String {
    let name = host.split(':').next().unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// What became of a row.
#[derive(Debug)]
pub enum Verdict {
    /// No server acted on what is forbidden; of a control, the server acted on what is allowed.
    Held,
    /// A server acted on this.
    Passed(String),
    /// The row could not be run, or is a control that the server did not see: it proves nothing.
    Unseen,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Held => f.write_str("held"),
            Verdict::Passed(what) => write!(f, "PASSED: {what}"),
            Verdict::Unseen => f.write_str("NOT RUN, or not seen by the server"),
        }
    }
}

/// Judges a row by what the servers wrote down about its port.
pub fn judge(row: &Row, records: &[Record]) -> Verdict {
    let mut own = records.iter().filter(|r| r.port == row.port).peekable();
    let not_run = row.outcome.starts_with("not run");
    if not_run || row.control && own.peek().is_none() {
        return Verdict::Unseen;
    }
    match own.find(|record| !record.is_allowed()) {
        Some(record) => Verdict::Passed(record.to_string()),
        None => Verdict::Held,
    }
}

/// Forbidden requests of clients that no row knows.
pub fn strays(rows: &[Row], records: &[Record]) -> Vec<String> {
    let known = |record: &&Record| rows.iter().any(|row| row.port == record.port);
    let stray = records.iter().filter(|r| !known(r) && !r.is_allowed());
    stray.map(ToString::to_string).collect()
}
