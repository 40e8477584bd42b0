//! Prompts that wait or run.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::value::RawValue;

use super::{Durability, HistoryEntry, Result, Store, history, json_column, raw_column};

/// A prompt to queue, already validated.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// Its id.
    pub prompt_id: String,
    /// Its place in the queue.
    pub number: Number,
    /// Socket that gets its events.
    pub client_id: Option<String>,
    /// The prompt after validation.
    pub prompt: Box<RawValue>,
    /// `extra_data` of the request.
    pub extra_data: Box<RawValue>,
    /// Output nodes to execute.
    pub outputs: Vec<String>,
}

/// The number of a prompt: lower ones run first, equal ones in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// The next automatic one.
    Next,
    /// The next automatic one, negated: before all that were queued so far.
    Front,
    /// As the client says.
    Given(f64),
}

/// A queued or running prompt.
#[derive(Clone, Debug)]
pub struct QueueItem {
    /// Identity in the store; a prompt id may be queued twice.
    pub seq: i64,
    /// How often it was started before.
    pub attempts: i64,
    /// Its id.
    pub prompt_id: String,
    /// Its number.
    pub number: f64,
    /// Socket that gets its events.
    pub client_id: Option<String>,
    /// The prompt after validation.
    pub prompt: Box<RawValue>,
    /// `extra_data` of the request.
    pub extra_data: Box<RawValue>,
    /// Output nodes to execute.
    pub outputs: Vec<String>,
}

/// Where a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the queue, waiting.
    Waiting,
    /// Being executed.
    Running,
    /// Ended, or never queued.
    Elsewhere,
}

/// What to do at start-up with the prompt that was running when the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Queue it again at its old place.
    RunAgain,
    /// Put it into the history as an error.
    Report,
}

/// What [`item`] reads.
const COLUMNS: &str = "seq, attempts, prompt_id, number, client_id, prompt, extra_data, outputs";

fn item(row: &Row<'_>) -> rusqlite::Result<QueueItem> {
    Ok(QueueItem {
        seq: row.get("seq")?,
        attempts: row.get("attempts")?,
        prompt_id: row.get("prompt_id")?,
        number: row.get("number")?,
        client_id: row.get("client_id")?,
        prompt: raw_column(row, "prompt")?,
        extra_data: raw_column(row, "extra_data")?,
        outputs: json_column(row, "outputs")?,
    })
}

/// Takes an automatic number.
pub(super) fn next_number(tx: &Transaction<'_>) -> Result<i64> {
    let sql = "INSERT INTO counters VALUES ('number', 1)
               ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value - 1";
    Ok(tx.prepare_cached(sql)?.query_row([], |r| r.get(0))?)
}

