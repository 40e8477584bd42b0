//! Prompts that wait or run.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value as Json;

use super::{HistoryEntry, Result, Store, history, json_column};

/// A prompt to queue, already validated.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// Its id.
    pub prompt_id: String,
    /// Priority: lower runs first; equal numbers by id.
    pub number: f64,
    /// Socket that gets its events.
    pub client_id: Option<String>,
    /// The prompt after validation.
    pub prompt: Json,
    /// `extra_data` of the request.
    pub extra_data: Json,
    /// Output nodes to execute.
    pub outputs: Vec<String>,
}

/// A queued or running prompt.
#[derive(Clone, Debug)]
pub struct QueueItem {
    /// Identity in the store; a prompt id may be queued twice.
    pub seq: i64,
    /// How often it was started before.
    pub attempts: i64,
    /// The rest.
    pub prompt: NewPrompt,
}

/// What to do at start-up with the prompt that was running when the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Queue it again at its old place.
    RunAgain,
    /// Put it into the history as an error.
    Report,
}

const COLUMNS: &str = "seq, attempts, prompt_id, number, client_id, prompt, extra_data, outputs";

fn item(row: &Row<'_>) -> rusqlite::Result<QueueItem> {
    let outputs = json_column(row, 7)?;
    let outputs =
        outputs.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    Ok(QueueItem {
        seq: row.get(0)?,
        attempts: row.get(1)?,
        prompt: NewPrompt {
            prompt_id: row.get(2)?,
            number: row.get(3)?,
            client_id: row.get(4)?,
            prompt: json_column(row, 5)?,
            extra_data: json_column(row, 6)?,
            outputs,
        },
    })
}

impl Store {
    /// Queues a prompt; returns its identity once it is on disk.
    pub fn enqueue(&self, new: NewPrompt) -> Result<i64> {
        self.writer.run(move |tx| {
            tx.prepare_cached(
                "INSERT INTO queue (prompt_id, number, client_id, prompt, extra_data, outputs) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                new.prompt_id,
                new.number,
                new.client_id,
                new.prompt.to_string(),
                new.extra_data.to_string(),
                serde_json::to_string(&new.outputs)?,
            ])?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// Takes the next prompt and marks it as running; None if nothing waits.
    pub fn take_next(&self) -> Result<Option<QueueItem>> {
        self.writer.run(|tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM queue WHERE running = 0 ORDER BY number, prompt_id, seq LIMIT 1"
            );
            let next = tx.prepare_cached(&sql)?.query_row([], item).optional()?;
            if let Some(item) = &next {
                tx.execute(
                    "UPDATE queue SET running = 1, attempts = attempts + 1 WHERE seq = ?",
                    [item.seq],
                )?;
            }
            Ok(next)
        })
    }

    /// Ends a running prompt: it leaves the queue and enters the history in one step.
    pub fn finish(&self, seq: i64, entry: HistoryEntry) -> Result<()> {
        self.writer.run(move |tx| {
            tx.execute("DELETE FROM queue WHERE seq = ?", [seq])?;
            history::insert(tx, &entry)
        })
    }

    /// Puts a running prompt back to its place in the queue (graceful shutdown).
    pub fn put_back(&self, seq: i64) -> Result<()> {
        self.writer.run(move |tx| {
            tx.execute("UPDATE queue SET running = 0, attempts = attempts - 1 WHERE seq = ?", [seq])?;
            Ok(())
        })
    }

    /// Prompts that run or (with `running` false) wait, in the order they will run.
    pub fn items(&self, running: bool) -> Result<Vec<QueueItem>> {
        let reader = self.reader.lock();
        let sql = format!("SELECT {COLUMNS} FROM queue WHERE running = ? ORDER BY number, prompt_id, seq");
        let mut statement = reader.prepare_cached(&sql)?;
        Ok(statement.query_map([running], item)?.collect::<rusqlite::Result<_>>()?)
    }

    /// How many prompts wait or run.
    pub fn remaining(&self) -> Result<usize> {
        let count: i64 =
            self.reader.lock().prepare_cached("SELECT count(*) FROM queue")?.query_row([], |r| r.get(0))?;
        Ok(count as usize)
    }

    /// Drops waiting prompts of these ids (None: all); returns how many went.
    pub fn drop_waiting(&self, ids: Option<Vec<String>>) -> Result<usize> {
        self.writer.run(move |tx| match ids {
            None => Ok(tx.execute("DELETE FROM queue WHERE running = 0", [])?),
            Some(ids) => {
                let mut statement =
                    tx.prepare_cached("DELETE FROM queue WHERE running = 0 AND prompt_id = ?")?;
                ids.iter().try_fold(0, |n, id| Ok(n + statement.execute([id])?))
            }
        })
    }

    /// Gives a waiting prompt another number; false if it does not wait.
    pub fn renumber(&self, prompt_id: String, number: f64) -> Result<bool> {
        self.writer.run(move |tx| {
            let sql = "UPDATE queue SET number = ? WHERE running = 0 AND prompt_id = ?";
            Ok(tx.execute(sql, params![number, prompt_id])? > 0)
        })
    }

    /// Replaces a waiting prompt's graph; false if it does not wait.
    pub fn replace_waiting(&self, prompt_id: String, prompt: Json, outputs: Vec<String>) -> Result<bool> {
        self.writer.run(move |tx| {
            let sql = "UPDATE queue SET prompt = ?, outputs = ? WHERE running = 0 AND prompt_id = ?";
            Ok(tx.execute(sql, params![prompt.to_string(), serde_json::to_string(&outputs)?, prompt_id])? > 0)
        })
    }

    /// Deals with prompts that were running when the process last ended; returns how many there were.
    pub fn recover(&self, how: Recovery, report: fn(&QueueItem) -> HistoryEntry) -> Result<usize> {
        self.writer.run(move |tx| {
            let interrupted = running(tx)?;
            for item in &interrupted {
                match how {
                    Recovery::RunAgain => {
                        tx.execute("UPDATE queue SET running = 0 WHERE seq = ?", [item.seq])?;
                    }
                    Recovery::Report => {
                        tx.execute("DELETE FROM queue WHERE seq = ?", [item.seq])?;
                        history::insert(tx, &report(item))?;
                    }
                }
            }
            Ok(interrupted.len())
        })
    }
}

fn running(tx: &Transaction<'_>) -> Result<Vec<QueueItem>> {
    let mut statement = tx.prepare(&format!("SELECT {COLUMNS} FROM queue WHERE running = 1"))?;
    Ok(statement.query_map([], item)?.collect::<rusqlite::Result<_>>()?)
}
