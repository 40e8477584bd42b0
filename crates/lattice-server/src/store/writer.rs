//! The writer thread: groups changes into transactions.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};

use super::{Result, StoreError};

/// Most changes in one transaction: bounds how long the first of them waits.
const GROUP: usize = 256;

/// A change and the answer it will give once the transaction is committed (or has failed).
type Change = Box<dyn FnOnce(&Transaction<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(bool) + Send>;

pub(super) struct Writer {
    changes: Mutex<Option<Sender<Change>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (changes, received) = channel();
        let thread = std::thread::Builder::new()
            .name("lattice-store".into())
            .spawn(move || work(connection, &received));
        Self { changes: Mutex::new(Some(changes)), thread: Mutex::new(thread.ok()) }
    }

    /// Runs a change and returns when it is on disk. A failing change undoes only itself, not its group.
    pub(super) fn run<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered): (SyncSender<Result<T>>, Receiver<Result<T>>) = sync_channel(1);
        let change: Change = Box::new(move |tx| {
            let result = savepoint(tx, change);
            Box::new(move |committed| {
                // The asker may have gone (a client that hung up); the change stands all the same.
                let _ = answer.send(if committed {
                    result
                } else {
                    Err(result.err().unwrap_or(StoreError::Closed))
                });
            })
        });
        let sender = self.changes.lock().clone().ok_or(StoreError::Closed)?;
        sender.send(change).map_err(|_| StoreError::Closed)?;
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

fn savepoint<T>(tx: &Transaction<'_>, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    tx.execute_batch("SAVEPOINT change")?;
    let result = change(tx);
    tx.execute_batch(if result.is_ok() { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" })?;
    result
}

fn work(mut connection: Connection, received: &Receiver<Change>) {
    while let Ok(first) = received.recv() {
        let group = std::iter::once(first).chain(received.try_iter().take(GROUP - 1));
        let mut answers = Vec::new();
        let committed = (|| -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            answers.extend(group.map(|change| change(&tx)));
            tx.commit()
        })();
        if let Err(e) = &committed {
            tracing::error!("queue database: {e}");
        }
        for answer in answers {
            answer(committed.is_ok());
        }
    }
}
