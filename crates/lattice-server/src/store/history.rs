//! Prompts that have ended.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Map, Value as Json};

use super::{Result, Store, json_column};

/// A finished prompt as `/history` shows it: `prompt`, `outputs`, `status`, `meta`.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// Its id; an entry of the same id is replaced.
    pub prompt_id: String,
    /// The entry.
    pub entry: Json,
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
    tx.prepare_cached("INSERT OR REPLACE INTO history (prompt_id, entry) VALUES (?, ?)")?
        .execute(params![entry.prompt_id, entry.entry.to_string()])?;
    Ok(())
}

impl Store {
    /// Entries oldest first.
    pub fn history(&self, page: Page) -> Result<Map<String, Json>> {
        let reader = self.reader.lock();
        let mut offset = page.offset;
        if offset < 0
            && let Some(max) = page.max_items
        {
            let count: i64 =
                reader.prepare_cached("SELECT count(*) FROM history")?.query_row([], |r| r.get(0))?;
            offset = count.saturating_sub(max);
        }
        let sql = "SELECT prompt_id, entry FROM history ORDER BY seq LIMIT ? OFFSET ?";
        let mut statement = reader.prepare_cached(sql)?;
        // SQLite reads a negative limit as none.
        let limit = page.max_items.map_or(-1, |m| m.max(0));
        let rows = statement.query_map([limit, offset.max(0)], |r| Ok((r.get(0)?, json_column(r, 1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One entry.
    pub fn history_entry(&self, prompt_id: &str) -> Result<Option<Json>> {
        let reader = self.reader.lock();
        let mut statement = reader.prepare_cached("SELECT entry FROM history WHERE prompt_id = ?")?;
        Ok(statement.query_row([prompt_id], |r| json_column(r, 0)).optional()?)
    }

    /// Drops entries of these ids (None: all).
    pub fn forget(&self, ids: Option<Vec<String>>) -> Result<()> {
        self.writer.run(move |tx| {
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
        self.writer.run(move |tx| {
            tx.execute(
                "DELETE FROM history WHERE seq <= (SELECT seq FROM history ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                [max as i64],
            )?;
            Ok(())
        })
    }
}
