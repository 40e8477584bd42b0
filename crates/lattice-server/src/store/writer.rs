//! The writer thread groups changes into transactions; the sync thread takes them to the disk.
//!
//! A transaction is first written to SQLite's log without a sync. From then on it survives the end of the process, and
//! the engine goes on with it. Whoever asked is answered once the log is synced, which one sync does for all that was
//! written before it began.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};

use super::{QueueChange, Result, StoreError};

/// Most changes in one transaction: bounds how long the first of them waits.
const GROUP: usize = 256;

/// When a change must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Before it is answered.
    Now,
    /// Some time after it is answered. A power cut may undo it, the end of the process does not.
    Later,
}

/// What a change does beside the database.
#[derive(Default)]
pub(super) struct Steps {
    /// What observers are told of, one after the other.
    steps: Vec<Step>,
}

struct Step {
    /// Difference to the number of prompts in the queue.
    difference: isize,
    change: Option<QueueChange>,
}

impl Steps {
    /// A change of the queue, and by how much longer it is then.
    pub(super) fn add(&mut self, difference: isize, change: QueueChange) {
        self.steps.push(Step { difference, change: Some(change) });
    }

    /// The last change once more.
    pub(super) fn again(&mut self) {
        self.steps.push(Step { difference: 0, change: None });
    }
}

/// Told the number of prompts in the queue after each step, and what the step was.
type Observer = Box<dyn Fn(usize, Option<&QueueChange>) + Send + Sync>;

/// A change and the answer it will give once the transaction is committed (or has failed).
struct Change {
    durability: Durability,
    make: Box<dyn FnOnce(&Transaction<'_>, &mut Steps) -> Answer + Send>,
}

type Answer = Box<dyn FnOnce(bool) + Send>;

pub(super) struct Writer {
    changes: Mutex<Option<Sender<Change>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queue: Arc<QueueLength>,
}

/// How long the queue is, as of the last commit.
struct QueueLength {
    count: AtomicUsize,
    observer: OnceLock<Observer>,
}

impl QueueLength {
    fn apply(&self, steps: &[Step]) {
        for step in steps {
            let count = self.count.load(Ordering::Relaxed).saturating_add_signed(step.difference);
            self.count.store(count, Ordering::Relaxed);
            if let Some(observer) = self.observer.get() {
                observer(count, step.change.as_ref());
            }
        }
    }
}

impl Writer {
    /// `path`: the database's file, if there is one that synced commits make sense for.
    pub(super) fn start(connection: Connection, path: Option<&Path>) -> Result<Self> {
        let count: i64 = connection.query_row("SELECT count(*) FROM queue", [], |r| r.get(0))?;
        let queue =
            Arc::new(QueueLength { count: AtomicUsize::new(count as usize), observer: OnceLock::new() });
        let (changes, received) = channel();
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(run).map_err(StoreError::Thread)
        };
        let mut threads = Vec::new();
        let syncs = match path {
            Some(path) => {
                let log = open_log(path).map_err(StoreError::Log)?;
                let (syncs, received) = channel();
                threads.push(thread("lattice-sync", Box::new(move || sync(&log, &received)))?);
                Some(syncs)
            }
            None => None,
        };
        let work = Work { connection, syncs, queue: queue.clone() };
        threads.insert(0, thread("lattice-store", Box::new(move || work.run(&received)))?);
        Ok(Self { changes: Mutex::new(Some(changes)), threads: Mutex::new(threads), queue })
    }

    pub(super) fn queue_length(&self) -> usize {
        self.queue.count.load(Ordering::Relaxed)
    }

    /// False if there is an observer already.
    pub(super) fn observe(
        &self,
        observer: impl Fn(usize, Option<&QueueChange>) + Send + Sync + 'static,
    ) -> bool {
        self.queue.observer.set(Box::new(observer)).is_ok()
    }

