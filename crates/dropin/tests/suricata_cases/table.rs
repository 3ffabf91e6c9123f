//! The recorded verdicts, why some differ, and the page that shows them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A case's line in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub suricata: String,
    pub tollgate: String,
    /// Key of an explanation; empty where both say the same.
    pub why: String,
}

/// Why verdicts differ: key, heading and text.
pub const EXPLANATIONS: [(&str, &str, &str); 18] = [
    (
        "every-request",
        "Every request is judged",
        "Suricata's `pass` is for the whole connection: one request that matches, and what comes before it \
         in the segment or after it on the connection passes, whatever it asks for. Tollgate judges each \
         request. Of requests that share a segment with a denied one, none is delivered.",
    ),
    (
        "split-head",
        "A head may come in pieces",
        "Suricata rejects a packet that does not yet have what the rules look for, and does so before the \
         next one could bring it. Tollgate waits for the end of the head.",
    ),
    (
        "split-hello",
        "A ClientHello may come in pieces",
        "The same for TLS: with a hello of more than one segment, as with large key shares and tickets, \
         Suricata rejects the first.",
    ),
    (
        "empty-segment",
        "Packets without data are nobody's request",
        "A probe of an idle connection and the end of one that said nothing are no request. Suricata \
         rejects them as packets that match no `pass` rule.",
    ),
    (
        "query",
        "A path is compared with the path",
        "Suricata's `http.uri` includes the query: `/allowed` does not match `/allowed?x=1`, and `*.png` \
         matches `/secret?x=.png`. Tollgate compares the query only if the pattern has a `?`, and then \
         with the bytes as they were sent.",
    ),
    (
        "normal-form",
        "Targets that servers read in two ways are denied",
        "Dot segments, doubled slashes, backslashes, encoded slashes and fragments: which file or handler \
         such a target names depends on the server. Suricata compares one normal form of it, Tollgate \
         denies those whose forms do not agree.",
    ),
    (
        "authority",
        "One host a request",
        "A target with a host of its own and another `Host`: servers disagree about which counts. Suricata \
         takes the target's, Tollgate denies it.",
    ),
    (
        "malformed-head",
        "Heads that are no HTTP/1.1",
        "Folded lines, white space before a colon, bare line feeds, tabs, doubled spaces, HTTP/0.9, unknown \
         versions, `Transfer-Encoding` beside `Content-Length`, two lengths: whatever one reader accepts \
         another reads otherwise (RFC 9112). Suricata reads on, Tollgate denies.",
    ),
    (
        "trailing-dot",
        "A host may end in a dot",
        "`www.alfa.test.` names the same host, and browsers and curl send it if it was typed so.",
    ),
    (
        "name-case",
        "Names have no case",
        "Suricata compares an SNI in upper case with the rule's lower case and finds them different (RFC \
         6066: DNS names, compared without case).",
    ),
    (
        "rule-case",
        "A host in a rule has no case",
        "Suricata refuses a rule whose host has an upper-case letter, so that only the reject is left. \
         Tollgate compares without case.",
    ),
    (
        "star-path",
        "A path of `*` is any path",
        "It becomes an empty `content`, which Suricata refuses, so that only the reject is left.",
    ),
    (
        "any-method",
        "`http: {}` is any request",
        "A method that Suricata does not know makes it no HTTP for it.",
    ),
    (
        "odd-sni",
        "An SNI is a host name",
        "Empty, with a zero byte, or not text: no such name exists, and libraries read different things out of \
         it. Suricata reads on, Tollgate denies.",
    ),
    (
        "datagrams",
        "UDP is denied from the first datagram",
        "The reject waits for an established flow, which for UDP means an answer; what needs none gets \
         out. Tollgate denies what is no QUIC with a name that may pass.",
    ),
    (
        "starttls",
        "STARTTLS",
        "Tollgate lets a mail connection get as far as its ClientHello, and judges that.",
    ),
    (
        "every-stream",
        "Every stream of HTTP/2 is judged",
        "As with requests: Suricata passes the connection once a stream was allowed.",
    ),
    (
        "preface",
        "HTTP/2 begins with a preface",
        "Sent in a segment of its own, as many clients do, it matches no `pass` rule, and Suricata rejects \
         it.",
    ),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The committed table.
pub fn path() -> PathBuf {
    file("tests/suricata_cases/table.tsv")
}

/// The committed page.
pub fn page_path() -> PathBuf {
    file("../../docs/suricata-cases.md")
}

pub fn read() -> Vec<Row> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        Row {
            id: next(),
            suricata: next(),
            tollgate: next(),
            why: next(),
        }
    })
    .collect()
}

pub fn write(rows: &[Row]) {
    let mut text = "# case\tsuricata\ttollgate\twhy\n".to_owned();
    for row in rows {
        let Row {
            id,
            suricata,
            tollgate,
            why,
        } = row;
        writeln!(text, "{id}\t{suricata}\t{tollgate}\t{why}").unwrap();
    }
    fs::write(path(), text).unwrap();
}

/// The page.
pub fn page(rows: &[Row]) -> String {
    let differing = rows.iter().filter(|row| !row.why.is_empty()).count();
    let mut page = format!(
        "# The same rules in Suricata and in Tollgate\n\n\
         Where Tollgate stands in Suricata's place, it reads the same rule files. This page compares what both \
         do with the same packets under the same rules: {} conversations, of which {} have the same \
         outcome and {differing} do not. Each difference has its reason below. Suricata is 7.0.10 as of \
         Debian 13, with its packaged configuration, evaluating a capture as an inline engine \
         (`--simulate-ips`), one tenant per set of rules.\n\n\
         All cases are in [table.tsv](../crates/dropin/tests/suricata_cases/table.tsv): set of rules and \
         what is asked, and for each request of the conversation whether the server got it. `cargo test -p \
         tollgate-dropin` computes Tollgate's column again; `scripts/suricata-cases.sh DIR` records \
         Suricata's, with a Debian 13 that `scripts/suricata-chroot.sh DIR` makes.\n",
        rows.len(),
        rows.len() - differing,
    );
    let mut by_key: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(&row.why).or_default().push(row);
    }
    for (key, heading, text) in EXPLANATIONS {
        let Some(rows) = by_key.get(key) else {
            continue;
        };
        write!(
            page,
            "\n## {heading}\n\n{text}\n\n| case | Suricata | Tollgate |\n|---|---|---|\n"
        )
        .unwrap();
        for row in rows {
            let id = row.id.replace('|', "\\|");
            writeln!(page, "| `{id}` | {} | {} |", row.suricata, row.tollgate).unwrap();
        }
    }
    page
}
