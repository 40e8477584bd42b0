//! The parts of a running server and how it starts and ends.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lattice_graph::{Executor, Extensions, Registry};

use crate::engine::{Engine, Worker};
use crate::files::{FileError, Files, Folder};
use crate::health::Health;
use crate::host::{Host, Roots};
use crate::hub::{self, Hub};
use crate::keys::{Gate, KeyError};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::options::{Options, QueuePlace, TlsFiles};
use crate::store::{Store, StoreError};
use crate::users::Users;
use crate::{http, listen, record};

/// Name of the queue's file in the user folder.
const QUEUE_FILE: &str = "queue.sqlite";

/// How long a prompt that is to go back into the queue may take to notice; what cannot be interrupted may take minutes.
const LAST_STEP: Duration = Duration::from_secs(3);

/// What requests work with.
pub(crate) struct App {
    pub(crate) options: Options,
    pub(crate) registry: Arc<Registry>,
    pub(crate) extensions: Extensions,
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) files: Files,
    pub(crate) users: Users,
    pub(crate) logs: Arc<Logs>,
    pub(crate) metrics: Arc<Metrics>,
    /// When it was last seen that prompts can be queued, or why not.
    pub(crate) health: Health,
    /// The folder of the front end, if there is one.
    pub(crate) front_end: Option<Folder>,
    /// Whom to let in; none if anybody may come in.
    pub(crate) gate: Option<Gate>,
    /// No new prompts are taken.
    pub(crate) stopping: AtomicBool,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The queue cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another server works on the same queue.
    #[error("{} is in use by another server; choose another user folder, or a queue in memory", .0.display())]
    QueueInUse(PathBuf),
    /// Nobody could be let in.
    #[error(
        "clients must show a key here, and there is none: make one with `lattice key create NAME`{}",
        if *.exposed { "; or let everybody on the network use the server, with --no-auth" } else { "" }
    )]
    NoKeys {
        /// Whether that is because other machines can connect.
        exposed: bool,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate or its key is no good.
    #[error("TLS with {} and {}: {source}", files.certificate.display(), files.key.display())]
    Tls {
        /// The files.
        files: TlsFiles,
        /// What is wrong with them.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder cannot be made or emptied.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder of the front end is not one.
    #[error("the front end {}: {reason}", path.display())]
    FrontEnd {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder for temporary files holds others that must stay.
    #[error("{} is emptied at each start, so it cannot hold {}", temp.display(), other.display())]
    TempHoldsOthers {
        /// The folder for temporary files.
        temp: PathBuf,
        /// What lies in it.
        other: PathBuf,
    },
    /// The system refuses threads or sockets.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until the process is told to stop. `logs` is what the log is also written to, for clients. `ready` is called with the addresses once connections are accepted.
///
/// # Errors
/// If the server cannot start.
pub fn serve(
    host: Arc<dyn Host>,
    options: Options,
    logs: Arc<Logs>,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), ServeError> {
    let roots = host.roots();
    let gate = options.asks_for_keys().then(|| Gate::open(&roots.user)).transpose()?;
    if gate.as_ref().is_some_and(|gate| !gate.has_keys()) {
        return Err(ServeError::NoKeys { exposed: !options.local() });
    }
    prepare(&roots)?;
    let front_end = options.front_end.as_deref().map(open_front_end).transpose()?;
    let (store, _lock) = open_store(&roots, options.queue)?;
    let recovered = store.recover(options.recovery, record::lost)?;
    if recovered > 0 {
        tracing::warn!(?options.recovery, "the program ended while a prompt was running");
    }
    if let Some(order) = options.order {
        store.set_order(order)?;
    }
    if store.queue_settings()?.0 {
        tracing::warn!("the queue is paused: prompts wait until it is resumed");
    }
    let listeners = listen::bind(&options.addresses)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    let (hub, engine) = (Arc::new(Hub::default()), Arc::new(Engine::default()));
    store.on_queue_change({
        let (hub, engine) = (hub.clone(), engine.clone());
        move |remaining, change| {
            hub.broadcast(hub::status(remaining));
            if let Some(change) = change {
                hub.queue_changed(change, remaining);
            }
            engine.wake();
        }
    });
    let metrics = Arc::new(Metrics::new());
    let (registry, extensions) = (host.registry(), host.extensions());
    let worker = Worker {
        engine: engine.clone(),
        store: store.clone(),
        hub: hub.clone(),
        executor: Executor::new(registry.clone(), extensions.clone(), host.cache()),
        host: host.clone(),
        metrics: metrics.clone(),
        history_limit: options.history_limit,
    };
    let thread = std::thread::Builder::new().name("lattice-engine".into()).spawn(move || worker.run())?;
    // What was queued before the start.
    engine.wake();

    let stopping = AtomicBool::new(false);
    let users = Users::new(options.several_users);
    let files = Files::new(roots.clone());
    let app = Arc::new(App {
        options,
        registry,
        extensions,
        store,
        hub,
        engine,
        host,
        files,
        users,
        logs,
        metrics,
        health: Health::default(),
        front_end,
        gate,
        stopping,
    });
    let addresses = listeners.addresses();
    let idle = runtime.block_on(async {
        let server = listen::Server::start(listeners, http::router(app.clone()), &app.options).await?;
        tokio::spawn({
            let hub = app.hub.clone();
            async move { hub.cry().await }
        });
        tokio::spawn({
            let app = app.clone();
            async move { app.logs.follow(|id, lines| app.hub.tell(id, hub::logs(lines))).await }
        });
        ready(&addresses);
        listen::told_to_stop().await;
        tracing::info!("stopping");
        let idle = wind_down(&app).await;
        app.hub.close();
        server.end().await;
        Ok::<_, ServeError>(idle)
    })?;
    if !idle {
        // What still runs is left to the end of the process, and so are its temporary files to the next start.
        return Ok(());
    }
    // The engine ends early only by a panic, which has been reported.
    let _ = thread.join();
    empty(&roots.temp)
}

/// Lets the running prompt end, or puts it back when it takes too long or the process is told to stop again. False if
/// something is still running then.
async fn wind_down(app: &App) -> bool {
    app.stopping.store(true, Ordering::Relaxed);
    app.engine.stop();
    let ended = async {
        while !app.engine.ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = ended => return true,
        () = tokio::time::sleep(app.options.grace) => {}
        () = listen::told_to_stop() => {}
    }
    let patience = Instant::now() + LAST_STEP;
    while !app.engine.ended() {
        app.engine.abandon();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if Instant::now() > patience {
            put_back(app);
            return app.engine.ended();
        }
    }
    true
}

/// Puts the running prompt back into the queue in place of the engine, which is in the middle of something long. What
/// has been saved of it goes when it runs again, as after a crash.
fn put_back(app: &App) {
    let Some(running) = app.engine.running() else { return };
    match app.store.put_back(running.seq) {
        Ok(()) => tracing::info!("prompt {} goes back into the queue", running.prompt_id),
        Err(e) => tracing::error!("prompt {} cannot be put back: {e}", running.prompt_id),
    }
}

fn open_front_end(path: &Path) -> Result<Folder, ServeError> {
    let failed = |reason: String| ServeError::FrontEnd { path: path.to_owned(), reason };
    let folder = Folder::open(path).map_err(|e: FileError| failed(e.to_string()))?;
    if folder.file("index.html".as_ref()).is_err() {
        return Err(failed("there is no index.html in it".into()));
    }
    Ok(folder)
}

fn prepare(roots: &Roots) -> Result<(), ServeError> {
    for path in [&roots.input, &roots.output, &roots.user, &roots.temp] {
        std::fs::create_dir_all(path).map_err(|source| ServeError::Folder { path: path.clone(), source })?;
    }
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temp = real(&roots.temp);
    let home = std::env::home_dir().unwrap_or_default();
    for other in [&roots.input, &roots.output, &roots.user, &home] {
        if real(other).starts_with(&temp) {
            return Err(ServeError::TempHoldsOthers { temp, other: other.clone() });
        }
    }
    empty(&roots.temp)
}

/// Removes what a folder holds.
fn empty(folder: &Path) -> Result<(), ServeError> {
    let failed = |path: &Path, source| ServeError::Folder { path: path.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))?.flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        gone.map_err(|e| failed(&path, e))?;
    }
    Ok(())
}

/// The queue, and the lock that keeps other servers from executing it too.
fn open_store(roots: &Roots, place: QueuePlace) -> Result<(Store, Option<File>), ServeError> {
    if place == QueuePlace::Memory {
        return Ok((Store::in_memory()?, None));
    }
    let path = roots.user.join(QUEUE_FILE);
    let lock_path = path.with_extension("lock");
    let failed = |source| ServeError::Folder { path: lock_path.clone(), source };
    let lock = File::create(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok((Store::open(&path)?, Some(lock))),
        Err(TryLockError::WouldBlock) => Err(ServeError::QueueInUse(path)),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
