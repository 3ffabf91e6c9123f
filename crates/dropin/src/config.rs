//! `suricata.yaml`, as far as it says something about what is done here. Everything else in it is left
//! alone and named once in the log.
//!
//! Sections: `outputs` (its `eve-log` entries), `af-packet`, `multi-detect`, `default-rule-path`,
//! `rule-files`, `unix-command`, and `tollgate`, which Suricata does not know.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::control::DEFAULT_SOCKET;

/// Files included by files included, at most so deep: Suricata's own limit is the same kind of guard
/// against a file that includes itself.
const INCLUDE_DEPTH_MAX: usize = 16;

/// What the daemon is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Ports: frames come by the first and leave by the second.
    pub pairs: Vec<Pair>,
    /// Event logs.
    pub eve: Vec<EveOutput>,
    /// Rules come by tenants.
    pub tenants: bool,
    /// Files with rules for all VLANs.
    pub rule_files: Vec<PathBuf>,
    /// The command socket.
    pub socket: PathBuf,
    /// What only Tollgate knows.
    pub own: Own,
    /// Sections that mean nothing here.
    pub ignored: Vec<String>,
    /// Pairs of ports that were named the other way round as well.
    pub reversed: Vec<Pair>,
}

/// Two ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Frames come by this one.
    pub from: String,
    /// And leave by this one.
    pub to: String,
}

/// One event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EveOutput {
    /// Where it goes.
    pub sink: Sink,
    /// Blocked connections and requests.
    pub alert: bool,
    /// With the packet.
    pub packet: bool,
    /// Requests that passed.
    pub http: bool,
    /// TLS connections that passed.
    pub tls: bool,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A file; its name may have `strftime` fields.
    File(PathBuf),
    /// A stream socket that somebody else listens on.
    Stream(PathBuf),
}

/// The section `tollgate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// `offload-decided`: connections that need no more looking at are left to the switch.
    pub offload_decided: bool,
    /// `unknown-vlan: drop`: what has no rules is dropped instead of passed.
    pub drop_unknown: bool,
    /// `midstream`: connections whose beginning was not seen.
    pub midstream: Midstream,
    /// `rewrite-pod-mac`: replies addressed to the placeholder address get the pod's own.
    pub rewrite_pod_mac: bool,
}

/// What happens to connections whose beginning was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Midstream {
    /// Both ends are reset, unless the rules need nothing of what was missed.
    Reset,
    /// They go on, unjudged.
    Pass,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            offload_decided: true,
            drop_unknown: false,
            midstream: Midstream::Reset,
            rewrite_pod_mac: true,
        }
    }
}

/// Why a configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not YAML.
    #[error("{path}: {what}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Files include each other.
    #[error("{0}: included more than {INCLUDE_DEPTH_MAX} deep")]
    Deep(PathBuf),
    /// A value makes no sense.
    #[error("{section}: {what}")]
    Value {
        /// Where.
        section: &'static str,
        /// What is wrong.
        what: String,
    },
}

impl Config {
    /// Reads a configuration with all that it includes. `log_dir` is where relative names of event
    /// logs begin; `set` are values that replace the file's, by dotted names.
    ///
    /// # Errors
    /// A file cannot be read, or what it says makes no sense.
    pub fn read(
        path: &Path,
        log_dir: &Path,
        set: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut root = Map::new();
        read_into(path, &mut root, 0)?;
        for (name, value) in set {
            set_value(&mut root, name, value);
        }
        Self::from_root(&root, log_dir)
    }

    fn from_root(root: &Map<String, Value>, log_dir: &Path) -> Result<Self, ConfigError> {
        const KNOWN: [&str; 9] = [
            "outputs",
            "af-packet",
            "multi-detect",
            "default-rule-path",
            "rule-files",
            "unix-command",
            "tollgate",
            "default-log-dir",
            "pid-file",
        ];
        let ignored = root.keys().filter(|key| !KNOWN.contains(&key.as_str()));
        let (pairs, reversed) = pairs(root.get("af-packet"))?;
        let multi = root.get("multi-detect");
        let selector = multi.and_then(|multi| multi.get("selector"));
        if let Some(other) = selector.and_then(Value::as_str).filter(|s| *s != "vlan") {
            let what = format!("selector {other} is not known here; known is vlan");
            return Err(value("multi-detect", what));
        }
        Ok(Self {
            pairs,
            reversed,
            eve: eve_outputs(root.get("outputs"), log_dir)?,
            tenants: is_yes(multi.and_then(|multi| multi.get("enabled"))),
            rule_files: rule_files(root),
            socket: socket(root.get("unix-command")),
            own: own(root.get("tollgate"))?,
            ignored: ignored.cloned().collect(),
        })
    }
}

