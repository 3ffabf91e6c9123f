//! Suricata's command line, as far as it is used to start an inline engine.

use std::path::PathBuf;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `-c`: the configuration.
    pub config: PathBuf,
    /// `-l`: where logs go.
    pub log_dir: PathBuf,
    /// `-D`: in the background.
    pub daemon: bool,
    /// `-T`: only look at the configuration.
    pub test: bool,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--set`: name and value.
    pub set: Vec<(String, String)>,
    /// `-S`: these rule files instead of the configuration's.
    pub rules_only: Vec<PathBuf>,
    /// `-s`: these rule files besides.
    pub rules_more: Vec<PathBuf>,
    /// `-v`, counted.
    pub verbose: u8,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run.
    Run(Args),
    /// `-V`.
    Version,
    /// `--build-info`.
    BuildInfo,
    /// `-h`.
    Help,
}

/// Configuration unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/suricata/suricata.yaml";
/// Log directory unless told otherwise.
pub const DEFAULT_LOG_DIR: &str = "/var/log/suricata";

/// Usage, for people.
pub const HELP: &str = "\
Tollgate in the place of Suricata: layer-7 policy between two ports of a switch.

usage: suricata [-c FILE] --af-packet [-D] [-l DIR] [options]
  -c FILE            configuration (/etc/suricata/suricata.yaml)
  --af-packet        take frames from interfaces, the only way there is
  -l DIR             directory for logs (/var/log/suricata)
  -D                 run in the background; returns once packets are taken and the socket listens
  -T                 check the configuration and end
  -S FILE, -s FILE   rule file instead of, or besides, the configuration's
  --pidfile FILE     write the process's number there
  --set NAME=VALUE   set a value of the configuration
  -v                 say more; -V version; --build-info; -h this text
";

/// Reads the command line, without the program's name.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Request, String> {
    let mut args = args.into_iter();
    let mut parsed = Args {
        config: DEFAULT_CONFIG.into(),
        log_dir: DEFAULT_LOG_DIR.into(),
        ..Args::default()
    };
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| args.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "-c" => parsed.config = value()?.into(),
            "-l" => parsed.log_dir = value()?.into(),
            "-D" => parsed.daemon = true,
            "-T" => parsed.test = true,
            "-S" => parsed.rules_only.push(value()?.into()),
            "-s" => parsed.rules_more.push(value()?.into()),
            "--pidfile" => parsed.pidfile = Some(value()?.into()),
            "--set" => {
                let value = value()?;
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| format!("--set wants NAME=VALUE, not {value}"))?;
                let pair = (name.trim().to_owned(), value.trim().to_owned());
                parsed.set.push(pair);
            }
            "-V" | "--version" => return Ok(Request::Version),
            "--build-info" => return Ok(Request::BuildInfo),
            "-h" | "--help" => return Ok(Request::Help),
            // Interfaces come from the configuration; there is one run mode, and these say no other.
            "--af-packet" | "--init-errors-fatal" | "--unix-socket" => {}
            "-k" | "--runmode" => drop(value()?),
            _ if is_verbose(name) => {
                let more = u8::try_from(name.len() - 1).unwrap_or(u8::MAX);
                parsed.verbose = parsed.verbose.saturating_add(more);
            }
            other => {
                return Err(format!(
                    "option {other} is not known here; suricata -h lists those that are"
                ));
            }
        }
    }
    Ok(Request::Run(parsed))
}

fn is_verbose(name: &str) -> bool {
    let letters = name.strip_prefix('-').unwrap_or_default();
    !letters.is_empty() && letters.bytes().all(|letter| letter == b'v')
}
