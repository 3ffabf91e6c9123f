//! The processes: a launcher that returns when all is ready, a supervisor that starts the engine again
//! if it dies, and the engine, which does the work.
//!
//! With `-D` the launcher starts the supervisor in a session of its own and waits for its word;
//! without, it is the supervisor itself. The engine says one line when it is ready or cannot be.

mod engine;
mod supervisor;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use crate::VERSION_LINE;
use crate::args::{self, Args, Request};
use crate::config::{Config, Own};
use crate::control::client::{Client, ClientError, printed};
use crate::control::{DEFAULT_SOCKET, Reply};
use crate::log;

/// Program names by which this is called.
pub const NAME: &str = "suricata";
/// See [`NAME`].
pub const CLIENT_NAME: &str = "suricatasc";

/// First arguments of processes that are started from here.
const SUPERVISOR: &str = "--tollgate-supervisor";
/// See [`SUPERVISOR`].
const ENGINE: &str = "--tollgate-engine";

/// What is said when all is well; anything else is the reason why not.
const READY: &str = "ready";

/// `suricata`: runs with the arguments behind the program's name.
pub fn suricata(arguments: &[String]) -> ExitCode {
    let (role, rest) = match arguments.split_first() {
        Some((first, rest)) if first == SUPERVISOR || first == ENGINE => (first.as_str(), rest),
        _ => ("", arguments),
    };
    let parsed = match args::parse(rest.iter().cloned()) {
        Ok(Request::Run(parsed)) => parsed,
        Ok(Request::Version) => return say(VERSION_LINE),
        Ok(Request::Help) => return say(args::HELP.trim_end()),
        Ok(Request::BuildInfo) => {
            return say(&format!(
                "{VERSION_LINE}\nFeatures: AF_PACKET PACKET_VNET_HDR"
            ));
        }
        Err(problem) => return fail(&problem),
    };
    let config = match read(&parsed) {
        Ok(config) => config,
        Err(problem) => return not_ready(role, &problem),
    };
    let result = match role {
        ENGINE => engine::run(config, &parsed),
        SUPERVISOR => supervisor::run(&config, &parsed, rest, true),
        _ if parsed.test => {
            return match engine::check(&config) {
                Ok(()) => say("Configuration provided was successfully loaded. Exiting."),
                Err(problem) => fail(&problem),
            };
        }
        _ if parsed.daemon => return launch(rest),
        _ => supervisor::run(&config, &parsed, rest, false),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => not_ready(role, &problem),
    }
}

fn read(args: &Args) -> Result<Config, String> {
    let config = Config::read(&args.config, &args.log_dir, &args.set);
    let mut config = config.map_err(|error| error.to_string())?;
    if config.tenants {
        // What a distribution's file names here was never meant for this.
        config.rule_files.clear();
    }
    if !args.rules_only.is_empty() {
        config.rule_files.clone_from(&args.rules_only);
    }
    config.rule_files.extend(args.rules_more.iter().cloned());
    Ok(config)
}

fn say(text: &str) -> ExitCode {
    tell(text);
    ExitCode::SUCCESS
}

/// A line on standard output; that nobody may read it any more is no failure.
fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn fail(problem: &str) -> ExitCode {
    log::error(problem);
    ExitCode::FAILURE
}

/// Tells whoever waits for the word.
fn not_ready(role: &str, problem: &str) -> ExitCode {
    if !role.is_empty() {
        tell(&problem.replace('\n', " "));
    }
    fail(problem)
}

/// This program again, in another role.
fn again(role: &str, arguments: &[String]) -> Result<Command, String> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| format!("finding this program: {error}"))?;
    let mut command = Command::new(program);
    command.arg0(NAME).arg(role).args(arguments);
    Ok(command)
}

/// Waits for the word of a process that was started.
fn await_ready(child: &mut Child) -> Result<(), String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Nothing means that it has ended without a word.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    match line.trim_end() {
        READY => Ok(()),
        "" => Err("the engine ended without a word; its log may tell".to_owned()),
        problem => Err(problem.to_owned()),
    }
}

/// `-D`.
fn launch(arguments: &[String]) -> ExitCode {
    let start = || -> Result<(), String> {
        let mut child = again(SUPERVISOR, arguments)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting the supervisor: {error}"))?;
        await_ready(&mut child)
    };
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

/// A configuration's deviations from what is usual, for the log.
fn settings(own: &Own) -> String {
    format!(
        "unknown VLANs {}, connections whose beginning was not seen {}, decided connections {}",
        if own.drop_unknown { "dropped" } else { "pass" },
        match own.midstream {
            crate::config::Midstream::Reset => "reset",
            crate::config::Midstream::Pass => "pass",
        },
        if own.offload_decided {
            "left to the switch"
        } else {
            "stay here"
        },
    )
}

/// Removes a socket's file that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), String> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(format!(
            "another daemon listens on {}; end it first",
            path.display()
        ));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("removing {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// `suricatasc`: runs with the arguments behind the program's name.
pub fn suricatasc(arguments: &[String]) -> ExitCode {
    let (mut line, mut socket) = (None, DEFAULT_SOCKET.to_owned());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-c" | "--command" => match arguments.next() {
                Some(given) => line = Some(given.clone()),
                None => return failed_reply("-c needs a command"),
            },
            "-v" | "--verbose" | "-q" => {}
            "-V" | "--version" => return say(VERSION_LINE),
            "-h" | "--help" => {
                return say(
                    "usage: suricatasc [-c COMMAND] [SOCKET]\nWithout -c, commands are \
                            read line by line; command-list names them.",
                );
            }
            other if !other.starts_with('-') => socket = other.to_owned(),
            other => return failed_reply(&format!("option {other} is not known here")),
        }
    }
    let mut client = match Client::connect(Path::new(&socket)) {
        Ok(client) => client,
        Err(error) => return failed_reply(&error.to_string()),
    };
    match line {
        Some(line) => ask(&mut client, &line),
        None => interact(&mut client),
    }
}

/// One command; one object is printed, whatever happens, and nothing else.
fn ask(client: &mut Client, line: &str) -> ExitCode {
    match client.ask(line) {
        Ok(reply) => {
            tell(&printed(&reply));
            if reply.ok {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => failed_reply(&error.to_string()),
    }
}

fn failed_reply(problem: &str) -> ExitCode {
    tell(&printed(&Reply::failed(problem)));
    ExitCode::FAILURE
}

fn interact(client: &mut Client) -> ExitCode {
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { break };
        let line = line.trim();
        if matches!(line, "quit" | "exit") {
            break;
        }
        if line.is_empty() {
            continue;
        }
        match client.ask(line) {
            Ok(reply) => tell(&printed(&reply)),
            Err(ClientError::Command(problem)) => tell(&printed(&Reply::failed(problem))),
            Err(error) => return failed_reply(&error.to_string()),
        }
    }
    ExitCode::SUCCESS
}
