//! `tollgate check`

mod node;
mod post;
mod pre;

use std::io::Write;
use std::path::PathBuf;

use tollgate_agent::config::{Config, Overrides};
use tollgate_doctor::check::{Line, Outcome as Result, Report};

use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json, printable};

/// Check what a node needs before the agent is installed, or whether everything is in place after.
///
/// What the kernel can do is found out by doing it, in namespaces that end with the check. Without
/// --pre and --post: --post if there is an admin socket, else --pre. Exit code 0: nothing failed; 1:
/// something did; 3: nothing failed, but something could not be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the node needs
    #[arg(long, conflicts_with = "post")]
    pre: bool,
    /// Whether the running agent has everything in place
    #[arg(long)]
    post: bool,
    /// Configuration file of the agent [default: /etc/tollgate/agent.yaml, if it exists]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of policy files
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// Run directory of the agent
    #[arg(long, value_name = "DIR", env = "TOLLGATE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// Directory of the pins
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// Name of the TAP
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Checks and shows.
pub async fn run(args: Args, style: Style) -> Outcome {
    let overrides = Overrides {
        policy_dir: args.policy_dir,
        run_dir: args.run_dir,
        pin_dir: args.pin_dir,
        tap: args.tap,
        ..Overrides::default()
    };
    let config = Config::load(args.config.as_deref(), overrides)
        .map_err(|error| Failure::usage(format!("configuration: {error}")))?;
    let installed = args.post || (!args.pre && config.socket().exists());
    let sections = match installed {
        true => post::sections(&Client::at(config.socket())).await,
        false => pre::sections(&config),
    };
    let report = Report::new(sections);
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => write!(out, "{}", render(&report, style))?,
    }
    Ok(match report.outcome() {
        Result::Ok | Result::Warn => Code::Ok,
        Result::Fail => Code::Finding,
        Result::Unknown => Code::Unreachable,
    })
}

fn render(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for section in &report.sections {
        text.push_str(&format!("{}\n", section.title));
        for line in &section.lines {
            text.push_str(&render_line(line, style));
        }
        text.push('\n');
    }
    let summary = report.summary.to_string();
    let mark = mark(report.outcome(), style);
    text.push_str(&format!("{mark} {summary}\n"));
    text
}

fn render_line(line: &Line, style: Style) -> String {
    let mark = mark(line.outcome, style);
    let mut text = format!("  {mark} {}\n", printable(&line.text));
    if !line.hint.is_empty() {
        let indent = " ".repeat(mark_width(style) + 3);
        text.push_str(&format!("{indent}hint: {}\n", printable(&line.hint)));
    }
    text
}

/// Width of a mark: one character on a terminal, else the longest word.
fn mark_width(style: Style) -> usize {
    if style.is_coloured() { 1 } else { 4 }
}

fn mark(outcome: Result, style: Style) -> String {
    if !style.is_coloured() {
        return format!("{:<4}", outcome.word());
    }
    match outcome {
        Result::Ok => style.good(outcome.mark()),
        Result::Warn | Result::Unknown => style.odd(outcome.mark()),
        Result::Fail => style.bad(outcome.mark()),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_doctor::check::Section;

    use super::*;

    #[test]
    fn lines_have_marks_on_a_terminal_and_words_elsewhere() {
        let mut section = Section::new("Kernel");
        section.ok("a", "fine");
        section.add("b", Result::Fail, "bro\x1bken", "mend it");
        let report = Report::new(vec![section]);
        assert_eq!(
            render(&report, Style::plain()),
            "Kernel\n  ok   fine\n  fail bro\\u{1b}ken\n       hint: mend it\n\n\
             fail 1 ok, 0 to look at, 1 failed\n"
        );
        let coloured = render(&report, Style::of(crate::output::Colour::Always));
        assert!(coloured.contains("\x1b[32m√\x1b[0m fine"), "{coloured}");
        assert!(coloured.contains("\x1b[31m×\x1b[0m"), "{coloured}");
    }
}
