//! The agent's life: set-up in an order that never lets traffic by, service, and an end after
//! which decided flows go on in the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tollgate_datapath::flows::FlowMap;
use tollgate_datapath::tap::Tap;
use tollgate_datapath::{caps, links, steer};
use tollgate_steer::FlowCache;

use crate::admin::{self, Admin};
use crate::config::{Config, LogSelection};
use crate::control::{Command, Inbox, WorkerContext, WorkerHandle};
use crate::counters::WorkerCounters;
use crate::endpoints::Endpoints;
use crate::events::{self, Events};
use crate::hub::Hub;
use crate::kernel::live::LiveKernel;
use crate::memory::{self, Memory};
use crate::metrics::{self, EventMetrics};
use crate::name_memory;
use crate::offloads;
use crate::ovs::config::DatapathKind;
use crate::ovs::live::LiveOvs;
use crate::ovs::saved::{self, CachedFlow};
use crate::policy_loop::PolicyLoop;
use crate::record::Recorder;
use crate::sources::LoadError;
use crate::state::State;
use crate::store::FlowStore;
use crate::verdict_log::VerdictLog;
use crate::watch::DirWatch;
use crate::worker::{Inherited, Left, Worker, monotonic};

/// How often ends of flows are fetched from the kernel. The engine keeps a closed flow for a while
/// anyway; this only bounds how late it learns of it.
const CLOSED_INTERVAL: Duration = Duration::from_millis(250);

/// The same for a bridge, which tells at that moment whether the switch is still the same: after its
/// restart the gate is missing until then.
const BRIDGE_INTERVAL: Duration = Duration::from_millis(25);

