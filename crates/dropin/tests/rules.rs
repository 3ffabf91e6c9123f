//! Rule files, as they are generated and as people break them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use proptest::prelude::*;
use tollgate_dropin::rules::{
    Action, Buffer, Content, FlowBit, FlowOption, Protocol, Rule, parse, parse_known,
};

fn one(text: &str) -> Rule {
    let mut rules = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(rules.len(), 1, "{text}");
    rules.remove(0)
}

/// Contents in short: buffer, bytes, and `^`, `$`, `i` for the modifiers.
fn contents(rule: &Rule) -> Vec<String> {
    let short = |content: &Content| {
        format!(
            "{} {}{}{}{}",
            content.buffer,
            if content.startswith { "^" } else { "" },
            String::from_utf8_lossy(&content.bytes),
            if content.endswith { "$" } else { "" },
            if content.nocase { " i" } else { "" },
        )
    };
    rule.contents.iter().map(short).collect()
}

#[test]
fn the_default_rule_rejects_what_a_client_sends() {
    let rule = one(
        r#"reject ip any any -> any any (msg: "Reject by AntreaNetworkPolicy:ns/name"; flow: to_server, established; sid: 1;)"#,
    );
    assert_eq!(rule.action, Action::Reject);
    assert_eq!(rule.protocol, Protocol::Ip);
    assert_eq!(rule.msg, "Reject by AntreaNetworkPolicy:ns/name");
    assert_eq!((rule.gid, rule.sid, rule.rev), (1, 1, 0));
    let expected = FlowOption {
        to_server: true,
        to_client: false,
        established: true,
    };
    assert_eq!(rule.flow, expected);
}

#[test]
fn pass_rules_say_what_must_be_found() {
    let cases: [(&str, &[&str]); 9] = [
        ("http | ", &[]),
        ("tls | ", &[]),
        (
            r#"http | http.uri; content:"/index.html"; startswith; endswith; http.method; content:"GET"; http.host; content:"www.google.com"; startswith; endswith;"#,
            &[
                "http.uri ^/index.html$",
                "http.method GET",
                "http.host ^www.google.com$",
            ],
        ),
        (
            r#"http | http.uri; content:"/api/v2/"; startswith; http.host; content:".foo.com"; endswith;"#,
            &["http.uri ^/api/v2/", "http.host .foo.com$"],
        ),
        (
            r#"http | http.host; content:".foo.";"#,
            &["http.host .foo."],
        ),
        (
            r#"http | http.host; content:"WWW.foo.";"#,
            &["http.host www.foo."],
        ),
        (
            r#"tls | tls.sni; content:"google.com"; startswith; endswith;"#,
            &["tls.sni ^google.com$"],
        ),
        (
            r#"tls | tls.sni; content:"a\;b\"c\\d|41 42|e"; nocase;"#,
            &["tls.sni a;b\"c\\dABe i"],
        ),
        (
            r#"http | http.uri; content:"/a;b"; content:"c";"#,
            &["http.uri /a;b", "http.uri c"],
        ),
    ];
    for (text, expected) in cases {
        let (protocol, options) = text.split_once(" | ").unwrap();
        let rule = one(&format!(
            r#"pass {protocol} any any -> any any (msg: "Allow by AntreaNetworkPolicy:ns/name"; {options} sid: 2;)"#
        ));
        assert_eq!(rule.action, Action::Pass, "{text}");
        assert_eq!(contents(&rule), expected, "{text}");
    }
}

#[test]
fn vlans_and_flowbits_are_read() {
    let rule = one(
        "alert ip any any <> any any (vlan.id:5; flowbits:set,tenant-5; noalert; sid:10; rev:3; gid:7;)",
    );
    assert_eq!(rule.vlan, Some(5));
    assert_eq!(rule.flowbits, [FlowBit::Set("tenant-5".into())]);
    assert!(rule.noalert);
    assert_eq!((rule.gid, rule.sid, rule.rev), (7, 10, 3));
    let rule = one(
        "drop tcp any any -> any any (flowbits: isset, tenant-5; flowbits: isnotset, x; flowbits: noalert; sid:11;)",
    );
    let expected = [
        FlowBit::IsSet("tenant-5".into()),
        FlowBit::IsNotSet("x".into()),
    ];
    assert_eq!(rule.flowbits, expected);
    assert!(rule.noalert);
}