impl Store {
    /// Queues a prompt; returns its number once it is on disk.
    pub fn enqueue(&self, new: NewPrompt) -> Result<f64> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let number = match new.number {
                Number::Next => next_number(tx)? as f64,
                Number::Front => -(next_number(tx)? as f64),
                Number::Given(number) => number,
            };
            tx.prepare_cached(
                "INSERT INTO queue (prompt_id, number, client_id, prompt, extra_data, outputs) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                new.prompt_id,
                number,
                new.client_id,
                new.prompt.get(),
                new.extra_data.get(),
                serde_json::to_string(&new.outputs)?,
            ])?;
            steps.add(1);
            Ok(number)
        })
    }

    /// Takes the next prompt and marks it as running; None if nothing waits.
    pub fn take_next(&self) -> Result<Option<QueueItem>> {
        // Lost in a power cut, the mark leaves a waiting prompt, which will run: nothing to wait for the disk for.
        self.writer.run(Durability::Later, |tx, steps| {
            let sql = format!(
                "SELECT {COLUMNS} FROM queue WHERE running = 0 ORDER BY number, prompt_id, seq LIMIT 1"
            );
            let next = tx.prepare_cached(&sql)?.query_row([], item).optional()?;
            if let Some(item) = &next {
                tx.prepare_cached("UPDATE queue SET running = 1, attempts = attempts + 1 WHERE seq = ?")?
                    .execute([item.seq])?;
                steps.add(0);
            }
            Ok(next)
        })
    }

    /// Ends a running prompt: it leaves the queue and enters the history in one step. A power cut may undo the step
    /// while nothing that was queued later has been answered; then the prompt runs again.
    pub fn finish(&self, seq: i64, entry: HistoryEntry) -> Result<()> {
        self.writer.run(Durability::Later, move |tx, steps| {
            let gone = tx.prepare_cached("DELETE FROM queue WHERE seq = ?")?.execute([seq])?;
            steps.add(-(gone as isize));
            history::insert(tx, &entry)
        })
    }

    /// Puts a running prompt back to its place in the queue (graceful shutdown).
    pub fn put_back(&self, seq: i64) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            tx.execute("UPDATE queue SET running = 0, attempts = attempts - 1 WHERE seq = ?", [seq])?;
            steps.add(0);
            Ok(())
        })
    }

    /// Prompts that run, and those that wait in the order they will run.
    pub fn queue(&self) -> Result<(Vec<QueueItem>, Vec<QueueItem>)> {
        let reader = self.reader.lock();
        let sql = format!("SELECT running, {COLUMNS} FROM queue ORDER BY running, number, prompt_id, seq");
        let mut statement = reader.prepare_cached(&sql)?;
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let list = if row.get("running")? { &mut running } else { &mut waiting };
            list.push(item(row)?);
        }
        Ok((running, waiting))
    }

    /// Where the prompt of an id is; the one further on if there are several.
    pub fn stage(&self, prompt_id: &str) -> Result<Stage> {
        let reader = self.reader.lock();
        let mut statement = reader.prepare_cached("SELECT max(running) FROM queue WHERE prompt_id = ?")?;
        Ok(match statement.query_row([prompt_id], |row| row.get(0))? {
            None => Stage::Elsewhere,
            Some(false) => Stage::Waiting,
            Some(true) => Stage::Running,
        })
    }

    /// How many prompts wait or run.
    pub fn remaining(&self) -> usize {
        self.writer.queue_length()
    }

    /// Drops all waiting prompts.
    pub fn clear_waiting(&self) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let gone = tx.execute("DELETE FROM queue WHERE running = 0", [])?;
            steps.add(-(gone as isize));
            Ok(())
        })
    }

    /// Drops waiting prompts of these ids; returns how many went.
    pub fn drop_waiting(&self, ids: Vec<String>) -> Result<usize> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let waiting = "SELECT count(*) FROM queue WHERE running = 0";
            let mut left: i64 = tx.prepare_cached(waiting)?.query_row([], |r| r.get(0))?;
            let mut statement = tx.prepare_cached(
                "DELETE FROM queue WHERE seq =
                 (SELECT seq FROM queue WHERE running = 0 AND prompt_id = ? ORDER BY number, seq LIMIT 1)",
            )?;
            let mut gone = 0;
            for id in &ids {
                if statement.execute([id])? > 0 {
                    steps.add(-1);
                    if left == 1 {
                        // Clients are told twice when the queue runs empty this way.
                        steps.add(0);
                    }
                    left -= 1;
                    gone += 1;
                }
            }
            Ok(gone)
        })
    }

    /// Gives a waiting prompt another number; false if it does not wait.
    pub fn renumber(&self, prompt_id: String, number: f64) -> Result<bool> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let sql = "UPDATE queue SET number = ? WHERE running = 0 AND prompt_id = ?";
            let found = tx.execute(sql, params![number, prompt_id])? > 0;
            if found {
                steps.add(0);
            }
            Ok(found)
        })
    }

    /// Replaces a waiting prompt's graph; false if it does not wait.
    pub fn replace_waiting(
        &self,
        prompt_id: String,
        prompt: Box<RawValue>,
        outputs: Vec<String>,
    ) -> Result<bool> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let sql = "UPDATE queue SET prompt = ?, outputs = ? WHERE running = 0 AND prompt_id = ?";
            let outputs = serde_json::to_string(&outputs)?;
            let found = tx.execute(sql, params![prompt.get(), outputs, prompt_id])? > 0;
            if found {
                steps.add(0);
            }
            Ok(found)
        })
    }

    /// Deals with prompts that were running when the process last ended; returns how many there were.
    pub fn recover(
        &self,
        how: Recovery,
        report: fn(&QueueItem) -> serde_json::Result<HistoryEntry>,
    ) -> Result<usize> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let interrupted = running(tx)?;
            for item in &interrupted {
                match how {
                    Recovery::RunAgain => {
                        tx.execute("UPDATE queue SET running = 0 WHERE seq = ?", [item.seq])?;
                    }
                    Recovery::Report => {
                        tx.execute("DELETE FROM queue WHERE seq = ?", [item.seq])?;
                        history::insert(tx, &report(item)?)?;
                        steps.add(-1);
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
