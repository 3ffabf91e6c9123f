//! The process that does the work.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::{READY, settings, tell};
use crate::args::Args;
use crate::board::Board;
use crate::commands::{Commands, Parts};
use crate::config::Config;
use crate::conntrack::Offloader;
use crate::control::server::Server;
use crate::counters::{Counters, PortCounters};
use crate::eve::EventLog;
use crate::log;
use crate::pods::Pods;
use crate::rules;
use crate::tenants::FileRules;
use crate::worker::{Shared, Worker, WorkerError};

/// Looks at a configuration and the rule files that it names, without touching anything.
pub(super) fn check(config: &Config) -> Result<(), String> {
    for path in &config.rule_files {
        let read = || -> Result<(), String> {
            let text = fs::read(path).map_err(|error| error.to_string())?;
            let rules = rules::parse(&text).map_err(|error| error.to_string())?;
            let file = FileRules::new(&rules).map_err(|error| error.to_string())?;
            for (vlan, rules) in file.vlans {
                let policy = crate::policy::endpoint_policy(vlan, &rules);
                policy.map_err(|error| format!("vlan {vlan}: {error}"))?;
            }
            Ok(())
        };
        read().map_err(|problem| format!("{}: {problem}", path.display()))?;
    }
    Ok(())
}

/// Why the process is to end.
enum End {
    Asked,
    Worker(WorkerError),
    Panic,
    Socket(std::io::Error),
}

/// Works until told to stop.
pub(super) fn run(config: Config, args: &Args) -> Result<(), String> {
    // Without its supervisor nobody could end it.
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| format!("binding the engine to its supervisor: {error}"))?;
    note(&config, args);
    let counters = Arc::new(Counters::default());
    let events = EventLog::start(&config.eve, &counters).map_err(|error| error.to_string())?;
    let thread = |error: std::io::Error| format!("starting a thread: {error}");
    let offloader = config.own.offload_decided;
    let offloader = offloader.then(|| Offloader::start(&counters)).transpose();
    let pods = config.own.rewrite_pod_mac.then(Pods::start).transpose();
    let board = Board::new(config.pairs.len()).map_err(|error| error.to_string())?;
    let shared = Shared {
        board: Arc::new(board),
        events,
        counters,
        offloader: offloader.map_err(thread)?,
        pods: pods.map_err(thread)?,
        own: config.own,
    };
    let mut ports: BTreeMap<String, Arc<PortCounters>> = BTreeMap::new();
    let mut workers = Vec::new();
    for (index, pair) in config.pairs.iter().enumerate() {
        let names = [&pair.from, &pair.to];
        let counters = names.map(|name| Arc::clone(ports.entry(name.clone()).or_default()));
        let worker = Worker::open(index, pair, counters, shared.clone());
        workers.push(worker.map_err(|error| error.to_string())?);
    }
    let (ended, end) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    on_signal(&ended)?;
    // Before the first packet is read: what a dead engine judged by is what this one does.
    let asked = ended.clone();
    let commands = Commands::new(Parts {
        board: Arc::clone(&shared.board),
        rule_files: config.rule_files.clone(),
        socket: config.socket.clone(),
        ports: ports.into_iter().collect(),
        counters: Arc::clone(&shared.counters),
        shutdown: Box::new(move || drop(asked.send(End::Asked))),
    })?;
    let mut threads = Vec::new();
    for worker in workers {
        let (stop, ended) = (Arc::clone(&stop), ended.clone());
        let run = move || {
            let _notice = Notice(ended.clone());
            if let Err(error) = worker.run(&stop) {
                let _ = ended.send(End::Worker(error));
            }
        };
        let builder = thread::Builder::new().name("packets".to_owned());
        threads.push(builder.spawn(run).map_err(thread)?);
    }
    let running = shared.board.wait_for_threads();
    running.map_err(|error| error.to_string())?;
    let server = Server::bind(&config.socket);
    let server = server.map_err(|error| format!("{}: {error}", config.socket.display()))?;
    let server = Arc::new(server);
    let (served, commands) = (Arc::clone(&server), Arc::new(commands));
    thread::Builder::new()
        .name("commands".to_owned())
        .spawn(move || {
            if let Err(error) = served.serve(&commands) {
                let _ = ended.send(End::Socket(error));
            }
        })
        .map_err(thread)?;
    log::notice("ready");
    tell(READY);
    let end = end.recv().unwrap_or(End::Asked);
    stop.store(true, Ordering::Relaxed);
    shared.board.wake();
    // The listening thread holds the server: its file has to go here.
    let _ = fs::remove_file(&config.socket);
    match end {
        End::Asked => {
            threads.into_iter().for_each(|thread| drop(thread.join()));
            log::notice("ends");
            Ok(())
        }
        End::Worker(error) => Err(error.to_string()),
        End::Panic => Err("a packet thread panicked".to_owned()),
        End::Socket(error) => Err(format!("command socket: {error}")),
    }
}

/// A thread that panics ends the process, which the supervisor starts again.
struct Notice(Sender<End>);

impl Drop for Notice {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(End::Panic);
        }
    }
}

fn on_signal(ended: &Sender<End>) -> Result<(), String> {
    let ended = ended.clone();
    ctrlc::set_handler(move || drop(ended.send(End::Asked)))
        .map_err(|error| format!("installing the signal handler: {error}"))
}

fn note(config: &Config, args: &Args) {
    log::notice(crate::VERSION_LINE);
    for pair in &config.pairs {
        log::notice(format_args!("{} to {}", pair.from, pair.to));
    }
    for pair in &config.reversed {
        log::notice(format_args!(
            "{} to {}: nothing is copied; both directions come by {}",
            pair.from, pair.to, pair.to
        ));
    }
    log::notice(settings(&config.own));
    if !config.ignored.is_empty() {
        log::notice(format_args!(
            "{}: ignored, as it says nothing about what is done here: {}",
            args.config.display(),
            config.ignored.join(", ")
        ));
    }
}
