//! The commands, one module each.

pub mod agent;
pub mod bench;
pub mod check;
pub mod cleanup;
pub mod conformance;
pub mod doctor;
pub mod explain;
pub mod flows;
pub mod inspect;
pub mod lab;
pub mod lint;
pub mod observe;
pub mod policies;
pub mod schema;
pub mod status;
pub mod version;

use std::future::Future;
use std::process::ExitCode;

use crate::args::{Cli, Command, PolicyCommand};
use crate::exit::{Code, Failure, Outcome};
use crate::output::Style;

/// Runs one command to its end.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        // A load generator measures; nothing of ours stands around it.
        Command::Lab(lab::Args {
            command: lab::Command::Traffic { args },
        }) => Ok(tollgate_lab::traffic::main(&args)),
        _ => dispatch(cli).map(ExitCode::from),
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let style = Style::of(cli.color);
    match cli.command {
        Command::Agent(args) => agent::run(args),
        Command::Status(args) => block_on(status::run(args, style)),
        Command::Check(args) => block_on(check::run(args, style)),
        Command::Doctor(args) => doctor::run(&args, style),
        Command::Observe(args) => block_on(observe::run(args, style)),
        Command::Flows(args) => block_on(flows::run(args)),
        Command::Policy(args) => match args.command {
            PolicyCommand::Lint(args) => lint::run(&args, style),
            PolicyCommand::Explain(args) => explain::run(&args, style),
            PolicyCommand::List(args) => block_on(policies::run(args)),
            PolicyCommand::Schema => schema::run(),
        },
        Command::Inspect(args) => inspect::run(&args, style),
        Command::Cleanup(args) => cleanup::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Conformance(args) => conformance::run(args, style),
        Command::Lab(args) => lab::run(args),
        Command::Version(args) => version::run(&args),
    }
}

/// Runs what talks to the agent.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Failed, format!("starting: {error}")))?;
    runtime.block_on(work)
}
