//! Looking again and again.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use tollgate_doctor::growth::{self, Growth};
use tollgate_doctor::report::{Found, printable};

use super::{Args, Doctor, code, examine, painter};
use crate::exit::{Failure, Outcome};
use crate::output::{Format, Style};

/// Something that happened, a JSON object a line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    /// A finding came.
    Found(&'a Found),
    /// A finding went.
    Gone(&'a Found),
    /// A counter grew since the last look.
    Grew(&'a Growth),
}

/// A line for each finding that comes or goes and each counter of losses that grows, until
/// interrupted.
pub fn run(out: &mut dyn Write, args: &Args, style: Style, doctor: &dyn Doctor) -> Outcome {
    let mut known: BTreeMap<String, Found> = BTreeMap::new();
    let mut earlier = None;
    loop {
        let examined = examine(args, doctor, earlier.take())?;
        let now: BTreeMap<String, Found> = examined
            .report
            .findings
            .iter()
            .map(|found| (key(found), found.clone()))
            .collect();
        let came = now.iter().filter(|(key, _)| !known.contains_key(*key));
        for (_, found) in came {
            tell(out, args, style, &Event::Found(found))?;
        }
        let gone = known.iter().filter(|(key, _)| !now.contains_key(*key));
        for (_, found) in gone {
            tell(out, args, style, &Event::Gone(found))?;
        }
        let case = &examined.case;
        if let Some(before) = &case.earlier {
            for grown in growth::between(before, &case.now, case.path.as_ref()) {
                tell(out, args, style, &Event::Grew(&grown))?;
            }
        }
        out.flush()?;
        known = now;
        earlier = Some(examined.case.now);
        if !doctor.pause(args.every) {
            return Ok(code(&examined.report));
        }
    }
}

/// A finding that only counts on is the same one.
fn key(found: &Found) -> String {
    let at = found.at.as_ref();
    let at = at.map_or(String::new(), |at| format!("{} {}", at.netns, at.interface));
    let words = found.sentence.replace(|c: char| c.is_ascii_digit(), "");
    format!("{} {at} {words}", found.code)
}

fn tell(out: &mut dyn Write, args: &Args, style: Style, event: &Event<'_>) -> Result<(), Failure> {
    if args.output == Format::Json {
        serde_json::to_writer(&mut *out, event)?;
        return Ok(writeln!(out)?);
    }
    match event {
        Event::Found(found) => {
            let word = format!("{:?}", found.severity).to_lowercase();
            let word = painter(style)(found.severity, &word);
            let sentence = printable(&found.sentence);
            writeln!(out, "+ {}  {word}  {sentence}", found.code)?;
        }
        Event::Gone(found) => {
            writeln!(out, "- {}  {}", found.code, printable(&found.sentence))?;
        }
        Event::Grew(grown) => {
            let interface = grown.interface.as_deref();
            let interface = interface.map_or(String::new(), |name| format!(" {}", printable(name)));
            let (netns, counter) = (printable(&grown.netns), printable(&grown.counter));
            writeln!(out, "  {netns}{interface}  {counter} +{}", grown.by)?;
        }
    }
    Ok(())
}
