//! `tollgate lab run`

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use tollgate_lab::blind::{self, BlindOptions, BlindReport, DEFAULT_SECONDS, Engine};
use tollgate_lab::lab::Outside;

use super::{at_least_one, failure, this_binary};
use crate::exit::Failure;
use crate::output::{Format, json, table};

/// Which scenario, and how to play it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The scenario
    #[arg(value_enum, value_name = "SCENARIO")]
    scenario: Scenario,
    /// Only this stage (may be given more than once)
    #[arg(long = "stage", value_name = "NAME")]
    stages: Vec<String>,
    /// How the outside hands packets over: veth (super-packets) or wire (MTU-sized frames)
    #[arg(long, value_name = "KIND", default_value_t = Outside::Wire)]
    outside: Outside,
    /// Times that the stages are played, one after the other; rates are medians
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = at_least_one)]
    rounds: usize,
    /// Longest time of a large download
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_SECONDS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Write what passes in each stage to DIR/STAGE.pcapng (16 MiB of packet heads at most); slows
    /// the transfers down
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// The blind engine
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineName::Copier)]
    #[arg(requires_if("suricata", "suricata_root"))]
    engine: EngineName,
    /// Directory with a system that has Suricata; `scripts/suricata-chroot.sh DIR` makes one
    #[arg(long, value_name = "DIR")]
    suricata_root: Option<PathBuf>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Name of the scenario's lab
    #[arg(long, value_name = "NAME", default_value = blind::LAB_NAME)]
    name: String,
}

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// An inline engine that loses what the kernel knew of a packet, and what helps
    OffloadBlind,
}

/// The engines of `offload-blind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EngineName {
    /// The lab's own: copies bytes by AF_PACKET
    Copier,
    /// Suricata in inline copy mode
    Suricata,
}

/// Plays it and prints the result.
pub fn run(args: Args) -> Result<(), Failure> {
    let Scenario::OffloadBlind = args.scenario;
    let engine = match (args.engine, args.suricata_root) {
        (EngineName::Copier, _) => Engine::Copier,
        (EngineName::Suricata, Some(root)) => Engine::Suricata { root },
        (EngineName::Suricata, None) => {
            return Err(Failure::usage("--engine suricata needs --suricata-root"));
        }
    };
    let options = BlindOptions {
        engine,
        outside: args.outside,
        stages: args.stages,
        rounds: args.rounds,
        seconds: args.seconds,
        trace: args.trace,
        lab: args.name,
        ..BlindOptions::new(this_binary()?)
    };
    let report = blind::run(&options).map_err(failure)?;
    match args.output {
        Format::Json => json(&mut std::io::stdout(), &report)?,
        Format::Table => {
            let table = table(BlindReport::HEADER, report.rows());
            writeln!(std::io::stdout(), "{table}\n\n{}", report.legend())?;
        }
    }
    Ok(())
}
