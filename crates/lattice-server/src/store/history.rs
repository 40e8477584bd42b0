//! Prompts that have ended.

use indexmap::IndexMap;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::value::RawValue;

use super::{Durability, Result, Store, raw_column};

/// A finished prompt as `/history` shows it: `prompt`, `outputs`, `status`, `meta`.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// Its id; an entry of the same id is replaced.
    pub prompt_id: String,
    /// The entry.
    pub entry: Box<RawValue>,
}

/// Which entries to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// At most so many.
    pub max_items: Option<i64>,
    /// From this index; negative: the newest `max_items`.
    pub offset: i64,
}

/// Adds an entry at the end; one of the same id moves there, as when a dictionary key is removed and set again.
pub(super) fn insert(tx: &Transaction<'_>, entry: &HistoryEntry) -> Result<()> {
    tx.prepare_cached("DELETE FROM history WHERE prompt_id = ?")?.execute([&entry.prompt_id])?;
    tx.prepare_cached("INSERT INTO history (prompt_id) VALUES (?)")?.execute([&entry.prompt_id])?;
    tx.prepare_cached("INSERT INTO history_entry (seq, entry) VALUES (?, ?)")?
        .execute(params![tx.last_insert_rowid(), entry.entry.get()])?;
    Ok(())
}

const ENTRIES: &str =
    "SELECT prompt_id, entry FROM history JOIN history_entry USING (seq) WHERE seq >= ? ORDER BY seq LIMIT ?";

impl Store {
    /// Entries oldest first.
    pub fn history(&self, page: Page) -> Result<IndexMap<String, Box<RawValue>>> {
        let reader = self.reader.lock();
        // SQLite reads a negative limit as none.
        let limit = page.max_items.map_or(-1, |max| max.max(0));
        let Some(first) = first_of(&reader, page)? else { return Ok(IndexMap::new()) };
        let mut statement = reader.prepare_cached(ENTRIES)?;
        let rows = statement.query_map([first, limit], |r| Ok((r.get(0)?, raw_column(r, "entry")?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One entry.
    pub fn history_entry(&self, prompt_id: &str) -> Result<Option<Box<RawValue>>> {
        let reader = self.reader.lock();
        let sql = "SELECT entry FROM history JOIN history_entry USING (seq) WHERE prompt_id = ?";
        let mut statement = reader.prepare_cached(sql)?;
        Ok(statement.query_row([prompt_id], |r| raw_column(r, "entry")).optional()?)
    }

    /// Drops entries of these ids (None: all).
    pub fn forget(&self, ids: Option<Vec<String>>) -> Result<()> {
        self.writer.run(Durability::Now, move |tx, _| {
            match ids {
                None => {
                    tx.execute("DELETE FROM history", [])?;
                }
                Some(ids) => {
                    let mut statement = tx.prepare_cached("DELETE FROM history WHERE prompt_id = ?")?;
                    for id in &ids {
                        statement.execute([id])?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Keeps only the newest `max` entries.
    pub fn trim_history(&self, max: usize) -> Result<()> {
        self.writer.run(Durability::Later, move |tx, _| {
            tx.execute(
                "DELETE FROM history WHERE seq <= (SELECT seq FROM history ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                [max as i64],
            )?;
            Ok(())
        })
    }
}

/// Place of the first entry of a page; None if the page lies behind the end.
fn first_of(reader: &Connection, page: Page) -> Result<Option<i64>> {
    let (order, offset) = match page {
        Page { offset: 0.., .. } => ("ASC", page.offset),
        Page { max_items: None | Some(..=0), .. } => return Ok(Some(0)),
        // The newest entries: the first of them is found from the end.
        Page { max_items: Some(max), .. } => ("DESC", max - 1),
    };
    let sql = format!("SELECT seq FROM history ORDER BY seq {order} LIMIT 1 OFFSET ?");
    let found = reader.prepare_cached(&sql)?.query_row([offset], |r| r.get(0)).optional()?;
    // Fewer entries than the page holds: all of them.
    Ok(if order == "DESC" { found.or(Some(0)) } else { found })
}
