//! Real clients in the pod, and what they saw.

use std::time::Duration;

use super::Stage;
use crate::error::{LabError, Result};
use crate::lab::Place;
use crate::names::Family;
use crate::run::{Cmd, shorten};
use crate::traffic::{Ending, HelloResult, RawRequest, RawResult, parse_result};

/// Longest wait for one small request; a denial that takes longer hangs.
const LIMIT_SECONDS: &str = "5";
/// Silence after which a raw probe takes the answers for complete.
const IDLE_MS: u64 = 300;
/// curl: failed to connect.
const CURL_CONNECT: i32 = 7;
/// curl: the TLS handshake failed.
const CURL_TLS: i32 = 35;

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// HTTP status codes in order; 0 where a request got no answer.
    pub statuses: Vec<u16>,
    /// The last body, or what came of it.
    pub body: String,
    /// A TLS alert ended the handshake.
    pub alert: bool,
    /// The connection was refused or reset when it was made.
    pub refused: bool,
    /// In words, for the table.
    pub text: String,
}

/// One request of curl.
#[derive(Clone, Debug)]
pub struct Curl<'a> {
    /// Address family.
    pub family: Family,
    /// Scheme, host, port if unusual, and path of each URL; all through one connection if curl can.
    pub urls: &'a [&'a str],
    /// Further arguments.
    pub args: &'a [&'a str],
}

impl Curl<'_> {
    /// Runs it in the pod.
    pub fn run(&self, stage: &Stage<'_>) -> Result<Seen> {
        let mut cmd = base(stage, self.family).args(["--max-time", LIMIT_SECONDS]);
        cmd = cmd.args(["-w", "\n%{http_code}\n"]).args(self.args);
        cmd = cmd.args(self.urls);
        let output = stage.lab.at(Place::Pod, cmd).output()?;
        Ok(seen(output.status.code(), &output.stdout, &output.stderr))
    }
}

/// curl that finds the lab's servers and trusts the lab's CA.
pub fn base(stage: &Stage<'_>, family: Family) -> Cmd {
    let address = match family.outside() {
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        std::net::IpAddr::V4(v4) => v4.to_string(),
    };
    let curl = Cmd::new("curl").args(["-sS", "-q", "--noproxy", "*", "--cacert"]);
    let curl = curl.arg(stage.lab.names.ca());
    // Any host at any port is the external host.
    curl.arg("--connect-to")
        .arg(format!("::{address}:"))
        .timeout(Duration::from_secs(120))
}

fn seen(exit: Option<i32>, stdout: &str, stderr: &str) -> Seen {
    let is_status = |l: &&str| l.len() == 3 && l.bytes().all(|b| b.is_ascii_digit());
    let statuses: Vec<u16> = stdout
        .lines()
        .filter(is_status)
        .flat_map(str::parse)
        .collect();
    let mut bodies = stdout.lines().filter(|l| !is_status(l) && !l.is_empty());
    let body = bodies.next_back().unwrap_or_default().to_owned();
    let error = stderr.trim().lines().last().unwrap_or_default().to_owned();
    let answered: Vec<String> = statuses
        .iter()
        .filter(|s| **s != 0)
        .map(ToString::to_string)
        .collect();
    let mut words = vec![answered.join(", ")];
    if statuses.last() == Some(&403) {
        // The rule and the reason follow; the table has room for the policy's name.
        let named = body.split(" rule ").next().unwrap_or(&body);
        words.push(named.trim_start_matches("Denied by ").to_owned());
    }
    if exit != Some(0) {
        words.push(last_part(&error));
    }
    words.retain(|w| !w.is_empty());
    let text = words.join(": ");
    Seen {
        alert: exit == Some(CURL_TLS) && error.contains("alert"),
        refused: exit == Some(CURL_CONNECT),
        statuses,
        body,
        text,
    }
}

/// The end of curl's error message, which says what happened; what stands before says where.
fn last_part(error: &str) -> String {
    shorten(error.rsplit(':').next().unwrap_or(error).trim(), 60)
}

/// Sends exact bytes to port 80, each piece as a segment of its own.
pub fn raw(stage: &Stage<'_>, family: Family, pieces: &[&str]) -> Result<Seen> {
    let request = RawRequest {
        pieces: pieces.iter().map(|p| (*p).to_owned()).collect(),
        pause_ms: 20,
        idle_ms: IDLE_MS,
    };
    let input = serde_json::to_vec(&request).map_err(|e| LabError::Traffic(e.to_string()))?;
    let addr = std::net::SocketAddr::new(family.outside(), 80).to_string();
    let output = stage
        .traffic(&["raw", "--addr", &addr])
        .stdin(input)
        .run()?;
    let result: RawResult = parse_result(&output.stdout)?;
    let statuses = result.statuses();
    let mut words: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    match result.ending {
        Ending::Reset => words.push("connection reset".into()),
        Ending::Refused => words.push("connection refused".into()),
        Ending::Closed => words.push("closed".into()),
        Ending::Silent => {}
    }
    Ok(Seen {
        statuses,
        refused: result.ending == Ending::Refused,
        text: words.join(", "),
        body: result.received,
        alert: false,
    })
}

/// A TLS handshake whose ClientHello has at least `size` bytes, in `pieces` segments.
pub fn hello(
    stage: &Stage<'_>,
    family: Family,
    host: &str,
    size: usize,
    pieces: usize,
) -> Result<Seen> {
    let addr = std::net::SocketAddr::new(family.outside(), 443).to_string();
    let ca = stage.lab.names.ca().display().to_string();
    let (size, pieces) = (size.to_string(), pieces.to_string());
    let output = stage
        .traffic(&[
            "hello",
            "--addr",
            &addr,
            "--ca",
            &ca,
            "--host",
            host,
            "--path",
            "/v2/status",
        ])
        .args(["--size", &size, "--pieces", &pieces])
        .run()?;
    let result: HelloResult = parse_result(&output.stdout)?;
    let error = result.error.unwrap_or_default();
    let outcome = result.status.map_or(last_part(&error), |s| s.to_string());
    let sent = format!("{} bytes, {} segments", result.hello_bytes, result.pieces);
    Ok(Seen {
        statuses: result.status.into_iter().collect(),
        alert: error.contains("alert"),
        text: format!("{outcome} ({sent})"),
        ..Seen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_curl_saw() {
        let denied = seen(
            Some(0),
            "Denied by P rule \"r\": no-rule-matches\n\n403\n",
            "",
        );
        assert_eq!(denied.statuses, [403]);
        assert!(denied.body.starts_with("Denied by P"), "{denied:?}");

        let kept_alive = seen(
            Some(56),
            "{\"a\":1}\n\n200\n\n000\n",
            "curl: (56) Recv failure: Connection reset by peer\n",
        );
        assert_eq!(kept_alive.statuses, [200, 0]);
        assert_eq!(kept_alive.text, "200: Connection reset by peer");

        let alert = seen(
            Some(35),
            "\n000\n",
            "curl: (35) ...tlsv1 alert access denied\n",
        );
        assert!(alert.alert && !alert.refused);
        let refused = seen(Some(7), "\n000\n", "curl: (7) Failed to connect\n");
        assert!(refused.refused && !refused.alert);
    }
}
