//! The agent's configuration: built-in defaults, then a YAML file, then command-line flags.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_engine::limits::Limits as EngineLimits;
use tollgate_engine::names::Resolvers;

use crate::offloads::config::Offloads;
use crate::ovs::config::{DatapathKind, Ovs};
use crate::ovs::live::WORKERS as OVS_WORKERS;

/// Where the agent looks for a configuration file if none is named; it need not exist.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/tollgate/agent.yaml";

/// Where the policy files lie unless the configuration says otherwise.
pub const DEFAULT_POLICY_DIR: &str = "/etc/tollgate/policy";

/// Where the admin socket and the verdict log lie unless the configuration says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/tollgate";

/// Where BPF programs, links and maps are pinned unless the configuration says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/tollgate";

/// The TAP's name unless the configuration says otherwise.
pub const DEFAULT_TAP: &str = "tollgate0";

/// Where metrics are served unless the configuration says otherwise; loopback, because the
/// counters name endpoints and policies.
pub const DEFAULT_METRICS: &str = "127.0.0.1:9464";

/// A configuration file above this many bytes is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Linux interface names have at most `IFNAMSIZ - 1` bytes.
const MAX_INTERFACE_NAME: usize = 15;

/// The TAP's queue limit in the kernel (`MAX_TAP_QUEUES`).
const MAX_WORKERS: usize = 256;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration file {} has {size} bytes; at most {MAX_FILE_BYTES} are read", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is no YAML, has an unknown field or a value of the wrong kind.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, from 1; 0 if it is not known.
        line: u64,
        /// Column, from 1; 0 if it is not known.
        column: u64,
        /// What is wrong.
        message: String,
    },
    /// A value is well formed, but cannot be used.
    #[error("{field}: {message}")]
    Value {
        /// Which field, in the file's spelling.
        field: &'static str,
        /// What is wrong with its value and what would be right.
        message: String,
    },
}

/// How the agent's own log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which events the log file gets. While everything is logged or observed, every request costs an
/// event; otherwise the engines do not even make those that nobody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSelection {
    /// What was refused, audited or bypassed, and what a rule with `enableLogging` decided.
    #[default]
    Selected,
    /// Everything, ends of flows too.
    All,
}

/// Bounds on what traffic can make the agent hold. What happens at each is told by
/// [`tollgate_engine::limits::Limits`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Flows in one worker's table.
    pub flows_per_worker: usize,
    /// Flows of one endpoint in one worker's table.
    pub flows_per_endpoint: usize,
    /// Entries of the kernel's flow cache, shared by all workers.
    pub flow_cache_entries: u32,
    /// Bytes of out-of-order segments that one worker holds back for all flows.
    pub held_bytes: usize,
    /// Bytes of out-of-order segments held back for one flow.
    pub held_bytes_per_flow: usize,
    /// Judged but unacknowledged bytes remembered for one flow.
    pub kept_bytes_per_flow: usize,
    /// Bytes of memory of what one worker judges, for all flows: unfinished heads and hellos, judged bytes
    /// that are remembered, facts.
    pub judged_bytes: usize,
    /// Of those, what the flows of one endpoint may take.
    pub judged_bytes_per_endpoint: usize,
    /// Fragmented packets that one worker remembers.
    pub fragments: usize,
    /// Seconds without a packet after which a TCP flow is forgotten.
    pub tcp_idle_seconds: u64,
    /// Seconds without a packet after which any other flow is forgotten.
    pub datagram_idle_seconds: u64,
    /// Events that wait for the writer; what comes on top is counted and lost.
    pub event_queue: usize,
    /// Recent events kept in memory for `observe`.
    pub recent_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let engine = EngineLimits::default();
        Self {
            flows_per_worker: engine.flows,
            flows_per_endpoint: engine.flows_per_endpoint,
            // Two workers' tables: what the engines can decide, the kernel should hold.
            flow_cache_entries: 262_144,
            held_bytes: engine.held_bytes,
            held_bytes_per_flow: engine.held_bytes_per_flow,
            kept_bytes_per_flow: engine.kept_bytes_per_flow,
            judged_bytes: engine.judged_bytes,
            judged_bytes_per_endpoint: engine.judged_bytes_per_endpoint,
            fragments: engine.fragments,
            tcp_idle_seconds: engine.tcp_idle.as_secs(),
            datagram_idle_seconds: engine.datagram_idle.as_secs(),
            // Half a second of 100,000 requests/s and some; about 20 MB when full.
            event_queue: 65_536,
            recent_events: 4_096,
        }
    }
}

