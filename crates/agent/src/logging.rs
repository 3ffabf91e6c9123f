//! The agent's own log: what it does and what fails, not what traffic it sees.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// The netlink library warns of every message that comes while it is being shut down.
const NETLINK: &str = "netlink_proto=error";

/// Sends the log to standard error, in the configured shape. A second call changes nothing.
pub fn init(config: &Config) {
    // The level was checked with the rest of the configuration.
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = match NETLINK.parse() {
        Ok(directive) if !config.log_level.contains("netlink") => filter.add_directive(directive),
        _ => filter,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    // An error says that somebody has set up a log before us.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(colours).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
