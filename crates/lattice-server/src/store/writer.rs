//! The writer thread: groups changes into transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};

use super::{Result, StoreError};

/// Most changes in one transaction: bounds how long the first of them waits.
const GROUP: usize = 256;

/// When a change must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Before it is answered.
    Now,
    /// With the next change that must. A power cut may undo it, the end of the process does not.
    Later,
}

/// What a change does to the number of prompts in the queue, one entry per step that observers are told of.
#[derive(Default)]
pub(super) struct Steps(Vec<isize>);

impl Steps {
    pub(super) fn add(&mut self, difference: isize) {
        self.0.push(difference);
    }
}

/// Told the number of prompts in the queue after each step.
type Observer = Box<dyn Fn(usize) + Send + Sync>;

/// A change and the answer it will give once the transaction is committed (or has failed).
struct Change {
    durability: Durability,
    make: Box<dyn FnOnce(&Transaction<'_>, &mut Steps) -> Answer + Send>,
}

type Answer = Box<dyn FnOnce(bool) + Send>;

pub(super) struct Writer {
    changes: Mutex<Option<Sender<Change>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    queue: Arc<QueueLength>,
}

/// How long the queue is, as of the last commit.
struct QueueLength {
    count: AtomicUsize,
    observer: OnceLock<Observer>,
}

impl QueueLength {
    fn apply(&self, steps: &[isize]) {
        for &step in steps {
            let count = self.count.load(Ordering::Relaxed).saturating_add_signed(step);
            self.count.store(count, Ordering::Relaxed);
            if let Some(observer) = self.observer.get() {
                observer(count);
            }
        }
    }
}

impl Writer {
    /// `durable`: whether the database is a file that synced commits make sense for.
    pub(super) fn start(connection: Connection, durable: bool) -> Result<Self> {
        let count: i64 = connection.query_row("SELECT count(*) FROM queue", [], |r| r.get(0))?;
        let queue =
            Arc::new(QueueLength { count: AtomicUsize::new(count as usize), observer: OnceLock::new() });
        let (changes, received) = channel();
        let work = Work { connection, durable, synchronous: None, queue: queue.clone() };
        let thread = std::thread::Builder::new()
            .name("lattice-store".into())
            .spawn(move || work.run(&received))
            .map_err(StoreError::Thread)?;
        Ok(Self { changes: Mutex::new(Some(changes)), thread: Mutex::new(Some(thread)), queue })
    }

    pub(super) fn queue_length(&self) -> usize {
        self.queue.count.load(Ordering::Relaxed)
    }

    /// False if there is an observer already.
    pub(super) fn observe(&self, observer: impl Fn(usize) + Send + Sync + 'static) -> bool {
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
        // Closing the channel lets the thread finish what it has and leave.
        self.changes.lock().take();
        if let Some(thread) = self.thread.lock().take() {
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
    let before = steps.0.len();
    let result = change(tx, steps);
    if result.is_ok() {
        tx.execute_batch("RELEASE change")?;
    } else {
        steps.0.truncate(before);
        tx.execute_batch("ROLLBACK TO change; RELEASE change")?;
    }
    result
}

struct Work {
    connection: Connection,
    durable: bool,
    /// What the connection is set to, once it is.
    synchronous: Option<Durability>,
    queue: Arc<QueueLength>,
}

impl Work {
    fn run(mut self, received: &Receiver<Change>) {
        while let Ok(first) = received.recv() {
            let group: Vec<Change> =
                std::iter::once(first).chain(received.try_iter().take(GROUP - 1)).collect();
            let mut answers = Vec::with_capacity(group.len());
            let mut steps = Steps::default();
            let committed = self.commit(group, &mut answers, &mut steps);
            match &committed {
                Ok(()) => self.queue.apply(&steps.0),
                Err(e) => tracing::error!("queue database: {e}"),
            }
            for answer in answers {
                answer(committed.is_ok());
            }
        }
    }

    fn commit(
        &mut self,
        group: Vec<Change>,
        answers: &mut Vec<Answer>,
        steps: &mut Steps,
    ) -> rusqlite::Result<()> {
        let now = group.iter().any(|change| change.durability == Durability::Now);
        self.set_synchronous(if now { Durability::Now } else { Durability::Later })?;
        let tx = self.connection.transaction()?;
        answers.extend(group.into_iter().map(|change| (change.make)(&tx, steps)));
        tx.commit()
    }

    /// In WAL mode a synced commit takes all earlier ones to the disk with it.
    fn set_synchronous(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durable && self.synchronous != Some(durability) {
            let level = if durability == Durability::Now { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synchronous = Some(durability);
        }
        Ok(())
    }
}