impl Limits {
    /// The part that bounds one worker's engine.
    pub fn engine(&self) -> EngineLimits {
        EngineLimits {
            flows: self.flows_per_worker,
            flows_per_endpoint: self.flows_per_endpoint,
            held_bytes_per_flow: self.held_bytes_per_flow,
            held_bytes: self.held_bytes,
            kept_bytes_per_flow: self.kept_bytes_per_flow,
            judged_bytes: self.judged_bytes,
            judged_bytes_per_endpoint: self.judged_bytes_per_endpoint,
            fragments: self.fragments,
            tcp_idle: Duration::from_secs(self.tcp_idle_seconds),
            datagram_idle: Duration::from_secs(self.datagram_idle_seconds),
            ..EngineLimits::default()
        }
    }
}

/// Whose DNS answers teach the names of `fqdn` peers, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// Addresses of the resolvers as endpoints use them: in a cluster, the DNS service's.
    pub resolvers: Vec<IpAddr>,
    /// Seconds for which an address counts at least, whatever its TTL.
    pub min_ttl_seconds: u64,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            // Clients and their libraries hold on to addresses somewhat longer than they should.
            min_ttl_seconds: 60,
        }
    }
}

impl Dns {
    /// What the engines need of it.
    pub fn engine(&self) -> Resolvers {
        Resolvers {
            addresses: self.resolvers.clone(),
            min_ttl: Duration::from_secs(self.min_ttl_seconds),
        }
    }
}

/// The configuration file's fields, each optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigFile {
    datapath: Option<DatapathKind>,
    ovs: Option<Ovs>,
    policy_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    pin_dir: Option<PathBuf>,
    tap: Option<String>,
    workers: Option<usize>,
    verdict_log: Option<String>,
    verdict_log_selection: Option<LogSelection>,
    log_query_strings: Option<bool>,
    metrics: Option<String>,
    node_name: Option<String>,
    node_addresses: Option<Vec<IpAddr>>,
    dns: Option<Dns>,
    limits: Option<Limits>,
    offloads: Option<Offloads>,
    log_level: Option<String>,
    log_format: Option<LogFormat>,
}

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Directory of policy files.
    pub policy_dir: Option<PathBuf>,
    /// Directory of the admin socket.
    pub run_dir: Option<PathBuf>,
    /// Directory below a bpffs for programs, links and maps.
    pub pin_dir: Option<PathBuf>,
    /// Name of the TAP.
    pub tap: Option<String>,
    /// Worker threads; 0: one per core.
    pub workers: Option<usize>,
    /// File of the verdict log, or `off`.
    pub verdict_log: Option<String>,
    /// Address and port of the metrics, or `off`.
    pub metrics: Option<String>,
    /// Name of this node in every event.
    pub node_name: Option<String>,
    /// Directives of the agent's own log.
    pub log_level: Option<String>,
    /// Shape of the agent's own log.
    pub log_format: Option<LogFormat>,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// What brings frames to the engine.
    pub datapath: DatapathKind,
    /// The bridge, if the data path is one.
    pub ovs: Ovs,
    /// Directory of policy files.
    pub policy_dir: PathBuf,
    /// Directory of the admin socket.
    pub run_dir: PathBuf,
    /// Directory below a bpffs for programs, links and maps.
    pub pin_dir: PathBuf,
    /// Name of the TAP.
    pub tap: String,
    /// Worker threads, one per TAP queue; never 0.
    pub workers: usize,
    /// File of the verdict log; `None`: none is written.
    pub verdict_log: Option<PathBuf>,
    /// Which verdicts the log file gets.
    pub verdict_log_selection: LogSelection,
    /// Whether a request target keeps what follows its `?` in events; it may carry secrets.
    pub log_query_strings: bool,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Name of this node in every event.
    pub node_name: String,
    /// The node's own addresses as the policy compiler needs them (kubelet's probes).
    pub node_addresses: Vec<IpAddr>,
    /// Where names are learnt.
    pub dns: Dns,
    /// Bounds on what traffic can make the agent hold.
    pub limits: Limits,
    /// Offload state to keep.
    pub offloads: Offloads,
    /// Directives of the agent's own log, as `tracing_subscriber::EnvFilter` reads them.
    pub log_level: String,
    /// Shape of the agent's own log.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads `file` if one is named (else [`DEFAULT_CONFIG_FILE`] if it exists), puts `overrides`
    /// on top and checks the whole.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_CONFIG_FILE).exists() => {
                read(Path::new(DEFAULT_CONFIG_FILE))?
            }
            None => ConfigFile::default(),
        };
        merge(file, overrides)
    }

    /// The same from a text in memory; `name` stands for the file in errors.
    pub fn parse(name: &Path, text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        merge(parse(name, text)?, overrides)
    }

    /// The admin socket's path.
    pub fn socket(&self) -> PathBuf {
        socket_path(&self.run_dir)
    }
}

