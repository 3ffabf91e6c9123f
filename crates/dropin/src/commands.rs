//! What the commands do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::board::Board;
use crate::config;
use crate::control::Reply;
use crate::control::command::{Command, Handler, Tenant, names};
use crate::control::server;
use crate::counters::{Counters, PortCounters};
use crate::log;
use crate::policy::usable;
use crate::rules::{self, FILE_BYTES_MAX, Rule};
use crate::state::{self, Saved, TenantFile};
use crate::tenants::{FileRules, TenantError, Tenants, VlanRules};

/// What the commands work on.
pub struct Commands {
    board: Arc<Board>,
    known: Mutex<Known>,
    rule_files: Vec<PathBuf>,
    saved: PathBuf,
    ports: Vec<(String, Arc<PortCounters>)>,
    counters: Arc<Counters>,
    started: Instant,
    shutdown: Box<dyn Fn() + Send + Sync>,
}

/// What is registered.
#[derive(Clone, Default)]
struct Known {
    tenants: Tenants,
    files: BTreeMap<u32, TenantFile>,
    handlers: BTreeMap<u16, u32>,
    for_all: FileRules,
}

/// A failure in Suricata's words, and why.
struct Failed {
    words: &'static str,
    why: String,
}

impl Failed {
    fn reply(self) -> Reply {
        let Self { words, why } = self;
        log::warning(format_args!("{words}: {why}"));
        if why.is_empty() {
            return Reply::failed(words);
        }
        Reply::failed(format!("{words}: {why}"))
    }
}

/// What belongs to a daemon.
pub struct Parts {
    /// What is in force.
    pub board: Arc<Board>,
    /// Files with rules for all VLANs.
    pub rule_files: Vec<PathBuf>,
    /// Command socket.
    pub socket: PathBuf,
    /// Counters by interface.
    pub ports: Vec<(String, Arc<PortCounters>)>,
    /// All other counters.
    pub counters: Arc<Counters>,
    /// Ends the daemon.
    pub shutdown: Box<dyn Fn() + Send + Sync>,
}

