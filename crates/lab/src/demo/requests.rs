//! Requests that must pass and requests that must not, each with what the client saw.

use super::client::{Curl, Seen, hello, raw};
use super::{POLICY, Stage, table};
use crate::error::Result;
use crate::names::Family;

/// A request head of 20 KiB: one field of this length and the usual ones.
const LARGE_FIELD: usize = 20 << 10;
/// A ClientHello of more than this, in so many segments.
const LARGE_HELLO: (usize, usize) = (3500, 4);

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The server's answer.
    Status(u16),
    /// 403 from Tollgate, naming the policy.
    Denied,
    /// The first passes, the second never reaches the server: 403 or reset.
    FirstOnly,
    /// The second never reaches the server; its denial may reach the client before the answer to
    /// the first, which was under way.
    NotSecond,
    /// Nothing passes.
    Nothing,
    /// Several answers, all of them good.
    All(usize),
    /// A TLS alert.
    Alert,
    /// The connection is refused.
    Refused,
}

impl Expect {
    fn words(self) -> String {
        match self {
            Expect::Status(status) => status.to_string(),
            Expect::Denied => "403 with policy".into(),
            Expect::FirstOnly => "200, then denied".into(),
            Expect::NotSecond => "second denied".into(),
            Expect::Nothing => "denied".into(),
            Expect::All(count) => format!("200 x {count}"),
            Expect::Alert => "TLS alert".into(),
            Expect::Refused => "refused".into(),
        }
    }

    fn holds(self, seen: &Seen) -> bool {
        let passed = seen
            .statuses
            .iter()
            .filter(|s| (200..300).contains(*s))
            .count();
        match self {
            Expect::Status(status) => seen.statuses == [status],
            Expect::Denied => seen.statuses == [403] && seen.body.contains(POLICY),
            Expect::FirstOnly => passed == 1 && seen.statuses.first() == Some(&200),
            Expect::NotSecond => passed <= 1 && seen.statuses.len() <= 2,
            Expect::Nothing => passed == 0,
            Expect::All(count) => passed == count && seen.statuses.len() == count,
            Expect::Alert => seen.alert,
            Expect::Refused => seen.refused,
        }
    }
}

struct Row {
    family: Family,
    what: String,
    expect: Expect,
    seen: Seen,
}

impl Row {
    fn right(&self) -> bool {
        self.expect.holds(&self.seen)
    }
}

/// Runs and shows them; returns what was not as expected.
pub fn run(stage: &Stage<'_>) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for (group, step) in [
        (
            http as fn(&Stage<'_>, Family) -> Result<Vec<Row>>,
            "HTTP: hosts, paths and methods",
        ),
        (
            connections,
            "HTTP: keep-alive, pipelining, large and split heads",
        ),
        (tls, "TLS: server names, large ClientHello"),
    ] {
        stage.progress.step(step);
        let (v4, v6) = (group(stage, Family::V4)?, group(stage, Family::V6)?);
        for (v4, v6) in v4.into_iter().zip(v6) {
            rows.extend([v4, v6]);
        }
    }
    let header = [
        "request from the pod",
        "over",
        "expected",
        "the client saw",
        "",
    ];
    stage.progress.print(&table::render(
        "Requests under policy",
        &header,
        cells(&rows),
        &[],
    ));
    let tell = |r: &Row| {
        let (family, expected) = (r.family.word(), r.expect.words());
        format!(
            "{} over {family}: {expected} (saw: {})",
            r.what, r.seen.text
        )
    };
    Ok(rows.iter().filter(|r| !r.right()).map(tell).collect())
}

/// One line for each pair of rows that saw the same, two lines otherwise.
fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let line = |row: &Row, over: &str| {
        let mark = if row.right() { "ok" } else { "WRONG" };
        let (expected, saw) = (row.expect.words(), row.seen.text.clone());
        vec![row.what.clone(), over.into(), expected, saw, mark.into()]
    };
    let mut lines = Vec::new();
    for pair in rows.chunks(2) {
        match pair {
            [v4, v6] if v4.seen.text == v6.seen.text && v4.right() == v6.right() => {
                lines.push(line(v4, "IPv4, IPv6"));
            }
            _ => lines.extend(pair.iter().map(|r| line(r, r.family.word()))),
        }
    }
    lines
}

fn http(stage: &Stage<'_>, family: Family) -> Result<Vec<Row>> {
    let api = "api.example.com";
    // A file of its own for each family, so that both uploads make a new one.
    let upload = format!("/upload/{}", family.word());
    let cases: [(&str, &str, &str, Expect); 9] = [
        ("GET", api, "/v2/status", Expect::Status(200)),
        ("GET", "API.Example.COM", "/v2/items", Expect::Status(200)),
        ("PUT", api, &upload, Expect::Status(201)),
        ("GET", api, "/admin", Expect::Denied),
        ("GET", api, "/v1/status", Expect::Denied),
        ("GET", "evil.example.net", "/v2/status", Expect::Denied),
        ("GET", "www.example.com", "/v2/status", Expect::Denied),
        ("DELETE", api, &upload, Expect::Denied),
        ("GET", "api.example.com:81", "/v2/status", Expect::Refused),
    ];
    let mut rows = Vec::new();
    for (method, host, path, expect) in cases {
        let url = format!("http://{host}{path}");
        let put = ["-X", method, "-d", "hello"];
        let args = if method == "PUT" { &put[..] } else { &put[..2] };
        let seen = Curl {
            family,
            urls: &[&url],
            args,
        }
        .run(stage)?;
        let what = format!("{method} {host}{}", path.replace(family.word(), "file"));
        rows.push(Row {
            family,
            what,
            expect,
            seen,
        });
    }
    Ok(rows)
}

