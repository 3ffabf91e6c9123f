//! The cases: sets of rules as Antrea writes them, and conversations under them.

use crate::bytes::ok;
use crate::capture::{Burst, Talk, Transport};
use crate::{http_cases, tls_cases};

/// The rules of a tenant.
pub struct RuleSet {
    pub name: &'static str,
    pub rules: Vec<String>,
}

/// A conversation under a set of rules.
pub struct Case {
    /// Unique: the set's name and what is asked.
    pub id: String,
    /// Which set.
    pub set: &'static str,
    pub talk: Talk,
}

/// The verdict on each request: whether the server got all of it. Without requests, on the end of
/// the connection.
pub fn verdicts(talk: &Talk, has_fin: bool, delivered: impl Fn(usize) -> bool) -> String {
    let word = |passed| if passed { "pass" } else { "deny" };
    let ranges = talk.ranges();
    if ranges.is_empty() {
        return word(has_fin).to_owned();
    }
    let words: Vec<_> = ranges
        .into_iter()
        .map(|mut range| word(range.all(&delivered)))
        .collect();
    words.join(" ")
}

const REJECT: &str = "reject ip any any -> any any (msg: \"Reject by AntreaNetworkPolicy:test/case\"; \
                      flow: to_server, established; sid: 1;)";

/// Sets of rules: name, and protocol and options of each pass rule.
const SETS: [(&str, &[(&str, &str)]); 26] = [
    ("nothing", &[]),
    ("http", &[("http", "")]),
    (
        "path",
        &[(
            "http",
            r#"http.uri; content:"/allowed"; startswith; endswith;"#,
        )],
    ),
    (
        "prefix",
        &[("http", r#"http.uri; content:"/api/"; startswith;"#)],
    ),
    (
        "suffix",
        &[("http", r#"http.uri; content:".png"; endswith;"#)],
    ),
    ("contains", &[("http", r#"http.uri; content:"/v2/";"#)]),
    ("get", &[("http", r#"http.method; content:"GET";"#)]),
    (
        "host",
        &[(
            "http",
            r#"http.host; content:"www.alfa.test"; startswith; endswith;"#,
        )],
    ),
    (
        "host-suffix",
        &[("http", r#"http.host; content:".alfa.test"; endswith;"#)],
    ),
    (
        "host-prefix",
        &[("http", r#"http.host; content:"www."; startswith;"#)],
    ),
    (
        "host-contains",
        &[("http", r#"http.host; content:".alfa.";"#)],
    ),
    (
        "all-three",
        &[(
            "http",
            r#"http.uri; content:"/api/v2/"; startswith; http.method; content:"GET"; http.host; content:"www.alfa.test"; startswith; endswith;"#,
        )],
    ),
    (
        "two",
        &[
            (
                "http",
                r#"http.uri; content:"/public"; startswith; http.method; content:"GET";"#,
            ),
            (
                "http",
                r#"http.uri; content:"/admin"; startswith; http.host; content:"admin.alfa.test"; startswith; endswith;"#,
            ),
        ],
    ),
    (
        "query",
        &[(
            "http",
            r#"http.uri; content:"/find?q=a"; startswith; endswith;"#,
        )],
    ),
    (
        "upper-host",
        &[(
            "http",
            r#"http.host; content:"WWW.alfa.test"; startswith; endswith;"#,
        )],
    ),
    (
        "star-path",
        &[("http", r#"http.uri; content:""; endswith;"#)],
    ),
    (
        "quoted-path",
        &[("http", r#"http.uri; content:"/a"b"; startswith; endswith;"#)],
    ),
    (
        "semicolon-path",
        &[("http", r#"http.uri; content:"/a;b"; startswith; endswith;"#)],
    ),
    (
        "bar-path",
        &[("http", r#"http.uri; content:"/a|b"; startswith; endswith;"#)],
    ),
    ("tls", &[("tls", "")]),
    (
        "sni",
        &[(
            "tls",
            r#"tls.sni; content:"www.alfa.test"; startswith; endswith;"#,
        )],
    ),
    (
        "sni-suffix",
        &[("tls", r#"tls.sni; content:".alfa.test"; endswith;"#)],
    ),
    (
        "sni-prefix",
        &[("tls", r#"tls.sni; content:"www."; startswith;"#)],
    ),
    ("sni-contains", &[("tls", r#"tls.sni; content:".alfa.";"#)]),
    (
        "http-or-tls",
        &[
            ("http", r#"http.uri; content:"/allowed"; startswith;"#),
            ("tls", r#"tls.sni; content:".alfa.test"; endswith;"#),
        ],
    ),
    (
        "inner-star",
        &[(
            "http",
            r#"http.uri; content:"/a/*/c"; startswith; endswith;"#,
        )],
    ),
];

/// The sets, in the order of their VLANs.
pub fn sets() -> Vec<RuleSet> {
    SETS.iter()
        .map(|(name, passes)| {
            let mut rules = vec![REJECT.to_owned()];
            for (sid, (protocol, options)) in (2..).zip(*passes) {
                let space = if options.is_empty() { "" } else { " " };
                rules.push(format!(
                    "pass {protocol} any any -> any any (msg: \"Allow {protocol} by \
                     AntreaNetworkPolicy:test/case\";{space}{options} sid: {sid};)"
                ));
            }
            RuleSet { name, rules }
        })
        .collect()
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    http_cases::grid(&mut cases);
    http_cases::targets(&mut cases);
    http_cases::hosts(&mut cases);
    http_cases::heads(&mut cases);
    http_cases::splits(&mut cases);
    http_cases::sequences(&mut cases);
    tls_cases::names(&mut cases);
    tls_cases::hellos(&mut cases);
    tls_cases::others(&mut cases);
    cases
}

pub fn plain() -> Talk {
    Talk {
        transport: Transport::Tcp,
        port: 8080,
        is_v6: false,
        greeting: Vec::new(),
        probe: false,
        close: true,
        bursts: Vec::new(),
    }
}

pub fn add(cases: &mut Vec<Case>, set: &'static str, what: &str, talk: Talk) {
    cases.push(Case {
        id: format!("{set}: {what}"),
        set,
        talk,
    });
}

/// One request after the other, each with an answer.
pub fn http(requests: &[Vec<u8>]) -> Talk {
    let burst = |request: &Vec<u8>| Burst {
        requests: vec![request.clone()],
        cuts: Vec::new(),
        reply: ok(),
    };
    Talk {
        bursts: requests.iter().map(burst).collect(),
        ..plain()
    }
}

pub fn one(request: Vec<u8>) -> Talk {
    http(&[request])
}