/// The rule files that a configuration, or a tenant's, names.
pub fn rule_files(root: &Map<String, Value>) -> Vec<PathBuf> {
    let base = root.get("default-rule-path").and_then(Value::as_str);
    let base = Path::new(base.unwrap_or("/etc/suricata/rules"));
    let names = root.get("rule-files").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    // `join` leaves absolute names as they are.
    names.map(|name| base.join(name)).collect()
}

/// Reads one YAML file with one mapping, without what it includes.
///
/// # Errors
/// It cannot be read or is no mapping.
pub fn read_mapping(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = read_text(path)?;
    mapping(path, &text)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn mapping(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let wrong = |what: String| ConfigError::Yaml {
        path: path.to_owned(),
        what,
    };
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| wrong(format!("cannot be read as YAML: {error}")))?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(wrong("is no mapping".to_owned())),
    }
}

/// Reads a file into what is there already: a later section replaces an earlier one.
fn read_into(path: &Path, root: &mut Map<String, Value>, depth: usize) -> Result<(), ConfigError> {
    if depth > INCLUDE_DEPTH_MAX {
        return Err(ConfigError::Deep(path.to_owned()));
    }
    let text = read_text(path)?;
    let (own, included) = without_includes(&text);
    for (key, value) in mapping(path, &own)? {
        root.insert(key, value);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut seen: Vec<PathBuf> = Vec::new();
    for name in included {
        let path = directory.join(name);
        // The same line may have been appended more than once.
        if !seen.contains(&path) {
            read_into(&path, root, depth + 1)?;
            seen.push(path);
        }
    }
    Ok(())
}

/// Takes the `include` lines out of a file, where a mapping could have only one: the text without
/// them, and the names.
fn without_includes(text: &str) -> (String, Vec<String>) {
    let (mut rest, mut names) = (String::new(), Vec::new());
    let mut in_list = false;
    for line in text.lines() {
        let item = line.trim_start().strip_prefix("- ");
        if let Some(value) = line.strip_prefix("include:") {
            let value = plain(value);
            in_list = value.is_empty();
            names.extend((!value.is_empty()).then_some(value));
        } else if let Some(item) = item.filter(|_| in_list) {
            names.push(plain(item));
        } else {
            in_list &= line.trim().is_empty() || line.trim_start().starts_with('#');
            rest.push_str(line);
            rest.push('\n');
        }
    }
    (rest, names)
}

/// A scalar without comment and quotes.
fn plain(text: &str) -> String {
    let text = text.split(" #").next().unwrap_or_default();
    text.trim().trim_matches(['"', '\'']).to_owned()
}

fn set_value(root: &mut Map<String, Value>, name: &str, value: &str) {
    let mut parts: Vec<&str> = name.split('.').collect();
    let Some(last) = parts.pop() else { return };
    let mut map = root;
    for part in parts {
        let entry = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        let Value::Object(next) = entry else { return };
        map = next;
    }
    map.insert(last.to_owned(), Value::String(value.to_owned()));
}

/// `yes` in any of YAML 1.1's spellings.
fn is_yes(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(yes)) => *yes,
        Some(Value::String(word)) => {
            let word = word.to_ascii_lowercase();
            matches!(word.as_str(), "yes" | "true" | "on" | "1")
        }
        Some(Value::Number(number)) => number.as_u64() == Some(1),
        _ => false,
    }
}

fn value(section: &'static str, what: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        section,
        what: what.into(),
    }
}