fn connections(stage: &Stage<'_>, family: Family) -> Result<Vec<Row>> {
    let (good, bad) = (
        "http://api.example.com/v2/status",
        "http://api.example.com/admin",
    );
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    let (good_head, bad_head) = (head("/v2/status"), head("/admin"));
    let large = format!("X-Large: {}", "x".repeat(LARGE_FIELD));
    let (first, rest) = good_head.split_at(20);
    let (second, third) = rest.split_at(15);
    let curl = |urls: &[&str], args: &[&str]| Curl { family, urls, args }.run(stage);
    let raw = |pieces: &[&str]| raw(stage, family, pieces);
    let pair = |a: &str, b: &str| raw(&[&format!("{a}{b}")]);
    let cases = [
        (
            "keep-alive: allowed, three times",
            Expect::All(3),
            curl(&[good, good, good], &[])?,
        ),
        (
            "keep-alive: allowed, then denied",
            Expect::FirstOnly,
            curl(&[good, bad], &[])?,
        ),
        (
            "pipelined: allowed + allowed",
            Expect::All(2),
            pair(&good_head, &good_head)?,
        ),
        (
            "pipelined: allowed + denied",
            Expect::NotSecond,
            pair(&good_head, &bad_head)?,
        ),
        (
            "pipelined: denied + allowed",
            Expect::Nothing,
            pair(&bad_head, &good_head)?,
        ),
        (
            "head in three segments",
            Expect::Status(200),
            raw(&[first, second, third])?,
        ),
        (
            "head of 20 KiB, allowed",
            Expect::Status(200),
            curl(&[good], &["-H", &large])?,
        ),
        (
            "head of 20 KiB, denied",
            Expect::Denied,
            curl(&[bad], &["-H", &large])?,
        ),
    ];
    let row = |(what, expect, seen): (&str, Expect, Seen)| Row {
        family,
        what: what.to_owned(),
        expect,
        seen,
    };
    Ok(cases.into_iter().map(row).collect())
}

fn tls(stage: &Stage<'_>, family: Family) -> Result<Vec<Row>> {
    let curl = |url: &str| {
        Curl {
            family,
            urls: &[url],
            args: &[],
        }
        .run(stage)
    };
    let (size, pieces) = LARGE_HELLO;
    let large = |host: &str| hello(stage, family, host, size, pieces);
    let cases = [
        (
            "TLS to api.example.com",
            Expect::Status(200),
            curl("https://api.example.com/v2/status")?,
        ),
        (
            "TLS to www.example.com",
            Expect::Status(200),
            curl("https://www.example.com/admin")?,
        ),
        (
            "TLS to evil.example.net",
            Expect::Alert,
            curl("https://evil.example.net/v2/status")?,
        ),
        (
            "TLS to ext.example.org",
            Expect::Alert,
            curl("https://ext.example.org/v2/status")?,
        ),
        // For an address, curl names no server.
        (
            "TLS without a server name",
            Expect::Alert,
            curl("https://192.0.2.10/v2/status")?,
        ),
        (
            "large ClientHello, allowed",
            Expect::Status(200),
            large("api.example.com")?,
        ),
        (
            "large ClientHello, denied",
            Expect::Alert,
            large("evil.example.net")?,
        ),
    ];
    let row = |(what, expect, seen): (&str, Expect, Seen)| Row {
        family,
        what: what.to_owned(),
        expect,
        seen,
    };
    Ok(cases.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(statuses: &[u16], body: &str) -> Seen {
        Seen {
            statuses: statuses.to_vec(),
            body: body.into(),
            ..Seen::default()
        }
    }

    #[test]
    fn expectations_are_strict() {
        let named = "Denied by ClusterNetworkPolicy/client-egress";
        for (expect, seen, holds) in [
            (Expect::Status(200), seen(&[200], ""), true),
            (Expect::Status(200), seen(&[200, 200], ""), false),
            (Expect::Denied, seen(&[403], named), true),
            (
                Expect::Denied,
                seen(&[403], "Forbidden by the server"),
                false,
            ),
            (Expect::Denied, seen(&[], ""), false),
            (Expect::FirstOnly, seen(&[200, 403], named), true),
            (Expect::FirstOnly, seen(&[200], ""), true),
            (Expect::FirstOnly, seen(&[200, 200], ""), false),
            (Expect::FirstOnly, seen(&[403], named), false),
            (Expect::NotSecond, seen(&[], ""), true),
            (Expect::NotSecond, seen(&[200, 403], named), true),
            (Expect::NotSecond, seen(&[200, 200], ""), false),
            (Expect::Nothing, seen(&[403], named), true),
            (Expect::Nothing, seen(&[403, 200], named), false),
            (Expect::All(2), seen(&[200, 200], ""), true),
            (Expect::All(2), seen(&[200], ""), false),
            (Expect::Alert, seen(&[0], ""), false),
        ] {
            assert_eq!(expect.holds(&seen), holds, "{expect:?} {seen:?}");
        }
    }
}
