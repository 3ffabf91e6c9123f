//! The command line and the configuration.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tollgate_dropin::args::{self, Request};
use tollgate_dropin::config::{Config, Midstream, Own, Pair, Sink};

fn parse(line: &str) -> Result<Request, String> {
    args::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn the_agents_command_line_is_read() {
    let Ok(Request::Run(args)) = parse("-c /etc/s.yaml --af-packet -D -l /var/log/x") else {
        panic!("not read")
    };
    assert_eq!(args.config, Path::new("/etc/s.yaml"));
    assert_eq!(args.log_dir, Path::new("/var/log/x"));
    assert!(args.daemon && !args.test);
    let more = "--af-packet=eth0 -T -vvv --pidfile=/p --set a.b=c=d --set x= -S r -k none -s q";
    let Ok(Request::Run(args)) = parse(more) else {
        panic!("not read")
    };
    assert_eq!(args.verbose, 3);
    assert_eq!(args.pidfile.as_deref(), Some(Path::new("/p")));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(args.set, [pair("a.b", "c=d"), pair("x", "")]);
    assert_eq!((args.rules_only.len(), args.rules_more.len()), (1, 1));
    assert_eq!(parse("-V"), Ok(Request::Version));
    assert_eq!(parse("--build-info"), Ok(Request::BuildInfo));
}

#[test]
fn what_is_not_known_is_said() {
    for (line, words) in [
        ("--pcap=x", "option --pcap is not known"),
        ("-i eth0", "option -i is not known"),
        ("file.pcap", "option file.pcap is not known"),
        ("-c", "-c needs a value"),
        ("--set x", "NAME=VALUE"),
    ] {
        let said = parse(line).unwrap_err();
        assert!(said.contains(words), "{line}: {said}");
    }
}

fn files(entries: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in entries {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn read(dir: &TempDir, set: &[(&str, &str)]) -> Result<Config, String> {
    let set: Vec<_> = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let config = Config::read(&dir.path().join("main.yaml"), Path::new("/log"), &set);
    config.map_err(|error| error.to_string())
}

const PAIRS: &str = "af-packet:
  - interface: a
    copy-mode: ips
    copy-iface: b
  - interface:  b
    copy-mode: ips
    copy-iface: a
  - interface: default
    threads: auto
";

#[test]
fn includes_replace_sections_and_may_be_repeated() {
    let main = format!(
        "%YAML 1.1\n---\noutputs:\n  - eve-log: {{enabled: yes, filename: x.json}}\n\
         detect:\n  profile: medium\n{PAIRS}\n\
         include: more.yaml # appended\ninclude: more.yaml\ninclude: \"more.yaml\"\n"
    );
    let more = "%YAML 1.1\n---\noutputs:\n  - fast: {enabled: yes}\n  - eve-log:\n      enabled: no\n\
                \x20 - eve-log:\n      enabled: yes\n      filename: eve-%Y.json\n      rotate-interval: day\n\
                \x20     types:\n        - alert:\n            packet: yes\n        - http\n\
                \x20 - eve-log:\n      enabled: yes\n      filetype: unix_stream\n      filename: /run/s\n\
                \x20     types: [http: {extended: yes}]\n\
                multi-detect: {enabled: yes, selector: vlan}\n\
                default-rule-path: /rules\nrule-files:\n  - one.rules\n  - /abs/two.rules\n\
                include:\n  # why not\n  - third.yaml\nstats: {enabled: no}\n";
    let third = "tollgate:\n  unknown-vlan: drop\n  midstream: pass\n  offload-decided: no\n";
    let dir = files(&[
        ("main.yaml", &main),
        ("more.yaml", more),
        ("third.yaml", third),
    ]);
    let config = read(&dir, &[]).unwrap();
    let pair = |from: &str, to: &str| Pair {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    assert_eq!(config.pairs, [pair("a", "b")]);
    assert_eq!(config.reversed, [pair("b", "a")]);
    let [file, stream] = &config.eve[..] else {
        panic!("{:?}", config.eve)
    };
    assert_eq!(file.sink, Sink::File("/log/eve-%Y.json".into()));
    assert!(file.alert && file.packet && file.http && !file.tls);
    assert_eq!(stream.sink, Sink::Stream("/run/s".into()));
    assert!(stream.http && !stream.alert && !stream.tls);
    assert!(config.tenants);
    let expected = ["/rules/one.rules", "/abs/two.rules"];
    assert_eq!(config.rule_files, expected.map(std::path::PathBuf::from));
    assert_eq!(config.ignored, ["detect", "stats"]);
    let expected = Own {
        offload_decided: false,
        drop_unknown: true,
        midstream: Midstream::Pass,
        rewrite_pod_mac: true,
    };
    assert_eq!(config.own, expected);
    let set = [
        ("tollgate.midstream", "reset"),
        ("multi-detect.enabled", "no"),
    ];
    let config = read(&dir, &set).unwrap();
    assert_eq!(config.own.midstream, Midstream::Reset);
    assert!(!config.tenants);
}

#[test]
fn a_configuration_of_no_use_says_why() {
    let cases = [
        ("outputs: []\n", "nothing to stand between"),
        ("- a\n", "is no mapping"),
        ("a: [\n", "cannot be read as YAML"),
        ("include: main.yaml\n", "deep"),
        ("include: gone.yaml\n", "gone.yaml"),
        (
            "multi-detect: {enabled: yes, selector: device}\n",
            "selector device",
        ),
        ("tollgate: {midstrem: pass}\n", "midstrem is not known"),
        ("tollgate: {midstream: maybe}\n", "reset or pass"),
        ("tollgate: yes\n", "is no mapping"),
        (
            "outputs: [eve-log: {enabled: yes, filetype: redis}]\n",
            "filetype redis",
        ),
        (
            "outputs: [eve-log: {enabled: yes, rotate-interval: hour}]\n",
            "rotate-interval hour",
        ),
    ];
    for (text, words) in cases {
        let pairs = if words.contains("stand") { "" } else { PAIRS };
        let text = match text.starts_with(['-', 'a']) {
            true => text.to_owned(),
            false => format!("{pairs}{text}"),
        };
        let dir = files(&[("main.yaml", &text)]);
        let said = read(&dir, &[]).unwrap_err();
        assert!(said.contains(words), "{text}: {said}");
    }
    let tap = PAIRS.replace("copy-mode: ips", "copy-mode: tap");
    let said = read(&files(&[("main.yaml", &tap)]), &[]).unwrap_err();
    assert!(said.contains("copy-mode tap"), "{said}");
}