impl Commands {
    /// Takes up what a daemon before this one has left, and reads the rule files.
    ///
    /// # Errors
    /// In words for people: a rule file that is not understood. A file that is not there is only
    /// noted.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let commands = Self {
            board: parts.board,
            known: Mutex::default(),
            rule_files: parts.rule_files,
            saved: state::path(&parts.socket),
            ports: parts.ports,
            counters: parts.counters,
            started: Instant::now(),
            shutdown: parts.shutdown,
        };
        let saved = Saved::read(&commands.saved).map_err(|error| {
            let path = commands.saved.display();
            format!("reading {path}: {error}; remove it if tenants need not be kept")
        })?;
        commands.restore(saved)?;
        Ok(commands)
    }

    fn restore(&self, saved: Saved) -> Result<(), String> {
        let mut known = self.known();
        for (id, file) in saved.tenants {
            match read_rules(&file.rules) {
                Ok(rules) => {
                    let put = known.tenants.put(id, rules);
                    put.map_err(|error| format!("tenant {id}: {error}"))?;
                    known.files.insert(id, file);
                }
                Err(why) => return Err(format!("tenant {id}: {why}")),
            }
        }
        for (vlan, id) in saved.handlers {
            let handled = known.tenants.handle(vlan, id);
            handled.map_err(|error| format!("vlan {vlan}: {error}"))?;
            known.handlers.insert(vlan, id);
        }
        known.for_all = self.read_for_all()?;
        let put = self.board.put(&known.tenants, &known.for_all);
        put.map_err(|error| error.to_string())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_for_all(&self) -> Result<FileRules, String> {
        let mut text = String::new();
        for path in &self.rule_files {
            match read_rule_file(path) {
                Ok(more) => text.push_str(&more),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    log::warning(format_args!("{}: no such rule file", path.display()));
                }
                Err(error) => return Err(format!("reading {}: {error}", path.display())),
            }
            text.push('\n');
        }
        let file = FileRules::new(&known_rules(&text)?).map_err(|error| error.to_string())?;
        let vlans = file.vlans.into_iter().map(|(vlan, rules)| {
            let rules = without_unusable(Arc::unwrap_or_clone(rules));
            let rules = rules.map_err(|why| format!("vlan {vlan}: {why}"))?;
            Ok((vlan, Arc::new(rules)))
        });
        Ok(FileRules {
            vlans: vlans.collect::<Result<_, String>>()?,
            refuses_others: file.refuses_others,
        })
    }

    /// Registers a tenant or reads its rules again, which is the same.
    fn put_tenant(&self, id: u32, filename: &Path, words: &'static str) -> Result<(), Failed> {
        let text = tenant_rules(filename)?;
        let failed = |why: String| Failed { words, why };
        let rules = read_rules(&text).map_err(failed)?;
        let mut known = self.known();
        let before = known.tenants.clone();
        let changed = known.tenants.put(id, rules);
        let changed = changed.map_err(|error| failed(error.to_string()))?;
        if changed && let Err(error) = self.board.put(&known.tenants, &known.for_all) {
            known.tenants = before;
            return Err(failed(error.to_string()));
        }
        let file = TenantFile {
            filename: filename.to_owned(),
            rules: text,
        };
        let known_file = known.files.insert(id, file);
        if changed || known_file.is_none_or(|known| known.filename != filename) {
            self.save(&known);
        }
        Ok(())
    }

    fn change(
        &self,
        words: &'static str,
        change: impl FnOnce(&mut Known) -> Result<(), TenantError>,
    ) -> Result<(), Failed> {
        let mut known = self.known();
        let mut changed = known.clone();
        change(&mut changed).map_err(|error| Failed {
            words: words_of(error),
            why: String::new(),
        })?;
        let put = self.board.put(&changed.tenants, &changed.for_all);
        put.map_err(|error| Failed {
            words,
            why: error.to_string(),
        })?;
        *known = changed;
        self.save(&known);
        Ok(())
    }

    fn save(&self, known: &Known) {
        let saved = Saved {
            tenants: known.files.clone(),
            handlers: known.handlers.clone(),
        };
        if let Err(error) = saved.write(&self.saved) {
            let path = self.saved.display();
            log::warning(format_args!(
                "writing {path}: {error}; tenants will be lost if the daemon dies"
            ));
        }
    }

    fn reload_tenant(&self, tenant: &Tenant) -> Result<(), Failed> {
        const WORDS: &str = "reload tenant failed";
        let filename = {
            let known = self.known();
            let file = known.files.get(&tenant.id).ok_or(Failed {
                words: WORDS,
                why: "no such tenant".to_owned(),
            })?;
            tenant
                .filename
                .clone()
                .unwrap_or_else(|| file.filename.clone())
        };
        self.put_tenant(tenant.id, &filename, WORDS)
    }

    fn reload_tenants(&self) -> Result<(), Failed> {
        let files: Vec<_> = {
            let known = self.known();
            let files = known.files.iter();
            files
                .map(|(id, file)| (*id, file.filename.clone()))
                .collect()
        };
        for (id, filename) in files {
            self.put_tenant(id, &filename, "reload tenant failed")?;
        }
        Ok(())
    }

    fn reload_rules(&self) -> Result<(), Failed> {
        let failed = |why| Failed {
            words: "reload failed",
            why,
        };
        let rules = self.read_for_all().map_err(failed)?;
        let mut known = self.known();
        let put = self.board.put(&known.tenants, &rules);
        put.map_err(|error| failed(error.to_string()))?;
        known.for_all = rules;
        Ok(())
    }

    fn ruleset_stats(&self) -> Value {
        let known = self.known();
        let tenants = known.tenants.vlans();
        let count = |rules: &VlanRules| rules.pass.len() + usize::from(rules.otherwise.is_some());
        let of_tenants: usize = tenants.values().map(|(_, rules)| count(rules)).sum();
        let for_all: usize = known.for_all.vlans.values().map(|rules| count(rules)).sum();
        json!([{ "id": 0, "rules_loaded": of_tenants + for_all, "rules_failed": 0 }])
    }

    fn iface_stat(&self, name: &str) -> Reply {
        match self.ports.iter().find(|(known, _)| known == name) {
            Some((_, counters)) => Reply::ok(counters.to_json()),
            None => Reply::failed(format!("Interface {name} not found")),
        }
    }

    fn dump_counters(&self) -> Value {
        let ports = self.ports.iter();
        let ports: serde_json::Map<_, _> = ports
            .map(|(name, counters)| (name.clone(), counters.to_json()))
            .collect();
        json!({ "uptime": self.started.elapsed().as_secs(), "capture": ports,
                "tollgate": self.counters.to_json() })
    }
}

/// Suricata's words for what it has words for.
fn words_of(error: TenantError) -> &'static str {
    match error {
        TenantError::NoTenant => "tenant detect engine not found",
        TenantError::HandlerTaken => "handler setup failure",
        TenantError::NoHandler => "handler unregister failure",
        TenantError::Full => "adding tenant failed",
    }
}

