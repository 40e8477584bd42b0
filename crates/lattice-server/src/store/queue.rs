//! Prompts that wait or run.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::writer::Steps;
use super::{
    Durability, HistoryEntry, QueueChange, Result, Store, control, history, json_column, raw_column, turns,
};

/// A prompt to queue, already validated.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// Its id.
    pub prompt_id: String,
    /// Its place in the queue.
    pub number: Number,
    /// Those of higher priority run first.
    pub priority: i32,
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
    /// Those of higher priority run first.
    pub priority: i32,
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

/// A queued or running prompt without its graph.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct QueueEntry {
    /// Its id.
    pub prompt_id: String,
    /// Its number: among prompts of one priority, lower ones run first.
    pub number: f64,
    /// Prompts of higher priority run first.
    pub priority: i32,
    /// The client that queued it and gets its events.
    #[schema(required)]
    pub client_id: Option<String>,
    /// How often it was started before and cut short.
    pub attempts: i64,
}

/// Which of the waiting prompts of the highest priority runs next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// That with the lowest number: the one that was queued first, unless clients say otherwise.
    #[default]
    Number,
    /// Clients take turns, so that one with many prompts does not keep the others waiting; each one's own prompts run
    /// by their number.
    Fair,
}

/// What the queue holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueueState {
    /// No prompt is started.
    pub paused: bool,
    /// Which prompt runs next.
    pub order: QueueOrder,
    /// What runs.
    pub running: Vec<QueueEntry>,
    /// What waits, in the order in which it will run.
    pub waiting: Vec<QueueEntry>,
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
pub(super) const COLUMNS: &str =
    "seq, attempts, prompt_id, number, priority, client_id, prompt, extra_data, outputs";

/// What [`entry`] reads.
pub(super) const ENTRY_COLUMNS: &str = "attempts, prompt_id, number, priority, client_id";

/// The order in which prompts run as long as clients do not take turns.
pub(super) const ORDER: &str = "priority DESC, number, place, prompt_id, seq";

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<QueueEntry> {
    Ok(QueueEntry {
        attempts: row.get("attempts")?,
        prompt_id: row.get("prompt_id")?,
        number: row.get("number")?,
        priority: row.get("priority")?,
        client_id: row.get("client_id")?,
    })
}

