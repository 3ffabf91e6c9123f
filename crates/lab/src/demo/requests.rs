//! Requests that must pass and requests that must not, each with what the client saw.

use super::client::{Curl, Seen, hello, raw};
use super::{POLICY, Stage, table};
use crate::error::Result;
use crate::names::Family::{self, V4, V6};

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
            Expect::Nothing => passed == 0,
            Expect::All(count) => passed == count && seen.statuses.len() == count,
            Expect::Alert => seen.alert,
            Expect::Refused => seen.refused,
        }
    }
}

struct Row {
    what: String,
    expect: Expect,
    seen: Seen,
}

/// Runs and shows them; returns what was not as expected.
pub fn run(stage: &Stage<'_>) -> Result<Vec<String>> {
    stage
        .progress
        .step("HTTP: allowed and denied hosts, paths and methods");
    let mut rows = http(stage)?;
    stage
        .progress
        .step("HTTP: keep-alive, pipelining, large and split heads");
    rows.extend(connections(stage)?);
    stage
        .progress
        .step("TLS: allowed, denied and missing server names, large ClientHello");
    rows.extend(tls(stage)?);
    let right = |row: &Row| row.expect.holds(&row.seen);
    let cells = |row: &Row| {
        let mark = if right(row) { "ok" } else { "WRONG" };
        let (expected, saw) = (row.expect.words(), row.seen.text.clone());
        vec![row.what.clone(), expected, saw, mark.into()]
    };
    let header = ["request from the pod", "expected", "the client saw", ""];
    let cells = rows.iter().map(cells).collect();
    stage
        .progress
        .print(&table::render("Requests under policy", &header, cells, &[]));
    let wrong = rows.iter().filter(|r| !right(r));
    Ok(wrong
        .map(|r| format!("{}: {} (saw: {})", r.what, r.expect.words(), r.seen.text))
        .collect())
}

fn http(stage: &Stage<'_>) -> Result<Vec<Row>> {
    let api = "http://api.example.com";
    let cases: [(&str, &str, &str, Expect); 9] = [
        ("GET", api, "/v2/status", Expect::Status(200)),
        (
            "GET",
            "http://API.Example.COM",
            "/v2/items",
            Expect::Status(200),
        ),
        ("PUT", api, "/upload/small", Expect::Status(201)),
        ("GET", api, "/admin", Expect::Denied),
        ("GET", api, "/v1/status", Expect::Denied),
        (
            "GET",
            "http://evil.example.net",
            "/v2/status",
            Expect::Denied,
        ),
        (
            "GET",
            "http://www.example.com",
            "/v2/status",
            Expect::Denied,
        ),
        ("DELETE", api, "/upload/small", Expect::Denied),
        (
            "GET",
            "http://api.example.com:81",
            "/v2/status",
            Expect::Refused,
        ),
    ];
    let mut rows = Vec::new();
    for family in [V4, V6] {
        for (method, site, path, expect) in cases {
            let url = format!("{site}{path}");
            let put = ["-X", method, "-d", "hello"];
            let args = if method == "PUT" { &put[..] } else { &put[..2] };
            // The second upload replaces the first one's file.
            let replaced = method == "PUT" && family == V6;
            let expect = if replaced {
                Expect::Status(204)
            } else {
                expect
            };
            let seen = Curl {
                family,
                urls: &[&url],
                args,
            }
            .run(stage)?;
            rows.push(Row {
                what: format!("{} {method} {url}", family.word()),
                expect,
                seen,
            });
        }
    }
    Ok(rows)
}

fn connections(stage: &Stage<'_>) -> Result<Vec<Row>> {
    let (good, bad) = (
        "http://api.example.com/v2/status",
        "http://api.example.com/admin",
    );
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    let (good_head, bad_head) = (head("/v2/status"), head("/admin"));
    let large = format!("X-Large: {}", "x".repeat(LARGE_FIELD));
    let mut rows = Vec::new();
    let mut row = |family: Family, what: &str, expect: Expect, seen: Seen| {
        rows.push(Row {
            what: format!("{} {what}", family.word()),
            expect,
            seen,
        });
    };
    for family in [V4, V6] {
        let curl = |urls: &[&str], args: &[&str]| Curl { family, urls, args }.run(stage);
        let raw = |pieces: &[&str]| raw(stage, family, pieces);
        let seen = curl(&[good, good, good], &[])?;
        row(
            family,
            "keep-alive: allowed three times",
            Expect::All(3),
            seen,
        );
        let seen = curl(&[good, bad], &[])?;
        row(
            family,
            "keep-alive: allowed, then denied",
            Expect::FirstOnly,
            seen,
        );
        let both = format!("{good_head}{good_head}");
        row(
            family,
            "pipelined: allowed + allowed",
            Expect::All(2),
            raw(&[&both])?,
        );
        let mixed = format!("{good_head}{bad_head}");
        row(
            family,
            "pipelined: allowed + denied",
            Expect::FirstOnly,
            raw(&[&mixed])?,
        );
        let mixed = format!("{bad_head}{good_head}");
        row(
            family,
            "pipelined: denied + allowed",
            Expect::Nothing,
            raw(&[&mixed])?,
        );
        let (first, rest) = good_head.split_at(20);
        let (second, third) = rest.split_at(15);
        let seen = raw(&[first, second, third])?;
        row(family, "head in three segments", Expect::Status(200), seen);
        let seen = curl(&[good], &["-H", &large])?;
        row(family, "head of 20 KiB, allowed", Expect::Status(200), seen);
        let seen = curl(&[bad], &["-H", &large])?;
        row(family, "head of 20 KiB, denied", Expect::Denied, seen);
    }
    Ok(rows)
}

fn tls(stage: &Stage<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in [V4, V6] {
        let mut row = |what: &str, expect: Expect, seen: Seen| {
            rows.push(Row {
                what: format!("{} {what}", family.word()),
                expect,
                seen,
            });
        };
        for (url, expect) in [
            ("https://api.example.com/v2/status", Expect::Status(200)),
            ("https://www.example.com/admin", Expect::Status(200)),
            ("https://evil.example.net/v2/status", Expect::Alert),
            ("https://ext.example.org/v2/status", Expect::Alert),
        ] {
            row(
                &format!("GET {url}"),
                expect,
                Curl {
                    family,
                    urls: &[url],
                    args: &[],
                }
                .run(stage)?,
            );
        }
        // For an address, curl names no server.
        let seen = Curl {
            family,
            urls: &["https://192.0.2.10/v2/status"],
            args: &[],
        }
        .run(stage)?;
        row("TLS without a server name", Expect::Alert, seen);
        let (size, pieces) = LARGE_HELLO;
        let seen = hello(stage, family, "api.example.com", size, pieces)?;
        row("large ClientHello, allowed", Expect::Status(200), seen);
        let seen = hello(stage, family, "evil.example.net", size, pieces)?;
        row("large ClientHello, denied", Expect::Alert, seen);
    }
    Ok(rows)
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