#[test]
fn comments_blank_lines_and_continued_lines() {
    let text = "# a comment\n\n  pass http any any -> any any \\\n   (msg: \"a (b)\"; \\\n sid: 1;)  \n#pass\npass tls any any -> any any (sid: 2;)\n";
    let rules = parse(text.as_bytes()).unwrap();
    let lines: Vec<_> = rules.iter().map(|rule| (rule.line, rule.sid)).collect();
    assert_eq!(lines, [(3, 1), (7, 2)]);
    assert_eq!(rules[0].msg, "a (b)");
    assert!(parse(b"").unwrap().is_empty());
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let head = "pass http any any -> any any";
    let cases = [
        ("pass", "there is no `(`"),
        ("pass http any any -> any any (sid:1;", "no `)`"),
        ("pass http any any -> any (sid:1;)", "a rule reads"),
        ("allow http any any -> any any (sid:1;)", "action \"allow\""),
        ("pass ftp any any -> any any (sid:1;)", "protocol \"ftp\""),
        (
            "pass http 10.0.0.0/8 any -> any any (sid:1;)",
            "\"10.0.0.0/8\"",
        ),
        ("pass http any any -> any 80 (sid:1;)", "\"80\""),
        (&format!("{head} (sid:1)"), "no `;`"),
        (&format!("{head} (msg:\"x\";)"), "needs a sid"),
        (&format!("{head} (sid:x;)"), "is no number"),
        (&format!("{head} (pcre:\"/x/\"; sid:1;)"), "option \"pcre\""),
        (&format!("{head} (content:\"x\"; sid:1;)"), "needs http.uri"),
        (&format!("{head} (startswith; sid:1;)"), "needs a content"),
        (
            &format!("{head} (tls.sni; content:\"x\"; sid:1;)"),
            "tls.sni in a rule about Http",
        ),
        (
            &format!("{head} (http.uri; content:!\"x\"; sid:1;)"),
            "negated",
        ),
        (
            &format!("{head} (http.uri; content:x; sid:1;)"),
            "must be in quotes",
        ),
        (
            &format!("{head} (http.uri; content:\"|4|\"; sid:1;)"),
            "odd hexadecimal",
        ),
        (
            &format!("{head} (http.uri; content:\"|41\"; sid:1;)"),
            "closing bar",
        ),
        (
            &format!("{head} (http.uri; content:\"a\\b\"; sid:1;)"),
            "needs no escape",
        ),
        (
            &format!("{head} (http.uri; content:\"a\"b\"; sid:1;)"),
            "no `;`",
        ),
        (&format!("{head} (flow:stateless; sid:1;)"), "\"stateless\""),
        (
            &format!("{head} (vlan.id:4095; sid:1;)"),
            "no number of a VLAN",
        ),
        (
            &format!("{head} (flowbits:toggle,x; sid:1;)"),
            "not known here",
        ),
        (
            &format!("{head} (sid:7;)\n{head} (sid:7;)"),
            "line 4: sid 7 is that of the rule in line 3",
        ),
    ];
    for (text, expected) in cases {
        let text = format!("\n# comment\n{text}\n");
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(
            error.starts_with("line 3: ") || error.starts_with("line 4: "),
            "{error}"
        );
    }
    assert!(parse(b"\xff").unwrap_err().to_string().contains("UTF-8"));
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "[a-z:;|\\\\\"() .\n#0-9!,]{0,200}") {
        let _ = parse(text.as_bytes());
        let _ = parse(format!("pass http any any -> any any ({text} sid:1;)").as_bytes());
    }

    #[test]
    fn a_content_survives_its_escapes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let escaped: String = bytes
            .iter()
            .map(|byte| match byte {
                b'"' | b';' | b'\\' | b':' => format!("\\{}", char::from(*byte)),
                b'|' => "|7c|".to_owned(),
                byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
                byte => format!("|{byte:02x}|"),
            })
            .collect();
        let rule = one(&format!(
            "pass tls any any -> any any (tls.sni; content:\"{escaped}\"; sid:1;)"
        ));
        prop_assert_eq!(&rule.contents[0].bytes, &bytes);
        prop_assert_eq!(rule.contents[0].buffer, Buffer::TlsSni);
    }
}

#[test]
fn only_pass_rules_can_be_left_out() {
    let reject = "reject ip any any -> any any (msg: \"a\"; sid: 1;)";
    let file = format!(
        "{reject}\npass http any any -> any any (http.uri; content:\"a\"b\"; sid: 2;)\n\
         pass http any any -> any any (sid: 3;)\npass ftp any any -> any any (sid: 4;)\n"
    );
    let parsed = parse_known(file.as_bytes()).unwrap();
    let sids: Vec<_> = parsed.rules.iter().map(|rule| rule.sid).collect();
    assert_eq!(sids, [1, 3]);
    let lines: Vec<_> = parsed.left_out.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 4]);
    assert_eq!(parse(file.as_bytes()).unwrap_err().line, 2);
    for bad in [
        "reject ftp any any -> any any (sid: 1;)",
        "passport",
        "(pass)",
    ] {
        assert!(parse_known(bad.as_bytes()).is_err(), "{bad}");
    }
}