/// The admin socket's path in a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    parse(path, &std::fs::read_to_string(path).map_err(failed)?)
}

fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    // An empty or comments-only file is a configuration without fields.
    let file: Option<ConfigFile> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location();
        ConfigError::Syntax {
            path: path.to_owned(),
            line: location.map_or(0, |at| at.line()),
            column: location.map_or(0, |at| at.column()),
            message: one_line(&error.to_string()),
        }
    })?;
    Ok(file.unwrap_or_default())
}

/// The parser's message without its own location prefix and line breaks.
fn one_line(message: &str) -> String {
    let joined = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.split_once(": ") {
        Some((prefix, rest)) if prefix.contains("line ") => rest.to_owned(),
        _ => joined,
    }
}

fn merge(file: ConfigFile, flags: Overrides) -> Result<Config, ConfigError> {
    let run_dir = pick(flags.run_dir, file.run_dir, DEFAULT_RUN_DIR);
    let verdict_log = flags.verdict_log.or(file.verdict_log);
    let metrics = flags
        .metrics
        .or(file.metrics)
        .unwrap_or_else(|| DEFAULT_METRICS.to_owned());
    let datapath = file.datapath.unwrap_or_default();
    let config = Config {
        datapath,
        ovs: file.ovs.unwrap_or_default(),
        verdict_log: log_path(verdict_log, &run_dir),
        verdict_log_selection: file.verdict_log_selection.unwrap_or_default(),
        log_query_strings: file.log_query_strings.unwrap_or(false),
        policy_dir: pick(flags.policy_dir, file.policy_dir, DEFAULT_POLICY_DIR),
        pin_dir: pick(flags.pin_dir, file.pin_dir, DEFAULT_PIN_DIR),
        tap: flags
            .tap
            .or(file.tap)
            .unwrap_or_else(|| DEFAULT_TAP.to_owned()),
        workers: worker_count(datapath, flags.workers.or(file.workers).unwrap_or(0))?,
        metrics: listen_address(&metrics)?,
        node_name: flags.node_name.or(file.node_name).unwrap_or_else(host_name),
        node_addresses: file.node_addresses.unwrap_or_default(),
        dns: file.dns.unwrap_or_default(),
        limits: file.limits.unwrap_or_default(),
        offloads: file.offloads.unwrap_or_default(),
        log_level: flags
            .log_level
            .or(file.log_level)
            .unwrap_or_else(|| "info".to_owned()),
        log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
        run_dir,
    };
    check(&config)?;
    Ok(config)
}

fn pick(flag: Option<PathBuf>, file: Option<PathBuf>, default: &str) -> PathBuf {
    flag.or(file).unwrap_or_else(|| PathBuf::from(default))
}

