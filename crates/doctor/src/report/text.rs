//! For the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Direction, ProbeKind, ProbeOutcome, ProbeResult, Transport};
use crate::finding::Severity;
use crate::report::{Found, Report, severity};

/// Before the fields of a finding.
const INDENT: &str = "    ";
/// Column of a field's text: the indentation and a name of eight columns before it.
const FIELD: usize = 14;
/// Column of what a probe is, after the first line.
const PROBE: usize = 6;
/// Column of the sentence: `TG1001  warning  ` before it.
const SENTENCE: usize = 17;

/// Text from the machine without anything a terminal would obey: interface names may hold control
/// characters.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_invisible(c) {
            true => clean.extend(c.escape_unicode()),
            false => clean.push(c),
        }
    }
    clean
}

/// Marks that change the direction of text, with which one name can look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The findings, what could not be told, and the probes, in lines of at most `width` columns; only
/// commands and what a command shows are never broken. `paint` colours a severity's word.
pub fn text(report: &Report, width: usize, paint: &dyn Fn(Severity, &str) -> String) -> String {
    let mut out = String::new();
    for found in &report.findings {
        finding(&mut out, found, width, paint);
        out.push('\n');
    }
    for untold in &report.untold {
        let untold = printable(untold);
        filled(
            &mut out,
            "cannot tell: ",
            "cannot tell: ".len(),
            &untold,
            width,
        );
    }
    for line in probes(report) {
        filled(&mut out, "", PROBE, &printable(&line), width);
    }
    let _ = writeln!(out, "{}", summary(report));
    out
}

/// Failed probes, a line each; those that were not sent, a line for each reason; how many passed.
fn probes(report: &Report) -> Vec<String> {
    let all = &report.probes;
    let failed = |probe: &&ProbeResult| matches!(probe.outcome, ProbeOutcome::Failed(_));
    let mut lines: Vec<String> = all.iter().filter(failed).map(probe).collect();
    let mut unsent: BTreeMap<&str, usize> = BTreeMap::new();
    for probe in all {
        if let ProbeOutcome::NotRun(why) = &probe.outcome {
            *unsent.entry(why).or_default() += 1;
        }
    }
    let unsent = unsent.iter();
    lines
        .extend(unsent.map(|(why, count)| format!("{} not sent: {why}", counted(*count, "probe"))));
    if !all.is_empty() {
        let passed = |probe: &&ProbeResult| probe.outcome == ProbeOutcome::Passed;
        let passed = all.iter().filter(passed).count();
        lines.push(format!("{passed} of {} probes passed", all.len()));
    }
    lines
}

/// Text with `head` before it and its further lines `indent` columns in.
fn filled(out: &mut String, head: &str, indent: usize, text: &str, width: usize) {
    let mut line = head.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let long = line.chars().count() + 1 + word.chars().count() > width;
        if !empty && long {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn finding(
    out: &mut String,
    found: &Found,
    width: usize,
    paint: &dyn Fn(Severity, &str) -> String,
) {
    let word = format!("{:<7}", severity(found.severity));
    // Colours take no columns.
    let plain = format!("{}  {word}  ", found.code);
    let mut head = String::new();
    filled(
        &mut head,
        &plain,
        SENTENCE,
        &printable(&found.sentence),
        width,
    );
    let painted = format!("{}  {}  ", found.code, paint(found.severity, &word));
    out.push_str(&head.replacen(&plain, &painted, 1));
    for evidence in &found.evidence {
        let (source, value) = (printable(&evidence.source), printable(&evidence.value));
        let _ = writeln!(out, "{INDENT}evidence  {source}: {value}");
    }
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            let head = format!("{INDENT}{name:<8}  ");
            filled(out, &head, FIELD, &printable(value), width);
        }
    };
    field("fix", &found.fix);
    field("cost", &found.cost);
    for (number, action) in found.actions.iter().enumerate() {
        let name = if number == 0 { "--fix" } else { "" };
        let _ = writeln!(out, "{INDENT}{name:<8}  {}", printable(&action.command));
    }
    let _ = writeln!(out, "{INDENT}{:<8}  {}", "page", printable(&found.page));
}

/// A probe in one line.
pub fn probe(probe: &ProbeResult) -> String {
    let Words {
        transport,
        family,
        direction,
        what,
    } = words(probe);
    let result = match &probe.outcome {
        ProbeOutcome::Passed => "passed".to_owned(),
        ProbeOutcome::Failed(why) => format!("FAILED: {why}"),
        ProbeOutcome::NotRun(why) => format!("not sent: {why}"),
    };
    format!("probe {transport} over {family}, {direction}, {what}: {result}")
}

/// What a probe is, for people.
pub(super) struct Words {
    pub(super) transport: &'static str,
    pub(super) family: &'static str,
    pub(super) direction: &'static str,
    pub(super) what: &'static str,
}

pub(super) fn words(probe: &ProbeResult) -> Words {
    Words {
        transport: match probe.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        },
        family: if probe.ipv6 { "IPv6" } else { "IPv4" },
        direction: match probe.direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        },
        what: match probe.kind {
            ProbeKind::Small => "a few bytes",
            ProbeKind::Mtu => "packets of the MTU",
            ProbeKind::MtuPlusOne => "a packet over the MTU",
            ProbeKind::Gso => "a burst",
            ProbeKind::Checksum => "checksums",
            ProbeKind::UdpGso => "a burst of datagrams",
        },
    }
}

/// `1 error`, `2 errors`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The last line.
pub fn summary(report: &Report) -> String {
    let count = |severity| {
        let of_it = report
            .findings
            .iter()
            .filter(|found| found.severity == severity);
        of_it.count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match (report.healthy, report.untold.len()) {
        (true, 0) => "healthy: nothing found".to_owned(),
        (true, untold) => format!(
            "nothing found; {} could not be answered",
            counted(untold, "question")
        ),
        (false, _) => {
            let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
            format!("{errors}, {warnings}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::evil;

    #[test]
    fn the_machine_cannot_write_to_the_terminal() {
        let plain = |_: Severity, word: &str| word.to_owned();
        let text = text(&evil(), 80, &plain);
        assert!(!text.contains('\x1b'), "{text}");
        let starts = [
            "TG1001  error    <script>",
            "    evidence  <script>",
            "    fix       <script>",
            "    cost      <script>",
            "    --fix     ip link set dev ",
            "    page      docs/doctor/TG1001.md",
        ];
        let mut lines = text.lines();
        for start in starts {
            let line = lines.next().unwrap();
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(text.lines().last().unwrap(), "1 error, 1 warning");
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let mut out = String::new();
        filled(&mut out, "TG1  ", 5, "one two three four", 14);
        assert_eq!(out, "TG1  one two\n     three\n     four\n");
        out.clear();
        filled(&mut out, "", 2, "averyveryverylongword b", 10);
        assert_eq!(out, "averyveryverylongword\n  b\n");
    }

    #[test]
    fn health_is_said() {
        let plain = |_: Severity, word: &str| word.to_owned();
        let mut report = Report {
            healthy: true,
            ..Report::default()
        };
        assert_eq!(text(&report, 80, &plain), "healthy: nothing found\n");
        report.untold.push("why".into());
        assert!(text(&report, 80, &plain).starts_with("cannot tell: why\nnothing found; 1 "));
    }
}
