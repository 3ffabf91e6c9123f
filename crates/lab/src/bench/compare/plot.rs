//! The ratios as bars: an SVG document by hand, which needs no program to draw and no font of its own.

use std::fmt::Write;

use super::peer::Peer;
use super::report::{CompareReport, PeerResult};

/// Height of a bar with its gap, and of the bar, in pixels.
const LINE: usize = 18;
const BAR: usize = 14;
/// Room above the first case: two lines of text.
const HEAD: usize = 48;
/// Gap between two cases.
const GAP: usize = 12;
/// Where names of enforcers and where bars begin.
const PEERS_AT: usize = 165;
const BARS_AT: usize = 255;
/// Length of a bar of 1.0, the speed without policy.
const FULL: f64 = 420.0;
/// Longest bar that is drawn; a ratio above it is noise of a measurement.
const LONGEST: f64 = 1.2;
/// Room for the figure after a bar.
const WIDTH: usize = 860;

/// One colour an enforcer, apart also for readers who do not tell red from green.
fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Tollgate => "#175cd3",
        Peer::Workaround => "#98a2b3",
        Peer::Suricata => "#e07a1f",
        Peer::DropIn => "#53a5ff",
        Peer::HaProxy => "#5f3dc4",
        Peer::Nginx => "#0b7a75",
    }
}

/// Draws a report: a group a case, a bar an enforcer, its length the speed that is left of that
/// without policy. Cases without anything to compare with are left out.
pub(super) fn svg(report: &CompareReport) -> String {
    let groups: Vec<&[PeerResult]> = report
        .by_case()
        .filter(|results| results.iter().any(drawn))
        .collect();
    let lines: usize = groups.iter().map(|results| count(results)).sum();
    let height = HEAD + lines * LINE + groups.len() * GAP;
    let mut out = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"speed relative to no policy\">\n\
         <style>text{{font:13px ui-monospace,monospace;fill:#1b1f24}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"0\" y=\"14\">Speed relative to no policy (1.00); latencies as their inverse: \
         longer is better everywhere</text>\n\
         <text x=\"0\" y=\"32\">outside {}, {} CPUs, Linux {}</text>",
        report.outside,
        report.cpus,
        escape(&report.kernel)
    );
    let mut y = HEAD;
    for results in groups {
        group(&mut out, results, y);
        y += count(results) * LINE + GAP;
    }
    let x = BARS_AT as f64 + FULL;
    let _ = writeln!(
        out,
        "<line x1=\"{x}\" y1=\"{HEAD}\" x2=\"{x}\" y2=\"{height}\" stroke=\"#1b1f24\" \
         stroke-dasharray=\"3 3\"/>\n</svg>"
    );
    out
}

/// A failure is drawn too, as what it is.
fn drawn(result: &PeerResult) -> bool {
    result.speed().is_some() || result.failure.is_some()
}

fn count(results: &[PeerResult]) -> usize {
    results.iter().filter(|result| drawn(result)).count()
}

fn group(out: &mut String, results: &[PeerResult], top: usize) {
    for (line, result) in results.iter().filter(|result| drawn(result)).enumerate() {
        let y = top + line * LINE;
        let base = y + BAR - 2;
        if line == 0 {
            let _ = writeln!(out, "<text x=\"0\" y=\"{base}\">{}</text>", result.name);
        }
        let speed = result.speed();
        let length = speed.unwrap_or(0.0).min(LONGEST) * FULL;
        let figure = speed.map_or_else(|| "fails".to_owned(), |speed| format!("{speed:.2}"));
        let _ = writeln!(
            out,
            "<text x=\"{PEERS_AT}\" y=\"{base}\">{}</text>\
             <rect x=\"{BARS_AT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{figure}</text>",
            result.peer,
            colour(result.peer),
            BARS_AT as f64 + length + 8.0,
        );
    }
}

/// Text that may hold anything.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_speeds() {
        let text = svg(&report());
        assert_eq!(text.matches("<rect x=").count(), 4);
        for (speed, figure) in [(0.9, "0.90"), (0.5, "0.50"), (0.8, "0.80")] {
            let length = format!("width=\"{:.1}\"", speed * FULL);
            assert!(text.contains(&length), "{text}");
            assert!(text.contains(&format!(">{figure}</text>")), "{text}");
        }
        assert!(text.contains(">fails</text>"), "{text}");
        // Nothing to compare with.
        assert!(!text.contains("cpu-per-gb"), "{text}");
    }

    #[test]
    fn the_document_is_well_formed() {
        let mut report = report();
        report.kernel = "6.1 <&>".into();
        let text = svg(&report);
        assert!(text.contains("6.1 &lt;&amp;&gt;"), "{text}");
        for tag in ["svg", "text", "style"] {
            let open = text.matches(&format!("<{tag}")).count();
            assert_eq!(open, text.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(text.trim_end().ends_with("</svg>"));
    }
}
