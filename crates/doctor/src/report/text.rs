//! For the terminal.

use std::fmt::Write as _;

use crate::case::{Direction, ProbeOutcome, ProbeResult, Transport};
use crate::finding::Severity;
use crate::report::{Found, Report, severity};

/// Column of the sentence: `TG1001  warning  ` before it.
const INDENT: &str = "    ";

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

/// The findings, what could not be told, and the probes. `paint` colours a severity's word.
pub fn text(report: &Report, paint: &dyn Fn(Severity, &str) -> String) -> String {
    let mut out = String::new();
    for found in &report.findings {
        finding(&mut out, found, paint);
    }
    for untold in &report.untold {
        line(&mut out, &format!("cannot tell: {}", printable(untold)));
    }
    for probe in &report.probes {
        line(&mut out, &printable(&self::probe(probe)));
    }
    line(&mut out, &summary(report));
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn finding(out: &mut String, found: &Found, paint: &dyn Fn(Severity, &str) -> String) {
    let word = format!("{:<7}", severity(found.severity));
    let word = paint(found.severity, &word);
    let sentence = printable(&found.sentence);
    let _ = writeln!(out, "{}  {word}  {sentence}", found.code);
    for evidence in &found.evidence {
        let (source, value) = (printable(&evidence.source), printable(&evidence.value));
        let _ = writeln!(out, "{INDENT}evidence  {source}: {value}");
    }
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{INDENT}{name:<8}  {}", printable(value));
        }
    };
    field("fix", &found.fix);
    for action in &found.actions {
        field("", &action.command);
    }
    field("cost", &found.cost);
    field("page", &found.page);
}

/// A probe in one line.
pub fn probe(probe: &ProbeResult) -> String {
    let transport = match probe.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let family = if probe.ipv6 { "IPv6" } else { "IPv4" };
    let direction = match probe.direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    };
    let what = format!("{:?}", probe.kind).to_lowercase();
    let result = match &probe.outcome {
        ProbeOutcome::Passed => "passed".to_owned(),
        ProbeOutcome::Failed(why) => format!("FAILED: {why}"),
        ProbeOutcome::NotRun(why) => format!("not run: {why}"),
    };
    format!("probe {transport} {family} {direction} {what}: {result}")
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
        (true, untold) => format!("nothing found; {untold} question(s) could not be answered"),
        (false, _) => format!("{errors} error(s), {warnings} warning(s)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::evil;

    #[test]
    fn the_machine_cannot_write_to_the_terminal() {
        let plain = |_: Severity, word: &str| word.to_owned();
        let text = text(&evil(), &plain);
        assert!(!text.contains('\x1b'), "{text}");
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("TG1001  error    <script>")
        );
        assert!(lines.next().unwrap().starts_with("    evidence  <script>"));
        assert!(lines.next().unwrap().starts_with("    fix       <script>"));
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("              ip link set dev ")
        );
        assert!(lines.next().unwrap().starts_with("    cost      <script>"));
        assert_eq!(lines.next().unwrap(), "    page      docs/doctor.md#tg1001");
        assert_eq!(text.lines().last().unwrap(), "1 error(s), 1 warning(s)");
    }

    #[test]
    fn health_is_said() {
        let plain = |_: Severity, word: &str| word.to_owned();
        let mut report = Report {
            healthy: true,
            ..Report::default()
        };
        assert_eq!(text(&report, &plain), "healthy: nothing found\n");
        report.untold.push("why".into());
        assert!(text(&report, &plain).starts_with("cannot tell: why\nnothing found; 1 "));
    }
}