/// How often failed or missed attachments are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long the admin socket may go on sending the last events when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(50);

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The first policy cannot be used.
    #[error("cannot load the policy from {}", dir.display())]
    Policy {
        /// Its directory.
        dir: PathBuf,
        /// What is wrong.
        source: LoadError,
    },
    /// Another agent uses the run directory.
    #[error("another agent runs with the run directory {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// The data path cannot be set up.
    #[error("cannot set up the data path: {0}")]
    Datapath(#[from] tollgate_datapath::Error),
    /// Something else of the system.
    #[error("{what}: {source}")]
    System {
        /// What was being done, to what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Runs the agent until SIGTERM or SIGINT. Links and maps stay pinned: decided flows go on, and
/// undecided traffic is dropped until the next agent.
pub fn run(config: Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("tg-control")
        .build()
        .map_err(RunError::system("starting the control plane"))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), RunError> {
    let signals = Signals::new().map_err(RunError::system("installing signal handlers"))?;
    let _lock = lock_run_dir(&config.run_dir)?;
    let (state, metrics) = prepare(config);
    let policy_error = |source| RunError::Policy {
        dir: state.config.policy_dir.clone(),
        source,
    };
    // Before anything is touched: a bad policy must not cost the traffic that flows now.
    let mut policy =
        PolicyLoop::start(Arc::clone(&state), Endpoints::default()).map_err(policy_error)?;
    let doors = Doors::open(&state.config).await?;
    let tap = open_datapath(&state, &mut policy)?;
    offloads::start(&state).map_err(RunError::system("starting to keep the declared offloads"))?;
    // Everything that needs more is open now. Threads started from here on have no more either.
    caps::drop_unneeded()?;
    let watch = watch_policy(&state)?;
    let writer = start_writer(&state)?;
    let (workers, failures) = start_workers(&state, &policy, tap)?;
    policy.attach();
    state.ready.store(true, Ordering::Release);
    let stop = doors.serve(Admin {
        registry: Arc::new(metrics::registry(&metrics, Arc::clone(&state))),
        state: Arc::clone(&state),
    });
    announce(&state);
    let end = control(&state, &mut policy, watch, signals, failures).await;
    shut_down(&state, &policy, workers, writer, stop).await;
    end
}

fn watch_policy(state: &State) -> Result<DirWatch, RunError> {
    let dir = &state.config.policy_dir;
    DirWatch::new(dir).map_err(|error| {
        let what = format!("watching {}", dir.display());
        RunError::System {
            what,
            source: io::Error::other(error),
        }
    })
}

/// One agent a run directory; the lock goes with the process.
fn lock_run_dir(dir: &Path) -> Result<File, RunError> {
    let failed = |what: &str| RunError::system(format!("{what} {}", dir.display()));
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(failed("creating"))?;
    let file = File::create(dir.join("agent.lock")).map_err(failed("creating a lock file in"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(RunError::AlreadyRunning(dir.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed("locking")(error)),
    }
}

fn prepare(config: Config) -> (Arc<State>, EventMetrics) {
    let metrics = EventMetrics::default();
    let recorder = Recorder {
        node: config.node_name.as_str().into(),
        keep_queries: config.log_query_strings,
    };
    let log_all = config.verdict_log.is_some() && config.verdict_log_selection == LogSelection::All;
    let hub = Hub::new(
        recorder,
        config.limits.recent_events,
        log_all,
        metrics.clone(),
    );
    let events = Events::new(config.limits.event_queue);
    (State::new(config, hub, events), metrics)
}

/// The sockets, bound while the agent may still do so.
struct Doors {
    admin: UnixListener,
    metrics: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &Config) -> Result<Self, RunError> {
        let path = config.socket();
        let admin = admin::bind(&path).map_err(RunError::system(format!(
            "opening the admin socket {}",
            path.display()
        )))?;
        let metrics = match config.metrics {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.map_err(RunError::system(
                format!("opening the metrics port {address} (another one: --metrics)"),
            ))?),
        };
        Ok(Self { admin, metrics })
    }

    /// Answers from now on, until the returned sender says stop.
    fn serve(self, admin: Admin) -> watch::Sender<bool> {
        let (stop, stopped) = watch::channel(false);
        let ended = |mut stopped: watch::Receiver<bool>| async move {
            // An error says that the sender is gone: the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let router = admin::router(admin.clone());
        let service =
            axum::serve(self.admin, router).with_graceful_shutdown(ended(stopped.clone()));
        tokio::spawn(service.into_future());
        if let Some(listener) = self.metrics {
            let router = admin::metrics_router(admin);
            let service = axum::serve(listener, router).with_graceful_shutdown(ended(stopped));
            tokio::spawn(service.into_future());
        }
        stop
    }
}

fn open_datapath(state: &Arc<State>, policy: &mut PolicyLoop) -> Result<Tap, RunError> {
    let (mut kernel, tap, adopted) = open_kernel(&state.config)?;
    state.adopted.store(adopted, Ordering::Relaxed);
    let known = kernel.known().map_err(|error| RunError::System {
        what: "reading the endpoints of an earlier agent".to_owned(),
        source: io::Error::other(error),
    })?;
    let mut slot = state
        .kernel
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *slot = Some(kernel);
    drop(slot);
    // Identifiers now; programs are put on new interfaces only once the workers run.
    policy.inherit(Endpoints::new(known));
    Ok(tap)
}

type Opened = (Box<dyn crate::kernel::Kernel>, Tap, bool);

fn open_kernel(config: &Config) -> Result<Opened, tollgate_datapath::Error> {
    match config.datapath {
        DatapathKind::Ebpf => {
            for removed in crate::ovs::cleanup(&config.run_dir)? {
                tracing::info!("the data path was a bridge before; removed {removed}");
            }
            let (kernel, tap) = LiveKernel::open(config)?;
            let adopted = kernel.adopted();
            Ok((Box::new(kernel), tap, adopted))
        }
        DatapathKind::Ovs => {
            let (kernel, tap) = LiveOvs::open(config)?;
            let adopted = kernel.adopted();
            Ok((Box::new(kernel), tap, adopted))
        }
    }
}

fn start_writer(state: &State) -> Result<JoinHandle<()>, RunError> {
    let open = |path: &PathBuf| {
        VerdictLog::open(path, state.config.verdict_log_selection).map_err(RunError::system(
            format!("opening the verdict log {}", path.display()),
        ))
    };
    let log = state.config.verdict_log.as_ref().map(open).transpose()?;
    events::spawn_writer(Arc::clone(&state.events), Arc::clone(&state.hub), log)
        .map_err(RunError::system("starting the event writer"))
}

type WorkerThread = JoinHandle<Left>;

fn start_workers(
    state: &State,
    policy: &PolicyLoop,
    tap: Tap,
) -> Result<(Vec<WorkerThread>, mpsc::Receiver<String>), RunError> {
    let (failed, failures) = mpsc::channel(tap.queues.len().max(1));
    let (mut threads, mut handles) = (Vec::new(), Vec::new());
    let (dir, table) = (&state.config.run_dir, policy.table());
    if let Err(error) = name_memory::take(dir, &state.names, &table, monotonic()) {
        tracing::warn!(%error, "cannot read remembered names");
    }
    let found = found_flows(&state.config)?;
    let inherited = inherited(state, policy, tap.queues.len(), &found);
    for ((index, queue), inherited) in tap.queues.into_iter().enumerate().zip(inherited) {
        let inbox = Inbox::new().map_err(RunError::system("making an inbox"))?;
        let counters = Arc::new(WorkerCounters::default());
        inbox.push(Command::PolicyChanged(policy.table()));
        inbox.push(Command::Adopt(inherited));
        handles.push(WorkerHandle {
            inbox: Arc::clone(&inbox),
            counters: Arc::clone(&counters),
        });
        let context = WorkerContext {
            index,
            inbox,
            counters,
            events: state.events.sender(index),
            limits: state.config.limits.engine(),
            names: Arc::clone(&state.names),
        };
        let flows = flow_store(&state.config, &found)?;
        let worker = Worker::new(context, queue, flows, state.hub.wants_all());
        threads.push(start_worker(index, worker, failed.clone())?);
    }
    // Set once, here.
    let _ = state.workers.set(handles);
    Ok((threads, failures))
}

/// Flows of the flow cache, those of each queue, with what the agent before knew of them.
fn inherited(
    state: &State,
    policy: &PolicyLoop,
    queues: usize,
    found: &[CachedFlow],
) -> Vec<Vec<Inherited>> {
    let memory = Memory::take(&state.config.run_dir, policy.fingerprint());
    state
        .policy_unchanged
        .store(memory.unchanged, Ordering::Relaxed);
    let mut of_queue = vec![Vec::new(); queues];
    for &(key, entry, _) in found {
        let remembered = memory.get(&key);
        let flow = Inherited {
            key,
            entry,
            remembered,
            policy_unchanged: memory.unchanged,
        };
        if let Some(flows) = of_queue.get_mut(steer::queue_of(&key, queues)) {
            flows.push(flow);
        }
    }
    of_queue
}

/// The flows that an agent before this one decided.
fn found_flows(config: &Config) -> Result<Vec<CachedFlow>, RunError> {
    Ok(match config.datapath {
        DatapathKind::Ebpf => FlowMap::open(&config.pin_dir)?.iter().collect(),
        DatapathKind::Ovs => saved::take_flows(&config.run_dir),
    })
}

fn flow_store(config: &Config, found: &[CachedFlow]) -> Result<FlowStore, RunError> {
    if config.datapath == DatapathKind::Ebpf {
        return Ok(FlowStore::Kernel(FlowMap::open(&config.pin_dir)?));
    }
    let entries = usize::try_from(config.limits.flow_cache_entries).unwrap_or(usize::MAX);
    let mut cache = FlowCache::new(entries);
    for (key, entry, progress) in found {
        // What does not fit is judged anew.
        let _ = cache.restore(key, entry, progress);
    }
    Ok(FlowStore::Own(Box::new(cache)))
}

fn start_worker(
    index: usize,
    worker: Worker,
    failed: mpsc::Sender<String>,
) -> Result<WorkerThread, RunError> {
    std::thread::Builder::new()
        .name(format!("tg-worker-{index}"))
        .spawn(move || {
            // Tells also of a panic: it is dropped on every way out.
            let note = FailureNote {
                index,
                failed,
                done: false,
            };
            if let Err(error) = crate::privileges::limit_worker() {
                tracing::warn!(index, %error, "a worker keeps its privileges");
            }
            match worker.run() {
                Ok(left) => {
                    note.finished();
                    left
                }
                Err(error) => {
                    tracing::error!(index, %error, "worker failed");
                    Left::default()
                }
            }
        })
        .map_err(RunError::system(format!("starting worker {index}")))
}

/// Says that a worker ended without being told to, however it ended.
struct FailureNote {
    index: usize,
    failed: mpsc::Sender<String>,
    done: bool,
}

impl FailureNote {
    fn finished(mut self) {
        self.done = true;
    }
}

impl Drop for FailureNote {
    fn drop(&mut self) {
        if !self.done {
            // Full is impossible: there is room for every worker.
            let _ = self.failed.try_send(format!("worker {} ended", self.index));
        }
    }
}

fn announce(state: &State) {
    let status = state.status();
    for warning in &status.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        version = status.version,
        workers = status.datapath.workers,
        endpoints = status.endpoints.len(),
        adopted = status.datapath.adopted,
        "traffic is governed"
    );
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Serves until a signal says stop or a worker is lost.
async fn control(
    state: &State,
    policy: &mut PolicyLoop,
    mut watch: DirWatch,
    mut signals: Signals,
    mut failures: mpsc::Receiver<String>,
) -> Result<(), RunError> {
    let mut links = watch_links()?;
    // Before these watches began, an interface may have come or a file may have changed.
    policy.attach();
    policy.reload().await;
    let mut closed = tokio::time::interval(match state.config.datapath {
        DatapathKind::Ebpf => CLOSED_INTERVAL,
        DatapathKind::Ovs => BRIDGE_INTERVAL,
    });
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    closed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => {
                tracing::info!("SIGHUP: the verdict log is reopened, the policy read again");
                state.events.reopen_log();
                policy.reload().await;
            }
            () = watch.changed() => { policy.reload().await; }
            event = links.next() => match event {
                Some(event) => {
                    tracing::debug!(?event, "links changed");
                    policy.attach();
                }
                None => {
                    tracing::warn!("the watch on links ended; started again");
                    links = watch_links()?;
                }
            },
            _ = closed.tick() => {
                pass_on_closed(state);
                policy.note();
                policy.settle();
            }
            _ = retry.tick() => policy.attach(),
            Some(failure) = failures.recv() => {
                // Its queue is read by nobody: better all of it anew than a part of it dead.
                state.lost_workers.fetch_add(1, Ordering::Relaxed);
                let source = io::Error::other("see the log above");
                return Err(RunError::System { what: failure, source });
            }
        }
    }
}

fn watch_links() -> Result<BoxStream<'static, links::LinkEvent>, RunError> {
    Ok(links::watch()?.boxed())
}

