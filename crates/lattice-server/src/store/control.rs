//! What people do to a queue beside adding to it: pause it, choose its order, move and edit what waits.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::value::RawValue;

use super::queue::{self, COLUMNS, ENTRY_COLUMNS, ORDER};
use super::{
    Durability, NewPrompt, QueueChange, QueueEntry, QueueItem, QueueOrder, Result, Store, StoreError,
};

/// Where to move a waiting prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    Front,
    /// After all others.
    Back,
    /// Before the waiting prompt of this id.
    Before(String),
    /// After the waiting prompt of this id.
    After(String),
}

/// What to change about a waiting prompt.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Its priority.
    pub priority: Option<i32>,
    /// What it computes.
    pub graph: Option<Graph>,
}

/// What a prompt computes, already validated.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The prompt after validation.
    pub prompt: Box<RawValue>,
    /// Output nodes to execute.
    pub outputs: Vec<String>,
    /// Another `extra_data`; none leaves it as it is.
    pub extra_data: Option<Box<RawValue>>,
}

/// Names of settings among the counters.
const PAUSED: &str = "paused";
const FAIR: &str = "fair";

/// Whether the queue is paused, and its order.
pub(super) fn settings(connection: &Connection) -> Result<(bool, QueueOrder)> {
    let sql = "SELECT value <> 0 FROM counters WHERE name = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut flag = |name| statement.query_row([name], |row| row.get(0)).optional();
    let (paused, fair) = (flag(PAUSED)?, flag(FAIR)?);
    let order = if fair == Some(true) { QueueOrder::Fair } else { QueueOrder::Number };
    Ok((paused == Some(true), order))
}

/// Sets a flag; false if it was set so already.
fn set(tx: &Transaction<'_>, name: &str, value: bool) -> Result<bool> {
    let sql = "INSERT INTO counters VALUES (?, ?)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
    let written = tx.execute(sql, params![name, value])?;
    Ok(written > 0)
}

impl Store {
    /// Lets no prompt be started, until further notice; one that runs goes on. With false, the opposite.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            if set(tx, PAUSED, paused)? {
                steps.add(0, if paused { QueueChange::Paused } else { QueueChange::Resumed });
            }
            Ok(())
        })
    }

    /// Chooses which prompt runs next.
    pub fn set_order(&self, order: QueueOrder) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            if set(tx, FAIR, order == QueueOrder::Fair)? {
                steps.add(0, QueueChange::Reordered);
            }
            Ok(())
        })
    }

    /// Whether the queue is paused, and its order.
    pub fn queue_settings(&self) -> Result<(bool, QueueOrder)> {
        settings(&self.reader.lock())
    }

    /// A waiting or running prompt; None if there is none of that id.
    pub fn queued(&self, prompt_id: &str) -> Result<Option<QueueItem>> {
        let reader = self.reader.lock();
        let sql =
            format!("SELECT {COLUMNS} FROM queue WHERE prompt_id = ? ORDER BY running DESC, {ORDER} LIMIT 1");
        Ok(reader.prepare_cached(&sql)?.query_row([prompt_id], queue::item).optional()?)
    }

    /// Puts a waiting prompt to another place. It takes the priority and the number of the prompt that it comes to
    /// stand beside.
    pub fn move_waiting(&self, prompt_id: String, place: Place) -> Result<QueueEntry> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let seq = waiting(tx, &prompt_id)?;
            let (anchor, after) = match &place {
                Place::Front => (queue::first(tx)?, false),
                Place::Back => (last(tx)?, true),
                Place::Before(other) => (Some(waiting(tx, other)?), false),
                Place::After(other) => (Some(waiting(tx, other)?), true),
            };
            if let Some(anchor) = anchor.filter(|&anchor| anchor != seq) {
                put_beside(tx, seq, anchor, after)?;
                steps.add(0, QueueChange::Moved { prompt_id });
            }
            read_entry(tx, seq)
        })
    }

    /// Changes a waiting prompt, which keeps its id and, among those of its priority, its place.
    pub fn edit_waiting(&self, prompt_id: String, edit: Edit) -> Result<QueueEntry> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let seq = waiting(tx, &prompt_id)?;
            if let Some(priority) = edit.priority {
                tx.execute("UPDATE queue SET priority = ? WHERE seq = ?", params![priority, seq])?;
            }
            if let Some(graph) = edit.graph {
                let outputs = serde_json::to_string(&graph.outputs)?;
                let sql = "UPDATE queue SET prompt = ?, outputs = ?, extra_data = ifnull(?, extra_data)
                           WHERE seq = ?";
                let extra_data = graph.extra_data.as_ref().map(|extra_data| extra_data.get());
                tx.execute(sql, params![graph.prompt.get(), outputs, extra_data, seq])?;
            }
            steps.add(0, QueueChange::Edited { prompt_id });
            read_entry(tx, seq)
        })
    }

    /// Drops a waiting prompt.
    pub fn remove_waiting(&self, prompt_id: String) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let seq = waiting(tx, &prompt_id)?;
            tx.execute("DELETE FROM queue WHERE seq = ?", [seq])?;
            steps.add(-1, QueueChange::Removed { prompt_id });
            Ok(())
        })
    }

    /// Queues prompts, all or none. One whose id is in the queue or the history already, or comes a second time, gets
    /// that which `new_id` makes. Returns their ids.
    pub fn enqueue_all(&self, prompts: Vec<NewPrompt>, new_id: fn() -> String) -> Result<Vec<String>> {
        self.writer.run(Durability::Now, move |tx, steps| {
            let sql = "SELECT EXISTS (SELECT 1 FROM queue WHERE prompt_id = ?1)
                           OR EXISTS (SELECT 1 FROM history WHERE prompt_id = ?1)";
            let mut ids = Vec::with_capacity(prompts.len());
            for mut new in prompts {
                let taken: bool = tx.prepare_cached(sql)?.query_row([&new.prompt_id], |row| row.get(0))?;
                if taken {
                    new.prompt_id = new_id();
                }
                ids.push(new.prompt_id.clone());
                queue::insert(tx, steps, new)?;
            }
            Ok(ids)
        })
    }
}