/// The pairs, and those that only name an earlier one the other way round. An inline pair is always
/// named both ways; frames come by the port that stands first.
fn pairs(section: Option<&Value>) -> Result<(Vec<Pair>, Vec<Pair>), ConfigError> {
    let entries = section.and_then(Value::as_array);
    let (mut pairs, mut reversed): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
    for entry in entries.into_iter().flatten() {
        let text = |key| entry.get(key).and_then(Value::as_str);
        let Some(from) = text("interface").filter(|name| *name != "default") else {
            continue;
        };
        let Some(to) = text("copy-iface") else {
            continue;
        };
        if let Some(mode) = text("copy-mode").filter(|mode| *mode != "ips") {
            let what = format!("{from}: copy-mode {mode} is not known here; known is ips");
            return Err(value("af-packet", what));
        }
        let pair = Pair {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let is_known = |known: &Pair| known.from == pair.to && known.to == pair.from;
        if pairs.iter().any(is_known) {
            reversed.push(pair);
        } else if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    if pairs.is_empty() {
        let what = "no interface with a copy-iface: there is nothing to stand between";
        return Err(value("af-packet", what));
    }
    Ok((pairs, reversed))
}

fn eve_outputs(section: Option<&Value>, log_dir: &Path) -> Result<Vec<EveOutput>, ConfigError> {
    let outputs = section.and_then(Value::as_array);
    let logs = outputs.into_iter().flatten();
    logs.filter_map(|output| output.get("eve-log"))
        .filter(|log| is_yes(log.get("enabled")))
        .map(|log| eve_output(log, log_dir))
        .collect()
}

fn eve_output(log: &Value, log_dir: &Path) -> Result<EveOutput, ConfigError> {
    let text = |key| log.get(key).and_then(Value::as_str);
    let file = log_dir.join(text("filename").unwrap_or("eve.json"));
    let sink = match text("filetype").unwrap_or("regular") {
        "regular" => Sink::File(file),
        "unix_stream" => Sink::Stream(file),
        other => {
            let what = format!(
                "eve-log: filetype {other} is not known here; known are regular and unix_stream"
            );
            return Err(value("outputs", what));
        }
    };
    if let Some(interval) = text("rotate-interval").filter(|interval| *interval != "day") {
        let what = format!("eve-log: rotate-interval {interval} is not known here; known is day");
        return Err(value("outputs", what));
    }
    let types = log.get("types").and_then(Value::as_array);
    let find = |name: &str| match types {
        // An entry is a word, or a mapping of the word to its settings.
        Some(types) => types.iter().find_map(|entry| match entry {
            Value::String(word) if word == name => Some(&Value::Null),
            _ => entry.get(name),
        }),
        None => Some(&Value::Null),
    };
    let alert = find("alert");
    Ok(EveOutput {
        sink,
        alert: alert.is_some(),
        packet: is_yes(alert.and_then(|alert| alert.get("packet"))),
        http: find("http").is_some(),
        tls: find("tls").is_some(),
    })
}

fn socket(section: Option<&Value>) -> PathBuf {
    let name = section.and_then(|section| section.get("filename"));
    let default = Path::new(DEFAULT_SOCKET);
    let directory = default.parent().unwrap_or(default);
    match name.and_then(Value::as_str) {
        Some(name) => directory.join(name),
        None => default.to_owned(),
    }
}

fn own(section: Option<&Value>) -> Result<Own, ConfigError> {
    let mut own = Own::default();
    let Some(section) = section else {
        return Ok(own);
    };
    let Value::Object(section) = section else {
        return Err(value("tollgate", "is no mapping"));
    };
    for (key, given) in section {
        let word = given.as_str().unwrap_or_default();
        match (key.as_str(), word) {
            ("offload-decided", _) => own.offload_decided = is_yes(Some(given)),
            ("rewrite-pod-mac", _) => own.rewrite_pod_mac = is_yes(Some(given)),
            ("unknown-vlan", "pass") => own.drop_unknown = false,
            ("unknown-vlan", "drop") => own.drop_unknown = true,
            ("unknown-vlan", _) => {
                return Err(value("tollgate", "unknown-vlan is pass or drop"));
            }
            ("midstream", "reset") => own.midstream = Midstream::Reset,
            ("midstream", "pass") => own.midstream = Midstream::Pass,
            ("midstream", _) => return Err(value("tollgate", "midstream is reset or pass")),
            (other, _) => {
                let what = format!(
                    "{other} is not known; known are offload-decided, rewrite-pod-mac, \
                     unknown-vlan and midstream"
                );
                return Err(value("tollgate", what));
            }
        }
    }
    Ok(own)
}
