//! `tollgate agent`

use std::path::PathBuf;

use tollgate_agent::config::{Config, LogFormat, Overrides};
use tollgate_agent::{RunError, logging};

use crate::exit::{Code, Failure, Outcome};

/// Govern traffic: run the agent until SIGTERM or SIGINT.
///
/// SIGHUP reads the policy again and reopens the verdict log. When the agent ends, decided flows go
/// on in the kernel and undecided traffic is dropped until it is back; `tollgate cleanup` lifts that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: /etc/tollgate/agent.yaml, if it exists]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of policy files
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// Directory of the admin socket and the verdict log
    #[arg(long, value_name = "DIR", env = "TOLLGATE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// Directory below a bpffs for programs, links and maps
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// Name of the TAP
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
    /// Worker threads; 0: one per core
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// File of the verdict log, or `off`
    #[arg(long, value_name = "FILE")]
    verdict_log: Option<String>,
    /// Address and port of the metrics, or `off`
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    /// Name of this node in events
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// error, warn, info, debug, trace, or filter directives
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log lines as JSON objects
    #[arg(long)]
    log_json: bool,
    /// Print the configuration that would be in force, and end
    #[arg(long)]
    check_config: bool,
}

/// Runs the agent.
pub fn run(args: Args) -> Outcome {
    let config = Config::load(
        args.config.as_deref(),
        Overrides {
            policy_dir: args.policy_dir,
            run_dir: args.run_dir,
            pin_dir: args.pin_dir,
            tap: args.tap,
            workers: args.workers,
            verdict_log: args.verdict_log,
            metrics: args.metrics,
            node_name: args.node_name,
            log_level: args.log_level,
            log_format: args.log_json.then_some(LogFormat::Json),
        },
    )
    .map_err(|error| Failure::usage(format!("configuration: {error}")))?;
    if args.check_config {
        crate::output::json(&mut std::io::stdout().lock(), &config)?;
        return Ok(Code::Ok);
    }
    logging::init(&config);
    tollgate_agent::run(config).map_err(explain)?;
    Ok(Code::Ok)
}

fn explain(error: RunError) -> Failure {
    match &error {
        RunError::Policy { dir, source } => {
            let lines = source.lines().join("\n  ");
            Failure::new(Code::Finding, format!("{error}:\n  {lines}")).hint(format!(
                "check it with `tollgate policy lint {}`",
                dir.display()
            ))
        }
        RunError::AlreadyRunning(_) => Failure::new(Code::Failed, &error).hint(
            "`tollgate status` shows it; a second one needs its own --run-dir, --pin-dir and --tap",
        ),
        RunError::Datapath(_) | RunError::System { .. } if !privileged() => {
            Failure::new(Code::Failed, &error).hint(
                "the agent needs root, or CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON: run it with sudo",
            )
        }
        RunError::Datapath(_) => Failure::new(Code::Failed, &error)
            .hint("Linux 5.15 or later with BPF, TUN/TAP and a mounted bpffs is needed"),
        RunError::System { .. } => Failure::new(Code::Failed, &error),
    }
}

/// Whether this process is root; a guess for a hint, nothing else.
fn privileged() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
