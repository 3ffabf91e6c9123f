//! Tells what is going on: a spinner on a terminal, plain lines elsewhere; always on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Pause between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Progress of a longer job.
pub struct Progress {
    bar: Option<ProgressBar>,
    begin: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

impl Progress {
    /// Starts to tell.
    pub fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Progress {
            bar,
            begin: Instant::now(),
        }
    }

    /// What is being done now.
    pub fn step(&self, what: impl AsRef<str>) {
        let what = what.as_ref();
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => {
                let seconds = self.begin.elapsed().as_secs();
                // Progress that cannot be shown is no reason to stop.
                let _ = writeln!(std::io::stderr(), "[{seconds:>3} s] {what}");
            }
        }
    }

    /// Tells something that stays, on standard error, above the spinner.
    pub fn note(&self, text: &str) {
        let print = || {
            let _ = writeln!(std::io::stderr(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a result on standard output, above the spinner.
    pub fn print(&self, text: &str) {
        let print = || {
            let _ = writeln!(std::io::stdout(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
