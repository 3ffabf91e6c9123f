//! One page that needs nothing else: no script, no picture, no style from elsewhere.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::case::{ProbeOutcome, ProbeResult, Via};
use crate::report::{Found, Report, Stage, Stop, Way, severity, text, via};

/// Width of the drawings in pixels.
const WIDTH: usize = 720;
/// Height of a hop's box, and of the arrow below it.
const BOX: usize = 52;
const ARROW: usize = 34;
/// Height of a bar with its gap.
const BAR: usize = 28;
/// Where bars begin: names stand before them.
const BARS_AT: f64 = 220.0;
/// Length of the longest bar; its figure stands after it.
const BAR_LENGTH: f64 = 380.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:56em;padding:0 1em;\
color:#1b1f24;background:#fff}h1{margin:0}h2{margin:1.6em 0 .4em;font-size:1.25em}.sum{color:#475467;margin:0}\
code,pre{font:13px/1.5 ui-monospace,monospace}\
pre{background:#f3f4f6;padding:.6em;margin:.6em 0 0;white-space:pre-wrap;overflow-wrap:anywhere;border-radius:4px}\
article{border-left:4px solid #999;padding:.1em 0 .1em 1em;margin:1.2em 0}article.error{border-color:#b42318}\
article.warning{border-color:#b54708}article.info{border-color:#175cd3}h3{margin:0;font-size:1.05em}\
h3 b{font:600 12px ui-monospace,monospace;color:#fff;border-radius:3px;padding:.15em .5em;margin-right:.6em}\
.error b{background:#b42318}.warning b{background:#b54708}.info b{background:#175cd3}p{margin:.4em 0}\
dl{display:grid;grid-template-columns:5.5em 1fr;margin:.4em 0;gap:.15em 0}dt{color:#475467}\
dd{margin:0;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25em 1em .25em 0;border-bottom:1px solid #eaecf0;vertical-align:top}\
th{color:#475467;font-weight:400}td:nth-child(-n+3){white-space:nowrap}.bad{color:#b42318}.dim{color:#667085}.good{color:#067647}\
svg{max-width:100%;height:auto}svg text{font:13px ui-monospace,monospace;fill:#1b1f24}\
svg .dim{fill:#667085}svg .bad{fill:#b42318;font-weight:600}";

/// Results of a bed's stages, as `--stages FILE` reads them; other fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// In the order in which they are shown.
    pub stages: Vec<Stage>,
}

/// Text as it may stand in the page and in attributes. Control characters, which no page may hold,
/// become the replacement character.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// The page.
pub fn page(report: &Report, stages: Option<&Stages>) -> String {
    let mut out = String::new();
    let word = if report.healthy {
        "healthy"
    } else {
        "not healthy"
    };
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>tollgate doctor: {word}</title><style>{STYLE}</style></head>\n<body>\
         <h1>tollgate doctor: {word}</h1>\n<p class=\"sum\">{}</p>\n",
        escape(&text::summary(report))
    );
    if let Some(way) = &report.path {
        path(&mut out, way);
    }
    if !report.findings.is_empty() {
        out.push_str("<h2>Findings</h2>\n");
    }
    for found in &report.findings {
        finding(&mut out, found);
    }
    if !report.probes.is_empty() {
        probes(&mut out, &report.probes);
    }
    list(&mut out, "What could not be told", &report.untold);
    if let Some(stages) = stages.filter(|stages| !stages.stages.is_empty()) {
        bars(&mut out, &stages.stages);
    }
    out.push_str("</body></html>\n");
    out
}

fn list(out: &mut String, head: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(out, "<h2>{head}</h2><ul>");
    for item in items {
        let _ = writeln!(out, "<li>{}</li>", escape(item));
    }
    out.push_str("</ul>\n");
}

fn finding(out: &mut String, found: &Found) {
    let word = severity(found.severity);
    let _ = writeln!(
        out,
        "<article class=\"{word}\" id=\"{code}\"><h3><b>{code} {word}</b>{title}</h3><p>{}</p><dl>",
        escape(&found.sentence),
        code = escape(&found.code),
        title = escape(&found.title),
    );
    for (number, evidence) in found.evidence.iter().enumerate() {
        let name = if number == 0 { "evidence" } else { "" };
        let (source, value) = (escape(&evidence.source), escape(&evidence.value));
        let _ = writeln!(
            out,
            "<dt>{name}</dt><dd><code>{source}</code>: {value}</dd>"
        );
    }
    for (name, value) in [
        ("fix", &found.fix),
        ("cost", &found.cost),
        ("page", &found.page),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        }
    }
    out.push_str("</dl>");
    if !found.actions.is_empty() {
        let commands: Vec<&str> = found
            .actions
            .iter()
            .map(|run| run.command.as_str())
            .collect();
        let _ = write!(out, "<pre>{}</pre>", escape(&commands.join("\n")));
    }
    out.push_str("</article>\n");
}

fn probes(out: &mut String, probes: &[ProbeResult]) {
    out.push_str(
        "<h2>Probes</h2>\n<table><tr><th>over</th><th>payload</th><th>what</th><th>result</th></tr>\n",
    );
    for probe in probes {
        let words = text::words(probe);
        let (class, result) = match &probe.outcome {
            ProbeOutcome::Passed => ("good", "passed".to_owned()),
            ProbeOutcome::Failed(why) => ("bad", format!("failed: {}", escape(why))),
            ProbeOutcome::NotRun(why) => ("dim", format!("not sent: {}", escape(why))),
        };
        let _ = writeln!(
            out,
            "<tr><td>{} {}</td><td>{}</td><td>{}</td><td class=\"{class}\">{result}</td></tr>",
            words.transport, words.family, words.direction, words.what
        );
    }
    out.push_str("</table>\n");
}

fn path(out: &mut String, way: &Way) {
    let (from, to) = (escape(&way.from), escape(&way.to));
    let boxes = way.hops.len() * (BOX + ARROW);
    // The last box is the remote side, unless the path ends before it.
    let height = if way.ends.is_empty() {
        boxes.saturating_sub(ARROW)
    } else {
        boxes + ARROW / 2
    } + 2;
    let _ = writeln!(
        out,
        "<h2>Path from {from} to {to}</h2>\n<svg role=\"img\" aria-label=\"path from {from} to {to}\" \
         viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">"
    );
    for (i, stop) in way.hops.iter().enumerate() {
        hop(out, stop, i * (BOX + ARROW) + 1);
    }
    if !way.ends.is_empty() {
        arrow(out, boxes + 1);
        let y = boxes + ARROW / 2 - 2;
        let _ = writeln!(
            out,
            "<text x=\"46\" y=\"{}\">{}</text>",
            y - ARROW / 2,
            escape(&way.ends)
        );
    }
    out.push_str("</svg>\n");
}

/// An arrow that ends here.
fn arrow(out: &mut String, y: usize) {
    let (top, tip) = (y.saturating_sub(ARROW), y.saturating_sub(2));
    let _ = writeln!(
        out,
        "<path d=\"M30 {top}V{tip}m-5 -7l5 7l5 -7\" fill=\"none\" stroke=\"#667085\"/>"
    );
}

fn hop(out: &mut String, stop: &Stop, y: usize) {
    let stroke = if stop.findings.is_empty() {
        "#98a2b3"
    } else {
        "#b42318"
    };
    let (netns, interface) = (escape(&stop.at.netns), escape(&stop.at.interface));
    if stop.via != Via::Start {
        arrow(out, y);
        let _ = writeln!(
            out,
            "<text class=\"dim\" x=\"46\" y=\"{}\">{}</text>",
            y.saturating_sub(ARROW / 2) + 4,
            escape(&via(&stop.via))
        );
    }
    let mut details = format!("MTU {}", stop.mtu);
    if stop.overhead > 0 {
        let _ = write!(details, ", {} bytes of tunnels", stop.overhead);
    }
    let _ = writeln!(
        out,
        "<rect x=\"1\" y=\"{y}\" width=\"{}\" height=\"{BOX}\" rx=\"5\" fill=\"#f9fafb\" stroke=\"{stroke}\"/>\
         <text x=\"12\" y=\"{}\">{interface}<tspan class=\"dim\"> in {netns}</tspan></text>\
         <text class=\"dim\" x=\"12\" y=\"{}\">{}</text>\
         <text class=\"bad\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        WIDTH - 2,
        y + 21,
        y + 41,
        escape(&details),
        WIDTH - 12,
        y + 21,
        escape(&stop.findings.join(" "))
    );
}

fn bars(out: &mut String, stages: &[Stage]) {
    let usable = |value: f64| {
        if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        }
    };
    let longest = stages
        .iter()
        .map(|stage| usable(stage.gbit_per_s))
        .fold(0.0, f64::max);
    let height = stages.len() * BAR;
    let _ = writeln!(
        out,
        "<h2>Throughput by stage</h2>\n<svg role=\"img\" aria-label=\"throughput by stage\" \
         viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">"
    );
    for (i, stage) in stages.iter().enumerate() {
        let value = usable(stage.gbit_per_s);
        let length = if longest > 0.0 {
            value / longest * BAR_LENGTH
        } else {
            0.0
        };
        let y = i * BAR;
        let _ = writeln!(
            out,
            "<text x=\"0\" y=\"{base}\">{name}</text>\
             <rect x=\"{BARS_AT}\" y=\"{top}\" width=\"{length:.1}\" height=\"18\" fill=\"#175cd3\"/>\
             <text x=\"{after:.1}\" y=\"{base}\">{value:.3} Gbit/s</text>",
            base = y + 18,
            top = y + 4,
            name = escape(&stage.name),
            after = BARS_AT + length + 8.0,
        );
    }
    out.push_str("</svg>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{EVIL, evil};

    #[test]
    fn what_comes_from_the_machine_is_escaped() {
        let stages = Stages {
            stages: vec![
                Stage {
                    name: EVIL.into(),
                    gbit_per_s: 12.5,
                },
                Stage {
                    name: "odd".into(),
                    gbit_per_s: f64::NAN,
                },
            ],
        };
        let page = page(&evil(), Some(&stages));
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains('\x1b'));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}[31m&amp;&#39;&quot;"));
        // Every field that can hold it did.
        assert!(page.matches("&lt;script&gt;").count() > 20);
        assert!(page.contains("12.500 Gbit/s") && page.contains("0.000 Gbit/s"));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&evil(), None);
        for outside in ["src=", "href=", "url(", "@import", "http://", "https://"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn python_reads_the_page_and_finds_it_closed() {
        let script = "
import sys
from html.parser import HTMLParser
class P(HTMLParser):
    stack=[]
    def handle_starttag(self,t,a):
        assert t!='script', t
        assert not [n for n,_ in a if n.startswith('on')], a
        if t!='meta': self.stack.append(t)
    def handle_endtag(self,t):
        assert self.stack and self.stack.pop()==t, (t,self.stack)
p=P(); p.feed(open(sys.argv[1]).read()); p.close(); assert not p.stack, p.stack
";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), page(&evil(), None)).unwrap();
        let output = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