/// The waiting prompt of an id, the first to run if there are several.
fn waiting(tx: &Transaction<'_>, prompt_id: &str) -> Result<i64> {
    let sql = format!("SELECT seq, running FROM queue WHERE prompt_id = ? ORDER BY running, {ORDER} LIMIT 1");
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match tx.prepare_cached(&sql)?.query_row([prompt_id], read).optional()? {
        Some((seq, false)) => Ok(seq),
        Some((_, true)) => Err(StoreError::Running(prompt_id.to_owned())),
        None => Err(StoreError::NotQueued(prompt_id.to_owned())),
    }
}

/// The waiting prompt that runs last.
fn last(tx: &Transaction<'_>) -> Result<Option<i64>> {
    let sql = "SELECT seq FROM queue WHERE running = 0
               ORDER BY priority, number DESC, place DESC, prompt_id DESC, seq DESC LIMIT 1";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?)
}

/// Gives a prompt the priority and number of another and a place next to it. Places are counted up to -1, so that
/// prompts that get the same number later (their place is 0) come after all of these.
fn put_beside(tx: &Transaction<'_>, seq: i64, anchor: i64, after: bool) -> Result<()> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (priority, number): (i32, f64) =
        tx.query_row("SELECT priority, number FROM queue WHERE seq = ?", [anchor], read)?;
    let same = "SELECT seq FROM queue WHERE running = 0 AND priority = ? AND number = ? AND seq <> ?
                ORDER BY place, prompt_id, seq";
    let mut statement = tx.prepare_cached(same)?;
    let rows = statement.query_map(params![priority, number, seq], |row| row.get(0))?;
    let mut same: Vec<i64> = rows.collect::<rusqlite::Result<_>>()?;
    let at = same.iter().position(|&other| other == anchor).unwrap_or(0) + usize::from(after);
    same.insert(at, seq);
    let mut update =
        tx.prepare_cached("UPDATE queue SET priority = ?, number = ?, place = ? WHERE seq = ?")?;
    for (index, &member) in same.iter().enumerate() {
        update.execute(params![priority, number, index as i64 - same.len() as i64, member])?;
    }
    Ok(())
}

fn read_entry(tx: &Transaction<'_>, seq: i64) -> Result<QueueEntry> {
    let sql = format!("SELECT {ENTRY_COLUMNS} FROM queue WHERE seq = ?");
    Ok(tx.prepare_cached(&sql)?.query_row([seq], queue::entry)?)
}
