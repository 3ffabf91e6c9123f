//! Repairing, keeping repairs and taking them back.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use tollgate_doctor::action::Action;
use tollgate_doctor::persist::agent;
use tollgate_doctor::persist::{PersistError, systemd};
use tollgate_doctor::repair::{Applied, RepairError, Word, quote};
use tollgate_doctor::report::printable;

use super::{Args, Kept, KeptFile, Persist, commands, repairer};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, json};

/// Carries out.
pub fn apply(args: &Args, actions: &[Action]) -> Result<Vec<Applied>, Failure> {
    repairer(args).apply(actions).map_err(refused)
}

fn refused(error: RepairError) -> Failure {
    Failure::new(Code::Failed, error).hint("repairing needs root: run this with sudo")
}

/// Takes everything back.
pub fn undo(out: &mut dyn Write, args: &Args) -> Outcome {
    let undone = repairer(args).undo().map_err(refused)?;
    match args.output {
        Format::Json => json(out, &serde_json::json!({ "undone": undone }))?,
        Format::Table => {
            for one in &undone {
                line(out, undone_word(one.word), &one.command, one.why.as_deref())?;
            }
            if undone.is_empty() {
                writeln!(out, "nothing to take back")?;
            }
        }
    }
    Ok(match undone.iter().any(|one| one.word == Word::Failed) {
        true => Code::Failed,
        false => Code::Ok,
    })
}

fn undone_word(word: Word) -> &'static str {
    match word {
        Word::Done | Word::Already => "taken back",
        Word::Gone => "gone",
        Word::Failed => "FAILED",
    }
}

fn line(out: &mut dyn Write, word: &str, command: &str, why: Option<&str>) -> Result<(), Failure> {
    writeln!(out, "{word:<10}  {}", printable(command))?;
    if let Some(why) = why {
        writeln!(out, "{:<10}  {}", "", printable(why))?;
    }
    Ok(())
}

/// What was done.
pub fn show(out: &mut dyn Write, applied: &[Applied]) -> Result<(), Failure> {
    writeln!(out, "\nrepair:")?;
    for one in applied {
        let word = match one.word {
            Word::Done => "done",
            Word::Already => "already so",
            Word::Gone => "gone",
            Word::Failed => "FAILED",
        };
        line(out, word, &one.command, one.why.as_deref())?;
    }
    if applied.iter().any(|one| one.word == Word::Done) {
        writeln!(out, "tollgate doctor --undo takes it back")?;
    }
    Ok(())
}

/// What would be done.
pub fn show_plan(out: &mut dyn Write, actions: &[Action]) -> Result<(), Failure> {
    if actions.is_empty() {
        writeln!(out, "\nthere is nothing that --fix could repair")?;
        return Ok(());
    }
    writeln!(out, "\n--fix --yes would run:")?;
    for command in commands(actions) {
        writeln!(out, "    {}", printable(&command))?;
    }
    Ok(())
}

/// Keeps the repairs, or says how: what was repaired before and what is found now.
pub fn keep(args: &Args, found: &[Action]) -> Result<Option<Kept>, Failure> {
    if args.install && args.persist != Persist::Systemd {
        return Err(Failure::usage("--install needs --persist systemd"));
    }
    if args.persist == Persist::None {
        return Ok(None);
    }
    let mut actions = repairer(args).recorded().map_err(refused)?;
    let new = found.iter().filter(|action| !actions.contains(action));
    let new: Vec<Action> = new.cloned().collect();
    actions.extend(new);
    match args.persist {
        Persist::Agent => keep_by_agent(args, &actions).map(Some),
        _ => keep_by_systemd(args, &actions).map(Some),
    }
}

fn keep_by_systemd(args: &Args, actions: &[Action]) -> Result<Kept, Failure> {
    let plan = systemd::plan(actions);
    if args.install {
        plan.write(Path::new("/")).map_err(unkept)?;
        plan.commands.iter().try_for_each(|words| run(words))?;
    }
    let shell = |commands: &[Vec<String>]| commands.iter().map(|words| joined(words)).collect();
    Ok(Kept {
        commands: shell(&plan.commands),
        back: shell(&plan.back),
        files: plan
            .files
            .into_iter()
            .map(|(path, text)| KeptFile { path, text })
            .collect(),
        left: plan.left,
        written: args.install,
    })
}

fn keep_by_agent(args: &Args, actions: &[Action]) -> Result<Kept, Failure> {
    let (offloads, left) = agent::declared(actions);
    let some = !offloads.interfaces.is_empty();
    if args.yes && some {
        agent::write(&args.config, &offloads).map_err(unkept)?;
    }
    let file = some.then(|| KeptFile {
        path: args.config.clone(),
        text: agent::snippet(&offloads),
    });
    Ok(Kept {
        files: file.into_iter().collect(),
        left,
        written: args.yes && some,
        ..Kept::default()
    })
}

fn unkept(error: PersistError) -> Failure {
    Failure::new(Code::Failed, error)
}

fn joined(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

fn run(words: &[String]) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Code::Failed, format!("{}: {why}", joined(words)));
    let Some((program, args)) = words.split_first() else {
        return Ok(());
    };
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

/// What is or would be written.
pub fn show_kept(out: &mut dyn Write, kept: &Kept) -> Result<(), Failure> {
    let word = if kept.written {
        "written"
    } else {
        "to be written"
    };
    for file in &kept.files {
        writeln!(
            out,
            "\n{word}: {}",
            printable(&file.path.display().to_string())
        )?;
        for line in file.text.lines() {
            writeln!(out, "    {}", printable(line))?;
        }
    }
    let list = |out: &mut dyn Write, head: &str, commands: &[String]| -> Result<(), Failure> {
        if !commands.is_empty() {
            writeln!(out, "\n{head}:")?;
        }
        for command in commands {
            writeln!(out, "    {}", printable(command))?;
        }
        Ok(())
    };
    let head = if kept.written { "was run" } else { "then run" };
    list(out, head, &kept.commands)?;
    list(out, "to take it back", &kept.back)?;
    for left in &kept.left {
        writeln!(out)?;
        line(out, "not kept", &left.command, Some(left.why))?;
    }
    Ok(())
}