pub(super) fn item(row: &Row<'_>) -> rusqlite::Result<QueueItem> {
    Ok(QueueItem {
        seq: row.get("seq")?,
        attempts: row.get("attempts")?,
        prompt_id: row.get("prompt_id")?,
        number: row.get("number")?,
        priority: row.get("priority")?,
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

/// Adds a prompt; returns its number.
pub(super) fn insert(tx: &Transaction<'_>, steps: &mut Steps, new: NewPrompt) -> Result<f64> {
    let number = match new.number {
        Number::Next => next_number(tx)? as f64,
        Number::Front => -(next_number(tx)? as f64),
        Number::Given(number) => number,
    };
    tx.prepare_cached(
        "INSERT INTO queue (prompt_id, number, priority, client_id, prompt, extra_data, outputs)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        new.prompt_id,
        number,
        new.priority,
        new.client_id,
        new.prompt.get(),
        new.extra_data.get(),
        serde_json::to_string(&new.outputs)?,
    ])?;
    steps.add(1, QueueChange::Queued { prompt_id: new.prompt_id });
    Ok(number)
}

impl Store {
    /// Queues a prompt; returns its number once it is on disk.
    pub fn enqueue(&self, new: NewPrompt) -> Result<f64> {
        self.writer.run(Durability::Now, move |tx, steps| insert(tx, steps, new))
    }

    /// Takes the next prompt and marks it as running; None if nothing waits or the queue is paused.
    pub fn take_next(&self) -> Result<Option<QueueItem>> {
        // Lost in a power cut, the mark leaves a waiting prompt, which will run: nothing to wait for the disk for.
        self.writer.run(Durability::Later, |tx, steps| {
            let (paused, order) = control::settings(tx)?;
            if paused {
                return Ok(None);
            }
            let seq = match order {
                QueueOrder::Number => first(tx)?,
                QueueOrder::Fair => turns::take(tx)?,
            };
            let Some(seq) = seq else { return Ok(None) };
            let sql = format!("SELECT {COLUMNS} FROM queue WHERE seq = ?");
            let next = tx.prepare_cached(&sql)?.query_row([seq], item)?;
            tx.prepare_cached("UPDATE queue SET running = 1, attempts = attempts + 1 WHERE seq = ?")?
                .execute([seq])?;
            steps.add(0, QueueChange::Started { prompt_id: next.prompt_id.clone() });
            Ok(Some(next))
        })
    }

    /// Ends a running prompt: it leaves the queue and enters the history in one step. A power cut may undo the step
    /// while nothing that was queued later has been answered; then the prompt runs again.
    pub fn finish(&self, seq: i64, entry: HistoryEntry) -> Result<()> {
        self.writer.run(Durability::Later, move |tx, steps| {
            let gone = tx.prepare_cached("DELETE FROM queue WHERE seq = ?")?.execute([seq])?;
            steps.add(-(gone as isize), QueueChange::Finished { prompt_id: entry.prompt_id.clone() });
            history::insert(tx, &entry)
        })
    }

    /// Puts a running prompt back to its place in the queue (graceful shutdown). Nothing happens if it runs no longer.
    pub fn put_back(&self, seq: i64) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let sql = "UPDATE queue SET running = 0, attempts = attempts - 1 WHERE seq = ? AND running = 1
                       RETURNING prompt_id, client";
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let found: Option<(String, String)> = tx.query_row(sql, [seq], read).optional()?;
            if let Some((prompt_id, client)) = found {
                turns::give_back(tx, &client)?;
                steps.add(0, QueueChange::PutBack { prompt_id });
            }
            Ok(())
        })
    }

    /// Prompts that run, and those that wait in the order they will run.
    pub fn queue(&self) -> Result<(Vec<QueueItem>, Vec<QueueItem>)> {
        let reader = self.reader.lock();
        let key = |item: &QueueItem| (item.priority, item.client_id.clone().unwrap_or_default());
        list(&reader, COLUMNS, item, key)
    }

    /// The same without the graphs, and how the queue is set.
    pub fn state(&self) -> Result<QueueState> {
        let reader = self.reader.lock();
        let (paused, order) = control::settings(&reader)?;
        let key = |entry: &QueueEntry| (entry.priority, entry.client_id.clone().unwrap_or_default());
        let (running, waiting) = list(&reader, ENTRY_COLUMNS, entry, key)?;
        Ok(QueueState { paused, order, running, waiting })
    }

    /// How many prompts wait, and how many run.
    pub fn counts(&self) -> Result<(usize, usize)> {
        let reader = self.reader.lock();
        let mut statement = reader.prepare_cached("SELECT count(*) FROM queue WHERE running = ?")?;
        let mut count = |running: bool| statement.query_row([running], |row| row.get::<_, i64>(0));
        Ok((count(false)? as usize, count(true)? as usize))
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
            steps.add(-(gone as isize), QueueChange::Cleared);
            Ok(())
        })
    }

    /// Drops waiting prompts of these ids; returns how many went.
    pub fn drop_waiting(&self, ids: Vec<String>) -> Result<usize> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let waiting = "SELECT count(*) FROM queue WHERE running = 0";
            let mut left: i64 = tx.prepare_cached(waiting)?.query_row([], |r| r.get(0))?;
            let first = format!(
                "DELETE FROM queue WHERE seq = (
                     SELECT seq FROM queue WHERE running = 0 AND prompt_id = ? ORDER BY {ORDER} LIMIT 1)"
            );
            let mut statement = tx.prepare_cached(&first)?;
            let mut gone = 0;
            for id in &ids {
                if statement.execute([id])? > 0 {
                    steps.add(-1, QueueChange::Removed { prompt_id: id.clone() });
                    if left == 1 {
                        // Clients are told twice when the queue runs empty this way.
                        steps.again();
                    }
                    left -= 1;
                    gone += 1;
                }
            }
            Ok(gone)
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
                        turns::give_back(tx, item.client_id.as_deref().unwrap_or_default())?;
                    }
                    Recovery::Report => {
                        tx.execute("DELETE FROM queue WHERE seq = ?", [item.seq])?;
                        history::insert(tx, &report(item)?)?;
                        steps.add(-1, QueueChange::Finished { prompt_id: item.prompt_id.clone() });
                    }
                }
            }
            Ok(interrupted.len())
        })
    }
}

/// The waiting prompt that runs next as long as clients do not take turns.
pub(super) fn first(tx: &Connection) -> Result<Option<i64>> {
    let sql = format!("SELECT seq FROM queue WHERE running = 0 ORDER BY {ORDER} LIMIT 1");
    Ok(tx.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?)
}

/// What runs and what waits, each in the order in which it will run. One statement reads both, so that a prompt that is
/// started meanwhile is in one of them.
fn list<T>(
    connection: &Connection,
    columns: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    key: impl Fn(&T) -> (i32, String),
) -> Result<(Vec<T>, Vec<T>)> {
    let sql = format!("SELECT running, {columns} FROM queue ORDER BY running, {ORDER}");
    let mut statement = connection.prepare_cached(&sql)?;
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let list = if row.get("running")? { &mut running } else { &mut waiting };
        list.push(read(row)?);
    }
    if control::settings(connection)?.1 == QueueOrder::Fair {
        waiting = turns::arrange(waiting, key, turns::all(connection)?);
    }
    Ok((running, waiting))
}

fn running(tx: &Transaction<'_>) -> Result<Vec<QueueItem>> {
    let mut statement = tx.prepare(&format!("SELECT {COLUMNS} FROM queue WHERE running = 1"))?;
    Ok(statement.query_map([], item)?.collect::<rusqlite::Result<_>>()?)
}
