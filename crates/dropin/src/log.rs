//! The daemon's own log: lines on standard error, which the supervisor leads to `suricata.log`.

use std::fmt::Display;
use std::io::Write as _;

/// Something that people who run it should know.
pub fn notice(what: impl Display) {
    write("Notice", what);
}

/// Something that is not as it should be; it goes on.
pub fn warning(what: impl Display) {
    write("Warning", what);
}

/// Something that failed.
pub fn error(what: impl Display) {
    write("Error", what);
}

fn write(level: &str, what: impl Display) {
    let now = jiff::Zoned::now();
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6f%z");
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{time} {level}: {what}");
}
