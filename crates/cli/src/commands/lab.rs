//! `tollgate lab`

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitStatus;

mod scenario;

use clap::Subcommand;
use tollgate_lab::demo::{self, DemoOptions};
use tollgate_lab::lab::{self, LabInfo, Outside, Place, UpOptions};
use tollgate_lab::names::DEFAULT_NAME;
use tollgate_lab::{LabError, interrupt};

use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, bytes, json, table};

/// Make and use a test bed: a pod, a node and an external host in network namespaces.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with labs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a lab; it stays until `down`
    Up(UpArgs),
    /// Remove a lab with everything in it
    Down {
        /// Name of the lab
        #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
        name: String,
    },
    /// List the labs that are up
    List {
        /// Shape of the result
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
        output: Format,
    },
    /// Run a command, or a shell, in a lab
    Exec {
        /// Name of the lab
        #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
        name: String,
        /// Where: pod, node or out
        #[arg(value_name = "PLACE")]
        place: Place,
        /// The command; a shell without it
        #[arg(trailing_var_arg = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show what a policy lets through, what it refuses and what it costs; cleans up after itself
    Demo {
        /// Directory of the policy [default: examples/policy, or a built-in copy of it]
        #[arg(long, value_name = "DIR")]
        policy_dir: Option<PathBuf>,
        /// How the outside hands packets over: veth (super-packets) or wire (MTU-sized frames)
        #[arg(long, value_name = "KIND", default_value_t)]
        outside: Outside,
        /// Times each transfer is measured with and without policy
        #[arg(long, value_name = "N", default_value_t = 3)]
        #[arg(value_parser = at_least_one)]
        rounds: usize,
    },
    /// Play a scenario in a lab of its own and show what was measured; cleans up after itself
    Run(scenario::Args),
    /// Load generators and probes; the lab runs them in its namespaces
    #[command(hide = true)]
    Traffic {
        /// Name of the helper and its options
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        args: Vec<OsString>,
    },
}

/// What lab to make.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// Name of the lab
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    name: String,
    /// How the outside hands packets over: veth (super-packets) or wire (MTU-sized frames)
    #[arg(long, value_name = "KIND", default_value_t)]
    outside: Outside,
    /// MTU of the pod's link
    #[arg(long, value_name = "BYTES", default_value_t = lab::DEFAULT_MTU)]
    #[arg(value_parser = clap::value_parser!(u16).range(i64::from(lab::MIN_MTU)..=i64::from(lab::MAX_MTU)))]
    pod_mtu: u16,
    /// MTU of the link to the outside
    #[arg(long, value_name = "BYTES", default_value_t = lab::DEFAULT_MTU)]
    #[arg(value_parser = clap::value_parser!(u16).range(i64::from(lab::MIN_MTU)..=i64::from(lab::MAX_MTU)))]
    out_mtu: u16,
}

impl From<UpArgs> for UpOptions {
    fn from(args: UpArgs) -> Self {
        let UpArgs {
            name,
            outside,
            pod_mtu,
            out_mtu,
        } = args;
        Self {
            name,
            outside,
            pod_mtu,
            out_mtu,
            ..Self::default()
        }
    }
}

/// Does what is asked.
pub fn run(args: Args) -> Outcome {
    interrupt::install();
    match args.command {
        Command::Up(args) => {
            let lab = lab::up(&args.into()).map_err(failure)?;
            let description = lab::describe(&lab.info);
            lab.keep();
            writeln!(std::io::stdout(), "{description}")?;
        }
        Command::Down { name } => lab::down(&name).map_err(failure)?,
        Command::List {
            output: Format::Json,
        } => json(&mut std::io::stdout(), &lab::list())?,
        Command::List {
            output: Format::Table,
        } => {
            writeln!(std::io::stdout(), "{}", render(&lab::list()))?;
        }
        Command::Exec {
            name,
            place,
            command,
        } => {
            let status = lab::exec(&name, place, &command).map_err(failure)?;
            return passed_on(status);
        }
        Command::Demo {
            policy_dir,
            outside,
            rounds,
        } => {
            let options = DemoOptions {
                policy_dir,
                outside,
                rounds,
                ..DemoOptions::new(this_binary()?)
            };
            demo::run(&options).map_err(failure)?;
        }
        Command::Run(args) => scenario::run(args)?,
        // Run before anything else is set up.
        Command::Traffic { .. } => {}
    }
    Ok(Code::Ok)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 up is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// The binary that the lab starts as agent and helpers: this one.
pub fn this_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::new(Code::Failed, format!("finding this program: {error}")))
}

fn render(labs: &[LabInfo]) -> String {
    let row = |lab: &LabInfo| {
        [
            lab.name.clone(),
            lab.outside.to_string(),
            lab.pod_mtu.to_string(),
            lab.out_mtu.to_string(),
            bytes(lab.big_bytes),
        ]
    };
    table(
        ["NAME", "OUTSIDE", "POD-MTU", "OUT-MTU", "BIG"],
        labs.iter().map(row),
    )
}

/// A command's own exit code is passed on as shells do it.
fn passed_on(status: ExitStatus) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(Code::Other(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// A failure of the lab in the terms of the command line.
pub fn failure(error: LabError) -> Failure {
    let code = match &error {
        LabError::Interrupted => Code::Other(error.exit_code()),
        LabError::Usage(_) | LabError::BadName(_) => Code::Usage,
        LabError::Unexpected(_) => Code::Finding,
        _ => Code::Failed,
    };
    Failure::new(code, error)
}