fn log_path(value: Option<String>, run_dir: &Path) -> Option<PathBuf> {
    match value {
        Some(value) if value == "off" => None,
        Some(value) => Some(PathBuf::from(value)),
        None => Some(run_dir.join("verdicts.jsonl")),
    }
}

fn worker_count(datapath: DatapathKind, wanted: usize) -> Result<usize, ConfigError> {
    if datapath == DatapathKind::Ovs {
        let message = format!("with datapath `ovs` there is {OVS_WORKERS}; leave it out");
        return match wanted {
            0 | OVS_WORKERS => Ok(OVS_WORKERS),
            _ => Err(ConfigError::Value {
                field: "workers",
                message,
            }),
        };
    }
    if wanted > MAX_WORKERS {
        let message =
            format!("{wanted} is more than a TAP has queues; 0 (one per core) to {MAX_WORKERS}");
        return Err(ConfigError::Value {
            field: "workers",
            message,
        });
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(if wanted == 0 {
        // A frame is then handled on the CPU that it came up on, without waking another one: with
        // client and server on two CPUs two workers had 0.9 of the request rate without policy,
        // one had 0.65.
        cores.clamp(1, MAX_WORKERS)
    } else {
        wanted
    })
}

fn listen_address(value: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if value == "off" {
        return Ok(None);
    }
    let message = format!("`{value}` is no address and port such as {DEFAULT_METRICS}, nor `off`");
    value.parse().map(Some).map_err(|_| ConfigError::Value {
        field: "metrics",
        message,
    })
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn check(config: &Config) -> Result<(), ConfigError> {
    check_tap(&config.tap)?;
    for (field, path) in [
        ("policyDir", &config.policy_dir),
        ("runDir", &config.run_dir),
        ("pinDir", &config.pin_dir),
    ] {
        if path.as_os_str().is_empty() {
            return Err(ConfigError::Value {
                field,
                message: "must not be empty".to_owned(),
            });
        }
    }
    check_dns(&config.dns)?;
    check_limits(&config.limits)?;
    crate::offloads::config::check(&config.offloads)?;
    config.ovs.check()?;
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log_level) {
        let message = format!(
            "`{}` is no log level: {error}; use error, warn, info, debug or trace",
            config.log_level
        );
        return Err(ConfigError::Value {
            field: "logLevel",
            message,
        });
    }
    Ok(())
}

fn check_tap(name: &str) -> Result<(), ConfigError> {
    let bad = |c: char| c == '/' || c == '%' || c.is_whitespace() || c.is_control();
    let usable = !name.is_empty()
        && name.len() <= MAX_INTERFACE_NAME
        && name != "."
        && name != ".."
        && !name.contains(bad);
    if usable {
        return Ok(());
    }
    let message = format!(
        "`{name}` is no interface name; 1 to {MAX_INTERFACE_NAME} bytes without `/`, `%` and blanks"
    );
    Err(ConfigError::Value {
        field: "tap",
        message,
    })
}

fn check_dns(dns: &Dns) -> Result<(), ConfigError> {
    /// A day: what is older is a fixed address, which `ipBlock` is for.
    const MAX_FLOOR: u64 = 86_400;
    let unusable = |address: &&IpAddr| address.is_unspecified() || address.is_multicast();
    if let Some(address) = dns.resolvers.iter().find(unusable) {
        return Err(ConfigError::Value {
            field: "dns.resolvers",
            message: format!("{address} is no address that a resolver answers from"),
        });
    }
    if dns.min_ttl_seconds > MAX_FLOOR {
        return Err(ConfigError::Value {
            field: "dns.minTtlSeconds",
            message: format!("{} is too much; at most {MAX_FLOOR}", dns.min_ttl_seconds),
        });
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    /// What one flow must be able to hold: the longest head that a verdict may need.
    const MIN_PER_FLOW: u64 = 64 << 10;
    /// Below it, keep-alive probes and slow human beings lose their flows.
    const MIN_IDLE: u64 = 10;
    /// One flow gets a 1024th of what is left: with less than this not even two full segments.
    const MIN_JUDGED: u64 = 16 << 20;
    let at_least: [(&'static str, u64, u64); 13] = [
        ("limits.flowsPerWorker", limits.flows_per_worker as u64, 1),
        (
            "limits.flowsPerEndpoint",
            limits.flows_per_endpoint as u64,
            1,
        ),
        (
            "limits.flowCacheEntries",
            u64::from(limits.flow_cache_entries),
            1,
        ),
        (
            "limits.heldBytesPerFlow",
            limits.held_bytes_per_flow as u64,
            MIN_PER_FLOW,
        ),
        (
            "limits.heldBytes",
            limits.held_bytes as u64,
            limits.held_bytes_per_flow as u64,
        ),
        (
            "limits.keptBytesPerFlow",
            limits.kept_bytes_per_flow as u64,
            MIN_PER_FLOW,
        ),
        ("limits.judgedBytes", limits.judged_bytes as u64, MIN_JUDGED),
        (
            "limits.judgedBytesPerEndpoint",
            limits.judged_bytes_per_endpoint as u64,
            MIN_JUDGED,
        ),
        ("limits.fragments", limits.fragments as u64, 1),
        ("limits.tcpIdleSeconds", limits.tcp_idle_seconds, MIN_IDLE),
        (
            "limits.datagramIdleSeconds",
            limits.datagram_idle_seconds,
            MIN_IDLE,
        ),
        ("limits.eventQueue", limits.event_queue as u64, 1),
        ("limits.recentEvents", limits.recent_events as u64, 1),
    ];
    for (field, value, least) in at_least {
        if value < least {
            let message = format!("{value} is too small; at least {least}");
            return Err(ConfigError::Value { field, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_alone(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.yaml"), text, Overrides::default())
    }

    #[test]
    fn an_empty_file_yields_the_defaults() {
        for text in ["", "# nothing\n", "---\n", "{}\n"] {
            let config = parse_alone(text).unwrap();
            assert_eq!(config.policy_dir, Path::new(DEFAULT_POLICY_DIR), "{text:?}");
            assert_eq!(config.socket(), Path::new("/run/tollgate/agent.sock"));
            assert_eq!(
                config.verdict_log.as_deref(),
                Some(Path::new("/run/tollgate/verdicts.jsonl"))
            );
            assert_eq!(config.metrics.unwrap().to_string(), DEFAULT_METRICS);
            assert!(config.workers > 0);
            assert!(!config.log_query_strings);
        }
    }

    #[test]
    fn every_field_of_the_file_counts() {
        let config = parse_alone(
            "policyDir: /p\nrunDir: /r\npinDir: /b\ntap: tg1\nworkers: 3\nverdictLog: off\n\
             verdictLogSelection: all\nlogQueryStrings: true\nmetrics: 'off'\nnodeName: n1\n\
             nodeAddresses: [10.0.0.1, 'fd00::1']\ndns: {resolvers: [10.96.0.10, 'fd00::a']}\nlimits: {flowsPerWorker: 7}\nlogLevel: debug\n\
             logFormat: json\n",
        )
        .unwrap();
        assert_eq!(config.policy_dir, Path::new("/p"));
        assert_eq!(config.pin_dir, Path::new("/b"));
        assert_eq!((config.tap.as_str(), config.workers), ("tg1", 3));
        assert_eq!((config.verdict_log, config.metrics), (None, None));
        assert_eq!(config.verdict_log_selection, LogSelection::All);
        assert!(config.log_query_strings);
        assert_eq!(config.node_addresses.len(), 2);
        assert_eq!(
            (config.dns.resolvers.len(), config.dns.min_ttl_seconds),
            (2, 60)
        );
        assert_eq!(
            config.limits,
            Limits {
                flows_per_worker: 7,
                ..Limits::default()
            }
        );
        assert_eq!(
            (config.log_level.as_str(), config.log_format),
            ("debug", LogFormat::Json)
        );
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags = Overrides {
            run_dir: Some("/flag".into()),
            workers: Some(2),
            metrics: Some("127.0.0.1:1".to_owned()),
            ..Overrides::default()
        };
        let text = "runDir: /file\nworkers: 5\nmetrics: off\ntap: kept\n";
        let config = Config::parse(Path::new("a"), text, flags).unwrap();
        assert_eq!(config.run_dir, Path::new("/flag"));
        assert_eq!(
            config.verdict_log.as_deref(),
            Some(Path::new("/flag/verdicts.jsonl"))
        );
        assert_eq!((config.workers, config.tap.as_str()), (2, "kept"));
        assert_eq!(config.metrics.unwrap().port(), 1);
    }

    #[test]
    fn a_fault_is_named_with_its_place() {
        for (text, expected) in [
            ("tap: a\npolicydir: /x\n", "agent.yaml:2:1: "),
            ("tap: a\npolicydir: /x\n", "policydir"),
            ("workers: many\n", "agent.yaml:1:10: "),
            ("limits:\n  flows: 1\n", "agent.yaml:2:3: "),
            ("tap: a\ntap: b\n", "agent.yaml:2:1: "),
            ("tap: [\n", "agent.yaml:"),
            (
                "workers: 300\n",
                "workers: 300 is more than a TAP has queues",
            ),
            (
                "tap: much-too-long-for-linux\n",
                "tap: `much-too-long-for-linux` is no interface name",
            ),
            ("tap: 'a/b'\n", "tap: `a/b` is no interface name"),
            (
                "metrics: '9464'\n",
                "metrics: `9464` is no address and port",
            ),
            (
                "limits: {heldBytes: 1}\n",
                "limits.heldBytes: 1 is too small",
            ),
            (
                "limits: {judgedBytes: 1000}\n",
                "limits.judgedBytes: 1000 is too small",
            ),
            (
                "limits: {judgedBytesPerEndpoint: 0}\n",
                "limits.judgedBytesPerEndpoint: 0 is too small",
            ),
            (
                "limits: {flowsPerWorker: 0}\n",
                "limits.flowsPerWorker: 0 is too small",
            ),
            ("logLevel: 'a=b=c'\n", "logLevel: `a=b=c` is no log level"),
            ("runDir: ''\n", "runDir: must not be empty"),
            ("dns: {resolvers: [dns.local]}\n", "agent.yaml:1:"),
            (
                "dns: {resolvers: [0.0.0.0]}\n",
                "dns.resolvers: 0.0.0.0 is no address",
            ),
            (
                "dns: {minTtlSeconds: 86401}\n",
                "dns.minTtlSeconds: 86401 is too much",
            ),
            ("offloads: {disableTXChecksum: true}\n", "agent.yaml:1:"),
            (
                "offloads: {antreaAgentConf: a.conf}\n",
                "offloads.antreaAgentConf: `a.conf` is no absolute path",
            ),
            (
                "offloads: {interfaces: [{match: 'a/b', mtu: 1500}]}\n",
                "offloads.interfaces.match: entry 1: `a/b` is no interface name",
            ),
            ("offloads: {interfaces: [{mtu: 1500}]}\n", "match"),
            (
                "offloads: {interfaces: [{match: gw0}]}\n",
                "offloads.interfaces.features: entry 1: neither",
            ),
            (
                "offloads: {interfaces: [{match: gw0, features: {TSO on: true}}]}\n",
                "offloads.interfaces.features: entry 1: `TSO on`",
            ),
            (
                "offloads: {interfaces: [{match: a, mtu: 9}, {match: b, mtu: 70000}]}\n",
                "offloads.interfaces.mtu: entry 1: 9 is no MTU",
            ),
            (
                "offloads: {interfaces: [{match: a, place: pod, mtu: 1500}]}\n",
                "agent.yaml:1:",
            ),
        ] {
            let error = parse_alone(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_missing_or_huge_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.yaml");
        let error = Config::load(Some(&path), Overrides::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
        std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
        let error = Config::load(Some(&path), Overrides::default()).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    }
}
