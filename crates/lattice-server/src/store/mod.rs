//! The durable queue and history: one SQLite file in WAL mode.
//!
//! Every change goes through one writer thread that groups whatever has arrived into one transaction; a second thread
//! syncs what is written and then answers, so a burst of prompts costs one sync, not one each. Reads use a connection
//! of their own and never wait for a sync. With [`Store::in_memory`] the same code runs on a database that
//! lives and dies with the process.
//!
//! Prompts and history entries are kept and handed out as JSON text: a list of thousands is passed on to a client
//! without being parsed.

mod change;
mod control;
mod history;
mod queue;
mod turns;
mod writer;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use serde_json::value::RawValue;

pub use change::QueueChange;
pub use control::{Edit, Graph, Place};
pub use history::{HistoryEntry, Page};
pub use queue::{NewPrompt, Number, QueueEntry, QueueItem, QueueOrder, QueueState, Recovery, Stage};

use writer::{Durability, Writer};

/// Failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite reported an error.
    #[error("queue database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored document is not what was written.
    #[error("queue database holds broken JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The database was written by a newer program.
    #[error("queue database has version {found}; this program knows versions up to {known}")]
    Newer {
        /// Version in the file.
        found: i64,
        /// Latest version known here.
        known: i64,
    },
    /// The transaction that a change was part of failed; the log tells why.
    #[error("the change could not be written to the queue database")]
    NotCommitted,
    /// The writer thread could not be started.
    #[error("queue database: {0}")]
    Thread(std::io::Error),
    /// The log of the database cannot be opened or synced.
    #[error("queue database's log: {0}")]
    Log(std::io::Error),
    /// The writer has stopped.
    #[error("the queue database is closed")]
    Closed,
    /// There is no prompt of that id in the queue.
    #[error("there is no prompt {0} in the queue")]
    NotQueued(String),
    /// The prompt waits no longer.
    #[error("the prompt {0} is running")]
    Running(String),
}

/// Result of a database operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Handle on the queue and history; cloning shares it.
#[derive(Clone)]
pub struct Store {
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
}

/// Schema changes, oldest first; `user_version` counts how many the file has.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE queue (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        prompt_id TEXT NOT NULL,
        number REAL NOT NULL,
        client_id TEXT,
        running INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        prompt TEXT NOT NULL,
        extra_data TEXT NOT NULL,
        outputs TEXT NOT NULL
    );
    CREATE INDEX queue_order ON queue (running, number, prompt_id, seq);
    CREATE INDEX queue_id ON queue (prompt_id);
    -- The entries have a table of their own, so that finding a page walks a few megabytes, not all of them.
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        prompt_id TEXT NOT NULL UNIQUE
    );
    CREATE TABLE history_entry (
        seq INTEGER PRIMARY KEY REFERENCES history (seq) ON DELETE CASCADE,
        entry TEXT NOT NULL
    );
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
",
    "
    ALTER TABLE queue ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
    -- Order among prompts of one priority and number, once people have moved them; new ones come after those.
    ALTER TABLE queue ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE queue ADD COLUMN client TEXT AS (ifnull(client_id, '')) VIRTUAL;
    DROP INDEX queue_order;
    CREATE INDEX queue_order ON queue (running, priority DESC, number, place, prompt_id, seq);
    CREATE INDEX queue_client ON queue (running, priority, client, number, place, prompt_id, seq);
    -- When each client's last prompt was started, counted in started prompts.
    CREATE TABLE turns (client TEXT PRIMARY KEY, turn INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX turns_order ON turns (turn);
",
];

impl Store {
    /// Opens or creates the database file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with(&path.to_string_lossy(), false)
    }

    /// A queue that does not survive the process.
    pub fn in_memory() -> Result<Self> {
        // A name of its own per store: shared-cache databases of one name are one database.
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self::with(&format!("file:lattice-queue-{n}?mode=memory&cache=shared"), true)
    }

    fn with(location: &str, memory: bool) -> Result<Self> {
        let mut connection = Connection::open(location)?;
        configure(&connection, memory)?;
        migrate(&mut connection)?;
        if !memory {
            // Any change makes the log, which the sync thread needs.
            connection.execute(
                "INSERT INTO counters VALUES ('number', 0) ON CONFLICT (name) DO UPDATE SET value = value",
                [],
            )?;
        }
        let reader = Connection::open(location)?;
        configure(&reader, memory)?;
        Ok(Self {
            writer: Arc::new(Writer::start(connection, (!memory).then_some(Path::new(location)))?),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Has `observer` called after every change of the queue with the number of prompts that wait or run, and what the
    /// change was (none where the same change is told a second time); by the writer, in the order of the changes and
    /// before they are answered. There can be one observer.
    pub fn on_queue_change(&self, observer: impl Fn(usize, Option<&QueueChange>) + Send + Sync + 'static) {
        if !self.writer.observe(observer) {
            tracing::error!("the queue has an observer already");
        }
    }

    /// Uses up an automatic queue number, as a prompt that is refused does.
    pub fn skip_number(&self) -> Result<()> {
        self.writer.run(Durability::Later, |tx, _| queue::next_number(tx).map(drop))
    }

    /// Writes something that changes nothing and takes it to the disk: whether a prompt could be queued now.
    pub fn probe(&self) -> Result<()> {
        self.writer.run(Durability::Now, |tx, _| {
            tx.execute("UPDATE counters SET value = value WHERE name = 'number'", [])?;
            Ok(())
        })
    }
}

fn configure(connection: &Connection, memory: bool) -> Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if memory {
        connection.pragma_update(None, "synchronous", "OFF")?;
        // Shared-cache readers would otherwise be refused while a change is under way.
        connection.pragma_update(None, "read_uncommitted", true)?;
    } else {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Syncs of the log are ours; SQLite still syncs it before it moves changes into the database.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let known = MIGRATIONS.len() as i64;
    let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (i, migration) in MIGRATIONS.iter().enumerate().skip(found.max(0) as usize) {
        let tx = connection.transaction()?;
        tx.execute_batch(migration)?;
        tx.pragma_update(None, "user_version", i as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

/// A column that holds JSON.
fn json_column<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, name: &str) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(name)?;
    let text = row.get_ref(index)?.as_str()?;
    serde_json::from_str(text).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e))
    })
}

/// A column that holds JSON, as text.
fn raw_column(row: &rusqlite::Row<'_>, name: &str) -> rusqlite::Result<Box<RawValue>> {
    json_column(row, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_an_older_program_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        let sql = "INSERT INTO queue (prompt_id, number, client_id, prompt, extra_data, outputs)
                   VALUES (?, ?, 'me', '{}', '{}', '[]')";
        for (id, number) in [("second", 2.0), ("first", 1.0)] {
            old.execute(sql, rusqlite::params![id, number]).unwrap();
        }
        drop(old);
        let store = Store::open(&path).unwrap();
        let waiting = store.state().unwrap().waiting;
        let read: Vec<_> = waiting.iter().map(|entry| (entry.prompt_id.as_str(), entry.priority)).collect();
        assert_eq!(read, [("first", 0), ("second", 0)]);
        store.set_order(QueueOrder::Fair).unwrap();
        assert_eq!(store.take_next().unwrap().unwrap().client_id.as_deref(), Some("me"));
    }
}