fn pass_on_closed(state: &State) {
    let keys = match state.with_kernel(|kernel| kernel.closed()) {
        None => return,
        Some(Err(error)) => return tracing::warn!(%error, "cannot read ends of flows"),
        Some(Ok(keys)) if keys.is_empty() => return,
        Some(Ok(keys)) => keys,
    };
    for worker in state.workers() {
        worker.inbox.push(Command::FlowClosed(keys.clone()));
    }
}

async fn shut_down(
    state: &State,
    policy: &PolicyLoop,
    workers: Vec<WorkerThread>,
    writer: JoinHandle<()>,
    stop: watch::Sender<bool>,
) {
    tracing::info!("stopping; decided flows go on in the kernel");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    for worker in state.workers() {
        worker.inbox.push(Command::Stop);
    }
    let (mut remembered, mut flows) = (Vec::new(), Vec::new());
    for worker in workers {
        // An error is a panic, which has been logged.
        let left = worker.join().unwrap_or_default();
        remembered.extend(left.remembered);
        flows.extend(left.flows);
    }
    if state.config.datapath == DatapathKind::Ovs
        && let Err(error) = saved::save_flows(&state.config.run_dir, &flows)
    {
        tracing::warn!(%error, "cannot leave the flow cache to the next agent");
    }
    if let Err(error) = memory::save(&state.config.run_dir, policy.fingerprint(), remembered) {
        tracing::warn!(%error, "cannot leave the flows to the next agent");
    }
    let (dir, table) = (&state.config.run_dir, policy.table());
    if let Err(error) = name_memory::save(dir, &state.names, &table, monotonic()) {
        tracing::warn!(%error, "cannot leave the names to the next agent");
    }
    state.events.stop();
    let _ = writer.join();
    stop.send_replace(true);
    tokio::time::sleep(SHUTDOWN_GRACE).await;
    // Gone before the lock is: the next agent binds its own.
    let _ = std::fs::remove_file(state.config.socket());
}