    /// Runs a change and returns when it is committed, and on disk if that is asked for. A failing change undoes only
    /// itself, not its group.
    pub(super) fn run<T, F>(&self, durability: Durability, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &mut Steps) -> Result<T> + Send + 'static,
    {
        let (answer, answered): (SyncSender<Result<T>>, Receiver<Result<T>>) = sync_channel(1);
        let make = Box::new(move |tx: &Transaction<'_>, steps: &mut Steps| -> Answer {
            let result = savepoint(tx, steps, change);
            Box::new(move |committed| {
                let result = if committed { result } else { result.and(Err(StoreError::NotCommitted)) };
                // The asker may have gone (a client that hung up); the change stands all the same.
                let _ = answer.send(result);
            })
        });
        let sender = self.changes.lock().clone().ok_or(StoreError::Closed)?;
        sender.send(Change { durability, make }).map_err(|_| StoreError::Closed)?;
        answered.recv().map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing the channel lets the threads finish what they have and leave, the writer first.
        self.changes.lock().take();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn savepoint<T>(
    tx: &Transaction<'_>,
    steps: &mut Steps,
    change: impl FnOnce(&Transaction<'_>, &mut Steps) -> Result<T>,
) -> Result<T> {
    tx.execute_batch("SAVEPOINT change")?;
    let before = steps.steps.len();
    let result = change(tx, steps);
    if result.is_ok() {
        tx.execute_batch("RELEASE change")?;
    } else {
        steps.steps.truncate(before);
        tx.execute_batch("ROLLBACK TO change; RELEASE change")?;
    }
    result
}

/// Answers that wait for a sync of what is written.
struct Written(Vec<Answer>);

struct Work {
    connection: Connection,
    /// The sync thread; none if nothing outlives the process.
    syncs: Option<Sender<Written>>,
    queue: Arc<QueueLength>,
}

impl Work {
    fn run(mut self, received: &Receiver<Change>) {
        while let Ok(first) = received.recv() {
            let group: Vec<Change> =
                std::iter::once(first).chain(received.try_iter().take(GROUP - 1)).collect();
            let mut answers = Answers::default();
            let mut steps = Steps::default();
            let committed = self.commit(group, &mut answers, &mut steps);
            match &committed {
                Ok(()) => self.queue.apply(&steps.steps),
                Err(e) => tracing::error!("queue database: {e}"),
            }
            let written = committed.is_ok();
            for answer in answers.later {
                answer(written);
            }
            let rest = Written(answers.now);
            match &self.syncs {
                Some(syncs) if written => {
                    if let Err(SendError(rest)) = syncs.send(rest) {
                        rest.answer(false);
                    }
                }
                _ => rest.answer(written),
            }
        }
    }

    fn commit(
        &mut self,
        group: Vec<Change>,
        answers: &mut Answers,
        steps: &mut Steps,
    ) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        for change in group {
            let list = match change.durability {
                Durability::Now => &mut answers.now,
                Durability::Later => &mut answers.later,
            };
            list.push((change.make)(&tx, steps));
        }
        tx.commit()
    }
}

/// Answers to a group of changes.
#[derive(Default)]
struct Answers {
    /// To be given when the group is on disk.
    now: Vec<Answer>,
    /// To be given when it is written.
    later: Vec<Answer>,
}

impl Written {
    fn answer(self, done: bool) {
        for answer in self.0 {
            answer(done);
        }
    }
}

/// SQLite's log of a database. It exists as long as a connection is open that has written something.
fn open_log(path: &Path) -> std::io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let log = OpenOptions::new().write(true).open(name)?;
    sync_folder(path)?;
    Ok(log)
}

/// Takes to the disk what is written, all that has come meanwhile at once.
fn sync(log: &File, received: &Receiver<Written>) {
    while let Ok(first) = received.recv() {
        let group: Vec<Written> = std::iter::once(first).chain(received.try_iter()).collect();
        let synced = log.sync_data();
        if let Err(e) = &synced {
            tracing::error!("queue database: cannot sync: {e}");
        }
        for written in group {
            written.answer(synced.is_ok());
        }
    }
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // Elsewhere folders cannot be opened, and need not be.
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