/// The text of the rules that a tenant's configuration names.
fn tenant_rules(filename: &Path) -> Result<String, Failed> {
    if !filename.exists() {
        return Err(Failed {
            words: "file does not exist",
            why: filename.display().to_string(),
        });
    }
    let failed = |why: String| Failed {
        words: "failed to load yaml",
        why,
    };
    let root = config::read_mapping(filename).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    for path in config::rule_files(&root) {
        let read = read_rule_file(&path);
        let read = read.map_err(|error| failed(format!("reading {}: {error}", path.display())));
        text.push_str(&read?);
        text.push('\n');
    }
    Ok(text)
}

fn read_rule_file(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX as u64 {
        let what = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    fs::read_to_string(path)
}

/// A tenant's rules. An agent whose tenant is refused does not send its packets here at all, and then
/// nothing is denied; so what a pass rule says that is not understood is denied instead.
fn read_rules(text: &str) -> Result<VlanRules, String> {
    let rules = VlanRules::of_tenant(&known_rules(text)?).map_err(|error| error.to_string())?;
    without_unusable(rules)
}

fn known_rules(text: &str) -> Result<Vec<Rule>, String> {
    let parsed = rules::parse_known(text.as_bytes()).map_err(|error| error.to_string())?;
    for error in &parsed.left_out {
        left_out(error);
    }
    Ok(parsed.rules)
}

fn without_unusable(rules: VlanRules) -> Result<VlanRules, String> {
    let (rules, wrong) = usable(rules).map_err(|error| error.to_string())?;
    wrong.iter().for_each(|error| left_out(error));
    Ok(rules)
}

fn left_out(error: &dyn std::error::Error) {
    log::error(format_args!(
        "a pass rule is left out, and what it would let through is denied: {error}"
    ));
}

fn answer(result: Result<(), Failed>, words: &str) -> Reply {
    match result {
        Ok(()) => Reply::ok(words),
        Err(failed) => failed.reply(),
    }
}

impl server::Handler for Commands {
    fn handle(&self, command: Command) -> Reply {
        match command {
            Command::CommandList => {
                let commands: Vec<_> = names().collect();
                Reply::ok(json!({ "count": commands.len(), "commands": commands }))
            }
            Command::Version => Reply::ok(crate::VERSION_LINE),
            Command::Uptime => Reply::ok(json!(self.started.elapsed().as_secs())),
            Command::RunningMode => Reply::ok("workers"),
            Command::CaptureMode => Reply::ok("AF_PACKET_DEV"),
            Command::IfaceList => {
                let names: Vec<_> = self.ports.iter().map(|(name, _)| name).collect();
                Reply::ok(json!({ "count": names.len(), "ifaces": names }))
            }
            Command::IfaceStat(name) => self.iface_stat(&name),
            Command::DumpCounters => Reply::ok(self.dump_counters()),
            Command::ReloadRules => answer(self.reload_rules(), "done"),
            Command::RulesetStats => Reply::ok(self.ruleset_stats()),
            Command::RegisterTenant(Tenant { id, filename }) => {
                let filename = filename.unwrap_or_default();
                let done = self.put_tenant(id, &filename, "adding tenant failed");
                answer(done, "adding tenant succeeded")
            }
            Command::ReloadTenant(tenant) => {
                answer(self.reload_tenant(&tenant), "reloading tenant succeeded")
            }
            Command::ReloadTenants => answer(self.reload_tenants(), "reloading tenants succeeded"),
            Command::UnregisterTenant(id) => {
                let done = self.change("removing tenant failed", |known| {
                    known.tenants.remove(id)?;
                    known.files.remove(&id);
                    Ok(())
                });
                answer(done, "removing tenant succeeded")
            }
            Command::RegisterTenantHandler(Handler { id, vlan }) => {
                let done = self.change("handler setup failure", |known| {
                    known.tenants.handle(vlan, id)?;
                    known.handlers.insert(vlan, id);
                    Ok(())
                });
                answer(done, "handler added")
            }
            Command::UnregisterTenantHandler(Handler { id, vlan }) => {
                let done = self.change("handler unregister failure", |known| {
                    known.tenants.unhandle(vlan, id)?;
                    known.handlers.remove(&vlan);
                    Ok(())
                });
                answer(done, "handler removed")
            }
            Command::Shutdown => {
                (self.shutdown)();
                Reply::ok("Closing Suricata")
            }
        }
    }
}
